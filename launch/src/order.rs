//! What the daemon says a vassal is to be: `key=value` lines, every key exactly once, nothing else.

/// Everything the launcher needs to know about a site.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The user to become.
    pub uid: u32,
    /// The group to become; there are no others.
    pub gid: u32,
    /// The site's directory, for `HOME`.
    pub home: String,
    /// Where standard output and error go.
    pub log: String,
    /// The pipe on which uWSGI tells that the site is ready, and that it stops.
    pub notice: String,
    /// The program to run.
    pub uwsgi: String,
}

impl Order {
    /// Reads the daemon's lines.
    pub fn parse(text: &str) -> Result<Order, String> {
        let number = |key| {
            one(text, key)?
                .parse()
                .map_err(|_| format!("the daemon's {key} is not a number"))
        };
        let path = |key| match one(text, key)? {
            path if path.starts_with('/') => Ok(path.to_owned()),
            path => Err(format!(
                "the daemon's {key} is not an absolute path: '{path}'"
            )),
        };
        if let Some(line) = text
            .lines()
            .find(|line| !line.is_empty() && !KEYS.iter().any(|key| value(line, key).is_some()))
        {
            return Err(format!(
                "the daemon sent '{line}', which this launcher does not know: install both from one build"
            ));
        }
        Ok(Order {
            uid: number("uid")?,
            gid: number("gid")?,
            home: path("home")?,
            log: path("log")?,
            notice: path("notice")?,
            uwsgi: path("uwsgi")?,
        })
    }
}

const KEYS: [&str; 6] = ["uid", "gid", "home", "log", "notice", "uwsgi"];

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('=')
}

fn one<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let mut values = text.lines().filter_map(|line| value(line, key));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(format!("the daemon did not say {key}")),
        (Some(_), Some(_)) => Err(format!("the daemon said {key} twice")),
    }
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

    #[test]
    fn every_key_is_said_once() {
        let order = Order::parse(LINES).unwrap();
        assert_eq!((order.uid, order.home.as_str()), (200_001, "/srv/a=b"));
        assert!(Order::parse(&LINES.replace("log=/l\n", "")).is_err());
        assert!(Order::parse(&format!("{LINES}uid=0\n")).is_err());
        assert!(Order::parse(&format!("{LINES}shell=/bin/sh\n")).is_err());
        assert!(Order::parse(&LINES.replace("/n", "n")).is_err());
        assert!(Order::parse(&LINES.replace("uid=200001", "uid=-1")).is_err());
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
