//! The daemon, composed of the machine's roles: every machine keeps its table; a backend also wakes sites.
//!
//! When it ends, running sites go on; the next daemon takes them over.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::allowance;
use crate::change::Changer;
use crate::drain;
use crate::emperor::{self, Alarm, EmperorError, Stats};
use crate::follow::{self, FollowError, Follower};
use crate::heartbeat::Heart;
use crate::http::{self, Daemon};
use crate::initialize::adopt::adopt;
use crate::initialize::driver::{Driver, Message, sites_now};
use crate::initialize::launching;
use crate::initialize::machine::{Limits, Shown};
use crate::initialize::prepare::{Place, SharedRegistry, group_of, with_registry};
use crate::listening;
use crate::logs;
use crate::probe::{Opinions, Prober};
use crate::registry::RegistryError;
use crate::registry::lasting::{Lasting, keep_copy};
use crate::sandbox::missing;
use crate::settings::{BackendsFrom, Role, Settings};
use crate::watch::{Directory, Readable};

/// nginx's workers and root ask there.
pub const CONTROL_MODE: u32 = 0o660;

/// What keeps the daemon from running.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// There is one already.
    #[error("a daemon already runs on {}: its lock {} is taken", root.display(), lock.display())]
    Running {
        /// The root.
        root: PathBuf,
        /// The lock.
        lock: PathBuf,
    },
    /// Something in the root cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Make {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anything else the kernel refused.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The table cannot follow the registry.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The Emperor lives but cannot be talked to.
    #[error(transparent)]
    Emperor(#[from] EmperorError),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> Result<(), DaemonError> {
    let system = |doing| move |source| DaemonError::System { doing, source };
    let mut terminate =
        signal(SignalKind::terminate()).map_err(system("cannot wait for SIGTERM"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(system("cannot wait for SIGINT"))?;
    let group = match geteuid().is_root() {
        true => Some(group_of(&settings.nginx.user).map_err(system("cannot find nginx's group"))?),
        false => None,
    };
    raise_limit();
    make_directories(&settings)?;
    let _lock = lock(&settings)?;
    let follower = follow::start(&settings, group).await?;
    let driver = match settings.has(Role::Backend) {
        true => Some(start_waking(&settings, &follower).await?),
        false => None,
    };
    let changer = Changer {
        machine: settings.name.clone(),
        registry: shared(Lasting::new(settings.paths().registry(), None)),
        follower: follower.clone(),
        driver: driver.clone(),
    };
    tokio::spawn(changer.run());
    let probes = settings.has(Role::Balancer) && settings.balancer.backends == BackendsFrom::Live;
    let opinions = match probes {
        true => {
            let opinions = Opinions::default();
            let registry = shared(Lasting::new(settings.paths().registry(), None));
            let prober = Prober::new(&settings, registry, follower.clone(), opinions.clone());
            tokio::spawn(prober.run());
            Some(opinions)
        }
        false => None,
    };
    let control = control_socket(&settings, group)?;
    let api = http::router(Daemon {
        name: settings.name.clone(),
        follower,
        driver,
        opinions,
    });
    let server = tokio::spawn(async move { axum::serve(control, api).await });
    tell_ready().map_err(system(
        "cannot tell $NOTIFY_SOCKET that the daemon is ready",
    ))?;
    tracing::info!(name = settings.name, root = %settings.paths().root().display(), "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = server => {
            let problem = ended.map_or_else(|problem| problem.to_string(), |served| format!("{served:?}"));
            return Err(DaemonError::System { doing: "the control socket's server ended", source: io::Error::other(problem) });
        }
    }
    tracing::info!("ending; running sites go on");
    Ok(())
}

fn shared(registry: Lasting) -> SharedRegistry {
    Arc::new(Mutex::new(Box::new(registry)))
}

/// Every running site takes descriptors: as many as the system allows.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(problem) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%problem, "cannot raise the limit of open files");
    }
}

