//! The table's directory on disk: numbered environments, the symlink `current`, and who may do what with them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::Identity;
use crate::error::TableError;

const CURRENT: &str = "current";
const DATA: &str = "data.mdb";
const LOCK: &str = "lock.mdb";

/// A table's directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: Arc<Path>,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: Arc::from(dir),
        }
    }

    /// Where the environment with this number is.
    pub(crate) fn environment(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// The number of the environment in force.
    ///
    /// # Errors
    /// [`TableError::Missing`] if there is none.
    pub(crate) fn current(&self) -> Result<u64, TableError> {
        let link = self.dir.join(CURRENT);
        let missing = || TableError::Missing {
            dir: Arc::clone(&self.dir),
        };
        let target = fs::read_link(&link).map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(),
            _ => TableError::io("read the link", link, error),
        })?;
        number(target.as_os_str().as_encoded_bytes()).ok_or_else(missing)
    }

    /// Which file the table in force is, if there is one.
    pub(crate) fn current_identity(&self) -> Option<Identity> {
        fs::metadata(self.dir.join(CURRENT).join(DATA))
            .ok()
            .map(Identity::from)
    }

    /// The numbers of all environments that lie here, in force or not.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>, TableError> {
        let failed = |error| TableError::io("list", &*self.dir, error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            numbers.extend(number(
                entry.map_err(failed)?.file_name().as_encoded_bytes(),
            ));
        }
        Ok(numbers)
    }

    /// Makes the table's own directory, if it is not there.
    pub(crate) fn create(&self, group: Option<u32>) -> Result<(), TableError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.dir)
            .map_err(|error| TableError::io("create", &*self.dir, error))?;
        admit(&self.dir, 0o750, group)
    }

    /// Makes an empty directory for a new environment.
    pub(crate) fn create_environment(&self, number: u64) -> Result<(), TableError> {
        let path = self.environment(number);
        DirBuilder::new()
            .mode(0o750)
            .create(&path)
            .map_err(|error| TableError::io("create", &path, error))
    }

    /// Lets nginx's group read an environment, and enter itself among its readers.
    pub(crate) fn admit_readers(&self, number: u64, group: Option<u32>) -> Result<(), TableError> {
        let path = self.environment(number);
        admit(&path.join(DATA), 0o640, group)?;
        admit(&path.join(LOCK), 0o660, group)?;
        admit(&path, 0o750, group)
    }

    /// Puts a complete environment in force: until this returns the old one is, whatever happens.
    pub(crate) fn switch(&self, number: u64) -> Result<(), TableError> {
        sync(&self.environment(number))?;
        sync(&self.dir)?;
        let (new, link) = (self.dir.join(".current.new"), self.dir.join(CURRENT));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TableError::io("remove", new, error));
            }
            _ => {}
        }
        symlink(number.to_string(), &new)
            .map_err(|error| TableError::io("create the link", &new, error))?;
        fs::rename(&new, &link)
            .map_err(|error| TableError::io("replace the link", &link, error))?;
        sync(&self.dir)
    }

    /// Removes an environment that is not in force. Readers that have it mapped keep it until they let go.
    pub(crate) fn remove(&self, number: u64) -> Result<(), TableError> {
        let path = self.environment(number);
        // The data goes first: whoever finds data may rely on the lock file it belongs to.
        match fs::remove_file(path.join(DATA)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(TableError::io("remove", path.join(DATA), error));
            }
            _ => {}
        }
        fs::remove_dir_all(&path).map_err(|error| TableError::io("remove", path, error))
    }
}

/// The number a directory is named by, written the one way numbers are written.
fn number(name: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(name).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == name).then_some(number)
}

fn admit(path: &Path, mode: u32, group: Option<u32>) -> Result<(), TableError> {
    if group.is_some() {
        chown(path, None, group)
            .map_err(|error| TableError::io("give nginx's group", path, error))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| TableError::io("set the permissions of", path, error))
}

fn sync(dir: &Path) -> Result<(), TableError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| TableError::io("sync", dir, error))
}

/// Takes the right to write the table in `dir`; it lasts as long as the file that is returned.
pub(crate) fn lock(dir: &Arc<Path>) -> Result<File, TableError> {
    use rustix::fs::{FlockOperation, flock};
    let file = File::open(dir).map_err(|error| TableError::io("open", &**dir, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(TableError::Busy {
            dir: Arc::clone(dir),
        }),
        Err(error) => Err(TableError::io("lock", &**dir, io::Error::from(error))),
    }
}
