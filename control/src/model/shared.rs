//! Stand-ins for what the crates `routing` and `table` define, until they do.
use super::{Invalid, text_type};
use std::num::{NonZeroU32, NonZeroU64};

/// A normalised domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// Checks and normalises `text`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let domain = text.to_ascii_lowercase();
        let good = !domain.is_empty()
            && domain.len() <= 253
            && domain
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if good {
            Ok(Self(domain))
        } else {
            Err(Invalid::new("a domain", text, "placeholder"))
        }
    }

    /// The domain.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
text_type!(Domain);

/// A site's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub NonZeroU64);
impl std::fmt::Display for SiteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
/// A backend's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub NonZeroU32);

/// How a site is mapped to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Weighted rendezvous.
    Rendezvous,
    /// CPython 2.7, 64 bits.
    Python64,
    /// CPython 2.7, 32 bits.
    Python32,
}

/// A change of method under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowChange {
    /// The method before.
    pub from: Method,
    /// Sites whose hash lies below take the new one.
    pub threshold: u64,
}

/// The method, and the change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The method.
    pub method: Method,
    /// The change under way.
    pub change: Option<SlowChange>,
}

/// Administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Gets sites.
    Active,
    /// Gets no new ones.
    Draining,
    /// Gets none.
    Disabled,
}

/// A method by its name.
pub fn parse_method(text: &str) -> Result<Method, Invalid> {
    match text {
        "rendezvous" => Ok(Method::Rendezvous),
        "python64" => Ok(Method::Python64),
        "python32" => Ok(Method::Python32),
        _ => Err(Invalid::new(
            "a placement method",
            text,
            "it must be rendezvous, python64 or python32",
        )),
    }
}

/// The name of a method.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::Rendezvous => "rendezvous",
        Method::Python64 => "python64",
        Method::Python32 => "python32",
    }
}

/// A state by its name.
pub fn parse_state(text: &str) -> Result<State, Invalid> {
    match text {
        "active" => Ok(State::Active),
        "draining" => Ok(State::Draining),
        "disabled" => Ok(State::Disabled),
        _ => Err(Invalid::new(
            "a state",
            text,
            "it must be active, draining or disabled",
        )),
    }
}

/// The name of a state.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Draining => "draining",
        State::Disabled => "disabled",
    }
}
