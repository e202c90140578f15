//! The sandbox of a site, entered by becoming bubblewrap, which becomes the site's program.
//!
//! What holds for every site stands here and not in the daemon's order: own namespaces, no capabilities, no new privileges, no
//! further user namespaces, the seccomp filter, a read-only system. The order says what differs: which directories are the
//! site's own, which files it finds in `/etc` (see `configuration`), how large its `/tmp` is, whether it has a network.
//!
//! The launcher is the site's user already when bubblewrap starts: bubblewrap never runs as root.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::configuration::{self, Way};
use crate::order::Lines;
use crate::sys;

/// Where this program is found inside, for those who need it there.
pub const LAUNCHER: &str = "/run/paas-launch";
/// Compiled by the build script from `seccomp/allowed.txt`.
static SECCOMP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp.bpf"));

/// The system, as every site sees it.
const SYSTEM: [&str; 15] = [
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/sbin",
    "/sbin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
];
const NAMESPACES: [&str; 8] = [
    "--unshare-user",
    "--disable-userns",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--cap-drop",
];

/// What the order says of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Sandbox {
    bwrap: String,
    hostname: String,
    /// The size of each directory for temporary files, in bytes.
    temporary: u64,
    /// Whether there is a network beside its own loopback: then it has been entered already.
    pub network: bool,
    /// Files and directories of the system's configuration, found where they are, if they are there.
    configuration: Vec<String>,
    /// Shown where they are, read-only, if they are there: files and directories that only root can put there.
    shown: Vec<String>,
    /// Directories of the site, shown where it knows them.
    own: Vec<Own>,
    /// Files that there are only in the sandbox.
    files: Vec<(String, String)>,
}

/// A directory of the site.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    writable: bool,
    /// Where it lies, without any symbolic link in it.
    place: String,
    /// Where the site finds it.
    name: String,
}

impl Sandbox {
    /// What the lines say, if they say anything of a sandbox.
    pub fn parse(lines: &Lines<'_>) -> Result<Option<Sandbox>, String> {
        if lines.optional("bwrap")?.is_none() {
            return Ok(None);
        }
        let own = |key: &'static str, writable| {
            lines.all(key).into_iter().map(move |value| {
                let (place, name) = pair(key, &value)?;
                Ok(Own {
                    writable,
                    place,
                    name,
                })
            })
        };
        let size = lines.one("temporary")?;
        Ok(Some(Sandbox {
            bwrap: lines.path("bwrap")?,
            hostname: lines.one("hostname")?.to_owned(),
            temporary: size
                .parse()
                .map_err(|_| format!("the daemon's temporary is not a size: '{size}'"))?,
            network: lines.optional("network")?.is_some(),
            configuration: lines.all("configuration"),
            shown: lines.all("shown"),
            own: own("own", true)
                .chain(own("readable", false))
                .collect::<Result<_, String>>()?,
            files: lines
                .all("file")
                .iter()
                .map(|value| pair("file", value))
                .collect::<Result<_, _>>()?,
        }))
    }

    /// Opens what bubblewrap is to find open: the site's directories (a link that somebody has put in the way since the daemon
    /// looked is refused here), the files' contents, the filter.
    pub fn open(&self) -> Result<Opened, String> {
        let own = self.own.iter().map(|own| sys::open_directory(&own.place));
        let files = self
            .files
            .iter()
            .map(|(_, content)| sys::sealed(content.as_bytes()));
        let configuration = self
            .configuration
            .iter()
            .map(|path| configuration::way(path));
        Ok(Opened {
            configuration: configuration.collect(),
            own: own.collect::<Result<_, _>>()?,
            files: files.collect::<Result<_, _>>()?,
            launcher: sys::open_self()?,
            seccomp: sys::sealed(SECCOMP)?,
        })
    }

    /// bubblewrap's whole command line up to the program that it becomes. `status` is where it tells how that ends; without a
    /// `terminal` of its own the program gets a session without one.
    pub fn command(
        &self,
        opened: &Opened,
        home: &str,
        status: Option<&OwnedFd>,
        terminal: bool,
    ) -> Result<Command, String> {
        let mut arguments: Vec<String> = vec!["bwrap".to_owned()];
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        say(&NAMESPACES);
        say(&["ALL", "--hostname", &self.hostname]);
        if !self.network {
            say(&["--unshare-net"]);
        }
        if !terminal {
            say(&["--new-session"]);
        }
        say(&SYSTEM);
        say(&[
            "--proc", "/proc", "--dev", "/dev", "--dir", "/run", "--dir", "/var",
        ]);
        for directory in ["/dev/shm", "/tmp", "/var/tmp"] {
            say(&[
                "--perms",
                "1777",
                "--size",
                &self.temporary.to_string(),
                "--tmpfs",
                directory,
            ]);
        }
        for (path, way) in self.configuration.iter().zip(&opened.configuration) {
            match way {
                Way::Link(target) => say(&["--symlink", target, path]),
                Way::Copy(open) => say(&["--perms", "0444", "--file", &number(open)?, path]),
                Way::Show => say(&["--ro-bind-try", path, path]),
            }
        }
        for path in &self.shown {
            say(&["--ro-bind-try", path, path]);
        }
        for (own, open) in self.own.iter().zip(&opened.own) {
            let how = if own.writable {
                "--bind-fd"
            } else {
                "--ro-bind-fd"
            };
            say(&[how, &number(open)?, &own.name]);
        }
        say(&["--ro-bind-fd", &number(&opened.launcher)?, LAUNCHER]);
        for ((name, _), open) in self.files.iter().zip(&opened.files) {
            say(&["--perms", "0444", "--file", &number(open)?, name]);
        }
        say(&["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", home]);
        if let Some(status) = status {
            say(&["--json-status-fd", &number(status)?]);
        }
        say(&["--add-seccomp-fd", &number(&opened.seccomp)?, "--"]);
        Ok(Command {
            program: self.bwrap.clone(),
            arguments,
        })
    }
}

/// A program and its arguments, its own name first.
pub struct Command {
    /// Its path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What bubblewrap finds open. Closed by it before the site's program runs.
pub struct Opened {
    configuration: Vec<Way>,
    own: Vec<OwnedFd>,
    files: Vec<OwnedFd>,
    launcher: OwnedFd,
    seccomp: OwnedFd,
}

/// The descriptor's number, under which it stays open for the program that follows.
fn number(descriptor: &OwnedFd) -> Result<String, String> {
    sys::keep_open(descriptor)?;
    Ok(descriptor.as_raw_fd().to_string())
}

/// Two values on a line, the first a path without a tabulator.
fn pair(key: &str, value: &str) -> Result<(String, String), String> {
    match value.split_once('\t') {
        Some((first, second)) if first.starts_with('/') => {
            Ok((first.to_owned(), second.to_owned()))
        }
        _ => Err(format!("the daemon's {key} is garbled")),
    }
}
