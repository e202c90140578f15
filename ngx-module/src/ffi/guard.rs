//! The guard around everything nginx calls.
//!
//! A panic must never unwind into nginx: in a request that would abort the worker, in a directive it
//! would kill the master. Every `extern "C"` function of this crate has `guard!` as its whole body: a
//! panic becomes the callback's own error value and a line in the log.

use std::any::Any;
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
}

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::Configuration(name) | Self::Request(name) => name,
        }
    }
}

/// See `guard!`, which every callback uses.
#[inline]
pub(crate) fn run<R>(entry: Entry, on_panic: R, body: impl FnOnce() -> R) -> R {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "faults")]
        fault(entry);
        body()
    }));
    outcome.unwrap_or_else(|payload| {
        report(entry, payload);
        on_panic
    })
}

/// Keeps where the last panic happened, for [`report`]; replaces std's hook, which would write to nginx's
/// standard error past its log.
pub(crate) fn install_hook() {
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
        Entry::Request(_) => (Level::Critical, "the request fails, the worker goes on"),
    };
    Log::of_cycle().write(
        level,
        format_args!(
            "paas: panic in {} at {}: {message}; {consequence}; this is a bug of ngx_http_paas_module, please report it",
            entry.name(),
            place.as_deref().unwrap_or("an unknown place"),
        ),
    );
    // The payload's own Drop could panic, too.
    std::mem::forget(payload);
}

/// Panics if the environment asks for a fault in this callback (`PAAS_FAULT=<name>[,<name>]`).
#[cfg(feature = "faults")]
fn fault(entry: Entry) {
    if std::env::var("PAAS_FAULT")
        .is_ok_and(|wanted| wanted.split(',').any(|name| name == entry.name()))
    {
        std::panic::panic_any("an injected fault");
    }
}
