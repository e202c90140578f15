use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;

use super::*;
use crate::layout::file_name;
use crate::slot::Slot;

/// A file as nginx's workers map it: here its words are memory that is written to the file when it is to be read.
struct Counters {
    directory: TempDir,
    layout: Layout,
    words: Vec<AtomicU64>,
    file: File,
}

impl Counters {
    fn new(sites: usize) -> Counters {
        let (directory, layout) = (TempDir::new().unwrap(), Layout::new(sites).unwrap());
        let path = directory.path().join(file_name(layout).unwrap());
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .unwrap();
        file.set_len(layout.words() as u64 * 8).unwrap();
        let words = (0..layout.words()).map(|_| AtomicU64::new(0)).collect();
        Counters {
            directory,
            layout,
            words,
            file,
        }
    }

    fn slot(&self, number: usize) -> &[AtomicU64] {
        &self.words[self.layout.slot(number)]
    }

    fn look(&self) -> Snapshot {
        let bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        self.file.write_all_at(&bytes, 0).unwrap();
        Reader::new(self.directory.path()).look().unwrap()
    }

    fn hold(&self, bytes: &[u64]) -> Holder {
        hold(
            &self.directory.path().join(file_name(self.layout).unwrap()),
            bytes,
        )
    }
}

/// Another process that holds these bytes; the last one shared.
fn hold(path: &Path, bytes: &[u64]) -> Holder {
    const HOLD: &str = "import fcntl, sys\n\
            file = open(sys.argv[1], 'r+b')\n\
            for byte in sys.argv[2:]:\n\
            \x20   kind = fcntl.LOCK_SH if byte == '256' else fcntl.LOCK_EX\n\
            \x20   fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, int(byte))\n\
            print('held', flush=True)\n\
            sys.stdin.read()\n";
    let mut process = Command::new("python3")
        .args(["-c", HOLD])
        .arg(path)
        .args(bytes.iter().map(u64::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "held\n");
    Holder(process)
}
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_living_workers_count_is_added_up_and_what_dead_ones_had_in_flight_is_void() {
    let counters = Counters::new(8);
    for (number, time) in [(0, 100), (3, 400), (4, 200)] {
        let slot = Slot::claim(counters.slot(number));
        slot.begin(counters.slot(number), 77, time);
    }
    let nobody = counters.look();
    assert!(!nobody.is_complete(), "nobody counts");
    assert_eq!(
        nobody.of(77),
        Busy {
            in_flight: 0,
            last: Some(400)
        }
    );

    let holder = counters.hold(&[0, 4, 255]);
    let seen = counters.look();
    assert!(seen.is_complete());
    assert_eq!(seen.counting(), 3);
    assert_eq!(
        seen.of(77),
        Busy {
            in_flight: 2,
            last: Some(400)
        }
    );
    assert_eq!(seen.of(78), Busy::default());
    drop(holder);
    assert_eq!(
        counters.look().of(77),
        Busy {
            in_flight: 0,
            last: Some(400)
        }
    );
}

#[test]
fn a_worker_that_cannot_count_makes_everything_uncertain() {
    let counters = Counters::new(8);
    let counting = counters.hold(&[0]);
    let (one, other) = (counters.hold(&[BLIND]), counters.hold(&[BLIND]));
    assert!(counters.look().is_blind());
    drop(one);
    assert!(counters.look().is_blind(), "there is another one");
    drop(other);
    assert!(counters.look().is_complete());
    drop(counting);
}

#[test]
fn requests_without_an_entry_count_for_every_site() {
    let counters = Counters::new(1);
    let words = counters.slot(0);
    let slot = Slot::claim(words);
    slot.begin(words, 1, 10);
    let unlisted = slot.begin(words, 2, 20);
    let holder = counters.hold(&[0]);
    let seen = counters.look();
    assert_eq!((seen.of(1).in_flight, seen.of(2).in_flight), (2, 1));
    assert_eq!((seen.of(1).last, seen.of(2).last), (Some(10), Some(20)));
    assert_eq!(seen.unlisted(), 1);
    slot.end(words, unlisted, 30);
    assert_eq!(counters.look().of(1).in_flight, 1);
    assert_eq!(
        counters.look().of(3),
        Busy {
            in_flight: 0,
            last: Some(30)
        }
    );
    drop(holder);
}

#[test]
fn files_of_another_boot_go_and_of_an_unknown_format_nothing_is_believed() {
    let counters = Counters::new(8);
    let holder = counters.hold(&[0]);
    let old = counters.directory.path().join("another-boot.1.8");
    fs::write(&old, "").unwrap();
    assert!(counters.look().is_complete());
    assert!(!old.exists());
    // The file of a module that is not ours, while one of its workers lives.
    let newer = counters
        .directory
        .path()
        .join(format!("{}.999.8", boot().unwrap()));
    fs::write(&newer, "?").unwrap();
    assert!(counters.look().is_complete());
    let other = hold(&newer, &[12]);
    assert!(counters.look().is_blind());
    drop(other);
    drop(holder);
    assert!(
        !Reader::new(Path::new("/nonexistent"))
            .look()
            .unwrap()
            .is_complete()
    );
}

#[test]
fn a_file_shorter_than_its_name_says_reads_as_empty() {
    let counters = Counters::new(8);
    counters.file.set_len(20).unwrap();
    let seen = Reader::new(counters.directory.path()).look().unwrap();
    assert_eq!(seen.of(1), Busy::default());
}
