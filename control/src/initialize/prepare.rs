//! What a start needs before there is a vassal file: the site's row, its log directory, its notice pipe, a socket, and the two
//! texts that tell the launcher and uWSGI what to do. Blocking; runs beside the event loop.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::geteuid;

use super::confine::{Inmate, Unconfined, Walls};
use super::held::{BACKLOG, Held};
use super::order::{Context, Order};
use super::premises::Premises;
use super::words::{Generation, NotPrepared};
use super::{log_tail, notice, probe};
use crate::logs::Kind;
use crate::logs::directory::{self, Owners};
use crate::model::{Environment, Idle, Limits, Site, SiteId, User};
use crate::paths::Paths;
use crate::registry::{Registry, RegistryError};
use crate::settings::Settings;
use crate::vassal::{self, Defaults, VassalError};

/// The registry, shared by the tasks that read it.
pub type SharedRegistry = Arc<Mutex<Box<dyn Registry>>>;

/// Does something with the registry beside the event loop; what is wrong with it is told in words.
pub async fn with_registry<T: Send + 'static>(
    registry: &SharedRegistry,
    work: impl FnOnce(&mut dyn Registry) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, String> {
    let registry = registry.clone();
    let work = move || {
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut **registry)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|problem| problem.to_string()),
        Err(problem) => Err(problem.to_string()),
    }
}

/// What is the same for all sites of this machine.
#[derive(Debug)]
pub struct Place {
    /// Where everything lies.
    pub paths: Paths,
    /// Sites run as their users; otherwise everything runs as the daemon's.
    pub root: bool,
    /// nginx's group, which may connect to sites.
    pub group: Option<u32>,
    /// Where sites' histories are kept.
    pub history: PathBuf,
    /// nginx's workers, which write two of a site's logs.
    nginx: Option<u32>,
    /// The uWSGI program.
    uwsgi: String,
    /// What holds sites in.
    pub walls: Walls,
    defaults: Defaults,
}

impl Place {
    /// From the machine's settings and its kernel.
    pub fn new(settings: &Settings) -> io::Result<Place> {
        let root = geteuid().is_root();
        let kernel = fs::read_to_string("/proc/sys/net/core/somaxconn")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let (nginx, group) = match root {
            true => Some(ids_of(&settings.nginx.user)?).unzip(),
            false => (None, None),
        };
        Ok(Place {
            paths: settings.paths().clone(),
            root,
            group,
            nginx,
            history: settings.paths().state().join("history"),
            uwsgi: settings.backend.uwsgi.as_str().to_owned(),
            walls: Walls::new(settings),
            defaults: Defaults {
                workers: settings.backend.workers,
                idle: settings.backend.idle,
                backlog: kernel.unwrap_or(128).min(BACKLOG.unsigned_abs()),
            },
        })
    }

    /// After how long without a request a site sleeps on this machine.
    pub fn idle(&self, site: &Site) -> Idle {
        site.idle.unwrap_or(self.defaults.idle)
    }

    /// The vassal file of a generation.
    pub fn vassal(&self, site: SiteId, generation: Generation) -> PathBuf {
        self.paths
            .vassals()
            .join(vassal::file_name(site, generation))
    }

    /// The notice pipe of a generation.
    pub fn notice(&self, site: SiteId, generation: Generation) -> PathBuf {
        self.paths.notify().join(format!("{site}@{generation}"))
    }
}

