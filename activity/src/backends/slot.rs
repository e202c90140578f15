//! A worker's slot: it counts here what becomes of the requests that it sends to backends, and nobody else writes to it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{BOUNDS, ENTRY, HEAD, entry, head};

/// A slot in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot(());

/// A request that was counted when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: usize,
    id: u64,
}

impl Slot {
    /// Takes over the words of a slot whose worker is gone, or was never there: what that had in flight is void.
    pub fn claim(words: &[AtomicU64], pid: u32) -> Slot {
        store(words, head::PID, pid.into());
        store(words, head::GENERATION, 0);
        store(words, head::PARKED, 0);
        let entries = words.get(HEAD..).unwrap_or_default();
        for found in entries.chunks_exact(ENTRY) {
            if load(found, entry::IN_FLIGHT) != 0 {
                store(found, entry::IN_FLIGHT, 0);
            }
        }
        Slot(())
    }

    /// The worker has looked at this generation of the table.
    pub fn has_seen(self, words: &[AtomicU64], generation: u64) {
        store(words, head::GENERATION, generation);
    }

    /// It holds so many requests.
    pub fn parks(self, words: &[AtomicU64], count: usize) {
        store(words, head::PARKED, count as u64);
    }

    /// A request is sent to a backend, whose place among all is `index`.
    pub fn begin(self, words: &[AtomicU64], index: usize, id: u64) -> Ticket {
        let found = at(words, index);
        if load(found, entry::ID) != id {
            // Another backend had the place.
            for word in found {
                word.store(0, Ordering::Relaxed);
            }
            store(found, entry::ID, id);
        }
        add(found, entry::REQUESTS, 1);
        add(found, entry::IN_FLIGHT, 1);
        Ticket { index, id }
    }

    /// nginx is done with it: whether it failed, and after how many milliseconds the head of the answer was there, if one was.
    pub fn end(self, words: &[AtomicU64], ticket: Ticket, failed: bool, time: Option<u64>) {
        let found = at(words, ticket.index);
        if load(found, entry::ID) != ticket.id {
            return;
        }
        let in_flight = load(found, entry::IN_FLIGHT).saturating_sub(1);
        store(found, entry::IN_FLIGHT, in_flight);
        if failed {
            add(found, entry::FAILURES, 1);
        }
        if let Some(time) = time {
            let class = BOUNDS.partition_point(|bound| *bound < time);
            add(found, entry::TIMES + class, 1);
            add(found, entry::TIME, time);
        }
    }
}

fn at(words: &[AtomicU64], index: usize) -> &[AtomicU64] {
    let start = HEAD + index * ENTRY;
    words.get(start..start + ENTRY).unwrap_or_default()
}

fn load(words: &[AtomicU64], index: usize) -> u64 {
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

fn store(words: &[AtomicU64], index: usize, value: u64) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::Relaxed);
    }
}

/// One writer: no atomic addition is needed.
fn add(words: &[AtomicU64], index: usize, value: u64) {
    store(words, index, load(words, index).wrapping_add(value));
}
