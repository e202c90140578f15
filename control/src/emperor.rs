//! Talking to the uWSGI Emperor: waking it, asking it what it runs, and noticing that it has come or gone.
//!
//! The Emperor looks for vassal files after any event; a connection to its stats socket is one that never gets lost. It writes
//! its statistics blocking, so whoever connects must read to the end (it hangs until then), and nobody else may connect.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::settings::Settings;

/// An Emperor that takes longer than this is not well.
const PATIENCE: Duration = Duration::from_secs(10);
/// For each vassal it starts, the Emperor closes every descriptor it could have: this many, and as many sites can run.
const DESCRIPTORS: u64 = 8192;

/// What can go wrong with the Emperor.
#[derive(Debug, thiserror::Error)]
pub enum EmperorError {
    /// Nobody listens.
    #[error("no Emperor listens at {}: {source}; `paasctl up`, or the unit of the Emperor, starts one", path.display())]
    Absent {
        /// Its stats socket.
        path: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// It does not answer.
    #[error("the Emperor at {} does not answer within {} s", path.display(), PATIENCE.as_secs())]
    Silent {
        /// Its stats socket.
        path: PathBuf,
    },
    /// It answers something else.
    #[error("the Emperor at {} sent statistics that are none: {source}", path.display())]
    Strange {
        /// Its stats socket.
        path: PathBuf,
        /// What is wrong with them.
        source: serde_json::Error,
    },
}

/// What the Emperor says of itself; of its many fields, those that are used.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    /// Its process.
    pub pid: i32,
    /// Whom it runs.
    pub vassals: Vec<Vassal>,
    /// Names it will not start again for a while.
    #[serde(default)]
    pub blacklist: Vec<Blacklisted>,
}

/// One running vassal.
#[derive(Clone, Debug, Deserialize)]
pub struct Vassal {
    /// The vassal file's name.
    pub id: String,
    /// Its process, -1 for none.
    pub pid: i32,
    /// 1 when the application accepts.
    pub accepting: u8,
}

/// One name on the blacklist.
#[derive(Clone, Debug, Deserialize)]
pub struct Blacklisted {
    /// The vassal file's name.
    pub id: String,
}

/// Connects, which makes the Emperor look for vassal files, and reads its statistics to the end.
pub async fn poke(socket: &Path) -> Result<Stats, EmperorError> {
    let path = || socket.to_owned();
    let absent = |source| EmperorError::Absent {
        path: path(),
        source,
    };
    let converse = async {
        let mut text = Vec::new();
        let mut stream = UnixStream::connect(socket).await?;
        stream.read_to_end(&mut text).await?;
        Ok(text)
    };
    let text = timeout(PATIENCE, converse)
        .await
        .map_err(|_| EmperorError::Silent { path: path() })?
        .map_err(absent)?;
    if text.is_empty() {
        return Err(absent(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&text).map_err(|source| EmperorError::Strange {
        path: path(),
        source,
    })
}

/// A handle on the Emperor's process, which tells when it ends.
pub fn process(stats: &Stats) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(stats.pid).ok_or_else(|| io::Error::other("the Emperor has no pid"))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Wakes the Emperor, in the background and once for any number of calls that come while it is being woken.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<Notify>);

impl Alarm {
    /// Starts the background task.
    pub fn new(socket: PathBuf) -> Alarm {
        let alarm = Alarm(Arc::new(Notify::new()));
        let notify = alarm.0.clone();
        tokio::spawn(async move {
            loop {
                notify.notified().await;
                match poke(&socket).await {
                    Ok(_) => {}
                    // A new one looks at everything when it comes.
                    Err(EmperorError::Absent { .. }) => tracing::debug!("no Emperor to wake"),
                    Err(problem) => tracing::error!(%problem, "cannot wake the Emperor"),
                }
            }
        });
        alarm
    }

    /// The Emperor will look for vassal files after this.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

#[derive(Template)]
#[template(path = "emperor.ini", escape = "none")]
struct EmperorIni<'a> {
    vassals: &'a str,
    stats: &'a str,
    launcher: &'a str,
    launch_socket: &'a str,
    descriptors: u64,
}

/// The Emperor's configuration on this machine. Paths below the root have no characters that uWSGI would replace.
pub fn configuration(settings: &Settings) -> Result<String, askama::Error> {
    let paths = settings.paths();
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    EmperorIni {
        vassals: &text(paths.vassals()),
        stats: &text(paths.emperor_stats()),
        launcher: settings.backend.launcher.as_str(),
        launch_socket: &text(paths.launch_socket()),
        descriptors: DESCRIPTORS,
    }
    .render()
}
