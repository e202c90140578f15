//! Many sites are wanted at once: they start a few at a time, those first that visitors wait for, and those who find no place
//! to wait are told so at once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use paas_tests::apps::Recorder;
use paas_tests::crowd::{Visited, Visitor, at_once};
use paas_tests::platform::Options;
use paas_tests::{Platform, Request, Root, process, wait};
use rustix::process::Signal;

/// What a start may need before it is over, by the platform's own reckoning.
const MEMORY_OF_A_START: u64 = 64 << 20;

fn options(waking: &str) -> Options {
    Options {
        // All sites are one user's: more than one may have by default.
        backend: format!(
            "workers = 1\nidle = \"1h\"\nstart_timeout = \"120s\"\n\n[limits]\nprocesses = 2000\nmemory = \"16g\"\n\n[waking]\n{waking}"
        ),
        // A busy machine may take a while for all of them.
        balancer: "read_timeout = \"120s\"\n".to_owned(),
        ..Options::default()
    }
}

/// What the backend's daemon says of what waits and what starts there.
fn waking(platform: &Platform<'_>) -> serde_json::Value {
    let mut status = platform.daemon_status(1).expect("the daemon answers");
    status["waking"].take()
}

fn number(waking: &serde_json::Value, of: &str, what: &str) -> u64 {
    let number = waking[of][what].as_u64();
    number.unwrap_or_else(|| panic!("no {of}.{what}: {waking}"))
}

/// The sites in the order in which the daemon began to start them.
fn order_of_starts(platform: &Platform<'_>) -> Vec<u64> {
    let log = platform.backend(1).join("var/log/paas/paasctl.log");
    let text = fs::read_to_string(log).expect("the daemon's log is there");
    text.lines()
        .filter(|line| line.contains(" starting site="))
        .filter_map(|line| line.split_once("site=")?.1.split(' ').next()?.parse().ok())
        .collect()
}

/// Samples the memory of all sites until told to stop; answers the most there was.
fn watch_memory(emperor: u32, over: &Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut most = 0;
        while !over.load(Ordering::SeqCst) {
            most = most.max(process::memory(&process::descendants(emperor)));
            thread::sleep(Duration::from_secs(1));
        }
        most
    })
}

#[test]
fn two_hundred_sleeping_sites_at_once_all_answer_and_start_a_few_at_a_time() {
    let root = Root::new();
    let platform = Platform::with(&root, options(""));
    // All are one user's here.
    platform.paasctl().ok(&[
        "set-user",
        "owner",
        "--processes",
        "2000",
        "--memory",
        "16g",
    ]);
    let sites = platform.recorders((0..200).map(|number| format!("s{number}.test")));
    let emperor = platform.emperor("b1").pid;
    let over = Arc::new(AtomicBool::new(false));
    let memory = watch_memory(emperor, &over);

    let visitors = at_once(
        platform.port(),
        sites
            .iter()
            .map(|(domain, _)| Request::get(domain, "/first")),
    );
    let visited: Vec<Visited> = visitors.into_iter().map(Visitor::answer).collect();
    over.store(true, Ordering::SeqCst);
    let most_memory = memory.join().expect("memory can be read");

    for ((domain, site), visited) in sites.iter().zip(&visited) {
        let text = visited.answer.expect(200);
        assert!(text.starts_with("GET /first 0 "), "{domain}: {text}");
        assert_eq!((site.starts(), site.requests().len()), (1, 1), "{domain}");
    }
    let waking = waking(&platform);
    let (at_once, most) = (
        number(&waking, "starts", "at_once"),
        number(&waking, "starts", "most"),
    );
    assert_eq!(most, at_once, "as many started at once as may: {waking}");
    assert!(at_once < 40, "a few: {waking}");
    assert_eq!(number(&waking, "parked", "turned_away"), 0, "{waking}");
    let needed = process::memory(&process::descendants(emperor));
    assert!(
        most_memory <= needed + at_once * MEMORY_OF_A_START,
        "{most_memory} bytes at most, {needed} for the sites that run"
    );
    let slowest = visited.iter().map(|visited| visited.took).max();
    eprintln!(
        "200 sites: the last answer after {slowest:?}, {most} starts at once, {} MB at most, {} MB for all of them",
        most_memory >> 20,
        needed >> 20
    );
    platform.assert_healthy();
}

/// A backend that is not there any more: its sites are wanted here.
fn lose_a_backend(platform: &Platform<'_>, root: &Root) {
    let address = format!("127.0.0.1:{}", root.port());
    platform.paasctl().ok(&["add-backend", "lost", &address]);
}

