//! The results as tables, and against the promise.

use super::flood::Way;
use super::{Figures, Results};
use crate::results::Table;
use crate::statistics::{interval, median};

/// The promise: at most so much more, with many sites than with few.
const PROMISED: f64 = 1.10;
/// What is promised to be the same.
const SAME: [&str; 3] = ["worker, own memory, MB", "nginx -t, ms", "reload, ms"];

/// All results as text.
pub fn document(results: &Results) -> String {
    let (few, many) = (&results.few, &results.many);
    let head = |figures: &Figures| format!("{} sites", figures.sites);
    let (few_head, many_head) = (head(few), head(many));
    let mut table = Table::new([
        "what",
        &few_head,
        &many_head,
        "ratio",
        "95 % interval",
        "promised",
        "verdict",
    ]);
    for (what, figures) in &few.rounds {
        let others = many.rounds.get(what).map(Vec::as_slice).unwrap_or_default();
        let ratios: Vec<f64> = others.iter().zip(figures).map(|(a, b)| a / b).collect();
        if ratios.is_empty() {
            continue;
        }
        let (low, high) = interval(&ratios);
        let (promised, verdict) = match SAME.contains(&&**what) {
            true if median(&ratios) <= PROMISED => (format!("<= {PROMISED}"), "held"),
            true => (format!("<= {PROMISED}"), "not held"),
            false => (String::new(), ""),
        };
        table.row([
            what.clone(),
            format!("{:.2}", median(figures)),
            format!("{:.2}", median(others)),
            format!("{:.3}", median(&ratios)),
            format!("{low:.3} - {high:.3}"),
            promised,
            verdict.to_owned(),
        ]);
    }
    for (what, of) in [
        (
            "all sites added by one `add-site --from`, s",
            Figures::added as fn(&Figures) -> f64,
        ),
        ("the daemon's table of all sites, s", Figures::built),
        ("the table on the disk, MB", Figures::table),
    ] {
        let cells = [
            what.to_owned(),
            format!("{:.2}", of(few)),
            format!("{:.2}", of(many)),
        ];
        table.row(cells.into_iter().chain([const { String::new() }; 4]));
    }
    let flood = &results.flood;
    let mut flooded = Table::new(["", "this balancer", "stock nginx", "ratio", "95 % interval"]);
    for (what, of) in [
        (
            "a visit, calm, ms",
            (|way| &way.calm) as fn(&Way) -> &Vec<f64>,
        ),
        ("a visit in the flood, ms", |way| &way.flooded),
        ("99 % of visits in the flood, ms", |way| &way.flooded_p99),
        ("refused a second", |way| &way.refused),
        (
            "CPU of the worker for each request of the flood, us",
            |way| &way.microseconds,
        ),
    ] {
        let (paas, stock) = (of(&flood.paas), of(&flood.stock));
        let ratios: Vec<f64> = paas.iter().zip(stock).map(|(a, b)| a / b).collect();
        if ratios.is_empty() {
            continue;
        }
        let (low, high) = interval(&ratios);
        flooded.row([
            what.to_owned(),
            format!("{:.3}", median(paas)),
            format!("{:.3}", median(stock)),
            format!("{:.3}", median(&ratios)),
            format!("{low:.3} - {high:.3}"),
        ]);
    }
    format!(
        "{}\n{} rounds. The flood, medians of {} rounds; requests of it that reached a backend: {}.\n\n{}\n{}\n",
        table.markdown(),
        few.rounds.values().map(Vec::len).max().unwrap_or(0),
        flood.paas.calm.len(),
        flood.strayed,
        flooded.markdown(),
        results.machine.words()
    )
}

impl Figures {
    fn added(&self) -> f64 {
        self.added / 1e3
    }

    fn built(&self) -> f64 {
        self.built / 1e3
    }

    fn table(&self) -> f64 {
        self.table
    }
}
