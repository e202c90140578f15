//! The results as tables, and against the promise.

use super::{Phases, Results};
use crate::results::{self, Table};
use crate::statistics::{interval, median};

/// The promise: waking adds at most this, in milliseconds.
const PROMISED: f64 = 15.0;
/// In the order in which they happen.
const PHASES: [(&str, &str); 7] = [
    ("park", "request through balancer and backend to the daemon"),
    ("look-up", "registry, directories, socket, configuration"),
    ("launch", "vassal file, Emperor, `paas-launch` asks"),
    ("spawn", "socket handed over, uWSGI, Python"),
    ("import", "the application's import"),
    ("ready", "fork, accepting, notice to the daemon"),
    ("first answer", "request goes on, application answers"),
];

/// All results as text.
pub fn document(all: &Results) -> String {
    let mut totals = Table::new([
        "site",
        "by hand, ms",
        "woken, ms",
        "added, ms",
        "95 % interval",
        "promised",
        "verdict",
        "pairs",
        "no bytecode, ms more",
    ]);
    for (name, pairs) in all {
        let each = |phases: &[Phases]| phases.iter().map(|phases| phases.all).collect::<Vec<_>>();
        let (woken, by_hand) = (each(&pairs.woken), each(&pairs.by_hand));
        let added: Vec<f64> = woken.iter().zip(&by_hand).map(|(a, b)| a - b).collect();
        let (low, high) = interval(&added);
        let verdict = if median(&added) <= PROMISED {
            "held"
        } else {
            "not held"
        };
        totals.row([
            name.clone(),
            format!("{:.1}", median(&by_hand)),
            format!("{:.1}", median(&woken)),
            format!("{:.1}", median(&added)),
            format!("{low:.1} - {high:.1}"),
            format!("<= {PROMISED:.0}"),
            verdict.to_owned(),
            added.len().to_string(),
            match pairs.uncompiled.is_empty() {
                true => String::new(),
                false => {
                    let more = each(&pairs.uncompiled).into_iter().zip(&woken);
                    let more: Vec<f64> = more.map(|(without, with)| without - with).collect();
                    let (low, high) = interval(&more);
                    format!("{:.1} ({low:.1} - {high:.1})", median(&more))
                }
            },
        ]);
    }
    let head = ["phase", "what"]
        .into_iter()
        .chain(all.keys().map(String::as_str));
    let mut phases = Table::new(head);
    for (phase, words) in PHASES {
        let cells = all.values().map(|pairs| {
            let of = |phases: &[Phases]| {
                let times: Vec<f64> = phases
                    .iter()
                    .filter_map(|p| p.each.get(phase).copied())
                    .collect();
                (!times.is_empty()).then(|| median(&times))
            };
            match (of(&pairs.woken), of(&pairs.by_hand)) {
                (Some(woken), Some(by_hand)) => format!("{woken:.1} ({by_hand:.1})"),
                (Some(woken), None) => format!("{woken:.1}"),
                _ => String::new(),
            }
        });
        phases.row(
            [phase.to_owned(), words.to_owned()]
                .into_iter()
                .chain(cells),
        );
    }
    let machines: Vec<String> = all
        .iter()
        .map(|(name, pairs)| format!("{name}: {}", pairs.machine.words()))
        .collect();
    format!(
        "{}\nPhases, median ms; in brackets, by hand: \"spawn\" from exec, \"first answer\" from the import on.\n\n{}\n{}\n",
        totals.markdown(),
        phases.markdown(),
        machines.join("\n")
    )
}

/// Writes the results into the document.
///
/// # Errors
/// It cannot be written.
pub fn write(all: &Results) -> anyhow::Result<()> {
    let document = results::document("wake", &document(all))?;
    eprintln!("written: {}", document.display());
    Ok(())
}
