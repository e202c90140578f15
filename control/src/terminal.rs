//! A terminal for a program: a pseudo-terminal of its own, and everything between it and the one that we were started in. The
//! program never holds ours, so it can neither read nor write what is not its own.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::process::{Command, ExitStatus, Stdio, exit};
use std::sync::Arc;
use std::thread;

use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that a signal ended.
const SIGNALLED: i32 = 128;

/// Whether a person sits there.
pub fn is_there() -> bool {
    isatty(stdin()) && isatty(stdout())
}

/// Runs the command in a terminal of its own, which belongs to `uid` if given, until it ends.
pub fn run(mut command: Command, uid: Option<u32>) -> io::Result<ExitStatus> {
    let ours = Arc::new(openpt(
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?);
    grantpt(&*ours)?;
    unlockpt(&*ours)?;
    let name = ptsname(&*ours, Vec::new())?;
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
        .open(std::ffi::OsStr::from_bytes(name.to_bytes()))?;
    fchown(&theirs, uid, None)?;
    follow_size(&ours)?;
    let theirs = OwnedFd::from(theirs);
    command
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    let raw = Raw::begin()?;
    let mut child = command.spawn()?;
    // It holds the other end open.
    drop(command);
    let (keys, size) = (ours.clone(), ours.clone());
    // Both end with this program.
    thread::spawn(move || copy(stdin(), &*keys));
    let before = raw.before.clone();
    thread::spawn(move || heed_signals(&size, &before));
    copy(&*ours, stdout());
    let status = child.wait()?;
    drop(raw);
    Ok(status)
}

/// The exit code as a shell tells it.
pub fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(u8::MAX)
}

/// Keys go through as they are, until it is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn begin() -> io::Result<Raw> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // It may be gone; then nobody sees.
    let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
}

/// Until one of them is closed.
fn copy(from: impl AsFd, to: impl AsFd) {
    let mut buffer = [0; 8192];
    loop {
        let count = match read(&from, &mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let mut left = buffer.get(..count).unwrap_or_default();
        while !left.is_empty() {
            match write(&to, left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn follow_size(ours: &OwnedFd) -> io::Result<()> {
    Ok(tcsetwinsize(ours, tcgetwinsize(stdin())?)?)
}

/// The window's size goes on; whoever ends us gets the terminal back as it was.
fn heed_signals(ours: &OwnedFd, before: &Termios) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let kinds = [
            SignalKind::window_change(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [Ok(mut window), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
            return;
        };
        loop {
            let ended_by = tokio::select! {
                _ = window.recv() => None,
                _ = terminate.recv() => Some(SignalKind::terminate()),
                _ = hangup.recv() => Some(SignalKind::hangup()),
            };
            match ended_by {
                // The next change tells the size again.
                None => drop(follow_size(ours)),
                Some(kind) => {
                    restore(before);
                    exit(SIGNALLED + kind.as_raw_value());
                }
            }
        }
    });
}
