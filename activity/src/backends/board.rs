//! Where the daemon writes what its probes say, and what a worker reads there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{BACKENDS, NEWS, file_name, verdicts};

/// What probes say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It serves.
    Up,
    /// It cannot serve; not to be believed after this time, unless it is said again.
    Down {
        /// Until when, in milliseconds of `CLOCK_MONOTONIC`.
        until: u64,
    },
}

impl Verdict {
    fn to_word(self) -> u64 {
        match self {
            Verdict::Up => 1,
            Verdict::Down { until } => until << 2 | 2,
        }
    }

    fn from_word(word: u64) -> Option<Verdict> {
        match word & 0b11 {
            1 => Some(Verdict::Up),
            2 => Some(Verdict::Down { until: word >> 2 }),
            _ => None,
        }
    }

    /// The verdicts in these words, which are those of [`verdicts`], and the backends they are about.
    pub fn all(words: &[AtomicU64]) -> impl Iterator<Item = (u64, Verdict)> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (pairs, _) = words.as_chunks::<2>();
        pairs
            .iter()
            .map(move |[id, verdict]| (load(id), load(verdict)))
            .take_while(|(id, _)| *id != 0)
            .filter_map(|(id, word)| Some((id, Verdict::from_word(word)?)))
    }
}

/// The daemon's place in the file. The file is nginx's; until there is one, nothing is written.
#[derive(Debug)]
pub struct Board {
    directory: PathBuf,
    open: Option<Open>,
    /// In the order of their places; a place is kept for as long as the daemon lives.
    said: Vec<(u64, Verdict)>,
    places: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    news: u64,
}

impl Board {
    /// Nothing is said yet.
    pub fn new(directory: &Path) -> Board {
        Board {
            directory: directory.to_owned(),
            open: None,
            said: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Says something of a backend; false: nobody can hear it, as nginx has no file yet or has more backends than places.
    pub fn say(&mut self, id: u64, verdict: Verdict) -> io::Result<bool> {
        let place = match self.places.get(&id) {
            Some(place) => *place,
            None if self.said.len() >= BACKENDS => return Ok(false),
            None => {
                self.said.push((id, verdict));
                self.places.insert(id, self.said.len() - 1);
                self.said.len() - 1
            }
        };
        if let Some(said) = self.said.get_mut(place) {
            said.1 = verdict;
        }
        let outcome = self.write(place);
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    fn write(&mut self, place: usize) -> io::Result<bool> {
        let path = self.directory.join(file_name()?);
        let identity = match path.metadata() {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open = None;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let open = match &mut self.open {
            Some(open) if open.identity == identity => {
                if let Some(said) = self.said.get(place) {
                    put(&open.file, place, &[*said])?;
                }
                open
            }
            // All of it anew: what stands there may be that of a daemon before this one.
            _ => {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                let mut news = [0; 8];
                file.read_exact_at(&mut news, NEWS as u64 * 8)?;
                put(&file, 0, &self.said)?;
                if self.said.len() < BACKENDS {
                    wipe(&file, self.said.len())?;
                }
                let news = u64::from_ne_bytes(news);
                self.open.insert(Open {
                    file,
                    identity,
                    news,
                })
            }
        };
        open.news = open.news.wrapping_add(1);
        let news = open.news.to_ne_bytes();
        open.file.write_all_at(&news, NEWS as u64 * 8)?;
        Ok(true)
    }
}

/// Each word is written whole: it lies within one page, and is aligned.
fn put(file: &File, place: usize, said: &[(u64, Verdict)]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(said.len() * 16);
    for (id, verdict) in said {
        bytes.extend_from_slice(&id.to_ne_bytes());
        bytes.extend_from_slice(&verdict.to_word().to_ne_bytes());
    }
    file.write_all_at(&bytes, offset(place))
}

fn wipe(file: &File, from: usize) -> io::Result<()> {
    let zeroes = vec![0; (BACKENDS - from) * 16];
    file.write_all_at(&zeroes, offset(from))
}

fn offset(place: usize) -> u64 {
    (verdicts().start as u64 + place as u64 * 2) * 8
}

#[cfg(test)]
mod tests {
    use super::super::layout::words;
    use super::*;
    use tempfile::TempDir;

    fn read(path: &Path) -> (u64, Vec<(u64, Verdict)>) {
        let bytes = std::fs::read(path).unwrap();
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<AtomicU64> = words[..verdicts().end]
            .iter()
            .map(|word| AtomicU64::new(u64::from_ne_bytes(*word)))
            .collect();
        let all = Verdict::all(&words[verdicts()]).collect();
        (words[NEWS].load(Ordering::Relaxed), all)
    }

    fn make(directory: &Path) -> PathBuf {
        let path = directory.join(file_name().unwrap());
        // As long as what is read of it here.
        let file = File::create(&path).unwrap();
        file.set_len(verdicts().end as u64 * 8).unwrap();
        assert!(verdicts().end < words());
        path
    }

    #[test]
    fn what_is_said_is_read_and_each_time_there_is_news() {
        let directory = TempDir::new().unwrap();
        let mut board = Board::new(directory.path());
        assert!(!board.say(7, Verdict::Up).unwrap(), "there is no nginx yet");
        let path = make(directory.path());
        let down = Verdict::Down { until: 123_456 };
        assert!(board.say(9, down).unwrap());
        assert_eq!(read(&path), (1, vec![(7, Verdict::Up), (9, down)]));
        assert!(board.say(7, down).unwrap());
        assert_eq!(read(&path), (2, vec![(7, down), (9, down)]));
    }

    #[test]
    fn a_new_daemon_and_a_new_file_have_no_old_verdicts() {
        let directory = TempDir::new().unwrap();
        let path = make(directory.path());
        let mut before = Board::new(directory.path());
        for id in 1..=5 {
            before.say(id, Verdict::Down { until: 1 }).unwrap();
        }
        let mut after = Board::new(directory.path());
        after.say(3, Verdict::Up).unwrap();
        assert_eq!(read(&path), (6, vec![(3, Verdict::Up)]));
        std::fs::remove_file(&path).unwrap();
        assert!(!after.say(3, Verdict::Up).unwrap());
        let path = make(directory.path());
        after.say(4, Verdict::Up).unwrap();
        assert_eq!(read(&path), (1, vec![(3, Verdict::Up), (4, Verdict::Up)]));
    }
}
