//! The sites this worker met last: a look-up in the table touches a dozen cache lines that the rest of a request
//! has displaced, a hit here touches one. What is remembered holds for one state of the table and no longer.

use std::rc::Rc;

use routing::rendezvous::key_hash;
use table::{BackendId, Protocol, SiteId, SiteRecord, Stamp};

use crate::ffi::prefetch;

/// A host can be in any slot of its set, so that hosts which share a set do not displace each other while others
/// are empty. It is sought from a slot of its own on, and seldom farther.
const WAYS: usize = 4;
/// A power of two: of 5,000 busy hosts hardly two share a set with more than three others. All sets take 2 MiB.
const SETS: usize = 8192;

/// What a request has to know of its site, as it was in one state of the table. A request has its own: what is remembered for the
/// next one may be replaced meanwhile.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) id: SiteId,
    pub(crate) pin: Option<BackendId>,
    pub(super) first: First,
    pub(crate) protocol: Protocol,
    names: Names,
}

/// Which backend comes first for a site while all can be used, and by which list of them.
#[derive(Clone, Copy, Default)]
pub(super) struct First {
    /// The number of the list; 0: none yet.
    pub(super) list: u32,
    pub(super) index: u16,
}

/// The name a site was looked up by, and its primary domain.
#[derive(Clone)]
enum Names {
    /// They are the same, and short: most are.
    Same(u8, [u8; Self::SHORT]),
    Other(Rc<Pair>),
}

struct Pair {
    host: Box<[u8]>,
    primary: Box<[u8]>,
}

impl Names {
    /// So that a slot is a cache line.
    const SHORT: usize = 30;

    fn new(host: &[u8], primary: &[u8]) -> Self {
        let mut bytes = [0; Self::SHORT];
        match (bytes.get_mut(..host.len()), u8::try_from(host.len())) {
            (Some(place), Ok(length)) if host == primary => {
                place.copy_from_slice(host);
                Self::Same(length, bytes)
            }
            _ => Self::Other(Rc::new(Pair {
                host: host.into(),
                primary: primary.into(),
            })),
        }
    }

    fn host(&self) -> &[u8] {
        match self {
            Self::Same(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Other(names) => &names.host,
        }
    }
}

impl Site {
    fn new(host: &[u8], record: &SiteRecord) -> Self {
        Self {
            id: record.id,
            pin: record.pin,
            first: First::default(),
            protocol: record.protocol,
            names: Names::new(host, record.primary.as_bytes()),
        }
    }

    /// Its primary domain.
    pub(crate) fn primary(&self) -> &[u8] {
        match &self.names {
            Names::Same(..) => self.names.host(),
            Names::Other(names) => &names.primary,
        }
    }

    /// The same as text.
    pub(crate) fn primary_str(&self) -> &str {
        // Never the default: a domain is ASCII.
        std::str::from_utf8(self.primary()).unwrap_or_default()
    }
}

/// Hosts and their sites, each in the set its hash names.
#[derive(Default)]
pub(super) struct Memo {
    /// The state of the table that the slots of the present epoch are from.
    stamp: Option<Stamp>,
    epoch: u32,
    /// Which slot of a full set is given up next.
    turn: usize,
    /// Empty until the first host is put in.
    sets: Vec<[Slot; WAYS]>,
}

#[derive(Clone, Default)]
#[repr(align(64))]
struct Slot {
    epoch: u32,
    /// Of the hash, what did not choose the set: most other hosts are told apart without looking at their names.
    tag: u32,
    site: Option<Site>,
}

const _: () = assert!(size_of::<Slot>() == 64, "a slot is a cache line");

impl Memo {
    /// Fetches the memory that [`Memo::get`] of this host will look at.
    pub(super) fn fetch(&self, host: &[u8]) {
        let place = Place::of(host);
        if let Some(slot) = self.sets.get(place.set).and_then(|set| set.get(place.way)) {
            prefetch(slot);
        }
    }

    /// The site of a host, if it was met in this state of the table.
    pub(super) fn get(&mut self, stamp: Stamp, host: &[u8]) -> Option<&mut Site> {
        if self.stamp != Some(stamp) {
            return None;
        }
        let place = Place::of(host);
        let set = self.sets.get_mut(place.set)?;
        let is_it = |slot: &Slot| {
            let site = slot.site.as_ref();
            slot.epoch == self.epoch
                && slot.tag == place.tag
                && site.is_some_and(|site| site.names.host() == host)
        };
        let way = place.ways().find(|way| set.get(*way).is_some_and(is_it))?;
        set.get_mut(way)?.site.as_mut()
    }

    /// Remembers the site of a host, read in this state of the table.
    pub(super) fn put(
        &mut self,
        stamp: Stamp,
        host: &[u8],
        record: &SiteRecord,
    ) -> Option<&mut Site> {
        if self.stamp != Some(stamp) {
            self.stamp = Some(stamp);
            self.epoch = self.epoch.wrapping_add(1);
            // After four billion states of the table an old slot could pass for a new one.
            if self.epoch == 0 {
                self.sets.clear();
                self.epoch = 1;
            }
        }
        if self.sets.is_empty() {
            self.sets.resize(SETS, Default::default());
        }
        let place = Place::of(host);
        self.turn = self.turn.wrapping_add(1);
        let set = self.sets.get_mut(place.set)?;
        let is_stale = |slot: &Slot| slot.epoch != self.epoch;
        let stale = place.ways().find(|way| set.get(*way).is_some_and(is_stale));
        let slot = set.get_mut(stale.unwrap_or(self.turn % WAYS))?;
        *slot = Slot {
            epoch: self.epoch,
            tag: place.tag,
            site: None,
        };
        Some(slot.site.insert(Site::new(host, record)))
    }
}

/// Where a host can be.
#[derive(Clone, Copy)]
struct Place {
    set: usize,
    /// Its own slot in the set.
    way: usize,
    tag: u32,
}

impl Place {
    fn of(host: &[u8]) -> Self {
        let hash = key_hash(host);
        Self {
            set: hash as usize % SETS,
            way: hash as usize / SETS % WAYS,
            tag: (hash >> 32) as u32,
        }
    }

    /// The slots of the set, from its own on.
    fn ways(self) -> impl Iterator<Item = usize> {
        (0..WAYS).map(move |step| (self.way + step) % WAYS)
    }
}
