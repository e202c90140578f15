//! The guard around everything nginx calls.
//!
//! A panic must never unwind into nginx: in a request that would abort the worker, in a directive it
//! would kill the master. Every `extern "C"` function of this crate has `guard!` as its whole body: a
//! panic becomes the callback's own error value and a line in the log.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

use super::log::{Level, Log};

/// Runs the body of a callback; a panic in it is logged and answered with `$on_panic`.
macro_rules! guard {
    ($entry:expr, $on_panic:expr, $body:expr $(,)?) => {
        $crate::ffi::guard::run($entry, $on_panic, || $body)
    };
}
pub(crate) use guard;

/// What nginx called: decides how loud a panic is reported.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    /// While a configuration is read: the configuration is refused.
    Configuration(&'static str),
    /// While a request is handled: the request fails.
    Request(&'static str),
    /// A variable of this name is evaluated: it has no value.
    Variable(&'static str),
    /// A worker begins: it works without what failed.
    Process,
    /// Something is given back at the end of a request or a configuration.
    Cleanup,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(name) | Self::Request(name) => f.write_str(name),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Process => f.write_str("start of a worker"),
            Self::Cleanup => f.write_str("cleanup"),
        }
    }
}

/// See `guard!`, which every callback uses.
#[inline]
pub(crate) fn run<R>(entry: Entry, on_panic: R, body: impl FnOnce() -> R) -> R {
    if let Entry::Configuration(_) = entry {
        install_hook();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "faults")]
        let body = || fault(entry, body);
        body()
    }));
    outcome.unwrap_or_else(|payload| {
        report(entry, payload);
        on_panic
    })
}

/// Keeps where the last panic happened, for [`report`]; replaces std's hook, which would write to nginx's
/// standard error past its log.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(Location::to_string);
            *LAST_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    });
}

static LAST_PLACE: Mutex<Option<String>> = Mutex::new(None);

#[cold]
fn report(entry: Entry, payload: Box<dyn Any + Send>) {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = LAST_PLACE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let (level, consequence) = match entry {
        Entry::Configuration(_) => (Level::Emergency, "the configuration is refused"),
        Entry::Process => (Level::Critical, "the worker works without it"),
        Entry::Request(_) | Entry::Variable(_) | Entry::Cleanup => {
            (Level::Critical, "the request fails, the worker goes on")
        }
    };
    Log::of_cycle().write(
        level,
        format_args!(
            "paas: panic in {entry} at {}: {message}; {consequence}; this is a bug of ngx_http_paas_module, please report it",
            place.as_deref().unwrap_or("an unknown place"),
        ),
    );
    // The payload's own Drop could panic, too.
    std::mem::forget(payload);
}

/// Panics if this callback is named, as in the log, on a line of the file that the environment's `PAAS_FAULTS` names.
/// A test changes that file while nginx runs. The panic comes before the callback has done anything; in a cleanup it
/// comes after, which is where one could come from: a cleanup that does nothing would leave its timer on nginx's clock.
/// With `kill ` before the name, the process is killed when the callback has done what it does.
#[cfg(feature = "faults")]
#[expect(clippy::panic, reason = "that is what it is for")]
fn fault<R>(entry: Entry, body: impl FnOnce() -> R) -> R {
    let name = entry.to_string();
    let file = std::env::var_os("PAAS_FAULTS").and_then(|file| std::fs::read_to_string(file).ok());
    let names = file.unwrap_or_default();
    let inject = || std::panic::panic_any("an injected fault");
    let is_panic = names.lines().any(|wanted| wanted == name);
    if is_panic && !matches!(entry, Entry::Cleanup) {
        inject();
    }
    let done = body();
    if is_panic {
        inject();
    }
    if names
        .lines()
        .any(|wanted| wanted.strip_prefix("kill ") == Some(&name))
    {
        // SAFETY: it takes no pointer, and does not return.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    done
}
