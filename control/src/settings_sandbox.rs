//! `[sandbox]`: what sites see of this machine and where they may connect to; and `[limits]`: what a user may have of it.
use super::{AbsolutePath, Invalid, Network, SettingsError, toml_file::Checked};
use crate::model::{self, Bytes, Cpu, CpuWeight, Descriptors, Limits, Processes, Span};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};

/// `[sandbox]` and `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether sites run in one, when the daemon is root.
    pub enabled: bool,
    /// bubblewrap.
    pub bwrap: AbsolutePath,
    /// Shown to every site, read-only, beside the system.
    pub shown: Vec<AbsolutePath>,
    /// The /16 that outbound sites have their addresses in.
    pub range: Ipv4Addr,
    /// Whom outbound sites ask for names; none: the machine's own.
    pub nameservers: Vec<IpAddr>,
    /// Private address blocks that outbound sites may connect to nevertheless.
    pub open: Vec<Network>,
    /// Address blocks that they may not connect to, beside private ones and the platform's own.
    pub closed: Vec<Network>,
    /// What a user has of whom nothing else is said.
    pub limits: Limits,
    /// What a user has left, in per cent of one core, whose CPU time for the day is used up.
    pub tarpit: Cpu,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SandboxFile {
    enabled: Option<bool>,
    bwrap: Option<String>,
    shown: Vec<String>,
    network: Option<model::Network>,
    range: Option<String>,
    nameservers: Vec<IpAddr>,
    open: Vec<String>,
    closed: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsFile {
    memory: Option<Bytes>,
    processes: Option<Processes>,
    cpu: Option<Cpu>,
    weight: Option<CpuWeight>,
    cpu_per_day: Option<Span>,
    tarpit: Option<Cpu>,
    descriptors: Option<Descriptors>,
    temporary: Option<Bytes>,
}

impl Checked<'_> {
    pub(super) fn sandbox(
        &self,
        raw: SandboxFile,
        limits: LimitsFile,
    ) -> Result<Sandbox, SettingsError> {
        let blocks = |key, blocks: Vec<String>| -> Result<Vec<Network>, SettingsError> {
            blocks
                .iter()
                .map(|block| self.check(key, v4_block(block)))
                .collect()
        };
        let shown = raw
            .shown
            .iter()
            .map(|path| self.path("sandbox.shown", path));
        Ok(Sandbox {
            enabled: raw.enabled.unwrap_or(true),
            bwrap: self.path(
                "sandbox.bwrap",
                raw.bwrap.as_deref().unwrap_or("/usr/bin/bwrap"),
            )?,
            shown: shown.collect::<Result<_, _>>()?,
            range: self.check(
                "sandbox.range",
                range(raw.range.as_deref().unwrap_or("10.213.0.0/16")),
            )?,
            nameservers: raw.nameservers,
            open: blocks("sandbox.open", raw.open)?,
            closed: blocks("sandbox.closed", raw.closed)?,
            limits: Limits {
                memory: limits.memory.or(Bytes::new(1 << 30)),
                processes: Some(limits.processes.unwrap_or(Processes::constant(256))),
                cpu: limits.cpu,
                weight: Some(limits.weight.unwrap_or(CpuWeight::constant(100))),
                cpu_per_day: limits.cpu_per_day,
                descriptors: Some(limits.descriptors.unwrap_or(Descriptors::constant(4096))),
                temporary: limits.temporary.or(Bytes::new(64 << 20)),
                network: Some(raw.network.unwrap_or(model::Network::None)),
            },
            tarpit: limits.tarpit.unwrap_or(Cpu::constant(5)),
        })
    }
}

/// Sites have no other addresses.
fn v4_block(text: &str) -> Result<Network, Invalid> {
    let block = Network::parse(text)?;
    match text.contains(':') {
        true => Err(Invalid::new(
            "an IPv4 address block",
            text,
            "sites have no IPv6, so there is nothing to open or close",
        )),
        false => Ok(block),
    }
}

/// `10.213.0.0/16`
fn range(text: &str) -> Result<Ipv4Addr, Invalid> {
    let address = text
        .strip_suffix("/16")
        .and_then(|address| address.parse::<Ipv4Addr>().ok());
    address
        .filter(|address| address.is_private() && address.to_bits() & 0xffff == 0)
        .ok_or_else(|| {
            Invalid::new(
                "a range for sites' addresses",
                text,
                "write a private /16, like 10.213.0.0/16",
            )
        })
}
