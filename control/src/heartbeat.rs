//! What a backend says of itself: the daemon writes it down, and its nginx tells it to whoever probes the machine (`paas_health`).
//!
//! The storage that sites lie on may hang whoever touches it, for ever. So it is touched by threads that do nothing else, one for each
//! place, and the daemon only looks how long they have been at it.

mod storage;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statvfs;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::cgroup::Groups;
use crate::files;
use crate::initialize::confine::{CGROUPS, group_name};
use crate::initialize::driver::{Message, sites_now};
use crate::initialize::machine::Shown;
use crate::initialize::memory;
use crate::settings::Settings;
use storage::{Place, Storage};

/// How often it is written down; a change of the Emperor at once.
const INTERVAL: Duration = Duration::from_millis(500);

/// Writes until the driver ends.
pub struct Heart {
    file: PathBuf,
    disks: Vec<PathBuf>,
    storage: Vec<Storage>,
    min_memory: u64,
    min_disk: u64,
    groups: Option<Groups>,
    emperor: watch::Receiver<bool>,
    driver: mpsc::Sender<Message>,
}

/// What is written.
#[derive(Debug, Serialize)]
struct Report {
    emperor: bool,
    storage: Vec<Place>,
    memory: memory::Memory,
    /// What all sites have of it; none where the kernel does not count that.
    sites_memory: Option<u64>,
    disk: Option<Disk>,
    /// Sites with processes.
    awake: usize,
    /// Of those, the ones that start.
    starting: usize,
}

/// The file system with the least room, of those that the machine writes to.
#[derive(Debug, Serialize)]
struct Disk {
    path: PathBuf,
    total: u64,
    free: u64,
}

impl Heart {
    /// The heart of this machine; `emperor` says whether there is one.
    pub fn new(
        settings: &Settings,
        emperor: watch::Receiver<bool>,
        driver: mpsc::Sender<Message>,
    ) -> io::Result<Self> {
        let (paths, health) = (settings.paths(), &settings.backend.health);
        let storage = health
            .storage
            .iter()
            .map(|path| Storage::watch(path.as_path(), health.storage_timeout.duration()))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            file: paths.heartbeat(),
            disks: vec![paths.state(), paths.logs(), paths.run()],
            storage,
            min_memory: health.min_memory,
            min_disk: health.min_disk,
            groups: Groups::find(Path::new(CGROUPS), &group_name(paths)).ok(),
            emperor,
            driver,
        })
    }

    /// Beats.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = self.emperor.changed() => if changed.is_err() { return },
            }
            let Some((awake, starting)) = self.sites().await else {
                return;
            };
            let report = Report {
                emperor: *self.emperor.borrow_and_update(),
                storage: self.storage.iter().map(Storage::place).collect(),
                memory: memory::look(),
                sites_memory: self.groups.as_ref().and_then(|groups| groups.memory().ok()),
                disk: self
                    .disks
                    .iter()
                    .filter_map(disk)
                    .min_by_key(|disk| disk.free),
                awake,
                starting,
            };
            if let Err(problem) = self.write(&report) {
                tracing::error!(%problem, file = %self.file.display(), "cannot write down how this machine is");
            }
        }
    }

    /// How many sites have processes, and how many of them start. None: the daemon ends.
    async fn sites(&self) -> Option<(usize, usize)> {
        let sites = sites_now(&self.driver).await?;
        let count =
            |wanted: fn(&Shown) -> bool| sites.iter().filter(|now| wanted(&now.shown)).count();
        let awake = count(|shown| !matches!(shown, Shown::Asleep | Shown::Failing(_)));
        Some((awake, count(|shown| matches!(shown, Shown::Starting(_)))))
    }

    fn write(&self, report: &Report) -> io::Result<()> {
        let word = self.word(report);
        let json = serde_json::to_string(report)?;
        let text = format!("{word} {}\n{json}\n", activity::now());
        files::write_briefly(&self.file, text.as_bytes(), 0o644)
    }

    /// What keeps the machine from serving, or `ok`.
    fn word(&self, report: &Report) -> &'static str {
        let scarce = |have: Option<u64>, least: u64| have.is_some_and(|have| have < least);
        if report.storage.iter().any(|place| !place.is_readable()) {
            "storage"
        } else if !report.emperor {
            "emperor"
        } else if scarce(report.disk.as_ref().map(|disk| disk.free), self.min_disk) {
            "disk"
        } else if scarce(report.memory.available, self.min_memory) {
            "memory"
        } else {
            "ok"
        }
    }
}

fn disk(path: &PathBuf) -> Option<Disk> {
    let found = statvfs(path).ok()?;
    Some(Disk {
        path: path.clone(),
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
}
