//! Users: the accounts that own sites.
use super::{Invalid, text_type};
use std::fmt;
use std::ops::RangeInclusive;

/// The name of a user: 1 to 32 bytes, `a-z`, `0-9`, `_`, `-`, beginning with a letter or `_` (a Unix account's name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// Checks `text` and takes it as a user name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("a user name", text, why));
        match text.as_bytes() {
            [] => return refuse("it is empty"),
            [b'a'..=b'z' | b'_', ..] => {}
            _ => return refuse("it must begin with a letter a-z or _"),
        }
        if text.len() > 32 {
            return refuse("it has more than 32 characters");
        }
        if !text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        {
            return refuse("only a-z, 0-9, _ and - may stand in it");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
text_type!(UserName);

/// A Unix user id that sites run as: never 0 and never 2³²-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Uid(u32);

impl Uid {
    /// Takes `uid` if sites may run as it.
    pub fn new(uid: u32) -> Result<Self, Invalid> {
        match uid {
            0 => Err(Invalid::new("a site's uid", "0", "no site runs as root")),
            u32::MAX => Err(Invalid::new(
                "a site's uid",
                "4294967295",
                "the kernel keeps that number for itself",
            )),
            _ => Ok(Self(uid)),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The uids that may be given to users, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    first: Uid,
    last: Uid,
}

impl UidRange {
    /// The range from `first` to `last`, both included.
    pub fn new(first: u32, last: u32) -> Result<Self, Invalid> {
        if first > last {
            return Err(Invalid::new(
                "a range of uids",
                &format!("[{first}, {last}]"),
                "the first is above the last",
            ));
        }
        Ok(Self {
            first: Uid::new(first)?,
            last: Uid::new(last)?,
        })
    }

    /// The numbers.
    pub fn numbers(self) -> RangeInclusive<u32> {
        self.first.get()..=self.last.get()
    }

    /// Whether `uid` lies in it.
    pub fn contains(self, uid: Uid) -> bool {
        (self.first..=self.last).contains(&uid)
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

/// A user as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// The Unix uid its sites run as, the same on every backend, never given to anybody else.
    pub uid: Uid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_a_unix_account_name() {
        for good in ["anna", "_x", "a-1_b", &"a".repeat(32)] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Anna",
            "1a",
            "-a",
            "a b",
            "a\n",
            "ä",
            "a.b",
            "a/b",
            &"a".repeat(33),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_site_runs_as_root() {
        assert!(
            Uid::new(0).is_err() && Uid::new(u32::MAX).is_err() && UidRange::new(0, 10).is_err()
        );
        assert!(UidRange::new(5, 4).is_err());
        assert!(UidRange::new(5, 6).unwrap().contains(Uid::new(6).unwrap()));
    }
}
