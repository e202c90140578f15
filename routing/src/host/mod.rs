//! The value of a Host header, parsed and normalised.
//!
//! Hostile bytes are the normal case here: every input has an answer, none allocates. nginx refuses some of what is
//! refused here before any module sees it; this parser does not rely on that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod domain;

pub use domain::Domain;

/// Longest name, in bytes, without the trailing dot (RFC 1035, section 2.3.4).
pub const MAX_DOMAIN: usize = 253;
/// Longest label, in bytes.
pub const MAX_LABEL: usize = 63;

/// What a Host header names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
// A `Domain` has its bytes inline on purpose: boxing it would cost every request an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Host {
    /// A name, normalised.
    Domain(Domain),
    /// An address; no site is named by one.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Why some bytes are not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HostError {
    /// There is no name at all.
    #[error("the host is empty")]
    Empty,
    /// More than [`MAX_DOMAIN`] bytes.
    #[error("the host is longer than {MAX_DOMAIN} bytes")]
    TooLong,
    /// Two dots in a row, or one in front.
    #[error("the host has an empty label (two dots in a row, or one in front)")]
    EmptyLabel,
    /// A label of more than [`MAX_LABEL`] bytes.
    #[error("the host has a label longer than {MAX_LABEL} bytes")]
    LabelTooLong,
    /// A byte no host name has.
    #[error(
        "the host has the byte 0x{0:02x}; a name is made of letters, digits, `-`, `_` and dots (write other scripts as A-labels, xn--...)"
    )]
    Byte(u8),
    /// A label that starts or ends with a hyphen (a bare `xn--` does).
    #[error("a label of the host starts or ends with a hyphen")]
    Hyphen,
    /// The last label is a number, but the whole is no IPv4 address.
    #[error("the host ends in a number but is not an IPv4 address")]
    Number,
    /// What follows the colon is not a port.
    #[error("what follows the colon of the host is not a port (0 to 65535)")]
    Port,
    /// Brackets without an IPv6 address in them. Zones (`%eth0`) are not accepted.
    #[error("the host's brackets do not hold an IPv6 address")]
    Ipv6,
    /// An address where a name is wanted.
    #[error("an address where a name is wanted")]
    Address,
}

/// Parses the value of a Host header: `name`, `name.`, `v4` or `[v6]`, each with or without `:port`.
///
/// ASCII upper case becomes lower case, the port (possibly empty, as RFC 3986 allows) is checked and dropped, and so is
/// one trailing dot. A name whose last label is a number must be an IPv4 address in the usual form: no top-level
/// domain is a number, and half-numeric hosts exist to confuse parsers.
///
/// # Errors
/// [`HostError`]; nothing is corrected silently.
pub fn parse(raw: &[u8]) -> Result<Host, HostError> {
    if let Some(bracketed) = raw.strip_prefix(b"[") {
        return parse_v6(bracketed);
    }
    let name = match split_once(raw, b':') {
        None => raw,
        Some((name, port)) => {
            check_port(port)?;
            name
        }
    };
    match parse_v4(name) {
        Some(address) => Ok(Host::Ip(address.into())),
        None => Domain::from_bytes(name).map(Host::Domain),
    }
}

fn parse_v6(bracketed: &[u8]) -> Result<Host, HostError> {
    let (address, rest) = split_once(bracketed, b']').ok_or(HostError::Ipv6)?;
    match rest.split_first() {
        None => {}
        Some((b':', port)) => check_port(port)?,
        Some(_) => return Err(HostError::Port),
    }
    let address = std::str::from_utf8(address).map_err(|_| HostError::Ipv6)?;
    let address: Ipv6Addr = address.parse().map_err(|_| HostError::Ipv6)?;
    Ok(Host::Ip(address.into()))
}

/// The dotted quad `name` is, if it is one (with or without a trailing dot).
fn parse_v4(name: &[u8]) -> Option<Ipv4Addr> {
    // Most names are told from an address by their last byte.
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.last().filter(|byte| byte.is_ascii_digit())?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Accepts an empty port and up to five digits.
fn check_port(port: &[u8]) -> Result<(), HostError> {
    let number = port.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u32::from(byte - b'0'))
        })
    });
    match number {
        Some(number) if port.len() <= 5 && number <= u32::from(u16::MAX) => Ok(()),
        _ => Err(HostError::Port),
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&byte| byte == at)?;
    let (before, rest) = bytes.split_at_checked(position)?;
    Some((before, rest.split_first()?.1))
}
