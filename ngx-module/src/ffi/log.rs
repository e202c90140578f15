//! Lines in nginx's error log.

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, Ordering};

use ngx::ffi::{ngx_cycle, ngx_log_t, ngx_time};
use ngx::log::{LOG_BUFFER_SIZE, log_error, write_fmt};

/// How loud a line is, in nginx's words and numbers.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Emergency = 1,
    Critical = 3,
    Error = 4,
    Warning = 5,
    Information = 7,
}

/// Where to write: the log of a cycle or of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Log(Option<NonNull<ngx_log_t>>);

impl Log {
    /// # Safety
    /// `log` is null or a log that outlives this value.
    pub(super) unsafe fn from_raw(log: *mut ngx_log_t) -> Self {
        Self(NonNull::new(log))
    }

    /// The log of the running configuration; what is written while nothing else is at hand goes there.
    pub(crate) fn of_cycle() -> Self {
        // SAFETY: ngx_cycle is set before any module is loaded and only replaced by another valid cycle.
        Self(unsafe { ngx_cycle.as_ref() }.and_then(|cycle| NonNull::new(cycle.log)))
    }

    /// Writes one line if `level` is loud enough for this log.
    pub(crate) fn write(self, level: Level, message: fmt::Arguments<'_>) {
        let Some(log) = self.0 else { return };
        // SAFETY: by construction the log lives.
        if level as usize > unsafe { log.as_ref() }.log_level {
            return;
        }
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; LOG_BUFFER_SIZE];
        let line = write_fmt(&mut buffer, message);
        // SAFETY: by construction the log lives.
        unsafe { log_error(level as usize, log.as_ptr(), 0, line) };
    }
}

/// At most one line a second and worker, for what would otherwise be logged by every request.
pub(crate) struct OncePerSecond(AtomicI64);

impl OncePerSecond {
    pub(crate) const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Whether this second has had no line yet; it has one from now on.
    pub(crate) fn allows(&self) -> bool {
        let now = ngx_time();
        self.0.swap(now, Ordering::Relaxed) != now
    }
}
