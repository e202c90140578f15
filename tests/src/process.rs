//! Child processes that end with the test, and what else runs under a test's root.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, waitpid};

use crate::{Request, Response, wait};

/// A child; its output goes to a file. Dropped, it is asked to stop and, if it does not, killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    stop: Signal,
}

impl Process {
    /// Starts `command` with its output appended to `output`; `stop` is the signal that asks it to end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, output: &Path, stop: Signal) -> Process {
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(output)
            .unwrap_or_else(|error| panic!("{} cannot be written: {error}", output.display()));
        let errors = log.try_clone().expect("a file can be duplicated");
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started ({command:?}): {error}"));
        Process {
            name: name.to_owned(),
            child,
            output: output.to_path_buf(),
            stop,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it goes on for longer than the deadline.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("the end of {name}"), || self.ended())
    }

    /// Asks it to stop and waits for that.
    ///
    /// # Panics
    /// As [`Process::wait`].
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(self.stop);
        self.wait()
    }

    /// `kill -9`, and waits.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait();
        assert!(
            status.signal().is_some() || status.code().is_some(),
            "{} ended: {status}",
            self.name
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(self.stop);
        if wait::within(Duration::from_secs(20), || self.ended()).is_none() {
            eprintln!("{} (pid {}) did not stop: killed", self.name, self.id());
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process of this test; one that is gone already is no error.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A running process seen in `/proc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Arguments, joined by blanks; the name in brackets where there are none.
    pub command: String,
}

impl Seen {
    /// What `/proc/PID` says, unless the process is gone or a zombie.
    #[must_use]
    pub fn look(pid: u32) -> Option<Seen> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .map(str::to_owned)
        };
        if field("State")?.starts_with(['Z', 'X']) {
            return None;
        }
        let second = |text: String| {
            text.split_whitespace()
                .nth(1)
                .and_then(|id| id.parse().ok())
        };
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&arguments)
            .replace('\0', " ")
            .trim()
            .to_owned();
        Some(Seen {
            pid,
            parent: field("PPid")?.parse().ok()?,
            uid: field("Uid").and_then(second)?,
            gid: field("Gid").and_then(second)?,
            groups: field("Groups")?
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect(),
            command: if command.is_empty() {
                format!("[{}]", field("Name")?)
            } else {
                command
            },
        })
    }
}

/// The process of a site's master, by the `X-Master` of an answer.
///
/// # Panics
/// When no such process runs.
#[must_use]
pub fn master(answer: &Response) -> u32 {
    let told = answer.header("x-master");
    outside(told.unwrap_or_else(|| panic!("no X-Master: {answer:?}")))
}

/// The process that a site means by `PID-START-NAMESPACE`, as it sees itself in its sandbox.
///
/// # Panics
/// When no such process runs.
#[must_use]
pub fn outside(told: &str) -> u32 {
    let parts: Vec<&str> = told.splitn(3, '-').collect();
    let [inside, start, namespace] = *parts else {
        panic!("no PID-START-NAMESPACE: {told}");
    };
    let is_it = |pid: &u32| {
        let file = |name| format!("/proc/{pid}/{name}");
        let stat = fs::read_to_string(file("stat")).unwrap_or_default();
        let begun = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19));
        let status = fs::read_to_string(file("status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let own = numbers.and_then(|numbers| numbers.split_whitespace().last());
        begun == Some(start)
            && own == Some(inside)
            && fs::read_link(file("ns/pid")).is_ok_and(|own| own == Path::new(namespace))
    };
    all()
        .find(is_it)
        .unwrap_or_else(|| panic!("no process is {told}"))
}

/// Every running process that has anything to do with `directory`: an argument, its working
/// directory or an open file under it. This test's own process is not among them.
#[must_use]
pub fn under(directory: &Path) -> Vec<Seen> {
    all()
        .filter(|pid| touches(*pid, directory))
        .filter_map(Seen::look)
        .collect()
}

/// A process and all that came of it, parents first.
#[must_use]
pub fn family(first: u32) -> Vec<Seen> {
    let mut others: Vec<Seen> = all().filter_map(Seen::look).collect();
    let mut family: Vec<Seen> = Vec::new();
    let mut parents = vec![first];
    family.extend(Seen::look(first));
    while !parents.is_empty() {
        let (children, rest): (Vec<Seen>, _) = others
            .into_iter()
            .partition(|seen| seen.pid != first && parents.contains(&seen.parent));
        others = rest;
        parents = children.iter().map(|child| child.pid).collect();
        family.extend(children);
    }
    family
}

/// What the daemon behind a control socket says of itself, if it answers.
#[must_use]
pub fn ask_daemon(socket: &Path, target: &str) -> Option<serde_json::Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    // `up` holds the socket while no daemon runs.
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream
        .write_all(&Request::get("paas", target).to_bytes())
        .ok()?;
    let answer = Response::read(&mut BufReader::new(stream), false).ok()?;
    serde_json::from_slice(&answer.body).ok()
}

fn all() -> impl Iterator<Item = u32> {
    let own = u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or(0);
    fs::read_dir("/proc")
        .expect("/proc can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

fn touches(pid: u32, directory: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let inside =
        |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    let named = fs::read(proc.join("cmdline")).is_ok_and(|arguments| {
        String::from_utf8_lossy(&arguments).contains(&*directory.to_string_lossy())
    });
    named
        || inside(proc.join("cwd"))
        || fs::read_dir(proc.join("fd"))
            .is_ok_and(|files| files.flatten().any(|file| inside(file.path())))
}

/// The children of a process, theirs, and so on.
#[must_use]
pub fn descendants(of: u32) -> Vec<Seen> {
    let mut left: Vec<Seen> = all().filter_map(Seen::look).collect();
    let (mut found, mut parents) = (Vec::new(), vec![of]);
    while let Some(parent) = parents.pop() {
        let (children, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|seen| seen.parent == parent);
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        left = others;
    }
    found
}

/// The memory of some processes in bytes; what they share with others counts in part (the kernel's "proportional set size").
#[must_use]
pub fn memory(processes: &[Seen]) -> u64 {
    let of = |seen: &Seen| {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", seen.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    // One that has ended meanwhile has none.
    processes.iter().filter_map(of).sum()
}

/// Kills what is left under `directory`, but only descendants of this test (it adopts orphans, see
/// [`adopt_orphans`]): a developer's `tail -f` goes on.
pub fn kill_leftovers(directory: &Path) {
    let _ = wait::within(Duration::from_secs(5), || {
        let left: Vec<Seen> = under(directory)
            .into_iter()
            .filter(|seen| is_descendant(seen.pid))
            .collect();
        for process in &left {
            eprintln!("left behind, killed: {} {}", process.pid, process.command);
            send(process.pid, Signal::KILL);
        }
        left.is_empty().then_some(())
    });
}

fn is_descendant(pid: u32) -> bool {
    let own = u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or(0);
    let mut current = pid;
    while current > 1 {
        if current == own {
            return true;
        }
        match Seen::look(current) {
            Some(seen) => current = seen.parent,
            None => return false,
        }
    }
    false
}

/// From now on a process whose parent died becomes this test's child instead of init's, so that
/// nothing a test started can escape its cleaning up.
pub fn adopt_orphans() {
    static REAPER: Once = Once::new();
    rustix::process::set_child_subreaper(Some(getpid())).expect("the kernel knows subreapers");
    REAPER.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_millis(500));
                reap_orphans();
            }
        });
    });
}

/// What init does elsewhere: a dead process counts among its user's until somebody has heard of its end. Those that this test
/// started itself are left to it: they are in its own process group.
fn reap_orphans() {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> = children
        .flat_map(|pids| {
            let pids = pids.split_whitespace();
            pids.filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect();
    for pid in children {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after.split_whitespace().take(3).collect();
        if let [state, _, group] = *fields
            && state == "Z"
            && group.parse() != Ok(getpgrp().as_raw_nonzero().get())
        {
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}

/// Runs a program to its end: exit status, standard output and error output.
///
/// # Panics
/// When it cannot be started.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> (ExitStatus, String, String) {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status, text(output.stdout), text(output.stderr))
}

/// How many connections wait to be accepted on a unix socket that was bound at `path` or at `path.SUFFIX` and renamed
/// (the kernel remembers the name it was bound by): in `/proc/net/unix` they are there but belong to no inode yet.
#[must_use]
pub fn queue_length(path: &Path) -> usize {
    let path = path.to_string_lossy();
    let suffixed = format!("{path}.");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets
        .lines()
        .filter(|line| {
            let mut fields = line.split_ascii_whitespace().skip(6);
            let (inode, name) = (fields.next(), fields.next().unwrap_or_default());
            inode == Some("0") && (name == path || name.starts_with(&suffixed))
        })
        .count()
}
