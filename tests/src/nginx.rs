//! A real nginx with our module and a configuration the test writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{self, Process};
use crate::{Root, build, wait};

/// A running nginx (`daemon off`, one worker unless the configuration says otherwise).
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    prefix: PathBuf,
    log: PathBuf,
}

/// What surrounds the `http` block a test writes.
fn whole(prefix: &Path, main: &str, http: &str) -> String {
    let prefix = prefix.display();
    let load_module = if main.contains("load_module") {
        String::new()
    } else {
        format!("load_module {};", build::module().display())
    };
    let worker_processes = if main.contains("worker_processes") {
        ""
    } else {
        "worker_processes 1;"
    };
    format!(
        "{load_module}
daemon off;
user www-data;
{worker_processes}
worker_rlimit_nofile 8192;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;
{main}
events {{ worker_connections 4096; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/tmp-body;
    proxy_temp_path {prefix}/tmp-proxy;
    fastcgi_temp_path {prefix}/tmp-fastcgi;
    uwsgi_temp_path {prefix}/tmp-uwsgi;
    scgi_temp_path {prefix}/tmp-scgi;
    client_max_body_size 200m;
    keepalive_requests 1000000;
{http}
}}
"
    )
}

impl Nginx {
    /// Starts nginx under `root/name` with this content of its `http` block and waits until `port` answers.
    ///
    /// # Panics
    /// When it does not start; its words are shown.
    #[must_use]
    pub fn start(root: &Root, name: &str, http: &str, port: u16) -> Nginx {
        Nginx::start_with(root, name, "", http, port)
    }

    /// As [`Nginx::start`], with lines for the configuration's top level.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn start_with(root: &Root, name: &str, main: &str, http: &str, port: u16) -> Nginx {
        let prefix = Nginx::configure(root, name, main, http);
        Nginx::run(&prefix, "nginx.conf", port)
    }

    /// Writes `root/name/nginx.conf` with this content, answers the directory. The module is loaded unless `main` loads
    /// modules itself.
    #[must_use]
    pub fn configure(root: &Root, name: &str, main: &str, http: &str) -> PathBuf {
        let prefix = root.join(name);
        root.write(format!("{name}/nginx.conf"), whole(&prefix, main, http));
        prefix
    }

    /// nginx with a directory and a configuration file in it, not started yet.
    #[must_use]
    pub fn command(prefix: &Path, configuration: &str) -> Command {
        let mut command = Command::new(build::nginx());
        command.arg("-p").arg(prefix).arg("-c").arg(configuration);
        command
    }

    /// Runs nginx on a configuration file that is there already, in the foreground.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn run(prefix: &Path, configuration: &str, port: u16) -> Nginx {
        Nginx::launch(Nginx::command(prefix, configuration), prefix, port)
    }

    /// Runs nginx, in the foreground, on what `paasctl render` has written for the machine below `root`.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn rendered(root: &Path, port: u16) -> Nginx {
        let mut command = Nginx::command(root, "var/lib/paas/current/nginx.conf");
        command.args(["-g", "daemon off;"]);
        let mut nginx = Nginx::launch(command, root, port);
        nginx.log = root.join("var/log/paas/nginx-error.log");
        nginx
    }

    /// Runs an nginx that a test prepared (see [`Nginx::command`]) and waits until `port` answers.
    ///
    /// # Panics
    /// As [`Nginx::start`].
    #[must_use]
    pub fn launch(mut command: Command, prefix: &Path, port: u16) -> Nginx {
        let output = prefix.join("output.log");
        let process = Process::start("nginx", &mut command, &output, Signal::TERM);
        let mut nginx = Nginx {
            process,
            log: prefix.join("error.log"),
            prefix: prefix.to_path_buf(),
        };
        wait::until("nginx to listen", || {
            if let Some(status) = nginx.process.ended() {
                panic!(
                    "nginx ended ({status}): {}{}",
                    nginx.process.output(),
                    nginx.errors()
                );
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        nginx
    }

    /// What `nginx -t` says of this content of the `http` block: whether it is accepted, and the words.
    #[must_use]
    pub fn test(root: &Root, http: &str) -> (bool, String) {
        let prefix = root.join("test");
        fs::create_dir_all(&prefix).expect("nginx's directory can be made");
        let text = whole(&prefix, "", http);
        let file = root.write("test/nginx.conf", text);
        let (status, _, words) = process::run(
            build::nginx(),
            &[
                "-t",
                "-p",
                &prefix.to_string_lossy(),
                "-c",
                &file.to_string_lossy(),
            ],
        );
        (status.success(), words)
    }

    /// The master's process id.
    #[must_use]
    pub fn master(&self) -> u32 {
        self.process.id()
    }

    /// The workers' process ids.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        workers_of(self.process.id())
    }

    /// Replaces the `http` block and reloads; waits until none of the workers seen before takes new connections.
    pub fn reload(&self, http: &str) {
        fs::write(
            self.prefix.join("nginx.conf"),
            whole(&self.prefix, "", http),
        )
        .expect("nginx.conf can be written");
        self.reload_as_is();
    }

    /// Reloads the configuration as it is on disk; waits until the workers have been replaced.
    pub fn reload_as_is(&self) {
        reload(self.process.id());
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The error log so far.
    #[must_use]
    pub fn errors(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Checks that no worker died by a signal, that no guard caught a panic and no alert was raised.
    ///
    /// # Panics
    /// When the error log says so.
    #[track_caller]
    pub fn assert_healthy(&self) {
        assert_no_crash(&self.errors());
    }
}

/// The group of nginx's workers.
///
/// # Panics
/// When nginx's package has not made it.
#[must_use]
pub fn group() -> u32 {
    let groups = fs::read_to_string("/etc/group").expect("there are groups");
    let line = groups
        .lines()
        .find(|line| line.starts_with("www-data:"))
        .expect("nginx's package made it");
    line.split(':')
        .nth(2)
        .and_then(|id| id.parse().ok())
        .expect("a number")
}

/// The workers of a master that are not shutting down.
#[must_use]
pub fn workers_of(master: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| {
            process::Seen::look(*pid).is_some_and(|seen| seen.command == "nginx: worker process")
        })
        .collect()
}

/// Reloads a master (SIGHUP) and waits until other workers than before serve.
pub fn reload(master: u32) {
    let before = workers_of(master);
    process::send(master, Signal::HUP);
    wait::until_true("new workers after a reload", || {
        let now = workers_of(master);
        !now.is_empty() && now.iter().all(|worker| !before.contains(worker))
    });
}

/// Checks an error log: no process died by a signal, nothing panicked.
///
/// # Panics
/// When one did.
#[track_caller]
pub fn assert_no_crash(errors: &str) {
    let bad: Vec<&str> = errors
        .lines()
        .filter(|line| {
            line.contains("exited on signal")
                || line.contains("panick")
                || line.contains("[alert]")
                || line.contains("[emerg]")
        })
        .collect();
    assert!(bad.is_empty(), "the error log has:\n{}", bad.join("\n"));
}