fn homes(platform: &Platform<'_>, sites: &[(String, Recorder)]) -> BTreeMap<String, usize> {
    let mut homes = BTreeMap::new();
    for (domain, _) in sites {
        let text = platform.paasctl().ok(&["route", domain, "--json"]);
        let route: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let home = route["backend"].as_str().expect("a name").to_owned();
        *homes.entry(home).or_default() += 1;
    }
    homes
}

#[test]
fn after_a_backend_was_lost_two_thousand_visitors_wait_in_bounds_or_are_told_at_once() {
    const SITES: usize = 40;
    const STORM: usize = 2000;
    const PER_SITE: usize = 20;
    const IN_ALL: usize = 400;
    let root = Root::new();
    let platform = Platform::with(
        &root,
        options(&format!(
            "starts = 1\nparked_per_site = {PER_SITE}\nparked = {IN_ALL}\n"
        )),
    );
    let steady = platform.recorder("steady.test");
    let _ = platform.get("steady.test", "/before").expect(200);
    let sites = platform.recorders((0..SITES).map(|number| format!("s{number}.test")));
    lose_a_backend(&platform, &root);
    let homes = homes(&platform, &sites);
    assert!(homes["lost"] >= SITES / 5, "{homes:?}");

    // Nothing comes up for now; each site has one visitor, one after the other.
    sites.iter().for_each(|(_, site)| site.close());
    let first: Vec<Visitor> = sites
        .iter()
        .map(|(domain, _)| {
            let visitor = Visitor::send(platform.port(), Request::get(domain, "/first"));
            platform.wait_for_parked(domain, 1);
            visitor
        })
        .collect();
    // A running site crashes. Nobody waits for it.
    for seen in platform.site_processes("steady.test") {
        process::send(seen.pid, Signal::KILL);
    }
    wait::until_true("the crashed site waits for its turn", || {
        number(&waking(&platform), "starts", "waiting") == SITES as u64
    });

    let storm = at_once(
        platform.port(),
        (0..STORM).map(|number| {
            let (domain, path) = (&sites[number % SITES].0, format!("/{number}"));
            match number % 3 {
                0 => Request::post(domain, &path, vec![b'x'; 10_000]),
                _ => Request::get(domain, &path),
            }
        }),
    );
    // All who find no place have their answer while nothing has come up.
    let find_place = IN_ALL - SITES;
    wait::until_true("all who find no place are told", || {
        let answered = storm.iter().filter(|visitor| visitor.is_answered()).count();
        answered == STORM - find_place
    });
    let bounded = waking(&platform);
    assert_eq!(
        number(&bounded, "parked", "now"),
        IN_ALL as u64,
        "{bounded}"
    );
    assert_eq!(
        number(&bounded, "parked", "most"),
        IN_ALL as u64,
        "{bounded}"
    );
    let most_per_site = number(&bounded, "parked", "most_per_site");
    assert!(most_per_site <= PER_SITE as u64, "{bounded}");
    assert!(sites.iter().all(|(_, site)| site.requests().is_empty()));

    sites.iter().for_each(|(_, site)| site.open());
    let (mut served, mut slowest) = (0, Duration::ZERO);
    for visited in storm.into_iter().map(Visitor::answer) {
        if visited.answer.status == 200 {
            served += 1;
            continue;
        }
        visited.answer.expect(503);
        slowest = slowest.max(visited.took);
        let again = visited.answer.header("retry-after");
        assert!(again.is_some(), "{visited:?}");
        assert!(
            visited.answer.text().contains("too-many-parked"),
            "{visited:?}"
        );
    }
    assert_eq!(served, find_place, "whoever found a place was served");
    eprintln!(
        "the last of {} refusals came after {slowest:?}",
        STORM - find_place
    );
    for visitor in first {
        visitor.answer().answer.expect(200);
    }
    let _ = platform.get("steady.test", "/after").expect(200);
    let ran: usize = sites.iter().map(|(_, site)| site.requests().len()).sum();
    assert_eq!(ran, IN_ALL, "each once, and nobody else's");
    assert!(sites.iter().all(|(_, site)| site.starts() == 1));
    assert_eq!(steady.starts(), 2);

    assert_eq!(number(&waking(&platform), "starts", "most"), 1);
    let mut expected = vec![platform.site_id("steady.test")];
    expected.extend(sites.iter().map(|(domain, _)| platform.site_id(domain)));
    expected.push(platform.site_id("steady.test"));
    assert_eq!(
        order_of_starts(&platform),
        expected,
        "who waits longest comes first, and last whom nobody waits for"
    );
    platform.assert_healthy();
}
