//! The shape of `paas.toml`, its defaults, and the way from it to checked settings.
use super::*;
use crate::logs::rotate::{Bound, LEAST};
use crate::model::Bytes;
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    root: Option<String>,
    name: Option<String>,
    roles: Option<Vec<Role>>,
    registry: Option<String>,
    uid_range: Option<[u32; 2]>,
    nginx: NginxFile,
    balancer: BalancerFile,
    backend: BackendFile,
    waking: waking::WakingFile,
    sandbox: sandbox::SandboxFile,
    limits: sandbox::LimitsFile,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NginxFile {
    binary: Option<String>,
    module: Option<String>,
    user: Option<String>,
    workers: Option<WorkersFile>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"auto\" or a number")]
enum WorkersFile {
    Count(u16),
    Word(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct BalancerFile {
    listen: Option<Vec<SocketAddr>>,
    https_listen: Option<Vec<SocketAddr>>,
    certificate: Option<String>,
    certificate_key: Option<String>,
    backends: Option<BackendsFrom>,
    client_max_body_size: Option<String>,
    connect_timeout_ms: Option<u64>,
    read_timeout: Option<String>,
    default_server: Option<bool>,
    keepalive: Option<u16>,
    eject: eject::EjectFile,
    probe: health::ProbeFile,
    status: Option<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct BackendFile {
    listen: Option<SocketAddr>,
    trusted: Option<Vec<String>>,
    socket_path: Option<String>,
    read_timeout: Option<String>,
    start_timeout: Option<String>,
    idle: Option<String>,
    uwsgi: Option<String>,
    launcher: Option<String>,
    workers: Option<u16>,
    health: health::HealthFile,
    log_size: Option<String>,
    log_keep: Option<u32>,
}

/// Knows where the values came from, for messages and for relative paths.
pub(super) struct Checked<'a> {
    pub root: &'a Path,
    pub file: &'a Path,
}

impl Checked<'_> {
    pub(super) fn settings(&self, raw: File) -> Result<Settings, SettingsError> {
        let root = match &raw.root {
            Some(root) => self.path("root", root)?,
            None => self.check("root", AbsolutePath::parse(&self.root.to_string_lossy()))?,
        };
        let registry = raw
            .registry
            .map(|path| self.path("registry", &path))
            .transpose()?;
        let socket_path = match &raw.backend.socket_path {
            Some(pattern) => self.check("backend.socket_path", SocketPattern::parse(pattern))?,
            None => SocketPattern::below(&root),
        };
        let paths = Paths::new(root, self.root, registry, socket_path.clone())?;
        let uid_range = raw.uid_range.unwrap_or([200_000, 265_535]);
        let mut roles = raw
            .roles
            .unwrap_or_else(|| vec![Role::Balancer, Role::Backend]);
        roles.dedup();
        if roles.is_empty() {
            return Err(self.invalid(
                "roles",
                Invalid::new(
                    "a list of roles",
                    "[]",
                    "name \"balancer\", \"backend\" or both",
                ),
            ));
        }
        Ok(Settings {
            name: self.name(raw.name)?,
            roles,
            uid_range: self.check("uid_range", UidRange::new(uid_range[0], uid_range[1]))?,
            nginx: self.nginx(raw.nginx)?,
            balancer: self.balancer(raw.balancer)?,
            backend: self.backend(raw.backend, socket_path)?,
            waking: self.waking(raw.waking)?,
            sandbox: self.sandbox(raw.sandbox, raw.limits)?,
            paths,
        })
    }

    fn nginx(&self, raw: NginxFile) -> Result<Nginx, SettingsError> {
        let user = raw.user.unwrap_or_else(|| "www-data".to_owned());
        if user.is_empty()
            || user.starts_with('-')
            || !user
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(self.invalid(
                "nginx.user",
                Invalid::new(
                    "an account's name",
                    &user,
                    "only letters, digits, -, _ and . may stand in it",
                ),
            ));
        }
        let workers = match raw.workers {
            None => Workers::Auto,
            Some(WorkersFile::Word(word)) if word == "auto" => Workers::Auto,
            Some(WorkersFile::Count(count @ 1..=1024)) => Workers::Count(count),
            Some(WorkersFile::Count(count)) => {
                return Err(self.invalid(
                    "nginx.workers",
                    Invalid::new(
                        "a number of workers",
                        &count.to_string(),
                        "it must be 1 to 1024",
                    ),
                ));
            }
            Some(WorkersFile::Word(word)) => {
                return Err(self.invalid(
                    "nginx.workers",
                    Invalid::new("a number of workers", &word, "write \"auto\" or a number"),
                ));
            }
        };
        Ok(Nginx {
            binary: self.path(
                "nginx.binary",
                raw.binary.as_deref().unwrap_or("/usr/sbin/nginx"),
            )?,
            module: self.path(
                "nginx.module",
                raw.module
                    .as_deref()
                    .unwrap_or("/usr/lib/nginx/modules/ngx_http_paas_module.so"),
            )?,
            user,
            workers,
        })
    }

