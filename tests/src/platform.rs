//! The whole platform on this machine: `paasctl up` with its balancer and backends, as an operator runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::apps::Recorder;
use crate::process::{self, Process, Seen};
use crate::{Paasctl, Request, Response, Root, build, nginx, wait};

/// What a test wants of its platform.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many backends.
    pub backends: u16,
    /// More `paas.toml` for the balancer.
    pub balancer: String,
    /// More `paas.toml` for every backend.
    pub backend: String,
    /// What `paasctl up`, and with it all daemons, logs: `PAAS_LOG`.
    pub log: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            backends: 1,
            balancer: String::new(),
            backend: String::new(),
            log: None,
        }
    }
}

/// A running platform. Stopped (as by Ctrl-C) when dropped.
#[derive(Debug)]
pub struct Platform<'r> {
    root: &'r Root,
    options: Options,
    port: u16,
    process: Option<Process>,
}

impl<'r> Platform<'r> {
    /// One balancer and one backend.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(root: &'r Root) -> Platform<'r> {
        Platform::with(root, Options::default())
    }

    /// With these options.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with(root: &'r Root, options: Options) -> Platform<'r> {
        let port = root.ports(options.backends + 2);
        let mut platform = Platform {
            root,
            options,
            port,
            process: None,
        };
        platform.up();
        platform.paasctl().ok(&["add-user", "owner"]);
        platform
    }

    /// `paasctl up`; waits until it serves.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(&mut self) {
        start(self);
    }

    /// The balancer's port for http.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The platform's directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.root.join("p")
    }

    /// A machine's root: `balancer`, `b1`, `b2` ...
    #[must_use]
    pub fn machine(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// A backend's root; they are counted from 1.
    #[must_use]
    pub fn backend(&self, number: u16) -> PathBuf {
        self.machine(&format!("b{number}"))
    }

    /// `paasctl` for this platform's registry.
    #[must_use]
    pub fn paasctl(&self) -> Paasctl {
        Paasctl::new(&self.machine("balancer"))
    }

    /// Adds a site that belongs to `owner`.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn add_site(&self, domain: &str, directory: &Path, more: &[&str]) {
        let directory = directory.to_string_lossy();
        let mut arguments = vec![
            "add-site",
            domain,
            "--user",
            "owner",
            "--directory",
            &*directory,
        ];
        arguments.extend_from_slice(more);
        self.paasctl().ok(&arguments);
    }

    /// Adds a site that writes down what happens to it.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    #[must_use]
    pub fn recorder(&self, domain: &str) -> Recorder {
        self.recorder_with(domain, &[])
    }

    /// As [`Platform::recorder`], with more arguments for `add-site`.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    #[must_use]
    pub fn recorder_with(&self, domain: &str, more: &[&str]) -> Recorder {
        let site = Recorder::new(self.root, domain);
        // The check would import it once more than its visitors do.
        let mut arguments = vec!["--entry", "app:application", "--no-check"];
        arguments.extend_from_slice(more);
        self.add_site(domain, site.directory(), &arguments);
        site
    }

    /// As [`Platform::recorder_with`], a site that brings its own HTTP server.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    #[must_use]
    pub fn serving_recorder(&self, domain: &str, more: &[&str]) -> Recorder {
        let site = Recorder::serving(self.root, domain);
        let mut arguments = vec!["--command", "/usr/bin/python3 server.py", "--no-check"];
        arguments.extend_from_slice(more);
        self.add_site(domain, site.directory(), &arguments);
        site
    }

    /// Adds many sites that write down what happens to them, all at once.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    #[must_use]
    pub fn recorders(&self, domains: impl IntoIterator<Item = String>) -> Vec<(String, Recorder)> {
        let sites: Vec<_> = domains
            .into_iter()
            .map(|domain| {
                let site = Recorder::new(self.root, &domain);
                (domain, site)
            })
            .collect();
        let lines: Vec<String> = sites
            .iter()
            .map(|(domain, site)| {
                let line = serde_json::json!({
                    "domain": domain,
                    "user": "owner",
                    "directory": site.directory(),
                    "entry": "app:application",
                });
                line.to_string()
            })
            .collect();
        let file = self.root.write("sites.json", lines.join("\n"));
        self.paasctl()
            .ok(&["add-site", "--from", &file.to_string_lossy()]);
        sites
    }

    /// A `GET` through the balancer.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[must_use]
    pub fn get(&self, host: &str, target: &str) -> Response {
        Request::get(host, target).send(self.port)
    }

    /// A site's id.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn site_id(&self, domain: &str) -> u64 {
        let text = self.paasctl().ok(&["show-site", domain, "--json"]);
        let site: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        site["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("no id: {text}"))
    }

    /// A site's socket on the first backend.
    #[must_use]
    pub fn site_socket(&self, domain: &str) -> PathBuf {
        self.backend(1)
            .join(format!("run/paas/sites/{}/app.sock", self.site_id(domain)))
    }

    /// Where a backend's vassal files lie.
    #[must_use]
    pub fn vassals_directory(&self, backend: u16) -> PathBuf {
        self.backend(backend).join("run/paas/vassals")
    }

    /// The vassal files of a site on the first backend.
    ///
    /// # Panics
    /// When the directory cannot be read.
    #[must_use]
    pub fn vassals(&self, domain: &str) -> Vec<PathBuf> {
        let start = format!("{}@", self.site_id(domain));
        fs::read_dir(self.vassals_directory(1))
            .expect("the vassals' directory is there")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&start))
            })
            .collect()
    }

    /// The processes whose working directory is a site's.
    #[must_use]
    pub fn site_processes(&self, domain: &str) -> Vec<Seen> {
        process::under(&self.root.join(format!("sites/{domain}")))
    }

    /// How many connections wait in the queue of a site's socket on the first backend.
    #[must_use]
    pub fn queue_length(&self, domain: &str) -> usize {
        process::queue_length(&self.site_socket(domain))
    }

    /// Waits until so many requests for a site are parked with the first backend's daemon.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for_parked(&self, domain: &str, count: usize) {
        let id = self.site_id(domain);
        let parked = || {
            let status = self.daemon_status(1)?;
            let site = status["sites"]
                .as_array()?
                .iter()
                .find(|site| site["id"] == id)?;
            site["waiting"].as_u64()?.try_into().ok()
        };
        wait::until_true(&format!("{count} requests parked for {domain}"), || {
            parked().is_some_and(|waiting: usize| waiting >= count)
        });
    }

    /// What a backend's daemon says of itself, if it answers.
    #[must_use]
    pub fn daemon_status(&self, backend: u16) -> Option<serde_json::Value> {
        self.ask_daemon(&format!("b{backend}"), "/status")
    }

    /// What a machine's daemon answers, if it does.
    #[must_use]
    pub fn ask_daemon(&self, machine: &str, target: &str) -> Option<serde_json::Value> {
        let socket = self.machine(machine).join("run/paas/control.sock");
        process::ask_daemon(&socket, target)
    }

    /// What the balancer's probes say of a backend, if it has one with that name.
    #[must_use]
    pub fn probed(&self, backend: &str) -> Option<serde_json::Value> {
        let all = self.ask_daemon("balancer", "/backends")?;
        let found = all.as_array()?.iter().find(|one| one["name"] == backend);
        found.cloned()
    }

    /// How many sites a backend's daemon says are awake.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn awake(&self, backend: u16) -> usize {
        let status = self.daemon_status(backend).expect("the daemon answers");
        let sites = status["sites"].as_array().expect("a list").iter();
        sites.filter(|site| site["state"] != "asleep").count()
    }

    /// The backend that a site's requests go to first.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn home(&self, domain: &str) -> String {
        let text = self.paasctl().ok(&["route", domain, "--json"]);
        let route: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        route["backend"].as_str().expect("a name").to_owned()
    }

    /// As [`Platform::recorder_with`], for a site whose home is this backend; and its domain.
    ///
    /// # Panics
    /// When that is refused, or when there is no such name.
    #[must_use]
    pub fn recorder_at(&self, backend: &str, name: &str, more: &[&str]) -> (String, Recorder) {
        (0..64)
            .map(|number| format!("{name}{number}.test"))
            .map(|domain| {
                let site = self.recorder_with(&domain, more);
                (domain, site)
            })
            .find(|(domain, _)| self.home(domain) == backend)
            .expect("about half of all names are at home there")
    }

    /// The uid of the user who owns the tests' sites.
    #[must_use]
    pub fn owner_uid(&self) -> u32 {
        self.uid_of("owner")
    }

    /// A user's uid.
    ///
    /// # Panics
    /// When there is no such user.
    #[must_use]
    pub fn uid_of(&self, user: &str) -> u32 {
        let text = self.paasctl().ok(&["show-user", user, "--json"]);
        let user: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        user["uid"]
            .as_u64()
            .and_then(|uid| uid.try_into().ok())
            .unwrap_or_else(|| panic!("no uid: {text}"))
    }

    /// The port of a backend's nginx.
    #[must_use]
    pub fn backend_port(&self, number: u16) -> u16 {
        self.port + 1 + number
    }

    /// A process and its children.
    #[must_use]
    pub fn family(&self, master: u32) -> Vec<Seen> {
        process::under(self.root.path())
            .into_iter()
            .filter(|seen| seen.pid == master || seen.parent == master)
            .collect()
    }

    /// Ends a backend's daemon by a signal and waits until the next one, which `up` starts, answers.
    pub fn restart_daemon(&self, backend: u16, signal: Signal) {
        self.end_daemon(backend, signal);
        self.wait_for_daemon(backend);
    }

    /// Kills a backend's daemon; none can start before [`DaemonGap::end`].
    ///
    /// # Panics
    /// When its lock cannot be taken.
    pub fn without_daemon(&self, backend: u16) -> DaemonGap<'_> {
        self.end_daemon(backend, Signal::KILL);
        let path = self.backend(backend).join("run/paas/serve.lock");
        let lock = fs::File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        wait::until_true("the daemon's lock", || {
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return true;
            }
            // `up` was faster with the next one.
            self.end_daemon(backend, Signal::KILL);
            false
        });
        DaemonGap {
            platform: self,
            backend,
            lock,
        }
    }

    /// Kills a backend's daemon, as in the middle of an upgrade: `up` holds its socket, and starts the next one not before
    /// [`BetweenDaemons::end`].
    pub fn between_daemons(&self, backend: u16) -> BetweenDaemons<'_> {
        self.signal_up(Signal::STOP);
        self.end_daemon(backend, Signal::KILL);
        BetweenDaemons {
            platform: self,
            backend,
        }
    }

    fn signal_up(&self, signal: Signal) {
        if let Some(up) = &self.process {
            up.signal(signal);
        }
    }

    /// Waits until a backend's daemon answers.
    fn wait_for_daemon(&self, backend: u16) {
        wait::until_true("a daemon that answers", || {
            self.daemon_status(backend).is_some()
        });
    }

    /// A machine's daemon.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn daemon(&self, machine: &str) -> Seen {
        self.running(machine, "its daemon", is_daemon)
    }

    /// A machine's Emperor.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn emperor(&self, machine: &str) -> Seen {
        self.running(machine, "its Emperor", |seen| {
            seen.command.contains("uwsgi") && seen.command.contains("emperor.ini")
        })
    }

    /// A machine's nginx master.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn nginx(&self, machine: &str) -> Seen {
        self.running(machine, "its nginx", |seen| {
            seen.command.starts_with("nginx: master")
        })
    }

    fn find(&self, machine: &str, is: impl Fn(&Seen) -> bool) -> Option<Seen> {
        process::under(&self.machine(machine)).into_iter().find(is)
    }

    fn running(&self, machine: &str, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
        self.find(machine, is).unwrap_or_else(|| {
            let seen = process::under(&self.machine(machine));
            panic!("{machine} has lost {what}: {seen:#?}")
        })
    }

    /// Ends a backend's daemon by a signal, if one runs, and waits for its end; `up` starts another.
    fn end_daemon(&self, backend: u16, signal: Signal) {
        if let Some(daemon) = self.find(&format!("b{backend}"), is_daemon) {
            process::send(daemon.pid, signal);
            wait::until_true("the daemon's end", || Seen::look(daemon.pid).is_none());
        }
    }

    /// Ctrl-C, and waits until `up` has ended.
    ///
    /// # Panics
    /// When it ends with an error.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = process.stop();
        assert!(
            status.success(),
            "`up` ended with {status}: {}",
            process.output()
        );
    }

    /// As if the machine lost power: everything is killed, the daemons first, so that nobody tidies up.
    ///
    /// # Panics
    /// When something cannot be killed.
    pub fn lose_power(&mut self) {
        self.signal_up(Signal::STOP);
        for backend in 1..=self.options.backends {
            self.end_daemon(backend, Signal::KILL);
        }
        let mut up = self.process.take().expect("it runs");
        up.kill();
        wait::until_true("the end of everything", || {
            let left = process::under(&self.directory());
            for seen in &left {
                process::send(seen.pid, Signal::KILL);
            }
            left.is_empty()
        });
    }

    /// All error logs of its nginxes.
    #[must_use]
    pub fn nginx_errors(&self) -> String {
        let machines = (1..=self.options.backends)
            .map(|number| self.backend(number))
            .chain([self.machine("balancer")]);
        machines
            .filter_map(|machine| fs::read(machine.join("var/log/paas/nginx-error.log")).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Checks that no nginx process died by a signal, nothing panicked and `up` still runs.
    ///
    /// # Panics
    /// When something did.
    #[track_caller]
    pub fn assert_healthy(&self) {
        nginx::assert_no_crash(&self.nginx_errors());
        let output = self
            .process
            .as_ref()
            .map(Process::output)
            .unwrap_or_default();
        assert!(!output.contains("panicked"), "{output}");
    }
}

/// Writes a machine's settings: `heading` with the machine's own lines, and what the test wants more in that section.
fn settle(root: &Path, name: &str, section: &str, own: &str, more: &str) {
    let file = root.join(name).join("etc/paas/paas.toml");
    if file.exists() {
        return;
    }
    let more = more.replacen(&format!("[{section}]\n"), "", 1);
    let registry = root.join("registry.db");
    let text = format!(
        "name = \"{name}\"\nroles = [\"{section}\"]\nregistry = {registry:?}\n\n[nginx]\nworkers = 1\nmodule = {:?}\n\n[{section}]\n{own}{more}",
        build::module()
    );
    fs::create_dir_all(file.parent().expect("a directory")).expect("the directory is made");
    fs::write(&file, text).expect("the settings are written");
}

fn start(platform: &mut Platform<'_>) {
    let directory = platform.directory();
    let mut listen = format!("listen = [\"127.0.0.1:{}\"]\n", platform.port);
    if !platform.options.balancer.contains("probe") {
        // The machine is busy with other tests: only who is not there at all is taken out.
        listen.push_str("probe = { timeout = \"5s\", failures = 3 }\n");
    }
    settle(
        &directory,
        "balancer",
        "balancer",
        &listen,
        &platform.options.balancer,
    );
    for number in 1..=platform.options.backends {
        let listen = format!("listen = \"127.0.0.1:{}\"\n", platform.port + 1 + number);
        settle(
            &directory,
            &format!("b{number}"),
            "backend",
            &listen,
            &platform.options.backend,
        );
    }
    let output = platform.root.join("up.log");
    let mut command = Command::new(build::program("paasctl"));
    command.arg("--root").arg(&directory).args([
        "up",
        "--backends",
        &platform.options.backends.to_string(),
    ]);
    if let Some(log) = &platform.options.log {
        command.env("PAAS_LOG", log);
    }
    let _ = fs::remove_file(&output);
    let mut process = Process::start("paasctl up", &mut command, &output, Signal::TERM);
    wait::until("the platform is up", || {
        assert!(
            process.ended().is_none(),
            "paasctl up ended: {}",
            process.output()
        );
        process
            .output()
            .contains("The platform is up")
            .then_some(())
    });
    platform.process = Some(process);
}

fn is_daemon(seen: &Seen) -> bool {
    seen.command.contains("paasctl") && seen.command.contains("serve")
}

/// A backend has no daemon and gets none: its lock is held.
#[derive(Debug)]
#[must_use]
pub struct DaemonGap<'p> {
    platform: &'p Platform<'p>,
    backend: u16,
    lock: fs::File,
}

impl DaemonGap<'_> {
    /// Lets `up` start a daemon again, and waits until it answers.
    pub fn end(self) {
        drop(self.lock);
        self.platform.wait_for_daemon(self.backend);
    }
}

/// The time between two daemons of a backend.
#[derive(Debug)]
#[must_use]
pub struct BetweenDaemons<'p> {
    platform: &'p Platform<'p>,
    backend: u16,
}

impl BetweenDaemons<'_> {
    /// How many questions wait for the next daemon.
    #[must_use]
    pub fn questions(&self) -> usize {
        // The kernel remembers the name that it was bound by.
        let run = self.platform.backend(self.backend).join("run/paas");
        process::queue_length(&run.join("control.new"))
    }

    /// Lets `up` start a daemon, and waits until it answers.
    pub fn end(self) {
        self.platform.signal_up(Signal::CONT);
        self.platform.wait_for_daemon(self.backend);
    }
}
