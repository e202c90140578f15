//! `paasctl`, as an operator types it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::build;

/// What a command did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it succeeded.
    pub success: bool,
    /// Its exit code.
    pub code: Option<i32>,
    /// Its answer.
    pub out: String,
    /// What it had to say about it.
    pub err: String,
}

/// `paasctl --root DIR`.
#[derive(Clone, Debug)]
pub struct Paasctl {
    root: PathBuf,
}

impl Paasctl {
    /// For the machine below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Paasctl {
        Paasctl {
            root: root.to_path_buf(),
        }
    }

    /// The machine's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The command, not started yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(build::program("paasctl"));
        command
            .arg("--root")
            .arg(&self.root)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self
            .command(arguments)
            .output()
            .expect("paasctl can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome {
            success: output.status.success(),
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Runs a command that has to succeed; answers its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert!(
            outcome.success,
            "paasctl {} failed: {}{}",
            arguments.join(" "),
            outcome.out,
            outcome.err
        );
        outcome.out
    }

    /// Runs a command that has to be refused; answers its words. Refused is not crashed: a message, no panic.
    ///
    /// # Panics
    /// When it succeeds or panics.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert!(
            !outcome.success,
            "paasctl {} was not refused: {}",
            arguments.join(" "),
            outcome.out
        );
        assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
        assert!(
            !outcome.err.trim().is_empty(),
            "paasctl {} says nothing",
            arguments.join(" ")
        );
        outcome.err
    }
}
