//! What is known of the backends, written for programs.

use std::fmt::Write as _;

use super::layout::BOUNDS;
use super::{Counted, Entry, Seen};

/// A backend, as whoever writes about it knows it.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: &'a str,
    /// Where its nginx listens.
    pub address: String,
    /// What it may be given.
    pub state: String,
    /// How it does, in a word.
    pub health: &'a str,
    /// Whether that means that it serves.
    pub serves: bool,
}

fn entry(seen: &Seen, id: u64) -> Entry {
    seen.backends.get(&id).cloned().unwrap_or_default()
}

/// As JSON: an object with lists of `workers` and `backends`.
pub fn json(seen: &Seen, backends: &[Named<'_>], now: u64) -> String {
    let mut text = String::from("{\"workers\":[");
    let ago = |time: u64| match time {
        0 => "null".to_owned(),
        time => now.saturating_sub(time).to_string(),
    };
    for (number, worker) in seen.workers.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(
            text,
            "{comma}{{\"pid\":{},\"table_generation\":{},\"parked\":{}}}",
            worker.pid, worker.generation, worker.parked
        );
    }
    text.push_str("],\"backends\":[");
    for (number, named) in backends.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let Entry {
            last_answer,
            last_failure,
            ejections,
            counted,
            ..
        } = entry(seen, named.id);
        let _ = write!(
            text,
            "{comma}{{\"id\":{},\"name\":{},\"address\":{},\"state\":{},\"health\":{},\"requests\":{},\"failures\":{},\
             \"ejections\":{ejections},\"in_flight\":{},\"last_answer_ms_ago\":{},\"last_failure_ms_ago\":{},\
             \"first_byte_ms\":{{\"bounds\":{BOUNDS:?},\"counts\":{:?},\"sum\":{}}}}}",
            named.id,
            quoted(named.name),
            quoted(&named.address),
            quoted(&named.state),
            quoted(named.health),
            counted.requests,
            counted.failures,
            counted.in_flight,
            ago(last_answer),
            ago(last_failure),
            counted.times,
            counted.time,
        );
    }
    text.push_str("]}\n");
    text
}

/// In the text format that Prometheus reads.
pub fn prometheus(seen: &Seen, backends: &[Named<'_>]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Entry, bool) -> u64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for named in backends {
            let value = value(&entry(seen, named.id), named.serves);
            let _ = writeln!(text, "{name}{{backend={}}} {value}", quoted(named.name));
        }
    };
    family(
        "paas_backend_in_service",
        "gauge",
        "Whether requests and probes say that the backend serves.",
        &|_, serves| serves.into(),
    );
    family(
        "paas_backend_requests_total",
        "counter",
        "Requests sent to the backend.",
        &|entry, _| entry.counted.requests,
    );
    family(
        "paas_backend_failures_total",
        "counter",
        "Requests that failed, the backend being to blame.",
        &|entry, _| entry.counted.failures,
    );
    family(
        "paas_backend_ejections_total",
        "counter",
        "How often the backend was left out because of failures.",
        &|entry, _| entry.ejections,
    );
    family(
        "paas_backend_requests_in_flight",
        "gauge",
        "Requests sent to the backend and not answered yet.",
        &|entry, _| entry.counted.in_flight,
    );
    times(&mut text, seen, backends);
    let mut family = |name: &str, help: &str, value: &dyn Fn(&super::Worker) -> u64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for worker in &seen.workers {
            let _ = writeln!(text, "{name}{{pid=\"{}\"}} {}", worker.pid, value(worker));
        }
    };
    family(
        "paas_worker_table_generation",
        "The revision of the registry that the worker has used last.",
        &|worker| worker.generation,
    );
    family(
        "paas_worker_parked_requests",
        "Requests that the worker holds until their site is awake.",
        &|worker| worker.parked,
    );
    text
}

fn times(text: &mut String, seen: &Seen, backends: &[Named<'_>]) {
    let name = "paas_backend_first_byte_seconds";
    let _ = writeln!(
        text,
        "# HELP {name} Time from sending a request to the head of its answer.\n# TYPE {name} histogram"
    );
    for named in backends {
        let backend = quoted(named.name);
        let Counted { times, time, .. } = entry(seen, named.id).counted;
        let mut sum = 0_u64;
        for (class, count) in times.iter().enumerate() {
            sum = sum.wrapping_add(*count);
            let bound = BOUNDS
                .get(class)
                .map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
            let _ = writeln!(
                text,
                "{name}_bucket{{backend={backend},le=\"{bound}\"}} {sum}"
            );
        }
        let _ = writeln!(
            text,
            "{name}_sum{{backend={backend}}} {}\n{name}_count{{backend={backend}}} {sum}",
            seconds(time)
        );
    }
}

/// Milliseconds as seconds.
fn seconds(milliseconds: u64) -> String {
    let (whole, rest) = (milliseconds / 1000, milliseconds % 1000);
    match rest {
        0 => whole.to_string(),
        rest => format!("{whole}.{rest:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

/// A string of JSON; what Prometheus calls a label's value is one, too, for all that can stand in a name.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
