//! Finds a site's virtualenv and sees that uWSGI can use it.
//!
//! uWSGI's Python plugin is linked with the distribution's Python. A virtualenv only adds packages to it, so one that was
//! made with another minor version would leave the site without any: that is refused here, not found out by a visitor.

use super::files::{Directory, Kind};
use std::path::{Path, PathBuf};

/// Where a virtualenv is looked for, in this order.
pub const NAMES: [&str; 3] = [".venv", "venv", "env"];

/// The Python that uWSGI's plugin is linked with.
pub const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// Why a virtualenv cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VenvError {
    /// Its packages are for another Python.
    #[error(
        "the virtualenv {venv} was made with Python {found}, uWSGI runs Python {system}: make it anew with `{SYSTEM_PYTHON} -m venv`, and install the site's packages into it"
    )]
    OtherPython {
        /// Its directory.
        venv: PathBuf,
        /// As it says itself: `3.12`.
        found: String,
        /// That of `/usr/bin/python3`.
        system: String,
    },
    /// A link away from the site.
    #[error(
        "{venv} is a link that leads out of the site's directory: make a virtualenv in the directory, or name that one with --venv"
    )]
    Outside {
        /// The link.
        venv: PathBuf,
    },
    /// A directory without `pyvenv.cfg`, named by the operator.
    #[error(
        "{venv} is no virtualenv: it has no readable pyvenv.cfg; make one with `{SYSTEM_PYTHON} -m venv {venv}`"
    )]
    NotOne {
        /// The directory.
        venv: PathBuf,
    },
    /// No system Python, or one of an unknown kind.
    #[error(
        "{SYSTEM_PYTHON} does not say its version: install the packages python3 and uwsgi-plugin-python3"
    )]
    NoSystemPython,
}

/// The virtualenv in a site's directory, if there is one; checked.
pub fn find(path: &Path, directory: &Directory) -> Result<Option<PathBuf>, VenvError> {
    for name in NAMES {
        if directory.kind(name) == Kind::Outside {
            return Err(VenvError::Outside {
                venv: path.join(name),
            });
        }
        if let Some(settings) = directory.read(&format!("{name}/pyvenv.cfg")) {
            let venv = path.join(name);
            check(
                &venv,
                &settings,
                &system_version().ok_or(VenvError::NoSystemPython)?,
            )?;
            return Ok(Some(venv));
        }
    }
    Ok(None)
}

/// Checks a virtualenv that the operator named.
pub fn check_named(venv: &Path) -> Result<(), VenvError> {
    let settings = Directory::open(venv)
        .ok()
        .and_then(|directory| directory.read("pyvenv.cfg"));
    let settings = settings.ok_or_else(|| VenvError::NotOne {
        venv: venv.to_owned(),
    })?;
    check(
        venv,
        &settings,
        &system_version().ok_or(VenvError::NoSystemPython)?,
    )
}

fn check(venv: &Path, settings: &str, system: &str) -> Result<(), VenvError> {
    let found = made_with(settings).unwrap_or_else(|| "of an unknown version".to_owned());
    if found == system {
        return Ok(());
    }
    Err(VenvError::OtherPython {
        venv: venv.to_owned(),
        found,
        system: system.to_owned(),
    })
}

/// `3.11` from the `version = 3.11.2` of a `pyvenv.cfg` (`version_info` is virtualenv's and uv's word).
fn made_with(settings: &str) -> Option<String> {
    settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        matches!(key.trim(), "version" | "version_info").then(|| minor(value.trim()))?
    })
}

/// The first two numbers of a version.
fn minor(version: &str) -> Option<String> {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    let number =
        |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (number(major) && number(minor)).then(|| format!("{major}.{minor}"))
}

/// The minor version of [`SYSTEM_PYTHON`]: the name that the distribution's link leads to (`python3.11`).
fn system_version() -> Option<String> {
    let target = std::fs::canonicalize(SYSTEM_PYTHON).ok()?;
    minor(target.file_name()?.to_str()?.strip_prefix("python")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtualenv_of_the_system_python_is_found() {
        let system = system_version().expect("this machine has a system Python");
        let site = tempfile::tempdir().unwrap();
        let directory = Directory::open(site.path()).unwrap();
        assert!(find(site.path(), &directory).unwrap().is_none());
        std::fs::create_dir(site.path().join("venv")).unwrap();
        assert!(
            find(site.path(), &directory).unwrap().is_none(),
            "a directory of that name is not enough"
        );
        std::fs::write(
            site.path().join("venv/pyvenv.cfg"),
            format!("home = /usr/bin\nversion = {system}.99\n"),
        )
        .unwrap();
        assert_eq!(
            find(site.path(), &directory).unwrap(),
            Some(site.path().join("venv"))
        );
        check_named(&site.path().join("venv")).unwrap();
    }

    #[test]
    fn a_virtualenv_of_another_python_is_refused_by_name() {
        let site = tempfile::tempdir().unwrap();
        std::fs::create_dir(site.path().join(".venv")).unwrap();
        std::fs::write(
            site.path().join(".venv/pyvenv.cfg"),
            "version_info = 2.7.18.final.0\n",
        )
        .unwrap();
        let error = find(site.path(), &Directory::open(site.path()).unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Python 2.7,") && error.contains("/usr/bin/python3 -m venv"),
            "{error}"
        );
    }

    #[test]
    fn a_link_out_of_the_site_is_not_followed() {
        let site = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("pyvenv.cfg"), "version = 3.11.2\n").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), site.path().join(".venv")).unwrap();
        let error = find(site.path(), &Directory::open(site.path()).unwrap()).unwrap_err();
        assert!(matches!(error, VenvError::Outside { .. }), "{error}");
    }
}
