//! What becomes of the requests in a queue that nobody will serve: each is read and answered with an error page. A mere close
//! would reach nginx as a reset of a request that was sent, which it may not repeat.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use askama::Template;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::held::Held;
use super::words::Failure;
use crate::error_page::{self, ErrorPage};
use crate::model::Protocol;
use crate::model::SiteId;

/// A request that has not been read by then is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// nginx sends no longer head.
const LONGEST_HEAD: usize = 256 * 1024;

/// Closes the socket for good. Connections in its queue get the page; so does what slips in until it is closed off.
pub fn release(held: Held, site: SiteId, protocol: Protocol, failure: Failure) {
    loop {
        let answered = std::iter::from_fn(|| held.take())
            .map(|connection| reject(connection, site, protocol, failure))
            .count();
        if answered > 0 {
            tracing::info!(%site, answered, reason = failure.reason.word(), "answered a queue with error pages");
        }
        if answered == 0 {
            break;
        }
    }
    held.close_off();
    for connection in std::iter::from_fn(|| held.take()) {
        reject(connection, site, protocol, failure);
    }
    held.discard();
}

fn reject(connection: OwnedFd, site: SiteId, protocol: Protocol, failure: Failure) {
    tokio::spawn(async move {
        let Ok(connection) = UnixStream::from_std(StdStream::from(connection)) else {
            return;
        };
        if timeout(PATIENCE, answer(connection, protocol, &page(site, failure)))
            .await
            .is_err()
        {
            tracing::debug!(%site, "a queued request did not arrive whole");
        }
    });
}

/// Reads the request's head, answers, and goes on reading until nginx closes: a body that is still coming must not meet a
/// closed socket, or the answer is lost in a reset.
async fn answer(mut connection: UnixStream, protocol: Protocol, page: &str) -> std::io::Result<()> {
    match protocol {
        Protocol::Uwsgi => {
            let mut head = [0u8; 4];
            connection.read_exact(&mut head).await?;
            let [_, low, high, _] = head;
            let mut variables = vec![0u8; usize::from(u16::from_le_bytes([low, high]))];
            connection.read_exact(&mut variables).await?;
        }
        Protocol::Http => read_head(&mut connection).await?,
    }
    connection.write_all(page.as_bytes()).await?;
    connection.shutdown().await?;
    let mut rest = [0u8; 16 * 1024];
    while connection.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Reads to the empty line behind an HTTP head; what follows is the body's.
async fn read_head(connection: &mut UnixStream) -> std::io::Result<()> {
    let (mut last, mut byte, mut read) = ([0u8; 4], [0u8; 1], 0);
    let mut buffered = tokio::io::BufReader::new(connection);
    while last != *b"\r\n\r\n" {
        buffered.read_exact(&mut byte).await?;
        last.rotate_left(1);
        last[3] = byte[0];
        read += 1;
        if read > LONGEST_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// The answer as an application would give it, with the page that nginx shows for others. nginx lets no header
/// `X-Paas-...` of a site pass, whoever answers in its place.
fn page(site: SiteId, failure: Failure) -> String {
    let reason = failure.reason;
    let page = ErrorPage {
        title: error_page::TITLE,
        text: error_page::TEXT,
        status: 503,
        reason: reason.word(),
        id: &failure.id(site),
    };
    // Writing into memory does not fail.
    let body = page.render().unwrap_or_default();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
         Retry-After: {retry}\r\nCache-Control: no-store\r\n\r\n{body}",
        length = body.len(),
        retry = reason.retry_after(),
    )
}
