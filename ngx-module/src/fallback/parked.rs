//! How many requests this worker has parked.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::monitor;

static PARKED: AtomicUsize = AtomicUsize::new(0);

/// A place for one parked request; given back when it is dropped, whatever ends the request.
pub(crate) struct Slot(());

impl Slot {
    /// A place, if fewer than `most` are taken.
    pub(crate) fn take(most: usize) -> Option<Self> {
        // A worker has one thread: nobody comes in between.
        if PARKED.load(Ordering::Relaxed) >= most {
            return None;
        }
        monitor::parks(PARKED.fetch_add(1, Ordering::Relaxed) + 1);
        Some(Self(()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        monitor::parks(PARKED.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
    }
}
