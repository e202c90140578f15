//! Keeps sites' logs, and those of the machine's own programs, within their bound while the daemon runs.
//!
//! A file that grows announces it with every line, which is more than anybody wants to hear: the logs of sites that are awake are
//! looked at every other second, and all the others now and then, because nginx writes a line for a visitor of a site that is off.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::Kind;
use super::rotate::{Bound, rotate};
use crate::initialize::driver::{Message, sites_now};
use crate::initialize::prepare::SharedRegistry;
use crate::model::SiteId;
use crate::paths::Paths;

/// Between two looks at the logs of sites that are awake.
const AWAKE: Duration = Duration::from_secs(2);
/// So many of those looks between two at all logs.
const ALL: u32 = 300;

/// What `paasctl up` lets the machine's own programs write: the Emperor has some lines for each start of a site.
const OWN: [&str; 3] = ["emperor.log", "paasctl.log", "nginx.log"];

/// Looks at the logs for ever.
pub async fn keep(
    paths: Paths,
    bound: Bound,
    registry: SharedRegistry,
    driver: mpsc::Sender<Message>,
) {
    let mut ticks = interval(AWAKE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut directories: HashMap<SiteId, Option<PathBuf>> = HashMap::new();
    for count in (0..ALL).cycle() {
        ticks.tick().await;
        let Some(sites) = sites_now(&driver).await else {
            return;
        };
        let awake: Vec<SiteId> = sites.into_iter().map(|site| site.site).collect();
        let (paths, registry) = (paths.clone(), registry.clone());
        let look = move || {
            directories.retain(|site, _| awake.contains(site));
            for site in awake {
                let directory = directories
                    .entry(site)
                    .or_insert_with(|| directory(&paths, &registry, site));
                if let Some(directory) = directory {
                    look_at(directory, bound);
                }
            }
            if count == 0 {
                look_at_all(&paths.logs(), bound);
            }
            directories
        };
        directories = match tokio::task::spawn_blocking(look).await {
            Ok(directories) => directories,
            Err(problem) => {
                tracing::error!(%problem, "cannot look at the sites' logs");
                HashMap::new()
            }
        };
    }
}

fn directory(paths: &Paths, registry: &SharedRegistry, site: SiteId) -> Option<PathBuf> {
    let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let row = registry.view().ok()?.site(site).ok()??;
    Some(paths.site_logs(&row.domain))
}

fn look_at(directory: &Path, bound: Bound) {
    bind(directory, Kind::ALL.map(Kind::file_name), bound);
}

fn bind(directory: &Path, names: [&str; 3], bound: Bound) {
    for name in names {
        match rotate(directory, name, bound) {
            Ok(true) => tracing::debug!(log = %directory.join(name).display(), "cut a log"),
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(log = %directory.join(name).display(), %problem, "cannot cut a log");
            }
        }
    }
}

fn look_at_all(logs: &Path, bound: Bound) {
    bind(logs, OWN, bound);
    let names: Vec<OsString> = match std::fs::read_dir(logs) {
        Ok(entries) => entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name())
            .collect(),
        Err(problem) => {
            tracing::warn!(logs = %logs.display(), %problem, "cannot look at all logs");
            return;
        }
    };
    for name in names {
        look_at(&logs.join(name), bound);
    }
}
