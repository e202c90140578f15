//! Imports a site's entry point as its user would run it, to find out now what a visitor would find out later.
//!
//! The site's code is not trusted: see `python`.

use super::python::{Python, barred};
use super::venv::SYSTEM_PYTHON;
use crate::model::EntryPoint;
use crate::visit::Room;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// What the script ends with if all is well: a site that calls `exit` while it is imported does not.
const FOUND: i32 = 87;
const SCRIPT: &str = include_str!("check_import.py");

/// An entry point to be tried.
#[derive(Debug, Clone)]
pub struct ImportCheck<'a> {
    /// The site's directory.
    pub directory: &'a Path,
    /// What is to be there.
    pub entry: &'a EntryPoint,
    /// Whose Python is used; without it the system's.
    pub venv: Option<&'a Path>,
    /// The site's uid and gid; heeded when we are root, otherwise it runs as who we are.
    pub owner: Option<(u32, u32)>,
    /// The sandbox it runs in, if there is one.
    pub room: Option<Room<'a>>,
    /// Then it is killed.
    pub timeout: Duration,
}

/// Why an entry point will not do.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The import failed, or the callable is not there.
    #[error("{entry} cannot be imported in {directory}; the last lines it wrote:\n{tail}")]
    Failed {
        /// What was tried.
        entry: EntryPoint,
        /// The site's directory.
        directory: PathBuf,
        /// Indented, printable.
        tail: String,
    },
    /// It neither failed nor came to an end.
    #[error(
        "{entry} was still being imported after {seconds} s and was stopped; the last lines it wrote:\n{tail}"
    )]
    Late {
        /// What was tried.
        entry: EntryPoint,
        /// How long.
        seconds: u64,
        /// Indented, printable.
        tail: String,
    },
    /// The whole process ended in the middle.
    #[error(
        "the process that imported {entry} ended in the middle of it ({status}); the last lines it wrote:\n{tail}"
    )]
    Ended {
        /// What was tried.
        entry: EntryPoint,
        /// How it ended.
        status: ExitStatus,
        /// Indented, printable.
        tail: String,
    },
    /// A directory on the way that the user may not enter.
    #[error(
        "uid {uid} cannot enter {directory}: the site would not find its own files; move the site, or allow it with `chmod o+x {directory}`"
    )]
    Unreachable {
        /// The site's.
        uid: u32,
        /// The first such directory.
        directory: PathBuf,
    },
    /// The user may not run the Python.
    #[error(
        "uid {uid} cannot run {python}, which leads to {target}: make the virtualenv anew with `{SYSTEM_PYTHON} -m venv`"
    )]
    Python {
        /// The site's.
        uid: u32,
        /// What was to be run.
        python: PathBuf,
        /// Where its links lead.
        target: PathBuf,
    },
    /// The process could not be started or watched.
    #[error("cannot run {program} to check the entry point: {source}")]
    Process {
        /// What was to be run.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ImportCheck<'_> {
    /// Imports the entry point in a process of its own.
    pub fn run(&self) -> Result<(), CheckError> {
        let python = self.venv.map_or_else(
            || PathBuf::from(SYSTEM_PYTHON),
            |venv| venv.join("bin/python"),
        );
        let owner = self.owner.filter(|_| rustix::process::geteuid().is_root());
        if let Some((uid, gid)) = owner {
            self.reachable(uid, gid)?;
            let target = std::fs::canonicalize(&python).unwrap_or_else(|_| python.clone());
            if barred(&target, uid, gid).is_some() {
                return Err(CheckError::Python {
                    uid,
                    python,
                    target,
                });
            }
        }
        // -B: leave no files behind.
        let mut arguments = vec!["-B", "-c", SCRIPT];
        match self.entry {
            EntryPoint::Module { module, callable } => {
                arguments.extend(["module", module, callable]);
            }
            EntryPoint::File { path, callable } => arguments.extend(["file", path, callable]),
        }
        let run = Python {
            python: &python,
            directory: self.directory,
            owner,
            room: self.room,
            timeout: self.timeout,
        };
        let (status, tail) = run.run(&arguments).map_err(|source| CheckError::Process {
            program: run.program().to_owned(),
            source,
        })?;
        let entry = self.entry.clone();
        match status {
            None => Err(CheckError::Late {
                entry,
                seconds: self.timeout.as_secs(),
                tail,
            }),
            Some(status) if status.code() == Some(FOUND) => Ok(()),
            Some(status) if status.code() == Some(1) => Err(CheckError::Failed {
                entry,
                directory: self.directory.to_owned(),
                tail,
            }),
            Some(status) => Err(CheckError::Ended {
                entry,
                status,
                tail,
            }),
        }
    }

    fn reachable(&self, uid: u32, gid: u32) -> Result<(), CheckError> {
        let directory =
            std::fs::canonicalize(self.directory).map_err(|source| CheckError::Process {
                program: self.directory.to_owned(),
                source,
            })?;
        match barred(&directory.join("."), uid, gid) {
            Some(directory) => Err(CheckError::Unreachable { uid, directory }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn check(files: &[(&str, &str)], entry: &str) -> Result<(), CheckError> {
        let site = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(site.path().join(name), text).unwrap();
        }
        let entry = EntryPoint::parse(entry).unwrap();
        let timeout =
            Duration::from_secs(if files.iter().any(|(_, text)| text.contains("sleep")) {
                1
            } else {
                60
            });
        ImportCheck {
            directory: site.path(),
            entry: &entry,
            venv: None,
            owner: None,
            room: None,
            timeout,
        }
        .run()
    }

    #[test]
    fn a_callable_a_factory_and_a_file_are_found() {
        let app = "def application(environ, start_response): return []\ndef create_app(): return application\n";
        check(&[("site_.py", app)], "site_:application").unwrap();
        check(&[("site_.py", app)], "site_:create_app()").unwrap();
        check(&[("site_.py", app)], "site_.py:application").unwrap();
    }

    #[test]
    fn a_failed_import_shows_the_end_of_its_traceback() {
        let error = check(&[("site_.py", "import no_such_module")], "site_:app")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("site_:app") && error.contains("No module named 'no_such_module'"),
            "{error}"
        );
        let error = check(&[("site_.py", "def (:")], "site_:app")
            .unwrap_err()
            .to_string();
        assert!(error.contains("SyntaxError"), "{error}");
    }

    #[test]
    fn what_is_missing_or_no_callable_is_named() {
        let error = check(&[("site_.py", "application = 1")], "site_:app")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("site_ has no 'app'; it has: application"),
            "{error}"
        );
        let error = check(&[("site_.py", "app = 1")], "site_:app")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("site_:app is of type int: it cannot be called"),
            "{error}"
        );
    }

    #[test]
    fn a_site_that_ends_hangs_or_floods_is_told_from_a_good_one() {
        let ended = check(&[("site_.py", "import os; os._exit(0)")], "site_:app").unwrap_err();
        assert!(matches!(ended, CheckError::Ended { .. }), "{ended}");
        let late = check(
            &[(
                "site_.py",
                "import time, os\nif os.fork(): time.sleep(600)\ntime.sleep(600)",
            )],
            "site_:app",
        )
        .unwrap_err();
        assert!(matches!(late, CheckError::Late { .. }), "{late}");
        let endless = "import sys # as long as a sleep\nwhile True: sys.stderr.write('x' * 65536)";
        let endless = check(&[("site_.py", endless)], "site_:app").unwrap_err();
        assert!(matches!(endless, CheckError::Late { .. }), "{endless}");
        let flood = "import sys\nfor _ in range(100): sys.stderr.write('\\x1b[31m' + 'x' * 99999 + '\\n')\nraise SystemExit('enough')";
        let flood = check(&[("site_.py", flood)], "site_:app")
            .unwrap_err()
            .to_string();
        assert!(
            flood.len() < 16 * 1024 && flood.contains("enough") && !flood.contains('\x1b'),
            "{} bytes",
            flood.len()
        );
    }

    #[test]
    fn a_directory_that_its_user_cannot_enter_is_named() {
        let site = tempfile::tempdir().unwrap();
        let closed = site.path().join("closed");
        std::fs::create_dir_all(closed.join("site")).unwrap();
        std::fs::set_permissions(site.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        let (uid, gid) = (4_000_001, 4_000_001);
        assert_eq!(
            barred(&closed.join("site/."), uid, gid),
            Some(closed.clone())
        );
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o711)).unwrap();
        assert_eq!(barred(&closed.join("site/."), uid, gid), None);
    }

    #[test]
    fn as_root_the_import_runs_as_the_sites_user() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let site = tempfile::tempdir().unwrap();
        std::fs::set_permissions(site.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let text = "import os\nassert (os.getuid(), os.getgid(), os.getgroups()) == (234567, 234568, []), os.getuid()\n\
            assert set(os.environ) <= {'PATH', 'LANG', 'HOME', 'LC_CTYPE'}, os.environ\ndef app(e, s): return []\n";
        std::fs::write(site.path().join("site_.py"), text).unwrap();
        let entry = EntryPoint::parse("site_:app").unwrap();
        let check = ImportCheck {
            directory: site.path(),
            entry: &entry,
            venv: None,
            owner: Some((234_567, 234_568)),
            room: None,
            timeout: Duration::from_secs(60),
        };
        check.run().unwrap();
    }
}
