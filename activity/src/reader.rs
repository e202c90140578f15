//! The daemon's side: what all workers of this machine's nginx have counted, as it is now.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use rustix::time::{ClockId, clock_gettime};

use crate::layout::{BLIND, ENTRY, HEAD, Layout, SLOTS, boot, entry, head};

/// How often a slot is read anew because its worker was just changing it.
const TRIES: usize = 100;

/// Reads the files of a directory.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    files: HashMap<String, (Option<Layout>, File)>,
}

/// What all workers had counted at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<View>,
    counting: usize,
    blind: bool,
}

/// How busy a site is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// Its requests in flight, in workers that live.
    pub in_flight: u64,
    /// When the last one that anybody remembers began or ended.
    pub last: Option<u64>,
}

/// One slot.
#[derive(Debug, Default)]
struct View {
    lives: bool,
    sites: HashMap<u64, Busy>,
    unlisted: Busy,
}

impl Reader {
    /// A reader of the files in this directory, which need not be there yet.
    pub fn new(directory: &Path) -> Reader {
        Reader {
            directory: directory.to_owned(),
            files: HashMap::new(),
        }
    }

    /// Looks at all sites.
    pub fn look(&mut self) -> io::Result<Snapshot> {
        self.find()?;
        // Whoever took a site's name away before this sees all requests that had found it.
        fence(Ordering::SeqCst);
        let mut snapshot = Snapshot::default();
        for (layout, file) in self.files.values() {
            match layout {
                Some(layout) => snapshot.add(*layout, file)?,
                // Whoever works with a file of another format counts what nobody here can read.
                None => snapshot.blind |= locked(file, 0, 0)?.is_some(),
            }
        }
        Ok(snapshot)
    }

    /// Opens what is new in the directory, and removes what is of another boot.
    fn find(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let boot = boot()?;
        for found in entries {
            let found = found?;
            let Ok(name) = found.file_name().into_string() else {
                continue;
            };
            if self.files.contains_key(&name) {
                continue;
            }
            if !name.starts_with(&boot) {
                fs::remove_file(found.path())?;
                continue;
            }
            let file = File::open(found.path())?;
            self.files
                .insert(name.clone(), (Layout::of_name(&name, &boot), file));
        }
        Ok(())
    }
}

impl Snapshot {
    /// Whether what it says of idle sites can be believed: somebody counts, and nobody serves who cannot.
    pub fn is_complete(&self) -> bool {
        self.counting > 0 && !self.blind
    }

    /// How many workers count.
    pub fn counting(&self) -> usize {
        self.counting
    }

    /// Whether there is a worker that cannot count.
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// Requests in flight for which there was no entry: files with room for more sites are needed.
    pub fn unlisted(&self) -> u64 {
        let living = self.slots.iter().filter(|slot| slot.lives);
        living.map(|slot| slot.unlisted.in_flight).sum()
    }

    /// How busy a site is. Requests that were counted without their site may be its own.
    pub fn of(&self, site: u64) -> Busy {
        let mut sum = Busy::default();
        for slot in &self.slots {
            let listed = slot.sites.get(&site);
            if slot.lives {
                let of_it = listed.map_or(0, |busy| busy.in_flight);
                sum.in_flight = sum
                    .in_flight
                    .saturating_add(of_it)
                    .saturating_add(slot.unlisted.in_flight);
            }
            sum.last = sum.last.max(listed.unwrap_or(&slot.unlisted).last);
        }
        sum
    }

    fn add(&mut self, layout: Layout, file: &File) -> io::Result<()> {
        let mut lives = vec![false; SLOTS];
        held(file, 0, SLOTS as u64, &mut lives)?;
        self.blind |= locked(file, BLIND, 1)?.is_some();
        for (number, lives) in lives.into_iter().enumerate() {
            self.counting += usize::from(lives);
            let view = View::read(layout, file, number, lives)?;
            if lives || !view.sites.is_empty() || view.unlisted != Busy::default() {
                self.slots.push(view);
            }
        }
        Ok(())
    }
}

impl View {
    fn read(layout: Layout, file: &File, number: usize, lives: bool) -> io::Result<View> {
        let start = layout.slot(number).start;
        for _ in 0..TRIES {
            let before = words(file, start, HEAD)?;
            let word = |index: usize| before.get(index).copied().unwrap_or(0);
            let sequence = word(head::SEQUENCE);
            if sequence % 2 == 1 && lives {
                std::thread::yield_now();
                continue;
            }
            let used = usize::try_from(word(head::USED))
                .unwrap_or(usize::MAX)
                .min(layout.sites());
            let entries = match used {
                0 => Vec::new(),
                used => words(file, start + HEAD, used * ENTRY)?,
            };
            let after = words(file, start, HEAD)?;
            if after.first() != Some(&sequence) {
                continue;
            }
            let sites = entries.chunks_exact(ENTRY).filter_map(|found| {
                let busy = Busy::new(*found.get(entry::IN_FLIGHT)?, *found.get(entry::LAST)?);
                Some((*found.get(entry::SITE)?, busy))
            });
            return Ok(View {
                lives,
                sites: sites.collect(),
                unlisted: Busy::new(word(head::UNLISTED), word(head::UNLISTED_LAST)),
            });
        }
        // It cannot be: a worker changes a slot within a microsecond. One that was stopped in the middle can be anything.
        Ok(View {
            lives,
            sites: HashMap::new(),
            unlisted: Busy {
                in_flight: 1,
                last: None,
            },
        })
    }
}

impl Busy {
    fn new(in_flight: u64, last: u64) -> Busy {
        Busy {
            in_flight,
            last: (last > 0).then_some(last),
        }
    }
}

/// Milliseconds of the clock that the workers use.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Some words of the file; behind its end there are zeroes.
pub(crate) fn words(file: &File, start: usize, count: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; count * 8];
    let (mut offset, mut rest) = (start as u64 * 8, bytes.as_mut_slice());
    while !rest.is_empty() {
        match file.read_at(rest, offset)? {
            0 => break,
            read => {
                offset += read as u64;
                rest = rest.get_mut(read..).unwrap_or_default();
            }
        }
    }
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    Ok(bytes.chunks_exact(8).map(word).collect())
}

/// Marks which bytes of a range are locked by a process that lives.
pub(crate) fn held(file: &File, start: u64, end: u64, marks: &mut [bool]) -> io::Result<()> {
    let mut ranges = vec![(start, end)];
    while let Some((start, end)) = ranges.pop() {
        if start >= end {
            continue;
        }
        // The kernel names one of the locks in the range, not the first.
        if let Some((first, length)) = locked(file, start, end - start)? {
            let behind = match length {
                0 => end,
                length => first.saturating_add(length).min(end),
            };
            let first = first.max(start);
            for mark in marks.iter_mut().take(behind as usize).skip(first as usize) {
                *mark = true;
            }
            ranges.push((start, first));
            ranges.push((behind, end));
        }
    }
    Ok(())
}

/// A lock of another process in this range: where it starts and how long it is.
fn locked(file: &File, start: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let question = Flock {
        start,
        length,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    let found = fcntl_getlk(file.as_fd(), &question)?;
    Ok(found.map(|lock| (lock.start, lock.length)))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
