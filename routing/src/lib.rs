//! Which site a Host means and which backend serves a site: pure functions.
//!
//! Shared by the nginx module, the command line and the daemon, so that `paasctl route HOST` and the module cannot
//! disagree. Nothing in here reads a clock, a file or the network, allocates while it answers, or uses a float: the
//! same input gives the same answer on every machine.
//!
//! * [`host`]: the bytes of a Host header to a normalised [`Domain`] or an address;
//! * [`placement`]: a site's key and the [`Backends`] to the backend that serves it;
//! * [`rendezvous`]: the hashing behind it, and [`SlotTable`], its memo for many backends;
//! * [`python27`]: CPython 2.7's string hash, to take over a deployment that was placed by it;
//! * [`health`]: when a backend that fails is left out, and how it comes back;
//! * [`idle`]: which of the kept connections a request gets, and which are closed.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod health;
pub mod host;
pub mod idle;
mod log2;
pub mod placement;
pub mod python27;
pub mod rendezvous;
mod slots;

pub use host::{Domain, Host, HostError};
pub use placement::{Backends, Candidate, Method, Placement, SlowChange, State, Weight};
pub use slots::SlotTable;
