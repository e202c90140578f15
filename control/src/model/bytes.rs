//! Sizes in bytes as nginx writes them: `4096`, `64k`, `10m`, `1g`.
use super::{Invalid, written_type};
use std::fmt;

const WHAT: &str = "a size";
const UNITS: [(char, u64); 3] = [('g', 1 << 30), ('m', 1 << 20), ('k', 1 << 10)];

/// A number of bytes, at most 1024g.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

impl Bytes {
    /// That many bytes, if it is not too much.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes <= 1 << 40 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// Reads `64k`; a number alone is bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new(WHAT, text, why);
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(*unit));
        let (digits, scale) = match unit {
            Some((_, scale)) => (&lower[..lower.len() - 1], *scale),
            None => (lower.as_str(), 1),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("write it like 4096, 64k, 10m or 1g"));
        }
        let bytes = digits.parse::<u64>().ok();
        bytes
            .and_then(|number| number.checked_mul(scale))
            .and_then(Self::new)
            .ok_or_else(|| refuse("it is more than 1024g"))
    }

    /// How many.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale));
        match unit {
            Some((unit, scale)) => f.pad(&format!("{}{unit}", self.0 / scale)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

written_type!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_nginx_writes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 65_536),
            ("10M", 10 << 20),
            ("1g", 1 << 30),
        ] {
            assert_eq!(Bytes::parse(text).unwrap().get(), bytes, "{text}");
        }
        for bad in [
            "",
            "k",
            "-1",
            "1.5m",
            "1 k",
            "1kb",
            "10t",
            "2000g",
            "99999999999999999999",
            "1k;",
            "é",
        ] {
            assert!(Bytes::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0_u64..=1 << 40) {
            let size = Bytes::new(bytes).unwrap();
            prop_assert_eq!(Bytes::parse(&size.to_string()).unwrap(), size);
        }
    }
}
