//! Sites fall asleep because nobody visits them, and for no other reason: whatever is under way, whoever is killed or
//! restarted meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use paas_tests::apps::Recorder;
use paas_tests::platform::Options;
use paas_tests::{Connection, Platform, Request, Response, Root, times, wait};

/// How often sites fall asleep under requests in a test.
fn sleeps() -> usize {
    times(24, 1000)
}

/// The visitors of one site: in every round each of them comes once, somewhere between a little before the site has been idle
/// for long enough and a little after it has fallen asleep.
struct Crowd {
    domain: String,
    /// The balancer's.
    port: u16,
    /// The backend's, for uploads that are slow there: the balancer passes a body on when it has all of it.
    backend: u16,
    idle: u64,
    /// Of how many of [`KINDS`].
    kinds: usize,
    over: Arc<AtomicBool>,
    last_round: AtomicBool,
    round: Barrier,
}

/// What visitors do; a WebSocket only where the site brings its own server.
const KINDS: [Kind; 8] = [
    Kind::Get,
    Kind::Post,
    Kind::LargePost,
    Kind::SlowGet,
    Kind::Put,
    Kind::Chunked,
    Kind::SlowUpload,
    Kind::WebSocket,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Post,
    LargePost,
    SlowGet,
    Put,
    Chunked,
    SlowUpload,
    WebSocket,
}

/// Common pauses of a round, in milliseconds beyond the idle time.
const LATER: [u64; 6] = [0, 20, 50, 120, 400, 900];

impl Crowd {
    fn visit(&self, name: usize) -> Result<Vec<String>, String> {
        let mut ran = Ok(Vec::new());
        let mut kept = Connection::open(self.port).expect("the balancer listens");
        let mut dice = 0x9e37_79b9_u64 + name as u64;
        for number in 0.. {
            if self.round.wait().is_leader() {
                let over = self.over.load(Ordering::SeqCst);
                self.last_round.store(over, Ordering::SeqCst);
            }
            self.round.wait();
            if self.last_round.load(Ordering::SeqCst) {
                break;
            }
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pause = self.idle - 20 + LATER[number % LATER.len()] + (dice >> 33) % 60;
            thread::sleep(Duration::from_millis(pause));
            match (self.come(name, number, &mut kept), &mut ran) {
                (Ok(text), Ok(ran)) => ran.push(text),
                (Err(problem), ran) => {
                    *ran = Err(problem);
                    self.over.store(true, Ordering::SeqCst);
                }
                (Ok(_), Err(_)) => {}
            }
        }
        ran
    }

    /// One request: another kind of it every time.
    fn come(&self, name: usize, number: usize, kept: &mut Connection) -> Result<String, String> {
        let kind = KINDS[(name + number) % self.kinds];
        let slow = if kind == Kind::SlowGet { "slow-" } else { "" };
        let path = format!("/{slow}{name}-{number}");
        let domain = &self.domain;
        let failed = |error: io::Error| format!("{domain}{path}: {error}");
        let request = match kind {
            Kind::Get | Kind::SlowGet => Request::get(domain, &path),
            Kind::Post => Request::post(domain, &path, "x"),
            Kind::LargePost => Request::post(domain, &path, vec![b'u'; 300_000]),
            Kind::Put => Request::new("PUT", domain, &path).body("y"),
            Kind::Chunked => {
                Request::new("POST", domain, &path).chunks([vec![b'c'; 70_000], vec![b'd'; 1]])
            }
            Kind::SlowUpload => return self.upload_slowly(&path).map_err(failed),
            Kind::WebSocket => return self.chat(&path).map_err(failed),
        };
        let answer = match number % 2 {
            0 => request.try_send(self.port),
            _ => kept.exchange(&request),
        };
        right(&answer.map_err(failed)?, &path).map_err(failed)
    }

    /// Its body takes longer than the site's idle time.
    fn upload_slowly(&self, path: &str) -> io::Result<String> {
        let bytes = Request::post(&self.domain, path, vec![b's'; 20_000]).to_bytes();
        let (begin, rest) = bytes.split_at(10_000);
        let mut connection = Connection::open(self.backend)?;
        connection.send_bytes(begin)?;
        thread::sleep(Duration::from_millis(self.idle + 80));
        connection.send_bytes(rest)?;
        right(&connection.receive(false)?, path)
    }

