//! When a site that nobody visits is put to sleep.
use super::{Invalid, Span, written_type};
use std::fmt;

/// After how long without a request a site is put to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idle {
    /// After this time.
    After(Span),
    /// Not at all: it stays awake until it is stopped.
    Never,
}

impl Idle {
    /// Reads `10m` or `never`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "never" => Ok(Self::Never),
            span => Span::parse(span).map(Self::After).map_err(|problem| {
                Invalid::new(
                    "an idle time",
                    text,
                    format!("write \"never\", or: {}", problem.why),
                )
            }),
        }
    }

    /// The time, unless it is never.
    pub fn span(self) -> Option<Span> {
        match self {
            Self::After(span) => Some(span),
            Self::Never => None,
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(span) => span.fmt(f),
            Self::Never => f.pad("never"),
        }
    }
}

written_type!(Idle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_never() {
        assert_eq!(Idle::parse("never").unwrap(), Idle::Never);
        assert_eq!(Idle::parse("90s").unwrap().span(), Some(Span::seconds(90)));
        for text in ["never", "90s", "10m"] {
            assert_eq!(Idle::parse(text).unwrap().to_string(), text);
        }
        let problem = Idle::parse("soon").unwrap_err().to_string();
        assert!(
            problem.contains("never") && problem.contains("10m"),
            "{problem}"
        );
    }
}
