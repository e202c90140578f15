//! Reads files below a site's directory without being led out of it, or into anything large.
//!
//! The directory is its owner's: names and contents may be hostile and may change while they are read. The kernel
//! resolves every path beneath the opened directory; devices and pipes are refused; reading stops at a bound.

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A file larger than this is read up to here.
const MAX_BYTES: u64 = 256 * 1024;
/// A directory's further entries are not looked at.
const MAX_ENTRIES: usize = 2000;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or something that is neither file nor directory.
    Missing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link that leads out of the site's directory.
    Outside,
}

/// An opened directory.
#[derive(Debug)]
pub struct Directory(File);

impl Directory {
    /// Opens the site's directory itself; this path may contain links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(file))
    }

    /// What stands under a relative path.
    pub fn kind(&self, path: &str) -> Kind {
        match self.open_beneath(path, OFlags::PATH) {
            Err(Errno::XDEV) => Kind::Outside,
            Err(_) => Kind::Missing,
            Ok(file) => match fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::RegularFile) => Kind::File,
                Ok(FileType::Directory) => Kind::Directory,
                _ => Kind::Missing,
            },
        }
    }

    /// The text of a regular file, or of its first 256 KiB; `None` if there is none or it cannot be read.
    pub fn read(&self, path: &str) -> Option<String> {
        // NONBLOCK: a pipe in the file's place must not make us wait for its writer.
        let file = self
            .open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in it, sorted; those that are no UTF-8 are left out.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)?.take(MAX_ENTRIES) {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<File, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .map(File::from)
    }
}
