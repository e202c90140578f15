//! The machines that `up` composes: each a root of its own, with its own `paas.toml`, written once and then the
//! operator's.
use super::{Plan, UpError};
use crate::settings::Settings;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// One machine of the platform.
#[derive(Debug)]
pub struct Machine {
    /// `balancer`, `b1`, `b2` ...
    pub name: String,
    /// Its root.
    pub root: PathBuf,
    /// What its `paas.toml` says.
    pub settings: Settings,
}

/// The machine whose root this is, if it is one's.
pub fn alone(root: &Path, plan: &Plan) -> Result<Option<Machine>, UpError> {
    if !settings_file(root).exists() {
        return Ok(None);
    }
    if plan.is_about_a_platform() {
        return Err(UpError::OneMachine { root: root.into() });
    }
    let settings = Settings::load(root)?;
    Ok(Some(Machine {
        name: settings.name.clone(),
        settings,
        root: root.into(),
    }))
}

fn settings_file(root: &Path) -> PathBuf {
    root.join("etc/paas/paas.toml")
}

/// The balancer first, then the backends: those found under `root` and those that `plan` adds.
pub fn compose(root: &Path, plan: &Plan) -> Result<Vec<Machine>, UpError> {
    let registry = root.join("registry.db");
    let mut machines = vec![machine(root, "balancer", || {
        balancer_settings(&registry, plan)
    })?];
    refuse_other_ports(&machines, plan)?;
    let wanted = plan.backends.unwrap_or(1);
    let mut port = first_backend_port(root);
    for number in 1.. {
        let name = format!("b{number}");
        if number > wanted && !settings_file(&root.join(&name)).exists() {
            break;
        }
        let machine = machine(root, &name, || backend_settings(&name, &registry, port))?;
        // A machine that is not started yet leaves its port free: the next one looks beyond it.
        port = machine.settings.backend.listen.port() + 1;
        machines.push(machine);
    }
    Ok(machines)
}

fn machine(
    root: &Path,
    name: &str,
    settings: impl FnOnce() -> Result<String, UpError>,
) -> Result<Machine, UpError> {
    let root = root.join(name);
    let file = settings_file(&root);
    if !file.exists() {
        let text = settings()?;
        // Refused before it is written: a root too deep for unix sockets, for one.
        Settings::load(&root)?;
        crate::files::write_atomically(&file, text.as_bytes(), 0o644).map_err(|source| {
            UpError::Write {
                path: file.clone(),
                source,
            }
        })?;
    }
    Ok(Machine {
        name: name.to_owned(),
        settings: Settings::load(&root)?,
        root,
    })
}

fn balancer_settings(registry: &Path, plan: &Plan) -> Result<String, UpError> {
    let http = match plan.http {
        Some(port) => port,
        None => free_port(plan.bind, 8080)?,
    };
    let mut text = heading("balancer", "balancer", registry);
    let _ = writeln!(
        text,
        "\n[balancer]\nlisten = [\"{}\"]",
        SocketAddr::new(plan.bind, http)
    );
    // All of it on one machine, which may be a small one and busy with other things: nobody is in a hurry to find it dead.
    text.push_str("probe = { timeout = \"2s\", failures = 3 }\n");
    if let Some((certificate, key)) = &plan.certificate {
        let https = match plan.https {
            Some(port) => port,
            None => free_port(plan.bind, 8443)?,
        };
        let _ = writeln!(
            text,
            "https_listen = [\"{}\"]\ncertificate = {}\ncertificate_key = {}",
            SocketAddr::new(plan.bind, https),
            quoted(&absolute(certificate)?),
            quoted(&absolute(key)?)
        );
    }
    Ok(text)
}

fn backend_settings(name: &str, registry: &Path, first: u16) -> Result<String, UpError> {
    let listen = SocketAddr::new(
        Ipv4Addr::LOCALHOST.into(),
        free_port(Ipv4Addr::LOCALHOST.into(), first)?,
    );
    Ok(format!(
        "{}\n[backend]\nlisten = \"{listen}\"\n",
        heading(name, "backend", registry)
    ))
}

fn heading(name: &str, role: &str, registry: &Path) -> String {
    format!(
        "# Written once by `paasctl up`; yours to change.\nname = \"{name}\"\nroles = [\"{role}\"]\nregistry = {}\n\n[nginx]\nworkers = 1\nmodule = {}\n",
        quoted(registry),
        quoted(&module())
    )
}

/// The module of a build tree if this program lies in one, else the installed one.
fn module() -> PathBuf {
    let name = "ngx_http_paas_module.so";
    std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.parent()?.join("module").join(name)))
        .filter(|module| module.exists())
        .unwrap_or_else(|| Path::new("/usr/lib/nginx/modules").join(name))
}

/// A TOML string; paths with characters that need more than this are refused when the settings are read.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

fn absolute(path: &Path) -> Result<PathBuf, UpError> {
    path.canonicalize().map_err(|source| UpError::Read {
        path: path.into(),
        source,
    })
}

/// Below the ports that the kernel gives to outgoing connections, and spread by the root's path, so that two platforms
/// on one machine seldom meet.
fn first_backend_port(root: &Path) -> u16 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    10_000 + (hasher.finish() % 20_000) as u16
}

/// The first free port from `first` on.
fn free_port(address: IpAddr, first: u16) -> Result<u16, UpError> {
    (first..first.saturating_add(1000))
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .ok_or(UpError::NoPort { address, first })
}

/// A port given now that is not the one in the file would be ignored silently: say so instead.
fn refuse_other_ports(machines: &[Machine], plan: &Plan) -> Result<(), UpError> {
    let Some(balancer) = machines.first() else {
        return Ok(());
    };
    let listens = &balancer.settings.balancer;
    for (given, addresses) in [
        (plan.http, &listens.listen),
        (plan.https, &listens.https_listen),
    ] {
        if let Some(port) = given
            && !addresses.iter().any(|address| address.port() == port)
        {
            return Err(UpError::OtherPort {
                port,
                file: balancer.settings.paths().settings_file(),
            });
        }
    }
    Ok(())
}

/// Makes the directories of a machine that nobody else makes.
pub fn prepare(machine: &Machine) -> Result<(), UpError> {
    let paths = machine.settings.paths();
    for directory in [paths.run(), paths.logs(), paths.state()] {
        fs::create_dir_all(&directory).map_err(|source| UpError::Write {
            path: directory,
            source,
        })?;
    }
    Ok(())
}
