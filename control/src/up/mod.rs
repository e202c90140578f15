//! `paasctl up`: a whole platform on this machine, one root directory for each of its "machines" - one balancer and any
//! number of backends - in the foreground; or, if the root is that of one machine, this machine alone. It starts what systemd
//! starts on installed machines, and nothing else: each machine's nginx, daemon and Emperor run as they would there.
//!
//! Must never leave a process behind, and never touch the processes of another root.
mod machine;
mod program;
mod supervisor;

use crate::generations::Generations;
use crate::model::{BackendKey, BackendName, NewBackend, State, Weight};
use crate::registry::RegistryError;
use crate::settings::{Role, SettingsError};
use machine::Machine;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What the operator asked for; matters only for machines that are not there yet.
#[derive(Debug)]
pub struct Plan {
    /// How many backends there shall be at least.
    pub backends: Option<u16>,
    /// The balancer's port for http.
    pub http: Option<u16>,
    /// The balancer's port for https.
    pub https: Option<u16>,
    /// The balancer's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where the balancer listens.
    pub bind: IpAddr,
}

impl Plan {
    fn is_about_a_platform(&self) -> bool {
        self.backends.is_some()
            || self.http.is_some()
            || self.https.is_some()
            || self.certificate.is_some()
    }
}

/// Why a platform does not come up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Another `up` runs there.
    #[error("{}: another `paasctl up` (pid {pid}) runs there; stop it first", root.display())]
    Running {
        /// The root.
        root: PathBuf,
        /// Its process.
        pid: String,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No port is free.
    #[error("no port from {first} on is free on {address}; give one with --http")]
    NoPort {
        /// On which address.
        address: IpAddr,
        /// The first tried.
        first: u16,
    },
    /// What was asked for is about a platform, and the root is that of one machine.
    #[error("{} is the root of one machine: its paas.toml says all; leave out the options", root.display())]
    OneMachine {
        /// The root.
        root: PathBuf,
    },
    /// The platform is there already and listens elsewhere.
    #[error("{} has another port than {port}; change the file, or leave the port out", file.display())]
    OtherPort {
        /// The port asked for.
        port: u16,
        /// The settings in force.
        file: PathBuf,
    },
    /// Other accounts cannot reach the files.
    #[error("{} cannot be entered by nginx's workers and the sites' users: chmod o+x it, or choose another --root", path.display())]
    Closed {
        /// The directory in the way.
        path: PathBuf,
    },
    /// A program ended before it was ready, or was not ready in time.
    #[error("{machine}: {program} does not start: {why}; see {}", log.display())]
    NotReady {
        /// On which machine.
        machine: String,
        /// Which program.
        program: &'static str,
        /// Why.
        why: String,
        /// Where it says more.
        log: PathBuf,
    },
    /// A machine's settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The rendered configuration.
    #[error("{machine}: {source}")]
    Render {
        /// Of which machine.
        machine: String,
        /// Why.
        source: Box<crate::cli::CliError>,
    },
    /// Something of the operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Runs the platform below `root` until it is told to stop.
pub fn run(root: &Path, plan: &Plan) -> Result<(), UpError> {
    let absolute = std::path::absolute(root).map_err(|source| UpError::Read {
        path: root.into(),
        source,
    })?;
    std::fs::create_dir_all(&absolute).map_err(|source| UpError::Write {
        path: absolute.clone(),
        source,
    })?;
    let _lock = lock(&absolute)?;
    if rustix::process::geteuid().is_root() {
        refuse_closed(&absolute)?;
    }
    let machines = match machine::alone(&absolute, plan)? {
        Some(machine) => vec![machine],
        None => {
            let machines = machine::compose(&absolute, plan)?;
            register(&machines)?;
            machines
        }
    };
    for machine in &machines {
        machine::prepare(machine)?;
        render(machine)?;
    }
    // One thread: the children's parent-death signal is sent when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| UpError::System {
            what: "the event loop",
            source,
        })?;
    runtime.block_on(supervisor::run(&machines, || announce(&machines)))
}

