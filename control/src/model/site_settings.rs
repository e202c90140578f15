//! The settings of a site: how many processes it has, what they may take, which files they serve as they are. What is not set
//! is as the machine or uWSGI has it. Values that contradict each other make no settings.
use super::{AbsolutePath, Application, Bytes, Invalid, Span, UwsgiOptions};
use crate::escape::IniValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Deref, RangeInclusive};

/// How many workers a site may have.
pub const WORKERS: RangeInclusive<u16> = 1..=64;
/// How many threads each of them may have.
pub const THREADS: RangeInclusive<u16> = 1..=128;
/// The most static mappings of a site.
const MOST_STATICS: usize = 32;

/// Each setting by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Values {
    /// Processes; none: as the machine's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u16>,
    /// Threads of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,
    /// So many of the workers stay when there is little to do; the others come as they are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cheaper: Option<u16>,
    /// A request that takes longer is ended with its worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harakiri: Option<Span>,
    /// A worker is started anew after that many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// The largest head of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_size: Option<Bytes>,
    /// Bodies larger than that wait on disk instead of in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_buffering: Option<Bytes>,
    /// Files served as they are, by uWSGI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statics: Vec<StaticMapping>,
    /// What new code must answer before it takes over; none: `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeTarget>,
    /// uWSGI's own options.
    #[serde(skip_serializing_if = "UwsgiOptions::is_empty")]
    pub options: UwsgiOptions,
}

/// Settings that go together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Values", into = "Values")]
pub struct SiteSettings(Values);

