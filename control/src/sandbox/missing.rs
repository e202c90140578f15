//! What does not hold sites in on this machine, in words: for the log, for `up`, for `doctor`.

use std::path::Path;

use rustix::process::geteuid;

use crate::cgroup::Groups;
use crate::initialize::confine::{CGROUPS, group_name};
use crate::settings::Settings;

/// One sentence for each wall that is not there; none if all are.
pub fn missing(settings: &Settings) -> Vec<String> {
    if !geteuid().is_root() {
        return vec![
            "sites run as the user who started the daemon, which is not root: no sandbox, no limits; what one of them may do, all may"
                .to_owned(),
        ];
    }
    let mut missing = Vec::new();
    let bwrap = settings.sandbox.bwrap.as_path();
    if !settings.sandbox.enabled {
        missing.push(
            "sites run without a sandbox: sandbox.enabled is false in paas.toml; only their uids keep them apart".to_owned(),
        );
    } else if !bwrap.exists() {
        missing.push(format!(
            "no site can start: {} is not there; install bubblewrap, or set sandbox.bwrap",
            bwrap.display()
        ));
    }
    if let Err(why) = Groups::find(Path::new(CGROUPS), &group_name(settings.paths())) {
        missing.push(format!(
            "sites have no limits of memory, processes and CPU: {why}"
        ));
    }
    missing
}
