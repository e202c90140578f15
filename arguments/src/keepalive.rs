//! `paas_keepalive NUMBER [per_peer=NUMBER] [timeout=TIME] [requests=NUMBER] [time=TIME] [reuse=any | repeatable];`

use routing::idle::Limits;

use crate::{A_TIME, Named, ReadTime, Refusal, number};

/// nginx keeps a connection for this long, too, if nothing is said.
const TIMEOUT: usize = 60_000;
const TIME: usize = 3_600_000;
const REQUESTS: usize = 10_000;
/// More is a slip of the pen: a worker has not so many descriptors.
const MOST: usize = 1_000_000;

/// Which connections are kept.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// How many.
    pub limits: Limits,
    /// For how long one may be idle, in milliseconds.
    pub timeout: usize,
    /// How many requests one may serve.
    pub requests: usize,
    /// How old one may grow, in milliseconds.
    pub time: usize,
    /// Who gets one.
    pub reuse: Reuse,
}

/// Which requests get a connection that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// All.
    Any,
    /// Those that may be sent once more if the connection turns out to be closed.
    Repeatable,
}

impl Keepalive {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse<'a>(
        mut words: impl Iterator<Item = &'a [u8]>,
        read_time: ReadTime,
    ) -> Result<Self, Refusal> {
        let expected = format!("a number from 1 to {MOST}");
        let count = |value: &[u8]| number(value).filter(|number| (1..=MOST).contains(number));
        let span = |value: &[u8]| read_time(value).filter(|time| *time > 0);
        let first = words.next().unwrap_or_default();
        let total = count(first)
            .ok_or_else(|| format!("\"{}\" is not {expected}", first.escape_ascii()))?;
        let (mut per_peer, mut timeout, mut requests, mut time) = (None, None, None, None);
        let mut reuse = None;
        for argument in words.map(Named::from) {
            match argument.name {
                b"per_peer" => argument.once(&mut per_peer, &expected, count),
                b"timeout" => argument.once(&mut timeout, A_TIME, span),
                b"requests" => argument.once(&mut requests, &expected, count),
                b"time" => argument.once(&mut time, A_TIME, span),
                b"reuse" => {
                    let expected = "known: write reuse=any or reuse=repeatable";
                    argument.once(&mut reuse, expected, |value| match value {
                        b"any" => Some(Reuse::Any),
                        b"repeatable" => Some(Reuse::Repeatable),
                        _ => None,
                    })
                }
                _ => Err(argument.unknown()),
            }?;
        }
        Ok(Self {
            limits: Limits {
                total,
                per_peer: per_peer.unwrap_or(total),
            },
            timeout: timeout.unwrap_or(TIMEOUT),
            requests: requests.unwrap_or(REQUESTS),
            time: time.unwrap_or(TIME),
            reuse: reuse.unwrap_or(Reuse::Any),
        })
    }
}
