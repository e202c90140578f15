//! Guesses a site's entry point from the files in its directory, and says why.
//!
//! `guess` only reads: a bounded part of a bounded number of files, never through a link that leads out of the directory, and
//! never runs any of them. `ImportCheck` (in `check.rs`) runs the site's own Python, as the site's user, to see that the entry point is there.

mod candidates;
mod check;
mod compile;
mod files;
mod python;
mod source;
mod tokens;
mod venv;

pub use check::{CheckError, ImportCheck};
pub use compile::{Compilation, Compiled};
pub use venv::{SYSTEM_PYTHON, VenvError, check_named as check_venv};

use crate::model::EntryPoint;
use candidates::{Candidate, Found};
use files::{Directory, Kind};
use source::Source;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a site is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framework {
    /// A project with `manage.py`.
    Django,
    /// An object of `flask.Flask`, or a factory of one.
    Flask,
    /// An object of `bottle.Bottle`.
    Bottle,
    /// `gluon` and `wsgihandler.py`.
    Web2py,
    /// Any other WSGI callable.
    Wsgi,
}

impl fmt::Display for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Django => "Django",
            Self::Flask => "Flask",
            Self::Bottle => "Bottle",
            Self::Web2py => "web2py",
            Self::Wsgi => "plain WSGI",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guess {
    /// What the site is made with.
    pub framework: Framework,
    /// The callable, in a module that is importable from the site's directory.
    pub entry: EntryPoint,
    /// Its virtualenv, below the site's directory.
    pub venv: Option<PathBuf>,
    /// What the guess was made from: `app.py line 12: app = Flask(...)`.
    pub why: String,
}

/// Why nothing was guessed.
#[derive(Debug, thiserror::Error)]
pub enum GuessError {
    /// The directory itself.
    #[error("the site's directory {directory} cannot be read: {source}")]
    Directory {
        /// As given.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing that looks like an application.
    #[error(
        "no WSGI application was found in {directory}{hint}; name it with --entry MODULE:CALLABLE, as in --entry app:application"
    )]
    Nothing {
        /// The site's directory.
        directory: PathBuf,
        /// What was seen instead, starting with a colon; or empty.
        hint: String,
    },
    /// More than one.
    #[error("{directory} has several applications; name the right one with --entry:{}", list(.candidates))]
    Several {
        /// The site's directory.
        directory: PathBuf,
        /// Entry point and reason of each.
        candidates: Vec<(EntryPoint, String)>,
    },
    /// Its virtualenv.
    #[error(transparent)]
    Venv(#[from] VenvError),
}

fn list(candidates: &[(EntryPoint, String)]) -> String {
    candidates
        .iter()
        .map(|(entry, why)| format!("\n  --entry {entry}   ({why})"))
        .collect()
}

/// Guesses the entry point of the site in `path`.
pub fn guess(path: &Path) -> Result<Guess, GuessError> {
    let unreadable = |source| GuessError::Directory {
        directory: path.to_owned(),
        source,
    };
    let directory = Directory::open(path).map_err(unreadable)?;
    let names = directory.names().map_err(unreadable)?;
    let nothing = |hint: String| GuessError::Nothing {
        directory: path.to_owned(),
        hint,
    };

    let mut candidates = match django(&directory, &names).or_else(|| web2py(&directory)) {
        Some(found) => found.map_err(nothing)?,
        None => match candidates::in_files(&directory, &names) {
            Found::Candidates(candidates) => candidates,
            Found::Nothing(hint) => {
                return Err(nothing(deeper(&directory, &names).unwrap_or(hint)));
            }
        },
    };
    if candidates.len() > 1 {
        let candidates = candidates
            .into_iter()
            .map(|candidate| (candidate.entry(), candidate.why))
            .collect();
        return Err(GuessError::Several {
            directory: path.to_owned(),
            candidates,
        });
    }
    let Some(candidate) = candidates.pop() else {
        return Err(nothing(String::new()));
    };
    Ok(Guess {
        framework: candidate.framework,
        entry: candidate.entry(),
        venv: venv::find(path, &directory)?,
        why: candidate.why,
    })
}

