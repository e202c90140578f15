//! Waking sites. `machine` decides and is pure; `driver` does what it says; the rest are its hands:
//!
//! | part | hand |
//! |---|---|
//! | `prepare` | the site's row, its directories, its socket |
//! | `held`, `queue` | the listening socket and what waits in it |
//! | `launching`, `order` | the launcher's questions, and what it is told |
//! | `notice` | what a site's uWSGI says |
//! | `probe` | the request that a reload's code must answer |
//! | `premises` | what a start goes by: when it has changed, one that failed is worth another try |
//! | `connections` | what a generation still has to answer |
//! | `diagnosis`, `reason` | why something ended, and what is said about it |
//! | `history`, `log_tail` | what happened lately |
//! | `reject` | queues that nobody will serve |
//! | `adopt` | sites that were running before the daemon was |
pub mod admission;
pub mod adopt;
pub mod confine;
pub mod connections;
pub mod diagnosis;
pub mod driver;
pub mod held;
pub mod history;
pub mod launching;
pub mod log_tail;
pub mod machine;
#[cfg(test)]
mod machine_tests;
pub mod memory;
pub mod notice;
pub mod order;
pub mod premises;
pub mod prepare;
pub mod probe;
pub mod process;
pub mod queue;
pub mod reason;
pub mod reject;
#[cfg(test)]
mod simulation;
pub mod sleeping;
pub mod words;
