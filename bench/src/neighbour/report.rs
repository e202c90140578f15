//! The results as a table, and against the promise.

use super::{Half, Results};
use crate::results::{self, Table};
use crate::statistics::{interval, median};

/// The promise: an answer takes at most so many times as long.
const PROMISED: f64 = 1.2;

/// All results as text.
pub fn document(all: &Results) -> String {
    let mut table = Table::new([
        "limits of users",
        "the other's processes",
        "of answers",
        "quiet, ms",
        "beside him, ms",
        "ratio",
        "95 % interval",
        "promised",
        "verdict",
        "rounds",
    ]);
    for (limits, rounds) in all {
        for (name, of) in [
            ("p50", (|half| half.p50) as fn(&Half) -> f64),
            ("p99", |half| half.p99),
        ] {
            let each = |halves: &[Half]| halves.iter().map(of).collect::<Vec<f64>>();
            let (quiet, harassed) = (each(&rounds.quiet), each(&rounds.harassed));
            let ratios: Vec<f64> = harassed.iter().zip(&quiet).map(|(a, b)| a / b).collect();
            let (low, high) = interval(&ratios);
            let verdict = match median(&ratios) <= PROMISED {
                true => "held",
                false => "not held",
            };
            let harassing: Vec<String> = rounds.harassing.iter().map(u32::to_string).collect();
            table.row([
                match limits.as_str() {
                    "" => "as they are by default".to_owned(),
                    lines => format!("`{}`", lines.replace('\n', "; ")),
                },
                harassing.join(" + "),
                name.to_owned(),
                format!("{:.2}", median(&quiet)),
                format!("{:.2}", median(&harassed)),
                format!("{:.2}", median(&ratios)),
                format!("{low:.2} - {high:.2}"),
                format!("<= {PROMISED}"),
                verdict.to_owned(),
                ratios.len().to_string(),
            ]);
        }
    }
    let machines: Vec<String> = all.values().map(|rounds| rounds.machine.words()).collect();
    format!("{}\n{}\n", table.markdown(), machines.join("\n"))
}

/// Writes the results into the document.
///
/// # Errors
/// It cannot be written.
pub fn write(all: &Results) -> anyhow::Result<()> {
    let document = results::document("neighbour", &document(all))?;
    eprintln!("written: {}", document.display());
    Ok(())
}
