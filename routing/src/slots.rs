//! [`SlotTable`]: what rendezvous answered for a slot, remembered.

use crate::placement::{Backends, Placement};
use crate::rendezvous::{self, SLOTS};

/// Fewer backends than this are asked each time: that is as fast as reading memory.
const FEW: usize = 24;

/// The backends with a memo of the winner of every slot, so that choosing among 1,000 costs what choosing among 10 does.
///
/// It answers exactly as its [`Backends`] do. It is filled at the first use of a slot and costs at most 8 MiB, and
/// nothing as long as there are few backends. When the backends change, make a new one.
#[derive(Debug, Clone)]
pub struct SlotTable {
    backends: Backends,
    /// For each slot 0 for "not known yet", or the winner's index plus one. Empty if there is no memo.
    winners: Vec<u16>,
}

impl SlotTable {
    /// A memo, empty yet, of what `backends` answer.
    #[must_use]
    pub fn new(backends: Backends) -> Self {
        let many = (FEW..usize::from(u16::MAX)).contains(&backends.len());
        // Zeroed memory comes from the kernel page by page when it is touched.
        let winners = if many { vec![0; SLOTS] } else { Vec::new() };
        Self { backends, winners }
    }

    /// The backends.
    #[must_use]
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// As [`Backends::choose`].
    #[must_use]
    pub fn choose(
        &mut self,
        site_key: &[u8],
        pin: Option<usize>,
        placement: &Placement,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let Some(pinned) = self.backends.pinned(pin, &usable) {
            return Some(pinned);
        }
        let site_hash = rendezvous::key_hash(site_key);
        let method = placement.method_for(site_hash);
        if let Some(index) = self.backends.by_python(method, site_key, &usable) {
            return Some(index);
        }
        let slot = rendezvous::slot(site_hash);
        match self.winner(slot) {
            Some(winner) if usable(winner) => Some(winner),
            _ => self.backends.by_rendezvous(slot, usable),
        }
    }

    /// The backend for a site as long as all in service are usable. It then comes first in [`SlotTable::choose`], too, whichever
    /// others are not.
    #[must_use]
    pub fn first(
        &mut self,
        site_key: &[u8],
        pin: Option<usize>,
        placement: &Placement,
    ) -> Option<usize> {
        self.choose(site_key, pin, placement, |_| true)
    }

    /// The winner of a slot among all backends in service, usable or not, if there is a memo to know it from.
    fn winner(&mut self, slot: u32) -> Option<usize> {
        let known = self.winners.get_mut(usize::try_from(slot).ok()?)?;
        if *known == 0 {
            let winner = self.backends.by_rendezvous(slot, |_| true)?;
            *known = u16::try_from(winner + 1).ok()?;
        }
        Some(usize::from(*known - 1))
    }
}
