//! `paas_health`: how this machine is, for whoever probes it: that nginx answers, and what the daemon last wrote down about the
//! Emperor, the sites' storage, memory and disk.
//!
//! The daemon's file has two lines: a word - `ok`, or what keeps the machine from serving - with the time in milliseconds of
//! `CLOCK_MONOTONIC`, and a JSON object. A daemon that has not written for long says nothing any more: what it said last may be over,
//! and nginx serves what is awake without it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::ffi::content::{Content, Page};
use crate::ffi::milliseconds;
use crate::ffi::request::Request;

/// A daemon's file is not longer.
const LONGEST: u64 = 64 * 1024;

/// The answer.
pub(crate) struct Health;

impl Content for Health {
    const NAME: &'static str = "paas_health handler";

    fn answer(request: Request<'_>) -> Option<Page> {
        let settings = request.location_conf()?.health.as_deref()?;
        let text = read(&settings.file);
        let beat = text.as_deref().ok().and_then(Beat::parse);
        let age = beat
            .as_ref()
            .map(|beat| milliseconds().saturating_sub(beat.time));
        let (daemon, word) = match (&beat, age) {
            (Some(beat), Some(age)) if age <= settings.stale => ("alive", beat.word),
            (Some(_), _) => ("silent", "ok"),
            (None, _) => ("unknown", "ok"),
        };
        let serves = word == "ok";
        let age = age.map_or_else(|| "null".to_owned(), |age| age.to_string());
        let report = beat.as_ref().map_or("null", |beat| beat.report);
        Some(Page {
            status: if serves { 200 } else { 503 },
            content_type: "application/json",
            body: format!(
                "{{\"serves\":{serves},\"reason\":\"{word}\",\"daemon\":\"{daemon}\",\"age_ms\":{age},\"report\":{report}}}\n"
            )
            .into_bytes(),
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

struct Beat<'t> {
    word: &'t str,
    time: u64,
    report: &'t str,
}

impl<'t> Beat<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (first, report) = text.split_once('\n')?;
        let (word, time) = first.split_once(' ')?;
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        let report = report.trim_end();
        let is_whole = report.starts_with('{') && report.ends_with('}');
        (is_whole && !word.is_empty() && word.bytes().all(is_word)).then_some(Self {
            word,
            time: time.parse().ok()?,
            report,
        })
    }
}
