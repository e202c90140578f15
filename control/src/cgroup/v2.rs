//! Control groups of version 2: one tree, `cgroup.controllers` at its top.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{PERIOD, put, quota};
use crate::model::Limits;

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Whether this is the machine's kind; an error if it is but lacks a controller.
pub(super) fn is_there(mount: &Path) -> Result<bool, String> {
    let path = mount.join("cgroup.controllers");
    let Ok(controllers) = fs::read_to_string(&path) else {
        return Ok(false);
    };
    let lacking: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|there| there == *wanted))
        .collect();
    match lacking.as_slice() {
        [] => Ok(true),
        lacking => Err(format!("{} lacks {}", path.display(), lacking.join(", "))),
    }
}

/// The directories below may limit each of the controllers.
pub(super) fn share(directory: &Path) -> io::Result<()> {
    let file = "cgroup.subtree_control";
    let shared = fs::read_to_string(directory.join(file)).unwrap_or_default();
    let missing: Vec<String> = CONTROLLERS
        .iter()
        .filter(|wanted| !shared.split_whitespace().any(|there| there == **wanted))
        .map(|wanted| format!("+{wanted}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    put(directory, file, &missing.join(" "))
}

pub(super) fn write(directory: &Path, limits: &Limits) -> io::Result<()> {
    let or_max = |number: Option<u64>| number.map_or("max".to_owned(), |number| number.to_string());
    put(
        directory,
        "memory.max",
        &or_max(limits.memory.map(|memory| memory.get())),
    )?;
    // Without the swap controller there is no such file.
    if directory.join("memory.swap.max").exists() {
        let swap = if limits.memory.is_some() { "0" } else { "max" };
        put(directory, "memory.swap.max", swap)?;
    }
    put(
        directory,
        "pids.max",
        &or_max(limits.processes.map(|most| most.get().into())),
    )?;
    put(
        directory,
        "cpu.weight",
        &limits.weight.map_or(100, |weight| weight.get()).to_string(),
    )?;
    let most = or_max(limits.cpu.map(quota));
    put(
        directory,
        "cpu.max",
        &format!("{most} {}", PERIOD.as_micros()),
    )
}

pub(super) fn cpu_used(directory: &Path) -> io::Result<Duration> {
    number_of(&directory.join("cpu.stat"), "usage_usec").map(Duration::from_micros)
}

pub(super) fn killed_for_memory(directory: &Path) -> io::Result<u64> {
    number_of(&directory.join("memory.events"), "oom_kill")
}

/// The number behind a name in a file of such lines.
pub(super) fn number_of(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.ok_or_else(|| io::Error::other(format!("{} has no {name}", path.display())))
}
