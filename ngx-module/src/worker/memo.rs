//! The sites this worker met last: a look-up in LMDB touches dozens of cache lines that the rest of a request
//! has displaced, a hit here touches three. What is remembered holds for one state of the table and no longer.

use std::sync::Arc;

use routing::rendezvous::key_hash;
use table::{SiteRecord, Stamp};

/// A host can be in any slot of its set, so that hosts which share a set do not displace each other while others
/// are empty.
const WAYS: usize = 4;
/// A power of two: of 5,000 busy hosts hardly two share a set with more than three others. Full, all sets with their sites take
/// 12 MiB.
const SETS: usize = 8192;

/// Hosts and their sites, each in the set its hash names.
#[derive(Default)]
pub(crate) struct Memo {
    /// The state of the table that the slots of the present epoch are from.
    stamp: Option<Stamp>,
    epoch: u32,
    /// Which slot of a full set is given up next.
    turn: usize,
    /// Empty until the first host is put in.
    sets: Vec<[Slot; WAYS]>,
}

#[derive(Clone, Default)]
struct Slot {
    epoch: u32,
    /// Of the hash, what did not choose the set: most other hosts are told apart without looking at their names.
    tag: u32,
    /// The host, unless it is the primary domain of the site, whose memory is looked at anyway.
    alias: Option<Box<[u8]>>,
    site: Option<Arc<SiteRecord>>,
}

impl Slot {
    fn is_of(&self, host: &[u8]) -> bool {
        match (&self.alias, &self.site) {
            (Some(alias), _) => **alias == *host,
            (None, Some(site)) => site.primary.as_bytes() == host,
            (None, None) => false,
        }
    }
}

impl Memo {
    /// The site of a host, if it was met in this state of the table.
    pub(crate) fn get(&self, stamp: Stamp, host: &[u8]) -> Option<Arc<SiteRecord>> {
        if self.stamp != Some(stamp) {
            return None;
        }
        let (set, tag) = place(host);
        self.sets
            .get(set)?
            .iter()
            .find(|slot| slot.epoch == self.epoch && slot.tag == tag && slot.is_of(host))
            .and_then(|slot| slot.site.clone())
    }

    /// Remembers the site of a host, read in this state of the table.
    pub(crate) fn put(&mut self, stamp: Stamp, host: &[u8], site: SiteRecord) -> Arc<SiteRecord> {
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
        let site = Arc::new(site);
        let (set, tag) = place(host);
        self.turn = self.turn.wrapping_add(1);
        if let Some(set) = self.sets.get_mut(set) {
            let stale = set.iter().position(|slot| slot.epoch != self.epoch);
            if let Some(slot) = set.get_mut(stale.unwrap_or(self.turn % WAYS)) {
                *slot = Slot {
                    epoch: self.epoch,
                    tag,
                    alias: (site.primary.as_bytes() != host).then(|| host.into()),
                    site: Some(Arc::clone(&site)),
                };
            }
        }
        site
    }
}

/// The set of a host, and its tag.
fn place(host: &[u8]) -> (usize, u32) {
    let hash = key_hash(host);
    (hash as usize % SETS, (hash >> 32) as u32)
}
