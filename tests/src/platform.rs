//! The whole platform on this machine: `paasctl up` with its balancer and backends, as an operator runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::apps::Recorder;
use crate::process::{Process, Seen};
use crate::{Paasctl, Request, Response, Root, build, nginx, wait};

/// What a test wants of its platform.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many backends.
    pub backends: u16,
    /// More `paas.toml` for the balancer.
    pub balancer: String,
    /// More `paas.toml` for every backend.
    pub backend: String,
    /// Whether it listens on https too, with a certificate for `*.test`.
    pub https: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { backends: 1, balancer: String::new(), backend: String::new(), https: false }
    }
}

/// A running platform. Stopped (as by Ctrl-C) when dropped.
#[derive(Debug)]
pub struct Platform<'r> {
    root: &'r Root,
    options: Options,
    port: u16,
    process: Option<Process>,
}

impl<'r> Platform<'r> {
    /// One balancer and one backend.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(root: &'r Root) -> Platform<'r> {
        Platform::with(root, Options::default())
    }

    /// With these options.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with(root: &'r Root, options: Options) -> Platform<'r> {
        let port = root.ports(options.backends + 10);
        let mut platform = Platform { root, options, port, process: None };
        platform.up();
        platform
    }
}
