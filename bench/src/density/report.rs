//! The results as tables, and against the promise.

use super::Results;
use crate::results::{self, Table};
use crate::statistics::{interval, median};

/// The promise: at rest the daemon and the Emperor together use at most this share of a core.
const PROMISED: f64 = 0.03;
/// Those two.
const OURS: [&str; 2] = ["the daemon", "the Emperor"];

/// All results as text.
pub fn document(results: &Results) -> String {
    let mut parts = Table::new(["who", "processes", "memory, MB", "CPU at rest, % of a core"]);
    for part in &results.parts {
        parts.row([
            part.name.clone(),
            part.processes.to_string(),
            format!("{:.1}", megabytes(part.memory)),
            format!("{:.2}", part.cpu * 100.0),
        ]);
    }
    let ours: f64 = results
        .parts
        .iter()
        .filter(|part| OURS.contains(&part.name.as_str()))
        .map(|part| part.cpu)
        .sum();
    let sites = results.parts.iter().find(|part| part.name == "the sites");
    let each = sites.map_or(0.0, |part| megabytes(part.memory) / results.awake as f64);
    let mut wakes = Table::new(["waking one site", "ms (median)", "95 % interval", "wakes"]);
    for (name, times) in [
        ("all others asleep", &results.wake_alone),
        ("beside those awake", &results.wake_beside),
    ] {
        let (low, high) = interval(times);
        wakes.row([
            name.to_owned(),
            format!("{:.1}", median(times)),
            format!("{low:.1} - {high:.1}"),
            times.len().to_string(),
        ]);
    }
    format!(
        "{} sites awake, one worker each, beside {} asleep: {each:.1} MB for each site awake. Visited at once, the last of them answered after \
         {:.1} s. At rest ({:.0} s) the daemon and the Emperor use {:.2} % of a core together: promised are at most {:.0} %, {}.\n\n{}\n{}\n{}\n",
        results.awake,
        results.asleep,
        results.all_awake,
        results.rest,
        ours * 100.0,
        PROMISED * 100.0,
        if ours <= PROMISED { "held" } else { "not held" },
        parts.markdown(),
        wakes.markdown(),
        results.machine.words(),
    )
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Writes the results into the document.
///
/// # Errors
/// It cannot be written.
pub fn write(results: &Results) -> anyhow::Result<()> {
    let document = results::document("density", &document(results))?;
    eprintln!("written: {}", document.display());
    Ok(())
}
