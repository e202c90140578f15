//! Lengths of time as nginx writes them: `300ms`, `75s`, `10m`, `1h`, `2d`.
use super::{Invalid, written_type};
use std::fmt;
use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A length of time in whole milliseconds, above zero and at most 1000 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// The span of that many seconds, at least one.
    pub const fn seconds(seconds: u32) -> Self {
        Self(if seconds == 0 {
            1000
        } else {
            seconds as u64 * 1000
        })
    }

    /// Reads `10m`; a number alone is seconds.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("a length of time", text, why);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "" => 1000,
            _ => {
                UNITS
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(|| refuse("write it like 300ms, 75s, 10m, 1h or 2d"))?
                    .1
            }
        };
        let number: u64 = number
            .parse()
            .map_err(|_| refuse("write it like 300ms, 75s, 10m, 1h or 2d"))?;
        let total = number
            .checked_mul(scale)
            .ok_or_else(|| refuse("it is too long"))?;
        Self::from_millis(total).ok_or_else(|| refuse("it must be more than 0 and at most 1000d"))
    }

    /// The span of that many milliseconds, if it is one.
    pub fn from_millis(millis: u64) -> Option<Self> {
        (1..=86_400_000_000)
            .contains(&millis)
            .then_some(Self(millis))
    }

    /// In milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// As the standard library's type.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// In whole seconds, rounded up (uWSGI counts in seconds).
    pub fn whole_seconds(self) -> u64 {
        self.0.div_ceil(1000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = UNITS
            .iter()
            .find(|(_, scale)| self.0.is_multiple_of(*scale))
            .unwrap_or(&UNITS[4]);
        f.pad(&format!("{}{unit}", self.0 / scale))
    }
}

written_type!(Span);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read_as_nginx_writes_them() {
        for (text, millis) in [
            ("300ms", 300),
            ("75s", 75_000),
            ("75", 75_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(Span::parse(text).unwrap().millis(), millis, "{text}");
        }
        for bad in [
            "",
            "s",
            "0",
            "0s",
            "-1s",
            "1 s",
            "1.5s",
            "10x",
            "1001d",
            "99999999999999999999d",
            "1s;",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Span::parse("1500ms").unwrap().whole_seconds(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 1u64..=86_400_000_000) {
            let span = Span::from_millis(millis).unwrap();
            prop_assert_eq!(Span::parse(&span.to_string()).unwrap(), span);
        }
    }
}
