//! What holds a site's processes in, as data: what the launcher is told. Pure; [`place`] looks at the machine's files.
//!
//! What is the same for every site (its namespaces, the filter of system calls, no privileges) is the launcher's own and cannot
//! be ordered otherwise.

pub mod missing;
pub mod place;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::model::{AbsolutePath, Domain, Limits, UserName};

/// Files and directories of `/etc` that programs and libraries look for, and that tell nobody's secrets.
const CONFIGURATION: [&str; 24] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "profile",
    "protocols",
    "python3",
    "services",
    "ssl",
    "timezone",
];

/// What holds a generation, or a visitor's shell, in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The control groups to enter.
    pub groups: Vec<PathBuf>,
    /// Open files of each process.
    pub descriptors: u32,
    /// The sandbox, unless this machine's settings switch it off.
    pub sandbox: Option<Sandbox>,
}

/// What a sandbox has that another has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// bubblewrap.
    pub bwrap: AbsolutePath,
    /// What the processes see as the machine's name.
    pub domain: Domain,
    /// Whose it is.
    pub user: UserName,
    /// Whose it is to the kernel.
    pub uid: u32,
    /// The user's home in it.
    pub home: AbsolutePath,
    /// The size of `/tmp`.
    pub temporary: u64,
    /// A way out.
    pub network: Option<Outbound>,
    /// More of the system.
    pub shown: Vec<AbsolutePath>,
    /// The site's directories.
    pub own: Vec<Own>,
}

/// A directory of the site: the name it is known by, and where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// As the registry has it.
    pub name: AbsolutePath,
    /// The same without links.
    pub place: PathBuf,
    /// Whether the site may write there, if its user may.
    pub writable: bool,
}

/// The network of a site that may connect to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The first address of the /16.
    pub range: Ipv4Addr,
    /// The names of the host's devices begin so.
    pub interface: String,
    /// Whom to ask for names.
    pub nameservers: Vec<IpAddr>,
}

impl Confinement {
    /// Nothing but the user's uid: without root, or without a sandbox.
    pub fn none(limits: &Limits) -> Confinement {
        Confinement {
            groups: Vec::new(),
            descriptors: limits
                .descriptors
                .map_or(4096, |descriptors| descriptors.get()),
            sandbox: None,
        }
    }

    /// The lines of the launcher's order that are about it.
    pub fn lines(&self) -> String {
        let mut lines = Lines(String::new());
        for group in &self.groups {
            lines.say("group", &group.to_string_lossy());
        }
        lines.say("descriptors", &self.descriptors.to_string());
        if let Some(sandbox) = &self.sandbox {
            sandbox.say(&mut lines);
        }
        lines.0
    }
}

impl Sandbox {
    fn say(&self, lines: &mut Lines) {
        lines.say("bwrap", self.bwrap.as_str());
        // A host name has at most 64 characters.
        lines.say(
            "hostname",
            &self.domain.as_str().chars().take(63).collect::<String>(),
        );
        lines.say("temporary", &self.temporary.to_string());
        if let Some(network) = &self.network {
            lines.say("network", &network.range.to_string());
            lines.say("interface", &network.interface);
        }
        for name in CONFIGURATION {
            lines.say("configuration", &format!("/etc/{name}"));
        }
        for path in &self.shown {
            lines.say("shown", path.as_str());
        }
        for own in &self.own {
            let key = if own.writable { "own" } else { "readable" };
            lines.say(key, &format!("{}\t{}", own.place.display(), own.name));
        }
        for (name, content) in self.files() {
            lines.say("file", &format!("{name}\t{content}"));
        }
    }

    /// Files that there are only in it.
    fn files(&self) -> [(&'static str, String); 4] {
        let (user, uid, home) = (&self.user, self.uid, &self.home);
        let nameservers = self.network.iter().flat_map(|network| &network.nameservers);
        let resolver: String = nameservers
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        [
            (
                "/etc/passwd",
                format!(
                    "{user}:x:{uid}:{uid}::{home}:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                ),
            ),
            ("/etc/group", format!("{user}:x:{uid}:\nnogroup:x:65534:\n")),
            (
                "/etc/hosts",
                format!("127.0.0.1 localhost {}\n::1 localhost\n", self.domain),
            ),
            ("/etc/resolv.conf", resolver),
        ]
    }
}

/// Why a directory cannot be a site's.
#[derive(Debug, thiserror::Error)]
#[error("{directory} cannot be shown to a site: {why}; change it with `paasctl set-site`")]
pub struct NotShown {
    /// The directory.
    pub directory: AbsolutePath,
    /// Why.
    pub why: String,
}

/// The directories that a site sees: its own one, and its virtualenv if that lies elsewhere (then to read only).
/// `platform` are directories that no site sees, nor anything above them.
pub fn own(
    directory: &AbsolutePath,
    venv: Option<&AbsolutePath>,
    platform: &[PathBuf],
) -> Result<Vec<Own>, NotShown> {
    let mut found = vec![(directory, true)];
    // One that is not there is not shown: that there is none is uWSGI's to say.
    let elsewhere =
        |venv: &&AbsolutePath| !venv.as_path().starts_with(directory) && venv.as_path().exists();
    if let Some(venv) = venv.filter(elsewhere) {
        found.push((venv, false));
    }
    let show = |(name, writable): (&AbsolutePath, bool)| {
        let refuse = |why: String| NotShown {
            directory: name.clone(),
            why,
        };
        let place =
            place::resolve(name.as_path()).map_err(|problem| refuse(problem.to_string()))?;
        for path in [name.as_path(), &place] {
            if let Some(why) = not_a_sites(path, platform) {
                return Err(refuse(why));
            }
        }
        Ok(Own {
            name: name.clone(),
            place,
            writable,
        })
    };
    found.into_iter().map(show).collect()
}

/// Why this is no place for a site's files, if it is none: what a sandbox has itself, and the platform's own.
fn not_a_sites(path: &Path, platform: &[PathBuf]) -> Option<String> {
    const SYSTEM: [&str; 14] = [
        "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/sys", "/boot",
        "/run", "/tmp", "/var", "/var/tmp",
    ];
    let exactly = SYSTEM.iter().any(|system| path == Path::new(system));
    let inside = ["/etc", "/proc", "/dev", "/sys", "/boot"]
        .iter()
        .any(|system| path.starts_with(system));
    if path == Path::new("/") || exactly || inside {
        return Some("it is the system's".to_owned());
    }
    platform
        .iter()
        .find(|own| path.starts_with(own) || own.starts_with(path))
        .map(|own| format!("the platform keeps its own files in {}", own.display()))
}

/// The text on one line: `%0A` stands for a newline, `%25` for a percent sign.
pub fn encoded(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '%' | '\0'..='\x1f' | '\x7f' => {
                // Writing to a string cannot fail.
                let _ = write!(line, "%{:02X}", u32::from(character));
            }
            plain => line.push(plain),
        }
    }
    line
}

/// `key=value` on a line.
struct Lines(String);

impl Lines {
    fn say(&mut self, key: &str, value: &str) {
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&encoded(value));
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests;
