//! How busy each site of a backend is: requests in flight and the time of the last one. nginx's workers count, the daemon
//! reads, and neither ever waits for the other.
//!
//! The counters are files that every worker maps and the daemon reads with plain reads (a mapping and a read see the same
//! pages). A file belongs to one boot of the machine and to one shape, both in its name, so that no file is ever replaced or
//! shortened under a worker: a reload that wants another shape makes another file, and the daemon reads them all.
//!
//! A worker has a slot of its own in the file and is the only one who writes there: no locks, no atomic additions. That a slot
//! is in use is said by a POSIX lock on a byte of the file, which the kernel takes away with the process, however it ends: what
//! a killed worker had in flight is void at once. A worker for which no slot is left holds another byte ([`BLIND`]): while there is one, nobody
//! can say of any site that it is idle. A site for which a worker's slot has no room is counted with all others of that kind.
//!
//! Times are milliseconds of `CLOCK_MONOTONIC`: the same for all processes, never set back.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod backends;
mod layout;
mod reader;
mod slot;

pub use layout::{BLIND, Layout, SLOTS, file_name};
pub use reader::{Busy, Reader, Snapshot, now};
pub use slot::{Place, Slot};
