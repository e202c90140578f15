//! The harness of the end-to-end tests: real nginx with our module, real Emperors and daemons
//! through the real `paasctl`, stub servers where a test wants to be the other side, and an HTTP
//! client that can say what a browser would not.
//!
//! Every test has a [`Root`] of its own: a short temporary directory (a unix socket's path has at
//! most 107 bytes) and ports nobody else has. Whatever a test started ends with it, also when it
//! panics, and a panic prints the logs found under the root. Waiting is always for an event, with
//! a deadline ([`wait`]); no test may sleep and hope.
//!
//! Set `PAAS_TEST_KEEP=1` to keep the directories, `PAAS_MODULE=FILE` for another module.

pub mod apps;
pub mod build;
pub mod certificate;
pub mod clock;
pub mod cluster;
pub mod crowd;
pub mod front;
pub mod http;
pub mod load;
pub mod network;
pub mod nginx;
pub mod paasctl;
pub mod platform;
pub mod ports;
pub mod prison;
pub mod process;
pub mod root;
pub mod stub;
pub mod tabled;
pub mod traffic;
pub mod wait;

pub use certificate::Certificate;
pub use cluster::Cluster;
pub use front::Front;
pub use http::{Connection, Request, Response};
pub use nginx::Nginx;
pub use paasctl::Paasctl;
pub use platform::Platform;
pub use prison::Prison;
pub use process::Process;
pub use root::Root;
pub use stub::Stub;
pub use tabled::Tabled;
pub use traffic::Traffic;

/// How often a test repeats what it does: seldom on every day, often with `scripts/test --long`.
#[must_use]
pub fn times(few: usize, many: usize) -> usize {
    match std::env::var_os("PAAS_TEST_LONG") {
        Some(_) => many,
        None => few,
    }
}