    fn balancer(&self, raw: BalancerFile) -> Result<Balancer, SettingsError> {
        let certificate = match (raw.certificate, raw.certificate_key) {
            (Some(certificate), Some(key)) => Some(Certificate {
                certificate: self.path("balancer.certificate", &certificate)?,
                key: self.path("balancer.certificate_key", &key)?,
            }),
            (None, None) => None,
            (Some(given), None) | (None, Some(given)) => {
                return Err(self.invalid(
                    "balancer.certificate",
                    Invalid::new(
                        "a certificate with its key",
                        &given,
                        "set both certificate and certificate_key, or none",
                    ),
                ));
            }
        };
        let millis = raw.connect_timeout_ms.unwrap_or(300);
        let connect_timeout = Span::from_millis(millis).ok_or_else(|| {
            self.invalid(
                "balancer.connect_timeout_ms",
                Invalid::new(
                    "a time-out",
                    &millis.to_string(),
                    "it must be more than 0 and at most 1000 days",
                ),
            )
        })?;
        Ok(Balancer {
            listen: raw.listen.unwrap_or_else(|| vec![any(80)]),
            https_listen: raw.https_listen.unwrap_or_else(|| vec![any(443)]),
            certificate,
            backends: raw.backends.unwrap_or(BackendsFrom::Live),
            client_max_body_size: self.check(
                "balancer.client_max_body_size",
                Size::parse(raw.client_max_body_size.as_deref().unwrap_or("100m")),
            )?,
            connect_timeout,
            read_timeout: self.span("balancer.read_timeout", raw.read_timeout, "75s")?,
            default_server: raw.default_server.unwrap_or(true),
            keepalive: raw.keepalive.unwrap_or(1024),
            eject: self.eject(raw.eject)?,
            probe: self.probe(raw.probe)?,
            status: self.status(raw.status)?,
        })
    }

    fn backend(
        &self,
        raw: BackendFile,
        socket_path: SocketPattern,
    ) -> Result<Backend, SettingsError> {
        let trusted = raw
            .trusted
            .unwrap_or_else(|| vec!["127.0.0.0/8".to_owned()]);
        let workers = raw.workers.unwrap_or(2);
        if !(1..=1024).contains(&workers) {
            return Err(self.invalid(
                "backend.workers",
                Invalid::new(
                    "a number of workers",
                    &workers.to_string(),
                    "it must be 1 to 1024",
                ),
            ));
        }
        let size = self.check(
            "backend.log_size",
            Bytes::parse(raw.log_size.as_deref().unwrap_or("8m")),
        )?;
        let keep = raw.log_keep.unwrap_or(3);
        for (key, number, range) in [
            ("backend.log_size", size.get(), LEAST..=1 << 40),
            ("backend.log_keep", keep.into(), 0..=1000),
        ] {
            if !range.contains(&number) {
                let why = format!("it must be {} to {}", range.start(), range.end());
                return Err(self.invalid(
                    key,
                    Invalid::new("a bound of logs", &number.to_string(), why),
                ));
            }
        }
        Ok(Backend {
            listen: raw
                .listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9001))),
            trusted: trusted
                .iter()
                .map(|block| self.check("backend.trusted", Network::parse(block)))
                .collect::<Result<_, _>>()?,
            socket_path,
            read_timeout: self.span("backend.read_timeout", raw.read_timeout, "70s")?,
            start_timeout: self.span("backend.start_timeout", raw.start_timeout, "60s")?,
            idle: self.check(
                "backend.idle",
                Idle::parse(raw.idle.as_deref().unwrap_or("10m")),
            )?,
            uwsgi: self.path(
                "backend.uwsgi",
                raw.uwsgi.as_deref().unwrap_or("/usr/bin/uwsgi"),
            )?,
            launcher: self.path(
                "backend.launcher",
                &raw.launcher.unwrap_or_else(beside_this_program),
            )?,
            workers,
            health: self.health(raw.health)?,
            logs: Bound {
                size: size.get(),
                keep,
            },
        })
    }

    fn name(&self, name: Option<String>) -> Result<String, SettingsError> {
        let name = name.unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        });
        self.check("name", crate::model::BackendName::parse(&name))
            .map(|name| name.to_string())
    }

    pub(super) fn span(
        &self,
        key: &'static str,
        text: Option<String>,
        default: &str,
    ) -> Result<Span, SettingsError> {
        self.check(key, Span::parse(text.as_deref().unwrap_or(default)))
    }

    pub(super) fn path(
        &self,
        key: &'static str,
        text: &str,
    ) -> Result<AbsolutePath, SettingsError> {
        let path = if text.starts_with('/') {
            text.to_owned()
        } else {
            format!("{}/{text}", self.root.to_string_lossy())
        };
        self.check(key, AbsolutePath::parse(&path))
    }

    pub(super) fn check<T>(
        &self,
        key: &'static str,
        value: Result<T, Invalid>,
    ) -> Result<T, SettingsError> {
        value.map_err(|source| self.invalid(key, source))
    }

    pub(super) fn invalid(&self, key: &'static str, source: Invalid) -> SettingsError {
        SettingsError::Value {
            path: self.file.into(),
            key,
            source,
        }
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// `paas-launch` beside the running program if it is there (a build tree), else where the package puts it.
fn beside_this_program() -> String {
    let beside = std::env::current_exe()
        .ok()
        .map(|program| program.with_file_name("paas-launch"));
    let found = beside
        .filter(|launcher| launcher.exists())
        .and_then(|launcher| launcher.to_str().map(str::to_owned));
    found.unwrap_or_else(|| "/usr/lib/paas/paas-launch".to_owned())
}
