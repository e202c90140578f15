//! An HTTP/1.1 client that sends exactly what a test writes, also what no browser would.
//!
//! It adds nothing to a request but what its body needs (`Content-Length` or chunks); a response is
//! read to its end and checked for being whole.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// No answer of a test takes longer; above the platform's start time-out.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a request carries.
#[derive(Clone, Debug)]
enum Body {
    None,
    Sized(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// A request to be sent; see [`Request::new`].
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Body,
}

impl Request {
    /// `method target HTTP/1.1` with `Host: host`.
    #[must_use]
    pub fn new(method: &str, host: impl AsRef<[u8]>, target: &str) -> Request {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), host.as_ref().to_vec())],
            body: Body::None,
        }
    }

    /// A `GET`.
    #[must_use]
    pub fn get(host: impl AsRef<[u8]>, target: &str) -> Request {
        Request::new("GET", host, target)
    }

    /// A `HEAD`.
    #[must_use]
    pub fn head(host: impl AsRef<[u8]>, target: &str) -> Request {
        Request::new("HEAD", host, target)
    }

    /// A `POST` with this body.
    #[must_use]
    pub fn post(host: impl AsRef<[u8]>, target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request::new("POST", host, target).body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// A body with its `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Body::Sized(body.into());
        self
    }

    /// A body in chunks, `Transfer-Encoding: chunked`.
    #[must_use]
    pub fn chunks<C: Into<Vec<u8>>>(mut self, chunks: impl IntoIterator<Item = C>) -> Request {
        self.body = Body::Chunked(chunks.into_iter().map(Into::into).collect());
        self
    }

    /// The bytes that go over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Sized(body) => {
                bytes.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(body);
            }
            Body::Chunked(chunks) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }

    /// Sends it over a connection of its own to `port` on this machine.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[must_use]
    pub fn send(&self, port: u16) -> Response {
        match self.try_send(port) {
            Ok(response) => response,
            Err(error) => panic!("{} {} on port {port}: {error}", self.method, self.target),
        }
    }

    /// As [`Request::send`], with the failure as a value.
    ///
    /// # Errors
    /// No connection, or no whole answer.
    pub fn try_send(&self, port: u16) -> io::Result<Response> {
        Connection::open(port)?.exchange(self)
    }

    /// Sends it over a connection of its own to any address.
    ///
    /// # Errors
    /// As [`Request::try_send`].
    pub fn send_to(&self, address: SocketAddr) -> io::Result<Response> {
        Connection::to(address)?.exchange(self)
    }
}

/// A connection that is kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `port` on this machine.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(port: u16) -> io::Result<Connection> {
        Connection::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Connects to any address.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn to(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Whether the other side has neither closed it nor sent what nobody asked for, as far as is known here: what a client
    /// asks before it uses a connection again.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let stream = self.stream.get_ref();
        let peek = || {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            peeked
        };
        let nothing = peek().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        nothing && self.stream.buffer().is_empty()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// The answer is missing or not whole.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.send(request)?;
        self.receive(request.method == "HEAD")
    }

    /// Sends a request only. A server may answer and close before it has read all of it: that is
    /// no error, the answer tells.
    ///
    /// # Errors
    /// The connection is broken in another way.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.send_bytes(&request.to_bytes())
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.get_mut().write_all(bytes) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Reads one answer; `head`: to a `HEAD` request, which has no body.
    ///
    /// # Errors
    /// The answer is missing or not whole.
    pub fn receive(&mut self, head: bool) -> io::Result<Response> {
        loop {
            let response = Response::read(&mut self.stream, head)?;
            if response.status != 100 {
                return Ok(response);
            }
        }
    }

    /// Reads so many bytes of another protocol.
    ///
    /// # Errors
    /// The connection ends before.
    pub fn receive_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A whole answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl Response {
    /// Reads one answer from `stream`.
    ///
    /// # Errors
    /// It is missing, not HTTP, or ends early.
    pub fn read(stream: &mut impl BufRead, head: bool) -> io::Result<Response> {
        let line = line(stream)?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or_else(|| invalid(format!("not a status line: {line:?}")))?;
        let headers = read_headers(stream)?;
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if !head && !matches!(status, 100..=199 | 204 | 304) {
            response.body = response.read_body(stream)?;
        }
        Ok(response)
    }

    fn read_body(&self, stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            body = read_chunks(stream)?;
        } else if let Some(length) = self.header("content-length") {
            let length: u64 = length
                .parse()
                .map_err(|_| invalid(format!("Content-Length: {length:?}")))?;
            let read = stream.take(length).read_to_end(&mut body)?;
            if read as u64 != length {
                return Err(invalid(format!(
                    "the body ends after {read} of {length} bytes"
                )));
            }
        } else {
            stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All headers of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks the status; answers the body as text.
    ///
    /// # Panics
    /// When the status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.text()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy(
            self.body
                .get(..self.body.len().min(2_000))
                .unwrap_or_default(),
        );
        write!(
            formatter,
            "{} {:#?}, {} bytes: {shown}",
            self.status,
            self.headers,
            self.body.len()
        )
    }
}

/// Reads header lines up to the empty one.
pub(crate) fn read_headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("not a header: {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads chunks up to the last one and the trailers' end.
pub(crate) fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream)?;
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| invalid(format!("not a chunk size: {size:?}")))?;
        if size == 0 {
            while !line(stream)?.is_empty() {}
            return Ok(body);
        }
        if stream.take(size).read_to_end(&mut body)? as u64 != size || !line(stream)?.is_empty() {
            return Err(invalid("a chunk is cut off".to_owned()));
        }
    }
}

/// One line without its end; the connection's end inside it is an error.
pub(crate) fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "the connection ended after {:?}",
                String::from_utf8_lossy(&bytes)
            ),
        ));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
