//! Promise R5: how long after `add-site` has returned every worker of every balancer routes to the site.
//!
//! One connection to each worker is kept. From the moment at which the command has returned, each is asked for the new site again and
//! again; what counts is when the first request was sent that is not answered with 404. Across machines there are two balancers in
//! network namespaces of their own, of which only the first is told by the command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use paas_tests::cluster::Options;
use paas_tests::{Cluster, Connection, Request, Root};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::results::{self, Table};

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many sites are added in each setting.
    #[arg(long, default_value_t = 200)]
    sites: usize,
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// Between two questions to a worker. Without it the questions use all the CPU there is, on which the daemons must run, too.
const PAUSE: Duration = Duration::from_micros(500);
/// How many workers a balancer of a cluster has.
const WORKERS: usize = 2;

/// The settings, of one and of two balancers, and what is promised for each, in milliseconds.
const SETTINGS: [(&str, f64); 2] = [("one machine", 50.0), ("across machines", 500.0)];

/// What was found in one setting.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Setting {
    machine: Machine,
    /// How many workers were asked.
    workers: usize,
    /// For each site, until the last worker routed to it, in milliseconds after the command's return.
    times: Vec<f64>,
}

type Results = BTreeMap<String, Setting>;

/// Runs what was asked for.
///
/// # Errors
/// Something did not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.sites > 0, "nothing to measure");
    let mut all: Results = results::load("routable").unwrap_or_default();
    if !arguments.report {
        for ((name, _), balancers) in SETTINGS.into_iter().zip(1..) {
            // In a thread of its own: it moves to another network.
            let setting = std::thread::scope(|scope| {
                let thread = scope.spawn(|| measure(balancers, arguments.sites));
                thread.join().expect("it does not panic")
            })?;
            match setting {
                Some(setting) => drop(all.insert(name.to_owned(), setting)),
                None => eprintln!("{name}: not measured"),
            }
        }
        results::save("routable", &all)?;
    }
    println!("\n{}", document(&all));
    if arguments.write {
        let file = results::document("routable", &document(&all))?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}

/// As an operator would: at one address a balancer says which worker answers, and connections to it stay.
fn show_workers(root: &Root, machine: &str) {
    root.write(
        format!("{machine}/etc/paas/server.d/worker.conf"),
        "location = /worker { return 200 $pid; }\nkeepalive_requests 100000000;\n",
    );
}

/// None where namespaces cannot be made.
fn measure(balancers: u8, sites: usize) -> anyhow::Result<Option<Setting>> {
    let machine = Machine::look();
    let root = Root::new();
    for number in 1..=balancers {
        show_workers(&root, &format!("balancer{number}"));
    }
    let options = Options {
        balancers,
        backends: 1,
        ..Options::default()
    };
    let Some(cluster) = Cluster::with(&root, &options) else {
        return Ok(None);
    };
    let mut connections = Vec::new();
    for balancer in cluster.addresses() {
        connections.extend(to_each_worker(balancer)?);
    }
    let paasctl = cluster.paasctl();
    root.write("app/app.py", APP);
    let directory = root.join("app").to_string_lossy().into_owned();
    let mut times = Vec::with_capacity(sites);
    for number in 0..sites {
        eprint!("\rsite {} of {sites} ", number + 1);
        let domain = format!("new{number}.example.com");
        paasctl.ok(&[
            "add-site",
            &domain,
            "--user",
            "owner",
            "--dir",
            &directory,
            "--entry",
            "app:application",
            "--no-check",
            "--idle",
            "1s",
        ]);
        let returned = Instant::now();
        let mut latest = Duration::ZERO;
        // All at once: one that waits for the site to wake must not keep the others from being asked.
        std::thread::scope(|scope| {
            let asked: Vec<_> = connections
                .iter_mut()
                .map(|connection| scope.spawn(|| until_routed(connection, &domain, returned)))
                .collect();
            for thread in asked {
                latest = latest.max(thread.join().expect("it does not panic")?);
            }
            anyhow::Ok(())
        })?;
        times.push(latest.as_secs_f64() * 1e3);
        paasctl.ok(&["remove-site", &domain]);
    }
    eprintln!();
    Ok(Some(Setting {
        machine,
        workers: connections.len(),
        times,
    }))
}

const APP: &str = r#"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello world\n"]
"#;

/// Connections to a balancer, one for each of its workers.
fn to_each_worker(balancer: SocketAddr) -> anyhow::Result<Vec<Connection>> {
    let mut found = BTreeMap::new();
    for _ in 0..1_000 {
        let mut connection = Connection::to(balancer)?;
        let answer = connection.exchange(&Request::get("nobody.example.com", "/worker"))?;
        ensure!(answer.status == 200, "{answer:?}");
        let worker = answer.text();
        found.entry(worker).or_insert(connection);
        if found.len() == WORKERS {
            return Ok(found.into_values().collect());
        }
    }
    anyhow::bail!("{balancer} has {} workers, not {WORKERS}", found.len())
}

/// When the first request for the site was sent that was not answered with 404.
fn until_routed(
    connection: &mut Connection,
    domain: &str,
    returned: Instant,
) -> anyhow::Result<Duration> {
    let request = Request::get(domain, "/");
    loop {
        let sent = returned.elapsed();
        match connection.exchange(&request)?.status {
            404 => {
                ensure!(sent < Duration::from_secs(60), "{domain} is not routed to");
                std::thread::sleep(PAUSE);
            }
            200 => return Ok(sent),
            status => anyhow::bail!("{domain} answers {status}"),
        }
    }
}

fn document(all: &Results) -> String {
    let mut table = Table::new([
        "setting", "workers", "sites", "p50, ms", "p99, ms", "most, ms", "promised", "verdict",
    ]);
    let mut machines = String::new();
    for (name, promised) in SETTINGS {
        let Some(setting) = all.get(name) else {
            continue;
        };
        let mut times = setting.times.clone();
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        table.row([
            name.to_owned(),
            setting.workers.to_string(),
            times.len().to_string(),
            format!("{:.2}", at(50)),
            format!("{:.2}", at(99)),
            format!("{:.2}", at(100)),
            format!("p99 <= {promised:.0}"),
            if at(99) <= promised {
                "held"
            } else {
                "not held"
            }
            .to_owned(),
        ]);
        machines += &format!("{name}: {}\n", setting.machine.words());
    }
    format!("{}\n{machines}", table.markdown())
}
