//! What the module's directives take: from the words behind a directive's name to typed settings, or why not.
//!
//! Pure, and apart from the module, which cannot be run without nginx, so that any bytes can be tried on it. What only nginx
//! can read - a time, an expression with variables - is left to it.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

mod activity;
mod eject;
mod fallback;
mod hash;
mod keepalive;
mod observe;
mod role;
mod socket;

pub use crate::activity::Activity;
pub use eject::eject;
pub use fallback::Fallback;
pub use hash::Hash;
pub use keepalive::{Keepalive, Reuse};
pub use observe::{Form, Health};
pub use role::Role;
pub use socket::{Path, Pattern};

/// Why a directive is refused; nginx adds the directive, the file and the line.
pub type Refusal = String;

/// How nginx reads a time (`500ms`, `30s`, `1h 30m`): in milliseconds, if it is one.
pub type ReadTime = fn(&[u8]) -> Option<usize>;

/// The path of a directory, which must be absolute.
///
/// # Errors
/// It is not.
pub fn directory(word: &[u8]) -> Result<PathBuf, Refusal> {
    let directory = PathBuf::from(OsStr::from_bytes(word));
    if directory.is_absolute() {
        Ok(directory)
    } else {
        Err(format!("{directory:?} is not an absolute path"))
    }
}

/// Bytes as text.
///
/// # Errors
/// They are not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| format!("\"{}\" is not UTF-8", bytes.escape_ascii()))
}

/// One of the words behind a directive's name that is `NAME=VALUE`, or should be.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    word: &'a [u8],
    /// What stands in front of the `=`; all of it, if there is none.
    pub name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Named<'a> {
    fn from(word: &'a [u8]) -> Self {
        let mut halves = word.splitn(2, |byte| *byte == b'=');
        Self {
            word,
            name: halves.next().unwrap_or_default(),
            value: halves.next(),
        }
    }
}

impl<'a> Named<'a> {
    /// The refusal of a name that nobody knows.
    #[must_use]
    pub fn unknown(self) -> Refusal {
        format!(
            "does not know the argument \"{}\"",
            self.word.escape_ascii()
        )
    }

    /// Puts what `read` makes of the value where nothing may be yet; `expected` completes "is not".
    ///
    /// # Errors
    /// There is something already, or the value is not what is expected.
    pub fn once<T>(
        self,
        place: &mut Option<T>,
        expected: &str,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<(), Refusal> {
        if place.is_some() {
            return Err(format!("has two of \"{}\"", self.name.escape_ascii()));
        }
        let value = read(self.value.unwrap_or_default());
        *place = Some(
            value.ok_or_else(|| format!("\"{}\" is not {expected}", self.word.escape_ascii()))?,
        );
        Ok(())
    }
}

/// What [`Named::once`] says of a value that is no time.
pub const A_TIME: &str = "a time, like 30s or 500ms";

/// A number as a person writes it.
#[must_use]
pub fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
