//! Runs a site's own Python as the site's user, for what has to be known or done before a visitor comes.
//!
//! The site's code is not trusted: it runs as the site's uid (when we are root), in a sandbox like the site's where there is one, with
//! an environment of our making, for a bounded time, and a bounded part of what it writes is kept, made printable.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::visit::Room;

const SETPRIV: &str = "/usr/bin/setpriv";
/// Of what the site writes, the last bytes are kept; of these, the last lines are shown.
const KEPT_BYTES: usize = 16 * 1024;
const SHOWN_LINES: usize = 12;
const SHOWN_COLUMNS: usize = 200;

/// A Python to be run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Python<'a> {
    /// The program.
    pub(super) python: &'a Path,
    /// Where it runs: the site's directory.
    pub(super) directory: &'a Path,
    /// The uid and gid to become, for root.
    pub(super) owner: Option<(u32, u32)>,
    /// The sandbox to run in, as that user; without it, it runs as the user alone.
    pub(super) room: Option<Room<'a>>,
    /// Then it is killed.
    pub(super) timeout: Duration,
}

impl Python<'_> {
    /// How it ended (none: it was killed), and the last lines it wrote, indented and printable.
    pub(super) fn run(&self, arguments: &[&str]) -> io::Result<(Option<ExitStatus>, String)> {
        // -s: no packages from the user's home.
        let arguments = [&["-s"], arguments].concat();
        let (mut command, _trace) = match &self.room {
            Some(room) => {
                let words = [self.python.to_string_lossy().into_owned()].into_iter();
                let words: Vec<String> = words
                    .chain(arguments.iter().map(|&word| word.to_owned()))
                    .collect();
                let (command, trace) = room.command(&words).map_err(io::Error::other)?;
                (command, Some(trace))
            }
            None => (self.outside(&arguments), None),
        };
        let child = command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (status, written) = watch(child, self.timeout)?;
        Ok((status, printable(&written)))
    }

    /// What is really run.
    pub(super) fn program(&self) -> &Path {
        if self.owner.is_some() && self.room.is_none() {
            Path::new(SETPRIV)
        } else {
            self.python
        }
    }

    /// Without a sandbox.
    fn outside(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        if let Some((uid, gid)) = self.owner {
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .args([
                    "--clear-groups",
                    "--inh-caps=-all",
                    "--bounding-set=-all",
                    "--no-new-privs",
                    "--pdeathsig=KILL",
                    "--",
                ])
                .arg(self.python);
        }
        command.args(arguments).current_dir(self.directory);
        command
    }
}

/// The first directory above `path` (which is absolute and free of links) that this user may not enter.
pub(super) fn barred(path: &Path, uid: u32, gid: u32) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above
        .into_iter()
        .find(|directory| !may_enter(directory, uid, gid))
        .map(Path::to_owned)
}

fn may_enter(directory: &Path, uid: u32, gid: u32) -> bool {
    let Ok(found) = std::fs::metadata(directory) else {
        return false;
    };
    let shift = if found.uid() == uid {
        6
    } else if found.gid() == gid {
        3
    } else {
        0
    };
    found.permissions().mode() >> shift & 1 == 1
}

/// Waits for the end of the process, at most so long; then, or if it ends and leaves others behind, its group is killed.
/// The status (none if it was late) and the last of what it wrote.
fn watch(mut child: Child, timeout: Duration) -> io::Result<(Option<ExitStatus>, Vec<u8>)> {
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let mut output = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let deadline = Instant::now() + timeout;
    let mut kept = VecDeque::new();
    let mut open = true;
    let in_time = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        if open {
            watched.push(PollFd::new(&output, PollFlags::IN));
        }
        match poll(&mut watched, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = watched.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(watched);
        open = open && drain(&mut output, &mut kept)?;
        if has_ended {
            break true;
        }
        // Looked at in every round: a site that writes without end keeps `poll` from ever timing out.
        if Instant::now() >= deadline {
            break false;
        }
    };
    // The leader is not yet reaped, so the group's number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    Ok((in_time.then_some(status), kept.into()))
}

/// Keeps the last of what can be read now, at most a bounded part of an endless stream; false at its end.
fn drain(output: &mut impl Read, kept: &mut VecDeque<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    for _ in 0..256 {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => {
                kept.extend(buffer.iter().take(length));
                kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The last lines, indented, each of a bounded length, with nothing in them that a terminal obeys.
fn printable(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let shown = lines
        .iter()
        .skip(lines.len().saturating_sub(SHOWN_LINES))
        .map(|line| {
            let plain = line.chars().take(SHOWN_COLUMNS).map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            });
            format!("  {}", plain.collect::<String>())
        });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() {
        "  (nothing)".to_owned()
    } else {
        shown.join("\n")
    }
}
