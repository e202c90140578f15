//! What holds a site's processes in, from the first moment on: the control groups whose limits they share, the limits of each
//! process, the network, and the sandbox.

use std::fs;
use std::path::Path;

use crate::network::Network;
use crate::order::Lines;
use crate::sandbox::Sandbox;
use crate::sys;

/// Which processes the kernel ends when the machine's memory is used up, from -1000 to 1000.
const FIRST_TO_GO: &str = "500";

/// The parts of the order that are about it. Without root there are none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Directories of control groups, made by the daemon.
    groups: Vec<String>,
    /// How many files each process may have open.
    descriptors: Option<u64>,
    /// A way out, through the host.
    network: Option<Network>,
    /// The rest.
    pub sandbox: Option<Sandbox>,
}

impl Confinement {
    /// Reads its lines.
    pub fn parse(lines: &Lines<'_>) -> Result<Confinement, String> {
        let sandbox = Sandbox::parse(lines)?;
        let network = Network::parse(lines)?;
        if network.is_some() && sandbox.is_none() {
            return Err("the daemon said network without bwrap".to_owned());
        }
        Ok(Confinement {
            groups: lines.all("group"),
            descriptors: match lines.optional("descriptors")? {
                Some(_) => Some(lines.number("descriptors")?),
                None => None,
            },
            network,
            sandbox,
        })
    }

    /// Enters what only root can enter. From here on this process counts among the site's.
    pub fn enter(&self) -> Result<(), String> {
        // However the Emperor is favoured, a site is not: it waits like others, and ends before the platform if memory does.
        sys::schedule_as_usual()?;
        fs::write("/proc/self/oom_score_adj", FIRST_TO_GO)
            .map_err(|error| format!("cannot say that a site goes first: {error}"))?;
        self.groups.iter().try_for_each(|group| enter(group))?;
        // A dump of a process's memory would hold secrets, and lie who knows where. Of one byte there is none, and by it the
        // kernel knows those whom it must not call the machine's handler for; nothing at all would let it.
        sys::limit(libc::RLIMIT_CORE, 1)?;
        if let Some(descriptors) = self.descriptors {
            sys::limit(libc::RLIMIT_NOFILE, descriptors)?;
        }
        self.network.as_ref().map_or(Ok(()), Network::enter)
    }
}

/// Moves this process into a control group. It has one thread: in version 1 that can be moved by itself, and the kernel need not
/// wait, some 8 ms, until no process of the machine is just about to start a thread or to end.
fn enter(group: &str) -> Result<(), String> {
    let group = Path::new(group);
    let tasks = group.join("tasks");
    let (file, this) = if tasks.exists() {
        (tasks, "0".to_owned())
    } else {
        (group.join("cgroup.procs"), std::process::id().to_string())
    };
    fs::write(file, this).map_err(|error| {
        let group = group.display();
        format!("cannot enter the control group {group}: {error}")
    })
}
