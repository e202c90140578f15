//! The machine's settings, `etc/paas/paas.toml` below the root: what a machine is, where it listens, its limits.
//! Everything has a default; an unknown key is refused. Relative paths in the file are taken below the root, absolute
//! ones as they stand.
use crate::logs::rotate::Bound;
use crate::model::{AbsolutePath, Idle, Invalid, Span, UidRange};
use crate::paths::{Paths, SocketPattern};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What can be wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is there but cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML, or has an unknown key or a value of a wrong kind.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that is not allowed.
    #[error("{}: {key}: {source}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        source: Invalid,
    },
    /// The root cannot be used.
    #[error("the root {root:?} cannot be used: {why}")]
    Root {
        /// The root.
        root: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its nginx routes to backends.
    Balancer,
    /// It runs sites.
    Backend,
}

/// Where the balancer's list of backends comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendsFrom {
    /// From the table, which the daemon keeps up to date: no reload for a new backend.
    Live,
    /// From `server` lines that `paasctl render` writes: no daemon on the balancer.
    Static,
}

/// nginx's `worker_processes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each core.
    Auto,
    /// That many.
    Count(u16),
}

/// `[nginx]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nginx {
    /// The program.
    pub binary: AbsolutePath,
    /// Our module.
    pub module: AbsolutePath,
    /// The account of nginx's workers; its group may connect to sites and read the table.
    pub user: String,
    /// How many workers.
    pub workers: Workers,
}

/// A size in bytes as nginx writes it: digits, then nothing, `k`, `m` or `g`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size(String);

impl Size {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = text
            .strip_suffix(['k', 'm', 'g', 'K', 'M', 'G'])
            .unwrap_or(text);
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Invalid::new(
                "a size",
                text,
                "write it like 100m, 64k or 1g",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In bytes.
    pub fn bytes(&self) -> u64 {
        let digits = self.0.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match self.0.as_bytes().last() {
            Some(b'k' | b'K') => 10,
            Some(b'm' | b'M') => 20,
            Some(b'g' | b'G') => 30,
            _ => 0,
        };
        digits.parse::<u64>().unwrap_or(0) << shift
    }
}

/// `[balancer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    /// Where it listens for http.
    pub listen: Vec<SocketAddr>,
    /// Where it listens for https, if there is a certificate.
    pub https_listen: Vec<SocketAddr>,
    /// The certificate and its key: both or none.
    pub certificate: Option<Certificate>,
    /// From the table or from rendered lines.
    pub backends: BackendsFrom,
    /// The largest request body.
    pub client_max_body_size: Size,
    /// How long a backend may take to accept a connection.
    pub connect_timeout: Span,
    /// How long a backend may be silent.
    pub read_timeout: Span,
    /// Whether it answers on its addresses for every name that no other server of the same nginx has.
    pub default_server: bool,
    /// Idle connections to backends that each worker keeps.
    pub keepalive: u16,
    /// When a backend that fails is left out.
    pub eject: Eject,
    /// How backends are probed.
    pub probe: Probe,
    /// Where it tells, on this machine only, what it knows of backends and has counted.
    pub status: Option<SocketAddr>,
}

/// Where a certificate lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM.
    pub certificate: AbsolutePath,
    /// Its key, PEM.
    pub key: AbsolutePath,
}

/// An address block: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network(String);

impl Network {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid::new(
                "an address block",
                text,
                "write it like 10.0.0.0/8 or 2001:db8::/32",
            )
        };
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: std::net::IpAddr = address.parse().map_err(|_| refuse())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match bits {
            Some(bits)
                if bits.len() > 3
                    || !bits.bytes().all(|b| b.is_ascii_digit())
                    || bits.parse().map_or(true, |bits: u16| bits > most) =>
            {
                Err(refuse())
            }
            Some(bits) => Ok(Self(format!("{address}/{bits}"))),
            None => Ok(Self(address.to_string())),
        }
    }

    /// As nginx reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[backend]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where its nginx listens for balancers.
    pub listen: SocketAddr,
    /// Whose word about the visitor's address and scheme is believed: the balancers.
    pub trusted: Vec<Network>,
    /// Where sites' sockets lie.
    pub socket_path: SocketPattern,
    /// How long a site may be silent.
    pub read_timeout: Span,
    /// How long a site may take to start.
    pub start_timeout: Span,
    /// After how long without a request a site sleeps, unless it says otherwise.
    pub idle: Idle,
    /// The uWSGI program.
    pub uwsgi: AbsolutePath,
    /// The Emperor's wrapper, `paas-launch`.
    pub launcher: AbsolutePath,
    /// uWSGI processes for each site.
    pub workers: u16,
    /// When it says that it cannot serve.
    pub health: Health,
    /// How large each of a site's logs may become, and how many older files of it there are.
    pub logs: Bound,
}

/// The settings of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The machine's name; on a backend, the name it has in the registry.
    pub name: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// The uids that users get.
    pub uid_range: UidRange,
    /// `[nginx]`
    pub nginx: Nginx,
    /// `[balancer]`
    pub balancer: Balancer,
    /// `[backend]`
    pub backend: Backend,
    /// `[waking]`
    pub waking: Waking,
    /// `[sandbox]` and `[limits]`
    pub sandbox: Sandbox,
    paths: Paths,
}

impl Settings {
    /// Reads the settings of the machine whose files lie below `root`. A missing file means all defaults.
    pub fn load(root: &Path) -> Result<Self, SettingsError> {
        let root = std::path::absolute(root).map_err(|source| SettingsError::Root {
            root: root.into(),
            why: source.to_string(),
        })?;
        let file = root.join("etc/paas/paas.toml");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(SettingsError::Read { path: file, source }),
        };
        Self::parse(&root, &file, &text)
    }

    /// Where everything lies.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether the machine has that role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub(crate) fn parse(root: &Path, file: &Path, text: &str) -> Result<Self, SettingsError> {
        let raw: toml_file::File = toml::from_str(text).map_err(|source| SettingsError::Toml {
            path: file.into(),
            source: Box::new(source),
        })?;
        toml_file::Checked { root, file }.settings(raw)
    }
}

#[path = "settings_eject.rs"]
mod eject;
#[path = "settings_health.rs"]
mod health;
#[path = "settings_sandbox.rs"]
mod sandbox;
#[path = "settings_file.rs"]
mod toml_file;
#[path = "settings_waking.rs"]
mod waking;

pub use eject::Eject;
pub use health::{Canary, Health, Probe};
pub use sandbox::Sandbox;
pub use waking::Waking;

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
