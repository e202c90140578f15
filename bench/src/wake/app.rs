//! The sites that are woken: the examples, each in a virtualenv of its own, as `scripts/install-example` installs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use paas_tests::{Platform, Root, build, process};

use super::clock::Moment;

/// Which examples there are to wake, and where their applications are.
const EXAMPLES: [(&str, &str); 4] = [
    ("smallest", "from app import application"),
    ("bottle", "from app import application"),
    ("flask", "from app import app as application"),
    ("django", "from project.wsgi import application"),
];

/// An installed example, with a module in front that notes when its import begins and ends.
#[derive(Debug)]
pub struct App {
    /// The example's name.
    pub name: String,
    /// Its directory, named by its domain.
    pub directory: PathBuf,
    /// The uid and gid it runs as.
    pub owner: u32,
    notes: PathBuf,
}

impl App {
    /// Installs an example.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be installed.
    pub fn install(root: &Root, platform: &Platform<'_>, name: &str) -> anyhow::Result<App> {
        let import = EXAMPLES
            .iter()
            .find(|(example, _)| *example == name)
            .map(|(_, import)| import)
            .with_context(|| format!("no example is called {name}"))?;
        let directory = root.join(format!("sites/{name}.localhost"));
        fs::create_dir_all(root.join("sites"))?;
        let owner = platform.owner_uid();
        let (status, _, words) = process::run(
            build::workspace().join("scripts/install-example"),
            &[
                name,
                &directory.to_string_lossy(),
                &format!("{owner}:{owner}"),
            ],
        );
        ensure!(status.success(), "{words}");
        let notes = directory.join("imported");
        fs::write(&notes, "")?;
        fs::set_permissions(&notes, fs::Permissions::from_mode(0o666))?;
        fs::write(
            directory.join("noted.py"),
            format!(
                "import time\nbegan = time.time()\n{import}\nended = time.time()\n\
                 with open({notes:?}, 'a') as notes:\n    print(began, ended, file=notes)\n"
            ),
        )?;
        Ok(App {
            name: name.to_owned(),
            directory,
            owner,
            notes,
        })
    }

    /// Its virtualenv, if it needs one.
    #[must_use]
    pub fn venv(&self) -> Option<PathBuf> {
        Some(self.directory.join(".venv")).filter(|venv| venv.is_dir())
    }

    /// Forgets what was noted.
    ///
    /// # Errors
    /// The notes cannot be written.
    pub fn forget(&self) -> anyhow::Result<()> {
        Ok(fs::write(&self.notes, "")?)
    }

    /// When the one import since then began and ended.
    ///
    /// # Errors
    /// It was not imported exactly once.
    pub fn imported(&self) -> anyhow::Result<(Moment, Moment)> {
        let text = fs::read_to_string(&self.notes)?;
        let [began, ended] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            anyhow::bail!("{} was not imported once: {text:?}", self.name);
        };
        let moment = |text: &str| Ok(Moment::of_epoch(text.parse::<f64>()? * 1000.0));
        let parsed: anyhow::Result<_> = moment(began).and_then(|began| Ok((began, moment(ended)?)));
        parsed
    }
}
