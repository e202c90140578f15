//! A flood of hosts that no site has, at full speed, while sites are visited; and the same flood against stock nginx.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use paas_tests::{Connection, Nginx, Request, Root, wait};
use serde::{Deserialize, Serialize};

use super::balancer::Balancer;
use crate::machine::{Places, cpu_time};
use crate::sites;

/// How many connections the flood has.
const FLOODERS: &str = "32";
/// How many sites are visited.
const VISITED: u32 = 1_000;

/// One way to balance, calm and in a flood.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Way {
    /// Median time of a visit without a flood, in milliseconds: a figure for each round.
    pub calm: Vec<f64>,
    /// The same in a flood.
    pub flooded: Vec<f64>,
    /// The 99th percentile in a flood.
    pub flooded_p99: Vec<f64>,
    /// Refused requests a second.
    pub refused: Vec<f64>,
    /// The worker's CPU in the flood for each request, refused or visit, in microseconds.
    pub microseconds: Vec<f64>,
}

/// What the flood did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Flood {
    /// The balancer with many sites.
    pub paas: Way,
    /// Stock nginx: `proxy_pass` for names it knows, and a default server that answers 404.
    pub stock: Way,
    /// Requests that reached a backend, without those that were visits: none may.
    pub strayed: i64,
}

/// The upstreams: nginx itself, at as many addresses; it notes every request.
#[must_use]
pub fn upstreams(root: &Root, count: usize, port: u16) -> Nginx {
    let mut http = String::from("server {\n");
    for number in 0..count {
        let _ = writeln!(http, "listen {};", sites::upstream(number, port));
    }
    let _ = writeln!(
        http,
        "listen 127.0.0.1:{port}; location / {{ return 200 'hello world\\n'; }}\n}}"
    );
    Nginx::start(root, "upstreams", &http, port)
}

/// Floods both by turns.
///
/// # Errors
/// Something did not answer.
pub fn measure(
    root: &Root,
    paas: &Balancer,
    upstream: u16,
    places: Places,
    rounds: usize,
    seconds: u32,
) -> anyhow::Result<Flood> {
    let port = root.port();
    let stock = stock(root, port, upstream);
    let stock_worker = wait::until("a worker", || stock.workers().first().copied());
    let script = script(root);
    let log = root.join("upstreams/access.log");
    let mut flood = Flood::default();
    places.keep(paas.worker())?;
    places.keep(stock_worker)?;
    for round in 0..rounds {
        eprint!("\rflood: round {} of {rounds} ", round + 1);
        let before = lines(&log)?;
        let mut visits = 0;
        for at in [round % 2, 1 - round % 2] {
            let (way, port, worker) = match at {
                0 => (&mut flood.paas, paas.port, paas.worker()),
                _ => (&mut flood.stock, port, stock_worker),
            };
            visits += turn(way, port, worker, &script, seconds)?;
        }
        let all = || lines(&log).map(|lines| lines - before);
        let _ = wait::within(Duration::from_secs(1), || {
            all().ok().filter(|all| *all >= visits)
        });
        flood.strayed += i64::try_from(all()?)? - i64::try_from(visits)?;
    }
    eprintln!();
    Ok(flood)
}

/// Answers how many visits there were.
fn turn(
    way: &mut Way,
    port: u16,
    worker: u32,
    script: &Path,
    seconds: u32,
) -> anyhow::Result<usize> {
    let calm = visits(port, || false)?;
    way.calm.push(percentile(&calm, 50));
    let before = cpu_time(worker)?;
    let began = Instant::now();
    let flood = start(port, script, seconds)?;
    let is_over = AtomicBool::new(false);
    let (flooded, refused) = std::thread::scope(|scope| {
        let end = scope.spawn(|| {
            let refused = finish(flood);
            is_over.store(true, Ordering::SeqCst);
            refused
        });
        let flooded = visits(port, || !is_over.load(Ordering::SeqCst));
        (flooded, end.join())
    });
    let (flooded, refused) = (flooded?, refused.expect("it does not panic")?);
    let time = began.elapsed().as_secs_f64();
    way.flooded.push(percentile(&flooded, 50));
    way.flooded_p99.push(percentile(&flooded, 99));
    way.refused.push(refused as f64 / time);
    let used = cpu_time(worker)? - before;
    way.microseconds
        .push(used as f64 / 1e3 / (refused as f64 + flooded.len() as f64));
    Ok(calm.len() + flooded.len())
}

/// Visits of one visitor, one after the other: at least a thousand, and as long as `goes_on`. Each answers how long it took, in
/// milliseconds.
fn visits(port: u16, goes_on: impl Fn() -> bool) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(port)?;
    let mut times = Vec::new();
    while times.len() < 1_000 || goes_on() {
        // nginx closes one after 1,000 requests, if it is not told otherwise.
        if times.len() % 500 == 499 {
            connection = Connection::open(port)?;
        }
        let number = u32::try_from(times.len())? % VISITED;
        let request = Request::get(sites::name(number), "/");
        let began = Instant::now();
        let answer = connection.exchange(&request)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(times)
}

fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// What an operator has who writes every name down: the same sites, all others refused.
fn stock(root: &Root, port: u16, upstream: u16) -> Nginx {
    let names: String = (0..VISITED)
        .map(|number| sites::name(number) + " ")
        .collect();
    let upstream = sites::upstream(0, upstream);
    let http = format!(
        "access_log off; server_names_hash_max_size 16384; server_names_hash_bucket_size 128;
         upstream backends {{ server {upstream}; keepalive 64; }}
         server {{ listen 127.0.0.1:{port} default_server; return 404; }}
         server {{ listen 127.0.0.1:{port}; server_name {names}; location / {{
             proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    );
    Nginx::start(root, "stock", &http, port)
}

/// Every request has another host.
fn script(root: &Root) -> PathBuf {
    let text = r#"
local number = 0
function request()
    number = number + 1
    return wrk.format("GET", "/", { Host = ("%x-%d.example.org"):format(math.random(0, 0x7fffffff), number) })
end
function done(summary, latency)
    local e = summary.errors
    io.write(("RESULT %d %d %d\n"):format(summary.requests, e.status, e.connect + e.read + e.write + e.timeout))
end
"#;
    root.write("flood.lua", text)
}

fn start(port: u16, script: &Path, seconds: u32) -> anyhow::Result<Child> {
    Command::new("wrk")
        .args(["--threads", "1", "--connections", FLOODERS])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .arg(format!("http://127.0.0.1:{port}/"))
        .stdout(Stdio::piped())
        .spawn()
        .context("wrk cannot be run")
}

/// How many requests were refused: all of them.
fn finish(flood: Child) -> anyhow::Result<u64> {
    let output = flood.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .with_context(|| format!("wrk says: {text}"))?;
    let numbers: Vec<u64> = result
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [requests, refused, 0] if requests == refused => Ok(refused),
        _ => anyhow::bail!("not all were refused: {text}"),
    }
}

/// How many requests reached a backend, without the daemons' probes.
fn lines(log: &Path) -> anyhow::Result<usize> {
    let log = fs::read_to_string(log)?;
    let is_request = |line: &&str| line.contains("\"GET / HTTP");
    Ok(log.lines().filter(is_request).count())
}
