//! The way out of sites that may connect to others: which packets pass from their devices, by the kernel's packet filter.
//!
//! What they may not reach: this host and everything that listens on it, each other, the platform's machines, private and special
//! addresses and with them the metadata services of clouds. Everything else passes, with the host's address.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::settings;

/// Where resolvers are named; the second is what stands behind a resolver on the loopback, which sites cannot reach.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Whom sites ask for names: the settings', else the machine's own that a site can reach.
pub fn nameservers(settings: &settings::Sandbox) -> Vec<IpAddr> {
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

/// Whether this machine's rules are in force and it forwards packets; if not, why.
pub fn is_open(_interface: &str) -> Result<(), String> {
    if !Path::new("/usr/sbin/nft").exists() {
        return Err("nftables is not installed".to_owned());
    }
    Err("its rules are not loaded".to_owned())
}