/// Everything a start needs.
#[derive(Debug)]
pub struct Prepared {
    /// Where the site's processes write.
    pub log: PathBuf,
    /// How long that is already.
    pub log_from: u64,
    /// What the launcher is told.
    pub order: Order,
    /// The vassal file's content.
    pub config: String,
    /// After how long without a request it sleeps.
    pub idle: Idle,
    /// A new socket, unless one is held.
    pub held: Option<Held>,
    /// What its code must answer to take over from a running generation.
    pub probe: probe::Request,
    /// What it goes by.
    pub premises: Premises,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// The registry has no such site.
    #[error("there is no such site")]
    NoSuchSite,
    /// The site is off.
    #[error("the site is disabled; `paasctl enable-site` switches it on")]
    Disabled,
    /// The registry could not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The site's files are not there.
    #[error("the site's directory {}: {source}", path.display())]
    Directory {
        /// Where they should be.
        path: PathBuf,
        /// Why they are not.
        source: io::Error,
    },
    /// The site's configuration cannot be written.
    #[error(transparent)]
    Vassal(#[from] VassalError),
    /// The operator's own lines cannot be used.
    #[error("the lines for all sites in {}: {source}", path.display())]
    Snippet {
        /// Their file, or its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing would hold it in.
    #[error(transparent)]
    Unconfined(#[from] Unconfined),
    /// Something could not be made.
    #[error("cannot make {}: {source}", path.display())]
    Make {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Unprepared {
    /// What the machine must know of it.
    pub fn why(&self) -> NotPrepared {
        match self {
            Unprepared::NoSuchSite => NotPrepared::NoSuchSite,
            Unprepared::Disabled => NotPrepared::Disabled,
            Unprepared::Directory { .. } => NotPrepared::NoDirectory,
            _ => NotPrepared::Failed,
        }
    }
}

/// Prepares a start; binds a socket if `fresh`.
pub fn prepare(
    place: &Place,
    registry: &SharedRegistry,
    id: SiteId,
    generation: Generation,
    fresh: bool,
) -> Result<Prepared, Unprepared> {
    let row = row(place, registry, id)?;
    let settings = row.fingerprint();
    let Row {
        site,
        uid,
        environment,
        user,
        user_limits,
        site_limits,
    } = row;
    let make = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| Unprepared::Make {
            path: path.to_owned(),
            source,
        })
    };
    // Of a site that is off, too: nginx writes a line for its visitors.
    let logs = place.paths.site_logs(&site.domain);
    let owners = place.nginx.map(|nginx| Owners { nginx, group: uid });
    make(&logs, directory::make(&logs, owners))?;
    if !site.enabled {
        return Err(Unprepared::Disabled);
    }
    let snippets = snippets(&place.paths.vassal_snippets())?;
    let config = vassal::render(&site, &place.defaults, &snippets)?;
    look_for(site.directory.as_path())?;

    let pipe = place.notice(id, generation);
    make(&pipe, notice::make(&pipe, place.root.then_some(uid)))?;
    let public = place.paths.site_socket(id, &site.domain);
    let bind = || Held::bind(&public, generation, place.group);
    let held = fresh
        .then(bind)
        .transpose()
        .map_err(|source| Unprepared::Make {
            path: public.clone(),
            source,
        })?;

    let confinement = place.walls.confine(&Inmate {
        user: &user,
        user_limits: &user_limits,
        site_limits: &site_limits,
        domain: &site.domain,
        directory: &site.directory,
        venv: site.venv.as_ref(),
        leaf: &format!("{id}@{generation}"),
        registry,
    })?;

    let log = logs.join(Kind::Server.file_name());
    let gid = if place.root {
        uid
    } else {
        rustix::process::getegid().as_raw()
    };
    let context = Context {
        ids: (uid, gid),
        log: &log,
        notice: &pipe,
        uwsgi: &place.uwsgi,
        confinement: &confinement,
    };
    let order = Order::new(&site, &environment, &context);
    Ok(Prepared {
        log_from: log_tail::length(&log),
        idle: place.idle(&site),
        log,
        order,
        config,
        held,
        probe: probe::Request::to(&site),
        premises: Premises::before(&site, settings),
    })
}

/// Lost storage shows here, before anything is started that would fail on it.
fn look_for(directory: &Path) -> Result<(), Unprepared> {
    let gone = |source| Unprepared::Directory {
        path: directory.to_owned(),
        source,
    };
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(gone(io::ErrorKind::NotADirectory.into())),
        // Storage that trusts no root: its user will see.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(gone(error)),
    }
}

/// What the registry says of a site.
#[derive(Debug)]
struct Row {
    site: Site,
    /// As whom it runs.
    uid: u32,
    environment: Environment,
    user: User,
    user_limits: Limits,
    site_limits: Limits,
}

impl Row {
    /// Another number when anything of it is different.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // A value of the environment does not show itself.
        format!("{self:?}").hash(&mut hasher);
        for variable in self.environment.variables().values() {
            variable.value.expose().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What a failed start went by; `before` is what is known from before it, and `log` what it has written.
pub fn premises(
    place: &Place,
    registry: &SharedRegistry,
    id: SiteId,
    before: Option<Premises>,
    log: &[String],
) -> Option<Premises> {
    let row = row(place, registry, id).ok()?;
    let before = before.unwrap_or_else(|| Premises::before(&row.site, row.fingerprint()));
    Some(before.after(&row.site, log))
}

/// Whether a start would go by anything else now.
pub fn is_different(
    place: &Place,
    registry: &SharedRegistry,
    id: SiteId,
    premises: &Premises,
) -> bool {
    let settings = row(place, registry, id).ok().map(|row| row.fingerprint());
    premises.have_changed(settings)
}

fn row(place: &Place, registry: &SharedRegistry, id: SiteId) -> Result<Row, Unprepared> {
    let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let view = registry.view()?;
    let site = view.site(id)?.ok_or(Unprepared::NoSuchSite)?;
    let user = view.user(&site.user)?.ok_or(Unprepared::NoSuchSite)?;
    let uid = match place.root {
        true => user.uid.get(),
        false => geteuid().as_raw(),
    };
    Ok(Row {
        environment: view.environment(id)?,
        user_limits: view.user_limits(&user.name)?,
        site_limits: view.site_limits(id)?,
        user,
        site,
        uid,
    })
}

/// The operator's own lines for every vassal, in the order of their files' names.
fn snippets(directory: &Path) -> Result<String, Unprepared> {
    let list = || -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Unprepared::Snippet { path, source }
    };
    let mut files = list().map_err(unreadable(directory))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ini"));
    files.sort();
    let mut all = String::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(unreadable(&file))?;
        // Whatever followed would be of that section, and so of no effect.
        let section = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with('['));
        if let Some(section) = section.filter(|section| *section != "[uwsgi]") {
            let problem = format!("it opens the section {section}, and only [uwsgi] is read");
            return Err(unreadable(&file)(io::Error::other(problem)));
        }
        all.push_str(&format!("; {}\n{}\n", file.display(), text.trim_end()));
    }
    Ok(all)
}

/// The primary group of an account.
pub fn group_of(account: &str) -> io::Result<u32> {
    Ok(ids_of(account)?.1)
}

/// The user and the primary group of an account.
fn ids_of(account: &str) -> io::Result<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let found = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(account) {
            return None;
        }
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    found.ok_or_else(|| {
        let problem = format!("/etc/passwd has no account {account}, as which nginx's workers run; set nginx.user in paas.toml");
        io::Error::new(io::ErrorKind::NotFound, problem)
    })
}
