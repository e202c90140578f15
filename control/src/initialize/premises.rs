//! What a start goes by: the site's settings and its files. As long as they are what they were when a start failed, the next one
//! will most likely end the same way. Blocking; a handful of `stat` calls, nothing is read but the names in three directories.
//!
//! Looked at are, for the settings, everything that the registry says of the site; and of its files
//! * the one that the entry point or the command names, as it was before the start,
//! * the site's directory, that of the entry point and that of the virtualenv's packages, with the first files in the first two,
//! * the files that the log of the failed start names below the site's directory or its virtualenv,
//!
//! all these as they were when it had failed, so that what a start itself writes is no change. A file further down that is
//! written in place and that no traceback names is not noticed. The log is the site's own: from it come names to look at, nothing
//! else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::model::{Application, EntryPoint, Site};

/// Of a directory's files, so many are looked at.
const MOST_FILES: usize = 64;
/// Of the files in a log.
const MOST_NAMED: usize = 32;

/// A file as it was; whatever is done to it changes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None: it is not there.
    fn of(path: &Path) -> Option<Stamp> {
        // A link that leads elsewhere now is a change.
        let found = fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Settings and files as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Premises {
    settings: u64,
    files: BTreeMap<PathBuf, Option<Stamp>>,
}

impl Premises {
    /// Before a start; `settings` stands for what the registry says.
    pub fn before(site: &Site, settings: u64) -> Premises {
        let mut premises = Premises {
            settings,
            files: BTreeMap::new(),
        };
        for path in entries(site) {
            premises.look_at(path);
        }
        premises
    }

    /// After it has failed and written this.
    pub fn after(mut self, site: &Site, log: &[String]) -> Premises {
        let root = site.directory.as_path();
        let mut directories = vec![root.to_owned()];
        directories.extend(
            entries(site)
                .iter()
                .filter_map(|entry| entry.parent().map(Path::to_owned)),
        );
        directories.dedup();
        for directory in directories {
            for file in listed(&directory, |_| true).into_iter().take(MOST_FILES) {
                self.look_at(file);
            }
            self.look_at(directory);
        }
        let mut below = vec![root.to_owned()];
        below.extend(root.canonicalize());
        if let Some(venv) = &site.venv {
            let venv = venv.as_path();
            self.look_at(venv.join("pyvenv.cfg"));
            for version in listed(&venv.join("lib"), |name| name.starts_with("python")) {
                self.look_at(version.join("site-packages"));
            }
            below.push(venv.to_owned());
        }
        for file in named(log, &below) {
            self.look_at(file);
        }
        self
    }

    /// Whether anything is different now; `settings` are none if they cannot be read.
    pub fn have_changed(&self, settings: Option<u64>) -> bool {
        settings.is_some_and(|settings| settings != self.settings)
            || self
                .files
                .iter()
                .any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// What was seen first stays.
    fn look_at(&mut self, path: PathBuf) {
        self.files
            .entry(path)
            .or_insert_with_key(|path| Stamp::of(path));
    }
}

/// Where the code may begin.
fn entries(site: &Site) -> Vec<PathBuf> {
    let root = site.directory.as_path();
    match &site.application {
        Application::Wsgi(EntryPoint::File { path, .. }) => vec![root.join(path)],
        Application::Wsgi(EntryPoint::Module { module, .. }) => {
            let path = root.join(module.replace('.', "/"));
            vec![path.with_extension("py"), path.join("__init__.py")]
        }
        Application::Command(command) => {
            let words = command.words().iter().map(Path::new);
            words
                .filter(|word| {
                    word.components()
                        .all(|part| matches!(part, Component::Normal(_)))
                })
                .map(|word| root.join(word))
                .filter(|file| file.is_file())
                .collect()
        }
    }
}

/// The paths in a directory whose names are wanted, in their order; none if it cannot be read.
fn listed(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// The files of tracebacks that lie below one of these directories.
fn named(log: &[String], below: &[PathBuf]) -> Vec<PathBuf> {
    let mut files: Vec<_> = log
        .iter()
        .filter_map(|line| line.split_once("File \"")?.1.split('"').next())
        .map(PathBuf::from)
        .filter(|path| below.iter().any(|directory| path.starts_with(directory)))
        .filter(|path| !path.components().any(|part| part == Component::ParentDir))
        .collect();
    files.sort();
    files.dedup();
    files.truncate(MOST_NAMED);
    files
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;
    use crate::model::{AbsolutePath, SiteId, SiteSettings, UserName, parse_domain};

    fn site(root: &Path, application: Application) -> Site {
        let path = |path: &Path| AbsolutePath::parse(path.to_str().unwrap()).unwrap();
        Site {
            id: SiteId::new(1).unwrap(),
            user: UserName::parse("ada").unwrap(),
            domain: parse_domain("a.test").unwrap(),
            directory: path(root),
            application,
            venv: Some(path(&root.join("venv"))),
            idle: None,
            enabled: true,
            pin: None,
            settings: SiteSettings::default(),
        }
    }

    fn module(name: &str) -> Application {
        Application::Wsgi(EntryPoint::parse(name).unwrap())
    }

    #[test]
    fn what_repairs_a_site_is_noticed_and_what_a_start_writes_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        create_dir_all(root.join("shop/deep")).unwrap();
        create_dir_all(root.join("venv/lib/python3.11/site-packages")).unwrap();
        for file in ["shop/wsgi.py", "shop/deep/views.py", "local.py", "data.db"] {
            write(root.join(file), "1").unwrap();
        }
        let site = site(root, module("shop.wsgi:app"));
        let log = [
            "Traceback (most recent call last):".to_owned(),
            format!(
                "  File \"{}\", line 1",
                root.join("shop/deep/views.py").display()
            ),
            "  File \"/etc/passwd\", line 1".to_owned(),
        ];
        let failed = |during: &dyn Fn()| {
            let premises = Premises::before(&site, 7);
            during();
            premises.after(&site, &log)
        };
        let premises = failed(&|| {
            write(root.join("data.db"), "22").unwrap();
            write(root.join("app.pid"), "2").unwrap();
            create_dir_all(root.join("__pycache__")).unwrap();
        });
        assert!(!premises.have_changed(Some(7)));
        assert!(!premises.have_changed(None), "nothing can be said");
        assert!(premises.have_changed(Some(8)), "the settings");
        assert!(!premises.files.contains_key(Path::new("/etc/passwd")));

        for file in [
            "shop/wsgi.py",
            "shop/deep/views.py",
            "local.py",
            "new.py",
            "venv/lib/python3.11/site-packages/flask.py",
        ] {
            let premises = failed(&|| ());
            write(root.join(file), "in its place, and longer").unwrap();
            assert!(premises.have_changed(Some(7)), "{file}");
            write(root.join(file), "1").unwrap();
        }
        // Repaired while the start had read it already.
        let premises = failed(&|| write(root.join("shop/wsgi.py"), "333").unwrap());
        assert!(premises.have_changed(Some(7)));
    }

    #[test]
    fn another_release_behind_a_link_and_a_directory_that_comes_back_are_changes() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("current");
        for release in ["one", "two"] {
            create_dir_all(directory.path().join(release)).unwrap();
        }
        std::os::unix::fs::symlink("one", &root).unwrap();
        let site = site(&root, module("app:app"));
        let premises = Premises::before(&site, 0).after(&site, &[]);
        fs::remove_file(&root).unwrap();
        assert!(premises.have_changed(Some(0)));
        let premises = Premises::before(&site, 0).after(&site, &[]);
        assert!(!premises.have_changed(Some(0)));
        std::os::unix::fs::symlink("two", &root).unwrap();
        assert!(premises.have_changed(Some(0)));
    }

    #[test]
    fn a_log_names_files_of_the_site_only() {
        let below = [PathBuf::from("/srv/a")];
        let line = |path: &str| format!("  File \"{path}\", line 3, in <module>");
        let log = [
            line("/srv/a/x.py"),
            line("/srv/a/../b/x.py"),
            line("/srv/ab/x.py"),
            line("relative.py"),
            "File \"".to_owned(),
            String::new(),
        ];
        assert_eq!(named(&log, &below), [PathBuf::from("/srv/a/x.py")]);
        let many: Vec<_> = (0..1000).map(|n| line(&format!("/srv/a/{n}.py"))).collect();
        assert_eq!(named(&many, &below).len(), MOST_NAMED);
    }
}
