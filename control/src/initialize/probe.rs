//! The request that new code must answer before a reload gives it the site's name.
//!
//! Good is every answer below 500: the application runs and decides what it says (a login, a redirect, a missing front page). A
//! 5xx, something that is no answer, or none in time is not good.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::model::{ProbeTarget, Protocol, Site};

/// Then the application has not answered.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions to a server that takes connections but does not answer them.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the answer, as much as the status line needs.
const STATUS_LINE: usize = 64;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The site's primary domain.
    pub host: String,
    /// A path with an optional query, starting with a slash.
    pub target: String,
    /// What the site speaks.
    pub protocol: Protocol,
}

impl Request {
    /// The request for `site`.
    pub fn to(site: &Site) -> Request {
        Request {
            host: site.domain.to_string(),
            target: site
                .settings
                .probe
                .as_ref()
                .map_or("/", ProbeTarget::as_str)
                .to_owned(),
            protocol: site.application.protocol(),
        }
    }
}

/// Why an application did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its answer says that it does not work.
    #[error("it answered {status} to GET {target}")]
    Status {
        /// What it said.
        status: u16,
        /// To what.
        target: String,
    },
    /// What came is no answer.
    #[error("what it sent in answer to GET {target} is no HTTP answer")]
    Strange {
        /// To what.
        target: String,
    },
    /// The connection broke.
    #[error("it broke off at GET {target}: {source}")]
    Broken {
        /// At what.
        target: String,
        /// How.
        source: io::Error,
    },
    /// Nothing came.
    #[error("it did not answer GET {target} within {} s", PATIENCE.as_secs())]
    Silent {
        /// To what.
        target: String,
    },
}

/// Waits until a server that does not say so itself serves `socket`: until it answers anything at all. The connection waits in the
/// socket's queue while the server starts, so nothing is asked twice but of a server that closes without an answer.
pub async fn until_served(socket: &Path, request: &Request) {
    let head = format!(
        "HEAD {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: paas-probe\r\nConnection: close\r\n\r\n",
        request.target, request.host
    );
    loop {
        if let Ok(true) = answers(socket, head.as_bytes()).await {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Whether the beginning of what comes back is that of an HTTP answer. Not every server closes when it is asked to.
async fn answers(socket: &Path, request: &[u8]) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request).await?;
    let mut start = [0u8; 5];
    stream.read_exact(&mut start).await?;
    Ok(start == *b"HTTP/")
}

/// Sends the request to the processes that listen at `socket`.
pub async fn send(socket: &Path, request: &Request) -> Result<(), ProbeError> {
    let target = || request.target.clone();
    let line = timeout(PATIENCE, exchange(socket, &encoded(request)))
        .await
        .map_err(|_| ProbeError::Silent { target: target() })?
        .map_err(|source| ProbeError::Broken {
            target: target(),
            source,
        })?;
    match status(&line) {
        Some(100..500) => Ok(()),
        Some(status) => Err(ProbeError::Status {
            status,
            target: target(),
        }),
        None => Err(ProbeError::Strange { target: target() }),
    }
}

/// The first bytes of the answer. The rest is read, too: an application that cannot send it would complain.
async fn exchange(socket: &Path, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(packet).await?;
    let mut start = Vec::new();
    let mut part = vec![0u8; 16 * 1024];
    loop {
        let length = stream.read(&mut part).await?;
        if length == 0 {
            break;
        }
        let wanted = STATUS_LINE - start.len();
        start.extend(part.iter().take(length.min(wanted)));
    }
    match start.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(start),
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    let digits = rest.get(..3)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    digits.parse().ok()
}

fn encoded(request: &Request) -> Vec<u8> {
    match request.protocol {
        Protocol::Uwsgi => packet(request),
        Protocol::Http => format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: paas-probe\r\nConnection: close\r\n\r\n",
            request.target, request.host
        )
        .into_bytes(),
    }
}

/// The request in uWSGI's protocol, with the variables that nginx sends.
fn packet(request: &Request) -> Vec<u8> {
    let Request { host, target, .. } = request;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let variables = [
        ("QUERY_STRING", query),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("REQUEST_URI", target),
        ("PATH_INFO", path),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", host),
        ("SERVER_PORT", "80"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("HTTP_HOST", host),
        ("HTTP_USER_AGENT", "paas-probe"),
        ("HTTP_CONNECTION", "close"),
    ];
    let mut body = Vec::new();
    for (name, value) in variables {
        for text in [name, value] {
            // A domain has 253 characters at most and a target is bounded where it is set.
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            body.extend(length.to_le_bytes());
            body.extend(text.bytes().take(length.into()));
        }
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let [low, high] = length.to_le_bytes();
    let mut packet = vec![0, low, high, 0];
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8]) -> Result<(), ProbeError> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let request = Request {
            host: "a.test".to_owned(),
            target: "/health?deep=1".to_owned(),
            protocol: Protocol::Uwsgi,
        };
        let application = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0u8; 4];
            stream.read_exact(&mut head).await.unwrap();
            let mut variables = vec![0u8; usize::from(u16::from_le_bytes([head[1], head[2]]))];
            stream.read_exact(&mut variables).await.unwrap();
            let text = String::from_utf8_lossy(&variables).into_owned();
            for expected in ["/health", "deep=1", "/health?deep=1", "a.test"] {
                assert!(text.contains(expected), "{expected} in {text:?}");
            }
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(send(&socket, &request), application).0
    }

    #[tokio::test]
    async fn what_is_good_is_what_the_application_decided() {
        for good in [
            &b"HTTP/1.1 200 OK\r\n\r\nfine"[..],
            b"HTTP/1.0 302 Found\r\nLocation: /login\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\n\r\n",
        ] {
            answered(good).await.unwrap();
        }
        assert!(matches!(
            answered(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await,
            Err(ProbeError::Status { status: 500, .. })
        ));
        assert!(matches!(
            answered(b"").await,
            Err(ProbeError::Broken { .. })
        ));
        assert!(matches!(
            answered(b"nonsense\r\n").await,
            Err(ProbeError::Strange { .. })
        ));
    }

    #[tokio::test]
    async fn a_server_serves_when_it_has_answered_anything() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let request = Request {
            host: "a.test".to_owned(),
            target: "/".to_owned(),
            protocol: Protocol::Http,
        };
        let server = async {
            // One that is not ready yet closes, one that is answers, whatever it thinks of the question.
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0u8; 512];
            let length = stream.read(&mut head).await.unwrap();
            assert!(head[..length].starts_with(b"HEAD / HTTP/1.1\r\nHost: a.test\r\n"));
            stream
                .write_all(b"HTTP/1.0 501 Unsupported method\r\n\r\n")
                .await
                .unwrap();
        };
        tokio::join!(until_served(&socket, &request), server);
    }
}
