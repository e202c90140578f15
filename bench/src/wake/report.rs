//! The results as tables, and against the promise.

use super::{Phases, Results};
use crate::results::{self, Table};
use crate::statistics::{interval, median};

/// The promise: waking adds at most this, in milliseconds.
const PROMISED: f64 = 15.0;
/// The promise: what holds a site in adds at most this, in milliseconds.
const PROMISED_SANDBOX: f64 = 10.0;
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
    ]);
    let mut sandbox = Table::new([
        "site",
        "without, ms",
        "with, ms",
        "added, ms",
        "95 % interval",
        "promised",
        "verdict",
        "pairs",
    ]);
    let mut outbound = Table::new([
        "site",
        "none, ms",
        "outbound, ms",
        "added, ms",
        "95 % interval",
        "promised",
        "verdict",
        "pairs",
    ]);
    for (name, pairs) in all {
        totals.row(row(name, &pairs.by_hand, &pairs.woken, Some(PROMISED)));
        if !pairs.bare.is_empty() {
            sandbox.row(row(name, &pairs.bare, &pairs.woken, Some(PROMISED_SANDBOX)));
        }
        if !pairs.outbound.is_empty() {
            outbound.row(row(name, &pairs.woken, &pairs.outbound, None));
        }
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
        "{}\nWhat the sandbox adds: the same site on a second platform, with `enabled = false` in `[sandbox]`.\n\n{}\nWhat a way out adds: the same site on a third platform, with `network = \"outbound\"` there.\n\n{}\nPhases, median ms; in brackets, by hand: \"spawn\" from exec, \"first answer\" from the import on.\n\n{}\n{}\n",
        totals.markdown(),
        sandbox.markdown(),
        outbound.markdown(),
        phases.markdown(),
        machines.join("\n")
    )
}

/// What comes on top of something else, pair by pair.
fn row(name: &str, less: &[Phases], more: &[Phases], promised: Option<f64>) -> [String; 8] {
    let each = |phases: &[Phases]| phases.iter().map(|phases| phases.all).collect::<Vec<_>>();
    let (less, more) = (each(less), each(more));
    let added: Vec<f64> = more.iter().zip(&less).map(|(a, b)| a - b).collect();
    let (low, high) = interval(&added);
    let verdict = promised.map(|promised| match median(&added) <= promised {
        true => "held",
        false => "not held",
    });
    [
        name.to_owned(),
        format!("{:.1}", median(&less)),
        format!("{:.1}", median(&more)),
        format!("{:.1}", median(&added)),
        format!("{low:.1} - {high:.1}"),
        promised.map_or_else(String::new, |promised| format!("<= {promised:.0}")),
        verdict.unwrap_or_default().to_owned(),
        added.len().to_string(),
    ]
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
