//! Memory is short: sites start one by one, and those that were visited longest ago are put to sleep long before their time. Not
//! those that somebody uses, nor those that are never to sleep.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use paas_tests::crowd::{Visitor, at_once};
use paas_tests::platform::Options;
use paas_tests::{Platform, Request, Root, wait};

/// The sites that were put to sleep, in the order in which the daemon chose them.
fn chosen(platform: &Platform<'_>) -> Vec<u64> {
    let log = platform.backend(1).join("var/log/paas/paasctl.log");
    let text = fs::read_to_string(log).expect("the daemon's log is there");
    text.lines()
        .filter(|line| line.contains(" nobody needs it "))
        .filter_map(|line| line.split_once("site=")?.1.split(' ').next()?.parse().ok())
        .collect()
}

#[test]
fn the_least_recently_used_sleep_first_and_whoever_is_needed_stays() {
    let root = Root::new();
    // More than the machine has: it is always short.
    let options = Options {
        backend: "idle = \"1h\"\n\n[waking]\nmemory_reserve = \"900000g\"\n".to_owned(),
        log: Some("info,control=debug".to_owned()),
        ..Options::default()
    };
    let platform = Platform::with(&root, options);
    let port = platform.port();
    let names = ["old.test", "older.test", "busy.test", "held.test"];
    let sites = platform.recorders(names.map(str::to_owned));
    let never = platform.recorder_with("never.test", &["--idle", "never"]);
    let id = |name: &str| platform.site_id(name);
    let (old, older) = (id("old.test"), id("older.test"));
    let needed = [id("busy.test"), id("held.test"), id("never.test")];

    // All are wanted at once.
    let first = at_once(
        port,
        names
            .iter()
            .chain(&["never.test"])
            .map(|name| Request::get(name, "/first")),
    );
    for visitor in first {
        visitor.answer().answer.expect(200);
    }
    let starts = &platform.daemon_status(1).expect("the daemon answers")["waking"]["starts"];
    assert_eq!(starts["most"], 1, "one after the other: {starts}");

    // One has a request in flight, one is visited again and again.
    let held = Visitor::send(port, Request::get("held.test", "/hold"));
    sites[3].1.wait_for("GET", "/hold", 1);
    let over = Arc::new(AtomicBool::new(false));
    let regular = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                Request::get("busy.test", "/again").send(port).expect(200);
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    // The last visits of the others; the order counts, not the time between them.
    let _ = platform.get("older.test", "/last").expect(200);
    thread::sleep(Duration::from_millis(5));
    let _ = platform.get("old.test", "/last").expect(200);
    let before = chosen(&platform).len();

    wait::until_true("both sleep", || {
        platform.vassals("old.test").is_empty() && platform.vassals("older.test").is_empty()
    });
    let since = chosen(&platform).split_off(before);
    assert!(
        since.starts_with(&[older, old]),
        "{since:?} instead of {older}, {old}"
    );
    let disturbed = chosen(&platform)
        .into_iter()
        .any(|site| needed[1..].contains(&site));
    assert!(
        !disturbed,
        "neither the held one nor the one that never sleeps"
    );
    assert_eq!(never.starts(), 1);
    assert!(!since.contains(&needed[0]), "it is visited all the time");

    // Asleep is not gone; and what is not held any more sleeps as well.
    let _ = platform.get("old.test", "/woken").expect(200);
    sites[3].1.set("go");
    held.answer().answer.expect(200);
    over.store(true, Ordering::SeqCst);
    regular.join().expect("all visits were answered");
    wait::until_true("all but one sleep", || {
        names.iter().all(|name| platform.vassals(name).is_empty())
    });
    assert_eq!(platform.vassals("never.test").len(), 1);
    platform.assert_healthy();
}
