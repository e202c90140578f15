//! Listening sockets with a name: bound here, or handed over by who started this program and holds them while it is restarted.
//!
//! Handed over is what systemd's protocol names (`LISTEN_FDS`), or descriptor 0, as for sites. Which of them is meant shows by the
//! file that it is bound to.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::listen;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::initialize::held::remove_if_there;
use crate::initialize::queue;

/// So many connections wait while a daemon is restarted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The first descriptor of systemd's protocol.
const FIRST: i32 = 3;

/// Binds a socket at `path`, in place of whatever is there. Nobody connects before its mode and group are right.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    remove_if_there(path)?;
    let draft = path.with_extension("new");
    remove_if_there(&draft)?;
    let listener = UnixListener::bind(&draft)?;
    listen(&listener, BACKLOG)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
    chown(&draft, None, group)?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// The socket at `path`, if this program has been given it.
pub fn inherited(path: &Path) -> Option<UnixListener> {
    let wanted = queue::file_at(path).ok()?;
    let given = std::iter::once(io::stdin().as_fd().try_clone_to_owned()).chain(named());
    given
        .flatten()
        .find(|socket| queue::file_of(socket.as_fd()).is_ok_and(|file| file == wanted))
        .map(UnixListener::from)
}

/// What systemd's variables say is there.
fn named() -> impl Iterator<Item = io::Result<OwnedFd>> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_meant = number("LISTEN_PID") == Some(getpid().as_raw_nonzero().get());
    let count = number("LISTEN_FDS").filter(|_| is_meant).unwrap_or(0);
    (FIRST..FIRST.saturating_add(count.clamp(0, 16))).map(|descriptor| {
        // A descriptor's number alone gives nobody a right to it; asking for one's own by the process does.
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        Ok(pidfd_getfd(own, descriptor, PidfdGetfdFlags::empty())?)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_takes_the_place_of_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(bind(&path, 0o600, None).unwrap());
        let listener = bind(&path, 0o660, None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let _waiting = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert!(inherited(&path).is_none(), "nobody gave it");
    }
}
