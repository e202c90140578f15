//! `paas_keepalive`: how many idle connections are kept, and for how long.

use std::ffi::CStr;

use ngx::ffi::{NGX_CONF_1MORE, NGX_HTTP_UPS_CONF};
use routing::idle::Limits;

use super::{ServerConf, text, unset};
use crate::ffi::conf::{Conf, Directive, Refusal, milliseconds};
use crate::ffi::keepalive::{Keepalive, Reuse, Settings};

/// nginx keeps a connection for this long, too, if nothing is said.
const TIMEOUT: usize = 60_000;
const TIME: usize = 3_600_000;
const REQUESTS: usize = 10_000;
/// More is a slip of the pen: a worker has not so many descriptors.
const MOST: usize = 1_000_000;

type Read = fn(&[u8]) -> Result<usize, Refusal>;

/// `paas_keepalive NUMBER [per_peer=NUMBER] [timeout=TIME] [requests=NUMBER] [time=TIME] [reuse=any | repeatable];`
pub(crate) struct PaasKeepalive;

impl Directive for PaasKeepalive {
    type Target = ServerConf;
    const NAME: &'static CStr = c"paas_keepalive";
    const USE: u32 = NGX_HTTP_UPS_CONF | NGX_CONF_1MORE;

    fn read(conf: Conf<'_>, part: &mut ServerConf) -> Result<(), Refusal> {
        unset(&part.keepalive)?;
        let mut arguments = conf.arguments();
        let total = number(arguments.next().unwrap_or_default())?;
        let (mut per_peer, mut timeout, mut requests, mut time) = (None, None, None, None);
        let mut reuse = None;
        for argument in arguments {
            let shown = argument.escape_ascii();
            let mut halves = argument.splitn(2, |byte| *byte == b'=');
            let (name, value) = (
                halves.next().unwrap_or_default(),
                halves.next().unwrap_or_default(),
            );
            if name == b"reuse" {
                unset(&reuse).map_err(|_| "has two of \"reuse\"")?;
                reuse = Some(match value {
                    b"any" => Reuse::Any,
                    b"repeatable" => Reuse::Repeatable,
                    _ => return Err(format!("\"{shown}\": write reuse=any or reuse=repeatable")),
                });
                continue;
            }
            let (place, read): (_, Read) = match name {
                b"per_peer" => (&mut per_peer, number),
                b"timeout" => (&mut timeout, span),
                b"requests" => (&mut requests, number),
                b"time" => (&mut time, span),
                _ => return Err(format!("does not know the argument \"{shown}\"")),
            };
            unset(place).map_err(|_| format!("has two of \"{}\"", name.escape_ascii()))?;
            *place = Some(read(value).map_err(|error| format!("\"{shown}\": {error}"))?);
        }
        part.keepalive = Some(Box::new(Keepalive::new(
            Settings {
                limits: Limits {
                    total,
                    per_peer: per_peer.unwrap_or(total),
                },
                timeout: timeout.unwrap_or(TIMEOUT),
                requests: requests.unwrap_or(REQUESTS),
                time: time.unwrap_or(TIME),
                reuse: reuse.unwrap_or(Reuse::Any),
            },
            conf.place(),
        )));
        Ok(())
    }
}

fn number(value: &[u8]) -> Result<usize, Refusal> {
    let number = text(value)?.parse::<usize>().ok();
    number
        .filter(|number| (1..=MOST).contains(number))
        .ok_or_else(|| {
            format!(
                "\"{}\" is not a number from 1 to {MOST}",
                value.escape_ascii()
            )
        })
}

fn span(value: &[u8]) -> Result<usize, Refusal> {
    milliseconds(value).filter(|time| *time > 0).ok_or_else(|| {
        format!(
            "\"{}\" is not a time, like 60s or 500ms",
            value.escape_ascii()
        )
    })
}
