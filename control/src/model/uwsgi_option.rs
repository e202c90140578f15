//! uWSGI's own options that a site may set: those of a list, each with a checked value. Everything else is refused, and told
//! why: most of uWSGI's options would run programs, open sockets or take the site out of the platform's hands.
use super::Invalid;
use std::collections::BTreeMap;
use std::fmt;

mod allowed;
mod refused;

pub use allowed::{ALLOWED, Allowed, Takes};

/// The most options a site may set.
const MOST: usize = 40;

/// The name of an option on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionName(&'static str);

impl OptionName {
    /// The option of that name, if a site may set it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let name = text.replace('_', "-");
        match allowed::find(&name) {
            Some(option) => Ok(Self(option.name)),
            None => Err(Invalid::new(
                "an option that a site may set",
                text,
                refused::why(&name),
            )),
        }
    }

    /// As uWSGI writes it.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl std::str::FromStr for OptionName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

/// An option with its value: `reload-on-rss=256`; for a switch, the name alone says that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UwsgiOption {
    /// Which.
    pub name: OptionName,
    /// As uWSGI reads it, checked.
    pub value: String,
}

impl UwsgiOption {
    /// Reads `NAME=VALUE` or `NAME`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (name, value) = text
            .split_once('=')
            .map_or((text, None), |(name, value)| (name, Some(value)));
        Self::new(OptionName::parse(name.trim())?, value.map(str::trim))
    }

    /// The option with that value.
    pub fn new(name: OptionName, value: Option<&str>) -> Result<Self, Invalid> {
        let Some(option) = allowed::find(name.0) else {
            return Err(Invalid::new("an option", name.0, "it is not on the list"));
        };
        let checked = option.takes.check(value);
        checked
            .map(|value| Self { name, value })
            .map_err(|why| Invalid::new("an option with its value", &written(name, value), why))
    }
}

fn written(name: OptionName, value: Option<&str>) -> String {
    value.map_or_else(|| name.to_string(), |value| format!("{name}={value}"))
}

impl std::str::FromStr for UwsgiOption {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

/// The options of a site: each once, none against another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UwsgiOptions(BTreeMap<OptionName, String>);

impl UwsgiOptions {
    /// With this one more, or in place of what it was.
    pub fn with(mut self, option: UwsgiOption) -> Result<Self, Invalid> {
        self.0.insert(option.name, option.value);
        self.check()
    }

    /// Without that one; none if it was not there.
    pub fn without(mut self, name: OptionName) -> Option<Self> {
        self.0.remove(&name).map(|_| self)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (OptionName, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number that an option is set to.
    pub fn number(&self, name: &str) -> Option<u64> {
        let found = self.iter().find(|(found, _)| found.0 == name)?;
        found.1.parse().ok()
    }

    fn check(self) -> Result<Self, Invalid> {
        let refuse = |name: &str, why: String| {
            let value = self.number(name).unwrap_or_default();
            Err(Invalid::new(
                "an option beside the others",
                &format!("{name}={value}"),
                why,
            ))
        };
        if self.0.len() > MOST {
            return refuse("options", format!("a site may set {MOST} of them"));
        }
        // What would be reloaded at a size that the process can never have, or would end before it may begin.
        for (smaller, larger, why) in [
            ("reload-on-as", "limit-as", "the limit is reached first"),
            (
                "evil-reload-on-as",
                "limit-as",
                "the limit is reached first",
            ),
            ("reload-on-rss", "limit-as", "the limit is reached first"),
            (
                "evil-reload-on-rss",
                "limit-as",
                "the limit is reached first",
            ),
            (
                "min-worker-lifetime",
                "max-worker-lifetime",
                "it would live longer than it may",
            ),
        ] {
            if let (Some(small), Some(large)) = (self.number(smaller), self.number(larger))
                && small >= large
            {
                return refuse(
                    smaller,
                    format!("it must be less than {larger} ({large}): {why}"),
                );
            }
        }
        Ok(self)
    }
}

impl serde::Serialize for UwsgiOptions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, value)| (name.as_str(), value)))
    }
}

impl<'de> serde::Deserialize<'de> for UwsgiOptions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = <BTreeMap<String, String> as serde::Deserialize>::deserialize(deserializer)?;
        let mut options = BTreeMap::new();
        for (name, value) in found {
            let name = OptionName::parse(&name).map_err(serde::de::Error::custom)?;
            let option = UwsgiOption::new(name, Some(&value)).map_err(serde::de::Error::custom)?;
            options.insert(option.name, option.value);
        }
        Self(options).check().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
