//! Promise R2: the parts of routing that take nanoseconds, measured by criterion in the crates they belong to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::results::{self, Table};

/// Which of criterion's benchmarks.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    name: &'static str,
    package: &'static str,
    bench: &'static str,
    groups: &'static [&'static str],
    /// The beginning of a measurement's name, and at most how many nanoseconds are promised.
    promised: &'static [(&'static str, f64)],
    /// The beginning of a measurement's name, that of its rival's, and how many times as long as that it may take: what was promised by what
    /// the rival took when it was.
    rivals: &'static [(&'static str, &'static str, f64)],
}

/// Choosing a backend.
pub const CHOOSE: Benchmark = Benchmark {
    name: "choose",
    package: "paas-routing",
    bench: "choose",
    groups: &["choose", "parse"],
    promised: &[
        ("choose/rendezvous/equal/memo, 10,000 busy sites/8", 60.0),
        ("choose/rendezvous/weighted/memo, 10,000 busy sites/8", 60.0),
        (
            "choose/rendezvous/equal/memo, 10,000 busy sites/1000",
            1000.0,
        ),
        (
            "choose/rendezvous/equal/memo, all 1,000,000 sites/1000",
            1000.0,
        ),
        (
            "choose/rendezvous/weighted/memo, 10,000 busy sites/1000",
            1000.0,
        ),
        (
            "choose/rendezvous/weighted/memo, all 1,000,000 sites/1000",
            1000.0,
        ),
    ],
    rivals: &[],
};

/// Looking a host up.
pub const TABLE: Benchmark = Benchmark {
    name: "table",
    package: "paas-table",
    bench: "lookup",
    groups: &["lookup"],
    promised: &[
        ("lookup/10,000 busy hosts", 600.0),
        ("lookup/all 1,000,000 hosts", 2500.0),
    ],
    rivals: &[
        (
            "lookup/10,000 busy hosts",
            "lookup/LMDB alone, 10,000 busy hosts",
            600.0 / 400.0,
        ),
        (
            "lookup/all 1,000,000 hosts",
            "lookup/LMDB alone, all 1,000,000 hosts",
            2500.0 / 2000.0,
        ),
    ],
};

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    machine: Machine,
    /// Nanoseconds: median and the ends of its 95 % interval.
    nanoseconds: BTreeMap<String, [f64; 3]>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

#[derive(Deserialize)]
struct Named {
    full_id: String,
}

/// Runs one.
///
/// # Errors
/// It fails.
pub fn run(benchmark: Benchmark, arguments: &Arguments) -> anyhow::Result<()> {
    let results = if arguments.report {
        results::load(benchmark.name).context("nothing was measured yet")?
    } else {
        let results = measure(benchmark)?;
        results::save(benchmark.name, &results)?;
        results
    };
    let text = report(benchmark, &results);
    println!("\n{text}");
    if arguments.write {
        let document = results::document(benchmark.name, &text)?;
        eprintln!("written: {}", document.display());
    }
    Ok(())
}

fn measure(benchmark: Benchmark) -> anyhow::Result<Results> {
    let machine = Machine::look();
    let directory = results::file(benchmark.name).with_file_name("criterion");
    for group in benchmark.groups {
        // What is there is of an earlier run.
        let _ = fs::remove_dir_all(directory.join(group));
    }
    let status = Command::new("cargo")
        .args([
            "bench",
            "--quiet",
            "-p",
            benchmark.package,
            "--bench",
            benchmark.bench,
        ])
        .current_dir(paas_tests::build::workspace())
        .env("CRITERION_HOME", &directory)
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "cargo bench: {status}");
    let mut nanoseconds = BTreeMap::new();
    for group in benchmark.groups {
        collect(&directory.join(group), &mut nanoseconds)?;
    }
    ensure!(
        !nanoseconds.is_empty(),
        "criterion has left nothing in {}",
        directory.display()
    );
    Ok(Results {
        machine,
        nanoseconds,
    })
}

/// Whatever criterion has left below a directory.
fn collect(directory: &Path, into: &mut BTreeMap<String, [f64; 3]>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if !path.ends_with("new") {
            collect(&path, into)?;
            continue;
        }
        let named: Named = serde_json::from_slice(&fs::read(path.join("benchmark.json"))?)?;
        let Estimates { median } = serde_json::from_slice(&fs::read(path.join("estimates.json"))?)?;
        let interval = median.confidence_interval;
        let figures = [
            median.point_estimate,
            interval.lower_bound,
            interval.upper_bound,
        ];
        into.insert(named.full_id, figures);
    }
    Ok(())
}

fn report(benchmark: Benchmark, results: &Results) -> String {
    let mut table = Table::new([
        "what",
        "ns (median)",
        "95 % interval",
        "promised",
        "verdict",
    ]);
    for (name, [median, low, high]) in &results.nanoseconds {
        let bound = benchmark
            .promised
            .iter()
            .find(|(start, _)| name.starts_with(start))
            .map(|(_, bound)| *bound);
        table.row([
            name.clone(),
            format!("{median:.1}"),
            format!("{low:.1} - {high:.1}"),
            bound.map_or_else(String::new, |bound| format!("<= {bound:.0}")),
            match bound {
                Some(bound) if *median <= bound => "held".to_owned(),
                Some(_) => "not held".to_owned(),
                None => String::new(),
            },
        ]);
    }
    format!(
        "{}\n{}{}\n",
        table.markdown(),
        against_rivals(benchmark, results),
        results.machine.words()
    )
}

/// What holds on any machine; empty if there is no rival.
fn against_rivals(benchmark: Benchmark, results: &Results) -> String {
    let mut table = Table::new([
        "what",
        "times as long as",
        "promised",
        "measured",
        "verdict",
    ]);
    let find = |start: &str| {
        let mut all = results.nanoseconds.iter();
        all.find(|(name, _)| name.starts_with(start))
    };
    for (start, rival, bound) in benchmark.rivals {
        if let (Some((name, [taken, ..])), Some((rival, [needed, ..]))) = (find(start), find(rival))
        {
            let ratio = taken / needed;
            let verdict = match ratio <= *bound {
                true => "held",
                false => "not held",
            };
            table.row([
                name.clone(),
                rival.clone(),
                format!("<= {bound:.2}"),
                format!("{ratio:.2}"),
                verdict.to_owned(),
            ]);
        }
    }
    match benchmark.rivals {
        [] => String::new(),
        _ => format!("{}\n", table.markdown()),
    }
}
