//! The load: a number of clients in one thread, each with one connection that it keeps, every request to another of the busy sites.
//! With more connections than requests under way, each request goes over the one that has been idle for longest.
//!
//! Its clients outlive their turn, so that turns can be short and many: what disturbs a machine then disturbs all ways alike.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use super::ways::ANSWER;
use crate::sites;

/// How many requests are under way at once.
pub const CLIENTS: usize = 64;
/// Neighbours in the order of visits are none in the table: this and the number of busy sites have no common factor.
const STRIDE: usize = 1_777;

/// The requests, one for each busy site.
#[derive(Debug)]
pub struct Load {
    requests: Vec<Vec<u8>>,
}

impl Load {
    /// All of them.
    #[must_use]
    pub fn new() -> Load {
        let request = |number| {
            let host = sites::busy(number);
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
        };
        Load {
            requests: (0..sites::BUSY).map(request).collect(),
        }
    }

    /// After so many requests of a client every site was visited.
    #[must_use]
    pub fn sites(&self) -> usize {
        self.requests.len()
    }
}

/// The clients of one way.
#[derive(Debug)]
pub struct Clients {
    connections: Vec<TcpStream>,
    /// Those without a request under way, the one that has been idle for longest first.
    idle: VecDeque<usize>,
    epoll: rustix::fd::OwnedFd,
    /// Which site was visited last.
    last: usize,
}

impl Clients {
    /// Connects so many of them, at least [`CLIENTS`].
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(port: u16, count: usize) -> anyhow::Result<Clients> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for number in 0..count {
            let connection = TcpStream::connect(("127.0.0.1", port))?;
            connection.set_nodelay(true)?;
            connection.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &connection, data, epoll::EventFlags::IN)?;
            connections.push(connection);
        }
        Ok(Clients {
            connections,
            idle: (0..count).collect(),
            epoll,
            last: 0,
        })
    }

    /// Sends so many requests, [`CLIENTS`] at a time, and waits for all answers.
    ///
    /// # Errors
    /// One was not answered as an upstream does.
    pub fn run(&mut self, load: &Load, count: usize) -> anyhow::Result<()> {
        let mut unsent = count;
        for _ in 0..CLIENTS.min(count) {
            self.send(load)?;
            unsent -= 1;
        }
        let mut unanswered = count;
        let mut ready = Vec::with_capacity(CLIENTS);
        while unanswered > 0 {
            ready.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut ready), None)?;
            for event in &ready {
                let number = usize::try_from(event.data.u64())?;
                if !self.receive(number)? {
                    continue;
                }
                unanswered -= 1;
                self.idle.push_back(number);
                if unsent > 0 {
                    self.send(load)?;
                    unsent -= 1;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, load: &Load) -> anyhow::Result<()> {
        let number = self.idle.pop_front().context("no connection is idle")?;
        self.last = (self.last + STRIDE) % load.requests.len();
        let request = &load.requests[self.last];
        let sent = (&self.connections[number]).write(request)?;
        ensure!(
            sent == request.len(),
            "a request does not fit the socket's buffer"
        );
        Ok(())
    }

    /// Whether there was an answer: it is short, and nginx and HAProxy send it in one piece.
    fn receive(&mut self, number: usize) -> anyhow::Result<bool> {
        let mut answer = [0; 2048];
        let length = match (&self.connections[number]).read(&mut answer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("an answer"),
        };
        let answer = &answer[..length];
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(ANSWER.as_bytes()),
            "not the upstream's answer: {:?}",
            String::from_utf8_lossy(answer)
        );
        Ok(true)
    }
}
