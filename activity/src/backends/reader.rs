//! What all workers of this machine's nginx know and have counted of the backends, as it is now.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{
    BACKENDS, ENTRY, HEAD, HEALTH, Known, SLOTS, entries, entry, file_name, head, health, slot,
};
use crate::reader::{held, words};

/// Reads the file of a directory.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
}

/// What was there at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// By the backends' numbers.
    pub backends: BTreeMap<u64, Entry>,
    /// The workers that live.
    pub workers: Vec<Worker>,
}

/// What is known of a backend.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The word of its health; see `routing::health`.
    pub health: u64,
    /// When it last answered a request, in milliseconds of `CLOCK_MONOTONIC`; 0: never.
    pub last_answer: u64,
    /// When a request to it last failed.
    pub last_failure: u64,
    /// Failures for which it was to blame.
    pub failures: u64,
    /// How often it was left out because of them.
    pub ejections: u64,
    /// What became of requests.
    pub counted: Counted,
}

/// What workers have counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Requests that were sent.
    pub requests: u64,
    /// Those that are not answered yet, in workers that live.
    pub in_flight: u64,
    /// Those that failed.
    pub failures: u64,
    /// Milliseconds until the heads of all answers, added up.
    pub time: u64,
    /// Answers by the class of their time, as [`super::layout::BOUNDS`] has them, and one more.
    pub times: [u64; entry::CLASSES],
}

/// A worker that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: u64,
    /// The table's generation that it used last; 0: none yet.
    pub generation: u64,
    /// Requests that it holds until their site is awake.
    pub parked: u64,
}

impl Reader {
    /// A reader of the file in this directory, which need not be there yet.
    pub fn new(directory: &Path) -> Reader {
        Reader {
            directory: directory.to_owned(),
        }
    }

    fn open(&self) -> io::Result<Option<File>> {
        match File::open(self.directory.join(file_name()?)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When a backend last answered a request; 0: never, as far as anybody knows.
    pub fn last_answer(&self, id: u64) -> io::Result<u64> {
        let Some(file) = self.open()? else {
            return Ok(0);
        };
        let all = words(&file, 0, health().end)?;
        let (entries, _) = all.as_chunks::<HEALTH>();
        let found = entries
            .iter()
            .skip(1)
            .map(Known::of)
            .find(|known| *known.id == id);
        Ok(found.map_or(0, |known| *known.last_answer))
    }

    /// All of it. None: nginx has made no file.
    pub fn look(&self) -> io::Result<Option<Seen>> {
        let Some(file) = self.open()? else {
            return Ok(None);
        };
        let mut lives = vec![false; SLOTS];
        held(&file, 0, SLOTS as u64, &mut lives)?;
        let mut seen = Seen::of_health(&words(&file, 0, health().end)?);
        let end = file.metadata()?.len() / 8;
        for (number, lives) in lives.into_iter().enumerate() {
            let range = slot(number);
            if (range.start as u64) < end {
                seen.add(&words(&file, range.start, HEAD)?, lives, |places| {
                    let range = entries(range.clone(), places);
                    words(&file, range.start, range.len())
                })?;
            }
        }
        Ok(Some(seen))
    }
}

impl Seen {
    /// From the words about health.
    pub fn of_health(all: &[u64]) -> Seen {
        let (entries, _) = all.as_chunks::<HEALTH>();
        let used = entries
            .iter()
            .skip(1)
            .map(Known::of)
            .filter(|known| *known.id != 0);
        let backends = used.map(|known| {
            let entry = Entry {
                health: *known.health,
                last_answer: *known.last_answer,
                last_failure: *known.last_failure,
                failures: *known.failures,
                ejections: *known.ejections,
                counted: Counted::default(),
            };
            (*known.id, entry)
        });
        Seen {
            backends: backends.collect(),
            workers: Vec::new(),
        }
    }

    /// Adds what one slot has: its head, and its entries, of which no more are asked for than there are.
    pub fn add(
        &mut self,
        slot_head: &[u64],
        lives: bool,
        read: impl Fn(std::ops::Range<usize>) -> io::Result<Vec<u64>>,
    ) -> io::Result<()> {
        let of = |words: &[u64], index: usize| words.get(index).copied().unwrap_or(0);
        if of(slot_head, head::PID) == 0 {
            return Ok(());
        }
        if lives {
            self.workers.push(Worker {
                pid: of(slot_head, head::PID),
                generation: of(slot_head, head::GENERATION),
                parked: of(slot_head, head::PARKED),
            });
        }
        // Places are given away from the first on.
        const PIECE: usize = 64;
        let mut left = self.backends.len();
        for start in (0..BACKENDS).step_by(PIECE) {
            if left == 0 {
                break;
            }
            for found in read(start..start + PIECE)?.chunks_exact(ENTRY) {
                let Some(entry) = self.backends.get_mut(&of(found, entry::ID)) else {
                    continue;
                };
                left = left.saturating_sub(1);
                let counted = &mut entry.counted;
                let add = |sum: &mut u64, index| *sum = sum.wrapping_add(of(found, index));
                add(&mut counted.requests, entry::REQUESTS);
                add(&mut counted.failures, entry::FAILURES);
                add(&mut counted.time, entry::TIME);
                if lives {
                    add(&mut counted.in_flight, entry::IN_FLIGHT);
                }
                for (class, sum) in counted.times.iter_mut().enumerate() {
                    add(sum, entry::TIMES + class);
                }
            }
        }
        Ok(())
    }
}
