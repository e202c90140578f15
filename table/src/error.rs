//! What can go wrong with the table, for the operator to read.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::{DecodeError, FORMAT};

/// What went wrong with the table. Cheap to clone: a reader gives the error of a failed open to everyone who asks
/// until it tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// There is no table (yet).
    #[error("there is no table in {}: is `paasctl serve` running on this machine, and has it been able to read the registry?", .dir.display())]
    Missing {
        /// The table's directory.
        dir: Arc<Path>,
    },
    /// The table was written by another version of the platform.
    #[error("the table {} has format {found}, this program reads format {FORMAT}: run the same version of `paasctl serve` and of the nginx module", .path.display())]
    Version {
        /// The environment's directory.
        path: Arc<Path>,
        /// The format found.
        found: u16,
    },
    /// Something in the table is not what a writer puts there.
    #[error("the table {} is damaged: {record} {source}; remove the directory's content and restart `paasctl serve`, which builds it anew", .path.display())]
    Corrupt {
        /// The environment's directory.
        path: Arc<Path>,
        /// Which record.
        record: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A system call failed.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: Arc<io::Error>,
    },
    /// LMDB refused.
    #[error("cannot {doing} the table {}: {source}", .path.display())]
    Lmdb {
        /// What was tried.
        doing: &'static str,
        /// The environment's directory.
        path: Arc<Path>,
        /// What LMDB says.
        source: heed::MdbError,
    },
    /// This process has the environment open in a way that excludes this one.
    #[error("this process has the table {} open already: open the writer before any reader", .path.display())]
    InUse {
        /// The environment's directory.
        path: Arc<Path>,
    },
    /// Another process writes the table.
    #[error("another process writes the table {}: only one `paasctl serve` may run for it", .dir.display())]
    Busy {
        /// The table's directory.
        dir: Arc<Path>,
    },
    /// The table holds more than it is asked to become by [`apply`](crate::Writer::apply).
    #[error("the table holds generation {holds}, which is later than {given}: rebuild it")]
    Backwards {
        /// The generation it holds.
        holds: u64,
        /// The generation given.
        given: u64,
    },
    /// A record does not fit.
    #[error("{record} cannot be stored: {what}")]
    Unstorable {
        /// Which record.
        record: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The source of the changes failed.
    #[error("the table was not changed, its source failed: {0}")]
    Source(Arc<dyn Error + Send + Sync>),
}

impl TableError {
    /// Whether the table that was to be changed is to blame, so that one built anew would take the change.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use heed::MdbError::{Corrupted, PageNotFound};
        match self {
            Self::Corrupt { .. } | Self::Unstorable { .. } => true,
            Self::Lmdb { source, .. } => matches!(source, Corrupted | PageNotFound),
            _ => false,
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            doing,
            path: path.into(),
            source: Arc::new(source.into()),
        }
    }

    /// From what LMDB's binding says.
    pub(crate) fn heed(doing: &'static str, path: &Arc<Path>, error: heed::Error) -> Self {
        let path = Arc::clone(path);
        match error {
            heed::Error::Io(source) => Self::io(doing, &*path, source),
            heed::Error::Mdb(source) => Self::Lmdb {
                doing,
                path,
                source,
            },
            heed::Error::EnvAlreadyOpened => Self::InUse { path },
            // Keys and values are bytes: nothing is encoded by the binding.
            heed::Error::Encoding(source) | heed::Error::Decoding(source) => {
                Self::Source(Arc::from(source))
            }
        }
    }
}
