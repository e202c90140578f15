//! `[balancer.probe]`: how a balancer's daemon finds out whether backends serve. `[backend.health]`: what a backend says of itself.
use super::{Invalid, SettingsError, Size, toml_file::Checked};
use crate::model::{AbsolutePath, Domain, Span, parse_domain};
use serde::Deserialize;
use std::net::SocketAddr;

/// `[balancer.probe]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How often each backend is probed.
    pub interval: Span,
    /// How long it may take to accept a connection, and then to answer.
    pub timeout: Span,
    /// So many probes in a row must fail; 0: no probe takes a backend out.
    pub failures: u8,
    /// So many probes in a row must be answered before it comes back.
    pub successes: u8,
    /// A page of a site that every backend must be able to show.
    pub canary: Option<Canary>,
    /// How often it is asked for.
    pub canary_interval: Span,
    /// How long it may take; it may have to wake.
    pub canary_timeout: Span,
}

/// `http://HOST/PATH` of a real site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The host.
    pub host: Domain,
    /// The path, and what is behind it.
    pub target: String,
}

impl Canary {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            let why = "write it like http://canary.example/path: it is asked for at the backends, without TLS";
            Invalid::new("a canary", text, why)
        };
        let rest = text.strip_prefix("http://").ok_or_else(refuse)?;
        let slash = rest.find('/').unwrap_or(rest.len());
        let (host, target) = rest.split_at(slash);
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !target.bytes().all(is_plain) {
            return Err(refuse());
        }
        let target = if target.is_empty() { "/" } else { target };
        Ok(Self {
            host: parse_domain(host)?,
            target: target.to_owned(),
        })
    }
}

/// `[backend.health]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Directories or files on the storage that all backends share: if one cannot be read, this machine serves no site.
    pub storage: Vec<AbsolutePath>,
    /// How long reading it may take.
    pub storage_timeout: Span,
    /// With less memory than this, in bytes, it says that it cannot serve.
    pub min_memory: u64,
    /// With less disk than this, in bytes, where it keeps its state and logs.
    pub min_disk: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProbeFile {
    interval: Option<String>,
    timeout: Option<String>,
    failures: Option<u8>,
    successes: Option<u8>,
    canary: Option<String>,
    canary_interval: Option<String>,
    canary_timeout: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HealthFile {
    storage: Vec<String>,
    storage_timeout: Option<String>,
    min_memory: Option<String>,
    min_disk: Option<String>,
}

impl Checked<'_> {
    pub(super) fn probe(&self, raw: ProbeFile) -> Result<Probe, SettingsError> {
        let canary = raw.canary.as_deref().map(Canary::parse).transpose();
        let successes = raw.successes.unwrap_or(2);
        if successes == 0 {
            let why = "it must be 1 to 255";
            return Err(self.invalid(
                "balancer.probe.successes",
                Invalid::new("a number of probes", "0", why),
            ));
        }
        Ok(Probe {
            interval: self.span("balancer.probe.interval", raw.interval, "250ms")?,
            timeout: self.span("balancer.probe.timeout", raw.timeout, "300ms")?,
            failures: raw.failures.unwrap_or(2),
            successes,
            canary: self.check("balancer.probe.canary", canary)?,
            canary_interval: self.span(
                "balancer.probe.canary_interval",
                raw.canary_interval,
                "5s",
            )?,
            canary_timeout: self.span(
                "balancer.probe.canary_timeout",
                raw.canary_timeout,
                "10s",
            )?,
        })
    }

    /// Whoever can connect there sees which backends there are and how they do: nobody from outside may.
    pub(super) fn status(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, SettingsError> {
        match address {
            Some(open) if !open.ip().is_loopback() => {
                let why = "it must be one of this machine only, like 127.0.0.1:9180; for others put `paas_status` into a server of your own, with allow and deny";
                let invalid = Invalid::new("an address", &open.to_string(), why);
                Err(self.invalid("balancer.status", invalid))
            }
            address => Ok(address),
        }
    }

    pub(super) fn health(&self, raw: HealthFile) -> Result<Health, SettingsError> {
        let bytes = |key, text: Option<String>, default: &str| {
            let size = Size::parse(text.as_deref().unwrap_or(default));
            self.check(key, size).map(|size| size.bytes())
        };
        Ok(Health {
            storage: raw
                .storage
                .iter()
                .map(|path| self.path("backend.health.storage", path))
                .collect::<Result<_, _>>()?,
            storage_timeout: self.span(
                "backend.health.storage_timeout",
                raw.storage_timeout,
                "5s",
            )?,
            min_memory: bytes("backend.health.min_memory", raw.min_memory, "0")?,
            min_disk: bytes("backend.health.min_disk", raw.min_disk, "16m")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_a_page_of_a_site() {
        let canary = Canary::parse("http://canary.example/a?b=c").unwrap();
        assert_eq!(
            (canary.host.as_str(), &*canary.target),
            ("canary.example", "/a?b=c")
        );
        assert_eq!(Canary::parse("http://a.example").unwrap().target, "/");
        for bad in [
            "",
            "a.example/",
            "https://a.example/",
            "http:///x",
            "http://a.example:80/",
            "http://a.example/ x",
            "http://a.example/\r\nX: y",
            "http://10.0.0.1/",
        ] {
            assert!(Canary::parse(bad).is_err(), "{bad:?}");
        }
    }
}
