//! Daemons, Emperors and sites killed at random while visitors come: afterwards everything serves, and no vassal file is left
//! without meaning. `PAAS_CHAOS_ROUNDS` makes it longer, `PAAS_CHAOS_SEED` replays a run.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use support::{Backend, TestSite};

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// A visitor as nginx is one: while the daemon is away it gets an error, and comes again.
fn visit(site: &TestSite) -> Option<u16> {
    if let Some(answer) = site.request("/", b"") {
        return Some(answer.status);
    }
    let path = format!("/initialize?site={}", site.id);
    let told = support::http(&site.control, "GET", &path)?;
    if told.status != 204 {
        Some(told.status)
    } else {
        site.request("/", b"").map(|answer| answer.status)
    }
}

#[test]
fn whatever_is_killed_everything_serves_again() {
    let rounds = from_environment("PAAS_CHAOS_ROUNDS", 12);
    let mut seed = from_environment("PAAS_CHAOS_SEED", 7);
    eprintln!("seed {seed}, {rounds} rounds");
    let mut backend = Backend::start_with_net(1);
    let sites: Vec<_> = (0..4)
        .map(|number| backend.add_site(&format!("u{number}"), None, None))
        .collect();
    let over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU32::new(0));
    let visitors: Vec<_> = sites
        .iter()
        .flat_map(|site| [site.clone(), site.clone()])
        .map(|site| {
            let (over, served) = (over.clone(), served.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match visit(&site) {
                        Some(200) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Some(502 | 503) | None => {}
                        Some(other) => panic!("a visitor got {other}"),
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .collect();
    for _ in 0..rounds {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let roll = seed >> 33;
        thread::sleep(Duration::from_millis(roll % 700));
        match roll % 5 {
            0 | 1 => {
                backend.daemon = None;
                backend.start_daemon();
            }
            2 => {
                backend.emperor = None;
                backend.start_emperor();
            }
            3 => {
                backend.emperor = None;
                backend.daemon = None;
                backend.start_daemon();
                backend.start_emperor();
            }
            _ => {
                let site = &sites[usize::try_from(roll / 5).unwrap() % sites.len()];
                let master = site.request("/", b"").and_then(|answer| answer.master());
                if let Some(master) = master {
                    let _ = kill_process(master, Signal::KILL);
                }
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.join().unwrap();
    }
    eprintln!(
        "{} requests served meanwhile",
        served.load(Ordering::Relaxed)
    );
    for site in &sites {
        let deadline = Instant::now() + support::DEADLINE;
        while visit(site) != Some(200) {
            assert!(
                Instant::now() < deadline,
                "site {} never served again: {}",
                site.id,
                site.status()
            );
        }
    }
    let awake = sites
        .iter()
        .filter(|site| site.status() != "asleep")
        .count();
    assert_eq!(
        backend.vassal_files(),
        awake,
        "a vassal file without meaning"
    );
}
