//! `paas_status [json | prometheus];` and `paas_health FILE [stale=TIME];`

use std::path::PathBuf;

use crate::{A_TIME, Named, ReadTime, Refusal, directory};

/// After this many milliseconds without a word from the daemon, unless it is said, what it wrote last is void.
const DEFAULT_STALE: u64 = 5_000;

/// How the status is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// An object.
    Json,
    /// The text format that Prometheus reads.
    Prometheus,
}

impl Form {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        match words.next() {
            None | Some(b"json") => Ok(Self::Json),
            Some(b"prometheus") => Ok(Self::Prometheus),
            Some(other) => Err(format!(
                "does not know the form \"{}\": write json or prometheus",
                other.escape_ascii()
            )),
        }
    }
}

/// Where it is written how the machine is.
#[derive(Debug)]
pub struct Health {
    /// The daemon's file.
    pub file: PathBuf,
    /// After so many milliseconds what it says is void.
    pub stale: u64,
}

impl Health {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse<'a>(
        mut words: impl Iterator<Item = &'a [u8]>,
        read_time: ReadTime,
    ) -> Result<Self, Refusal> {
        let file = directory(words.next().unwrap_or_default())?;
        let mut stale = None;
        let span = |value: &[u8]| {
            u64::try_from(read_time(value)?)
                .ok()
                .filter(|time| *time > 0)
        };
        for argument in words.map(Named::from) {
            match argument.name {
                b"stale" => argument.once(&mut stale, A_TIME, span)?,
                _ => return Err(argument.unknown()),
            }
        }
        Ok(Self {
            file,
            stale: stale.unwrap_or(DEFAULT_STALE),
        })
    }
}
