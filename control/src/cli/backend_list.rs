//! `list-backends`: what the registry says of the backends, and what this machine knows of them.
use super::backend::Shown;
use super::machine::Machine;
use super::moves::{Places, place};
use super::output::{Table, json, or_empty};
use super::{CliError, Format, placement};
use crate::change::unix_millis;
use crate::model::Backend;
use crate::observed::{Observed, ago, bytes};
use crate::registry::{View, sites};
use serde::Serialize;
use std::io::Write;

/// So many sites tell the shares of all well enough, however many there are.
const SAMPLE: usize = 100_000;

/// A row; what nobody here knows is null.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    shown: Shown,
    /// `in-service`, `returning`, `on-trial`, `ejected`, `down`.
    health: Option<&'static str>,
    /// Why its probes do not go well.
    why: Option<String>,
    /// The share of the sites that placement gives it while all are well.
    sites_percent: Option<f64>,
    awake: Option<u64>,
    in_flight: Option<u64>,
    requests: Option<u64>,
    failures: Option<u64>,
    ejections: Option<u64>,
    last_failure_ms_ago: Option<u64>,
    memory_available: Option<u64>,
    memory_total: Option<u64>,
    /// Until sites that are still awake are put to sleep, if it is being drained.
    deadline_ms: Option<u64>,
}

pub(super) fn list(machine: &Machine, format: Format, out: &mut dyn Write) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let backends = view.backends()?;
    let shares = shares(&*view, &backends)?;
    let observed = Observed::of(&machine.settings);
    let rows: Vec<Row> = backends
        .iter()
        .zip(shares)
        .map(|(backend, share)| row(&*view, backend, share, &observed))
        .collect::<Result<_, _>>()?;
    if format.json {
        return json(out, &rows);
    }
    let mut table = Table::new(&[
        "NAME",
        "ADDRESS",
        "WEIGHT",
        "STATE",
        "HEALTH",
        "SITES",
        "AWAKE",
        "IN-FLIGHT",
        "FAILED",
        "FREE MEMORY",
        "KEY",
    ]);
    for one in &rows {
        let memory = one.memory_available.zip(one.memory_total);
        table.row([
            one.shown.name.clone(),
            one.shown.address.to_string(),
            one.shown.weight.to_string(),
            match one.deadline_ms {
                Some(left) => format!("{} ({} left)", one.shown.state, ago(left)),
                None => one.shown.state.clone(),
            },
            or_empty(one.health),
            or_empty(one.sites_percent.map(|share| format!("{share:.1} %"))),
            or_empty(one.awake),
            or_empty(one.in_flight),
            or_empty(
                one.last_failure_ms_ago
                    .map(|time| format!("{} ago", ago(time))),
            ),
            or_empty(memory.map(|(left, all)| format!("{} of {}", bytes(left), bytes(all)))),
            one.shown.key.clone(),
        ]);
    }
    table.print(out)?;
    for one in &rows {
        if let Some(why) = &one.why {
            writeln!(out, "{}: {why}", one.shown.name)?;
        }
    }
    if let Some(change) = placement::change_in_words(&*view)? {
        writeln!(out, "{change}")?;
    }
    Ok(())
}

fn row(
    view: &dyn View,
    backend: &Backend,
    sites_percent: Option<f64>,
    observed: &Observed,
) -> Result<Row, CliError> {
    let entry = observed.entry(backend.id);
    let report = observed.report(backend.id);
    let deadline = view.drain_deadline(backend.id)?;
    let failed = entry
        .map(|entry| entry.last_failure)
        .filter(|time| *time > 0);
    Ok(Row {
        shown: Shown::from(backend),
        health: observed.word(backend.id),
        why: observed.why(backend).map(str::to_owned),
        sites_percent,
        awake: report.awake,
        in_flight: entry.map(|entry| entry.counted.in_flight),
        requests: entry.map(|entry| entry.counted.requests),
        failures: entry.map(|entry| entry.counted.failures),
        ejections: entry.map(|entry| entry.ejections),
        last_failure_ms_ago: failed.map(|time| observed.now.saturating_sub(time)),
        memory_available: report.memory_available,
        memory_total: report.memory_total,
        deadline_ms: deadline.map(|at| at.saturating_sub(unix_millis())),
    })
}

/// The share of the sites of each backend in percent; none without sites.
fn shares(view: &dyn View, backends: &[Backend]) -> Result<Vec<Option<f64>>, CliError> {
    let places = Places::new(view, backends.to_vec())?;
    let mut counts = vec![0_u32; backends.len()];
    let mut all = 0_u32;
    for site in sites(view).take(SAMPLE) {
        let site = site?;
        all += 1;
        let found = place(&places, &site.primary, site.pin);
        if let Some(count) = found.and_then(|index| counts.get_mut(index)) {
            *count += 1;
        }
    }
    let percent = |count: u32| f64::from(count) * 1000.0 / f64::from(all);
    Ok(counts
        .into_iter()
        .map(|count| (all > 0).then(|| percent(count).round() / 10.0))
        .collect())
}
