//! `paas_eject`: a backend of the table that fails is left out, tried again by one request, and gets its sites back little by little.
//! A site cannot bring that about for its backend.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paas_tests::stub::Answer;
use paas_tests::tabled::{Lines, SITES};
use paas_tests::{Connection, Request, Response, Root, Tabled, process, wait};
use rustix::process::Signal;
use table::Change;

fn with_http(http: &str) -> Lines<'_> {
    Lines {
        http,
        ..Lines::default()
    }
}

fn post(tabled: &Tabled, site: usize) -> Response {
    Request::post(format!("site-{site}.test"), "/", "x").send(tabled.port)
}

#[test]
fn a_dead_backend_is_left_out_tried_again_and_given_its_sites_back() {
    let root = Root::new();
    let http = "paas_eject failures=3 time=500ms max_time=500ms return=1s;";
    let mut tabled = Tabled::start_with(&root, 4, with_http(http), |_, _| Answer::ok("x"));
    for site in 0..SITES {
        assert_eq!(
            tabled.way(&tabled.ask(site)),
            [tabled.home(site)],
            "all are well"
        );
    }
    let dead = tabled.home(0);
    tabled.kill(dead);
    // What is not sent goes elsewhere, whatever the method; after three failures nothing is tried there any more.
    let sites = tabled.sites_of(dead);
    let began = Instant::now();
    let mut tried = 0;
    for site in sites.iter().cycle().take(30) {
        for answer in [tabled.ask(*site), post(&tabled, *site)] {
            assert_eq!(answer.status, 200, "the next backend answers");
            tried += usize::from(tabled.way(&answer)[0] == dead);
        }
    }
    // One trial more for each half second that this took.
    let trials = usize::try_from(began.elapsed().as_millis() / 500).expect("few");
    assert!(
        (3..=3 + trials).contains(&tried),
        "{tried} requests tried the dead one"
    );
    assert!(
        tabled
            .nginx
            .errors()
            .contains("gets no requests for 500 ms")
    );
    // It comes back, and its sites with it.
    tabled.revive(dead);
    wait::until_true("all of its sites to be at home", || {
        (0..SITES).all(|site| {
            let answer = tabled.ask(site);
            assert_eq!(answer.status, 200);
            tabled.way(&answer) == [tabled.home(site)]
        })
    });
    assert!(tabled.nginx.errors().contains("serves again"));
    tabled.nginx.assert_healthy();
}

#[test]
fn idle_connections_to_an_ejected_backend_are_closed() {
    let root = Root::new();
    let broken = Arc::new(AtomicBool::new(false));
    let tabled = Tabled::start_with(&root, 3, with_http("paas_eject time=1h max_time=1h;"), {
        let broken = Arc::clone(&broken);
        move |backend, request| match (backend, request.header("X-Break")) {
            (_, Some(name)) if *name == format!("b{backend}") => {
                // Long enough for the others to be in flight at the same time.
                thread::sleep(Duration::from_millis(100));
                Answer::ok("x")
            }
            (_, Some(_)) => Answer::ok("x"),
            (0, None) if broken.load(Ordering::SeqCst) => Answer::Close,
            _ => Answer::ok("x"),
        }
    });
    let site = tabled.sites_of(0)[0];
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let request = Request::get(format!("site-{site}.test"), "/").header("X-Break", "b0");
            let port = tabled.port;
            thread::spawn(move || request.send(port).status)
        })
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.join().expect("no panic"), 200);
    }
    let before = tabled.open(0);
    assert!(before > 1, "several connections are idle");
    broken.store(true, Ordering::SeqCst);
    // A connection that was kept and fails says nothing; the new ones that follow do.
    for _ in 0..before + 3 {
        assert_eq!(tabled.ask(site).status, 200);
    }
    wait::until_true("its connections to be closed", || tabled.open(0) == 0);
    assert_ne!(tabled.way(&tabled.ask(site)), [0]);
    tabled.nginx.assert_healthy();
}

#[test]
fn a_site_s_own_errors_eject_nobody_but_a_backend_s_own_do() {
    let root = Root::new();
    let tabled = Tabled::start_with(
        &root,
        3,
        with_http("paas_eject time=1h max_time=1h;"),
        |_, request| match request.header("X-Error") {
            Some("no-table") => Answer::status(503, "").header("X-Paas-Reason", "no-table"),
            Some(status) => Answer::status(status.parse().expect("a number"), "")
                .header("X-Paas-Reason", "crashed"),
            None => Answer::ok("x"),
        },
    );
    let ask = |site: usize, error: &str| {
        let request = Request::get(format!("site-{site}.test"), "/").header("X-Error", error);
        let answer = request.send(tabled.port);
        (tabled.way(&answer), answer.status)
    };
    for status in [500, 502, 503, 504] {
        for _ in 0..10 {
            assert_eq!(ask(0, &status.to_string()), (vec![tabled.home(0)], status));
        }
    }
    assert_eq!(tabled.way(&tabled.ask(0)), [tabled.home(0)]);
    for _ in 0..3 {
        assert_eq!(ask(0, "no-table"), (vec![tabled.home(0)], 503));
    }
    assert_ne!(
        tabled.way(&tabled.ask(0)),
        [tabled.home(0)],
        "it cannot serve any site"
    );
    tabled.nginx.assert_healthy();
}

