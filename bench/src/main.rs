//! Measures what PROMISES.md promises, always against a rival in the same run. Everything it talks to is on loopback.

mod density;
mod machine;
mod nanoseconds;
mod neighbour;
mod placement;
mod plot;
mod results;
mod routable;
mod routing;
mod scale;
mod sites;
mod statistics;
mod wake;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures what PROMISES.md promises.
///
/// Results are printed, written to target/bench/NAME.json and, with --write, into docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
struct Bench {
    #[command(subcommand)]
    name: Name,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// CPU of the balancer's worker for each request: our module, stock nginx, Lua, HAProxy (promise R1).
    Routing(routing::Arguments),
    /// From a visit of a sleeping site to its first answer, against uWSGI started by hand (promise W1).
    Wake(wake::Arguments),
    /// From the return of `add-site` until every worker of every balancer routes to the site (promise R5).
    Routable(routable::Arguments),
    /// The balancer with a thousand sites and with a million, and a flood of hosts that no site has (promise R8).
    Scale(scale::Arguments),
    /// How even the load is and who moves: our placement, modulo, ketama, Maglev (promise R3).
    Placement(placement::Arguments),
    /// What sites that are awake cost beside very many asleep, and how fast one wakes then.
    Density(density::Arguments),
    /// How long a user's site takes to answer while another user's uses all it may of the machine (promise S9).
    Neighbour(neighbour::Arguments),
    /// What choosing a backend costs (promise R2).
    Choose(nanoseconds::Arguments),
    /// What a look-up in a table of a million sites costs (promise R2).
    Table(nanoseconds::Arguments),
}

fn main() -> ExitCode {
    let done = match Bench::parse().name {
        Name::Routing(arguments) => routing::run(&arguments),
        Name::Wake(arguments) => wake::run(&arguments),
        Name::Routable(arguments) => routable::run(&arguments),
        Name::Scale(arguments) => scale::run(&arguments),
        Name::Placement(arguments) => placement::run(&arguments),
        Name::Density(arguments) => density::run(&arguments),
        Name::Neighbour(arguments) => neighbour::run(&arguments),
        Name::Choose(arguments) => nanoseconds::run(nanoseconds::CHOOSE, &arguments),
        Name::Table(arguments) => nanoseconds::run(nanoseconds::TABLE, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
