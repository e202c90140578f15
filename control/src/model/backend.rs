//! Backends: the machines that run sites.
use super::{BackendId, Invalid, State, Weight, text_type};
use std::net::SocketAddr;

/// The name of a backend: 1 to 63 bytes, letters, digits, `-`, `.` and `_`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(String);

impl BackendName {
    /// Checks `text` and takes it as a backend's name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("a backend's name", text, why));
        if !text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
        {
            return refuse("it must begin with a letter or a digit");
        }
        if text.len() > 63 {
            return refuse("it has more than 63 characters");
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        {
            return refuse("only letters, digits, -, . and _ may stand in it");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
text_type!(BackendName);

/// What stands for a backend in placement: 1 to 255 printable ASCII characters without a space. Changing it moves sites.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey(String);

impl BackendKey {
    /// Checks `text` and takes it as a key.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > 255 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::new(
                "a backend's key",
                text,
                "it must be 1 to 255 printable ASCII characters without a space",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
text_type!(BackendKey);

/// Reads a weight typed at the command line.
pub fn parse_weight(text: &str) -> Result<Weight, Invalid> {
    let why = "it must be a whole number from 1 to 10000";
    let number = text
        .parse()
        .map_err(|_| Invalid::new("a weight", text, why))?;
    Weight::new(number).map_err(|_| Invalid::new("a weight", text, why))
}

/// Reads an address typed at the command line.
pub fn parse_address(text: &str) -> Result<SocketAddr, Invalid> {
    let why = "write an IP address and a port, like 10.0.0.5:9001 or [2001:db8::5]:9001";
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Invalid::new("a backend's address", text, why))?;
    // Nothing can be reached at these.
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(Invalid::new("a backend's address", text, why));
    }
    Ok(address)
}

/// A backend that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackend {
    /// The name.
    pub name: BackendName,
    /// Where its nginx listens for balancers.
    pub address: SocketAddr,
    /// What stands for it in placement; usually the address it was added with.
    pub key: BackendKey,
    /// Its share.
    pub weight: Weight,
    /// The administrative state.
    pub state: State,
}

impl NewBackend {
    /// The backend that it becomes under this id.
    pub fn with_id(self, id: BackendId) -> Backend {
        let Self {
            name,
            address,
            key,
            weight,
            state,
        } = self;
        Backend {
            id,
            name,
            address,
            key,
            weight,
            state,
        }
    }
}

/// A backend as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Never used again for another one.
    pub id: BackendId,
    /// The name.
    pub name: BackendName,
    /// Where its nginx listens for balancers.
    pub address: SocketAddr,
    /// What stands for it in placement.
    pub key: BackendKey,
    /// Its share.
    pub weight: Weight,
    /// The administrative state.
    pub state: State,
}

impl BackendKey {
    /// The key of a backend added with `address` and no key of its own.
    pub fn of(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keys_and_weights_are_checked() {
        assert!(BackendName::parse("b1").is_ok() && BackendName::parse("rack-2.b_1").is_ok());
        for bad in ["", "-b", "b 1", "b;", "bé", &"b".repeat(64)] {
            assert!(BackendName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a\n", "é", &"k".repeat(256)] {
            assert!(BackendKey::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            BackendKey::of("[::1]:80".parse().unwrap()).as_str(),
            "[::1]:80"
        );
        assert!(
            parse_weight("0").is_err()
                && parse_weight("10001").is_err()
                && parse_weight("3").is_ok()
        );
    }
}
