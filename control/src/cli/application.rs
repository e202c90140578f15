//! Where a new site's application is: as it was named, or guessed from its files; and whether it can be imported.
use super::CliError;
use super::machine::{Machine, note};
use super::user::user_of;
use crate::guess::{Compilation, Compiled, ImportCheck, check_venv, find_venv, guess};
use crate::model::{AbsolutePath, EntryPoint, UserName};
use crate::visit::{Room, Tenant};
use std::path::PathBuf;
use std::time::Duration;

/// Compiling is a help for the next visitor, not worth more of the operator's time.
const COMPILE_WITHIN: Duration = Duration::from_secs(20);

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

/// Imports it as its owner, in the owner's own Python and in a sandbox like the site's: what fails now would fail at every visit.
pub(super) fn check(
    machine: &Machine,
    tenant: Tenant<'_>,
    entry: &EntryPoint,
) -> Result<(), CliError> {
    let uid = uid_of(machine, tenant.user)?;
    let check = ImportCheck {
        directory: tenant.directory.as_path(),
        entry,
        venv: tenant.venv.map(AbsolutePath::as_path),
        owner: Some((uid, uid)),
        room: Room::of(&machine.settings, tenant),
        timeout: machine.settings.backend.start_timeout.duration(),
    };
    check.run().map_err(|error| {
        CliError::Other(format!("{error}\n(--no-check adds the site all the same)"))
    })
}

/// Compiles its Python files as its owner, so that its next visitor does not wait for that.
pub(super) fn compile(machine: &Machine, tenant: Tenant<'_>) -> Result<(), CliError> {
    let uid = uid_of(machine, tenant.user)?;
    let directory = tenant.directory;
    let compilation = Compilation {
        directory: directory.as_path(),
        venv: tenant.venv.map(AbsolutePath::as_path),
        owner: (uid, uid),
        room: Room::of(&machine.settings, tenant),
        timeout: COMPILE_WITHIN,
    };
    match compilation.run() {
        Ok(Compiled::All | Compiled::Some) => {}
        Ok(Compiled::Late) => note(&format!(
            "compiling the files of {directory} took longer than {} s; what is left is compiled when it is imported",
            COMPILE_WITHIN.as_secs()
        )),
        Err(problem) => note(&format!(
            "the files of {directory} are not compiled: {problem}"
        )),
    }
    Ok(())
}

fn uid_of(machine: &Machine, user: &UserName) -> Result<u32, CliError> {
    let owner = user_of(&*machine.registry()?.view()?, user)?;
    Ok(owner.uid.get())
}
