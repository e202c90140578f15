//! A clock that some processes have and others have not: what they call the time of day is set, and the time that passes is not, as
//! when somebody sets the clock of a machine.

use std::fs;
use std::path::{Path, PathBuf};

/// As a package of the distribution has it.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// Set by a file that the processes read again and again.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    ///
    /// # Panics
    /// When its file cannot be written.
    #[must_use]
    pub fn new(directory: &Path) -> Clock {
        let file = directory.join("clock");
        let clock = Clock { file };
        clock.set(0);
        clock
    }

    /// What a process that goes by it has in its environment.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let file = self.file.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Of files it says what the kernel says.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
    }

    /// So many seconds beside the true time.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn set(&self, seconds: i64) {
        let draft = self.file.with_extension("new");
        fs::write(&draft, format!("{seconds:+}\n")).expect("it is ours");
        fs::rename(draft, &self.file).expect("it is ours");
    }
}
