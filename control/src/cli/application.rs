//! Where a new site's application is: as it was named, or guessed from its files; and whether it can be imported.
use super::CliError;
use super::machine::{Machine, note};
use crate::guess::{ImportCheck, check_venv, find_venv, guess};
use crate::model::{AbsolutePath, EntryPoint, UserName};
use std::path::{Path, PathBuf};

/// Where a site's application is.
#[derive(Debug)]
pub(super) struct Found {
    pub entry: EntryPoint,
    pub venv: Option<AbsolutePath>,
}

/// The application of the site in `directory`: what is not named is guessed, and the guess is told. A virtualenv in the
/// directory is the site's also when the entry point is named.
pub(super) fn find(
    directory: &AbsolutePath,
    entry: Option<EntryPoint>,
    venv: Option<AbsolutePath>,
) -> Result<Found, CliError> {
    if let Some(venv) = &venv {
        check_venv(venv.as_path())?;
    }
    if let Some(entry) = entry {
        let venv = match venv {
            Some(named) => Some(named),
            None => absolute(find_venv(directory.as_path())?)?,
        };
        return Ok(Found { entry, venv });
    }
    let guess = guess(directory.as_path())?;
    let venv = match venv {
        Some(named) => Some(named),
        None => absolute(guess.venv)?,
    };
    let python = venv
        .as_ref()
        .map_or_else(String::new, |venv| format!(", virtualenv {venv}"));
    note(&format!(
        "it looks like {}: entry point {}{python} ({})",
        guess.framework, guess.entry, guess.why
    ));
    Ok(Found {
        entry: guess.entry,
        venv,
    })
}

/// The virtualenv of a site that runs a command: as named, or the one in its directory.
pub(super) fn venv(
    directory: &AbsolutePath,
    venv: Option<AbsolutePath>,
) -> Result<Option<AbsolutePath>, CliError> {
    match venv {
        Some(venv) => {
            check_venv(venv.as_path())?;
            Ok(Some(venv))
        }
        None => absolute(find_venv(directory.as_path())?),
    }
}

fn absolute(path: Option<PathBuf>) -> Result<Option<AbsolutePath>, CliError> {
    let path = path.map(|path| AbsolutePath::parse(&path.to_string_lossy()));
    Ok(path.transpose()?)
}

/// Imports it as its owner, in the owner's own Python: what fails now would fail at every visit.
pub(super) fn check(
    machine: &Machine,
    user: &UserName,
    directory: &Path,
    application: &Found,
) -> Result<(), CliError> {
    let owner = machine.registry()?.view()?.user(user)?;
    let uid = owner
        .ok_or_else(|| CliError::missing("user", user))?
        .uid
        .get();
    let check = ImportCheck {
        directory,
        entry: &application.entry,
        venv: application.venv.as_ref().map(AbsolutePath::as_path),
        owner: Some((uid, uid)),
        timeout: machine.settings.backend.start_timeout.duration(),
    };
    check.run().map_err(|error| {
        CliError::Other(format!("{error}\n(--no-check adds the site all the same)"))
    })
}
