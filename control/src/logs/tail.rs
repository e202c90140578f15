//! The end of a log, and what is added to it. A log may be cut at its head while it is read: see `rotate`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::directory::open_to_read;
use super::rotate::{first_byte, kept_in_front};
use super::{Kind, older};

/// So much of a file is read at most: more than a bound allows.
const MOST: u64 = 64 << 20;
/// How often a log that is being cut is waited for, and how long each time.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The last `count` lines, from older files too if the newest has not enough.
pub fn last(directory: &Path, kind: Kind, count: usize) -> io::Result<Vec<String>> {
    let mut lines = VecDeque::new();
    for number in 0.. {
        let name = match number {
            0 => kind.file_name().to_owned(),
            number => older(kind.file_name(), number),
        };
        let text = match open_to_read(directory, &name) {
            Ok(mut file) => {
                let size = file.metadata()?.len();
                file.seek(SeekFrom::Start(size.saturating_sub(MOST)))?;
                let mut bytes = Vec::new();
                file.take(MOST).read_to_end(&mut bytes)?;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && number > 0 => break,
            Err(error) => return Err(error),
        };
        for line in lines_of(&text).collect::<Vec<_>>().into_iter().rev() {
            if lines.len() == count {
                return Ok(lines.into());
            }
            lines.push_front(line.to_owned());
        }
        if lines.len() == count {
            break;
        }
    }
    Ok(lines.into())
}

/// Lines that say something: what a cut has blanked out is none.
fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.trim_start_matches('\0'))
        .filter(|line| !line.trim_matches(' ').is_empty())
}

/// A log whose new lines are wanted.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    kind: Kind,
    /// Up to where it has been read.
    position: u64,
    /// Where what it holds began when it was looked at last.
    start: u64,
    /// The newest of its older files then: another one tells that it has been cut.
    newest: Option<u64>,
}

impl Follower {
    /// From its present end on.
    pub fn new(directory: &Path, kind: Kind) -> io::Result<Follower> {
        let _held = hold(directory)?;
        let log = open_to_read(directory, kind.file_name())?;
        Ok(Follower {
            position: log.metadata()?.len(),
            start: first_byte(&log)?,
            newest: older_file(directory, kind, 1)?.map(|(_, inode)| inode),
            directory: directory.to_owned(),
            kind,
        })
    }

    /// The lines that have ended since the last call.
    pub fn more(&mut self) -> io::Result<Vec<String>> {
        let _held = hold(&self.directory)?;
        let mut lines = Vec::new();
        let cuts = self.cuts()?;
        let newest = cuts.first().map(|(_, inode)| *inode);
        for (file, _) in cuts.into_iter().rev() {
            let length = file.metadata()?.len();
            let unread = self.position.saturating_sub(self.start).min(length);
            lines.extend(read(&file, unread, length)?.1);
            // Where the next cut, or the log itself, goes on: the beginning of a line.
            let end = self.start + length;
            let log = open_to_read(&self.directory, self.kind.file_name())?;
            self.start = first_byte(&log)?;
            self.position = match self.start {
                0 => end - kept_in_front(end),
                _ => end,
            };
        }
        self.newest = newest.or(self.newest);
        let log = match open_to_read(&self.directory, self.kind.file_name()) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lines),
            Err(error) => return Err(error),
        };
        let size = log.metadata()?.len();
        // Emptied by hand.
        self.position = self.position.min(size);
        let (read, more) = read(&log, self.position, size)?;
        self.position += read;
        lines.extend(more);
        Ok(lines)
    }

    /// The older files that are new, the newest first.
    fn cuts(&self) -> io::Result<Vec<(File, u64)>> {
        let mut cuts = Vec::new();
        for number in 1.. {
            match older_file(&self.directory, self.kind, number)? {
                Some((_, inode)) if Some(inode) == self.newest => break,
                Some(cut) => cuts.push(cut),
                None => break,
            }
        }
        Ok(cuts)
    }
}

fn older_file(directory: &Path, kind: Kind, number: u32) -> io::Result<Option<(File, u64)>> {
    match open_to_read(directory, &older(kind.file_name(), number)) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some((file, inode)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// No log is cut while this is held. The site may hold it, too, for as long as it likes: nobody waits for it for ever.
fn hold(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    for _ in 0..TRIES {
        if flock(&directory, FlockOperation::NonBlockingLockShared).is_ok() {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(directory)
}

/// The lines that have ended between two places, and how many bytes they have.
fn read(file: &File, from: u64, to: u64) -> io::Result<(u64, Vec<String>)> {
    let length = usize::try_from(to.saturating_sub(from).min(MOST)).unwrap_or_default();
    let mut bytes = vec![0u8; length];
    file.read_exact_at(&mut bytes, from)?;
    let ended = bytes.iter().rposition(|byte| *byte == b'\n');
    bytes.truncate(ended.map_or(0, |newline| newline + 1));
    let text = String::from_utf8_lossy(&bytes);
    Ok((
        bytes.len() as u64,
        lines_of(&text).map(str::to_owned).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::rotate::{Bound, LEAST, rotate};
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    #[test]
    fn the_last_lines_come_from_older_files_too_and_new_ones_after_a_cut() {
        last_and_new_lines(tempfile::tempdir().unwrap().path());
        // A file system that cannot collapse.
        if let Ok(directory) = tempfile::tempdir_in("/dev/shm") {
            last_and_new_lines(directory.path());
        }
    }

    fn last_and_new_lines(path: &Path) {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path.join("server.log"))
            .unwrap();
        assert!(last(path, Kind::Server, 3).unwrap().is_empty());
        let mut follower = Follower::new(path, Kind::Server).unwrap();
        let bound = Bound {
            size: LEAST,
            keep: 2,
        };
        let mut followed = Vec::new();
        for number in 0..5_000 {
            writeln!(log, "line {number} {}", "x".repeat(80)).unwrap();
            if number % 97 == 0 {
                followed.extend(follower.more().unwrap());
            }
            if number % 10 == 0 {
                rotate(path, "server.log", bound).unwrap();
            }
        }
        followed.extend(follower.more().unwrap());
        assert!(path.join("server.log.2").exists());
        assert_eq!(followed.len(), 5_000);
        assert!(
            followed
                .iter()
                .enumerate()
                .all(|(number, line)| line.starts_with(&format!("line {number} ")))
        );
        let shown = last(path, Kind::Server, 1_000).unwrap();
        assert_eq!(shown.len(), 1_000);
        assert!(shown[0].starts_with("line 4000 ") && shown[999].starts_with("line 4999 "));
        write!(log, "not ended").unwrap();
        assert!(follower.more().unwrap().is_empty());
        assert_eq!(last(path, Kind::Server, 1).unwrap(), ["not ended"]);
        assert!(last(path, Kind::Access, 1).is_err(), "there is none");
        fs::remove_file(path.join("server.log")).unwrap();
        assert!(follower.more().unwrap().is_empty());
    }
}
