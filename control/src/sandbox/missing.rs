//! What does not hold sites in on this machine, in words: for the log, for `up`, for `doctor`.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::cgroup::Groups;
use crate::initialize::confine::{CGROUPS, group_name};
use crate::settings::Settings;

/// Somebody without any right: the kernel's overflow uid.
const NOBODY: u32 = 65_534;

/// A wall that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// In a sentence.
    pub text: String,
    /// Whether no site can start for it.
    pub stops_sites: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Each wall that is not there; none if all are.
pub fn missing(settings: &Settings) -> Vec<Missing> {
    let weaker = |text: String| Missing {
        text,
        stops_sites: false,
    };
    if !geteuid().is_root() {
        let text = "sites run as the user who started the daemon, which is not root: no sandbox, no limits; what one of them may do, all may";
        return vec![weaker(text.to_owned())];
    }
    let mut missing = Vec::new();
    if settings.sandbox.enabled {
        if let Err(why) = try_one(settings.sandbox.bwrap.as_path()) {
            missing.push(Missing {
                text: format!("no site can start: {why}"),
                stops_sites: true,
            });
        }
    } else {
        let text = "sites run without a sandbox: sandbox.enabled is false in paas.toml; only their uids keep them apart";
        missing.push(weaker(text.to_owned()));
    }
    if let Err(why) = Groups::find(Path::new(CGROUPS), &group_name(settings.paths())) {
        missing.push(weaker(format!(
            "sites have no limits of memory, processes and CPU: {why}"
        )));
    }
    missing
}

/// Makes a sandbox as the launcher does, as somebody who is not root.
fn try_one(bwrap: &Path) -> Result<(), String> {
    if !bwrap.exists() {
        return Err(format!(
            "{} is not there; install bubblewrap, or set sandbox.bwrap",
            bwrap.display()
        ));
    }
    let kinds = ["user", "pid", "ipc", "uts", "net"].map(|kind| format!("--unshare-{kind}"));
    let output = Command::new(bwrap)
        .args(kinds)
        .args(["--disable-userns", "--ro-bind", "/", "/", "--proc", "/proc"])
        .args(["--", "/bin/true"])
        .env_clear()
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", bwrap.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "who is not root cannot make a sandbox here: {}; docs/sandbox.md says what a machine has to allow",
        said.lines().next().unwrap_or("no reason is given")
    ))
}
