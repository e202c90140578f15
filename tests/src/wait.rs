//! Waiting for an event that cannot be awaited otherwise: another process's file, port or answer.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen may take before the test fails. Generous: it is reached
/// only by a test that fails, and the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until `event` answers `Some`.
///
/// # Panics
/// When [`DEADLINE`] passes first; `what` says what did not happen.
pub fn until<T>(what: &str, event: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, event) {
        Some(found) => found,
        None => panic!("waited {DEADLINE:?} in vain for: {what}"),
    }
}

/// Asks until `event` holds.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, mut event: impl FnMut() -> bool) {
    until(what, || event().then_some(()));
}

/// Asks until `event` answers `Some`, at most for `limit`.
pub fn within<T>(limit: Duration, mut event: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = event() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