    /// A WebSocket that says nothing for longer than the site's idle time.
    fn chat(&self, path: &str) -> io::Result<String> {
        let request = Request::get(&self.domain, path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut connection = Connection::open(self.port)?;
        let answer = connection.exchange(&request)?;
        if answer.status != 101 {
            return Err(io::Error::other(format!("{answer:?}")));
        }
        thread::sleep(Duration::from_millis(self.idle + 80));
        connection.send_bytes(b"still there?")?;
        let echoed = connection.receive_bytes(12)?;
        assert_eq!(echoed, b"STILL THERE?");
        // As the site notes it: the sum of nothing.
        Ok(format!("GET {path} 0 d41d8cd98f00b204e9800998ecf8427e"))
    }
}

/// What the site noted of this request, by its answer.
fn right(answer: &Response, path: &str) -> io::Result<String> {
    let text = answer.text();
    let noted: Vec<&str> = text.split_whitespace().take(4).collect();
    if answer.status == 200 && noted.get(1) == Some(&path) {
        return Ok(noted.join(" "));
    }
    Err(io::Error::other(format!("{answer:?}")))
}

/// Sites under requests until they have fallen asleep so often; then every request must have run once.
/// The first of them brings its own server.
fn sleep_under_requests(options: Options, sites: usize, visitors: usize, idle: u64, gap: bool) {
    let root = Root::new();
    let platform = Platform::with(&root, options);
    let idle_time = format!("{idle}ms");
    let sites: Vec<(String, Recorder)> = (0..sites)
        .map(|number| {
            let domain = format!("s{number}.test");
            let more = ["--idle", &idle_time];
            let site = match number {
                0 => platform.serving_recorder(&domain, &more),
                _ => platform.recorder_with(&domain, &more),
            };
            if gap {
                site.set("gap");
            }
            (domain, site)
        })
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let running: Vec<Vec<JoinHandle<_>>> = sites
        .iter()
        .enumerate()
        .map(|(number, (domain, _))| {
            let crowd = Arc::new(Crowd {
                domain: domain.clone(),
                port: platform.port(),
                backend: platform.backend_port(1),
                idle,
                kinds: KINDS.len() - usize::from(number > 0),
                over: Arc::clone(&over),
                last_round: AtomicBool::new(false),
                round: Barrier::new(visitors),
            });
            (0..visitors)
                .map(|name| {
                    let crowd = Arc::clone(&crowd);
                    thread::spawn(move || crowd.visit(name))
                })
                .collect()
        })
        .collect();
    let began = Instant::now();
    let wanted = sleeps();
    // The first start of each is no wake.
    let starts = || {
        let all: usize = sites.iter().map(|(_, site)| site.starts()).sum();
        all.saturating_sub(sites.len())
    };
    let patience = Duration::from_secs(30 + wanted as u64 * 2);
    let enough = wait::within(patience, || {
        thread::sleep(Duration::from_millis(100));
        (over.load(Ordering::SeqCst) || starts() >= wanted).then_some(())
    });
    over.store(true, Ordering::SeqCst);
    let mut total = 0;
    for ((domain, site), visitors) in sites.iter().zip(running) {
        let mut answered: Vec<String> = visitors
            .into_iter()
            .flat_map(|visitor| {
                let answered = visitor.join().expect("a visitor does not panic");
                answered.expect("every visitor was answered right")
            })
            .collect();
        let mut ran = site.requests();
        answered.sort();
        ran.sort();
        total += ran.len();
        assert_eq!(ran, answered, "{domain}: each request ran once");
    }
    assert!(
        enough.is_some(),
        "only {} of {wanted} sleeps in {patience:?}",
        starts()
    );
    eprintln!(
        "{} sleeps, {total} requests in {:.1} s",
        starts(),
        began.elapsed().as_secs_f64()
    );
    platform.assert_healthy();
}

#[test]
fn sites_sleep_under_requests_of_all_kinds_and_none_is_lost_or_run_twice() {
    sleep_under_requests(Options::default(), 4, 3, 100, false);
}

/// uWSGI does not count a request that it has accepted and not begun: told to end right then, it would drop it. Here that gap
/// is 20 ms wide.
#[test]
fn sites_sleep_with_a_wide_gap_after_accept_and_none_is_lost_or_run_twice() {
    let root = Root::new();
    // In the sandbox nothing can be traced, so it is traced as a whole, from outside.
    let (setting, slowed) = if rustix::process::geteuid().is_root() {
        ("[sandbox]\nbwrap", "/usr/bin/bwrap")
    } else {
        ("uwsgi", "/usr/bin/uwsgi")
    };
    let slow = root.write(
        "slow-accept",
        format!("#!/bin/sh\nexec strace -D -f -qq -o /dev/null -e trace=accept4,accept -e inject=accept4,accept:delay_exit=20000 {slowed} \"$@\"\n"),
    );
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let options = Options {
        // Each strace stays as a zombie, and counts, until the test ends: it becomes the test's child.
        backend: format!("{setting} = {slow:?}\n\n[limits]\nprocesses = 20000\n"),
        ..Options::default()
    };
    sleep_under_requests(options, 4, 3, 100, true);
}
