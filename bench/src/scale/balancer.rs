//! A balancer of the platform with its daemon, and what is measured of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use paas_tests::nginx::workers_of;
use paas_tests::{Connection, Nginx, Paasctl, Process, Request, Root, build, process, wait};
use rustix::process::Signal;

use super::Figures;
use crate::sites;

/// So many sites are visited before a worker's memory is looked at.
const VISITED: u32 = 1_000;

/// A running balancer.
#[derive(Debug)]
pub struct Balancer {
    /// Where it listens.
    pub port: u16,
    /// What was measured.
    pub figures: Figures,
    paasctl: Paasctl,
    nginx: Nginx,
    _daemon: Process,
}

impl Balancer {
    /// Fills a registry, and starts what a balancer has.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(
        root: &Root,
        name: &str,
        count: u32,
        backends: usize,
        upstream: u16,
    ) -> anyhow::Result<Balancer> {
        let (port, directory) = (root.port(), root.join(name));
        root.write(
            format!("{name}/etc/paas/paas.toml"),
            format!(
                "name = \"{name}\"\nroles = [\"balancer\"]\n[nginx]\nworkers = 1\nmodule = {:?}\n[balancer]\nlisten = [\"127.0.0.1:{port}\"]\nprobe = {{ interval = \"60s\" }}\n",
                build::module()
            ),
        );
        for made in ["run/paas", "var/log/paas"] {
            fs::create_dir_all(directory.join(made))?;
        }
        let paasctl = Paasctl::new(&directory);
        paasctl.ok(&["add-user", "owner"]);
        eprintln!("{name}: {backends} backends, {count} sites");
        for number in 0..backends {
            let address = sites::upstream(number, upstream).to_string();
            paasctl.ok(&["add-backend", &format!("b{}", number + 1), &address]);
        }
        let list = list(root, name, count)?;
        let (added, _) = timed(|| paasctl.ok(&["add-site", "--from", &list.to_string_lossy()]));
        fs::remove_file(list)?;
        let (built, daemon) = timed(|| serve(&paasctl, &directory));
        paasctl.ok(&["render"]);
        let nginx = Nginx::rendered(&directory, port);
        let table = size(&directory.join("var/lib/paas/table"))?;
        Ok(Balancer {
            port,
            figures: Figures {
                sites: count,
                added,
                built,
                table: table as f64 / 1e6,
                ..Figures::default()
            },
            paasctl,
            nginx,
            _daemon: daemon?,
        })
    }

    /// The one worker.
    #[must_use]
    pub fn worker(&self) -> u32 {
        wait::until("a worker", || self.nginx.workers().first().copied())
    }

    /// Measures everything once.
    ///
    /// # Errors
    /// Something did not answer.
    pub fn measure(&mut self, round: usize) -> anyhow::Result<()> {
        let (tested, accepted) = timed(|| self.test());
        accepted?;
        self.note("nginx -t, ms", tested);
        let (reloaded, done) = timed(|| self.reload());
        done?;
        self.note("reload, ms", reloaded);
        // A worker has read nothing of the table yet.
        let (first, answer) = timed(|| self.visit(0));
        answer?;
        self.note("first request of a worker, ms", first);
        for number in 0..VISITED {
            self.visit(number)?;
        }
        let memory = Memory::of(self.worker())?;
        self.note("worker, own memory, MB", memory.own);
        self.note("worker, mapped files and shared memory, MB", memory.mapped);
        self.note(
            "nginx's master, own memory, MB",
            Memory::of(self.nginx.master())?.own,
        );
        let domain = format!("new{round}.example.com");
        let arguments = [
            "add-site",
            &domain,
            "--user",
            "owner",
            "--dir",
            "/srv",
            "--entry",
            "app:app",
            "--no-check",
        ];
        let (updated, _) = timed(|| self.paasctl.ok(&arguments));
        self.note("add-site until the table has it, ms", updated);
        let status = self.ask(&domain)?;
        ensure!(status != 404, "{domain} is not known: {status}");
        self.paasctl.ok(&["remove-site", &domain]);
        Ok(())
    }

    fn note(&mut self, what: &str, figure: f64) {
        let rounds = &mut self.figures.rounds;
        rounds.entry(what.to_owned()).or_default().push(figure);
    }

    fn test(&self) -> anyhow::Result<()> {
        let status = Command::new(build::nginx())
            .args(["-q", "-t", "-c"])
            .arg(self.paasctl.root().join("var/lib/paas/current/nginx.conf"))
            .status()?;
        ensure!(status.success(), "nginx -t: {status}");
        Ok(())
    }

    /// From the signal until other workers serve.
    fn reload(&self) -> anyhow::Result<()> {
        let before = self.nginx.workers();
        self.nginx.signal(Signal::HUP);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = workers_of(self.nginx.master());
            if !now.is_empty() && now.iter().all(|worker| !before.contains(worker)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no new workers after a reload");
            // Whoever looks without a pause takes a core from them.
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn visit(&self, number: u32) -> anyhow::Result<()> {
        let status = self.ask(&sites::name(number * (self.figures.sites / VISITED)))?;
        ensure!(status == 200, "site {number}: {status}");
        Ok(())
    }

    fn ask(&self, host: &str) -> anyhow::Result<u16> {
        let mut connection = Connection::open(self.port)?;
        Ok(connection.exchange(&Request::get(host, "/"))?.status)
    }
}

/// Starts the daemon; comes back when the table is there.
fn serve(paasctl: &Paasctl, directory: &Path) -> anyhow::Result<Process> {
    let log = directory.join("var/log/paas/paasctl.log");
    let mut daemon = Process::start(
        "paasctl serve",
        &mut paasctl.command(&["serve"]),
        &log,
        Signal::TERM,
    );
    let socket = directory.join("run/paas/control.sock");
    let deadline = Instant::now() + Duration::from_secs(600);
    while process::ask_daemon(&socket, "/status").is_none() {
        ensure!(
            daemon.ended().is_none(),
            "the daemon ended: {}",
            daemon.output()
        );
        ensure!(
            Instant::now() < deadline,
            "the daemon is not ready: {}",
            daemon.output()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(daemon)
}

/// All sites, as `add-site --from` reads them.
fn list(root: &Root, name: &str, count: u32) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    for number in 0..count {
        writeln!(
            text,
            r#"{{"domain":"{}","user":"owner","directory":"/srv","entry":"app:app"}}"#,
            sites::name(number)
        )?;
    }
    Ok(root.write(format!("{name}/sites.jsonl"), text))
}

/// How long something took, in milliseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let done = work();
    (began.elapsed().as_secs_f64() * 1e3, done)
}

/// Bytes on the disk: the map itself is sparse.
fn size(directory: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut all = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        all += match metadata.is_dir() {
            true => size(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(all)
}

/// A process's memory, in MB.
struct Memory {
    /// What nobody else has.
    own: f64,
    /// What is in memory of files and shared memory; several processes may have the same.
    mapped: f64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kilobytes: f64 = number.with_context(|| format!("no {name}"))?.parse()?;
            Ok(kilobytes / 1e3)
        };
        Ok(Memory {
            own: field("RssAnon")?,
            mapped: field("RssFile")? + field("RssShmem")?,
        })
    }
}
