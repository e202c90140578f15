//! Opening LMDB: the only place with `unsafe`, and the one that keeps a process to one environment per directory.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use heed::types::Bytes;
use heed::{
    Database, DatabaseOpenOptions, Env, EnvFlags, EnvOpenOptions, IntegerComparator, RoTxn, RwTxn,
    WithoutTls,
};

use crate::codec::DecodeError;
use crate::error::TableError;

/// More than the three of this format, so that a reader can open what a later one writes and say its version. Few enough for a
/// transaction, which has a place for each, to be among the small allocations that cost nothing.
const MAX_DATABASES: u32 = 8;

/// A database whose keys and values are bytes.
pub(crate) type Raw = Database<Bytes, Bytes>;

/// A database whose keys are numbers of 32 bits as the machine has them.
pub(crate) type Numbered = Database<Bytes, Bytes, IntegerComparator>;

/// Which file this is, whatever its name: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// Tells two states of the table apart: while it is equal, so is all that is read. Holds in one process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    environment: u64,
    transaction: usize,
}

/// What an environment is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write {
        /// See [`Options`](crate::Options).
        map_size: usize,
        /// The lock file gets this many readers' places if nobody has it open.
        max_readers: u32,
    },
}

/// An open environment with its databases.
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    pub(crate) meta: Raw,
    /// Buckets by their numbers, see [`crate::hosts`].
    pub(crate) hosts: Numbered,
    pub(crate) backends: Raw,
    pub(crate) path: Arc<Path>,
    pub(crate) identity: Identity,
    number: u64,
    writable: bool,
    pid: u32,
}

/// LMDB forbids opening an environment twice in a process: readers and the writer of one process share it.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Environment>>> = Mutex::new(BTreeMap::new());

/// How many environments this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Opens the environment in `path`, or gives the one this process has open.
///
/// # Errors
/// [`TableError::InUse`] if it is to be written but open for reading only; and as LMDB fails.
pub(crate) fn open(path: &Path, access: Access) -> Result<Arc<Environment>, TableError> {
    let path = path
        .canonicalize()
        .map_err(|error| TableError::io("find the table", path, error))?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|_, environment| environment.strong_count() > 0);
    let environment = match open.get(&path).and_then(Weak::upgrade) {
        Some(environment) if environment.serves(access) => return Ok(environment),
        Some(environment) => {
            return Err(TableError::InUse {
                path: Arc::clone(&environment.path),
            });
        }
        None => Arc::new(Environment::open(&path, access)?),
    };
    open.insert(path, Arc::downgrade(&environment));
    Ok(environment)
}

impl Environment {
    fn open(path: &Path, access: Access) -> Result<Self, TableError> {
        let shared: Arc<Path> = Arc::from(path);
        let failed = |error| TableError::heed("open", &shared, error);
        // Another thread may be about to close it: it has given up the last reference, but LMDB is not done.
        if let Some(closing) = heed::env_closing_event(path) {
            closing.wait_timeout(Duration::from_secs(1));
        }
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_dbs(MAX_DATABASES);
        match access {
            Access::Read => {
                // SAFETY: READ_ONLY takes abilities away; unsafe are the flags that weaken locking or syncing.
                unsafe { options.flags(EnvFlags::READ_ONLY) };
            }
            // A reader's map is as large as the file says that the writer's is.
            Access::Write {
                map_size,
                max_readers,
            } => {
                options.map_size(map_size).max_readers(max_readers);
            }
        }
        // SAFETY: The map's file is changed by LMDB only: directories are 0750 and the daemon's, a table is replaced
        // by another directory and never truncated, locking is on, and the file lies on a local file system.
        let env = unsafe { options.open(path) }.map_err(failed)?;

        let (meta, hosts, backends) = match access {
            Access::Read => existing_databases(&env, &shared)?,
            Access::Write { .. } => databases(&env).map_err(failed)?,
        };
        let data = env.try_clone_inner_file().map_err(failed)?;
        let identity = data
            .metadata()
            .map_err(|error| TableError::io("look at the table", path, error))?
            .into();
        let writable = access != Access::Read;
        Ok(Self {
            env,
            meta,
            hosts,
            backends,
            path: shared,
            identity,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            writable,
            pid: std::process::id(),
        })
    }

    fn serves(&self, access: Access) -> bool {
        self.is_ours() && (self.writable || access == Access::Read)
    }

    /// Whether it was opened by this process, not by the one it was forked from.
    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    /// What the environment held after this transaction.
    pub(crate) fn stamp(&self, transaction: usize) -> Stamp {
        Stamp {
            environment: self.number,
            transaction,
        }
    }

    /// What the environment holds now, without looking at it.
    pub(crate) fn stamp_now(&self) -> Stamp {
        self.stamp(self.env.info().last_txn_id)
    }

    /// Begins a look at the table as it is now.
    pub(crate) fn read(&self) -> Result<RoTxn<'static, WithoutTls>, TableError> {
        self.env
            .clone()
            .static_read_txn()
            .map_err(|error| TableError::heed("read", &self.path, error))
    }

    /// Begins a change of the table; waits for another one to end.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>, TableError> {
        self.env
            .write_txn()
            .map_err(|error| TableError::heed("write", &self.path, error))
    }

    /// Something in it is not what a writer puts there.
    pub(crate) fn corrupt(&self, record: String, source: DecodeError) -> TableError {
        TableError::Corrupt {
            path: Arc::clone(&self.path),
            record,
            source,
        }
    }

    /// Frees the places of readers that died; says how many.
    pub(crate) fn clear_stale_readers(&self) -> Result<usize, TableError> {
        self.env
            .clear_stale_readers()
            .map_err(|error| TableError::heed("clear the readers of", &self.path, error))
    }
}

const META: &str = "meta";
const HOSTS: &str = "hosts";
const BACKENDS: &str = "backends";

type Databases = (Raw, Numbered, Raw);

fn databases(env: &Env<WithoutTls>) -> heed::Result<Databases> {
    let mut txn = env.write_txn()?;
    let databases = (
        env.create_database(&mut txn, Some(META))?,
        numbered(env).create(&mut txn)?,
        env.create_database(&mut txn, Some(BACKENDS))?,
    );
    txn.commit()?;
    Ok(databases)
}

fn existing_databases(env: &Env<WithoutTls>, path: &Arc<Path>) -> Result<Databases, TableError> {
    let failed = |error| TableError::heed("open", path, error);
    let missing = |name| TableError::Corrupt {
        path: Arc::clone(path),
        record: format!("the database {name}"),
        source: DecodeError::Missing,
    };
    let txn = env.read_txn().map_err(failed)?;
    let raw = |name| {
        let database = env.open_database(&txn, Some(name)).map_err(failed)?;
        database.ok_or_else(|| missing(name))
    };
    let hosts = numbered(env).open(&txn).map_err(failed)?;
    let databases = (
        raw(META)?,
        hosts.ok_or_else(|| missing(HOSTS))?,
        raw(BACKENDS)?,
    );
    // Not an abort: that would close the databases again.
    txn.commit().map_err(failed)?;
    Ok(databases)
}

fn numbered(
    env: &Env<WithoutTls>,
) -> DatabaseOpenOptions<'_, '_, WithoutTls, Bytes, Bytes, IntegerComparator> {
    let mut options = env
        .database_options()
        .types::<Bytes, Bytes>()
        .key_comparator::<IntegerComparator>();
    options.name(HOSTS);
    options
}