/// Held while `up` runs; the kernel lets go of it however `up` ends.
fn lock(root: &Path) -> Result<File, UpError> {
    let path = root.join("up.lock");
    let failed = |source| UpError::Write {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        return Err(UpError::Running {
            root: root.into(),
            pid: pid.trim().to_owned(),
        });
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

/// Workers of nginx and sites run under accounts of their own: every directory down to the root must let them pass.
fn refuse_closed(root: &Path) -> Result<(), UpError> {
    for path in root.ancestors() {
        let metadata = path.metadata().map_err(|source| UpError::Read {
            path: path.into(),
            source,
        })?;
        if metadata.permissions().mode() & 0o001 == 0 {
            // A directory that is ours below the root may be mended; what lies above is the operator's.
            if path == root && metadata.uid() == rustix::process::geteuid().as_raw() {
                let open = std::fs::Permissions::from_mode(metadata.permissions().mode() | 0o011);
                std::fs::set_permissions(path, open).map_err(|source| UpError::Write {
                    path: path.into(),
                    source,
                })?;
            } else {
                return Err(UpError::Closed { path: path.into() });
            }
        }
    }
    Ok(())
}

/// Tells the registry of the backends; one whose address was changed in its `paas.toml` keeps its key, so that no site moves.
fn register(machines: &[Machine]) -> Result<(), UpError> {
    let Some(balancer) = machines.first() else {
        return Ok(());
    };
    let mut registry = crate::registry::open(&balancer.settings)?;
    let mut edit = registry.edit()?;
    for machine in machines
        .iter()
        .filter(|machine| machine.settings.has(Role::Backend))
    {
        let name = BackendName::parse(&machine.name)
            .map_err(|error| RegistryError::Refused(error.to_string()))?;
        let address = machine.settings.backend.listen;
        match edit.backend(&name)? {
            Some(known) if known.address == address => {}
            Some(known) => edit.set_backend(&crate::model::Backend { address, ..known })?,
            None => {
                edit.add_backend(&NewBackend {
                    name,
                    address,
                    key: BackendKey::of(address),
                    weight: Weight::ONE,
                    state: State::Active,
                })?;
            }
        }
    }
    edit.commit()?;
    Ok(())
}

fn render(machine: &Machine) -> Result<(), UpError> {
    let put = || -> Result<(), crate::cli::CliError> {
        let rendered = crate::cli::render::of(&crate::cli::Machine::load(&machine.root)?)?;
        Generations::of(&machine.settings).put(&rendered)?;
        Ok(())
    };
    put().map_err(|source| UpError::Render {
        machine: machine.name.clone(),
        source: Box::new(source),
    })
}

/// What to open, once everything runs.
fn announce(machines: &[Machine]) {
    for machine in machines {
        let (name, settings) = (&machine.name, &machine.settings);
        if settings.has(Role::Balancer) {
            let listens = &settings.balancer;
            for address in &listens.listen {
                println!("{name:<9} {}", url("http", *address));
            }
            if listens.certificate.is_some() {
                for address in &listens.https_listen {
                    println!("{name:<9} {}", url("https", *address));
                }
            }
        }
        if settings.has(Role::Backend) {
            println!("{name:<9} {}", settings.backend.listen);
        }
    }
    // Alike on all of them: one kernel, one user.
    if let Some(backend) = machines
        .iter()
        .find(|machine| machine.settings.has(Role::Backend))
    {
        for wall in crate::sandbox::missing::missing(&backend.settings) {
            println!("Not isolated: {wall}.");
        }
    }
    let what = match machines {
        [machine] => &machine.name,
        _ => "The platform",
    };
    println!("{what} is up; Ctrl-C stops it. In another terminal:");
    if let Some(first) = machines.first() {
        println!(
            "  {} --root {} list-sites",
            own_command(),
            first.root.display()
        );
    }
}

/// What a shell starts this very program by.
fn own_command() -> String {
    let name = "paasctl";
    let own = std::env::current_exe().ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter_map(|directory| directory.join(name).canonicalize().ok())
        .next();
    match own {
        Some(own) if found.as_ref() != Some(&own) => own.display().to_string(),
        _ => name.to_owned(),
    }
}

fn url(scheme: &str, address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => {
            format!("{scheme}://localhost:{}/", address.port())
        }
        _ => format!("{scheme}://{address}/"),
    }
}
