//! The sites this worker met last: a look-up in LMDB touches dozens of cache lines that the rest of a request
//! has displaced, a hit here touches three. What is remembered holds for one state of the table and no longer.

use std::sync::Arc;

use routing::rendezvous::key_hash;
use table::{SiteRecord, Stamp};

/// How many hosts are remembered; a power of two. With their sites they take at most 4 MiB.
const SLOTS: usize = 8192;

/// Hosts and their sites, each in the one slot its hash names.
#[derive(Default)]
pub(crate) struct Memo {
    /// The state of the table that the slots of the present epoch are from.
    stamp: Option<Stamp>,
    epoch: u32,
    /// Empty until the first host is put in.
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    epoch: u32,
    host: Box<[u8]>,
    site: Option<Arc<SiteRecord>>,
}

impl Memo {
    /// The site of a host, if it was met in this state of the table.
    pub(crate) fn get(&self, stamp: Stamp, host: &[u8]) -> Option<Arc<SiteRecord>> {
        if self.stamp != Some(stamp) {
            return None;
        }
        let slot = self.slots.get(index(host))?;
        (slot.epoch == self.epoch && *slot.host == *host)
            .then(|| slot.site.clone())
            .flatten()
    }

    /// Remembers the site of a host, read in this state of the table.
    pub(crate) fn put(&mut self, stamp: Stamp, host: &[u8], site: SiteRecord) -> Arc<SiteRecord> {
        if self.stamp != Some(stamp) {
            self.stamp = Some(stamp);
            self.epoch = self.epoch.wrapping_add(1);
            // After four billion states of the table an old slot could pass for a new one.
            if self.epoch == 0 {
                self.slots.clear();
            }
        }
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
        }
        let site = Arc::new(site);
        if let Some(slot) = self.slots.get_mut(index(host)) {
            *slot = Slot {
                epoch: self.epoch,
                host: host.into(),
                site: Some(Arc::clone(&site)),
            };
        }
        site
    }
}

/// The slot of a host.
fn index(host: &[u8]) -> usize {
    key_hash(host) as usize % SLOTS
}
