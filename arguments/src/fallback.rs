//! `paas_fallback [socket=PATH] [vassal=PATH] [initialize=URI] [timeout=TIME] [max_parked=NUMBER];`

use crate::{A_TIME, Named, ReadTime, Refusal, number};

/// What to do with a request that could not be handed to its site.
#[derive(Debug)]
pub struct Fallback<'a> {
    /// The site's socket: an expression.
    pub socket: Option<&'a [u8]>,
    /// The file whose presence means that the site runs: an expression.
    pub vassal: Option<&'a [u8]>,
    /// Whom to ask: an expression.
    pub initialize: Option<&'a [u8]>,
    /// How long to wait, in milliseconds; more than 0.
    pub timeout: usize,
    /// How many requests may wait in one worker; at least 1.
    pub max_parked: usize,
}

impl<'a> Fallback<'a> {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(
        words: impl Iterator<Item = &'a [u8]>,
        read_time: ReadTime,
    ) -> Result<Self, Refusal> {
        let (mut socket, mut vassal, mut initialize) = (None, None, None);
        let (mut timeout, mut max_parked) = (None, None);
        for argument in words.map(Named::from) {
            let place = match argument.name {
                b"socket" => &mut socket,
                b"vassal" => &mut vassal,
                b"initialize" => &mut initialize,
                b"timeout" => {
                    let read = |value: &[u8]| read_time(value).filter(|time| *time > 0);
                    argument.once(&mut timeout, A_TIME, read)?;
                    continue;
                }
                b"max_parked" => {
                    let read = |value: &[u8]| number(value).filter(|number: &usize| *number > 0);
                    argument.once(&mut max_parked, "a number from 1", read)?;
                    continue;
                }
                _ => return Err(argument.unknown()),
            };
            argument.once(place, "complete: its value is missing", |value| {
                Some(value).filter(|value| !value.is_empty())
            })?;
        }
        Ok(Self {
            socket,
            vassal,
            initialize,
            timeout: timeout.unwrap_or(30_000),
            max_parked: max_parked.unwrap_or(1024),
        })
    }
}
