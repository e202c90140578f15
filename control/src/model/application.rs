//! What answers a site's requests: a Python callable under uWSGI, or a command that brings its own HTTP server.
use super::{CommandLine, EntryPoint, Invalid};
use std::fmt;
use table::Protocol;

/// What is run for a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Application {
    /// A WSGI callable.
    Wsgi(EntryPoint),
    /// Any program that takes its listening socket as descriptor 0 and speaks HTTP on it.
    Command(CommandLine),
}

impl Application {
    /// The word for its kind, as the registry keeps it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wsgi(_) => "wsgi",
            Self::Command(_) => "command",
        }
    }

    /// Reads what `kind` and `Display` have written.
    pub fn parse(kind: &str, text: &str) -> Result<Self, Invalid> {
        match kind {
            "wsgi" => EntryPoint::parse(text).map(Self::Wsgi),
            "command" => CommandLine::parse(text).map(Self::Command),
            _ => Err(Invalid::new(
                "a kind of application",
                kind,
                "it is wsgi or command",
            )),
        }
    }

    /// What nginx speaks with it.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Wsgi(_) => Protocol::Uwsgi,
            Self::Command(_) => Protocol::Http,
        }
    }

    /// The callable, if it is one.
    pub fn entry(&self) -> Option<&EntryPoint> {
        match self {
            Self::Wsgi(entry) => Some(entry),
            Self::Command(_) => None,
        }
    }

    /// The command, if it is one.
    pub fn command(&self) -> Option<&CommandLine> {
        match self {
            Self::Wsgi(_) => None,
            Self::Command(command) => Some(command),
        }
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wsgi(entry) => entry.fmt(f),
            Self::Command(command) => command.fmt(f),
        }
    }
}
