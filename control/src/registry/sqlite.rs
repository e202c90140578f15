//! The registry in one SQLite file: WAL, foreign keys, durable commits, migrations counted in `user_version`.
mod edit;
mod limits;
mod rows;
mod view;

use super::{Edit, Registry, RegistryError, Result, View};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every migration once, in order; a file at version n has had the first n.
const MIGRATIONS: [&str; 5] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
];
/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(15);
/// How many changes the log keeps at least: whoever is further behind reads everything again.
pub const KEPT_CHANGES: u64 = 100_000;

/// An open registry file.
pub struct Sqlite {
    connection: Connection,
    kept: u64,
}

impl Sqlite {
    /// Opens `path`, makes it (mode 0600) if it is not there, and brings it to this program's version.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |why: String| RegistryError::Open {
            path: path.to_owned(),
            why,
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|e| failed(format!("{}: {e}", parent.display())))?;
        }
        let new = !path.exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(path, flags).map_err(|e| failed(e.to_string()))?;
        if new {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                .map_err(|e| failed(e.to_string()))?;
        }
        Self::prepared(connection, path)
    }

    /// Opens `path` if it is there, and brings it to this program's version.
    pub(super) fn open_existing(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        Self::prepared(connection, path)
    }

    fn prepared(connection: Connection, path: &Path) -> Result<Self> {
        Self::prepare(connection, path).map_err(|error| match error {
            RegistryError::Database(error) => RegistryError::Open {
                path: path.to_owned(),
                why: error.to_string(),
            },
            other => other,
        })
    }

    /// Opens a copy that [`Sqlite::copy_into`] made, for reading.
    pub(super) fn open_copy(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Of another version it would have to be written to: then this fails.
        migrate(&mut connection, path.to_owned())?;
        Ok(Self {
            connection,
            kept: KEPT_CHANGES,
        })
    }

    /// Writes one consistent state of all of it into an empty file.
    pub(super) fn copy_into(&self, path: &Path) -> Result<()> {
        let path = path.to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", [&*path])?;
        Ok(())
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Self> {
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        migrate(&mut connection, path.to_owned())?;
        Ok(Self {
            connection,
            kept: KEPT_CHANGES,
        })
    }

    /// The same registry with a log of that many changes: for tests.
    pub fn keeping(self, changes: u64) -> Self {
        Self {
            kept: changes,
            ..self
        }
    }
}

fn migrate(connection: &mut Connection, path: PathBuf) -> Result<()> {
    let version = |connection: &Connection| {
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, usize>(0))
    };
    if version(connection)? == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let Some(missing) = MIGRATIONS.get(found..) else {
        let why = format!(
            "it is of version {found}, this paasctl knows {}; install the newer paasctl",
            MIGRATIONS.len()
        );
        return Err(RegistryError::Open { path, why });
    };
    if found == 0
        && transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })? > 0
    {
        return Err(RegistryError::Open {
            path,
            why: "it is an SQLite file of something else".to_owned(),
        });
    }
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    transaction.commit()?;
    Ok(())
}

/// A transaction on the file: deferred for views, immediate for edits.
pub(super) struct Session<'a> {
    transaction: Transaction<'a>,
    kept: u64,
}

impl Sqlite {
    fn session(&mut self, behavior: TransactionBehavior) -> Result<Session<'_>> {
        Ok(Session {
            kept: self.kept,
            transaction: self.connection.transaction_with_behavior(behavior)?,
        })
    }
}

impl Registry for Sqlite {
    fn view(&mut self) -> Result<Box<dyn View + '_>> {
        Ok(Box::new(self.session(TransactionBehavior::Deferred)?))
    }

    fn edit(&mut self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(self.session(TransactionBehavior::Immediate)?))
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
