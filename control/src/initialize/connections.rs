//! Waits until nothing is connected to a socket any more: nobody whom its application still answers, nobody in its queue.
//!
//! The kernel lists connections but announces no end of them. So it is asked, at first often, then seldom. Unlike counting
//! requests in the application or in nginx, nothing is missed between `accept` and the first byte.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::queue;

const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(200);

/// Comes back when no connection to this socket, which was bound to `name`, is left. Never, if the kernel does not tell.
pub async fn none_left(socket: OwnedFd, name: &Path) {
    let mut pause = FIRST;
    // Who has looked the name up may be about to connect, and what is just being accepted is nowhere for a moment: twice none.
    let mut empty = false;
    loop {
        match count(socket.as_fd(), name) {
            Ok(0) if empty => return,
            Ok(left) => empty = left == 0,
            Err(problem) => {
                tracing::warn!(socket = %name.display(), %problem, "cannot see who is connected to a socket; waiting for the deadline");
                return std::future::pending().await;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// How many are connected. What is accepted between the two looks is counted twice, not missed.
fn count(socket: BorrowedFd<'_>, name: &Path) -> io::Result<usize> {
    let waiting = usize::try_from(queue::of(socket)?.waiting).unwrap_or(usize::MAX);
    Ok(waiting.saturating_add(queue::accepted(name)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[tokio::test]
    async fn queued_and_accepted_connections_count_and_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let (name, other) = (directory.path().join("a"), directory.path().join("ab"));
        let listener = UnixListener::bind(&name).unwrap();
        let beside = UnixListener::bind(&other).unwrap();
        let connected = || count(listener.as_fd(), &name).unwrap();
        let all_gone = || none_left(listener.try_clone().unwrap().into(), &name);
        assert_eq!(connected(), 0);
        all_gone().await;
        let queued = UnixStream::connect(&name).unwrap();
        let _other = UnixStream::connect(&other).unwrap();
        assert_eq!(connected(), 1);
        std::fs::rename(&name, directory.path().join("public")).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let second = UnixStream::connect(directory.path().join("public")).unwrap();
        assert_eq!(connected(), 2);
        let mut wait = std::pin::pin!(all_gone());
        assert!(
            tokio::time::timeout(Duration::from_millis(50), &mut wait)
                .await
                .is_err(),
            "one is with the application, one in the queue"
        );
        drop((queued, second));
        assert_eq!(
            connected(),
            2,
            "who hung up is still to be noticed by the application"
        );
        drop((accepted, listener.accept().unwrap()));
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .unwrap();
        drop(beside);
    }
}
