//! The one place that writes rendered configuration. `generations/N/` are whole trees, never changed once they have
//! their name; `current` is a link to the one in force and moves only to a tree that nginx has accepted. Whatever
//! fails, and whenever the machine stops, the old one stays. Snippets may hold secrets: a tree is its owner's.
use crate::files;
use crate::nginx::{self, NginxError};
use crate::render::Rendered;
use crate::settings::Settings;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How many generations are kept, the one in force included.
const KEPT: usize = 10;

/// Why nothing new is in force.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Files {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// nginx said no.
    #[error(transparent)]
    Nginx(#[from] NginxError),
}

type Result<T, E = GenerationError> = std::result::Result<T, E>;

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GenerationError {
    let path = path.to_owned();
    move |source| GenerationError::Files {
        doing,
        path,
        source,
    }
}

/// What became of a rendered tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The one in force is equal to it.
    Unchanged {
        /// Its number.
        generation: u64,
    },
    /// It is in force now.
    Switched {
        /// Its number.
        generation: u64,
        /// Names of files that are new, changed or gone.
        changed: Vec<String>,
        /// What nginx warned of.
        warnings: String,
    },
}

/// The files of a tree by name.
pub type Tree = BTreeMap<String, String>;

/// The generations of one machine.
#[derive(Debug)]
pub struct Generations<'a> {
    settings: &'a Settings,
    directory: PathBuf,
    current: PathBuf,
}

impl<'a> Generations<'a> {
    /// Those of the machine.
    pub fn of(settings: &'a Settings) -> Self {
        Self {
            settings,
            directory: settings.paths().generations(),
            current: settings.paths().current(),
        }
    }

    /// The one in force and its files; none if there is none.
    pub fn live(&self) -> Result<Option<(u64, Tree)>> {
        let target = match std::fs::read_link(&self.current) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read the link", &self.current)(error)),
        };
        let number = target
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        let Some(number) = number else {
            return Ok(None);
        };
        let directory = self.directory.join(target.file_name().unwrap_or_default());
        match read_tree(&directory) {
            Ok(tree) => Ok(Some((number, tree))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &directory)(error)),
        }
    }

    /// Asks nginx about a rendered tree, and changes nothing. Answers its warnings.
    pub fn check(&self, rendered: &Rendered) -> Result<String> {
        nginx::prepare(self.settings)?;
        let stage = tempfile::Builder::new()
            .prefix("paas-check-")
            .tempdir()
            .map_err(failed("make a directory in", &std::env::temp_dir()))?;
        write_tree(stage.path(), &rendered.files)?;
        Ok(nginx::test(self.settings, stage.path())?)
    }

    /// Puts a rendered tree in force, if nginx accepts it.
    pub fn put(&self, rendered: &Rendered) -> Result<Outcome> {
        nginx::prepare(self.settings)?;
        std::fs::create_dir_all(&self.directory)
            .map_err(failed("make the directory", &self.directory))?;
        let _only_one = self.lock()?;
        let live = self.live()?;
        if let Some((generation, _)) = live.as_ref().filter(|(_, tree)| *tree == rendered.files) {
            return Ok(Outcome::Unchanged {
                generation: *generation,
            });
        }
        let numbers = self.numbers()?;
        let generation = numbers.last().map_or(1, |last| last + 1);

        let stage = tempfile::Builder::new()
            .prefix(".stage-")
            .tempdir_in(&self.directory)
            .map_err(failed("make a directory in", &self.directory))?;
        write_tree(stage.path(), &rendered.files)?;
        let warnings = nginx::test(self.settings, stage.path())?;

        let place = self.directory.join(generation.to_string());
        std::fs::set_permissions(stage.path(), PermissionsExt::from_mode(0o750))
            .map_err(failed("set the permissions of", stage.path()))?;
        std::fs::rename(stage.path(), &place).map_err(failed("put in place", &place))?;
        // It has its name; nothing is left to be removed under the other.
        let _ = stage.keep();
        files::sync_directory(&self.directory).map_err(failed("sync", &self.directory))?;
        let target = Path::new("generations").join(generation.to_string());
        files::replace_link(&target, &self.current)
            .map_err(failed("switch the link", &self.current))?;

        let before = live.map(|(_, tree)| tree).unwrap_or_default();
        self.remove_old(&numbers);
        Ok(Outcome::Switched {
            generation,
            changed: changed(&before, &rendered.files),
            warnings,
        })
    }

    /// Held while generations change; others wait.
    fn lock(&self) -> Result<File> {
        let directory = File::open(&self.directory).map_err(failed("open", &self.directory))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock", &self.directory)(error.into()))?;
        Ok(directory)
    }

    /// All numbers in use, in order. Drafts that a crash left behind are removed.
    fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed("list", &self.directory))? {
            let name = entry.map_err(failed("list", &self.directory))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".stage-") {
                let _ = std::fs::remove_dir_all(self.directory.join(&*name));
            }
            numbers.extend(name.parse::<u64>());
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes generations nobody will look for. One that cannot be removed does no harm.
    fn remove_old(&self, numbers: &[u64]) {
        let superfluous = numbers.len().saturating_sub(KEPT - 1);
        for number in numbers.iter().take(superfluous) {
            let _ = std::fs::remove_dir_all(self.directory.join(number.to_string()));
        }
    }
}

/// Names of files that differ.
pub fn changed(before: &Tree, after: &Tree) -> Vec<String> {
    let mut names: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The unified diff from one tree to another; empty if they are equal.
pub fn diff(before: &Tree, after: &Tree) -> String {
    let mut text = String::new();
    for name in changed(before, after) {
        let side = |tree: &Tree, prefix: &str| match tree.get(&name) {
            Some(content) => (content.clone(), format!("{prefix}/{name}")),
            None => (String::new(), "/dev/null".to_owned()),
        };
        let ((old, old_name), (new, new_name)) = (side(before, "live"), side(after, "rendered"));
        let diff = similar::TextDiff::from_lines(&old, &new);
        text.push_str(&diff.unified_diff().header(&old_name, &new_name).to_string());
    }
    text
}

fn read_tree(directory: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let below = read_tree(&entry.path())?;
            tree.extend(
                below
                    .into_iter()
                    .map(|(file, content)| (format!("{name}/{file}"), content)),
            );
        } else {
            let content = std::fs::read(entry.path())?;
            tree.insert(name, String::from_utf8_lossy(&content).into_owned());
        }
    }
    Ok(tree)
}

fn write_tree(directory: &Path, tree: &Tree) -> Result<()> {
    for (name, content) in tree {
        let path = directory.join(name);
        files::write_atomically(&path, content.as_bytes(), 0o640)
            .map_err(failed("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "generations_tests.rs"]
mod tests;
