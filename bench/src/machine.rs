//! What the figures were taken on, and how processes are kept on a CPU.

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The machine, and what else it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name.
    pub cpu: String,
    /// How many.
    pub cpus: usize,
    /// The kernel's version.
    pub kernel: String,
    /// How many processes wanted to run, on average over the minute before: our own not yet among them.
    pub load_before: f64,
}

impl Machine {
    /// This machine, now.
    #[must_use]
    pub fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, name)| name.trim());
        Machine {
            cpu: cpu.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "{} x {}, Linux {}; load before: {:.1}",
            self.cpus, self.cpu, self.kernel, self.load_before
        )
    }
}

/// Where what is measured runs, and where all the rest does; the same if there is only one CPU.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// The CPU of what is measured.
    pub measured: usize,
    /// The CPU of load and upstreams.
    pub rest: usize,
}

impl Places {
    /// Keeps this process, and what it starts, on the CPU of the rest.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn take() -> anyhow::Result<Places> {
        let places = Places {
            measured: 0,
            rest: usize::from(std::thread::available_parallelism()?.get() > 1),
        };
        sched_setaffinity(None, &only(places.rest))?;
        Ok(places)
    }

    /// Keeps a process of one thread on the CPU of what is measured.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn keep(self, pid: u32) -> anyhow::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        anyhow::ensure!(pid.is_some(), "no process");
        sched_setaffinity(pid, &only(self.measured))?;
        Ok(())
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

/// Lets this process, and what it starts, run whenever they can: what is measured in time on the wall must not wait for other
/// programs. (Their niceness would not do: the kernel groups processes by session, and weighs only within a group.) Says
/// whether the kernel lets it; as a rule, only root may.
#[must_use]
pub fn go_before_others() -> bool {
    schedule(["--rr", "--pid", "1"])
}

/// Takes that back, also for what is started from now on.
#[must_use]
pub fn go_with_others() -> bool {
    schedule(["--other", "--pid", "0"])
}

fn schedule(how: [&str; 3]) -> bool {
    let own = std::process::id().to_string();
    std::process::Command::new("chrt")
        .args(how)
        .arg(own)
        .status()
        .is_ok_and(|status| status.success())
}

/// The CPU time a process of one thread has used so far, user and system, in nanoseconds.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let first = text.split(' ').next().unwrap_or_default();
    Ok(first.parse()?)
}

/// In what /proc counts time: hundredths of a second on all machines that this runs on.
const USER_HZ: f64 = 100.0;

/// The CPU time that a process with all of its threads has used so far, in seconds; to a hundredth. None is left of one that has ended.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks and parentheses in it; user and system time are the fields 14 and 15.
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after.split_whitespace().skip(11).take(2);
    let ticks: u32 = fields.filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / USER_HZ
}
