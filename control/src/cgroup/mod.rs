//! Control groups: what all processes of a user, and of one generation of a site, may have together. One directory for each
//! user below the machine's, one for each generation below it; the launcher enters it before anything of the site runs.
//!
//! Both kinds of the kernel's interface are served: version 2, one tree, and version 1, a tree for each controller. Nothing here
//! keeps state: the kernel has it.

mod v1;
mod v2;

use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Cpu, Limits};

/// Within which a share of CPU is measured.
const PERIOD: Duration = Duration::from_millis(100);

/// The groups of one machine.
#[derive(Debug, Clone)]
pub struct Groups {
    version: Version,
    /// Where the kernel shows them: `/sys/fs/cgroup`.
    mount: PathBuf,
    /// The machine's own directory there.
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What can be done with a user's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Whose.
    pub uid: u32,
    /// The CPU time that its processes have used since it was made.
    pub cpu_used: Duration,
}

impl Groups {
    /// The groups of the machine `name`, if the kernel has what it takes at `mount`; else why not.
    pub fn find(mount: &Path, name: &str) -> Result<Groups, String> {
        let version = if v2::is_there(mount)? {
            Version::Two
        } else {
            v1::is_there(mount)?;
            Version::One
        };
        Ok(Groups {
            version,
            mount: mount.to_owned(),
            name: name.to_owned(),
        })
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        match self.version {
            Version::One => 1,
            Version::Two => 2,
        }
    }

    /// The directory of this machine in each tree.
    fn trees(&self) -> Vec<PathBuf> {
        match self.version {
            Version::One => v1::TREES
                .iter()
                .map(|tree| self.mount.join(tree).join(&self.name))
                .collect(),
            Version::Two => vec![self.mount.join(&self.name)],
        }
    }

    /// Makes the group of a user and, below it, of a generation of a site; answers the directories to enter. A user's limits are
    /// written if there was no such group: those of one that there is are kept up to date by the daemon.
    pub fn make(
        &self,
        uid: u32,
        leaf: &str,
        user: &Limits,
        site: &Limits,
    ) -> io::Result<Vec<PathBuf>> {
        let mut leaves = Vec::new();
        let mut is_new = false;
        for tree in self.trees() {
            let user = tree.join(user_name(uid));
            let leaf = user.join(leaf);
            is_new |= !user.is_dir();
            DirBuilder::new().recursive(true).create(&user)?;
            self.share(&tree, &user)?;
            DirBuilder::new().recursive(true).create(&leaf)?;
            leaves.push(leaf);
        }
        if is_new && let Err(problem) = self.limit(uid, user) {
            // The next one is new again.
            for leaf in &leaves {
                let _ = fs::remove_dir(leaf);
                let _ = leaf.parent().map(fs::remove_dir);
            }
            return Err(problem);
        }
        for leaf in &leaves {
            self.write(leaf, &site.cpu_within(user))?;
        }
        Ok(leaves)
    }

    /// Lets a user have that, from now on.
    pub fn limit(&self, uid: u32, user: &Limits) -> io::Result<()> {
        for tree in self.trees() {
            let directory = tree.join(user_name(uid));
            if !directory.is_dir() {
                continue;
            }
            if self.version == Version::One {
                v1::loosen_below(&directory, user)?;
            }
            self.write(&directory, user)?;
        }
        Ok(())
    }

    fn write(&self, directory: &Path, limits: &Limits) -> io::Result<()> {
        match self.version {
            Version::One => v1::write(directory, limits),
            Version::Two => v2::write(directory, limits),
        }
    }

    /// Lets the directories below `tree` and `user` have limits of their own.
    fn share(&self, tree: &Path, user: &Path) -> io::Result<()> {
        match self.version {
            Version::One => v1::share(tree),
            Version::Two => [&self.mount, tree, user]
                .into_iter()
                .try_for_each(v2::share),
        }
    }

    /// Every user that has a group.
    pub fn users(&self) -> io::Result<Vec<Group>> {
        let tree = match self.version {
            Version::One => self.mount.join(v1::CPU_TIME).join(&self.name),
            Version::Two => self.mount.join(&self.name),
        };
        let mut users = Vec::new();
        for directory in directories(&tree)? {
            let name = directory
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some(uid) = name.strip_prefix('u').and_then(|uid| uid.parse().ok()) else {
                continue;
            };
            let cpu_used = match self.version {
                Version::One => v1::cpu_used(&directory)?,
                Version::Two => v2::cpu_used(&directory)?,
            };
            users.push(Group { uid, cpu_used });
        }
        users.sort_by_key(|group| group.uid);
        Ok(users)
    }

    /// The memory that all sites of the machine have together, in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let file = match self.version {
            Version::One => self
                .mount
                .join(v1::MEMORY)
                .join(&self.name)
                .join("memory.usage_in_bytes"),
            Version::Two => self.mount.join(&self.name).join("memory.current"),
        };
        let text = fs::read_to_string(&file)?;
        let number = text.trim().parse();
        number.map_err(|_| io::Error::other(format!("{} holds no number", file.display())))
    }

    /// How many processes of a generation the kernel has killed because its memory, or its user's, was used up.
    pub fn killed_for_memory(&self, leaf: &str) -> u64 {
        let tree = match self.version {
            Version::One => self.mount.join(v1::MEMORY).join(&self.name),
            Version::Two => self.mount.join(&self.name),
        };
        let count = |user: PathBuf| match self.version {
            Version::One => v1::killed_for_memory(&user.join(leaf)),
            Version::Two => v2::killed_for_memory(&user.join(leaf)),
        };
        // A group that is not there has killed nobody, or nobody any more.
        let users = directories(&tree).unwrap_or_default();
        users.into_iter().filter_map(|user| count(user).ok()).sum()
    }

    /// Removes every group without processes that is not `wanted` (asked with the generation's directory), then users without any.
    pub fn tidy(&self, wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        for tree in self.trees() {
            for user in directories(&tree)? {
                for leaf in directories(&user)? {
                    if !wanted(&leaf) {
                        // Busy as long as a process lives there: then later.
                        let _ = fs::remove_dir(&leaf);
                    }
                }
                let _ = fs::remove_dir(&user);
            }
        }
        Ok(())
    }

    /// Removes all that is empty, and the machine's own directories with it: nothing runs here.
    pub fn remove(&self) -> io::Result<()> {
        self.tidy(&|_| false)?;
        for tree in self.trees() {
            let _ = fs::remove_dir(tree);
        }
        Ok(())
    }
}

impl Limits {
    /// A site's limits as its group has them: CPU only where it is below the user's, which holds anyway.
    fn cpu_within(&self, user: &Limits) -> Limits {
        let within = self
            .cpu
            .filter(|cpu| user.cpu.is_none_or(|most| *cpu < most));
        Limits {
            cpu: within,
            ..self.clone()
        }
    }
}

fn user_name(uid: u32) -> String {
    format!("u{uid}")
}

/// The directories in one, if it is there.
fn directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Microseconds of each [`PERIOD`].
fn quota(cpu: Cpu) -> u64 {
    // As a share of a core.
    u64::from(cpu.get()) * u64::try_from(PERIOD.as_micros()).unwrap_or(u64::MAX) / 100
}

/// Says which file it was.
fn put(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    let path = directory.join(file);
    fs::write(&path, text).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot write {text:?} to {}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests;
