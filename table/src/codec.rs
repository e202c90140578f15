//! Records to bytes and back. Decoding is strict: bytes that no writer of this format produced are an error, never a
//! panic and never a guess. Numbers are little endian; only the keys of backends are big endian, to sort by number.
//!
//! | record | layout |
//! |---|---|
//! | header | format u16, flags u8 (1 = retired), generation u64, backends revision u64, method u8, method before u8 (255 = no change under way), threshold u64, key of the hosts' hash 2 x u64, buckets u32, hosts u64 |
//! | host | flags u8 (1 = enabled, 2 = speaks HTTP), site u64, pin u32 (0 = none), primary domain if it is another than the host |
//! | backend | 1 u8, state u8, weight u32, 4 or 6 u8, address, port u16, (for 6: flow u32, scope u32), name's length u16, name, key |
//!
//! The first three bytes of the header mean the same in all formats: any writer can retire any environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use routing::{Domain, Method, Placement, SlowChange, State, Weight};

use crate::hosts::Spread;
use crate::record::{BackendId, BackendRecord, Header, Protocol, SiteId, SiteRecord};

/// The format this version reads and writes.
pub const FORMAT: u16 = 3;

const RETIRED: u8 = 1;
const ENABLED: u8 = 1;
const HTTP: u8 = 2;
const NO_CHANGE: u8 = u8::MAX;
const RECORD: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It ends too early.
    #[error("is too short")]
    Short,
    /// Something follows it.
    #[error("is too long")]
    Long,
    /// A part has a value it cannot have.
    #[error("has an impossible {0}")]
    Field(&'static str),
}

/// Why bytes are not a header of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// They have another format: this one.
    Version(u16),
    /// They are damaged.
    Decode(DecodeError),
}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// What is not read yet.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    /// A byte that is either `flag` or 0.
    fn flag(&mut self, flag: u8) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            set if set == flag => Ok(true),
            _ => Err(DecodeError::Field("flag")),
        }
    }

    fn format(&mut self) -> Result<(), DecodeError> {
        if self.u8()? == RECORD {
            Ok(())
        } else {
            Err(DecodeError::Field("format"))
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Long)
        }
    }
}

fn method_code(method: Method) -> u8 {
    match method {
        Method::Rendezvous => 0,
        Method::Python64 => 1,
        Method::Python32 => 2,
    }
}

fn method(code: u8) -> Result<Method, DecodeError> {
    match code {
        0 => Ok(Method::Rendezvous),
        1 => Ok(Method::Python64),
        2 => Ok(Method::Python32),
        _ => Err(DecodeError::Field("placement method")),
    }
}

/// The header.
#[must_use]
pub fn encode_header(header: &Header) -> Vec<u8> {
    let (from, threshold) = match header.placement.change {
        None => (NO_CHANGE, 0),
        Some(SlowChange { from, threshold }) => (method_code(from), threshold),
    };
    let mut bytes = Vec::with_capacity(57);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.push(if header.retired { RETIRED } else { 0 });
    bytes.extend(header.generation.to_le_bytes());
    bytes.extend(header.backends_revision.to_le_bytes());
    bytes.push(method_code(header.placement.method));
    bytes.push(from);
    bytes.extend(threshold.to_le_bytes());
    let Spread {
        key: [a, b],
        buckets,
        hosts,
    } = header.spread;
    bytes.extend(a.to_le_bytes());
    bytes.extend(b.to_le_bytes());
    bytes.extend(buckets.to_le_bytes());
    bytes.extend(hosts.to_le_bytes());
    bytes
}

/// The header, of this format only.
///
/// # Errors
/// The bytes are none.
pub fn decode_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let mut bytes = Bytes(bytes);
    let found = bytes.u16()?;
    if found != FORMAT {
        return Err(HeaderError::Version(found));
    }
    let retired = bytes.flag(RETIRED)?;
    let generation = bytes.u64()?;
    let backends_revision = bytes.u64()?;
    let to = method(bytes.u8()?)?;
    let change = match (bytes.u8()?, bytes.u64()?) {
        (NO_CHANGE, 0) => None,
        (NO_CHANGE, _) => return Err(DecodeError::Field("threshold").into()),
        (from, threshold) => Some(SlowChange {
            from: method(from)?,
            threshold,
        }),
    };
    let spread = Spread {
        key: [bytes.u64()?, bytes.u64()?],
        buckets: bytes.u32()?,
        hosts: bytes.u64()?,
    };
    if !spread.is_possible() {
        return Err(DecodeError::Field("number of buckets").into());
    }
    bytes.end()?;
    Ok(Header {
        generation,
        backends_revision,
        placement: Placement { method: to, change },
        retired,
        spread,
    })
}

/// The header with the mark that its environment was replaced; of any format, as far as it has flags at all.
#[must_use]
pub fn retire_header(header: &[u8]) -> Option<Vec<u8>> {
    let mut header = header.to_vec();
    *header.get_mut(2)? |= RETIRED;
    Some(header)
}

