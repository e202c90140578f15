//! The memory-mapped table that nginx reads: everything per site and per backend that routing needs, on every machine.
//!
//! The daemon fills it from the registry ([`Writer`]), nginx's workers and the command line read it ([`Reader`]). It
//! is a copy: losing it loses nothing, and a changed format is answered by building it anew.
//!
//! On disk a table is a directory:
//!
//! ```text
//! table/               0750, root:www-data; the writer holds a flock on it
//!   current -> 1795478400
//!   1795478400/        0750; one LMDB environment, numbered, no number is used twice
//!     data.mdb         0640
//!     lock.mdb         0660: a reader has to enter itself
//! ```
//!
//! A table is replaced by building a new directory beside it and renaming a new symlink over `current`. Then the header of the
//! old environment is marked **retired**, which makes its readers open the new one, and its directory is removed. No
//! file is ever changed in place by other means than LMDB's: a file truncated under a reader would kill it by SIGBUS.
//!
//! Must never happen here: a panic on any bytes found in the table, a transaction kept beyond a look-up, `MDB_NOLOCK`.
#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod bucket;
pub mod codec;
#[allow(unsafe_code)]
mod env;
mod error;
mod hosts;
mod layout;
mod reader;
mod record;
mod view;
mod writer;

pub use codec::{DecodeError, FORMAT};
pub use env::Stamp;
pub use error::TableError;
pub use hosts::Spread;
pub use reader::Reader;
pub use record::{BackendId, BackendRecord, Change, Header, Protocol, SiteId, SiteRecord};
pub use view::View;
pub use writer::{Options, Writer};
