//! The launcher's side of the daemon: `launch.sock`, where a vassal that the Emperor has just started asks for its socket.
//!
//! The connection also says which process it is (the kernel does, not the launcher), and that process becomes uWSGI: a handle on
//! it, taken while it waits for its answer, tells later when it has ended.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::driver::Message;
use super::order::Order;
use super::words::Generation;
use crate::model::SiteId;
use crate::vassal;

/// The launcher asks at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// No vassal file's name is longer.
const LONGEST: u64 = 64;
/// Of what went wrong in the launcher.
const COMPLAINT: u64 = 4096;

/// A launcher's question.
#[derive(Debug)]
pub struct Question {
    /// For which site.
    pub site: SiteId,
    /// For which of its generations.
    pub generation: Generation,
    /// The launcher, later uWSGI.
    pub process: OwnedFd,
    /// Where the answer goes; dropped, it is a no.
    pub answer: oneshot::Sender<Grant>,
}

/// What a launcher gets.
#[derive(Debug)]
pub struct Grant {
    /// The order's lines.
    pub order: Order,
    /// The listening socket.
    pub listener: OwnedFd,
}

/// Answers launchers for ever.
pub async fn serve(listener: UnixListener, driver: mpsc::Sender<Message>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let driver = driver.clone();
                tokio::spawn(async move {
                    if let Err(problem) = converse(stream, &driver).await {
                        tracing::warn!(%problem, "a conversation with a launcher ended badly");
                    }
                });
            }
            Err(problem) => {
                tracing::error!(%problem, "cannot accept launchers; trying again in a second");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, driver: &mpsc::Sender<Message>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "uid {} is nobody who launches sites",
            peer.uid()
        )));
    }
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    timeout(PATIENCE, (&mut stream).take(LONGEST).read_line(&mut name)).await??;
    let Some((site, generation)) = vassal::parse_file_name(name.trim_end()) else {
        return Err(io::Error::other(format!(
            "{name:?} is not a vassal file's name"
        )));
    };
    let pid = peer
        .pid()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the kernel does not tell who asks"))?;
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let (answer, granted) = oneshot::channel();
    let question = Message::LaunchAsked(Question {
        site,
        generation,
        process,
        answer,
    });
    driver
        .send(question)
        .await
        .map_err(|_| io::Error::other("the daemon is ending"))?;
    let Ok(grant) = granted.await else {
        tracing::debug!(%site, %generation, "refused a launcher");
        return Ok(());
    };
    send(&mut stream, &grant).await?;
    let mut complaint = String::new();
    (&mut stream)
        .take(COMPLAINT)
        .read_to_string(&mut complaint)
        .await?;
    if !complaint.is_empty() {
        tracing::error!(%site, %generation, "paas-launch: {complaint}");
        // Only a driver that has ended does not listen.
        let _ = driver
            .send(Message::Complained(site, generation, complaint))
            .await;
    }
    Ok(())
}

async fn send(stream: &mut BufReader<UnixStream>, grant: &Grant) -> io::Result<()> {
    let order = grant.order.as_bytes();
    let socket = stream.get_ref();
    let send = || {
        let descriptors = [grant.listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        Ok(sendmsg(
            socket,
            &[IoSlice::new(order)],
            &mut rights,
            SendFlags::NOSIGNAL,
        )?)
    };
    let sent = socket.async_io(Interest::WRITABLE, send).await?;
    // The socket went with the first bytes; a long environment does not fit into one message.
    timeout(
        PATIENCE,
        stream.write_all(order.get(sent..).unwrap_or_default()),
    )
    .await?
}
