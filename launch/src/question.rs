//! The conversation with the daemon: the vassal's name goes there; lines and a socket, or nothing, come back.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::order::Order;
use crate::sys;

/// A daemon that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines longer than this are not the daemon's.
const LONGEST: usize = 256 * 1024;

/// An open connection to the daemon. It closes by itself when uWSGI takes over.
pub struct Question {
    stream: UnixStream,
}

impl Question {
    /// Connects and tells the name.
    pub fn ask(socket: &Path, name: &str) -> Result<Question, String> {
        let connect = || -> std::io::Result<UnixStream> {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            writeln!(stream, "{name}")?;
            Ok(stream)
        };
        let stream = connect()
            .map_err(|error| format!("cannot ask the daemon at {}: {error}", socket.display()))?;
        Ok(Question { stream })
    }

    /// The order and the listening socket; `None` if the daemon does not want the vassal.
    pub fn answer(&mut self) -> Result<Option<(Order, OwnedFd)>, String> {
        let mut text = Vec::new();
        let mut listener = None;
        while !text.ends_with(b"\n\n") {
            let (count, descriptor) = sys::receive(&self.stream, &mut text)
                .map_err(|error| format!("the daemon did not answer: {error}"))?;
            listener = listener.or(descriptor);
            if count == 0 && text.is_empty() {
                return Ok(None);
            }
            if count == 0 || text.len() > LONGEST {
                return Err("the daemon's answer is cut off or too long".to_owned());
            }
        }
        let text =
            String::from_utf8(text).map_err(|_| "the daemon's answer is not text".to_owned())?;
        let listener = listener.ok_or("the daemon sent no socket")?;
        Ok(Some((Order::parse(&text)?, listener)))
    }

    /// Tells the daemon why there will be no uWSGI; if it does not hear, the log still tells.
    pub fn complain(&mut self, problem: &str) {
        let _ = self.stream.write_all(problem.as_bytes());
    }
}
