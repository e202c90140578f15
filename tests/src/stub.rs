//! A tiny HTTP server whose answers a test writes: a site, a backend, an operator's own wake service.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

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
    /// The connection is closed without a word.
    Close,
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
}

impl Stream for TcpStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Stream for UnixStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

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
        let acceptor = thread::spawn({
            let (listener, stopping, received) = (
                Arc::clone(&listener),
                Arc::clone(&stopping),
                Arc::clone(&received),
            );
            let accepted = Arc::new(AtomicUsize::new(0));
            move || {
                while let Ok(stream) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let (behaviour, received, accepted) = (
                        Arc::clone(&behaviour),
                        Arc::clone(&received),
                        Arc::clone(&accepted),
                    );
                    // Ends with its client's connection.
                    thread::spawn(move || {
                        drop(converse(stream, &*behaviour, &received, &accepted))
                    });
                }
            }
        });
        Stub {
            listener,
            stopping,
            received,
            acceptor: Some(acceptor),
        }
    }

    /// Everything received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received
            .lock()
            .expect("no test panics while it holds this")
            .clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.listener.knock();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn converse(
    stream: Box<dyn Stream>,
    behaviour: &Behaviour,
    received: &Mutex<Vec<Received>>,
    accepted: &AtomicUsize,
) -> io::Result<()> {
    let mut writer = stream.duplicate()?;
    let mut reader = BufReader::new(stream);
    while !reader.fill_buf()?.is_empty() {
        let request = read_request(&mut reader, accepted.load(Ordering::SeqCst))?;
        received
            .lock()
            .expect("no test panics while it holds this")
            .push(request.clone());
        let Answer::Reply(status, headers, body) = behaviour(&request) else {
            return Ok(());
        };
        let mut reply = format!(
            "HTTP/1.1 {status} Stub\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            reply.push_str(&format!("{name}: {value}\r\n"));
        }
        reply.push_str("\r\n");
        writer.write_all(reply.as_bytes())?;
        if request.method != "HEAD" {
            writer.write_all(&body)?;
        }
    }
    Ok(())
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
