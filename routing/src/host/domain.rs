//! [`Domain`]: a normalised host name that exists only if it is valid.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::{HostError, MAX_DOMAIN, MAX_LABEL};

/// A host name: ASCII lower case, 1 to 253 bytes, labels of 1 to 63 bytes of letters, digits, `-` and `_`, without a
/// trailing dot, and not an IPv4 address.
///
/// Its bytes are inline, so that parsing a Host and reading a record allocate nothing. Underscores are not a host
/// name's by RFC 1123, but names with them exist and browsers send them.
#[derive(Clone)]
pub struct Domain {
    length: u8,
    // All bytes from `length` on are zero.
    bytes: [u8; MAX_DOMAIN],
}

impl Domain {
    /// Parses and normalises a name: no port, no address; upper case and one trailing dot are accepted.
    ///
    /// # Errors
    /// [`HostError`]; [`HostError::Address`] for an address, with or without brackets.
    pub fn parse(name: &str) -> Result<Self, HostError> {
        if name.starts_with('[') {
            return Err(HostError::Address);
        }
        Self::from_bytes(name.as_bytes()).map_err(|error| match error {
            HostError::Number if super::parse_v4(name.as_bytes()).is_some() => HostError::Address,
            other => other,
        })
    }

    /// A domain from bytes that are one already, as stored in the table: anything [`Domain::parse`] would have to
    /// change is refused.
    #[must_use]
    pub fn from_normalised(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(bytes)
            .ok()
            .filter(|domain| domain.as_bytes() == bytes)
    }

    /// As [`Domain::parse`], of any bytes. An address ends in [`HostError::Number`].
    pub(super) fn from_bytes(name: &[u8]) -> Result<Self, HostError> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        let length = u8::try_from(name.len())
            .ok()
            .filter(|&length| usize::from(length) <= MAX_DOMAIN);
        let length = length.ok_or(HostError::TooLong)?;
        let mut domain = Self {
            length,
            bytes: [0; MAX_DOMAIN],
        };

        // What the label being read looks like so far.
        let mut label = 0;
        let mut numeric = true;
        let mut previous = b'.';
        for (to, &byte) in domain.bytes.iter_mut().zip(name) {
            let byte = byte.to_ascii_lowercase();
            match byte {
                b'.' => {
                    end_label(label, previous)?;
                    label = 0;
                    numeric = true;
                }
                b'-' if label == 0 => return Err(HostError::Hyphen),
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {
                    label += 1;
                    numeric &= byte.is_ascii_digit();
                }
                _ => return Err(HostError::Byte(byte)),
            }
            previous = byte;
            *to = byte;
        }
        end_label(label, previous)?;
        if numeric {
            Err(HostError::Number)
        } else {
            Ok(domain)
        }
    }

    /// The name's bytes, 1 to 253 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Never the default: only ASCII gets in.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

fn end_label(length: usize, last: u8) -> Result<(), HostError> {
    match length {
        0 => Err(HostError::EmptyLabel),
        _ if last == b'-' => Err(HostError::Hyphen),
        1..=MAX_LABEL => Ok(()),
        _ => Err(HostError::LabelTooLong),
    }
}

impl FromStr for Domain {
    type Err = HostError;

    fn from_str(name: &str) -> Result<Self, HostError> {
        Self::parse(name)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

// `Eq`, `Ord` and `Hash` are those of `str`, as `Borrow` demands.
impl Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Domain {}

impl Ord for Domain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Domain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.as_str())
    }
}
