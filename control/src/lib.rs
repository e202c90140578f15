//! The control plane: what a machine is (`settings`), what it serves (`model`, `registry`), what nginx reads of it
//! (`sync` into the table, `render` into configuration), the command line (`cli`) and the daemon.
//!
//! `model`, `escape` and `render` are pure: no clock, no file, no network.
pub mod allowance;
pub mod cgroup;
pub mod change;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod doctor;
pub mod drain;
pub mod emperor;
pub mod error_page;
pub mod escape;
pub mod files;
pub mod follow;
pub mod generations;
pub mod guess;
pub mod heartbeat;
pub mod http;
pub mod initialize;
pub mod listening;
pub mod logs;
pub mod model;
pub mod nginx;
pub mod observed;
pub mod outbound;
pub mod paths;
pub mod probe;
pub mod registry;
pub mod render;
pub mod sandbox;
pub mod settings;
pub mod sync;
pub mod takeover;
pub mod terminal;
pub mod up;
pub mod vassal;
pub mod visit;
pub mod watch;
