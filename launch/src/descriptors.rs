//! Which open file a site's uWSGI finds under which number. There are no others.
//!
//! | number | what |
//! |---|---|
//! | 0 | the listening socket: uWSGI adopts it by itself |
//! | 1, 2 | the site's `server.log` |
//! | 3 | the Emperor's pipe, `UWSGI_EMPEROR_FD` |
//! | 4 | the configuration, sealed, in memory; opened anew through `/proc` when uWSGI reloads itself |
//! | 5 | the notice pipe, written to through `/proc` by uWSGI's hooks |
//!
//! The vassal file names 4 and 5 as `safe-fd`, or uWSGI would close them.

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use crate::sys;

/// The Emperor's pipe.
pub const PIPE: i32 = 3;
/// Where uWSGI reads its configuration.
pub const CONFIG_PATH: &str = "/proc/self/fd/4";
/// Whatever else a program is given comes after it.
pub const LAST: i32 = 5;

/// Fills the places, so that no file opened from now on gets one of them: what is put there later replaces nothing in use.
pub fn reserve() -> Result<(), String> {
    loop {
        let filler =
            File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
        if filler.as_raw_fd() > LAST {
            return Ok(());
        }
        // Stays open until something is put in its place.
        let _ = filler.into_raw_fd();
    }
}

/// The open files, still under the numbers they happened to get.
pub struct Places {
    /// The site's socket.
    pub listener: OwnedFd,
    /// The site's log.
    pub log: OwnedFd,
    /// The Emperor's pipe: a number, because the Emperor opened it.
    pub pipe: i32,
    /// The configuration.
    pub config: OwnedFd,
    /// The notice pipe.
    pub notice: OwnedFd,
}

impl Places {
    /// Puts every file in its place and closes all others when uWSGI takes over. The configuration becomes the site's own,
    /// or uWSGI could not open it anew.
    pub fn take(self, uid: u32) -> Result<(), String> {
        sys::give(&self.config, uid)?;
        let wanted = [
            self.listener.as_raw_fd(),
            self.log.as_raw_fd(),
            self.log.as_raw_fd(),
            self.pipe,
            self.config.as_raw_fd(),
            self.notice.as_raw_fd(),
        ];
        // The Emperor's pipe may have any number: all of them out of the way first, or one would land on another.
        let mut high = Vec::new();
        for descriptor in wanted {
            high.push(sys::duplicate_above(descriptor, LAST)?);
        }
        for (place, descriptor) in (0..).zip(&high) {
            sys::put(descriptor.as_raw_fd(), place)?;
        }
        sys::close_on_exec_above(LAST)
    }
}
