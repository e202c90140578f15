//! What is known of the backends on a balancer: their health, shared by nginx's workers; what probes say, written by the daemon;
//! and what each worker counts.
//!
//! All of it is one file. The health is words that all workers change by compare-and-swap; what a word means is said by the crate
//! `routing`. The verdicts are the daemon's: it alone writes there, a word at a time, and then raises a number by which workers see
//! that there is news. The counters are as those of sites: a slot for each worker, which it alone writes to, held by a lock that ends
//! with the process. What a killed worker had in flight is void at once; what it had counted stays, and the next one goes on from there.

mod board;
pub mod layout;
mod reader;
mod slot;
pub mod text;

pub use board::{Board, Verdict};
pub use reader::{Counted, Entry, Reader, Seen, Worker};
pub use slot::{Slot, Ticket};
