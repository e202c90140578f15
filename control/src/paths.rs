//! Where everything lies on a machine: all below its root, so that several machines fit on one.
use crate::model::{AbsolutePath, Domain, Invalid, SiteId};
use crate::settings::SettingsError;
use std::path::{Path, PathBuf};

/// The longest path a unix socket can be bound to, in bytes.
pub const LONGEST_SOCKET_PATH: usize = 107;
/// What is reserved for a site's id and for a generation: ten digits each.
const DIGITS: usize = 10;

/// The paths of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
    settings: PathBuf,
    registry: PathBuf,
    sockets: SocketPattern,
}

impl Paths {
    /// The paths below `root`; `etc` is the root that holds `etc/paas`. Refuses a root too deep for unix sockets or
    /// with characters that nginx or uWSGI would read as something else.
    pub(crate) fn new(
        root: AbsolutePath,
        etc: &Path,
        registry: Option<AbsolutePath>,
        sockets: SocketPattern,
    ) -> Result<Self, SettingsError> {
        let refuse = |why: String| {
            Err(SettingsError::Root {
                root: root.as_path().into(),
                why,
            })
        };
        if let Some(bad) = root.as_str().chars().find(|c| {
            matches!(
                c,
                '$' | ':' | '*' | '?' | '[' | ']' | '{' | '}' | '%' | '"' | '\'' | '\\'
            )
        }) {
            return refuse(format!(
                "nginx and uWSGI would read {bad:?} in it as something else; choose a directory with a plainer name"
            ));
        }
        let registry = registry.map_or_else(
            || root.as_path().join("var/lib/paas/registry.db"),
            |path| path.as_path().into(),
        );
        let paths = Self {
            settings: etc.join("etc/paas"),
            registry,
            sockets,
            root: root.as_path().into(),
        };
        let longest = [
            paths.control_socket(),
            paths.launch_socket(),
            paths.emperor_stats(),
        ]
        .iter()
        .map(|path| path.as_os_str().len())
        .max()
        .unwrap_or(0);
        let longest = longest.max(paths.sockets.shortest_bound());
        if longest > LONGEST_SOCKET_PATH {
            return refuse(format!(
                "a unix socket below it would have a path of {longest} bytes, and the kernel allows {LONGEST_SOCKET_PATH}; choose a directory whose path is {} bytes shorter",
                longest - LONGEST_SOCKET_PATH
            ));
        }
        Ok(paths)
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The machine's settings.
    pub fn settings_file(&self) -> PathBuf {
        self.settings.join("paas.toml")
    }
    /// The operator's own snippets at nginx's http level.
    pub fn http_snippets(&self) -> PathBuf {
        self.settings.join("http.d")
    }
    /// The operator's own snippets in the server blocks.
    pub fn server_snippets(&self) -> PathBuf {
        self.settings.join("server.d")
    }
    /// The operator's own lines for vassals.
    pub fn vassal_snippets(&self) -> PathBuf {
        self.settings.join("vassal.d")
    }
    /// The SQLite registry.
    pub fn registry(&self) -> &Path {
        &self.registry
    }
    /// Where a machine keeps a copy of a registry that lies outside its own root, with other machines.
    pub fn registry_copy(&self) -> Option<PathBuf> {
        let is_elsewhere = !self.registry.starts_with(&self.root);
        is_elsewhere.then(|| self.state().join("registry-copy.db"))
    }
    /// What survives a reboot.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/paas")
    }
    /// The table that nginx reads.
    pub fn table(&self) -> PathBuf {
        self.state().join("table")
    }
    /// Rendered configuration, one directory for each time it changed.
    pub fn generations(&self) -> PathBuf {
        self.state().join("generations")
    }
    /// A link to the generation in force.
    pub fn current(&self) -> PathBuf {
        self.state().join("current")
    }
    /// nginx's temporary files.
    pub fn nginx_temp(&self) -> PathBuf {
        self.state().join("nginx")
    }
    /// What a reboot clears.
    pub fn run(&self) -> PathBuf {
        self.root.join("run/paas")
    }
    /// The Emperor's directory of vassal files.
    pub fn vassals(&self) -> PathBuf {
        self.run().join("vassals")
    }
    /// Sites' sockets, unless `socket_path` says otherwise.
    pub fn sites(&self) -> PathBuf {
        self.run().join("sites")
    }
    /// FIFOs on which vassals say that they accept.
    pub fn notify(&self) -> PathBuf {
        self.run().join("notify")
    }
    /// The daemon's API.
    pub fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }
    /// Where the launcher asks for a site's socket.
    pub fn launch_socket(&self) -> PathBuf {
        self.run().join("launch.sock")
    }
    /// Where nginx counts the requests of sites.
    pub fn activity(&self) -> PathBuf {
        self.run().join("activity")
    }
    /// Where nginx's workers keep what they know of backends.
    pub fn monitor(&self) -> PathBuf {
        self.run().join("backends")
    }
    /// What the daemon last wrote down of how the machine is. It has a directory of its own: others watch the one above.
    pub fn heartbeat(&self) -> PathBuf {
        self.run().join("health/beat")
    }
    /// The Emperor's statistics; a connection to it makes the Emperor look for vassals.
    pub fn emperor_stats(&self) -> PathBuf {
        self.run().join("emperor-stats.sock")
    }
    /// The Emperor's master FIFO.
    pub fn emperor_fifo(&self) -> PathBuf {
        self.run().join("emperor.fifo")
    }
    /// The Emperor's pid.
    pub fn emperor_pid(&self) -> PathBuf {
        self.run().join("emperor.pid")
    }
    /// nginx's pid.
    pub fn nginx_pid(&self) -> PathBuf {
        self.run().join("nginx.pid")
    }
    /// What nginx has to say about itself.
    pub fn nginx_error_log(&self) -> PathBuf {
        self.logs().join("nginx-error.log")
    }
    /// Directories that no site sees anything of.
    pub fn private(&self) -> Vec<PathBuf> {
        let settings = self.settings.clone();
        let mut all = vec![self.run(), self.state(), self.logs(), settings];
        all.push(self.registry.clone());
        all
    }
    /// A number of 24 bits that tells this root from others on the same kernel (32 bits of FNV-1a, folded).
    pub fn tag(&self) -> u32 {
        let bytes = self.root.as_os_str().as_encoded_bytes();
        let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        (hash >> 24) ^ (hash & 0xff_ffff)
    }
    /// All logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("var/log/paas")
    }
    /// A site's logs.
    pub fn site_logs(&self, domain: &Domain) -> PathBuf {
        self.logs().join(domain.as_str())
    }
    /// Where sites' sockets lie.
    pub fn sockets(&self) -> &SocketPattern {
        &self.sockets
    }
    /// A site's socket.
    pub fn site_socket(&self, id: SiteId, domain: &Domain) -> PathBuf {
        self.sockets.of(id, domain)
    }
    /// The socket of one generation of a site, beside the site's own.
    pub fn generation_socket(&self, id: SiteId, domain: &Domain, generation: u64) -> PathBuf {
        PathBuf::from(format!("{}.{generation}", self.sockets.text(id, domain)))
    }
}

