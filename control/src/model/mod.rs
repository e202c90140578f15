//! The things the platform knows about: users, sites, backends, placement. Each is valid by construction; a text that
//! is none is an [`Invalid`] that says what was wrong with it. Pure: no clock, no file, no network.
mod application;
mod backend;
mod bytes;
mod command;
mod domain;
mod entry;
mod environment;
mod idle;
mod limits;
mod placement;
mod site;
mod site_settings;
mod span;
mod user;
mod uwsgi_option;

pub use application::Application;
pub use backend::{Backend, BackendKey, BackendName, NewBackend, parse_address, parse_weight};
pub use bytes::Bytes;
pub use command::CommandLine;
pub use domain::parse_domain;
pub use entry::EntryPoint;
pub use environment::{EnvName, EnvValue, EnvVariable, Environment};
pub use idle::Idle;
pub use limits::{Cpu, CpuWeight, Descriptors, Limits, Network, Processes};
pub use placement::{Direction, Hold, Progress};
pub use routing::{Domain, Method, Placement, SlowChange, State, Weight};
pub use site::{AbsolutePath, NewSite, Site};
pub use site_settings::{
    ProbeTarget, SiteSettings, StaticMapping, THREADS, UrlPrefix, Values, WORKERS,
};
pub use span::Span;
pub use table::{BackendId, Protocol, SiteId};
pub use user::{Uid, UidRange, User, UserName};
pub use uwsgi_option::{ALLOWED, Allowed, OptionName, Takes, UwsgiOption, UwsgiOptions};

/// A text that is not what it should be: what was expected, the text, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {why}")]
pub struct Invalid {
    /// What it should have been, with its article: "a user name".
    pub what: &'static str,
    /// The text as given, shortened.
    pub text: String,
    /// The rule it breaks.
    pub why: String,
}

impl Invalid {
    /// An `Invalid` for `text`, which is shortened to a length fit for a message.
    pub fn new(what: &'static str, text: &str, why: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(80).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self {
            what,
            text: shown,
            why: why.into(),
        }
    }
}

/// Implements what every value has that is written as text, with `parse` and `Display`: `FromStr`, and both ways of serde.
macro_rules! written_type {
    ($type:ident) => {
        impl std::str::FromStr for $type {
            type Err = $crate::model::Invalid;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use written_type;

/// Implements what every validated text has: as [`written_type`], `Display` and `AsRef<str>`.
macro_rules! text_type {
    ($type:ident) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        $crate::model::written_type!($type);
    };
}
pub(crate) use text_type;
