//! A million sites in a table, written as the daemon writes them, and which of them are visited.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::Context as _;
use routing::{Domain, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, Protocol, SiteId, SiteRecord, Writer};

/// How many sites the table has.
pub const SITES: u32 = 1_000_000;
/// How many of them have visitors.
pub const BUSY: u32 = 5_000;

/// The host name of the `number`th busy site; they lie all over the table.
#[must_use]
pub fn busy(number: u32) -> String {
    name(number * (SITES / BUSY))
}

/// The host name of any site.
#[must_use]
pub fn name(number: u32) -> String {
    format!("site{number}.example.com")
}

/// The address of the `number`th upstream; all of them are on loopback.
#[must_use]
pub fn upstream(number: usize, port: u16) -> SocketAddrV4 {
    let part = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    SocketAddrV4::new(
        Ipv4Addr::new(127, 1, part(number / 250), part(number % 250 + 1)),
        port,
    )
}

/// Builds the table of all sites, spread over so many upstreams.
///
/// # Errors
/// It cannot be written.
pub fn fill(directory: &Path, group: Option<u32>, peers: usize, port: u16) -> anyhow::Result<()> {
    let options = Options {
        group,
        max_readers: 64,
        ..Options::default()
    };
    let backends = (0..peers).map(|number| {
        let address = upstream(number, port);
        Ok(Change::PutBackend(BackendRecord {
            id: u32::try_from(number + 1)
                .ok()
                .and_then(BackendId::new)
                .context("a number from 1")?,
            name: format!("b{}", number + 1),
            key: address.to_string().into_bytes(),
            address: address.into(),
            weight: Weight::ONE,
            state: State::Active,
        }))
    });
    let sites = (0..SITES).map(|number| {
        let domain = Domain::parse(&name(number)).context("a domain")?;
        let site = SiteRecord {
            id: SiteId::new(u64::from(number) + 1).context("a number from 1")?,
            primary: domain.clone(),
            pin: None,
            enabled: true,
            protocol: Protocol::Uwsgi,
        };
        Ok(Change::PutHost(domain, site))
    });
    let changes = backends.chain(sites);
    Writer::open_or_create(directory, options)?
        .try_rebuild(1, changes.map(|change: anyhow::Result<Change>| change))?;
    Ok(())
}
