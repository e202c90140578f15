//! The environment of a site's processes: what its operator sets, and what nobody is shown again.
use super::{Invalid, text_type};
use std::collections::BTreeMap;
use std::fmt;

/// What a site may be given in all, names and values, in bytes. The kernel takes more; the launcher's letter does not.
pub const MOST_ENVIRONMENT: usize = 64 * 1024;

/// A variable's name: letters, digits and `_`, at most 128 of them, and none that steers what starts the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvName(String);

impl EnvName {
    /// Checks `text` and takes it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("a name of an environment variable", text, why));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.is_empty() || text.len() > 128 || !text.bytes().all(plain) {
            return refuse("only letters, digits and _ may stand in it, at most 128");
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return refuse("it must not begin with a digit");
        }
        if text.starts_with("UWSGI_") {
            return refuse(
                "uWSGI takes variables of that name for options; `paasctl set-option` sets those that are allowed",
            );
        }
        if text.starts_with("PAAS_") || text == "NOTIFY_SOCKET" || text.starts_with("LISTEN_") {
            return refuse("names like it are the platform's");
        }
        if text.starts_with("LD_") || text == "GLIBC_TUNABLES" {
            return refuse("it would change how programs are loaded before the site's own begins");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
text_type!(EnvName);

/// A variable's value: any text without a zero byte, at most 32 KiB. It is never printed by `Debug`: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvValue(String);

impl EnvValue {
    /// Checks `text` and takes it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // The text itself must not come back in a message.
        let refuse = |why: &str| {
            Err(Invalid::new(
                "a value of an environment variable",
                "...",
                why,
            ))
        };
        if text.len() > 32 * 1024 {
            return refuse("it is longer than 32 KiB; put it into a file of the site");
        }
        if text.contains('\0') {
            return refuse("it has a zero byte in it, which no environment can hold");
        }
        Ok(Self(text.to_owned()))
    }

    /// The value. Whoever calls this sees to it that it goes nowhere but into the site's environment, or that it is no secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvValue(..)")
    }
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVariable {
    /// What it holds.
    pub value: EnvValue,
    /// Whether it is never shown.
    pub secret: bool,
}

/// A site's variables by their names, of bounded size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment(BTreeMap<EnvName, EnvVariable>);

impl Environment {
    /// Checks that it is not too much.
    pub fn new(variables: BTreeMap<EnvName, EnvVariable>) -> Result<Self, Invalid> {
        let one = |(name, variable): (&EnvName, &EnvVariable)| {
            name.as_str().len() + variable.value.expose().len() + 2
        };
        if variables.iter().map(one).sum::<usize>() > MOST_ENVIRONMENT {
            return Err(Invalid::new(
                "an environment",
                "...",
                "all names and values together are more than 64 KiB; put some of it into files of the site",
            ));
        }
        Ok(Self(variables))
    }

    /// The variables by their names.
    pub fn variables(&self) -> &BTreeMap<EnvName, EnvVariable> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_steer_the_start_are_refused() {
        for good in [
            "DJANGO_SETTINGS_MODULE",
            "_x",
            "a1",
            "PATH",
            "TZ",
            "PYTHONPATH",
        ] {
            assert!(EnvName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1A",
            "A B",
            "A=B",
            "A-B",
            "Ä",
            "A\n",
            "UWSGI_EXEC_PRE_APP",
            "LD_PRELOAD",
            "PAAS_ROOT",
            "LISTEN_FDS",
            "NOTIFY_SOCKET",
            "GLIBC_TUNABLES",
        ] {
            assert!(EnvName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(EnvName::parse(&"A".repeat(129)).is_err());
    }

    #[test]
    fn a_value_is_never_printed() {
        let variable = EnvVariable {
            value: EnvValue::parse("hunter2").unwrap(),
            secret: false,
        };
        assert!(!format!("{variable:?}").contains("hunter2"));
        let hostile = EnvValue::parse("hunter2\0").unwrap_err();
        assert!(!format!("{hostile} {hostile:?}").contains("hunter2"));
    }

    #[test]
    fn it_is_bounded() {
        let value = EnvValue::parse(&"x".repeat(32 * 1024)).unwrap();
        let some = |count: u8| {
            let name = |number| EnvName::parse(&format!("V{number}")).unwrap();
            (0..count)
                .map(|number| {
                    (
                        name(number),
                        EnvVariable {
                            value: value.clone(),
                            secret: true,
                        },
                    )
                })
                .collect()
        };
        assert!(Environment::new(some(1)).is_ok());
        assert!(Environment::new(some(2)).is_err());
    }
}
