//! Compiles a site's Python files to bytecode, so that its first visitor does not wait for that.
//!
//! A help, never a condition: what cannot be compiled is compiled, or fails, when it is imported.

use super::python::Python;
use super::venv::SYSTEM_PYTHON;
use crate::visit::Room;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Not the site's own code: what is installed is compiled by its installer, and some of it never is.
const NOT_THESE: &str = r"/(site-packages|node_modules|\.git|\.hg|\.venv|venv)/";
/// Standard output is nobody's here: the compiler's complaints are counted by its exit code.
const SCRIPT: &str = "import compileall, re, sys\n\
    sys.exit(0 if compileall.compile_dir('.', quiet=2, rx=re.compile(sys.argv[1])) else 1)";

/// A directory to be compiled.
#[derive(Debug, Clone)]
pub struct Compilation<'a> {
    /// The site's directory.
    pub directory: &'a Path,
    /// Whose Python is used; without it the system's.
    pub venv: Option<&'a Path>,
    /// The site's uid and gid, heeded when we are root.
    pub owner: (u32, u32),
    /// The sandbox it runs in, if there is one.
    pub room: Option<Room<'a>>,
    /// Then it is stopped.
    pub timeout: Duration,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiled {
    /// Everything.
    All,
    /// Some files are no Python of this version, or their directory is not the user's to write.
    Some,
    /// As much as there was time for.
    Late,
}

impl Compilation<'_> {
    /// Compiles, in a process of its own.
    pub fn run(&self) -> io::Result<Compiled> {
        let python = self.venv.map_or_else(
            || PathBuf::from(SYSTEM_PYTHON),
            |venv| venv.join("bin/python"),
        );
        let run = Python {
            python: &python,
            directory: self.directory,
            owner: Some(self.owner).filter(|_| rustix::process::geteuid().is_root()),
            room: self.room,
            timeout: self.timeout,
        };
        Ok(match run.run(&["-c", SCRIPT, NOT_THESE])?.0 {
            Some(status) if status.success() => Compiled::All,
            Some(_) => Compiled::Some,
            None => Compiled::Late,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    #[test]
    fn a_site_is_compiled_as_its_user_and_a_broken_file_stops_nothing() {
        let site = tempfile::tempdir().unwrap();
        let owner = match rustix::process::geteuid().is_root() {
            true => (234_567, 234_568),
            false => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        };
        for (name, text) in [
            ("a.py", "x = 1"),
            ("b.py", "def (:"),
            ("venv/c.py", "x = 1"),
        ] {
            let path = site.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::set_permissions(site.path(), PermissionsExt::from_mode(0o755)).unwrap();
        chown(site.path(), Some(owner.0), Some(owner.1)).unwrap();
        let compile = Compilation {
            directory: site.path(),
            venv: None,
            owner,
            room: None,
            timeout: Duration::from_secs(60),
        };
        assert_eq!(compile.run().unwrap(), Compiled::Some);
        let made: Vec<_> = std::fs::read_dir(site.path().join("__pycache__"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(made[0].metadata().unwrap().uid(), owner.0);
        assert!(!site.path().join("venv/__pycache__").exists());
        std::fs::remove_file(site.path().join("b.py")).unwrap();
        assert_eq!(compile.run().unwrap(), Compiled::All);
    }
}
