//! What a user or a site may have, as `set-user` and `set-site` take it and the `show` commands show it.
use super::tuning::{Typed, set};
use crate::model::{Bytes, Cpu, CpuWeight, Descriptors, Limits, Network, Processes};
use serde::Serialize;
use std::fmt::Display;

/// What may be limited; `default` takes a limit back.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits of its processes (`default` takes one back)")]
pub(super) struct Limited {
    /// Memory of all of them together, files in /tmp included: 512m.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Typed<Bytes>>,
    /// Processes and threads, all together, 8 to 100000.
    #[arg(long, value_name = "NUMBER")]
    processes: Option<Typed<Processes>>,
    /// The most CPU at any time, in per cent of one core: 150.
    #[arg(long, value_name = "PERCENT")]
    cpu: Option<Typed<Cpu>>,
    /// The weight against others when all want the CPU, 1 to 10000; 100 is usual.
    #[arg(long, value_name = "NUMBER")]
    cpu_weight: Option<Typed<CpuWeight>>,
    /// Open files of each process, 64 to 1000000.
    #[arg(long, value_name = "NUMBER")]
    open_files: Option<Typed<Descriptors>>,
    /// The size of /tmp, of /var/tmp and of /dev/shm, each.
    #[arg(long, value_name = "SIZE")]
    tmp: Option<Typed<Bytes>>,
    /// Where they may connect to: nowhere (`none`), or to the internet (`outbound`).
    #[arg(long, value_name = "none|outbound")]
    network: Option<Typed<Network>>,
}

impl Limited {
    /// The limits with what was typed.
    pub(super) fn apply(self, mut limits: Limits) -> Limits {
        set(&mut limits.memory, self.memory);
        set(&mut limits.processes, self.processes);
        set(&mut limits.cpu, self.cpu);
        set(&mut limits.weight, self.cpu_weight);
        set(&mut limits.descriptors, self.open_files);
        set(&mut limits.temporary, self.tmp);
        set(&mut limits.network, self.network);
        limits
    }

    /// Whether anything is to be set.
    pub(super) fn is_any(&self) -> bool {
        self.memory.is_some()
            || self.processes.is_some()
            || self.cpu.is_some()
            || self.cpu_weight.is_some()
            || self.open_files.is_some()
            || self.tmp.is_some()
            || self.network.is_some()
    }
}

/// The names of the arguments, for those who need at least one.
pub(super) const ARGUMENTS: [&str; 7] = [
    "memory",
    "processes",
    "cpu",
    "cpu_weight",
    "open_files",
    "tmp",
    "network",
];

/// What was said, and what is in force because of that, of the user's and of this machine's settings.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    said: Limits,
    in_force: Limits,
}

impl Shown {
    /// `said` of it; `others` hold where nothing is said.
    pub(super) fn new(said: &Limits, others: &Limits) -> Shown {
        Shown {
            said: said.clone(),
            in_force: said.or(others),
        }
    }

    /// For people: `memory  512m`, `cpu  150% (default)`.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let Shown { said, in_force } = self;
        vec![
            fact("memory", &said.memory, &in_force.memory),
            fact("processes", &said.processes, &in_force.processes),
            fact("cpu-percent", &said.cpu, &in_force.cpu),
            fact("cpu-weight", &said.weight, &in_force.weight),
            fact("open-files", &said.descriptors, &in_force.descriptors),
            fact("tmp", &said.temporary, &in_force.temporary),
            fact("network", &said.network, &in_force.network),
        ]
    }

    /// The CPU time of a day, which only users have.
    pub(super) fn day(&self) -> (&'static str, String) {
        let Shown { said, in_force } = self;
        fact("cpu-per-day", &said.cpu_per_day, &in_force.cpu_per_day)
    }
}

fn fact<T: Display>(
    name: &'static str,
    said: &Option<T>,
    in_force: &Option<T>,
) -> (&'static str, String) {
    let value = match in_force {
        Some(value) => value.to_string(),
        None => "no limit".to_owned(),
    };
    match said {
        Some(_) => (name, value),
        None => (name, format!("{value} (default)")),
    }
}
