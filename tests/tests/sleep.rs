//! Sites fall asleep because nobody visits them, and for no other reason: whatever is under way, whoever is killed or
//! restarted meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use paas_tests::apps::Recorder;
use paas_tests::platform::Options;
use paas_tests::{Connection, Platform, Request, Root, wait};

/// How often sites fall asleep under requests in a test.
fn sleeps() -> usize {
    if std::env::var_os("PAAS_TEST_LONG").is_some() {
        1000
    } else {
        24
    }
}

/// The visitors of one site: in every round each of them comes once, somewhere between a little before the site has been idle
/// for long enough and a little after it has fallen asleep.
struct Crowd {
    domain: String,
    port: u16,
    idle: u64,
    over: Arc<AtomicBool>,
    last_round: AtomicBool,
    round: Barrier,
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
        let kind = (name + number) % 5;
        let path = format!("/{}{name}-{number}", if kind == 3 { "slow-" } else { "" });
        let domain = &self.domain;
        let request = match kind {
            0 | 3 => Request::get(domain, &path),
            1 => Request::post(domain, &path, "x"),
            2 => Request::post(domain, &path, vec![b'u'; 300_000]),
            _ => Request::new("PUT", domain, &path).body("y"),
        };
        let answer = match number % 2 {
            0 => request.try_send(self.port),
            _ => kept.exchange(&request),
        };
        let answer = answer.map_err(|error| format!("{domain}{path}: {error}"))?;
        let text = answer.text();
        let is_right = answer.status == 200 && text.contains(&format!(" {path} "));
        is_right
            .then(|| text.trim_end().to_owned())
            .ok_or_else(|| format!("{domain}{path}: {answer:?}"))
    }
}

/// Sites under requests until they have fallen asleep so often; then every request must have run once.
fn sleep_under_requests(options: Options, sites: usize, visitors: usize, idle: u64) {
    let root = Root::new();
    let platform = Platform::with(&root, options);
    let sites: Vec<(String, Recorder)> = (0..sites)
        .map(|number| {
            let domain = format!("s{number}.test");
            let site = platform.recorder_with(&domain, &["--idle", &format!("{idle}ms")]);
            (domain, site)
        })
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let running: Vec<Vec<JoinHandle<_>>> = sites
        .iter()
        .map(|(domain, _)| {
            let crowd = Arc::new(Crowd {
                domain: domain.clone(),
                port: platform.port(),
                idle,
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
    sleep_under_requests(Options::default(), 4, 3, 100);
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
        backend: format!("{setting} = {slow:?}\n"),
        ..Options::default()
    };
    sleep_under_requests(options, 4, 3, 100);
}
