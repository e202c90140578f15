//! What the daemon says a vassal is to be: `key=value` lines, each key once but those of lists, nothing else. It is never
//! printed: the environment holds secrets.

use crate::confinement::Confinement;

/// Everything the launcher needs to know about a site.
#[derive(PartialEq, Eq)]
pub struct Order {
    /// The user to become.
    pub uid: u32,
    /// The group to become; there are no others.
    pub gid: u32,
    /// The site's directory, for `HOME`.
    pub home: String,
    /// What the platform hears of it by; a visitor's program has its own terminal or pipes.
    pub voice: Option<Voice>,
    /// What to run.
    pub program: Program,
    /// `NAME=VALUE`, secrets among them.
    pub environment: Vec<String>,
    /// What holds it in.
    pub confinement: Confinement,
}

/// Where a site's processes speak.
#[derive(Debug, PartialEq, Eq)]
pub struct Voice {
    /// Where standard output and error go.
    pub log: String,
    /// The pipe on which uWSGI tells that the site is ready, and that it stops.
    pub notice: String,
}

/// What to run for a site.
#[derive(Debug, PartialEq, Eq)]
pub enum Program {
    /// uWSGI, which reads the rest from the vassal file.
    Uwsgi(String),
    /// A program with its arguments that serves the socket at descriptor 0.
    Command {
        /// At least one.
        arguments: Vec<String>,
        /// Its programs are found first.
        venv: Option<String>,
    },
}

impl Order {
    /// Reads the daemon's lines.
    pub fn parse(text: &str) -> Result<Order, String> {
        let lines = Lines::split(text)?;
        let program = match (lines.optional("uwsgi")?, lines.all("argument")) {
            (Some(_), arguments) if arguments.is_empty() => Program::Uwsgi(lines.path("uwsgi")?),
            (None, arguments) if !arguments.is_empty() => Program::Command {
                arguments,
                venv: match lines.optional("venv")? {
                    Some(_) => Some(lines.path("venv")?),
                    None => None,
                },
            },
            _ => return Err("the daemon must say either uwsgi or argument".to_owned()),
        };
        Ok(Order {
            uid: lines.number("uid")?,
            gid: lines.number("gid")?,
            home: lines.path("home")?,
            voice: match (lines.optional("log")?, lines.optional("notice")?) {
                (None, None) => None,
                _ => Some(Voice {
                    log: lines.path("log")?,
                    notice: lines.path("notice")?,
                }),
            },
            program,
            environment: lines.all("environment"),
            confinement: Confinement::parse(&lines)?,
        })
    }
}

const KEYS: [&str; 21] = [
    "uid",
    "gid",
    "home",
    "log",
    "notice",
    "uwsgi",
    "argument",
    "venv",
    "environment",
    "group",
    "descriptors",
    "bwrap",
    "hostname",
    "temporary",
    "network",
    "interface",
    "configuration",
    "shown",
    "own",
    "readable",
    "file",
];

/// The lines, each with a known key; their values without what stood for control characters.
pub struct Lines<'a>(Vec<(&'a str, String)>);

impl<'a> Lines<'a> {
    /// Lines of `key=value`.
    pub fn split(text: &'a str) -> Result<Lines<'a>, String> {
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            if !KEYS.contains(&key) {
                // Not the value: it may be a secret.
                return Err(format!(
                    "the daemon sent '{}', which this launcher does not know: install both from one build",
                    key.chars().take(40).collect::<String>()
                ));
            }
            let value = decoded(value).ok_or_else(|| format!("the daemon's {key} is garbled"))?;
            lines.push((key, value));
        }
        Ok(Lines(lines))
    }

    /// Every value of the key, in their order.
    pub fn all(&self, key: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(found, _)| *found == key);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// The key's only value, if there is one.
    pub fn optional(&self, key: &str) -> Result<Option<&str>, String> {
        let mut found = self.0.iter().filter(|(found, _)| *found == key);
        match (found.next(), found.next()) {
            (found, None) => Ok(found.map(|(_, value)| value.as_str())),
            (_, Some(_)) => Err(format!("the daemon said {key} twice")),
        }
    }

