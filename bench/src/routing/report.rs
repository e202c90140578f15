//! The results as tables, as a plot, and against the promise.

use std::fmt::Write as _;

use super::ways::{FEW, WAYS, Way};
use super::{Comparison, Results};
use crate::plot::Bars;
use crate::results::{self, Table};
use crate::statistics::{interval, median};

/// The promise: at most this much of the CPU of another way.
const PROMISED: [(Way, f64); 3] = [
    (Way::Static, 1.05),
    (Way::Consistent, 1.0),
    (Way::LuaVariable, 0.30),
];

impl Comparison {
    fn figures(&self, way: Way) -> &[f64] {
        self.microseconds
            .get(way.key())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// `way` by `rival` in each round.
    fn ratios(&self, way: Way, rival: Way) -> Vec<f64> {
        self.figures(way)
            .iter()
            .zip(self.figures(rival))
            .map(|(way, rival)| way / rival)
            .collect()
    }

    fn rounds(&self) -> usize {
        self.microseconds.values().map(Vec::len).max().unwrap_or(0)
    }

    fn heading(&self) -> String {
        let kept = match self.keepalive {
            Some(most) => format!("keep-alive (up to {most} idle connections)"),
            None => "a new connection for every request".to_owned(),
        };
        format!("{} servers, {kept}", self.servers)
    }
}

/// One comparison as text.
pub fn table(comparison: &Comparison) -> String {
    let mut table = Table::new([
        "way",
        "us of CPU / request",
        "ratio to static",
        "95 % interval",
    ]);
    for way in WAYS {
        let figures = comparison.figures(way);
        if figures.is_empty() {
            continue;
        }
        let ratios = comparison.ratios(way, Way::Static);
        // Without the static way there is nothing to compare with.
        let (ratio, range) = match ratios.is_empty() {
            true => Default::default(),
            false => {
                let (low, high) = interval(&ratios);
                let range = format!("{low:.3} - {high:.3}");
                (format!("{:.3}", median(&ratios)), range)
            }
        };
        table.row([
            way.words().to_owned(),
            format!("{:.2}", median(figures)),
            ratio,
            range,
        ]);
    }
    let mut text = format!(
        "**{}**; {} rounds of {} requests, {} clients\n\n{}\n",
        comparison.heading(),
        comparison.rounds(),
        comparison.requests,
        comparison.clients,
        table.markdown()
    );
    if comparison.servers == 8 && comparison.keepalive.is_some() {
        let _ = writeln!(text, "{}", promise(comparison));
    }
    let number = number(comparison);
    if !number.is_empty() {
        let _ = writeln!(text, "{number}");
    }
    let _ = writeln!(
        text,
        "{}; {}",
        comparison.machine.words(),
        comparison.versions.join("; ")
    );
    text
}

/// Promise R1, word by word.
fn promise(comparison: &Comparison) -> String {
    let mut table = Table::new([
        "`paas_hash`, table, `paas_keepalive` against",
        "promised",
        "measured",
        "95 % interval",
        "verdict",
    ]);
    for (rival, bound) in PROMISED {
        let ratios = comparison.ratios(Way::Table, rival);
        if ratios.is_empty() {
            continue;
        }
        let (low, high) = interval(&ratios);
        let verdict = if high <= bound {
            "held"
        } else if low <= bound {
            "held: the interval reaches the bound"
        } else {
            "not held"
        };
        table.row([
            rival.words().to_owned(),
            format!("<= {bound:.2}"),
            format!("{:.3}", median(&ratios)),
            format!("{low:.3} - {high:.3}"),
            verdict.to_owned(),
        ]);
    }
    table.markdown()
}

/// What many servers cost more than few; empty if that was not measured.
fn number(comparison: &Comparison) -> String {
    let mut table = Table::new([
        &format!("{} in place of {FEW}", comparison.servers),
        "us more / request",
        "ratio",
        "95 % interval",
    ]);
    let mut is_measured = false;
    for (many, few, words) in [
        (Way::Table, Way::TableFew, "`paas_hash`, table: servers"),
        (Way::Haproxy, Way::HaproxyFew, "HAProxy: servers"),
        (
            Way::FloorMany,
            Way::Floor,
            "sockets alone: `return 200` to so many client connections in place of 64",
        ),
    ] {
        let ratios = comparison.ratios(many, few);
        if ratios.is_empty() {
            continue;
        }
        is_measured = true;
        let differences: Vec<f64> = comparison
            .figures(many)
            .iter()
            .zip(comparison.figures(few))
            .map(|(many, few)| many - few)
            .collect();
        let (low, high) = interval(&ratios);
        table.row([
            words.to_owned(),
            format!("{:.2}", median(&differences)),
            format!("{:.3}", median(&ratios)),
            format!("{low:.3} - {high:.3}"),
        ]);
    }
    match is_measured {
        true => table.markdown(),
        false => String::new(),
    }
}

/// All comparisons as text.
pub fn document(all: &Results) -> String {
    all.values().map(table).collect::<Vec<_>>().join("\n")
}

/// Writes all comparisons into the document, and draws them.
///
/// # Errors
/// A file cannot be written.
pub fn write(all: &Results) -> anyhow::Result<()> {
    let mut bars = Bars::new("CPU of the balancer's worker, microseconds / request (median)");
    for comparison in all.values() {
        bars.group(&comparison.heading());
        for way in WAYS.into_iter().filter(|way| *way != Way::Control) {
            let figures = comparison.figures(way);
            if !figures.is_empty() {
                let ours = matches!(
                    way,
                    Way::Servers | Way::Table | Way::Unwatched | Way::Monitored | Way::TableStock
                );
                bars.bar(&way.words().replace('`', ""), median(figures), ours);
            }
        }
    }
    let plot = results::documents().join("benchmarks-routing.svg");
    results::write(&plot, &bars.svg())?;
    let text = format!(
        "![CPU for each request, by way](benchmarks-routing.svg)\n\n{}",
        document(all)
    );
    let document = results::document("routing", &text)?;
    eprintln!("written: {}, {}", document.display(), plot.display());
    Ok(())
}
