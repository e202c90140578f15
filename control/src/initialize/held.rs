//! A site's listening socket, which the daemon binds and holds while the site runs: its queue survives the processes.
//!
//! It is bound under a name of its own (`app.sock.<generation>`); only a site that is ready gets the site's name (`app.sock`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    getsockname, listen, shutdown, socket_with,
};

use super::queue::{self, Queue};
use super::words::{Generation, Seen};

/// How many connections wait at most; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 1024;

/// A held socket and its two names.
#[derive(Debug)]
pub struct Held {
    listener: OwnedFd,
    own: PathBuf,
    public: PathBuf,
    /// Device and inode of the file it was bound to; a rename keeps both.
    identity: (u64, u64),
}

/// Which name leads to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The site's.
    Public,
    /// The one it was bound to.
    Own,
    /// None: another generation's has taken the site's name over.
    Lost,
}

impl Held {
    /// Binds a socket at `<public>.<generation>`, for its owner and `group`; nobody can connect before the mode is right.
    pub fn bind(public: &Path, generation: Generation, group: Option<u32>) -> io::Result<Held> {
        let own = own_name(public, generation);
        if let Some(directory) = own.parent() {
            fs::create_dir_all(directory)?;
        }
        remove_if_there(&own)?;
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&listener, &SocketAddrUnix::new(&own)?)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o660))?;
        if group.is_some() {
            chown(&own, None, group)?;
        }
        listen(&listener, BACKLOG)?;
        let identity = queue::file_at(&own)?;
        Ok(Held {
            listener,
            own,
            public: public.to_owned(),
            identity,
        })
    }

    /// Takes back a socket that an earlier daemon bound for this site; `None` if it is not one.
    pub fn adopt(listener: OwnedFd, public: &Path) -> Option<(Held, Name)> {
        let own = bound_name(&listener)?;
        let generation = own
            .to_str()?
            .strip_prefix(public.to_str()?)?
            .strip_prefix('.')?;
        Generation::parse(generation)?;
        let bound = queue::file_of(listener.as_fd()).ok()?;
        let has = |path: &Path| queue::file_at(path).is_ok_and(|found| found == bound);
        let name = match (has(public), has(&own)) {
            (true, _) => Name::Public,
            (false, true) => Name::Own,
            (false, false) => Name::Lost,
        };
        Some((
            Held {
                listener,
                own,
                public: public.to_owned(),
                identity: bound,
            },
            name,
        ))
    }

    /// The socket itself, for the launcher.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The name it was bound to, which its connections bear for ever.
    pub fn own_name(&self) -> &Path {
        &self.own
    }

    /// The names it may have: its own and the site's.
    pub fn names(&self) -> [&Path; 2] {
        [&self.own, &self.public]
    }

    /// The name that leads to it now: the site's if it has that, else its own.
    pub fn name(&self) -> &Path {
        match self.has_name() {
            true => &self.public,
            false => &self.own,
        }
    }

    /// Gives the queue its full length: many servers call `listen` with a small number of their own, on this same socket.
    pub fn lengthen_queue(&self) -> io::Result<()> {
        Ok(listen(&self.listener, BACKLOG)?)
    }

    /// Gives it the site's name, over whatever had it.
    pub fn publish(&self) -> io::Result<()> {
        fs::rename(&self.own, &self.public)
    }

    /// Takes the site's name from it; a name that leads elsewhere is only removed.
    pub fn withdraw(&self) -> io::Result<()> {
        if self.has_name() {
            fs::rename(&self.public, &self.own)
        } else {
            remove_if_there(&self.public)
        }
    }

    /// Whether the site's name leads here and a connection would find room.
    pub fn look(&self) -> Seen {
        match queue::of(self.listener.as_fd()) {
            _ if !self.has_name() => Seen::Stale,
            Ok(queue) if queue.is_full() => Seen::Full,
            Ok(Queue { .. }) => Seen::Open,
            Err(problem) => {
                // nginx could not connect although the name is right: without better knowledge, believe it.
                tracing::warn!(socket = %self.public.display(), %problem, "the kernel does not tell how long a queue is; taking it for full");
                Seen::Full
            }
        }
    }

    /// Whether connections wait in the queue.
    pub fn is_queued(&self) -> bool {
        let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
        poll(&mut listener, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// From here on nobody can connect any more, whatever name they know; what is in the queue stays there.
    pub fn close_off(&self) {
        if let Err(problem) = shutdown(&self.listener, Shutdown::Read) {
            tracing::warn!(socket = %self.own.display(), %problem, "cannot close a socket off");
        }
    }

    /// The next connection of the queue. Only for a socket that no process serves any more: it does not wait.
    pub fn take(&self) -> Option<OwnedFd> {
        if !self.is_queued() {
            return None;
        }
        accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
    }

    /// Closes it and removes its own name. The site's name is another matter: see `withdraw`.
    pub fn discard(self) {
        if let Err(problem) = remove_if_there(&self.own) {
            tracing::warn!(socket = %self.own.display(), %problem, "cannot remove a socket's name");
        }
    }

    fn has_name(&self) -> bool {
        queue::file_at(&self.public).is_ok_and(|found| found == self.identity)
    }
}

/// `app.sock.<generation>`
fn own_name(public: &Path, generation: Generation) -> PathBuf {
    let mut name = public.as_os_str().to_owned();
    name.push(format!(".{generation}"));
    PathBuf::from(name)
}

fn bound_name(listener: &OwnedFd) -> Option<PathBuf> {
    match SocketAddrUnix::try_from(getsockname(listener).ok()?)
        .ok()?
        .path()?
        .to_str()
    {
        Ok(path) => Some(PathBuf::from(path)),
        Err(_) => None,
    }
}

/// Removes a file that need not be there.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn generation(number: &str) -> Generation {
        Generation::parse(number).unwrap()
    }

    #[test]
    fn a_socket_changes_its_name_and_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let public = directory.path().join("7/app.sock");
        let held = Held::bind(&public, generation("12"), None).unwrap();
        assert_eq!(held.look(), Seen::Stale, "not yet public");
        held.publish().unwrap();
        assert_eq!(held.look(), Seen::Open);
        let waiting = UnixStream::connect(&public).unwrap();
        assert!(held.is_queued());

        let (again, name) = Held::adopt(held.listener.try_clone().unwrap(), &public).unwrap();
        assert_eq!((name, again.look()), (Name::Public, Seen::Open));
        assert!(
            Held::adopt(
                held.listener.try_clone().unwrap(),
                &directory.path().join("8/app.sock")
            )
            .is_none()
        );

        held.withdraw().unwrap();
        assert!(!public.exists());
        held.close_off();
        assert!(UnixStream::connect(directory.path().join("7/app.sock.12")).is_err());
        assert!(held.take().is_some() && held.take().is_none());
        drop(waiting);
    }

    #[test]
    fn a_name_taken_over_by_another_is_stale_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let public = directory.path().join("app.sock");
        let first = Held::bind(&public, generation("1"), None).unwrap();
        first.publish().unwrap();
        let second = Held::bind(&public, generation("2"), None).unwrap();
        second.publish().unwrap();
        assert_eq!((first.look(), second.look()), (Seen::Stale, Seen::Open));
        let name = |held: &Held| {
            let listener = held.listener.try_clone().unwrap();
            Held::adopt(listener, &public).unwrap().1
        };
        assert_eq!((name(&first), name(&second)), (Name::Lost, Name::Public));
        second.withdraw().unwrap();
        assert_eq!(name(&second), Name::Own);
    }

    #[test]
    fn a_full_queue_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let public = directory.path().join("app.sock");
        let held = Held::bind(&public, generation("1"), None).unwrap();
        held.publish().unwrap();
        listen(&held.listener, 2).unwrap();
        let _waiting: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&public).unwrap())
            .collect();
        assert_eq!(held.look(), Seen::Full);
        assert!(held.take().is_some());
        assert_eq!(held.look(), Seen::Open);
    }
}
