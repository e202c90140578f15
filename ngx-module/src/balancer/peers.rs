//! What is known of the servers of an upstream block while it is used: connections and failures, as nginx's own balancing
//! methods count them (`max_conns`, `max_fails`, `fail_timeout`).
//!
//! With a `zone` all workers know the same, and a reload hands on what was known of a server that stays. Without one, each worker
//! knows what it has seen itself.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use routing::rendezvous::key_hash;

use crate::ffi::conf::{Conf, Refusal};
use crate::ffi::shm::{Entry, Zone};
use crate::ffi::worker_number;

/// So many workers count connections each in a place of its own, which a new worker of the same number begins at 0:
/// what a killed one had open is gone with it. Were there more, some would share one.
const WORKERS: usize = 64;
/// Who the entry is about, failures, the last time it was tried and the last time that failed; connections of each worker.
const WORDS: usize = 4 + WORKERS;

/// The servers' addresses in the order of the configuration, others before backups.
pub(super) struct Peers {
    memory: Memory,
    /// Whether this worker's connections were set to 0.
    has_begun: Cell<bool>,
}

enum Memory {
    Shared(Zone<WORDS>),
    Own(Box<[Entry<WORDS>]>),
}

/// What the `server` line allows; times in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// 0: any number.
    pub(super) max_conns: usize,
    /// 0: failures do not count.
    pub(super) max_fails: usize,
    pub(super) fail_timeout: u64,
}

/// What a request says of its server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
}

impl Peers {
    /// `ids` say who each is, for the next configuration; `zone` is the name of the block's zone.
    pub(super) fn new(
        conf: Conf<'_>,
        zone: Option<&str>,
        ids: Vec<Vec<u8>>,
    ) -> Result<Self, Refusal> {
        let ids: Vec<u64> = ids.iter().map(|id| key_hash(id)).collect();
        let memory = match zone {
            Some(name) => Memory::Shared(Zone::add(
                conf,
                &format!("paas_hash:{name}"),
                ids.len(),
                move |old, new| hand_on(&ids, old, new),
            )?),
            None => Memory::Own(
                ids.iter()
                    .map(|_| array::from_fn(|_| AtomicU64::new(0)))
                    .collect(),
            ),
        };
        Ok(Self {
            memory,
            has_begun: Cell::new(false),
        })
    }

    fn peer(&self, index: usize) -> Option<Peer<'_>> {
        let entries = match &self.memory {
            Memory::Shared(zone) => zone.entries(),
            Memory::Own(entries) => entries,
        };
        let worker = worker_number() % WORKERS;
        if !self.has_begun.replace(true) {
            for [_, _, _, _, connections @ ..] in entries {
                if let Some(mine) = connections.get(worker) {
                    mine.store(0, Ordering::Relaxed);
                }
            }
        }
        let [_, fails, checked, accessed, connections @ ..] = entries.get(index)?;
        Some(Peer {
            fails,
            checked,
            accessed,
            mine: connections.get(worker)?,
            connections,
        })
    }

    /// Whether a request may be sent there now.
    pub(super) fn is_usable(&self, index: usize, limits: &Limits, now: u64) -> bool {
        self.peer(index)
            .is_none_or(|peer| !peer.is_failing(limits, now) && !peer.is_full(limits))
    }

    /// A request is about to be sent there. False: not now, another has just been sent to find out whether it works again.
    pub(super) fn begin(&self, index: usize, limits: &Limits, now: u64) -> bool {
        let Some(peer) = self.peer(index) else {
            return true;
        };
        let checked = peer.checked.load(Ordering::Relaxed);
        if now.saturating_sub(checked) > limits.fail_timeout {
            let won =
                peer.checked
                    .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed);
            if won.is_err() && peer.has_failed_often(limits) {
                return false;
            }
        }
        peer.mine.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The request is done. True: the server gets no requests for a while now.
    pub(super) fn end(
        &self,
        index: usize,
        limits: &Limits,
        now: u64,
        verdict: Option<Verdict>,
    ) -> bool {
        let Some(peer) = self.peer(index) else {
            return false;
        };
        let _ = peer
            .mine
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                open.checked_sub(1)
            });
        match verdict {
            Some(Verdict::Bad) => {
                peer.fails.fetch_add(1, Ordering::Relaxed);
                peer.accessed.store(now, Ordering::Relaxed);
                peer.checked.store(now, Ordering::Relaxed);
                return peer.has_failed_often(limits);
            }
            // It was tried since it failed, and has not failed again.
            Some(Verdict::Good)
                if peer.accessed.load(Ordering::Relaxed) < peer.checked.load(Ordering::Relaxed) =>
            {
                peer.fails.store(0, Ordering::Relaxed);
            }
            _ => (),
        }
        false
    }
}

struct Peer<'a> {
    fails: &'a AtomicU64,
    checked: &'a AtomicU64,
    accessed: &'a AtomicU64,
    mine: &'a AtomicU64,
    connections: &'a [AtomicU64],
}

impl Peer<'_> {
    fn has_failed_often(&self, limits: &Limits) -> bool {
        limits.max_fails != 0 && self.fails.load(Ordering::Relaxed) >= limits.max_fails as u64
    }

    fn is_failing(&self, limits: &Limits, now: u64) -> bool {
        self.has_failed_often(limits)
            && now.saturating_sub(self.checked.load(Ordering::Relaxed)) <= limits.fail_timeout
    }

    fn is_full(&self, limits: &Limits) -> bool {
        limits.max_conns != 0 && {
            let open: u64 = self
                .connections
                .iter()
                .map(|open| open.load(Ordering::Relaxed))
                .sum();
            open >= limits.max_conns as u64
        }
    }
}

/// Fills a new zone: each server keeps what was known of it. Its connections are those of the workers before.
fn hand_on(ids: &[u64], old: &[Entry<WORDS>], new: &[Entry<WORDS>]) {
    for (id, [is, fails, checked, accessed, ..]) in ids.iter().zip(new) {
        is.store(*id, Ordering::Relaxed);
        let before = old
            .iter()
            .find(|[was, ..]| was.load(Ordering::Relaxed) == *id);
        if let Some([_, old_fails, old_checked, old_accessed, ..]) = before {
            for (to, from) in [
                (fails, old_fails),
                (checked, old_checked),
                (accessed, old_accessed),
            ] {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }
}