#[test]
fn a_slow_site_ejects_nobody_but_a_backend_that_answers_nobody_is() {
    let root = Root::new();
    let frozen = Arc::new(AtomicBool::new(false));
    let lines = Lines {
        // One failure that counts would do.
        http: "paas_eject failures=1 time=1h max_time=1h;",
        location: "proxy_read_timeout 300ms;",
        ..Lines::default()
    };
    let tabled = Tabled::start_with(&root, 3, lines, {
        let frozen = Arc::clone(&frozen);
        move |backend, request| {
            if request.header("X-Slow").is_some() || backend == 0 && frozen.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_secs(2));
            }
            Answer::ok("x")
        }
    });
    let sites = tabled.sites_of(0);
    for _ in 0..6 {
        let port = tabled.port;
        let slow = Request::post(format!("site-{}.test", sites[0]), "/", "x").header("X-Slow", "1");
        let slow = thread::spawn(move || slow.send(port).status);
        while !slow.is_finished() {
            assert_eq!(
                tabled.way(&tabled.ask(sites[1])),
                [0],
                "its neighbour is served"
            );
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(slow.join().expect("no panic"), 504);
    }
    frozen.store(true, Ordering::SeqCst);
    wait::until_true("the frozen one to be left out", || {
        let answer = tabled.ask(sites[0]);
        assert_eq!(answer.status, 200, "a GET goes on to the next");
        tabled.way(&answer)[0] != 0
    });
    assert!(tabled.nginx.errors().contains("backend b0 "));
    tabled.nginx.assert_healthy();
}

#[test]
fn stale_connections_eject_nobody() {
    let root = Root::new();
    let tabled = Tabled::start_with(
        &root,
        2,
        with_http("paas_eject failures=1 time=1h max_time=1h;"),
        |_, _| Answer::ok("x"),
    );
    let home = tabled.home(0);
    let mut visitor = paas_tests::Connection::open(tabled.port).expect("nginx listens");
    let request = Request::get("site-0.test", "/");
    for _ in 0..10 {
        assert_eq!(visitor.exchange(&request).expect("an answer").status, 200);
        let worker = tabled.nginx.workers()[0];
        process::send(worker, Signal::STOP);
        visitor.send(&request).expect("sent");
        tabled.hang_up(home);
        process::send(worker, Signal::CONT);
        let answer = visitor.receive(false).expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(tabled.way(&answer).iter().all(|backend| *backend == home));
    }
    tabled.nginx.assert_healthy();
}

#[test]
fn if_more_than_half_look_dead_health_is_ignored() {
    let root = Root::new();
    let mut tabled = Tabled::start_with(
        &root,
        4,
        with_http("paas_eject time=1h max_time=1h;"),
        |_, _| Answer::ok("x"),
    );
    for backend in 0..3 {
        tabled.kill(backend);
    }
    let homes = |tabled: &Tabled| {
        (0..SITES)
            .filter(|site| tabled.way(&tabled.ask(*site))[0] == tabled.home(*site))
            .count()
    };
    wait::until_true("everything to be tried at home first", || {
        homes(&tabled) == SITES
    });
    // One comes back: it answers, and so does its share again at once, without its sites waiting an hour.
    tabled.revive(0);
    for site in tabled.sites_of(0) {
        assert_eq!(tabled.way(&tabled.ask(site)), [0]);
    }
    tabled.nginx.assert_healthy();
}

#[test]
fn all_workers_know_and_a_reload_does_not_forget() {
    let root = Root::new();
    let lines = Lines {
        main: "worker_processes 2;",
        http: "paas_eject time=1h max_time=1h;",
        ..Lines::default()
    };
    let mut tabled = Tabled::start_with(&root, 3, lines, |_, _| Answer::ok("x"));
    tabled.kill(tabled.home(0));
    let by_worker = |tabled: &Tabled| {
        let (mut pids, mut tried) = (BTreeSet::new(), 0);
        wait::until_true("both workers to answer", || {
            let answer = tabled.ask(0);
            tried += usize::from(tabled.way(&answer)[0] == tabled.home(0));
            pids.insert(answer.header("X-Pid").expect("it says so").to_owned());
            pids.len() == 2
        });
        tried
    };
    let mut tried = 0;
    for _ in 0..5 {
        tried += by_worker(&tabled);
    }
    assert_eq!(tried, 3, "by all workers together");
    tabled.nginx.reload_as_is();
    assert_eq!(by_worker(&tabled), 0);
    tabled.nginx.assert_healthy();
}

