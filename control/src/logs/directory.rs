//! A site's log directory: root's, open to the owner's group, which can read it and nothing else; passable to nginx, which writes
//! two of the files and can open no other.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdir, open, openat,
    renameat, statat, unlinkat,
};

use super::Kind;

/// Who may do what with a site's logs.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    /// nginx's workers.
    pub nginx: u32,
    /// The owner's group.
    pub group: u32,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Makes the directory and its files, or gives them the owners they should have. Without `owners` everything is this process's.
pub fn make(path: &Path, owners: Option<Owners>) -> io::Result<()> {
    match mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            if let Some(owners) = owners {
                set_aside_if_others(path, owners.group)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    let directory = open(path, DIRECTORY, Mode::empty())?;
    for kind in Kind::ALL {
        let file = open_file(&directory, kind)?;
        if let Some(Owners { nginx, group }) = owners {
            let user = match kind {
                Kind::Access | Kind::Error => nginx,
                Kind::Server => 0,
            };
            fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        fchmod(&file, Mode::from_raw_mode(0o640))?;
    }
    if let Some(Owners { group, .. }) = owners {
        fchown(&directory, Some(Uid::ROOT), Some(Gid::from_raw(group)))?;
    }
    Ok(fchmod(&directory, Mode::from_raw_mode(0o751))?)
}

fn open_file(directory: &OwnedFd, kind: Kind) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = openat(
        directory,
        kind.file_name(),
        flags,
        Mode::from_raw_mode(0o600),
    )?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(io::Error::other(format!(
            "{} is no regular file; remove it",
            kind.file_name()
        ))),
    }
}

/// A directory that another owner's site of the same name has left: its lines are not the new owner's to read.
fn set_aside_if_others(path: &Path, group: u32) -> io::Result<()> {
    let found = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(io::Error::other("it is no directory; remove it"));
    }
    // Made by an earlier version, or by hand.
    if found.st_gid == group || found.st_gid == 0 {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!("~{}", found.st_gid));
    let aside = PathBuf::from(aside);
    match std::fs::symlink_metadata(&aside) {
        Ok(data) if data.is_dir() => std::fs::remove_dir_all(&aside)?,
        Ok(_) => unlinkat(CWD, &aside, AtFlags::empty())?,
        Err(_) => {}
    }
    renameat(CWD, path, CWD, &aside)?;
    mkdir(path, Mode::from_raw_mode(0o700))?;
    Ok(())
}

/// Opens a file of a log directory to read it; no link is followed, nothing that is no file is waited for.
pub fn open_to_read(directory: &Path, name: &str) -> io::Result<File> {
    let directory = open(directory, DIRECTORY, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&directory, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        _ => Err(io::Error::other("it is no regular file")),
    }
}
