//! Bounding a log that others write to and never open anew: a site's processes have `server.log` as their standard error for as
//! long as they live.
//!
//! Nothing is renamed. The log's head, up to the end of a line, is copied into `<log>.1`, and then taken out of the file in place:
//! the kernel removes whole blocks (`fallocate`, COLLAPSE_RANGE), and whoever appends goes on at the new end. So no line is lost, no
//! process is told, and none is needed to agree. Where a file system cannot remove blocks it frees them (PUNCH_HOLE): the file
//! then keeps its length and holds nothing in front.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, fallocate, fchmod,
    fchown, flock, fstat, open, openat, renameat, statat, unlinkat,
};

use super::older;

/// How large a log may become, and how many older files of it there are; together they have at most the size of one more than
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In bytes, at least [`LEAST`].
    pub size: u64,
    /// How many older files.
    pub keep: u32,
}

/// A log smaller than this is never cut.
pub const LEAST: u64 = 64 * 1024;
/// Blocks are this large, or a part of it.
const BLOCK: u64 = 4096;
/// A line longer than this may be divided.
const LONGEST_LINE: u64 = 64 * 1024;

/// Cuts a log that has outgrown its bound; says whether it did.
pub fn rotate(directory: &Path, name: &str, bound: Bound) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match open(directory, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = match openat(&directory, name, flags, Mode::empty()) {
        Ok(log) => File::from(log),
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fstat(&log)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other(format!("{name} is no regular file")));
    }
    let (start, size) = (first_byte(&log)?, log.metadata()?.len());
    if size.saturating_sub(start) <= bound.size.max(LEAST) {
        return Ok(false);
    }
    // Whoever reads on holds the directory for a moment; whoever holds it for long does not keep the disk from being bounded.
    let is_alone = flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !is_alone && size - start <= bound.size.max(LEAST).saturating_mul(2) {
        return Ok(false);
    }
    let end = end_of_line(&log, start, size)?;
    if bound.keep > 0 {
        // What was written faster than anybody looked is not kept whole if it is more than all older files may have.
        let most = bound.size.max(LEAST).saturating_mul(bound.keep.into());
        let from = start.max(end.saturating_sub(most));
        keep(&directory, &log, name, from, end, bound)?;
    }
    cut(&log, end)?;
    Ok(true)
}

/// Behind the hole that an earlier cut may have left.
pub(super) fn first_byte(log: &File) -> io::Result<u64> {
    match rustix::fs::seek(log, rustix::fs::SeekFrom::Data(0)) {
        Ok(first) => Ok(first),
        // Nothing but a hole, or nothing at all.
        Err(rustix::io::Errno::NXIO) => Ok(log.metadata()?.len()),
        Err(error) => Err(error.into()),
    }
}

/// Behind the last line that has ended; if none is in sight, the size.
fn end_of_line(log: &File, start: u64, size: u64) -> io::Result<u64> {
    let from = start.max(size.saturating_sub(LONGEST_LINE));
    let mut tail = vec![0u8; usize::try_from(size - from).unwrap_or(usize::MAX)];
    log.read_exact_at(&mut tail, from)?;
    let newline = tail.iter().rposition(|byte| *byte == b'\n');
    Ok(newline.map_or(size, |at| from + at as u64 + 1))
}

/// Makes `from` to `end` of the log the newest of its older files. One that cannot be written whole is not there.
fn keep(
    directory: &OwnedFd,
    log: &File,
    name: &str,
    from: u64,
    end: u64,
    bound: Bound,
) -> io::Result<()> {
    let draft = format!("{name}.new");
    match unlinkat(directory, &draft, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(openat(
        directory,
        &draft,
        flags,
        Mode::from_raw_mode(0o600),
    )?);
    let owner = log.metadata()?;
    if rustix::process::geteuid().is_root() {
        fchown(
            &copy,
            Some(Uid::from_raw(0)),
            Some(Gid::from_raw(owner.gid())),
        )?;
    }
    fchmod(&copy, Mode::from_raw_mode(0o640))?;
    let mut head = log;
    head.seek(SeekFrom::Start(from))?;
    io::copy(&mut head.take(end - from), &mut copy)?;
    copy.flush()?;
    for number in (1..bound.keep).rev() {
        match renameat(
            directory,
            older(name, number),
            directory,
            older(name, number + 1),
        ) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    renameat(directory, &draft, directory, older(name, 1))?;
    drop_oldest(directory, name, bound)
}

/// Removes the oldest files while all have more than they may.
fn drop_oldest(directory: &OwnedFd, name: &str, bound: Bound) -> io::Result<()> {
    let most = bound
        .size
        .max(LEAST)
        .saturating_mul(u64::from(bound.keep) + 1);
    let mut all = 0_u64;
    for number in 1..=bound.keep {
        let file = older(name, number);
        match statat(directory, &file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(data) => all += u64::try_from(data.st_size).unwrap_or_default(),
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        }
        if number > 1 && all > most {
            unlinkat(directory, &file, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Takes everything before `end` out of the file; what has been appended meanwhile stays.
fn cut(log: &File, end: u64) -> io::Result<()> {
    let blocks = kept_in_front(end);
    match fallocate(log, FallocateFlags::COLLAPSE_RANGE, 0, blocks) {
        Ok(()) => {
            // The line that began before the cut is whole in the older file.
            let rest = usize::try_from(end - blocks).unwrap_or_default();
            let mut blanks = vec![b' '; rest];
            if let Some(last) = blanks.last_mut() {
                *last = b'\n';
            }
            log.write_all_at(&blanks, 0)
        }
        Err(_) => {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(log, hole, 0, end)?)
        }
    }
}

/// The whole blocks before `end`, never up to it: a file's last byte cannot be collapsed.
pub(super) fn kept_in_front(end: u64) -> u64 {
    (end.saturating_sub(1) / BLOCK) * BLOCK
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
