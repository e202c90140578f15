//! Many visitors at once, each over a connection of its own.

use std::io;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Request, Response};

/// A visitor that has sent its request, or is about to.
#[derive(Debug)]
pub struct Visitor(JoinHandle<io::Result<Visited>>);

/// What a visitor got.
#[derive(Clone, Debug)]
pub struct Visited {
    /// The answer.
    pub answer: Response,
    /// How long it took.
    pub took: Duration,
}

impl Visitor {
    /// Sends a request; does not wait for the answer.
    #[must_use]
    pub fn send(port: u16, request: Request) -> Visitor {
        Visitor::spawn(port, request, None)
    }

    fn spawn(port: u16, request: Request, start: Option<Arc<Barrier>>) -> Visitor {
        let visit = move || {
            if let Some(start) = start {
                start.wait();
            }
            let began = Instant::now();
            let answer = request.try_send(port)?;
            Ok(Visited {
                answer,
                took: began.elapsed(),
            })
        };
        let thread = thread::Builder::new().stack_size(256 * 1024).spawn(visit);
        Visitor(thread.expect("a thread for every visitor"))
    }

    /// Whether the answer is there.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the answer.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[must_use]
    pub fn answer(self) -> Visited {
        let visited = self.0.join().expect("a visitor does not panic");
        visited.unwrap_or_else(|error| panic!("a visitor got no answer: {error}"))
    }
}

/// Sends all of them at the same moment.
#[must_use]
pub fn at_once(port: u16, requests: impl IntoIterator<Item = Request>) -> Vec<Visitor> {
    let requests: Vec<Request> = requests.into_iter().collect();
    let start = Arc::new(Barrier::new(requests.len()));
    requests
        .into_iter()
        .map(|request| Visitor::spawn(port, request, Some(Arc::clone(&start))))
        .collect()
}
