//! `paas_status`: what the workers know of the backends and have counted, as JSON or as Prometheus reads it.

use activity::backends::text::{self, Named};
use activity::backends::{Entry, Seen};
use arguments::Form;
use routing::health::{Health, Settings};
use table::BackendRecord;

use crate::ffi::content::{Content, Page};
use crate::ffi::log::Level;
use crate::ffi::milliseconds;
use crate::ffi::request::Request;
use crate::worker::Table;

/// The answer.
pub(crate) struct Status;

impl Content for Status {
    const NAME: &'static str = "paas_status handler";

    fn answer(request: Request<'_>) -> Option<Page> {
        let form = request.location_conf()?.status?;
        let http = request.main().http_conf()?;
        let monitor = http.monitor.as_ref()?.as_ref()?;
        let seen = monitor.look().unwrap_or_else(|error| {
            let log = request.log();
            log.write(Level::Error, format_args!("paas_status: {error}"));
            Seen::default()
        });
        let now = milliseconds();
        let records = http.table.as_ref().map(Table::backends).unwrap_or_default();
        let backends: Vec<_> = records
            .iter()
            .map(|record| named(record, &seen, now, &http.eject))
            .collect();
        let (content_type, body) = match form {
            Form::Json => ("application/json", text::json(&seen, &backends, now)),
            Form::Prometheus => (
                "text/plain; version=0.0.4",
                text::prometheus(&seen, &backends),
            ),
        };
        Some(Page {
            status: 200,
            content_type,
            body: body.into_bytes(),
        })
    }
}

fn named<'r>(record: &'r BackendRecord, seen: &Seen, now: u64, settings: &Settings) -> Named<'r> {
    let id = u64::from(record.id.get());
    let word = seen
        .backends
        .get(&id)
        .map_or(0, |Entry { health, .. }| *health);
    let health = Health::from_word(word);
    Named {
        id,
        name: &record.name,
        address: record.address.to_string(),
        state: record.state.to_string(),
        health: health.word(now, settings),
        serves: health.is_in_service(),
    }
}
