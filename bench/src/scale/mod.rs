//! Promise R8: a balancer with a million sites is what it is with a thousand.
//!
//! Two balancers run side by side as `paasctl render` and `paasctl serve` make them, with the same 1,000 backends and with as many
//! sites each as are compared. What is measured is measured by turns, and compared within a round. The flood is measured beside
//! stock nginx, which refuses the same hosts by a default server.

mod balancer;
mod flood;
mod report;

use std::collections::BTreeMap;

use anyhow::ensure;
use paas_tests::Root;
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Places, go_before_others};
use crate::results;
use balancer::Balancer;
use flood::Flood;

/// How many backends both have.
const BACKENDS: usize = 1_000;
/// How many sites the small one has.
const FEW: u32 = 1_000;

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many sites the large one has.
    #[arg(long, default_value_t = 1_000_000)]
    sites: u32,
    /// How often each is measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long a flood lasts, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// One balancer's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// How many sites it has.
    pub sites: u32,
    /// `add-site --from` with all of them, in milliseconds.
    pub added: f64,
    /// From the start of the daemon until the table is there, in milliseconds.
    pub built: f64,
    /// The size of the table on the disk, in MB.
    pub table: f64,
    /// By what was measured: one figure for each round.
    pub rounds: BTreeMap<String, Vec<f64>>,
}

/// What `scale` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// What it ran on.
    pub machine: Machine,
    /// With few sites.
    pub few: Figures,
    /// With many.
    pub many: Figures,
    /// The flood.
    pub flood: Flood,
}

/// Runs what was asked for.
///
/// # Errors
/// Something could not be started, or did not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.rounds > 0, "nothing to measure");
    if !arguments.report {
        let results = measure(arguments)?;
        results::save("scale", &results)?;
    }
    let results: Option<Results> = results::load("scale");
    let Some(results) = results else {
        anyhow::bail!("there are no results yet");
    };
    println!("\n{}", report::document(&results));
    if arguments.write {
        let document = results::document("scale", &report::document(&results))?;
        eprintln!("written: {}", document.display());
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Results> {
    let machine = Machine::look();
    if !go_before_others() {
        eprintln!("scale: as root, it could be measured undisturbed by other programs");
    }
    let places = Places::take()?;
    let root = Root::new();
    let port = root.port();
    let _upstreams = flood::upstreams(&root, BACKENDS, port);
    let mut both = [
        Balancer::start(&root, "few", FEW, BACKENDS, port)?,
        Balancer::start(&root, "many", arguments.sites, BACKENDS, port)?,
    ];
    for round in 0..arguments.rounds {
        eprint!("\rround {} of {} ", round + 1, arguments.rounds);
        // Each comes first as often as the other.
        for at in [round % 2, 1 - round % 2] {
            both[at].measure(round)?;
        }
    }
    eprintln!();
    let [few, many] = both;
    let flood = flood::measure(
        &root,
        &many,
        port,
        places,
        arguments.rounds,
        arguments.seconds,
    )?;
    Ok(Results {
        machine,
        few: few.figures,
        many: many.figures,
        flood,
    })
}
