//! Density: what sites that are awake cost, and how fast one wakes, on a machine that has very many sites, most of them asleep.
//!
//! One backend of a real platform. The sites asleep are rows of the registry that nobody visits; those awake have a directory
//! each and one worker. How long waking takes is measured twice in the same run: when all sites sleep, and beside those that are awake.

mod report;
mod sites;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use paas_tests::platform::Options;
use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, cpu_seconds};
use crate::results;
use sites::Sites;

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many sites are awake.
    #[arg(long, default_value_t = 300)]
    awake: usize,
    /// How many more sleep.
    #[arg(long, default_value_t = 20_000)]
    asleep: usize,
    /// For how many seconds the machine is watched at rest.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// How many sites are woken one by one, with all others asleep and beside those that are awake.
    #[arg(long, default_value_t = 25)]
    wakes: usize,
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
    /// What it ran on.
    pub machine: Machine,
    /// Sites awake, with one worker each.
    pub awake: usize,
    /// Sites asleep beside them.
    pub asleep: usize,
    /// Seconds until all of those awake had answered, visited at once.
    pub all_awake: f64,
    /// Waking one site while all others sleep, in milliseconds.
    pub wake_alone: Vec<f64>,
    /// Waking one beside those awake.
    pub wake_beside: Vec<f64>,
    /// Who did what at rest, by name.
    pub parts: Vec<Part>,
    /// For how many seconds that was watched.
    pub rest: f64,
}

/// Some processes at rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub name: String,
    /// How many processes.
    pub processes: usize,
    /// Their memory in bytes: what they share with others counts in part.
    pub memory: u64,
    /// The CPU they used, as a share of one core.
    pub cpu: f64,
}

/// Runs what was asked for.
///
/// # Errors
/// Something did not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let results = match results::load("density").filter(|_| arguments.report) {
        Some(results) => results,
        None => {
            let results = measure(arguments)?;
            results::save("density", &results)?;
            results
        }
    };
    println!("\n{}", report::document(&results));
    if arguments.write {
        report::write(&results)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Results> {
    ensure!(
        arguments.awake > 0 && arguments.wakes > 0,
        "nothing to measure"
    );
    let machine = Machine::look();
    let root = Root::new();
    let options = Options {
        // All sites are one user's: more than one may have by default.
        backend: "workers = 1\nidle = \"1h\"\n\n[limits]\nprocesses = 100000\nmemory = \"64g\"\n"
            .to_owned(),
        ..Options::default()
    };
    let platform = Platform::with(&root, options);
    let sites = Sites::add(&root, &platform, arguments)?;
    eprintln!("density: {} sites in the registry", sites.count());

    let wake_alone = wake(&platform, &sites.alone, "with all others asleep")?;
    let all_awake = visit_at_once(&platform, &sites.awake)?;
    eprintln!(
        "density: {} sites awake after {all_awake:.1} s",
        sites.awake.len()
    );
    let (parts, rest) = watch(&platform, Duration::from_secs(arguments.rest));
    let wake_beside = wake(&platform, &sites.beside, "beside those awake")?;
    Ok(Results {
        machine,
        awake: sites.awake.len() + sites.alone.len(),
        asleep: sites.count() - sites.awake.len() - sites.alone.len(),
        all_awake,
        wake_alone,
        wake_beside,
        parts,
        rest,
    })
}

/// Visits each of these sites, one after the other.
fn wake(platform: &Platform<'_>, domains: &[String], how: &str) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(domains.len());
    for (number, domain) in domains.iter().enumerate() {
        eprint!(
            "\rdensity: woken {how}: {} of {} ",
            number + 1,
            domains.len()
        );
        let began = Instant::now();
        let answer = Request::get(domain, "/").try_send(platform.port())?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(answer.status == 200, "{domain}: {answer:?}");
    }
    eprintln!();
    Ok(times)
}

/// Visits all of them at the same moment; how many seconds it took until the last had answered.
fn visit_at_once(platform: &Platform<'_>, domains: &[String]) -> anyhow::Result<f64> {
    let began = Instant::now();
    let requests = domains.iter().map(|domain| Request::get(domain, "/"));
    for visitor in paas_tests::crowd::at_once(platform.port(), requests) {
        let answer = visitor.answer().answer;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Watches the machine while nobody visits anything.
fn watch(platform: &Platform<'_>, time: Duration) -> (Vec<Part>, f64) {
    let emperor = platform.emperor("b1");
    let sites = process::descendants(emperor.pid);
    let groups: Vec<(&str, Vec<Seen>)> = vec![
        ("the daemon", vec![platform.daemon("b1")]),
        ("the Emperor", vec![emperor]),
        ("nginx", platform.family(platform.nginx("b1").pid)),
        ("the sites", sites),
    ];
    // The last start's dust settles.
    thread::sleep(Duration::from_secs(3));
    let used = |seen: &[Seen]| -> f64 { seen.iter().map(|seen| cpu_seconds(seen.pid)).sum() };
    let (began, before) = (
        Instant::now(),
        groups
            .iter()
            .map(|(_, seen)| used(seen))
            .collect::<Vec<_>>(),
    );
    eprintln!("density: at rest for {time:?}");
    thread::sleep(time);
    let after: Vec<f64> = groups.iter().map(|(_, seen)| used(seen)).collect();
    let rest = began.elapsed().as_secs_f64();
    let parts =
        groups
            .iter()
            .zip(before.iter().zip(&after))
            .map(|((name, seen), (before, after))| Part {
                name: (*name).to_owned(),
                processes: seen.len(),
                memory: process::memory(seen),
                cpu: (after - before) / rest,
            });
    (parts.collect(), rest)
}
