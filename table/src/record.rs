//! The records of the table.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};

use routing::{Candidate, Domain, Placement, State, Weight};

use crate::hosts::Spread;

/// A site's number: never used again, so that sockets and files may be named by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub NonZeroU64);

/// A backend's number. Backends are configured in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub NonZeroU32);

impl SiteId {
    /// The id with this number, if there can be one.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl BackendId {
    /// The id with this number, if there can be one.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a site's processes speak on their socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// uWSGI's own.
    #[default]
    Uwsgi,
    /// HTTP/1.
    Http,
}

impl Protocol {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uwsgi => "uwsgi",
            Self::Http => "http",
        }
    }
}

/// The site a host name leads to. Every name of a site has a record of its own, so a look-up is one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRecord {
    /// The site.
    pub id: SiteId,
    /// Its primary domain: the bytes placement hashes.
    pub primary: Domain,
    /// The backend it is pinned to.
    pub pin: Option<BackendId>,
    /// Whether the operator lets it be served.
    pub enabled: bool,
    /// What nginx speaks with it.
    pub protocol: Protocol,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRecord {
    /// Its number.
    pub id: BackendId,
    /// Its name, at most 65,535 bytes.
    pub name: String,
    /// The bytes that stand for it in placement, at most 65,535.
    pub key: Vec<u8>,
    /// Where its nginx listens.
    pub address: SocketAddr,
    /// Its share of the sites.
    pub weight: Weight,
    /// What it may be given.
    pub state: State,
}

impl BackendRecord {
    /// The backend as placement sees it. `Backends::new(records.iter().map(BackendRecord::candidate))` keeps indices.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            key: &self.key,
            weight: self.weight,
            state: self.state,
        }
    }
}

/// What holds for the table as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The revision of the registry that the table holds.
    pub generation: u64,
    /// Differs whenever the backends may: what was computed from them holds as long as this stays equal, even across
    /// a replacement of the table.
    pub backends_revision: u64,
    /// The placement in force.
    pub placement: Placement,
    /// This environment was replaced by another.
    pub retired: bool,
    /// Where hosts are found.
    pub spread: Spread,
}

/// One change of the table.
// Changes are made, written and dropped one at a time: boxing the large one would cost a million allocations.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a host name lead to a site, or changes what its record says.
    PutHost(Domain, SiteRecord),
    /// Makes a host name lead nowhere.
    DeleteHost(Domain),
    /// Adds or changes a backend.
    PutBackend(BackendRecord),
    /// Removes a backend.
    DeleteBackend(BackendId),
    /// Changes the placement.
    SetPlacement(Placement),
}
