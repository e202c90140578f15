//! What a user's or a site's processes may have of a machine. A limit that is not said is the machine's own, for users; for sites
//! it is their user's.
use super::{Bytes, Invalid, Span};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a site's processes may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nowhere: it has its own loopback and nothing else.
    None,
    /// The internet, and what the machine's settings open besides.
    Outbound,
}

impl FromStr for Network {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "none" => Ok(Self::None),
            "outbound" => Ok(Self::Outbound),
            _ => Err(Invalid::new("a network", text, "it is none or outbound")),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Outbound => "outbound",
        })
    }
}

/// A whole number within bounds, for what is counted.
macro_rules! counted {
    ($(#[$about:meta])* $name:ident($number:ty), $what:literal, $least:literal to $most:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($number);

        impl $name {
            /// The number, if it is within the bounds.
            pub fn new(number: u64) -> Result<Self, Invalid> {
                <$number>::try_from(number)
                    .ok()
                    .filter(|number| ($least..=$most).contains(number))
                    .map(Self)
                    .ok_or_else(|| Invalid::new($what, &number.to_string(), concat!("it must be ", $least, " to ", $most)))
            }

            /// The number.
            pub const fn get(self) -> $number {
                self.0
            }

            /// For defaults.
            pub(crate) const fn constant(number: $number) -> Self {
                Self(number)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let number = text.parse().map_err(|_| {
                    Invalid::new($what, text, concat!("it must be a number, ", $least, " to ", $most))
                })?;
                Self::new(number)
            }
        }

        impl TryFrom<u64> for $name {
            type Error = Invalid;
            fn try_from(number: u64) -> Result<Self, Invalid> {
                Self::new(number)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counted!(
    /// A number of processes and threads.
    Processes(u32), "a number of processes", 8 to 100_000
);
counted!(
    /// Per cent of one core: 200 are two cores.
    Cpu(u32), "a share of a core in per cent", 1 to 100_000
);
counted!(
    /// The weight against others when all want the CPU; 100 is usual.
    CpuWeight(u16), "a weight", 1 to 10_000
);
counted!(
    /// A number of open files.
    Descriptors(u32), "a number of open files", 64 to 1_000_000
);

/// What is said for one user or one site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of all processes together, files in `/tmp` included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processes and threads, all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<Processes>,
    /// The most CPU at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// The weight against other users, for a site against the user's other sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<CpuWeight>,
    /// CPU time in a day (of UTC), beyond which the user is slowed; only for users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_per_day: Option<Span>,
    /// Open files of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<Descriptors>,
    /// The size of `/tmp`, of `/var/tmp` and of `/dev/shm`, each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporary: Option<Bytes>,
    /// Where its processes may connect to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

impl Limits {
    /// What is said here, and of what is not said here what `others` say.
    pub fn or(&self, others: &Limits) -> Limits {
        Limits {
            memory: self.memory.or(others.memory),
            processes: self.processes.or(others.processes),
            cpu: self.cpu.or(others.cpu),
            weight: self.weight.or(others.weight),
            cpu_per_day: self.cpu_per_day.or(others.cpu_per_day),
            descriptors: self.descriptors.or(others.descriptors),
            temporary: self.temporary.or(others.temporary),
            network: self.network.or(others.network),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_before_what_is_usual() {
        let usual = Limits {
            memory: Bytes::new(1 << 30),
            processes: Some(Processes::constant(256)),
            ..Limits::default()
        };
        let said = Limits {
            memory: Bytes::new(1 << 20),
            network: Some(Network::Outbound),
            ..Limits::default()
        };
        let both = said.or(&usual);
        assert_eq!(both.memory, Bytes::new(1 << 20));
        assert_eq!(both.processes, usual.processes);
        assert_eq!(both.network, Some(Network::Outbound));
    }

    #[test]
    fn they_are_kept_as_text_and_read_back_strictly() {
        let said = Limits {
            memory: Bytes::new(64 << 20),
            cpu: Some(Cpu::constant(50)),
            cpu_per_day: Some(Span::seconds(3600)),
            ..Limits::default()
        };
        let text = serde_json::to_string(&said).unwrap();
        assert_eq!(text, r#"{"memory":"64m","cpu":50,"cpu_per_day":"1h"}"#);
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), said);
        for bad in [
            r#"{"cpu":0}"#,
            r#"{"memory":"-1"}"#,
            r#"{"colour":1}"#,
            r#"{"network":"all"}"#,
            r#"{"processes":1}"#,
        ] {
            assert!(serde_json::from_str::<Limits>(bad).is_err(), "{bad}");
        }
        assert!("2".parse::<Processes>().is_err() && "x".parse::<Cpu>().is_err());
    }
}