/// Where sites' sockets lie: an absolute path with `{id}` or `{domain}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPattern(String);

impl SocketPattern {
    /// Reads `/var/sockets/{domain}/socket`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("a pattern of socket paths", text, why));
        let plain = text.replace("{id}", "1").replace("{domain}", "d");
        if plain == text {
            return refuse("put {id} or {domain} into it: every site has a socket of its own");
        }
        if plain.contains(['{', '}', '$', ':', '*', '?', '[', ']', '%', '"', '\'', '\\']) {
            return refuse(
                "only {id} and {domain} are replaced, and none of { } $ : * ? [ ] % \" ' \\ may stand in it",
            );
        }
        if AbsolutePath::parse(&plain)?.as_str() != plain {
            return refuse("write it without doubled slashes and without one at the end");
        }
        Ok(Self(text.to_owned()))
    }

    /// The usual pattern of a machine.
    pub(crate) fn below(root: &AbsolutePath) -> Self {
        Self(format!(
            "{}/run/paas/sites/{{id}}/app.sock",
            root.as_str().trim_end_matches('/')
        ))
    }

    /// The pattern as nginx's `paas_socket` takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The socket of one site.
    pub fn of(&self, id: SiteId, domain: &Domain) -> PathBuf {
        PathBuf::from(self.text(id, domain))
    }

    /// Whether a generation's socket of that site can be bound: the length it would have, if that is too much.
    pub fn too_long(&self, domain: &Domain) -> Option<usize> {
        let longest = self.longest(domain.as_str().len());
        (longest > LONGEST_SOCKET_PATH).then_some(longest)
    }

    fn text(&self, id: SiteId, domain: &Domain) -> String {
        self.0
            .replace("{id}", &id.to_string())
            .replace("{domain}", domain.as_str())
    }

    fn longest(&self, domain: usize) -> usize {
        self.0
            .replace("{id}", &"0".repeat(DIGITS))
            .replace("{domain}", &"d".repeat(domain))
            .len()
            + 1
            + DIGITS
    }

    fn shortest_bound(&self) -> usize {
        self.longest(1)
    }
}
