//! Where a site's application is found: `MODULE:CALLABLE` or `path/to/file.py:callable`.
use super::{Invalid, written_type};
use std::fmt;

const WHAT: &str = "an entry point";

/// The Python callable that answers a site's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryPoint {
    /// A callable in an importable module: `mysite.wsgi:application`.
    Module {
        /// Dotted name.
        module: String,
        /// A Python identifier; with `()` behind it, a factory that is called without arguments (uWSGI does).
        callable: String,
    },
    /// A callable in a file below the site's directory: `web/app.py:app`.
    File {
        /// Relative, ends in `.py` or `.wsgi`, without `.` and `..` components.
        path: String,
        /// A Python identifier.
        callable: String,
    },
}

impl EntryPoint {
    /// Reads `MODULE:CALLABLE` or `FILE.py:CALLABLE`; without `:CALLABLE` it is `application`, as in uWSGI.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new(WHAT, text, why);
        if text.len() > 1024 {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        let (place, callable) = text.rsplit_once(':').unwrap_or((text, "application"));
        let (name, factory) = match callable.strip_suffix("()") {
            Some(name) => (name, true),
            None => (callable, false),
        };
        if !is_identifier(name) {
            return Err(refuse(
                "what follows the colon must be a Python name, as in mysite.wsgi:application",
            ));
        }
        let callable = callable.to_owned();
        if place.ends_with(".py") || place.ends_with(".wsgi") && place.contains('/') {
            if factory {
                return Err(refuse(
                    "uWSGI calls a factory in a module only: write it as mysite:create_app()",
                ));
            }
            if !is_inner_path(place) {
                return Err(refuse(
                    "the file must lie below the site's directory: a relative path without . and .. and control characters",
                ));
            }
            return Ok(Self::File {
                path: place.to_owned(),
                callable,
            });
        }
        if !place.split('.').all(is_identifier) {
            return Err(refuse(
                "write a module (mysite.wsgi:application) or a file below the site's directory (web/app.py:app)",
            ));
        }
        Ok(Self::Module {
            module: place.to_owned(),
            callable,
        })
    }

    /// The callable's name.
    pub fn callable(&self) -> &str {
        match self {
            Self::Module { callable, .. } | Self::File { callable, .. } => callable,
        }
    }
}

/// A Python name, in ASCII.
fn is_identifier(text: &str) -> bool {
    text.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_inner_path(text: &str) -> bool {
    text.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !text.chars().any(char::is_control)
}

impl fmt::Display for EntryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module {
                module: place,
                callable,
            }
            | Self::File {
                path: place,
                callable,
            } => f.pad(&format!("{place}:{callable}")),
        }
    }
}

written_type!(EntryPoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_files_are_told_apart() {
        assert_eq!(
            EntryPoint::parse("mysite.wsgi:application").unwrap(),
            EntryPoint::Module {
                module: "mysite.wsgi".into(),
                callable: "application".into()
            }
        );
        assert_eq!(
            EntryPoint::parse("web/app.py:app").unwrap(),
            EntryPoint::File {
                path: "web/app.py".into(),
                callable: "app".into()
            }
        );
        assert_eq!(
            EntryPoint::parse("app").unwrap().to_string(),
            "app:application"
        );
        for text in [
            "mysite.wsgi:application",
            "web/my app.py:app",
            "app:app",
            "shop:create_app()",
        ] {
            assert_eq!(EntryPoint::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn hostile_entry_points_are_refused() {
        for bad in [
            "",
            ":app",
            "app:",
            "../x.py:app",
            "/etc/x.py:app",
            "a/./x.py:a",
            "a b:c",
            "a:b c",
            "a:b\nc",
            "a\nb.py:c",
            "a..b:c",
            "a-b:c",
            "a:b:c",
            "a:%(x)",
            "a:()",
            "a:b(1)",
            "a:b()()",
            "web/a.py:b()",
        ] {
            assert!(EntryPoint::parse(bad).is_err(), "{bad:?}");
        }
    }
}
