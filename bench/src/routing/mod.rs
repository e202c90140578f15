//! Promise R1: what a request costs the balancer's worker in CPU time.
//!
//! Every way runs at once, each in a process of its own, idle but for its turn. In each round every way gets the same
//! requests, in an order that differs from round to round; its figure is its worker's CPU time by the requests. Turns are
//! short, and ratios are taken within a round, so that what disturbs a round disturbs both of its sides.

mod load;
mod report;
mod ways;

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use paas_tests::{Root, process};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Places, cpu_time};
use crate::{results, sites};
use load::{CLIENTS, Clients, Load};
use ways::{FEW, Running, Setting, WAYS, Way};

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many upstream addresses: one comparison for each number.
    #[arg(long, value_delimiter = ',', default_value = "8", value_name = "N,...")]
    servers: Vec<usize>,
    /// A new connection to the upstream for every request.
    #[arg(long)]
    no_keepalive: bool,
    /// How often every way has its turn.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// How many requests are counted in a turn; before them every site is visited once.
    #[arg(long, default_value_t = 15_000)]
    requests: usize,
    /// Only these ways (`static`, `paas-table` ...).
    #[arg(long, value_delimiter = ',', value_name = "WAY,...")]
    ways: Vec<String>,
    /// Put all results there are into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Also say where the CPU time of these ways goes (`static`, `paas-table` ...; needs `perf`).
    #[arg(long, value_delimiter = ',', value_name = "WAY,...")]
    profile: Vec<String>,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// The results of one comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// How many upstream addresses.
    pub servers: usize,
    /// How many idle connections may be kept.
    pub keepalive: Option<usize>,
    /// How many connections the load generator keeps.
    pub clients: usize,
    /// How many requests are counted in a turn.
    pub requests: usize,
    /// What it ran on.
    pub machine: Machine,
    /// The versions of the programs.
    pub versions: Vec<String>,
    /// For each way and round: microseconds of CPU for each request.
    pub microseconds: BTreeMap<String, Vec<f64>>,
}

/// All comparisons, the last of each kind.
pub type Results = BTreeMap<String, Comparison>;

/// Runs the comparisons asked for.
///
/// # Errors
/// One could not be made.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.rounds > 0 && arguments.requests > 0,
        "nothing to measure"
    );
    for key in arguments.ways.iter().chain(&arguments.profile) {
        let known = WAYS.map(Way::key);
        ensure!(
            known.contains(&key.as_str()),
            "there is no way {key:?}: there are {}",
            known.join(", ")
        );
    }
    let mut all: Results = results::load("routing").unwrap_or_default();
    if !arguments.report {
        let machine = Machine::look();
        let places = Places::take()?;
        for servers in &arguments.servers {
            ensure!(
                (1..=1000).contains(servers),
                "{servers} servers: 1 to 1000 can be measured"
            );
            let comparison = compare(arguments, *servers, machine.clone(), places)?;
            println!("\n{}", report::table(&comparison));
            all.insert(comparison.key(), comparison);
            results::save("routing", &all)?;
        }
    } else {
        println!("{}", report::document(&all));
    }
    if arguments.write {
        report::write(&all)?;
    }
    Ok(())
}

impl Comparison {
    fn key(&self) -> String {
        let kept = if self.keepalive.is_some() {
            "kept"
        } else {
            "closed"
        };
        format!("{:04}-{kept}", self.servers)
    }
}