#[test]
fn a_worker_killed_in_a_trial_leaves_nothing_held() {
    let root = Root::new();
    let broken = Arc::new(AtomicBool::new(true));
    let mut tabled = Tabled::start_with(
        &root,
        3,
        with_http("paas_eject failures=1 time=1ms max_time=1ms return=1ms;"),
        {
            let broken = Arc::clone(&broken);
            move |_, _| {
                if broken.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(500));
                }
                Answer::ok("x")
            }
        },
    );
    let home = tabled.home(0);
    tabled.kill(home);
    assert_eq!(tabled.ask(0).status, 200);
    tabled.revive(home);
    // The next one is the trial: its worker dies while it waits.
    let (port, received) = (tabled.port, tabled.received(home).len());
    let trial = thread::spawn(move || Request::get("site-0.test", "/").try_send(port).is_ok());
    wait::until_true("the trial", || tabled.received(home).len() > received);
    process::send(tabled.nginx.workers()[0], Signal::KILL);
    assert!(!trial.join().expect("no panic"));
    broken.store(false, Ordering::SeqCst);
    wait::until_true("the backend to be tried again and used", || {
        Request::get("site-0.test", "/")
            .try_send(port)
            .is_ok_and(|answer| answer.status == 200 && tabled.way(&answer) == [home])
    });
}

#[test]
fn a_new_backend_takes_its_sites_over_little_by_little() {
    let root = Root::new();
    let lines = Lines {
        http: "paas_eject return=2s;",
        spare: 1,
        ..Lines::default()
    };
    let mut tabled = Tabled::start_with(&root, 2, lines, |_, _| Answer::ok("x"));
    let began = Instant::now();
    let old: Vec<usize> = (0..SITES)
        .map(|site| tabled.home_among(site, 0..2))
        .collect();
    for (site, home) in old.iter().enumerate() {
        assert_eq!(tabled.way(&tabled.ask(site)), [*home]);
    }
    // A balancer that has just begun itself knows nobody, and takes a backend for one that was always there.
    wait::until_true("the balancer to know its backends", || {
        began.elapsed() > Duration::from_millis(2_100)
    });
    let new = tabled.records[2].clone();
    tabled.apply([Change::PutBackend(new)]);
    let moving = tabled.sites_of(2);
    assert!(moving.len() > 10);
    let moved = |site: usize| match tabled.way(&tabled.ask(site)).as_slice() {
        [2] => true,
        [home] if *home == old[site] => false,
        way => panic!("site {site} went {way:?}"),
    };
    let at_once = moving.iter().filter(|site| moved(**site)).count();
    assert!(
        at_once < moving.len() / 2,
        "{at_once} of {} moved at once",
        moving.len()
    );
    let mut counts = BTreeSet::new();
    wait::until_true("all to have moved", || {
        let count = moving.iter().filter(|site| moved(**site)).count();
        counts.insert(count);
        count == moving.len()
    });
    assert!(counts.len() > 3, "little by little: {counts:?}");
    for site in (0..SITES).filter(|site| !moving.contains(site)) {
        assert_eq!(tabled.way(&tabled.ask(site)), [old[site]], "no other moves");
    }
    tabled.nginx.assert_healthy();
}

#[test]
fn of_thousands_of_sites_only_those_whose_turn_it_is_return_with_their_backend() {
    const MANY: usize = 4_000;
    let root = Root::new();
    let return_time = Duration::from_secs(6);
    let http = "paas_eject failures=1 time=100ms max_time=100ms return=6s;";
    let mut tabled = Tabled::start_with(&root, 4, with_http(http), |_, _| Answer::ok("x"));
    tabled.add_sites(MANY);
    let home = 0;
    let sites: Vec<usize> = (0..MANY)
        .filter(|site| tabled.home(*site) == home)
        .collect();
    assert!(sites.len() > 800);
    tabled.kill(home);
    for site in sites.iter().take(20) {
        assert_eq!(tabled.ask(*site).status, 200);
    }
    tabled.revive(home);
    let mut visitor = Connection::open(tabled.port).expect("it listens");
    let mut back = BTreeSet::new();
    let mut returned_at: Option<Instant> = None;
    let mut early = Vec::new();
    wait::until_true("all sites to be at home", || {
        for site in &sites {
            let before = Instant::now();
            let request = Request::get(format!("site-{site}.test"), "/");
            let answer = visitor.exchange(&request).expect("an answer");
            assert_eq!(answer.status, 200);
            if tabled.way(&answer) != [home] {
                assert!(!back.contains(site), "site {site} went away again");
                continue;
            }
            let Some(returned_at) = returned_at else {
                // The trial that readmits it: whose it is, does not matter.
                returned_at = Some(before);
                continue;
            };
            back.insert(*site);
            let since = returned_at.elapsed();
            let share = since.as_secs_f64() / return_time.as_secs_f64();
            // Sites are spread evenly over the time, not exactly.
            let due = (sites.len() as f64 * (share + 0.05)) as usize;
            if back.len() > due {
                early.push((since, back.len()));
            }
        }
        back.len() == sites.len()
    });
    assert!(early.is_empty(), "more than were due: {early:?}");
    let returned_at: Instant = returned_at.expect("it returned");
    assert!(returned_at.elapsed() >= return_time.mul_f64(0.9));
    tabled.nginx.assert_healthy();
}