impl SiteSettings {
    /// Checks `values` by themselves and against each other.
    pub fn new(values: Values) -> Result<Self, Invalid> {
        let refuse = |what, value: &dyn fmt::Display, why: String| {
            Invalid::new(what, &value.to_string(), why)
        };
        let within = |what, value: Option<u64>, range: RangeInclusive<u64>| match value {
            Some(value) if !range.contains(&value) => Err(refuse(
                what,
                &value,
                format!("it must be {} to {}", range.start(), range.end()),
            )),
            _ => Ok(()),
        };
        let wide = |range: RangeInclusive<u16>| u64::from(*range.start())..=u64::from(*range.end());
        within(
            "a number of workers",
            values.workers.map(u64::from),
            wide(WORKERS),
        )?;
        within(
            "a number of threads",
            values.threads.map(u64::from),
            wide(THREADS),
        )?;
        within(
            "a number of requests",
            values.max_requests.map(u64::from),
            1..=1_000_000_000,
        )?;
        within(
            "a buffer size in bytes",
            values.buffer_size.map(Bytes::get),
            4096..=65_535,
        )?;
        within(
            "a size of bodies in bytes",
            values.post_buffering.map(Bytes::get),
            4096..=1 << 30,
        )?;
        if let Some(harakiri) = values.harakiri
            && !(1000..=86_400_000).contains(&harakiri.millis())
        {
            return Err(refuse(
                "a harakiri time",
                &harakiri,
                "it must be 1s to 1d".to_owned(),
            ));
        }
        if let Some(cheaper) = values.cheaper {
            let what = "a number of cheaper workers";
            match values.workers {
                None => {
                    return Err(refuse(
                        what,
                        &cheaper,
                        "it says how many of the workers stay: set --workers, too".to_owned(),
                    ));
                }
                Some(workers) if !(1..workers).contains(&cheaper) => {
                    return Err(refuse(
                        what,
                        &cheaper,
                        format!("it must be at least 1 and less than --workers ({workers})"),
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, most) in [
            ("cheaper-initial", values.workers),
            ("cheaper-step", values.workers),
        ] {
            let Some(number) = values.options.number(name) else {
                continue;
            };
            if values.cheaper.is_none() {
                return Err(refuse(
                    "an option beside the settings",
                    &name,
                    "it means nothing without --cheaper".to_owned(),
                ));
            }
            if number > most.map_or(u64::MAX, u64::from) {
                return Err(refuse(
                    "an option beside the settings",
                    &format!("{name}={number}"),
                    "it is more than --workers".to_owned(),
                ));
            }
        }
        for name in ["cheaper-algo", "cheaper-overload"] {
            if values.cheaper.is_none()
                && values
                    .options
                    .iter()
                    .any(|(option, _)| option.as_str() == name)
            {
                return Err(refuse(
                    "an option beside the settings",
                    &name,
                    "it means nothing without --cheaper".to_owned(),
                ));
            }
        }
        if values.statics.len() > MOST_STATICS {
            return Err(refuse(
                "a number of static mappings",
                &values.statics.len(),
                format!("a site may have {MOST_STATICS} of them"),
            ));
        }
        for (index, mapping) in values.statics.iter().enumerate() {
            if values
                .statics
                .iter()
                .skip(index + 1)
                .any(|other| other.url == mapping.url)
            {
                return Err(refuse(
                    "a static mapping",
                    mapping,
                    "its URL is mapped already".to_owned(),
                ));
            }
        }
        Ok(Self(values))
    }

    /// The values, to be changed and checked again.
    pub fn into_values(self) -> Values {
        self.0
    }

    /// Whether they mean anything for `application`; they are uWSGI's, and a command does not run under it.
    pub fn suit(&self, application: &Application) -> Result<(), Invalid> {
        if application.command().is_none() {
            return Ok(());
        }
        let names = [
            ("--workers", self.workers.is_some()),
            ("--threads", self.threads.is_some()),
            ("--cheaper", self.cheaper.is_some()),
            ("--harakiri", self.harakiri.is_some()),
            ("--max-requests", self.max_requests.is_some()),
            ("--buffer-size", self.buffer_size.is_some()),
            ("--post-buffering", self.post_buffering.is_some()),
            ("--static", !self.statics.is_empty()),
            ("set-option", !self.options.is_empty()),
        ];
        match names.iter().find(|(_, set)| *set) {
            None => Ok(()),
            Some((name, _)) => Err(Invalid::new(
                "a setting of a site that runs a command",
                name,
                "it is uWSGI's, and the command does not run under uWSGI: give its server an argument of its own",
            )),
        }
    }
}

impl Deref for SiteSettings {
    type Target = Values;
    fn deref(&self) -> &Values {
        &self.0
    }
}

impl TryFrom<Values> for SiteSettings {
    type Error = Invalid;
    fn try_from(values: Values) -> Result<Self, Invalid> {
        Self::new(values)
    }
}

impl From<SiteSettings> for Values {
    fn from(settings: SiteSettings) -> Self {
        settings.0
    }
}

/// Requests below a URL that are answered with the files of a directory, without the application: `/static=/srv/shop/static`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticMapping {
    /// The beginning of the path.
    pub url: UrlPrefix,
    /// Where the files lie.
    pub directory: AbsolutePath,
}

impl StaticMapping {
    /// Reads `/static=/srv/shop/static`; a relative directory has been made absolute before.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Some((url, directory)) = text.split_once('=') else {
            return Err(Invalid::new(
                "a static mapping",
                text,
                "write it like /static=/srv/shop/static",
            ));
        };
        let directory = AbsolutePath::parse(directory)?;
        IniValue::new(directory.as_str())
            .map_err(|refused| Invalid::new("a static mapping", text, refused.why))?;
        if directory.as_str() == "/" {
            return Err(Invalid::new(
                "a static mapping",
                text,
                "it would show every file that the site can read",
            ));
        }
        Ok(Self {
            url: UrlPrefix::parse(url)?,
            directory,
        })
    }
}

impl fmt::Display for StaticMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}={}", self.url, self.directory))
    }
}

impl std::str::FromStr for StaticMapping {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

/// The beginning of a URL's path: `/static`; letters, digits and `-._~/`, without `.` and `..` and without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UrlPrefix(String);

impl UrlPrefix {
    /// Checks `text` and takes it; a slash at its end goes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("the beginning of a URL", text, why));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/');
        let inner = text.trim_end_matches('/');
        if !inner.starts_with('/') {
            return refuse("it must begin with / and be more than that: /static");
        }
        if inner.len() > 200 || !inner.chars().all(plain) {
            return refuse("only letters, digits and - . _ ~ / may stand in it, at most 200");
        }
        if inner
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return refuse("it has an empty part, . or .. in it");
        }
        Ok(Self(inner.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
super::text_type!(UrlPrefix);

/// The path, with a query perhaps, of a request that shows whether a site works: `/health?deep=1`; visible ASCII, at most 1024.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeTarget(String);

impl ProbeTarget {
    /// Checks `text` and takes it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("a path to probe", text, why));
        if !text.starts_with('/') {
            return refuse("it must begin with /: /health");
        }
        if text.len() > 1024 {
            return refuse("it is longer than 1024 bytes");
        }
        // A blank or a line's end would end the request's line.
        if !text.chars().all(|c| c.is_ascii_graphic() && c != '#') {
            return refuse(
                "only visible ASCII without # may stand in it: write other characters as %20",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
super::text_type!(ProbeTarget);

#[cfg(test)]
#[path = "site_settings_tests.rs"]
mod tests;
