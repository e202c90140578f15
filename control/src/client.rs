//! Asking the machine's daemon, and those beside it, through their control sockets.
use crate::settings::Settings;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take to bring the table up to date (a million sites anew take some seconds).
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a machine whose settings are not read here.
const CONTROL_SOCKET: &str = "run/paas/control.sock";

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs.
    #[error("no daemon listens at {}: `paasctl serve` is one", socket.display())]
    NoDaemon {
        /// Its control socket.
        socket: PathBuf,
    },
    /// It was not quick enough.
    #[error("the daemon at {} did not answer within {} s", socket.display(), within.as_secs())]
    Late {
        /// Its control socket.
        socket: PathBuf,
        /// How long it had.
        within: Duration,
    },
    /// Anything else.
    #[error("the daemon at {}: {why}", socket.display())]
    Failed {
        /// Its control socket.
        socket: PathBuf,
        /// What happened.
        why: String,
    },
}

/// What a daemon answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// What it said.
    pub body: String,
}

/// What came of `POST /refresh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// The table holds what was committed.
    Held,
    /// No daemon runs here.
    NoDaemon,
    /// There is one, but it did not do it: why.
    Failed(String),
}

/// Tells the daemon that the registry has changed, and waits until the table holds it.
pub fn refresh(settings: &Settings) -> Refreshed {
    let answer = ask_own(settings, "/refresh");
    for neighbour in beside(settings) {
        // They hear of the commit by themselves; this only waits for it.
        let _ = ask(&neighbour, Method::POST, "/refresh", PATIENCE);
    }
    match answer {
        Ok(answer) if answer.status.is_success() => Refreshed::Held,
        Ok(Answer { status, body }) => {
            Refreshed::Failed(format!("it answered {status}: {}", body.trim()))
        }
        Err(AskError::NoDaemon { .. }) => Refreshed::NoDaemon,
        Err(problem) => Refreshed::Failed(problem.to_string()),
    }
}

fn ask_own(settings: &Settings, path: &str) -> Result<Answer, AskError> {
    ask(
        &settings.paths().control_socket(),
        Method::POST,
        path,
        PATIENCE,
    )
}

/// The control sockets of this machine and of those beside it.
pub fn daemons(settings: &Settings) -> Vec<PathBuf> {
    let mut sockets = vec![settings.paths().control_socket()];
    sockets.extend(beside(settings));
    sockets
}

fn beside(settings: &Settings) -> impl Iterator<Item = PathBuf> {
    neighbours(settings)
        .into_iter()
        .map(|root| root.join(CONTROL_SOCKET))
        .filter(|socket| socket.exists())
}

/// The roots of the other machines that `paasctl up` composes around one registry file: so that a command returns when all of
/// them route what it added, and finds what lies on them.
pub fn neighbours(settings: &Settings) -> Vec<PathBuf> {
    let around = settings.paths().registry().parent();
    if around != settings.paths().root().parent() {
        return Vec::new();
    }
    let roots = around.and_then(|directory| std::fs::read_dir(directory).ok());
    let roots = roots
        .into_iter()
        .flatten()
        .flatten()
        .map(|root| root.path());
    let mut roots: Vec<_> = roots
        .filter(|root| root != settings.paths().root() && root.join("etc/paas").is_dir())
        .collect();
    roots.sort();
    roots
}

/// One question, and its answer within a time.
pub fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    within: Duration,
) -> Result<Answer, AskError> {
    let failed = |why: String| AskError::Failed {
        socket: socket.to_owned(),
        why,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(within, converse(socket, method, path));
        let answer = answer.await.map_err(|_| AskError::Late {
            socket: socket.to_owned(),
            within,
        })?;
        answer.map_err(|error| match error {
            Broken::Connect(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                AskError::NoDaemon {
                    socket: socket.to_owned(),
                }
            }
            Broken::Connect(error) => failed(error.to_string()),
            Broken::Exchange(error) => failed(error.to_string()),
        })
    })
}

/// Waits for a daemon's first answer: where its socket is held for it, a question waits in the queue until it comes.
pub async fn until_it_answers(socket: &Path) -> io::Result<()> {
    match converse(socket, Method::GET, "/status").await {
        Ok(_) => Ok(()),
        Err(Broken::Connect(error)) => Err(error),
        Err(Broken::Exchange(error)) => Err(io::Error::other(error)),
    }
}

enum Broken {
    Connect(io::Error),
    Exchange(hyper::Error),
}

async fn converse(socket: &Path, method: Method, path: &str) -> Result<Answer, Broken> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(Broken::Connect)?;
    exchange(stream, method, path)
        .await
        .map_err(Broken::Exchange)
}

async fn exchange(
    stream: tokio::net::UnixStream,
    method: Method,
    path: &str,
) -> hyper::Result<Answer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "paas")
        .body(Empty::<Bytes>::new());
    // Paths are made of constants, ids and words: they always make a request.
    let Ok(request) = request else {
        return Ok(Answer {
            status: StatusCode::BAD_REQUEST,
            body: format!("{path} is no path"),
        });
    };
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