/// Appends the record of a host to `bytes`.
pub fn encode_site(site: &SiteRecord, host: &[u8], bytes: &mut Vec<u8>) {
    let enabled = if site.enabled { ENABLED } else { 0 };
    let http = match site.protocol {
        Protocol::Uwsgi => 0,
        Protocol::Http => HTTP,
    };
    bytes.push(enabled | http);
    bytes.extend(site.id.get().to_le_bytes());
    bytes.extend(site.pin.map_or(0, BackendId::get).to_le_bytes());
    if site.primary.as_bytes() != host {
        bytes.extend(site.primary.as_bytes());
    }
}

/// The record of this host.
///
/// # Errors
/// The bytes are none.
#[inline]
pub fn decode_site(bytes: &[u8], host: &Domain) -> Result<SiteRecord, DecodeError> {
    let mut bytes = Bytes(bytes);
    let flags = bytes.u8()?;
    if flags & !(ENABLED | HTTP) != 0 {
        return Err(DecodeError::Field("flag"));
    }
    let id = SiteId::new(bytes.u64()?).ok_or(DecodeError::Field("site"))?;
    let pin = BackendId::new(bytes.u32()?);
    let primary = match bytes.rest() {
        [] => host.clone(),
        other => Domain::from_normalised(other)
            .filter(|other| other != host)
            .ok_or(DecodeError::Field("domain"))?,
    };
    Ok(SiteRecord {
        id,
        primary,
        pin,
        enabled: flags & ENABLED != 0,
        protocol: if flags & HTTP == 0 {
            Protocol::Uwsgi
        } else {
            Protocol::Http
        },
    })
}

/// What the record of this backend is found by.
#[must_use]
pub fn backend_key(id: BackendId) -> [u8; 4] {
    id.get().to_be_bytes()
}

/// The backend whose record is found by this.
///
/// # Errors
/// The bytes are no key.
pub fn decode_backend_key(key: &[u8]) -> Result<BackendId, DecodeError> {
    let number = key
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| DecodeError::Field("number"))?;
    BackendId::new(number).ok_or(DecodeError::Field("number"))
}

/// The record of a backend.
///
/// # Errors
/// What of it is too long, in words.
pub fn encode_backend(backend: &BackendRecord) -> Result<Vec<u8>, &'static str> {
    let name_length =
        u16::try_from(backend.name.len()).map_err(|_| "its name has more than 65535 bytes")?;
    u16::try_from(backend.key.len()).map_err(|_| "its key has more than 65535 bytes")?;
    let mut bytes = Vec::with_capacity(48 + backend.name.len() + backend.key.len());
    bytes.push(RECORD);
    bytes.push(match backend.state {
        State::Active => 0,
        State::Draining => 1,
        State::Disabled => 2,
    });
    bytes.extend(backend.weight.get().to_le_bytes());
    match backend.address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(backend.address.port().to_le_bytes());
    if let SocketAddr::V6(address) = backend.address {
        bytes.extend(address.flowinfo().to_le_bytes());
        bytes.extend(address.scope_id().to_le_bytes());
    }
    bytes.extend(name_length.to_le_bytes());
    bytes.extend(backend.name.as_bytes());
    bytes.extend(&backend.key);
    Ok(bytes)
}

/// The record of this backend.
///
/// # Errors
/// The bytes are none.
pub fn decode_backend(id: BackendId, bytes: &[u8]) -> Result<BackendRecord, DecodeError> {
    let mut bytes = Bytes(bytes);
    bytes.format()?;
    let state = match bytes.u8()? {
        0 => State::Active,
        1 => State::Draining,
        2 => State::Disabled,
        _ => return Err(DecodeError::Field("state")),
    };
    let weight = Weight::new(bytes.u32()?).map_err(|_| DecodeError::Field("weight"))?;
    let address = match bytes.u8()? {
        4 => SocketAddrV4::new(Ipv4Addr::from(bytes.take::<4>()?), bytes.u16()?).into(),
        6 => SocketAddrV6::new(
            Ipv6Addr::from(bytes.take::<16>()?),
            bytes.u16()?,
            bytes.u32()?,
            bytes.u32()?,
        )
        .into(),
        _ => return Err(DecodeError::Field("address family")),
    };
    let name_length = bytes.u16()?.into();
    let name = std::str::from_utf8(bytes.slice(name_length)?)
        .map_err(|_| DecodeError::Field("name"))?
        .to_owned();
    let key = bytes.rest().to_vec();
    if key.len() > usize::from(u16::MAX) {
        return Err(DecodeError::Long);
    }
    Ok(BackendRecord {
        id,
        name,
        key,
        address,
        weight,
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_s_flags_are_kept_and_unknown_ones_refused() {
        for (enabled, protocol) in [
            (true, Protocol::Uwsgi),
            (false, Protocol::Uwsgi),
            (true, Protocol::Http),
            (false, Protocol::Http),
        ] {
            let site = SiteRecord {
                id: SiteId::new(7).unwrap(),
                primary: Domain::parse("a.test").unwrap(),
                pin: None,
                enabled,
                protocol,
            };
            for host in ["a.test", "www.a.test"] {
                let host = Domain::parse(host).unwrap();
                let mut bytes = Vec::new();
                encode_site(&site, host.as_bytes(), &mut bytes);
                assert_eq!(decode_site(&bytes, &host), Ok(site.clone()));
                bytes[0] |= 4;
                assert_eq!(decode_site(&bytes, &host), Err(DecodeError::Field("flag")));
            }
        }
    }
}
