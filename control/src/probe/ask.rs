//! One question to a backend's nginx, and what the answer means.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::model::Span;
use crate::settings::Canary;

/// The name that a backend's nginx tells its health under; no site can have it.
pub const HOST: &str = "paas.invalid";
/// The path.
const PATH: &str = "/health";
/// A report is not longer.
const LONGEST: usize = 256 * 1024;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It serves, and says how it is.
    Serves(serde_json::Value),
    /// It says itself that it cannot serve.
    Cannot(String, serde_json::Value),
    /// It answers, but not that question: another nginx, or one that was rendered by an earlier version.
    Unclear(StatusCode),
    /// Nobody is there.
    Unreached(String),
    /// Somebody is, and says nothing.
    Silent,
}

/// Asks how it is.
pub async fn health(address: SocketAddr, within: Span) -> Found {
    let (status, _, body) = match exchange(address, HOST, PATH, within, within).await {
        Ok(answer) => answer,
        Err(found) => return found,
    };
    let report = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .filter(|report| {
            report
                .get("serves")
                .is_some_and(serde_json::Value::is_boolean)
        });
    match (report, status) {
        (Some(report), _) if report["serves"] == true => Found::Serves(report),
        (Some(report), _) => {
            let reason = report["reason"].as_str().unwrap_or("unknown");
            Found::Cannot(reason.to_owned(), report)
        }
        (None, status) => Found::Unclear(status),
    }
}

/// Asks for a page of a real site. None: it says nothing about the backend. Otherwise whether it is well, and if not, why.
pub async fn canary(
    address: SocketAddr,
    canary: &Canary,
    connect: Span,
    within: Span,
) -> Option<Result<(), String>> {
    let answer = exchange(
        address,
        canary.host.as_str(),
        &canary.target,
        connect,
        within,
    )
    .await;
    Some(match answer {
        // That is what the other probe is for.
        Err(Found::Unreached(_)) => return None,
        Err(Found::Silent) => Err(format!("no answer within {within}")),
        Err(found) => Err(format!("{found:?}")),
        // It is being emptied, and wakes nobody.
        Ok((_, Some(reason), _)) if reason == "elsewhere" => return None,
        Ok((status, _, _)) if status.is_server_error() => Err(format!("it answered {status}")),
        Ok(_) => Ok(()),
    })
}

type Answer = (StatusCode, Option<String>, Bytes);

async fn exchange(
    address: SocketAddr,
    host: &str,
    target: &str,
    connect: Span,
    within: Span,
) -> Result<Answer, Found> {
    let unreached = |why: String| Found::Unreached(why);
    let stream = match timeout(connect.duration(), TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| unreached(error.to_string()))?,
        Err(_) => return Err(unreached(format!("no connection within {connect}"))),
    };
    match timeout(within.duration(), converse(stream, host, target)).await {
        Ok(answered) => answered.map_err(unreached),
        Err(_) => Err(Found::Silent),
    }
}

/// All of it ends, and the connection with it, when this is dropped.
async fn converse(stream: TcpStream, host: &str, target: &str) -> Result<Answer, String> {
    let words = |error: hyper::Error| error.to_string();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(words)?;
    let request = Request::get(target)
        .header("Host", host)
        .header("Connection", "close")
        .header("User-Agent", "paas-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status();
        let reason = answer.headers().get("x-paas-reason");
        let reason = reason.and_then(|reason| reason.to_str().ok());
        let reason = reason.map(str::to_owned);
        let body = Limited::new(answer.into_body(), LONGEST);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok((status, reason, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => return answer,
        // What it has read before it was closed is still to be taken.
        _ = connection => {}
    }
    exchange.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Says this to whoever connects, once; nothing, and the connection stays open until the test ends.
    async fn ask(says: Option<&'static str>) -> Found {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            let patience = std::time::Duration::from_secs(30);
            stream.set_read_timeout(Some(patience)).unwrap();
            if let Some(says) = says {
                stream.write_all(says.as_bytes()).unwrap();
            } else {
                // Until the other side has had enough.
                let left = stream.read(&mut [0; 1]);
                assert!(matches!(left, Ok(0)), "it hangs up: {left:?}");
            }
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let found = health(address, Span::from_millis(500).unwrap()).await;
        let request = tokio::task::spawn_blocking(|| server.join().unwrap());
        let request = request.await.unwrap();
        assert!(
            request.starts_with("GET /health HTTP/1.1\r\nhost: paas.invalid\r\n"),
            "{request}"
        );
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_is_taken_for_what_it_is() {
        let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"serves\":true,\"reason\":\"ok\"}";
        assert!(matches!(ask(Some(ok)).await, Found::Serves(_)));
        let cannot =
            "HTTP/1.1 503 X\r\nConnection: close\r\n\r\n{\"serves\":false,\"reason\":\"storage\"}";
        assert!(matches!(ask(Some(cannot)).await, Found::Cannot(reason, _) if reason == "storage"));
        for other in [
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nno such site",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert!(
                matches!(ask(Some(other)).await, Found::Unclear(_)),
                "{other}"
            );
        }
        for broken in [
            "",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        ] {
            assert!(
                matches!(ask(Some(broken)).await, Found::Unreached(_)),
                "{broken}"
            );
        }
        assert_eq!(ask(None).await, Found::Silent);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_there_is_unreached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let found = health(address, Span::from_millis(500).unwrap()).await;
        assert!(matches!(found, Found::Unreached(why) if why.contains("refused")));
    }
}
