//! Sites that do not run on a draining backend: it said so, and as it wakes none, that stays true until the backends
//! change. Their requests need not ask it again.

use table::{BackendId, SiteId};

/// How many sites are remembered; a power of two. They take 128 KiB, and only once a backend has said so.
const SLOTS: usize = 8192;

/// Sites, each in the one slot that its number and the backend's name. A new one takes the slot of another: that one is asked for once more.
#[derive(Default)]
pub(super) struct Elsewhere {
    slots: Vec<Option<(SiteId, BackendId)>>,
}

impl Elsewhere {
    /// Whether a site is known not to run on a backend.
    pub(super) fn has(&self, site: SiteId, backend: BackendId) -> bool {
        let slot = self.slots.get(index(site, backend)).copied().flatten();
        slot == Some((site, backend))
    }

    /// Remembers that it does not.
    pub(super) fn put(&mut self, site: SiteId, backend: BackendId) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        if let Some(slot) = self.slots.get_mut(index(site, backend)) {
            *slot = Some((site, backend));
        }
    }
}

fn index(site: SiteId, backend: BackendId) -> usize {
    (site.get() as usize ^ backend.get() as usize) % SLOTS
}
