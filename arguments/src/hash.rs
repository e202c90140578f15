//! `paas_hash [KEY] [method=rendezvous | python64 | python32];`

use routing::Method;

use crate::{Refusal, text};

/// By what a block places its requests.
#[derive(Debug)]
pub struct Hash<'a> {
    /// The key: an expression. None: the table has the sites and their backends.
    pub key: Option<&'a [u8]>,
    /// The method.
    pub method: Method,
}

impl<'a> Hash<'a> {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let (mut key, mut method) = (None, None);
        for word in words {
            if let Some(name) = word.strip_prefix(b"method=") {
                if method.is_some() {
                    return Err("has two methods".to_owned());
                }
                let name = text(name)?;
                let read = name.parse::<Method>();
                method =
                    Some(read.map_err(|error| format!("method={}: {error}", name.escape_debug()))?);
            } else if key.is_none() && method.is_none() {
                key = Some(word);
            } else {
                return Err(format!(
                    "does not know the argument \"{}\"",
                    word.escape_ascii()
                ));
            }
        }
        if key.is_none() && method.is_some() {
            return Err("takes its method from the table if it has no key: write \"paas_hash KEY method=...;\", or \
                        change the table's placement (`paasctl set-placement`)"
                .to_owned());
        }
        Ok(Self {
            key,
            method: method.unwrap_or_default(),
        })
    }
}
