//! [`Writer`]: how the daemon fills the table.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use heed::RwTxn;
use routing::Placement;

use crate::codec;
use crate::env::{self, Access, Environment};
use crate::error::TableError;
use crate::hosts::{self, Spread};
use crate::layout::{self, Layout};
use crate::record::{BackendRecord, Change, Header};
use crate::view::{self, HEADER};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The group that may read the table, nginx's; without one, permissions are set but the group is left alone.
    pub group: Option<u32>,
    /// How many transactions may look at it at once: nginx's workers, of two cycles during a reload, and the
    /// command line. Counts for environments made from now on.
    pub max_readers: u32,
    /// How large the table may grow: address space in every process that has it open, not memory. Never changed for a table that
    /// is there.
    pub map_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group: None,
            max_readers: 1024,
            map_size: 64 << 30,
        }
    }
}

/// The one writer of a table.
///
/// Whenever it is killed, even by a power failure, the table is the old or the new one, whole; the next writer tidies up.
pub struct Writer {
    layout: Layout,
    options: Options,
    current: Option<Current>,
    _lock: File,
}

struct Current {
    environment: Arc<Environment>,
    header: Header,
}

impl Writer {
    /// Opens the table in `dir` for writing; makes the directory if there is none, and removes what an earlier writer
    /// left behind. A table that cannot be continued (missing, damaged, of another format) counts as empty, generation 0; readers have the
    /// old one until [`rebuild`](Writer::rebuild) replaces it.
    ///
    /// # Errors
    /// [`TableError::Busy`] if another process writes it; and if the directory cannot be made or read.
    pub fn open_or_create(dir: impl AsRef<Path>, options: Options) -> Result<Self, TableError> {
        let layout = Layout::new(dir.as_ref());
        layout.create(options.group)?;
        let lock = layout::lock(&layout.dir)?;
        let mut writer = Self {
            layout,
            options,
            current: None,
            _lock: lock,
        };
        writer.current = writer.open_current()?;
        // What cannot be tidied now takes space, and is tried again at the next replacement.
        let _ = writer.tidy();
        Ok(writer)
    }

    fn open_current(&self) -> Result<Option<Current>, TableError> {
        let number = match self.layout.current() {
            Ok(number) => number,
            Err(TableError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let environment = match self.environment(number) {
            Ok(environment) => environment,
            Err(error @ TableError::InUse { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        self.layout.admit_readers(number, self.options.group)?;
        let header = view::read_header(&environment, &*environment.read()?);
        Ok(header
            .ok()
            .filter(|header| !header.retired)
            .map(|header| Current {
                environment,
                header,
            }))
    }

    fn environment(&self, number: u64) -> Result<Arc<Environment>, TableError> {
        let access = Access::Write {
            map_size: self.options.map_size,
            max_readers: self.options.max_readers,
        };
        env::open(&self.layout.environment(number), access)
    }

    /// The revision of the registry that the table holds; 0 if it holds nothing.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header().map_or(0, |header| header.generation)
    }

    /// What holds for the table as a whole, if there is one.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.current.as_ref().map(|current| &current.header)
    }

    /// Changes the table, in one step for its readers, to be what the registry is at `generation`. An empty table is
    /// built.
    ///
    /// # Errors
    /// The table is as before. [`TableError::Backwards`] if it is at a later generation.
    pub fn apply(
        &mut self,
        generation: u64,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), TableError> {
        self.try_apply(generation, changes.into_iter().map(Ok::<_, Infallible>))
    }

    /// As [`apply`](Writer::apply), from a source that may fail in the middle; the table is then as before.
    ///
    /// # Errors
    /// As [`apply`](Writer::apply), and [`TableError::Source`].
    pub fn try_apply<E>(
        &mut self,
        generation: u64,
        changes: impl IntoIterator<Item = Result<Change, E>>,
    ) -> Result<(), TableError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let Some(current) = &mut self.current else {
            return self.try_rebuild(generation, changes);
        };
        if generation < current.header.generation {
            return Err(TableError::Backwards {
                holds: current.header.generation,
                given: generation,
            });
        }
        current.environment.clear_stale_readers()?;
        let header = Header {
            generation,
            ..current.header
        };
        current.header = write(&current.environment, header, changes)?;
        Ok(())
    }

    /// Builds the table anew from all that the registry holds at `generation`, and replaces the old one by it.
    ///
    /// # Errors
    /// The old table stays in force.
    pub fn rebuild(
        &mut self,
        generation: u64,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), TableError> {
        self.try_rebuild(generation, changes.into_iter().map(Ok::<_, Infallible>))
    }

    /// As [`rebuild`](Writer::rebuild), from a source that may fail in the middle; the old table then stays in force.
    ///
    /// # Errors
    /// As [`rebuild`](Writer::rebuild), and [`TableError::Source`].
    pub fn try_rebuild<E>(
        &mut self,
        generation: u64,
        changes: impl IntoIterator<Item = Result<Change, E>>,
    ) -> Result<(), TableError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let number = self.next_number()?;
        let built = self.build(number, generation, changes).and_then(|current| {
            self.layout.switch(number)?;
            Ok(current)
        });
        match built {
            Ok(current) => self.current = Some(current),
            Err(error) => {
                // Unless the switch was made and only its sync failed, nobody has seen it.
                if !matches!(self.layout.current(), Ok(current) if current == number) {
                    let _ = self.layout.remove(number);
                }
                return Err(error);
            }
        }
        let _ = self.tidy();
        Ok(())
    }

    fn build<E>(
        &self,
        number: u64,
        generation: u64,
        changes: impl IntoIterator<Item = Result<Change, E>>,
    ) -> Result<Current, TableError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.layout.create_environment(number)?;
        let environment = self.environment(number)?;
        self.layout.admit_readers(number, self.options.group)?;
        let before = self.header().map_or(0, |header| header.backends_revision);
        let backends_revision = first_revision(number).max(before + 1);
        let header = Header {
            generation,
            backends_revision,
            placement: Placement::default(),
            retired: false,
            spread: Spread::new()
                .map_err(|error| TableError::io("find a secret for", &*environment.path, error))?,
        };
        let header = write(&environment, header, changes)?;
        Ok(Current {
            environment,
            header,
        })
    }

