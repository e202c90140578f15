//! What one user notices of another who uses all that the limits let him have of the machine.
//!
//! A visitor asks one user's site, one request after the other with a pause between, through the balancer and a backend of a real
//! platform; in one half of each round another user's site calculates, takes and gives back memory, and starts processes, with many
//! more processes than there are CPUs. Which half comes first changes from round to round, and ratios are taken within a round.

mod report;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use paas_tests::{Connection, Platform, Prison, Request, Root, prison};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, go_before_others};
use crate::results;

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long each half of a round takes.
    #[arg(long, default_value_t = 4, value_name = "SECONDS")]
    seconds: u64,
    /// What users may have, as in paas.toml's `[limits]`: `cpu = 100`; none: what holds by default.
    #[arg(long, default_value = "", value_name = "LINES")]
    limits: String,
    /// How many processes calculate, take memory, and start others.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "16,2,2",
        value_name = "N,N,N"
    )]
    harassing: Vec<u32>,
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// Between a request's answer and the next request.
const PAUSE: Duration = Duration::from_millis(3);

/// What comes before a half with the other user at work, until all of his processes are there.
const WARM: Duration = Duration::from_millis(700);

/// What half a round gave, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Half {
    /// The median of the answers' times.
    pub p50: f64,
    /// What 99 of 100 answers do not exceed.
    pub p99: f64,
    /// How many answers.
    pub answers: usize,
}

/// One setting of the limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rounds {
    /// What it ran on.
    pub machine: Machine,
    /// Who harassed: numbers of processes.
    pub harassing: Vec<u32>,
    /// Nobody else.
    pub quiet: Vec<Half>,
    /// The other user at work.
    pub harassed: Vec<Half>,
}

/// All settings that were measured, by their lines.
pub type Results = BTreeMap<String, Rounds>;

/// Runs what was asked for.
///
/// # Errors
/// Something did not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.rounds > 0 && arguments.harassing.len() == 3,
        "nothing to measure"
    );
    let mut all: Results = results::load("neighbour").unwrap_or_default();
    if !arguments.report {
        all.insert(arguments.limits.clone(), measure(arguments)?);
        results::save("neighbour", &all)?;
    }
    println!("\n{}", report::document(&all));
    if arguments.write {
        report::write(&all)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Rounds> {
    let machine = Machine::look();
    let root = Root::new();
    let settings = format!("[limits]\n{}\n", arguments.limits);
    let prison = Prison::start(&root, &settings).context("limits take root")?;
    let _ = prison.inside(&["uname"]);
    // From here on only the visitor: sites must not.
    if !go_before_others() {
        eprintln!("neighbour: the visitor may have to wait for the CPU itself");
    }
    let mut rounds = Rounds {
        machine,
        harassing: arguments.harassing.clone(),
        quiet: Vec::new(),
        harassed: Vec::new(),
    };
    let time = Duration::from_secs(arguments.seconds);
    for round in 0..arguments.rounds {
        eprint!("\rround {} of {} ", round + 1, arguments.rounds);
        for half in [round % 2 == 0, round % 2 == 1] {
            if half {
                rounds.quiet.push(visit(&prison.platform, time)?);
            } else {
                rounds
                    .harassed
                    .push(harassed(&prison, &arguments.harassing, time)?);
            }
        }
    }
    eprintln!();
    prison.assert_victim_unharmed();
    Ok(rounds)
}

/// Half a round with the other user at work.
fn harassed(prison: &Prison<'_>, processes: &[u32], time: Duration) -> anyhow::Result<Half> {
    let seconds = (time + WARM * 2).as_secs_f64();
    let [calculating, touching, forking] = processes else {
        anyhow::bail!("three numbers of processes");
    };
    let words = format!(r#"["harass", {seconds}, {calculating}, {touching}, {forking}]"#);
    let harass = Request::post(prison::INMATE, "/", words);
    let port = prison.platform.port();
    thread::scope(|scope| {
        let work = scope.spawn(move || harass.send(port));
        visit(&prison.platform, WARM)?;
        let half = visit(&prison.platform, time)?;
        ensure!(!work.is_finished(), "nobody harassed: {:?}", work.join());
        let answer = work.join();
        let answer = answer.map_err(|_| anyhow::anyhow!("the other site did not answer"))?;
        ensure!(
            answer.status == 200 && answer.text().parse() == Ok(processes.iter().sum::<u32>()),
            "not all harassed: {answer:?}"
        );
        Ok(half)
    })
}

/// Asks one after the other for so long.
fn visit(platform: &Platform<'_>, time: Duration) -> anyhow::Result<Half> {
    let end = Instant::now() + time;
    let request = Request::get(prison::VICTIM, "/visit");
    let mut connection = Connection::open(platform.port())?;
    let mut times = Vec::new();
    while Instant::now() < end {
        thread::sleep(PAUSE);
        let began = Instant::now();
        let answer = connection.exchange(&request)?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(answer.status == 200, "{answer:?}");
        if answer.header("connection") == Some("close") {
            connection = Connection::open(platform.port())?;
        }
    }
    times.sort_by(f64::total_cmp);
    let rank = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(Half {
        p50: rank(0.5),
        p99: rank(0.99),
        answers: times.len(),
    })
}
