//! `paas_monitor`: what the workers share about backends - their health, and what becomes of requests - in a file, so that the
//! daemon and `paasctl` can see it, and the daemon can add what its probes find out. The crate `activity` says how.

use std::cell::OnceCell;
use std::fs::DirBuilder;
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use activity::backends::layout::{self, HEALTH, NEWS, SLOTS};
use activity::backends::{Seen, Slot, Ticket, Verdict};
use table::BackendId;

use crate::ffi::log::{Level, Log};
use crate::ffi::mapping::Mapping;
use crate::ffi::shm::Entry;

/// The file that a configuration names.
#[derive(Clone)]
pub(crate) struct Monitor(Rc<Mapping>);

/// Where this worker counts.
struct Counter {
    monitor: Monitor,
    number: usize,
    words: Range<usize>,
    slot: Slot,
}

/// A request that was sent to a backend, counted as in flight until this is dropped.
pub(crate) struct Sent {
    ticket: Ticket,
    /// The backend was to blame for what became of it.
    pub(crate) failed: bool,
    /// Milliseconds until the head of the answer.
    pub(crate) time: Option<u64>,
}

thread_local! {
    /// None in the master, and in a worker that has nothing to count or cannot.
    static COUNTER: OnceCell<Counter> = const { OnceCell::new() };
}

impl Monitor {
    /// Opens the file in a directory, which is made if need be.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        let path = directory.join(layout::file_name()?);
        let mapping = Mapping::open_once(&path, layout::words())?;
        // Without memory behind these words, writing there would end the process.
        mapping.reserve(0..layout::verdicts().end)?;
        Ok(Self(mapping))
    }

    /// The entries about health.
    pub(crate) fn health(&self) -> &[Entry<HEALTH>] {
        self.0.words(layout::health()).as_chunks().0
    }

    /// Differs when the daemon has said something.
    pub(crate) fn news(&self) -> u64 {
        let words = self.0.words(NEWS..NEWS + 1);
        words.first().map_or(0, |news| news.load(Acquire))
    }

    /// What the daemon says of backends.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (u64, Verdict)> {
        Verdict::all(self.0.words(layout::verdicts()))
    }

    /// All that is known, of this worker and the others.
    pub(crate) fn look(&self) -> io::Result<Seen> {
        let load = |range: Range<usize>| -> Vec<u64> {
            let words = self.0.words(range);
            words.iter().map(|word| word.load(Relaxed)).collect()
        };
        let own = COUNTER.with(|counter| counter.get().map(|counter| counter.number));
        let mut seen = Seen::of_health(&load(layout::health()));
        for number in 0..SLOTS {
            let slot = layout::slot(number);
            let head = load(layout::head_of(number));
            // Slots are given away from the first on: behind one that never was in use, none was.
            if head.first().is_none_or(|pid| *pid == 0) {
                break;
            }
            let lives = own == Some(number) || self.0.is_held(number as u64)?;
            seen.add(&head, lives, |places| {
                Ok(load(layout::entries(slot.clone(), places)))
            })?;
        }
        Ok(seen)
    }

    fn claim(&self) -> io::Result<Option<Counter>> {
        let found = self.0.claim(SLOTS, layout::slot)?;
        Ok(found.map(|(number, words)| Counter {
            monitor: self.clone(),
            number,
            slot: Slot::claim(self.0.words(words.clone()), std::process::id()),
            words,
        }))
    }
}

/// A worker begins to work with this file.
pub(crate) fn start(monitor: &Monitor) {
    // A single process that was reloaded goes on with its slot.
    if COUNTER.with(|here| here.get().is_some()) {
        return;
    }
    let why = match monitor.claim() {
        Ok(Some(counter)) => {
            let _ = COUNTER.with(|here| here.set(counter));
            return;
        }
        Ok(None) => format!("{SLOTS} workers count already"),
        Err(error) => error.to_string(),
    };
    Log::of_cycle().write(
        Level::Critical,
        format_args!(
            "paas_monitor: this worker cannot count requests, and those it handles are missing in the status: {why}"
        ),
    );
}

fn with<R>(work: impl FnOnce(&Counter, &[AtomicU64]) -> R) -> Option<R> {
    // During the process's end it may be gone.
    let found = COUNTER.try_with(|counter| {
        let counter = counter.get()?;
        Some(work(
            counter,
            counter.monitor.0.words(counter.words.clone()),
        ))
    });
    found.ok().flatten()
}

/// A request is sent to the backend with this number, whose entry is at this place.
pub(crate) fn begin(index: u32, id: BackendId) -> Option<Sent> {
    with(|counter, words| Sent {
        ticket: counter.slot.begin(words, index as usize, id.get().into()),
        failed: false,
        time: None,
    })
}

impl Drop for Sent {
    fn drop(&mut self) {
        with(|counter, words| {
            counter.slot.end(words, self.ticket, self.failed, self.time);
        });
    }
}

/// This worker has looked at this generation of the table.
pub(crate) fn has_seen(generation: u64) {
    with(|counter, words| counter.slot.has_seen(words, generation));
}

/// This worker holds so many requests.
pub(crate) fn parks(count: usize) {
    with(|counter, words| counter.slot.parks(words, count));
}