fn make_directories(settings: &Settings) -> Result<(), DaemonError> {
    let paths = settings.paths();
    let registry = paths.registry().parent().unwrap_or(paths.root()).to_owned();
    let heartbeat = paths.heartbeat();
    for (path, mode) in [
        (paths.run(), 0o755),
        (heartbeat.parent().unwrap_or(paths.root()).to_owned(), 0o755),
        (paths.sites(), 0o755),
        (paths.vassals(), 0o700),
        (paths.notify(), 0o700),
        (paths.state(), 0o755),
        (paths.logs(), 0o755),
        (registry, 0o755),
    ] {
        let make = DirBuilder::new().recursive(true).mode(mode).create(&path);
        make.map_err(|source| DaemonError::Make { path, source })?;
    }
    Ok(())
}

/// Held while the daemon lives.
fn lock(settings: &Settings) -> Result<File, DaemonError> {
    let path = settings.paths().run().join("serve.lock");
    let file = File::create(&path).map_err(|source| DaemonError::Make {
        path: path.clone(),
        source,
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(DaemonError::Running {
            root: settings.paths().root().to_owned(),
            lock: path,
        }),
    }
}

/// A socket bound here.
fn listen(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, DaemonError> {
    let make = || accepting(listening::bind(path, mode, group)?);
    make().map_err(|source| DaemonError::Make {
        path: path.to_owned(),
        source,
    })
}

/// The control socket: the one that whoever started this daemon holds, so that it stays open while daemons come and go.
fn control_socket(settings: &Settings, group: Option<u32>) -> Result<UnixListener, DaemonError> {
    let path = settings.paths().control_socket();
    match listening::inherited(&path) {
        Some(listener) => {
            tracing::info!("the control socket was handed over");
            accepting(listener).map_err(|source| DaemonError::Make { path, source })
        }
        None => listen(&path, CONTROL_MODE, group),
    }
}

fn accepting(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn start_waking(
    settings: &Settings,
    follower: &Follower,
) -> Result<mpsc::Sender<Message>, DaemonError> {
    let system = |doing| move |source| DaemonError::System { doing, source };
    let paths = settings.paths();
    for wall in missing::missing(settings) {
        tracing::warn!("{wall}");
    }
    let place = Arc::new(Place::new(settings).map_err(system("cannot read what sites need"))?);
    let registry = shared(Lasting::new(paths.registry(), paths.registry_copy()));
    if let Some(copy) = paths.registry_copy() {
        let from = paths.registry().to_owned();
        tokio::spawn(keep_copy(from, copy, follower.revision()));
    }
    let stats = match emperor::poke(&paths.emperor_stats()).await {
        Ok(stats) => Some(stats),
        // Without an Emperor there are no vassals.
        Err(EmperorError::Absent { .. }) => None,
        Err(problem) => return Err(problem.into()),
    };
    let found =
        adopt(&place, &registry, stats.as_ref()).map_err(system("cannot look at what runs"))?;

    let (driver, messages) = mpsc::channel(1024);
    let alarm = Alarm::new(paths.emperor_stats());
    let limits = Limits::with_start(settings.backend.start_timeout.duration());
    let mut sites = Driver::new(
        place.clone(),
        registry.clone(),
        alarm.clone(),
        limits,
        &settings.waking,
        driver.clone(),
    );
    sites.adopt(found);
    alarm.ring();
    // Before anybody can ask for a site.
    let standing = drain::Standing::of(settings, &registry)?;
    standing.tell(&driver).await;
    tokio::spawn(sites.run(messages));
    let run = paths.run();
    let arrivals = Directory::watch(
        &run,
        WatchFlags::CREATE | WatchFlags::ATTRIB | WatchFlags::MOVED_TO,
    )
    .map_err(system("cannot watch for Emperors"))?;
    let (lives, emperor) = watch::channel(false);
    let heart = Heart::new(settings, emperor, driver.clone())
        .map_err(system("cannot watch the sites' storage"))?;
    tokio::spawn(heart.run());
    tokio::spawn(watch_emperors(
        arrivals,
        paths.emperor_stats(),
        driver.clone(),
        lives,
    ));
    tokio::spawn(standing.follow(registry.clone(), follower.clone(), driver.clone()));
    tokio::spawn(logs::keeper::keep(
        paths.clone(),
        settings.backend.logs,
        registry.clone(),
        driver.clone(),
    ));
    tokio::spawn(allowance::keep(
        place.clone(),
        settings.name.clone(),
        registry.clone(),
        follower.clone(),
    ));
    tokio::spawn(heed(place, registry, follower.clone(), driver.clone()));
    let launchers = listen(&paths.launch_socket(), 0o600, None)?;
    tokio::spawn(launching::serve(launchers, driver.clone()));
    Ok(driver)
}

/// Tells the driver of every Emperor that comes, and waits until it has gone.
async fn watch_emperors(
    arrivals: Directory,
    socket: PathBuf,
    driver: mpsc::Sender<Message>,
    lives: watch::Sender<bool>,
) {
    loop {
        match emperor::poke(&socket).await {
            Ok(stats) => {
                lives.send_replace(true);
                match stay(&stats, &driver).await {
                    Ok(()) => tracing::warn!(
                        "the Emperor has ended, and all sites with it; they wake again when asked for"
                    ),
                    Err(problem) => tracing::error!(%problem, "cannot watch the Emperor"),
                }
                lives.send_replace(false);
            }
            Err(EmperorError::Absent { .. }) => {}
            Err(problem) => tracing::error!(%problem, "cannot talk to the Emperor"),
        }
        // It sets its socket's mode when it already listens: the last event comes when it can be asked.
        if let Err(problem) = arrivals.changed().await {
            tracing::error!(%problem, "cannot watch for Emperors any more");
            return;
        }
    }
}

async fn stay(stats: &Stats, driver: &mpsc::Sender<Message>) -> io::Result<()> {
    tracing::info!(
        pid = stats.pid,
        vassals = stats.vassals.len(),
        "an Emperor lives"
    );
    let process = emperor::process(stats)?;
    // Whoever does not listen has ended.
    let _ = driver
        .send(Message::EmperorArrived(process.try_clone()?))
        .await;
    Readable::new(process)?.ready().await
}

/// Tells the driver what the registry says of sites that are awake: that they are off or gone, and how long they stay awake.
async fn heed(
    place: Arc<Place>,
    registry: SharedRegistry,
    follower: Follower,
    driver: mpsc::Sender<Message>,
) {
    let mut revision = follower.revision();
    while revision.changed().await.is_ok() {
        let Some(sites) = sites_now(&driver).await else {
            return;
        };
        let awake = sites
            .into_iter()
            .filter(|now| is_awake(now.shown))
            .map(|now| now.site);
        let (place, awake) = (place.clone(), awake.collect::<Vec<_>>());
        let looked = with_registry(&registry, move |registry| {
            let view = registry.view()?;
            let mut news = Vec::with_capacity(awake.len());
            for id in awake {
                news.push(match view.site(id)? {
                    Some(site) if site.enabled => Message::Settled(id, place.idle(&site)),
                    Some(_) | None => Message::Retired(id),
                });
            }
            Ok(news)
        });
        match looked.await {
            Ok(news) => {
                for message in news {
                    // Whoever does not listen has ended.
                    let _ = driver.send(message).await;
                }
            }
            Err(problem) => {
                tracing::error!(%problem, "cannot look what has changed for running sites")
            }
        }
    }
}

fn is_awake(shown: Shown) -> bool {
    matches!(
        shown,
        Shown::Starting(_) | Shown::Running(_) | Shown::Reloading(_) | Shown::Stopping(_)
    )
}

/// systemd's protocol: a datagram to the socket named in the environment, if one is.
fn tell_ready() -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(b"READY=1", &address)
        .map(drop)
}
