//! How long a request puts up with a daemon that does not answer: as long as its restart may take.

use std::time::{Duration, Instant};

/// A daemon that is not back by then is taken for gone.
const LONGEST: Duration = Duration::from_secs(10);
/// Before the second question, in milliseconds; doubled each time.
const FIRST: usize = 50;
const LAST: usize = 1000;

/// What is left of it.
pub(crate) struct Patience {
    begun: Instant,
    pause: usize,
}

impl Patience {
    /// All of it.
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            pause: FIRST,
        }
    }

    /// After how many milliseconds to ask again; none: not any more.
    pub(crate) fn pause(&mut self) -> Option<usize> {
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST);
        (self.begun.elapsed() < LONGEST).then_some(pause)
    }
}