    /// A number that no environment had before, even if the directory was emptied meanwhile: readers may still have it.
    fn next_number(&self) -> Result<u64, TableError> {
        let last = self.layout.numbers()?.into_iter().max().unwrap_or(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Ok(now.max(last.saturating_add(1)))
    }

    /// Retires and removes every environment that is not in force. Done by itself when the table is opened and when it is
    /// replaced.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is.
    pub fn tidy(&self) -> Result<(), TableError> {
        let in_force = self.layout.current().ok();
        let mut tidied = Ok(());
        for number in self.layout.numbers()? {
            if Some(number) != in_force {
                // One that cannot be opened was never in force, or is beyond reading.
                let _ = self.retire(number);
                tidied = tidied.and(self.layout.remove(number));
            }
        }
        tidied
    }

    fn retire(&self, number: u64) -> Result<(), TableError> {
        let environment = self.environment(number)?;
        let failed = |error| TableError::heed("retire", &environment.path, error);
        let mut txn = environment.write()?;
        let header = environment.meta.get(&txn, HEADER).map_err(failed)?;
        if let Some(retired) = header.and_then(codec::retire_header) {
            environment
                .meta
                .put(&mut txn, HEADER, &retired)
                .map_err(failed)?;
            txn.commit().map_err(failed)?;
        }
        Ok(())
    }

    /// Frees the places of readers that were killed in the middle of a look, which keep space from being used again:
    /// to be called every second. Says how many there were.
    ///
    /// # Errors
    /// As LMDB fails.
    pub fn clear_stale_readers(&self) -> Result<usize, TableError> {
        self.current
            .as_ref()
            .map_or(Ok(0), |current| current.environment.clear_stale_readers())
    }
}

/// The first backends' revision of an environment. Numbers of environments rise, and no environment lives to see
/// 2^20 changes within the seconds to the next number, so no revision is used twice.
fn first_revision(number: u64) -> u64 {
    number << 20
}

/// Writes `changes` and `header` in one transaction; gives the header as written.
fn write<E>(
    environment: &Environment,
    mut header: Header,
    changes: impl IntoIterator<Item = Result<Change, E>>,
) -> Result<Header, TableError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let failed = |error| TableError::heed("write", &environment.path, error);
    let mut txn = environment.write()?;
    let mut backends_changed = false;
    let mut hosts = hosts::Changes::new(environment, header.spread);
    for change in changes {
        let change = change.map_err(|error| TableError::Source(Arc::from(error.into())))?;
        match change {
            Change::SetPlacement(placement) => header.placement = placement,
            Change::PutBackend(backend) => {
                backends_changed = true;
                put_backend(environment, &mut txn, &backend)?;
            }
            Change::DeleteBackend(id) => {
                backends_changed = true;
                environment
                    .backends
                    .delete(&mut txn, &codec::backend_key(id))
                    .map_err(failed)?;
            }
            Change::PutHost(host, site) => hosts.put(&mut txn, &host, Some(&site))?,
            Change::DeleteHost(host) => hosts.put(&mut txn, &host, None)?,
        }
    }
    header.spread = hosts.finish(&mut txn)?;
    if backends_changed {
        header.backends_revision += 1;
    }
    environment
        .meta
        .put(&mut txn, HEADER, &codec::encode_header(&header))
        .map_err(failed)?;
    txn.commit().map_err(failed)?;
    Ok(header)
}

fn put_backend(
    environment: &Environment,
    txn: &mut RwTxn<'_>,
    backend: &BackendRecord,
) -> Result<(), TableError> {
    let bytes = codec::encode_backend(backend).map_err(|what| TableError::Unstorable {
        record: format!("the backend {}", backend.id),
        what,
    })?;
    environment
        .backends
        .put(txn, &codec::backend_key(backend.id), &bytes)
        .map_err(|error| TableError::heed("write", &environment.path, error))
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("dir", &self.layout.dir)
            .field("header", &self.header())
            .finish_non_exhaustive()
    }
}
