//! A file of atomics that processes share: mapped here, read or mapped by others. It may grow and is never shortened.
//!
//! Bytes of it can be locked to show that a process lives: the kernel takes the locks away with the process.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::rc::{Rc, Weak};
use std::sync::atomic::AtomicU64;

use ngx::ffi::ngx_test_config;

/// A mapped file.
pub(crate) struct Mapping {
    file: File,
    first: NonNull<AtomicU64>,
    count: usize,
}

thread_local! {
    /// The files that this process has open. A process that closed one would lose its locks, so each is opened once.
    static OPEN: RefCell<Vec<Weak<Mapping>>> = const { RefCell::new(Vec::new()) };
}

/// Whether nginx only tests a configuration: nothing is to be made then.
pub(crate) fn is_test() -> bool {
    // SAFETY: nginx sets it from its command line, before it reads a configuration.
    unsafe { ngx_test_config != 0 }
}

impl Mapping {
    /// The mapping of a file, or a new one; [`Mapping::open`] says of what.
    pub(crate) fn open_once(path: &Path, count: usize) -> io::Result<Rc<Self>> {
        OPEN.with(|open| {
            let mut open = open.borrow_mut();
            open.retain(|mapping| mapping.strong_count() > 0);
            let mut there = open.iter().filter_map(Weak::upgrade);
            if let Some(mapping) = there.find(|mapping| mapping.is(path, count)) {
                return Ok(mapping);
            }
            let mapping = Rc::new(Self::open(path, count)?);
            open.push(Rc::downgrade(&mapping));
            Ok(mapping)
        })
    }

    /// Opens the file, or makes it, and maps so many words of it.
    fn open(path: &Path, count: usize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let size = count
            .checked_mul(size_of::<AtomicU64>())
            .filter(|size| *size > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if metadata.len() < size as u64 {
            file.set_len(size as u64)?;
        }
        // SAFETY: a new mapping at a place of the kernel's choice.
        let place = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(place.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, first, count })
    }

    /// Whether the file that has this name is the one that is mapped.
    fn is(&self, path: &Path, count: usize) -> bool {
        let same = |here: &std::fs::Metadata, there: &std::fs::Metadata| {
            (here.dev(), here.ino()) == (there.dev(), there.ino())
        };
        count == self.count
            && matches!((self.file.metadata(), path.symlink_metadata()), (Ok(here), Ok(there)) if same(&here, &there))
    }

    /// Some of its words; none if there are not so many.
    pub(crate) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        // SAFETY: so many words are mapped, aligned to a page, as long as this value lives; everybody who maps the file
        // uses them as atomics, and nobody shortens it.
        let all = unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) };
        all.get(range).unwrap_or_default()
    }

    /// Makes sure that there is memory behind these words: without it, writing there would end the process.
    pub(crate) fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        let size = size_of::<AtomicU64>();
        let (Ok(start), Ok(length)) = (
            libc::off_t::try_from(range.start * size),
            libc::off_t::try_from(range.len() * size),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: it changes nothing but which parts of the file have memory.
        match unsafe { libc::posix_fallocate(self.file.as_raw_fd(), start, length) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Locks one byte for this process; false if another process has it.
    fn lock(&self, byte: u64) -> io::Result<bool> {
        self.set_lock(byte, libc::F_WRLCK)
    }

    /// Takes a slot for this process, the first one that nobody has: locks the byte of its number, and makes sure that there is
    /// memory behind its words. None: all are taken.
    pub(crate) fn claim(
        &self,
        slots: usize,
        words_of: impl Fn(usize) -> Range<usize>,
    ) -> io::Result<Option<(usize, Range<usize>)>> {
        for number in 0..slots {
            if self.lock(number as u64)? {
                let words = words_of(number);
                self.reserve(words.clone())?;
                return Ok(Some((number, words)));
            }
        }
        Ok(None)
    }

    /// Locks one byte for this process and all others that share it.
    pub(crate) fn share(&self, byte: u64) -> io::Result<bool> {
        self.set_lock(byte, libc::F_RDLCK)
    }

    /// Whether another process has locked this byte.
    pub(crate) fn is_held(&self, byte: u64) -> io::Result<bool> {
        let mut lock = question(byte, libc::F_WRLCK)?;
        // SAFETY: the question is read, and the answer written to it, during the call.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } {
            0 => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set_lock(&self, byte: u64, kind: libc::c_int) -> io::Result<bool> {
        let lock = question(byte, kind)?;
        // SAFETY: the lock is read during the call. F_SETLK does not wait.
        if unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLK, &raw const lock) } == 0 {
            return Ok(true);
        }
        match io::Error::last_os_error() {
            held if matches!(held.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => Ok(false),
            error => Err(error),
        }
    }
}

fn question(byte: u64, kind: libc::c_int) -> io::Result<libc::flock> {
    // SAFETY: a plain C structure for which all zeroes is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = libc::off_t::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
    lock.l_len = 1;
    Ok(lock)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; whoever borrowed from it is gone.
        unsafe {
            libc::munmap(
                self.first.as_ptr().cast(),
                self.count * size_of::<AtomicU64>(),
            )
        };
    }
}
