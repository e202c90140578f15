//! The control plane: what a machine is (`settings`), what it serves (`model`, `registry`), what nginx reads of it
//! (`sync` into the table, `render` into configuration), the command line (`cli`) and the daemon.
//!
//! `model`, `escape` and `render` are pure: no clock, no file, no network.
pub mod cli;
pub mod model;
pub mod paths;
pub mod registry;
pub mod settings;
