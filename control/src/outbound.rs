//! The way out of sites that may connect to others: which packets pass from their devices, by the kernel's packet filter.
//!
//! What they may not reach: this host and everything that listens on it, each other, the platform's machines, private and special
//! addresses and with them the metadata services of clouds. Everything else passes, with the host's address.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use askama::Template;

use crate::registry::{RegistryError, View};
use crate::settings;

/// Where resolvers are named; the second is what stands behind a resolver on the loopback, which sites cannot reach.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The kernel's switch for packets that are not the machine's own.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// That the rules are there is believed for so long; whoever flushes the machine's rules takes them away, too.
const BELIEVED: Duration = Duration::from_secs(10);

/// Private, special and local addresses (IANA's registry of special-purpose addresses), and those of clouds' metadata services.
const CLOSED: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Why sites cannot connect to others.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The kernel does not pass packets on.
    #[error(
        "the kernel does not forward packets: {FORWARDING} is not 1; write `net.ipv4.ip_forward = 1` to /etc/sysctl.d/60-paas.conf and run `sysctl --system`"
    )]
    NoForwarding,
    /// The rules could not be loaded.
    #[error("`nft` cannot be run: {0}; install nftables")]
    NoFilter(io::Error),
    /// They are refused.
    #[error("`nft` refuses the rules: {0}")]
    Refused(String),
    /// The platform's machines are not known.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The way out of this machine's sites.
#[derive(Debug)]
pub struct Outbound {
    /// The first address of the /16 that sites have.
    pub range: Ipv4Addr,
    /// The names of the host's devices begin so; the packet filter's table is called like that, too.
    pub interface: String,
    /// Whom sites ask for names.
    pub nameservers: Vec<IpAddr>,
    open: Vec<String>,
    closed: Vec<String>,
    /// The rules that were loaded, and when they were seen last.
    loaded: Mutex<Option<(Instant, String)>>,
}

#[derive(Template)]
#[template(path = "outbound.nft", escape = "none")]
struct Rules<'a> {
    table: &'a str,
    interface: &'a str,
    range: String,
    nameservers: &'a [IpAddr],
    open: &'a [String],
    closed: Vec<String>,
}

impl Outbound {
    /// By a machine's settings; its devices' names begin with `interface`.
    pub fn new(settings: &settings::Sandbox, interface: String) -> Outbound {
        let blocks = |blocks: &[settings::Network]| {
            blocks
                .iter()
                .map(|block| block.as_str().to_owned())
                .collect()
        };
        Outbound {
            range: settings.range,
            interface,
            nameservers: nameservers(settings),
            open: blocks(&settings.open),
            closed: blocks(&settings.closed),
            loaded: Mutex::default(),
        }
    }

    /// Makes sure that the rules are in force, also those about machines that the registry has only now. Blocking.
    pub fn ensure(&self, view: &dyn View) -> Result<(), OutboundError> {
        is_forwarding()?;
        let rules = self.rules(&machines(view)?);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, text)) = &mut *loaded
            && *text == rules
        {
            if seen.elapsed() < BELIEVED {
                return Ok(());
            }
            if nft(&["list", "table", "inet", &self.interface], "").is_ok() {
                *seen = Instant::now();
                return Ok(());
            }
            tracing::warn!(
                "the rules for sites that may connect to others have gone; they are loaded again"
            );
        }
        *loaded = None;
        nft(&["-f", "-"], &rules)?;
        *loaded = Some((Instant::now(), rules));
        Ok(())
    }

    /// The same, if a site has needed it since the daemon began.
    pub fn keep(&self, view: &dyn View) -> Result<(), OutboundError> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = loaded.is_some();
        drop(loaded);
        match needed {
            true => self.ensure(view),
            false => Ok(()),
        }
    }

    fn rules(&self, machines: &BTreeSet<Ipv4Addr>) -> String {
        let machines = machines.iter().map(ToString::to_string);
        let rules = Rules {
            table: &self.interface,
            interface: &self.interface,
            range: format!("{}/16", self.range),
            nameservers: &self.nameservers,
            open: &self.open,
            closed: self
                .closed
                .iter()
                .cloned()
                .chain(machines)
                .chain(CLOSED.map(str::to_owned))
                .collect(),
        };
        // Every value is an address or a name of our own making.
        rules.render().unwrap_or_default()
    }
}

/// Takes the rules away again: nothing runs here.
pub fn remove(interface: &str) {
    // Where there are none, there is nothing to do.
    let _ = nft(&["delete", "table", "inet", interface], "");
}

/// Whether the kernel passes packets on.
pub fn is_forwarding() -> Result<(), OutboundError> {
    let text = fs::read_to_string(FORWARDING).unwrap_or_default();
    match text.trim() == "1" {
        true => Ok(()),
        false => Err(OutboundError::NoForwarding),
    }
}

/// Whether there is a packet filter to talk to.
pub fn has_filter() -> Result<(), OutboundError> {
    nft(&["list", "tables"], "")
}

fn nft(arguments: &[&str], input: &str) -> Result<(), OutboundError> {
    let run = || {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(OutboundError::NoFilter)?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(OutboundError::Refused(said.trim().to_owned()))
        }
    }
}

/// The platform's machines, as far as they have addresses of the kind that sites can reach.
fn machines(view: &dyn View) -> Result<BTreeSet<Ipv4Addr>, RegistryError> {
    let backends = view.backends()?;
    let addresses = backends
        .iter()
        .filter_map(|backend| match backend.address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
    Ok(addresses.collect())
}

/// Whom sites ask for names: the settings', else the machine's own that a site can reach.
fn nameservers(settings: &settings::Sandbox) -> Vec<IpAddr> {
    if !settings.nameservers.is_empty() {
        return settings.nameservers.clone();
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    RESOLVERS
        .iter()
        .map(|path| named(&read(path)))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

/// The name servers in the text of a `resolv.conf` that are not on the loopback. IPv4 alone: sites have no other.
fn named(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("nameserver")?
                .trim()
                .parse::<IpAddr>()
                .ok()
        })
        .filter(|server| server.is_ipv4() && !server.is_loopback())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_the_loopback_are_of_no_use() {
        let text = "# mine\nnameserver 127.0.0.53\nnameserver  9.9.9.9\nnameserver ::1\nsearch example\nnameserver 10.0.0.2\n";
        let found: Vec<IpAddr> = ["9.9.9.9", "10.0.0.2"].map(|it| it.parse().unwrap()).into();
        assert_eq!(named(text), found);
    }

    #[test]
    fn what_is_opened_comes_before_what_is_closed() {
        let outbound = Outbound {
            range: Ipv4Addr::new(10, 213, 0, 0),
            interface: "pn00abcd".to_owned(),
            nameservers: vec!["10.0.0.2".parse().unwrap()],
            open: vec!["10.9.8.0/24".to_owned()],
            closed: vec!["203.0.113.0/24".to_owned()],
            loaded: Mutex::default(),
        };
        let rules = outbound.rules(&BTreeSet::from([Ipv4Addr::new(198, 51, 100, 7)]));
        let at = |what: &str| {
            rules
                .find(what)
                .unwrap_or_else(|| panic!("{what}: {rules}"))
        };
        let open = at("ip daddr 10.9.8.0/24 accept");
        assert!(at("ip daddr 10.0.0.2 meta l4proto") < at("ip daddr 10.0.0.0/8 reject"));
        for closed in [
            "203.0.113.0/24",
            "198.51.100.7",
            "10.0.0.0/8",
            "169.254.0.0/16",
        ] {
            assert!(open < at(&format!("ip daddr {closed} reject")), "{closed}");
        }
    }
}
