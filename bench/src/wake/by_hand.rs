//! The rival: `uwsgi --ini` started by hand for the same application, and one request to it.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use paas_tests::{Process, Response, Root, wait};
use rustix::process::Signal;

use super::Phases;
use super::app::App;
use super::clock::Moment;
use crate::machine::{go_before_others, go_with_others};

/// What an operator writes down once and then starts.
#[derive(Debug)]
pub struct ByHand {
    ini: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    owner: Option<u32>,
}

impl ByHand {
    /// Writes the configuration: what matters for the start is as the platform has it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(root: &Root, app: &App, workers: u32) -> anyhow::Result<ByHand> {
        let directory = root.join(format!("by-hand/{}", app.name));
        fs::create_dir_all(&directory)?;
        let owner = rustix::process::geteuid().is_root().then_some(app.owner);
        chown(&directory, owner, owner)?;
        let socket = directory.join("socket");
        let venv = app
            .venv()
            .map(|venv| format!("virtualenv = {}\n", venv.display()))
            .unwrap_or_default();
        let ini = root.write(
            format!("by-hand/{}/uwsgi.ini", app.name),
            format!(
                "[uwsgi]\nplugin = python3\nmaster = true\nneed-app = true\nprocesses = {workers}\n\
                 enable-threads = true\nsingle-interpreter = true\nchdir = {}\nmodule = noted\n\
                 callable = application\n{venv}http-socket = {}\ndisable-logging = true\nno-orphans = true\n",
                app.directory.display(),
                socket.display()
            ),
        );
        Ok(ByHand {
            ini,
            socket,
            log: directory.join("uwsgi.log"),
            owner,
        })
    }

    /// Starts it, asks it once, and ends it.
    ///
    /// # Errors
    /// It does not answer right.
    pub fn run(&self, app: &App) -> anyhow::Result<Phases> {
        app.forget()?;
        let _ = fs::remove_file(&self.socket);
        let mut command = Command::new("uwsgi");
        command.arg("--ini").arg(&self.ini);
        if let Some(owner) = self.owner {
            command.uid(owner).gid(owner);
        }
        // As a site of the platform: scheduled like any other program, whoever starts it.
        let _ = go_with_others();
        let began = Moment::now();
        let mut process = Process::start("uwsgi", &mut command, &self.log, Signal::TERM);
        let _ = go_before_others();
        let mut stream = self.connect(&mut process)?;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n\r\n",
            app.name
        )?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        let answer = Response::read(&mut BufReader::new(stream), false)?;
        let answered = Moment::now();
        ensure!(answer.status == 200, "{answer:?}");
        let (import, imported) = app.imported()?;
        // Asked to end while its workers are being born, uWSGI may wait for ever; with it they are ended by the kernel.
        process.kill();
        Ok(Phases {
            all: answered.since(began),
            each: [
                ("spawn", import.since(began)),
                ("import", imported.since(import)),
                ("first answer", answered.since(imported)),
            ]
            .map(|(name, time)| (name.to_owned(), time))
            .into(),
        })
    }

    /// It listens long before its application is there: what is sent then waits in the queue.
    fn connect(&self, process: &mut Process) -> anyhow::Result<UnixStream> {
        let deadline = Instant::now() + wait::DEADLINE;
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                return Ok(stream);
            }
            let ended = process.ended();
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "uWSGI does not listen: {}",
                process.output()
            );
            thread::sleep(Duration::from_micros(200));
        }
    }
}