fn compare(
    arguments: &Arguments,
    servers: usize,
    machine: Machine,
    places: Places,
) -> anyhow::Result<Comparison> {
    let root = Root::new();
    let setting = Setting {
        peers: servers,
        port: root.port(),
        // Beyond this many no process may have that many open.
        keepalive: (!arguments.no_keepalive).then_some((CLIENTS * servers).min(8_000)),
        table: root.join("table"),
    };
    eprintln!(
        "{servers} servers: writing a table of {} sites",
        sites::SITES
    );
    sites::fill(&setting.table, group(), servers, setting.port)?;
    let load = Load::new();
    let _upstreams = ways::upstreams(&root, &setting)?;
    let mut running = Vec::new();
    let few = Setting {
        peers: FEW,
        table: root.join("table-few"),
        ..setting
    };
    let is_wanted =
        |way: &Way| arguments.ways.is_empty() || arguments.ways.iter().any(|key| key == way.key());
    let differs = |way: &Way| !way.shows_number() || servers > CLIENTS;
    let wanted: Vec<Way> = WAYS
        .into_iter()
        .filter(|way| is_wanted(way) && differs(way))
        .collect();
    if wanted.contains(&Way::TableFew) {
        sites::fill(&few.table, group(), FEW, few.port)?;
    }
    for way in wanted {
        let setting = if way.has_few() { &few } else { &setting };
        let way = ways::start(&root, way, setting)?;
        places.keep(way.worker)?;
        let connections = match way.way {
            Way::FloorMany => servers,
            _ => CLIENTS,
        };
        let clients = Clients::connect(way.port, connections)?;
        running.push((way, clients));
    }
    // The first turns do not count: they open connections.
    for (way, clients) in &mut running {
        turn(way, clients, &load, 2 * arguments.requests)?;
    }
    let mut microseconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..arguments.rounds {
        eprint!(
            "\r{servers} servers: round {} of {} ",
            round + 1,
            arguments.rounds
        );
        for at in order(running.len(), round) {
            let (way, clients) = &mut running[at];
            let figure = turn(way, clients, &load, arguments.requests)?;
            microseconds
                .entry(way.way.key().to_owned())
                .or_default()
                .push(figure);
        }
    }
    eprintln!();
    for (way, clients) in running
        .iter_mut()
        .filter(|(way, _)| arguments.profile.iter().any(|key| key == way.way.key()))
    {
        profile(way, clients, &load, 20 * arguments.requests)?;
    }
    Ok(Comparison {
        servers,
        keepalive: setting.keepalive,
        clients: CLIENTS,
        requests: arguments.requests,
        machine,
        versions: versions(),
        microseconds,
    })
}

/// One way's turn: microseconds of its worker's CPU for each request. The caches are another's at first.
fn turn(way: &Running, clients: &mut Clients, load: &Load, requests: usize) -> anyhow::Result<f64> {
    clients.run(load, load.sites())?;
    let before = cpu_time(way.worker)?;
    clients.run(load, requests)?;
    let used = cpu_time(way.worker)? - before;
    Ok(used as f64 / 1000.0 / requests as f64)
}

/// One more turn, watched by `perf`, which leaves what it saw beside the results.
fn profile(
    way: &Running,
    clients: &mut Clients,
    load: &Load,
    requests: usize,
) -> anyhow::Result<()> {
    let file = results::file(&format!("profile-{}", way.way.key())).with_extension("perf");
    let mut perf = std::process::Command::new("perf")
        .args([
            "record",
            "--quiet",
            "--call-graph",
            "fp",
            "--pid",
            &way.worker.to_string(),
        ])
        .arg("--output")
        .arg(&file)
        .spawn()
        .context("perf cannot be run")?;
    clients.run(load, requests)?;
    process::send(perf.id(), rustix::process::Signal::INT);
    perf.wait()?;
    let (_, report, _) = process::run(
        "perf",
        &[
            "report",
            "--stdio",
            "--no-children",
            "--call-graph",
            "none",
            "--percent-limit",
            "0.5",
            "--input",
            &file.to_string_lossy(),
        ],
    );
    println!("where {} spends its time:\n{report}", way.way.key());
    Ok(())
}

/// In which order the ways have their turns: another in each round, and each way now before, now after each other.
fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|at| (at + round / 2) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// The group of nginx's workers, if they have one of their own.
fn group() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.starts_with("www-data:"))?;
    line.split(':').nth(2)?.parse().ok()
}

fn versions() -> Vec<String> {
    let first = |program: &str, argument: &str| {
        let (_, out, err) = process::run(program, &[argument]);
        let text = if out.trim().is_empty() { err } else { out };
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    vec![
        first("/usr/sbin/nginx", "-v"),
        first("/usr/sbin/haproxy", "-v"),
    ]
}
