//! Keeps the table at the registry's revision: at the start, when somebody asks, and when the registry's file changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;
use table::{Options, TableError, Writer};
use tokio::sync::{mpsc, oneshot, watch};

use crate::registry::{self, Registry, RegistryError};
use crate::settings::Settings;
use crate::sync::{self, SyncError, Synced};
use crate::watch::Directory;

/// Readers that died in the middle of a look-up keep old pages alive until they are cleared; nothing announces them.
const CLEARING: Duration = Duration::from_secs(1);

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
    /// The registry's directory cannot be watched.
    #[error("cannot watch the registry's directory: {0}")]
    Watch(#[from] std::io::Error),
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
    registry: Box<dyn Registry>,
    writer: Writer,
}

/// Brings the table up to date once, then goes on in the background.
pub async fn start(settings: &Settings, group: Option<u32>) -> Result<Follower, FollowError> {
    let paths = settings.paths();
    // Watched before it is read: no change falls between.
    let registry = registry::open(settings)?;
    let directory = paths.registry().parent().unwrap_or(paths.root());
    let changes = Directory::watch(
        directory,
        WatchFlags::ATTRIB | WatchFlags::MODIFY | WatchFlags::MOVED_TO,
    )?;
    let options = Options {
        group,
        ..Options::default()
    };
    let mut both = Both {
        registry,
        writer: Writer::open_or_create(paths.table(), options)?,
    };
    let first = sync::sync(&mut *both.registry, &mut both.writer)?;
    report(first);
    let (sender, revision) = watch::channel(first.revision());
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
        changes,
        [format!("{file}-wal"), file],
        sender,
    ));
    Ok(Follower { requests, revision })
}

async fn follow(
    both: Arc<Mutex<Both>>,
    mut inbox: mpsc::Receiver<oneshot::Sender<Result<u64, String>>>,
    changes: Directory,
    files: [String; 2],
    revision: watch::Sender<u64>,
) {
    let mut clearing = tokio::time::interval(CLEARING);
    clearing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            request = inbox.recv() => match request {
                Some(request) => waiting.push(request),
                None => return,
            },
            names = changes.changed() => match names {
                Ok(names) if names.is_empty() || names.iter().any(|name| files.iter().any(|file| **name == **file)) => {}
                Ok(_) => continue,
                Err(problem) => {
                    tracing::error!(%problem, "cannot watch the registry any more; changes are seen when paasctl tells of them");
                    return Box::pin(answer_only(both, inbox, revision)).await;
                }
            },
            _ = clearing.tick() => {
                clear(&both).await;
                continue;
            }
        }
        while let Ok(request) = inbox.try_recv() {
            waiting.push(request);
        }
        bring_up_to_date(&both, waiting, &revision).await;
    }
}

/// What is left when the directory cannot be watched.
async fn answer_only(
    both: Arc<Mutex<Both>>,
    mut inbox: mpsc::Receiver<oneshot::Sender<Result<u64, String>>>,
    revision: watch::Sender<u64>,
) {
    while let Some(request) = inbox.recv().await {
        bring_up_to_date(&both, vec![request], &revision).await;
    }
}

async fn bring_up_to_date(
    both: &Arc<Mutex<Both>>,
    waiting: Vec<oneshot::Sender<Result<u64, String>>>,
    revision: &watch::Sender<u64>,
) {
    let both = both.clone();
    let work = move || {
        let mut both = both.lock().unwrap_or_else(PoisonError::into_inner);
        let Both { registry, writer } = &mut *both;
        sync::sync(&mut **registry, writer)
    };
    let outcome = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(synced)) => {
            report(synced);
            revision.send_if_modified(|held| {
                std::mem::replace(held, synced.revision()) != synced.revision()
            });
            Ok(synced.revision())
        }
        Ok(Err(problem)) => Err(problem.to_string()),
        Err(problem) => Err(problem.to_string()),
    };
    if let Err(problem) = &outcome {
        tracing::error!(
            problem,
            "the table does not follow the registry; nginx goes on with what it holds"
        );
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
