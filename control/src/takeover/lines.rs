//! What a line says: pairs of host and backend as CSV, or an access log whose form is given as nginx's `log_format` or as
//! a regular expression. Pure.
use crate::model::Invalid;
use std::borrow::Cow;

/// How lines are read.
#[derive(Debug, Clone)]
pub enum Form {
    /// `host,backend`.
    Pairs,
    /// nginx's `log_format`.
    Log(LogFormat),
    /// An expression with the groups `host` and `backend`.
    Pattern(regex::bytes::Regex),
}

/// What a line was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'l> {
    /// A request for a host, and the backend that it was sent to first.
    Pair {
        /// The host as it stands there.
        host: Cow<'l, [u8]>,
        /// The backend.
        backend: Cow<'l, str>,
    },
    /// A heading, a comment, an empty line, or a request that went to no backend.
    Nothing,
    /// Not of this form.
    Other,
}

impl Form {
    /// Reads a log's form given as a regular expression.
    pub fn pattern(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Invalid::new("a regular expression of a log", text, why);
        let pattern = regex::bytes::Regex::new(text).map_err(|error| refuse(error.to_string()))?;
        for group in ["host", "backend"] {
            if !pattern.capture_names().flatten().any(|name| name == group) {
                return Err(refuse(format!("it has no group (?<{group}>...)")));
            }
        }
        Ok(Self::Pattern(pattern))
    }

    /// Reads one line, without its end.
    pub fn read<'l>(&self, line: &'l [u8]) -> Line<'l> {
        let found = match self {
            Self::Pairs => return pair(line),
            Self::Log(format) => format.read(line),
            Self::Pattern(pattern) => pattern.captures(line).and_then(|found| {
                Some((
                    found.name("host")?.as_bytes(),
                    found.name("backend")?.as_bytes(),
                ))
            }),
        };
        match found {
            None if line.is_empty() => Line::Nothing,
            None => Line::Other,
            Some((host, backend)) => logged(host, backend),
        }
    }
}

fn pair(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Line::Nothing;
    }
    let mut cells = line.split(|byte| *byte == b',').map(|cell| {
        let cell = cell.trim_ascii();
        cell.strip_prefix(b"\"")
            .and_then(|cell| cell.strip_suffix(b"\""))
            .unwrap_or(cell)
    });
    match (cells.next(), cells.next(), cells.next()) {
        (Some(b"host"), Some(b"backend"), None) => Line::Nothing,
        (Some(host), Some(backend), None) if !host.is_empty() && !backend.is_empty() => {
            Line::Pair {
                host: host.into(),
                backend: String::from_utf8_lossy(backend),
            }
        }
        _ => Line::Other,
    }
}

/// What nginx logs for a request that was tried on several backends: `a:1, b:1 : c:1`. The first was the choice.
fn logged<'l>(host: &'l [u8], backend: &'l [u8]) -> Line<'l> {
    let first = backend
        .split(|byte| *byte == b',' || *byte == b' ')
        .next()
        .unwrap_or_default();
    match (host, first) {
        (b"" | b"-", _) | (_, b"" | b"-") => Line::Nothing,
        _ => Line::Pair {
            host: host.into(),
            backend: String::from_utf8_lossy(first),
        },
    }
}

/// nginx's `log_format`: literal text and variables. A variable's value reaches to the first place where the text behind
/// it stands; nginx escapes quotes in values, so that a value in quotes is always whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFormat {
    /// What comes before the first variable.
    start: Vec<u8>,
    /// What each variable is, and the text behind it.
    parts: Vec<(Field, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Host,
    Backend,
    Other,
}

/// The variables that are taken for the host unless one is named.
const HOSTS: [&str; 2] = ["host", "http_host"];
/// The variables that are taken for the backend unless one is named.
const BACKENDS: [&str; 2] = ["upstream_addr", "proxy_host"];

impl LogFormat {
    /// Reads a format. `host` and `backend` name the variables that hold them, if not the usual ones.
    pub fn parse(text: &str, host: Option<&str>, backend: Option<&str>) -> Result<Self, Invalid> {
        let refuse = |why: String| Invalid::new("a log_format", text, why);
        let mut pieces = text.split('$');
        let start = pieces.next().unwrap_or_default().as_bytes().to_vec();
        let mut named: Vec<(&str, Vec<u8>)> = Vec::new();
        for piece in pieces {
            let (name, behind) = match piece
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
            {
                Some((name, behind)) => (name, behind),
                None => {
                    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                    piece.split_at(piece.bytes().take_while(|byte| is_part(byte)).count())
                }
            };
            if name.is_empty() {
                return Err(refuse("a $ without the name of a variable".to_owned()));
            }
            named.push((name, behind.as_bytes().to_vec()));
        }
        let has = |wanted: &str| named.iter().any(|(name, _)| *name == wanted);
        let find = |given: Option<&str>, usual: &[&'static str], what: &str| match given {
            Some(name) if has(name) => Ok(name.to_owned()),
            Some(name) => Err(refuse(format!("it has no ${name}"))),
            None => match usual.iter().find(|name| has(name)) {
                Some(name) => Ok((*name).to_owned()),
                None => Err(refuse(format!(
                    "it has no variable with the {what} (${}): name the one that holds it with --{what}-variable",
                    usual.join(" or $")
                ))),
            },
        };
        let (host, backend) = (
            find(host, &HOSTS, "host")?,
            find(backend, &BACKENDS, "backend")?,
        );
        let parts = named.into_iter().map(|(name, behind)| {
            let field = if name == host {
                Field::Host
            } else if name == backend {
                Field::Backend
            } else {
                Field::Other
            };
            (field, behind)
        });
        let parts: Vec<_> = parts.collect();
        if let Some((_, all_but_last)) = parts.split_last()
            && all_but_last.iter().any(|(_, behind)| behind.is_empty())
        {
            return Err(refuse(
                "two variables stand side by side with nothing between them".to_owned(),
            ));
        }
        Ok(Self { start, parts })
    }

    fn read<'l>(&self, line: &'l [u8]) -> Option<(&'l [u8], &'l [u8])> {
        let mut rest = line.strip_prefix(&*self.start)?;
        let (mut host, mut backend) = (None, None);
        for (at, (field, behind)) in self.parts.iter().enumerate() {
            let is_last = at + 1 == self.parts.len();
            let end = match is_last {
                true if rest.ends_with(behind) => rest.len() - behind.len(),
                true => return None,
                false => find(rest, behind)?,
            };
            let (value, after) = rest.split_at_checked(end)?;
            rest = after.get(behind.len()..)?;
            match field {
                Field::Host => host = Some(value),
                Field::Backend => backend = Some(value),
                Field::Other => {}
            }
        }
        Some((host?, backend?))
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
