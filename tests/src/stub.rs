//! A tiny HTTP server whose answers a test writes: a site, a backend, an operator's own wake service.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::http;

/// A request as the stub received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// How many connections the stub had accepted when this request came, its own included.
    pub connections: usize,
}

impl Received {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What a stub answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, headers and a body; the connection stays open.
    Reply(u16, Vec<(String, String)>, Vec<u8>),
    /// These bytes as they are; the connection stays open.
    Raw(Vec<u8>),
    /// The connection is closed without a word.
    Close,
    /// The connection is reset without a word.
    Reset,
}

impl Answer {
    /// 200 with this text.
    #[must_use]
    pub fn ok(text: impl Into<Vec<u8>>) -> Answer {
        Answer::status(200, text)
    }

    /// Any status with this text.
    #[must_use]
    pub fn status(status: u16, text: impl Into<Vec<u8>>) -> Answer {
        Answer::Reply(status, Vec::new(), text.into())
    }

    /// Adds a header to a reply.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        if let Answer::Reply(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

type Behaviour = dyn Fn(&Received) -> Answer + Send + Sync;

trait Stream: Read + Write + Send {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>>;
    /// Closes the connection for everybody who holds it.
    fn hang_up(&self);
    /// Makes the close that follows a reset.
    fn reset(&self);
}

impl Stream for TcpStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn hang_up(&self) {
        drop(self.shutdown(Shutdown::Both));
    }

    fn reset(&self) {
        let _ = set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl Stream for UnixStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn hang_up(&self) {
        drop(self.shutdown(Shutdown::Both));
    }

    fn reset(&self) {}
}

/// The connections that are open, by number.
type Open = Arc<Mutex<BTreeMap<usize, Box<dyn Stream>>>>;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Tcp(listener) => Box::new(listener.accept()?.0),
            Listener::Unix(listener) => Box::new(listener.accept()?.0),
        })
    }

    /// Makes a blocked `accept` return.
    fn knock(&self) {
        match self {
            Listener::Tcp(listener) => drop(listener.local_addr().map(TcpStream::connect)),
            Listener::Unix(listener) => {
                if let Ok(address) = listener.local_addr()
                    && let Some(path) = address.as_pathname()
                {
                    drop(UnixStream::connect(path));
                }
            }
        }
    }
}

/// The server; it stops when dropped.
pub struct Stub {
    listener: Arc<Listener>,
    stopping: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<Received>>>,
    open: Open,
    acceptor: Option<JoinHandle<()>>,
}

impl Stub {
    /// Serves on `127.0.0.1:port`.
    ///
    /// # Panics
    /// When the port cannot be bound.
    #[must_use]
    pub fn tcp(port: u16, behaviour: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .unwrap_or_else(|error| panic!("port {port}: {error}"));
        Stub::serve(Listener::Tcp(listener), Arc::new(behaviour))
    }

    /// Serves on a unix socket everybody may connect to.
    ///
    /// # Panics
    /// When the socket cannot be bound.
    #[must_use]
    pub fn unix(
        path: &Path,
        behaviour: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Stub {
        use std::os::unix::fs::PermissionsExt;
        let listener =
            UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
            .expect("the socket is ours");
        Stub::serve(Listener::Unix(listener), Arc::new(behaviour))
    }

    fn serve(listener: Listener, behaviour: Arc<Behaviour>) -> Stub {
        let listener = Arc::new(listener);
        let stopping = Arc::new(AtomicBool::new(false));
        let received = Arc::new(Mutex::new(Vec::new()));
        let open = Open::default();
        let acceptor = thread::spawn({
            let (listener, stopping, received, open) = (
                Arc::clone(&listener),
                Arc::clone(&stopping),
                Arc::clone(&received),
                Arc::clone(&open),
            );
            let accepted = Arc::new(AtomicUsize::new(0));
            move || {
                while let Ok(stream) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let number = accepted.fetch_add(1, Ordering::SeqCst);
                    let Ok(duplicate) = stream.duplicate() else {
                        continue;
                    };
                    lock(&open).insert(number, duplicate);
                    let (behaviour, received, accepted, open) = (
                        Arc::clone(&behaviour),
                        Arc::clone(&received),
                        Arc::clone(&accepted),
                        Arc::clone(&open),
                    );
                    // Ends with its client's connection.
                    thread::spawn(move || {
                        let ended = converse(stream, &*behaviour, &received, &accepted);
                        if let Some(stream) = lock(&open).remove(&number) {
                            if let Ok(Ending::Reset) = ended {
                                stream.reset();
                            } else {
                                stream.hang_up();
                            }
                        }
                    });
                }
            }
        });
        Stub {
            listener,
            stopping,
            received,
            open,
            acceptor: Some(acceptor),
        }
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }

    /// Closes all connections, those that wait for a request included.
    pub fn hang_up(&self) {
        for stream in lock(&self.open).values() {
            stream.hang_up();
        }
    }

    /// Everything received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.listener.knock();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.hang_up();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no test panics while it holds this")
}

/// How a connection ended.
enum Ending {
    Closed,
    Reset,
}

fn converse(
    stream: Box<dyn Stream>,
    behaviour: &Behaviour,
    received: &Mutex<Vec<Received>>,
    accepted: &AtomicUsize,
) -> io::Result<Ending> {
    let mut writer = stream.duplicate()?;
    let mut reader = BufReader::new(stream);
    while !reader.fill_buf()?.is_empty() {
        let request = read_request(&mut reader, accepted.load(Ordering::SeqCst))?;
        lock(received).push(request.clone());
        let (status, headers, body) = match behaviour(&request) {
            Answer::Reply(status, headers, body) => (status, headers, body),
            Answer::Raw(bytes) => {
                writer.write_all(&bytes)?;
                continue;
            }
            Answer::Close => return Ok(Ending::Closed),
            Answer::Reset => return Ok(Ending::Reset),
        };
        let mut reply = format!(
            "HTTP/1.1 {status} Stub\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            reply.push_str(&format!("{name}: {value}\r\n"));
        }
        reply.push_str("\r\n");
        let mut reply = reply.into_bytes();
        if request.method != "HEAD" {
            reply.extend(body);
        }
        writer.write_all(&reply)?;
    }
    Ok(Ending::Closed)
}

fn read_request(reader: &mut impl BufRead, connections: usize) -> io::Result<Received> {
    let first = http::line(reader)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let headers = http::read_headers(reader)?;
    let mut request = Received {
        method,
        target,
        headers,
        body: Vec::new(),
        connections,
    };
    if request.header("transfer-encoding").is_some() {
        request.body = http::read_chunks(reader)?;
    } else if let Some(length) = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
    {
        reader.take(length).read_to_end(&mut request.body)?;
    }
    Ok(request)
}
