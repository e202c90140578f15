//! What the daemon's probes have found out of each backend, for `GET /backends` and so for `paasctl list-backends`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::ask::Found;
use super::{lock, millis};
use crate::model::{Backend, BackendId, BackendName};

/// Shared between the prober and whoever wants to know.
#[derive(Debug, Clone, Default)]
pub struct Opinions(Arc<Mutex<BTreeMap<BackendId, Opinion>>>);

#[derive(Debug)]
struct Opinion {
    name: BackendName,
    serves: Option<bool>,
    why: Option<String>,
    since: Instant,
    last: Option<Instant>,
    report: Option<serde_json::Value>,
}

/// What is known of one backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Whether it serves; none: nobody knows yet.
    pub serves: Option<bool>,
    /// Why the last probe did not go well, if it did not.
    pub why: Option<String>,
    /// For how long that has been thought of it, in milliseconds.
    pub for_ms: u64,
    /// How long ago the last probe ended, in milliseconds.
    pub probed_ms_ago: Option<u64>,
    /// What it said of itself last.
    pub report: Option<serde_json::Value>,
}

impl Opinions {
    pub(super) fn begin(&self, backend: &Backend) {
        let opinion = Opinion {
            name: backend.name.clone(),
            serves: None,
            why: None,
            since: Instant::now(),
            last: None,
            report: None,
        };
        lock(&self.0).insert(backend.id, opinion);
    }

    pub(super) fn rename(&self, id: BackendId, name: &BackendName) {
        if let Some(opinion) = lock(&self.0).get_mut(&id) {
            opinion.name.clone_from(name);
        }
    }

    pub(super) fn forget(&self, id: BackendId) {
        lock(&self.0).remove(&id);
    }

    pub(super) fn hear(
        &self,
        id: BackendId,
        found: &Found,
        serves: Option<bool>,
        why: Option<&str>,
    ) {
        let mut all = lock(&self.0);
        let Some(opinion) = all.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        if opinion.serves != serves {
            (opinion.serves, opinion.since) = (serves, now);
        }
        opinion.last = Some(now);
        opinion.why = match found {
            Found::Unclear(status) => Some(format!("it does not tell: it answered {status}")),
            _ => why.map(str::to_owned),
        };
        opinion.report = match found {
            Found::Serves(report) | Found::Cannot(_, report) => Some(report.clone()),
            Found::Unclear(_) | Found::Unreached(_) | Found::Silent => None,
        };
    }

    /// Of all backends, by their numbers.
    pub fn all(&self) -> Vec<Known> {
        let all = lock(&self.0);
        let known = |(id, opinion): (&BackendId, &Opinion)| Known {
            id: id.get(),
            name: opinion.name.to_string(),
            serves: opinion.serves,
            why: opinion.why.clone(),
            for_ms: millis(opinion.since.elapsed()),
            probed_ms_ago: opinion.last.map(|last| millis(last.elapsed())),
            report: opinion.report.clone(),
        };
        all.iter().map(known).collect()
    }
}
