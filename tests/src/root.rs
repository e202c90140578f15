//! A test's own directory and ports; its end cleans up, a panic shows the logs first.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use crate::ports::Ports;
use crate::process;

/// How much of each log a failing test prints.
const TAIL: usize = 6_000;

/// A short temporary directory, readable to every user (nginx's workers and sites have others).
///
/// Declare it before what runs in it: Rust drops in reverse order.
#[derive(Debug)]
pub struct Root {
    directory: Option<TempDir>,
    path: PathBuf,
    ports: RefCell<Ports>,
}

impl Default for Root {
    fn default() -> Self {
        Root::new()
    }
}

impl Root {
    /// Makes the directory and locks the ports.
    ///
    /// # Panics
    /// When that cannot be done.
    #[must_use]
    pub fn new() -> Root {
        process::adopt_orphans();
        let directory = tempfile::Builder::new()
            .prefix("pt")
            .tempdir_in("/tmp")
            .expect("a directory can be made in /tmp");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        let path = directory.path().to_path_buf();
        Root {
            directory: Some(directory),
            path,
            ports: RefCell::new(Ports::lock()),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path under the directory.
    #[must_use]
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path.join(relative)
    }

    /// Writes a file (and the directories above it), readable to all.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn write(&self, relative: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(relative);
        let parent = path.parent().expect("a file lies in a directory");
        fs::create_dir_all(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A port that is this test's own.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.borrow_mut().take()
    }

    /// The first of `count` ports in a row, all this test's own.
    #[must_use]
    pub fn ports(&self, count: u16) -> u16 {
        self.ports.borrow_mut().take_run(count)
    }

    /// What runs under this root now.
    #[must_use]
    pub fn processes(&self) -> Vec<process::Seen> {
        process::under(&self.path)
    }

    fn print_logs(&self) {
        let mut logs = Vec::new();
        find_logs(&self.path, 0, &mut logs);
        logs.sort();
        for log in logs {
            let Ok(bytes) = fs::read(&log) else { continue };
            if bytes.is_empty() {
                continue;
            }
            let start = bytes.len().saturating_sub(TAIL);
            let cut = if start > 0 { "(the end of it)" } else { "" };
            let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
            eprintln!("---- {} {cut}\n{}", log.display(), text.trim_end());
        }
    }
}

/// Files that end in `.log` or are the daemon's output; not deeper than a platform's own tree.
fn find_logs(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth < 7 {
            find_logs(&path, depth + 1, found);
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "log") {
            found.push(path);
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
        }
        process::kill_leftovers(&self.path);
        if std::env::var_os("PAAS_TEST_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}
