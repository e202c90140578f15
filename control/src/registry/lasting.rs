//! The registry as a daemon has it: it may be gone, and come back, while the daemon lives. Meanwhile, what is read is read in the
//! copy that [`keep_copy`] made, if this machine keeps one.
//!
//! Must never make a registry: an empty one in place of one whose storage is not mounted would empty every table.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::sqlite::Sqlite;
use super::{Edit, Registry, RegistryError, Result, View};

/// Between two copies there is at least this time, and so many times that which the last one took.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: u32 = 50;

/// A registry that may be gone.
pub struct Lasting {
    path: PathBuf,
    copy: Option<PathBuf>,
    open: Option<(FileId, Sqlite)>,
    opened_copy: Option<(FileId, Sqlite)>,
}

/// Which file it is, whatever its path.
type FileId = (u64, u64);

fn id_of(path: &Path) -> io::Result<FileId> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Lasting {
    /// The registry in this file; read in that copy while it is gone.
    pub fn new(path: &Path, copy: Option<PathBuf>) -> Self {
        Self {
            path: path.to_owned(),
            copy,
            open: None,
            opened_copy: None,
        }
    }

    /// The registry itself, if it is there and can be read.
    fn itself(&mut self) -> Result<&mut Sqlite> {
        let gone = |error: io::Error| RegistryError::Open {
            path: self.path.clone(),
            why: error.to_string(),
        };
        let id = id_of(&self.path).map_err(gone)?;
        let registry = match self.open.take() {
            Some((opened, registry)) if opened == id => registry,
            _ => Sqlite::open_existing(&self.path)?,
        };
        let (_, registry) = self.open.insert((id, registry));
        Ok(registry)
    }

    /// What it costs is one page that is in memory; what it shows is storage that no longer answers.
    fn look(&mut self) -> Result<u64> {
        self.itself()?.view()?.revision()
    }

    /// The copy, the newest there is.
    fn copied(&mut self, why: RegistryError) -> Result<&mut Sqlite> {
        let Some(path) = &self.copy else {
            return Err(why);
        };
        let Ok(id) = id_of(path) else {
            return Err(why);
        };
        let copy = match self.opened_copy.take() {
            Some((opened, copy)) if opened == id => copy,
            _ => {
                tracing::warn!(%why, "the registry is gone; sites are started as its last copy describes them");
                Sqlite::open_copy(path)?
            }
        };
        let (_, copy) = self.opened_copy.insert((id, copy));
        Ok(copy)
    }
}

impl Registry for Lasting {
    fn view(&mut self) -> Result<Box<dyn View + '_>> {
        match self.look() {
            Ok(_) => {
                self.opened_copy = None;
                self.itself()?.view()
            }
            Err(why) => {
                self.open = None;
                self.copied(why)?.view()
            }
        }
    }

    fn edit(&mut self) -> Result<Box<dyn Edit + '_>> {
        self.itself()?.edit()
    }
}

/// Copies the registry whenever its revision has changed, until the daemon ends.
pub async fn keep_copy(path: PathBuf, copy: PathBuf, mut revision: watch::Receiver<u64>) {
    loop {
        let began = Instant::now();
        let (from, to) = (path.clone(), copy.clone());
        match tokio::task::spawn_blocking(move || copy_file(&from, &to)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => tracing::warn!(%problem, "the registry cannot be copied"),
            Err(problem) => tracing::warn!(%problem, "the registry cannot be copied"),
        }
        let pause = (began.elapsed() * PAUSES).max(PAUSE);
        tokio::time::sleep(pause).await;
        if revision.changed().await.is_err() {
            return;
        }
    }
}

/// One consistent state, readable to root alone: it holds secrets. Whoever opens the copy sees the old one or the new one.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let draft = to.with_extension("new");
    let made = || {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
    };
    let failed = |error: io::Error| RegistryError::Open {
        path: to.to_owned(),
        why: error.to_string(),
    };
    let file = made().map_err(failed)?;
    Sqlite::open_existing(from)?.copy_into(&draft)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&draft, to).map_err(failed)
}

#[cfg(test)]
#[path = "lasting_tests.rs"]
mod tests;
