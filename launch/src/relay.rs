//! Between a site in its sandbox and the Emperor: their words pass, and not more of them than a site has to say.
//!
//! The Emperor reads a vassal's pipe byte by byte, writes a line into its log for most of them, and looks at all of its vassals
//! after each. A site that wrote to it without end would keep it from starting others and fill the disk. So a site has no end of
//! that pipe but one of another, and this process, outside of the sandbox and as the site's user, has the two ends between.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::time::{Duration, Instant};

use crate::sys;

/// What uWSGI says to the Emperor: spawned, accepting, loyal, stop me.
const WORDS: [u8; 4] = [1, 5, 17, 22];
/// So many words pass at once: as many as some reloads in a row take.
const AT_ONCE: u32 = 32;
/// Then one in each such time; the next ones wait where the site has written them.
const ONE_IN: Duration = Duration::from_secs(10);

/// The two ends, in the process between.
const SITE: i32 = 0;
const EMPEROR: i32 = 1;

/// Puts another pipe in the place of the Emperor's, and a process between the two, which ends with this one, whatever this
/// becomes.
pub fn put_between(pipe: i32) -> Result<(), String> {
    let (outer, inner) =
        UnixStream::pair().map_err(|error| format!("cannot make a pipe: {error}"))?;
    let parent = sys::own_pid();
    if sys::fork()? {
        sys::put(inner.as_raw_fd(), pipe)
    } else {
        let ends = || {
            // A site that does not listen does not stop this process.
            outer
                .set_nonblocking(true)
                .map_err(|error| error.to_string())?;
            sys::put(outer.as_raw_fd(), SITE)?;
            sys::put(pipe, EMPEROR)?;
            sys::close_above(EMPEROR)?;
            sys::die_with(parent, EMPEROR)
        };
        match ends() {
            Ok(()) => pass_on(),
            // The site's end is closed with this: the site ends, too.
            Err(_) => exit(1),
        }
    }
}

/// Passes words on until one of the two is gone.
fn pass_on() -> ! {
    let mut words = Allowance::new(Instant::now());
    let mut buffer = [0; 64];
    loop {
        let wait = words.wait(Instant::now());
        let Ok([site, emperor]) = sys::readable([SITE, EMPEROR], wait.is_none(), wait) else {
            exit(1)
        };
        if emperor {
            match sys::read_bytes(EMPEROR, &mut buffer) {
                // To a site that does not listen nothing more can be said.
                Ok(said) if !said.is_empty() => drop(sys::write_bytes(SITE, said)),
                _ => exit(0),
            }
        }
        if site {
            // One at a time: what there is no allowance for stays in the pipe.
            match sys::read_bytes(SITE, &mut buffer[..1]) {
                Ok([word]) if WORDS.contains(word) => {
                    words.take();
                    drop(sys::write_bytes(EMPEROR, &[*word]));
                }
                Ok([_]) => words.take(),
                _ => exit(0),
            }
        }
    }
}

/// How many words there are left.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance {
            left: AT_ONCE,
            since: now,
        }
    }

    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// How long until there is a word left; none if there is.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        let more = u32::try_from(passed.as_secs() / ONE_IN.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(AT_ONCE);
            self.since += ONE_IN.saturating_mul(more);
        }
        (self.left == 0).then(|| (self.since + ONE_IN).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_words_pass_at_once_and_then_one_after_the_other() {
        let begin = Instant::now();
        let mut words = Allowance::new(begin);
        for _ in 0..AT_ONCE {
            assert_eq!(words.wait(begin), None);
            words.take();
        }
        assert_eq!(words.wait(begin), Some(ONE_IN));
        let later = begin + ONE_IN * 3 / 2;
        assert_eq!(words.wait(later), None);
        words.take();
        assert_eq!(words.wait(later), Some(ONE_IN / 2));
        // A long silence saves no more than that.
        let long = begin + ONE_IN * 1000;
        for _ in 0..AT_ONCE {
            assert_eq!(words.wait(long), None);
            words.take();
        }
        assert!(words.wait(long).is_some());
    }
}