/// The virtualenv of the site in `path`, for an entry point that was named and need not be guessed.
pub fn find_venv(path: &Path) -> Result<Option<PathBuf>, GuessError> {
    let directory = Directory::open(path).map_err(|source| GuessError::Directory {
        directory: path.to_owned(),
        source,
    })?;
    Ok(venv::find(path, &directory)?)
}

/// A Django project: `manage.py` names the settings, `wsgi.py` lies beside them. `None`: it is not one.
fn django(directory: &Directory, names: &[String]) -> Option<Result<Vec<Candidate>, String>> {
    let manage = Source::read(&directory.read("manage.py")?);
    if manage.settings_modules.is_empty()
        && !manage
            .imports
            .iter()
            .any(|module| module.starts_with("django.core.management"))
    {
        return None;
    }
    // `shop.settings` and `shop.settings.production`: the project's package is `shop`.
    let mut packages: Vec<String> = Vec::new();
    for settings in &manage.settings_modules {
        let mut package = settings.as_str();
        while let Some((parent, _)) = package.rsplit_once('.') {
            packages.push(parent.to_owned());
            package = parent;
        }
    }
    let named = packages
        .iter()
        .find_map(|package| wsgi_of(directory, package));
    if let Some(candidate) = named {
        return Some(Ok(vec![candidate]));
    }
    let others: Vec<Candidate> = names
        .iter()
        .filter_map(|name| wsgi_of(directory, name))
        .collect();
    Some(if others.is_empty() {
        Err(": manage.py is Django's, but no package beside it has a wsgi.py with get_wsgi_application()".to_owned())
    } else {
        Ok(others)
    })
}

fn wsgi_of(directory: &Directory, package: &str) -> Option<Candidate> {
    if !package.split('.').all(candidates::is_identifier) {
        return None;
    }
    let file = format!("{}/wsgi.py", package.replace('.', "/"));
    let source = Source::read(&directory.read(&file)?);
    let binding = source.last("application").or_else(|| source.last("app"))?;
    Some(Candidate {
        framework: Framework::Django,
        module: format!("{package}.wsgi"),
        callable: binding.name.clone(),
        why: format!(
            "manage.py is Django's, {file} line {} has the application",
            binding.line
        ),
    })
}

/// A web2py: `gluon/` and its handler. `None`: it is not one.
fn web2py(directory: &Directory) -> Option<Result<Vec<Candidate>, String>> {
    if directory.kind("gluon") != Kind::Directory {
        return None;
    }
    if directory.kind("wsgihandler.py") == Kind::File {
        return Some(Ok(vec![Candidate {
            framework: Framework::Web2py,
            module: "wsgihandler".to_owned(),
            callable: "application".to_owned(),
            why: "gluon/ and wsgihandler.py are web2py's".to_owned(),
        }]));
    }
    (directory.kind("handlers/wsgihandler.py") == Kind::File).then(|| {
        Err(
            ": gluon/ is web2py's, its handler must lie beside it (cp handlers/wsgihandler.py .)"
                .to_owned(),
        )
    })
}

/// A hint if an application seems to lie one directory further down.
fn deeper(directory: &Directory, names: &[String]) -> Option<String> {
    const FILES: [&str; 4] = ["manage.py", "wsgi.py", "app.py", "wsgihandler.py"];
    let visible = names
        .iter()
        .filter(|name| !name.starts_with('.') && !venv::NAMES.contains(&name.as_str()));
    let found = visible.take(200).find_map(|name| {
        let file = FILES
            .iter()
            .map(|file| format!("{name}/{file}"))
            .find(|file| directory.kind(file) == Kind::File);
        file.map(|file| (name, file))
    });
    found.map(|(name, file)| {
        let (name, file) = (name.escape_debug(), file.escape_debug());
        format!(": there is {file}, is the subdirectory {name} the site's directory?")
    })
}

#[cfg(test)]
mod tests;
