//! Waiting for the kernel to say that something happened: a descriptor has something to read (a process ended, somebody
//! connected), a directory changed. Nothing here polls.
use rustix::fs::inotify;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor in the event loop.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Takes the descriptor into the event loop of this task.
    pub fn new(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        // The safe constructor is deprecated for types whose descriptor may change while they live; an `OwnedFd`'s does not.
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and an OwnedFd keeps what that one asks the caller to keep"
        )]
        AsyncFd::with_interest(descriptor.into(), Interest::READABLE).map(Self)
    }

    /// Waits until there is something to read, then lets `read` take it. When `read` says `WouldBlock`, waits again.
    pub async fn read<R>(
        &self,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(outcome) = guard.try_io(|descriptor| read(descriptor.as_fd())) {
                return outcome;
            }
        }
    }

    /// Waits until there is something to read and leaves it there: a pidfd stays readable once its process has ended.
    pub async fn ready(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        guard.retain_ready();
        Ok(())
    }
}

impl AsFd for Readable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Tells what changes in one directory.
#[derive(Debug)]
pub struct Directory(Readable);

impl Directory {
    /// Watches for `what` in the directory from now on.
    pub fn watch(path: &Path, what: inotify::WatchFlags) -> io::Result<Self> {
        let descriptor =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&descriptor, path, what | inotify::WatchFlags::ONLYDIR)?;
        Readable::new(descriptor).map(Self)
    }

    /// Waits for changes and gives the names they concern. A name may come more than once; if the kernel lost count, the
    /// list is empty: look at everything.
    pub async fn changed(&self) -> io::Result<Vec<OsString>> {
        self.0.read(names).await
    }
}

fn names(descriptor: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    let mut names = Vec::new();
    let mut overflow = false;
    loop {
        let event = reader.next()?;
        overflow |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
        names.extend(
            event
                .file_name()
                .map(|name| OsString::from_vec(name.to_bytes().to_vec())),
        );
        if reader.is_buffer_empty() {
            break;
        }
    }
    if overflow {
        names.clear();
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_tells_the_names_that_appear() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Directory::watch(directory.path(), inotify::WatchFlags::CREATE).unwrap();
        std::fs::write(directory.path().join("one"), "").unwrap();
        std::fs::write(directory.path().join("two"), "").unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(watch.changed().await.unwrap());
        }
        assert_eq!(seen, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Directory::watch(file.path(), inotify::WatchFlags::CREATE).is_err());
    }
}
