//! A platform with a site whose owner means harm, and one of another owner whom it could harm.
//!
//! What the harmful one attempts is in `tests/apps/prisoner`. It is asked over HTTP, through the balancer, so that it acts from where
//! strangers' code acts; and the same attempt can be made outside of the sandbox by the same uid, which shows that it is the
//! sandbox that refuses it, and that the attempt itself is any good.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::apps::Recorder;
use crate::platform::Options;
use crate::{Platform, Request, Response, Root, build, process};

/// The harmful site.
pub const INMATE: &str = "inmate.test";
/// The other owner's site.
pub const VICTIM: &str = "victim.test";

/// The platform, the two sites.
#[derive(Debug)]
pub struct Prison<'r> {
    /// What they run on.
    pub platform: Platform<'r>,
    /// The other owner's site; it is awake.
    pub victim: Recorder,
    /// The number of its master process.
    pub victim_master: u32,
    root: &'r Root,
    uid: u32,
}

impl<'r> Prison<'r> {
    /// With more lines of `paas.toml` for the backend. None without root: then nobody is held in, see `unprivileged.rs`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(root: &'r Root, settings: &str) -> Option<Prison<'r>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: skipped");
            return None;
        }
        let options = Options {
            backend: settings.to_owned(),
            ..Options::default()
        };
        let platform = Platform::with(root, options);
        platform.paasctl().ok(&["add-user", "mallory"]);
        let uid = platform.uid_of("mallory");
        let victim = platform.recorder(VICTIM);
        let victim_master = process::master(&platform.get(VICTIM, "/"));
        let prison = Prison {
            platform,
            victim,
            victim_master,
            root,
            uid,
        };
        prison.add(INMATE);
        Some(prison)
    }

    /// Adds another site of the harmful one's owner.
    ///
    /// # Panics
    /// When that is refused.
    pub fn add(&self, domain: &str) {
        let directory = self.directory(domain);
        self.settle(&directory);
        let directory = directory.to_string_lossy();
        self.platform.paasctl().ok(&[
            "add-site",
            domain,
            "--user",
            "mallory",
            "--directory",
            &directory,
            "--entry",
            "app:application",
            "--no-check",
        ]);
    }

    /// Puts the application into a directory, which becomes its owner's.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn settle(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("the site's directory is made");
        let app = directory.join("app.py");
        fs::copy(build::workspace().join("tests/apps/prisoner/app.py"), &app)
            .expect("the application is copied");
        for path in [directory, &app] {
            self.give(path);
        }
    }

    /// Makes a file or directory the harmful one's.
    ///
    /// # Panics
    /// When it is not there.
    pub fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.uid)).expect("it is ours to give");
    }

    /// Where a site's files are.
    #[must_use]
    pub fn directory(&self, domain: &str) -> PathBuf {
        self.root.join(format!("sites/{domain}"))
    }

    /// The uid of the harmful one.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// What comes of an attempt from inside.
    ///
    /// # Panics
    /// When the site does not answer.
    #[track_caller]
    #[must_use]
    pub fn inside(&self, words: &[&str]) -> String {
        self.ask(INMATE, words).expect(200)
    }

    /// Lets a site of the harmful one attempt something.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[must_use]
    pub fn ask(&self, domain: &str, words: &[&str]) -> Response {
        let body = serde_json::to_vec(words).expect("words are JSON");
        Request::post(domain, "/", body).send(self.platform.port())
    }

    /// What comes of the same attempt by the same uid without a sandbox.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn outside(&self, words: &[&str]) -> String {
        self.outside_by(&[], words)
    }

    /// As [`Prison::outside`], started by another program (with its arguments) that becomes it.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    #[must_use]
    pub fn outside_by(&self, starter: &[&str], words: &[&str]) -> String {
        let app = self.directory(INMATE).join("app.py");
        let app = app.to_string_lossy();
        let id = |option: &str| format!("--{option}={}", self.uid);
        let (user, group) = (id("reuid"), id("regid"));
        let mut arguments = starter.to_vec();
        arguments.extend([
            "setpriv",
            &*user,
            &*group,
            "--clear-groups",
            "--",
            "/usr/bin/python3",
            "-B",
            &*app,
        ]);
        arguments.extend_from_slice(words);
        let (status, said, errors) = process::run("/usr/bin/env", &arguments);
        assert!(status.success(), "{words:?}: {said}{errors}");
        said.trim_end().to_owned()
    }

    /// Checks that the attempt is refused inside, so and not otherwise, and that it is the sandbox that refuses it.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn held_in(&self, words: &[&str], refusal: &str) {
        assert_eq!(self.inside(words), refusal, "inside: {words:?}");
        assert_ne!(
            self.outside(words),
            refusal,
            "refused without a sandbox, too: {words:?}"
        );
    }

    /// Checks that the other owner's site has noticed nothing: the same processes, and they answer.
    ///
    /// # Panics
    /// When it has.
    #[track_caller]
    pub fn assert_victim_unharmed(&self) {
        let answer = self.platform.get(VICTIM, "/unharmed");
        assert!(answer.expect(200).starts_with("GET /unharmed 0 "));
        assert_eq!(process::master(&answer), self.victim_master);
        assert_eq!(self.victim.starts(), 1);
    }
}
