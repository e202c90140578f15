//! Keeps the table at the registry's revision: at the start, when somebody asks, when the registry's file changes, and each second.
//! While the registry is gone, the table stays what it is.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;
use table::{Options, TableError, Writer};
use tokio::sync::{mpsc, oneshot, watch};

use crate::registry::lasting::Lasting;
use crate::registry::{self, RegistryError};
use crate::settings::Settings;
use crate::sync::{self, SyncError, Synced};
use crate::watch::Directory;

/// How often it looks for what nobody announces, such as readers that died in the middle of a look-up: until they are cleared, they
/// keep old pages alive.
const LOOKING: Duration = Duration::from_secs(1);

/// What keeps the table from being followed at all.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The first synchronisation.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Asks for the table to be brought up to date.
#[derive(Clone, Debug)]
pub struct Follower {
    requests: mpsc::Sender<oneshot::Sender<Result<u64, String>>>,
    revision: watch::Receiver<u64>,
}

impl Follower {
    /// Answers when the table holds what the registry holds now, with its revision.
    pub async fn refresh(&self) -> Result<u64, String> {
        let (sender, answer) = oneshot::channel();
        let ended = |_| "the daemon is ending".to_owned();
        self.requests.send(sender).await.map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }

    /// The revision that the table holds; changes with it.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }
}

struct Both {
    registry: Lasting,
    writer: Writer,
}

/// The registry's directory: which one it was when it was watched, and what it tells.
struct Watched {
    path: PathBuf,
    id: Option<(u64, u64)>,
    changes: Option<Directory>,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        let mut watched = Self {
            path,
            id: None,
            changes: None,
        };
        watched.look();
        watched
    }

    /// Watches it anew if there is another directory in its place: nobody announces that storage was mounted.
    fn look(&mut self) {
        let id = std::fs::metadata(&self.path)
            .ok()
            .map(|found| (found.dev(), found.ino()));
        if id == self.id && (id.is_none() || self.changes.is_some()) {
            return;
        }
        self.id = id;
        let what = WatchFlags::ATTRIB | WatchFlags::MODIFY | WatchFlags::MOVED_TO;
        self.changes = match Directory::watch(&self.path, what) {
            Ok(changes) => Some(changes),
            Err(problem) => {
                tracing::error!(%problem, path = %self.path.display(), "cannot watch the registry; changes are seen when paasctl tells of them");
                None
            }
        };
    }

    /// The names of files that changed; none: anything may have.
    async fn changed(&mut self) -> Vec<OsString> {
        let Some(changes) = &self.changes else {
            return std::future::pending().await;
        };
        match changes.changed().await {
            Ok(names) => names,
            Err(problem) => {
                tracing::error!(%problem, "cannot watch the registry any more");
                self.changes = None;
                Vec::new()
            }
        }
    }
}

/// Brings the table up to date once, then goes on in the background. A machine that has a table already goes on with it if the
/// registry is gone; only a new one makes a registry where there is none.
pub async fn start(settings: &Settings, group: Option<u32>) -> Result<Follower, FollowError> {
    let paths = settings.paths();
    let options = Options {
        group,
        ..Options::default()
    };
    let writer = Writer::open_or_create(paths.table(), options)?;
    if writer.generation() == 0 {
        drop(registry::open(settings)?);
    }
    // Watched before it is read: no change falls between.
    let directory = paths.registry().parent().unwrap_or(paths.root());
    let watched = Watched::new(directory.to_owned());
    let mut both = Both {
        registry: Lasting::new(paths.registry(), None),
        writer,
    };
    let held = both.writer.generation();
    let (first, gone) = match sync::sync(&mut both.registry, &mut both.writer) {
        Ok(synced) => {
            report(synced);
            (synced.revision(), false)
        }
        Err(SyncError::Registry(problem)) if held > 0 => {
            tracing::error!(%problem, revision = held, "the registry is gone; nginx goes on with the table as it is");
            (held, true)
        }
        Err(problem) => return Err(problem.into()),
    };
    let (sender, revision) = watch::channel(first);
    let (requests, inbox) = mpsc::channel(64);
    let file = paths
        .registry()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    tokio::spawn(follow(
        Arc::new(Mutex::new(both)),
        inbox,
        watched,
        [format!("{file}-wal"), file],
        sender,
        gone,
    ));
    Ok(Follower { requests, revision })
}

async fn follow(
    both: Arc<Mutex<Both>>,
    mut inbox: mpsc::Receiver<oneshot::Sender<Result<u64, String>>>,
    mut watched: Watched,
    files: [String; 2],
    revision: watch::Sender<u64>,
    mut gone: bool,
) {
    let mut looking = tokio::time::interval(LOOKING);
    looking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            request = inbox.recv() => match request {
                Some(request) => waiting.push(request),
                None => return,
            },
            names = watched.changed() => {
                if !names.is_empty() && !names.iter().any(|name| files.iter().any(|file| **name == **file)) {
                    continue;
                }
            }
            // Looks into the registry, too: whoever committed may have been killed before it told anybody.
            _ = looking.tick() => {
                clear(&both).await;
                watched.look();
            }
        }
        while let Ok(request) = inbox.try_recv() {
            waiting.push(request);
        }
        bring_up_to_date(&both, waiting, &revision, &mut gone).await;
    }
}

async fn bring_up_to_date(
    both: &Arc<Mutex<Both>>,
    waiting: Vec<oneshot::Sender<Result<u64, String>>>,
    revision: &watch::Sender<u64>,
    gone: &mut bool,
) {
    let both = both.clone();
    let work = move || {
        let mut both = both.lock().unwrap_or_else(PoisonError::into_inner);
        let Both { registry, writer } = &mut *both;
        sync::sync(registry, writer)
    };
    let outcome = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(synced)) => {
            report(synced);
            let is_back = std::mem::take(gone);
            revision.send_if_modified(|held| {
                let before = std::mem::replace(held, synced.revision());
                // Who could not read the registry meanwhile reads it now.
                is_back || before != synced.revision()
            });
            Ok(synced.revision())
        }
        Ok(Err(problem)) => Err(problem.to_string()),
        Err(problem) => Err(problem.to_string()),
    };
    if let Err(problem) = &outcome {
        // Said once, though it is tried again every second.
        if !std::mem::replace(gone, true) {
            tracing::error!(
                problem,
                "the table does not follow the registry; nginx goes on with what it holds"
            );
        }
    }
    for answer in waiting {
        // Whoever asked may have gone.
        let _ = answer.send(outcome.clone());
    }
}

async fn clear(both: &Arc<Mutex<Both>>) {
    let both = both.clone();
    let work = move || {
        both.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .writer
            .clear_stale_readers()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(cleared)) => tracing::info!(cleared, "cleared readers of the table that had died"),
        Ok(Err(problem)) => tracing::warn!(%problem, "cannot clear the table's readers"),
    }
}

fn report(synced: Synced) {
    match synced {
        Synced::Unchanged(_) => {}
        Synced::Applied { revision, changes } => {
            tracing::info!(revision, changes, "the table follows")
        }
        Synced::Rebuilt(revision) => tracing::info!(revision, "the table is built anew"),
    }
}