    /// The key's only value.
    pub fn one(&self, key: &str) -> Result<&str, String> {
        self.optional(key)?
            .ok_or_else(|| format!("the daemon did not say {key}"))
    }

    /// The key's only value, a number.
    pub fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N, String> {
        self.one(key)?
            .parse()
            .map_err(|_| format!("the daemon's {key} is not a number"))
    }

    /// The key's only value, a path from the root.
    pub fn path(&self, key: &str) -> Result<String, String> {
        match self.one(key)? {
            path if path.starts_with('/') => Ok(path.to_owned()),
            path => Err(format!(
                "the daemon's {key} is not an absolute path: '{path}'"
            )),
        }
    }
}

/// What the daemon wrote as `%0A`, and the percent sign itself.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut value = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?;
        value.push(char::from(byte));
        value.push_str(rest);
    }
    Some(value)
}

/// `<site id>@<generation>.ini`, both in plain decimal digits.
pub fn is_vassal_name(name: &str) -> bool {
    let plain = |digits: &str| {
        (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.strip_suffix(".ini")
        .and_then(|name| name.split_once('@'))
        .is_some_and(|(site, generation)| plain(site) && plain(generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str =
        "uid=200001\ngid=200001\nhome=/srv/a=b\nlog=/l\nnotice=/n\nuwsgi=/usr/bin/uwsgi\n\n";

    fn problem(text: &str) -> String {
        Order::parse(text).err().expect("a refusal")
    }

    #[test]
    fn every_key_is_said_once() {
        let order = Order::parse(LINES).ok().unwrap();
        assert_eq!((order.uid, order.home.as_str()), (200_001, "/srv/a=b"));
        assert_eq!(order.program, Program::Uwsgi("/usr/bin/uwsgi".to_owned()));
        problem(&LINES.replace("log=/l\n", ""));
        problem(&format!("{LINES}uid=0\n"));
        problem(&format!("{LINES}shell=/bin/sh\n"));
        problem(&LINES.replace("/n", "n"));
        problem(&LINES.replace("uid=200001", "uid=-1"));
        problem(&LINES.replace("uwsgi=/usr/bin/uwsgi\n", ""));
        problem(&format!("{LINES}argument=node\n"));
    }

    #[test]
    fn lists_keep_their_order_and_every_character() {
        let text = LINES.replace(
            "uwsgi=/usr/bin/uwsgi\n",
            "argument=node\nargument=\nargument=a b\nvenv=/v\nenvironment=A=x%0Ay%25=\nenvironment=B=\n",
        );
        let order = Order::parse(&text).ok().unwrap();
        let Program::Command { arguments, venv } = order.program else {
            panic!("not a command");
        };
        assert_eq!(
            (arguments.as_slice(), venv.as_deref()),
            (["node", "", "a b"].map(String::from).as_slice(), Some("/v"))
        );
        assert_eq!(order.environment, ["A=x\ny%=", "B="]);
    }

    #[test]
    fn a_garbled_value_is_not_repeated() {
        for garbled in ["%", "%4", "%zz", "%FF"] {
            let said = problem(&format!("{LINES}environment=KEY=secret{garbled}\n"));
            assert!(!said.contains("secret"), "{said}");
        }
        assert!(!problem(&format!("{LINES}secret")).contains("=secret"));
    }

    #[test]
    fn only_vassal_names_are_vassal_names() {
        assert!(is_vassal_name("12@1795479288.ini"));
        for name in [
            "",
            "12.ini",
            "@1.ini",
            "1@.ini",
            "../1@1.ini",
            "1@1.ini/",
            "1@1",
            "a@1.ini",
            "1@1@1.ini",
            "+1@1.ini",
        ] {
            assert!(!is_vassal_name(name), "{name}");
        }
    }
}
