//! What the kernel tells of a site's process: the one that the Emperor started. In a sandbox that is bubblewrap, which stays
//! outside and has the site's own program below it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use super::diagnosis::Exit;
use crate::watch::Readable;

/// What bubblewrap calls itself to the kernel.
const SANDBOX: &str = "bwrap";
/// The program's number in its sandbox: bubblewrap's own first process has the one before.
const PROGRAM: &str = "2";

/// How it ended, as long as its parent has not heard of it: the Emperor takes its time.
pub fn exit(process: &Readable) -> Option<Exit> {
    let pid = pid_of(process)?;
    let stat = of(pid, "stat")?;
    // Still the same process: its number is not used again before its parent has heard.
    (pid_of(process)? == pid).then_some(())?;
    let status = last_field(&stat)?.parse().ok()?;
    is_zombie(&stat).then(|| Exit::of_status(status))
}

/// Whether the site's program has ended. It ends before the sandbox around it, and that before what else is in there: a request
/// that broke off with it can be known by that.
pub fn has_ended(process: &Readable) -> bool {
    let Some(pid) = pid_of(process) else {
        return true;
    };
    let Some(stat) = of(pid, "stat") else {
        return true;
    };
    if is_zombie(&stat) {
        return true;
    }
    if of(pid, "comm").is_none_or(|name| name.trim_end() != SANDBOX) {
        return false;
    }
    let programs = children(pid).into_iter().flat_map(children);
    !programs.into_iter().any(|program| {
        of(program, "status").is_some_and(|status| is_the_program(&status))
            && of(program, "stat").is_some_and(|stat| !is_zombie(&stat))
    })
}

fn is_the_program(status: &str) -> bool {
    let mut lines = status.lines();
    let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some(PROGRAM)
}

/// The name, which comes before, may have blanks and parentheses in it.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn last_field(stat: &str) -> Option<&str> {
    stat.trim_end().rsplit(' ').next()
}

fn children(pid: u32) -> Vec<u32> {
    let list = of(pid, &format!("task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn of(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

fn pid_of(process: &Readable) -> Option<u32> {
    let descriptor = process.as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // -1 when it is gone.
    pid.trim().parse().ok()
}
