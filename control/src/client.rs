//! Asking the machine's daemon through its control socket.
use crate::settings::Settings;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long the daemon may take to bring the table up to date (a million sites anew take some seconds).
const PATIENCE: Duration = Duration::from_secs(30);

/// Of a machine whose settings are not read here.
const CONTROL_SOCKET: &str = "run/paas/control.sock";

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Refreshed::Failed(error.to_string()),
    };
    let socket = settings.paths().control_socket();
    let sockets = neighbours(settings)
        .into_iter()
        .map(|root| root.join(CONTROL_SOCKET));
    let neighbours: Vec<_> = sockets.filter(|socket| socket.exists()).collect();
    runtime.block_on(async {
        let all = async {
            let answer = post(&socket, "/refresh").await;
            for neighbour in &neighbours {
                // They hear of the commit by themselves; this only waits for it.
                post(neighbour, "/refresh").await;
            }
            answer
        };
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(answer) => answer,
            Err(_) => Refreshed::Failed(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    })
}

/// The roots of the other machines that `paasctl up` composes around one registry file: so that a command returns when all of
/// them route what it added, and finds what lies on them.
pub fn neighbours(settings: &Settings) -> Vec<std::path::PathBuf> {
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

async fn post(socket: &Path, path: &str) -> Refreshed {
    let stream = match tokio::net::UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Refreshed::NoDaemon;
        }
        Err(error) => return Refreshed::Failed(format!("{}: {error}", socket.display())),
    };
    match exchange(stream, path).await {
        Ok((status, _)) if status.is_success() => Refreshed::Held,
        Ok((status, said)) => Refreshed::Failed(format!("it answered {status}: {}", said.trim())),
        Err(error) => Refreshed::Failed(error.to_string()),
    }
}

async fn exchange(
    stream: tokio::net::UnixStream,
    path: &str,
) -> hyper::Result<(hyper::StatusCode, String)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post(path)
        .header("Host", "paas")
        .body(Empty::<Bytes>::new());
    // A constant path and header always make a request.
    let Ok(request) = request else {
        return Ok((hyper::StatusCode::BAD_REQUEST, String::new()));
    };
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
