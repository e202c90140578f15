//! Control groups of version 1: a tree for each controller.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::v2::number_of;
use super::{PERIOD, directories, put, quota};
use crate::model::Limits;

/// The trees that are used, by the names of their directories (`cpu` may be a link to `cpu,cpuacct`).
pub(super) const TREES: [&str; 4] = [MEMORY, "pids", "cpu", CPU_TIME];
/// The tree that bounds memory, and tells whom that has killed.
pub(super) const MEMORY: &str = "memory";
/// The tree that counts.
pub(super) const CPU_TIME: &str = "cpuacct";

/// An error if a controller is not there.
pub(super) fn is_there(mount: &Path) -> Result<(), String> {
    let lacking: Vec<&str> = TREES
        .into_iter()
        .filter(|tree| !mount.join(tree).join("cgroup.procs").exists())
        .collect();
    match lacking.as_slice() {
        [] => Ok(()),
        lacking => Err(format!(
            "{} has neither cgroup.controllers nor {}",
            mount.display(),
            lacking.join(", ")
        )),
    }
}

/// What processes below use counts above, too: old kernels have to be told.
pub(super) fn share(tree: &Path) -> io::Result<()> {
    let file = "memory.use_hierarchy";
    match fs::read_to_string(tree.join(file)) {
        Ok(now) if now.trim() == "0" => put(tree, file, "1"),
        _ => Ok(()),
    }
}

/// Writes what belongs into this tree.
pub(super) fn write(directory: &Path, limits: &Limits) -> io::Result<()> {
    let or_none = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
    let has = |file: &str| directory.join(file).exists();
    if has("memory.limit_in_bytes") {
        memory(
            directory,
            &or_none(limits.memory.map(|memory| memory.get())),
        )?;
    }
    if has("pids.max") {
        let most = limits
            .processes
            .map_or("max".to_owned(), |most| most.to_string());
        put(directory, "pids.max", &most)?;
    }
    if has("cpu.shares") {
        // 1024 is usual there, 100 here; fewer than 2 are not taken.
        let shares = limits.weight.map_or(100, |weight| u64::from(weight.get())) * 1024 / 100;
        put(directory, "cpu.shares", &shares.max(2).to_string())?;
        put(
            directory,
            "cpu.cfs_period_us",
            &PERIOD.as_micros().to_string(),
        )?;
        put(
            directory,
            "cpu.cfs_quota_us",
            &or_none(limits.cpu.map(quota)),
        )?;
    }
    Ok(())
}

/// Memory with swap may never be less than memory alone: which of the two is written first depends on where it was.
fn memory(directory: &Path, most: &str) -> io::Result<()> {
    let (alone, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    if !directory.join(with_swap).exists() {
        return put(directory, alone, most);
    }
    put(directory, alone, most).or_else(|_| {
        put(directory, with_swap, most)?;
        put(directory, alone, most)
    })?;
    put(directory, with_swap, most)
}

/// No directory may have more CPU than the one above it: those below that have give way first, and have what it has.
pub(super) fn loosen_below(directory: &Path, limits: &Limits) -> io::Result<()> {
    let Some(most) = limits.cpu.map(quota) else {
        return Ok(());
    };
    for leaf in directories(directory)? {
        let now = fs::read_to_string(leaf.join("cpu.cfs_quota_us")).unwrap_or_default();
        if now.trim().parse().is_ok_and(|now: u64| now > most) {
            put(&leaf, "cpu.cfs_quota_us", "-1")?;
        }
    }
    Ok(())
}

pub(super) fn cpu_used(directory: &Path) -> io::Result<Duration> {
    let path = directory.join("cpuacct.usage");
    let text = fs::read_to_string(&path)?;
    let nanos = text
        .trim()
        .parse()
        .map_err(|_| io::Error::other(format!("{} holds no number", path.display())))?;
    Ok(Duration::from_nanos(nanos))
}

pub(super) fn killed_for_memory(directory: &Path) -> io::Result<u64> {
    number_of(&directory.join("memory.oom_control"), "oom_kill ")
}
