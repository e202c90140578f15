//! `paas_status`: what all workers know of the backends and have counted, whoever of them is asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use paas_tests::stub::Answer;
use paas_tests::tabled::Lines;
use paas_tests::{Request, Root, Tabled, process, wait};
use rustix::process::Signal;
use serde_json::Value;
use table::Change;

const STATUS: &str = "location = /status { paas_role off; paas_status; } location = /metrics { paas_role off; paas_status prometheus; }";

fn start(
    root: &Root,
    count: u16,
    main: &str,
    eject: &str,
    behaviour: impl Fn(usize, &paas_tests::stub::Received) -> Answer + Send + Sync + 'static,
) -> Tabled {
    let http = format!("{eject} paas_monitor {};", root.join("backends").display());
    let location = format!("}} {STATUS} location /unused {{ return 404;");
    let lines = Lines {
        main,
        http: &http,
        location: &location,
        ..Lines::default()
    };
    Tabled::start_with(root, count, lines, behaviour)
}

fn status(tabled: &Tabled) -> Value {
    let text = Request::get("any.test", "/status")
        .send(tabled.port)
        .expect(200);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn backend(status: &Value, index: usize) -> Value {
    let name = format!("b{index}");
    let all = status["backends"].as_array().expect("a list");
    let found = all.iter().find(|one| one["name"] == *name);
    found
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn sum(status: &Value, of: &str) -> u64 {
    let all = status["backends"].as_array().expect("a list").iter();
    all.map(|one| one[of].as_u64().expect("a number")).sum()
}

#[test]
fn what_all_workers_counted_is_added_up() {
    let root = Root::new();
    let tabled = start(&root, 3, "worker_processes 3;", "", |_, _| Answer::ok("x"));
    let (mut pids, mut sent) = (BTreeSet::new(), 0_u64);
    while pids.len() < 3 {
        let answer = tabled.ask(sent as usize % 60);
        pids.insert(answer.header("X-Pid").expect("it says so").to_owned());
        sent += 1;
        assert!(sent < 10_000, "all workers serve");
    }
    wait::until_true("all to be counted", || {
        let status = status(&tabled);
        sum(&status, "requests") == sent && sum(&status, "in_flight") == 0
    });
    let now = status(&tabled);
    assert_eq!(sum(&now, "failures"), 0);
    for index in 0..3 {
        let one = backend(&now, index);
        assert_eq!(
            (&one["health"], &one["state"]),
            (&"in-service".into(), &"active".into())
        );
        let counts = one["first_byte_ms"]["counts"]
            .as_array()
            .expect("a list")
            .iter();
        let counts: u64 = counts.map(|count| count.as_u64().expect("a number")).sum();
        assert_eq!(one["requests"], counts, "each answer has a time: {one}");
        assert_eq!(
            one["requests"].as_u64(),
            Some(tabled.received(index).len() as u64)
        );
    }
    let workers: BTreeSet<String> = now["workers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|worker| {
            assert_eq!(
                (&worker["table_generation"], &worker["parked"]),
                (&1.into(), &0.into())
            );
            worker["pid"].to_string()
        })
        .collect();
    assert_eq!(workers, pids);
    let text = Request::get("any.test", "/metrics").send(tabled.port);
    assert!(
        text.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
    );
    let text = text.expect(200);
    let requests: u64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("paas_backend_requests_total{backend=\"b"))
        .filter_map(|rest| rest.split_once("\"} ")?.1.parse::<u64>().ok())
        .sum();
    assert_eq!(requests, sent, "{text}");
    tabled.nginx.assert_healthy();
}

#[test]
fn failures_ejections_and_the_time_of_each_are_told_and_a_site_s_errors_are_none() {
    let root = Root::new();
    let mut tabled = start(
        &root,
        3,
        "",
        "paas_eject failures=3 time=1h max_time=1h;",
        |_, request| match request.header("X-Error") {
            Some(_) => Answer::status(500, ""),
            None => Answer::ok("x"),
        },
    );
    let (home, port) = (tabled.home(0), tabled.port);
    for _ in 0..5 {
        let _ = Request::get("site-0.test", "/")
            .header("X-Error", "1")
            .send(port);
    }
    let before = backend(&status(&tabled), home);
    assert_eq!(
        (&before["requests"], &before["failures"]),
        (&5.into(), &0.into()),
        "{before}"
    );
    assert_eq!(before["last_failure_ms_ago"], Value::Null);
    tabled.kill(home);
    for _ in 0..10 {
        assert_eq!(tabled.ask(0).status, 200);
    }
    let after = backend(&status(&tabled), home);
    assert_eq!(
        (&after["requests"], &after["failures"]),
        (&8.into(), &3.into()),
        "{after}"
    );
    assert_eq!(
        (&after["ejections"], &after["health"]),
        (&1.into(), &"ejected".into())
    );
    assert!(
        after["last_failure_ms_ago"]
            .as_u64()
            .is_some_and(|ago| ago < 600_000),
        "{after}"
    );
    tabled.nginx.assert_healthy();
}

#[test]
fn a_killed_worker_leaves_nothing_in_flight_and_nothing_uncounted() {
    let root = Root::new();
    let held = Arc::new(AtomicBool::new(true));
    let tabled = start(&root, 2, "", "", {
        let held = Arc::clone(&held);
        move |_, request| {
            while request.target == "/hold" && held.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            Answer::ok("x")
        }
    });
    for site in 0..20 {
        let _ = tabled.ask(site);
    }
    let port = tabled.port;
    let waiting: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || Request::get("site-0.test", "/hold").try_send(port).is_ok()))
        .collect();
    let home = tabled.home(0);
    wait::until_true("four in flight", || {
        backend(&status(&tabled), home)["in_flight"] == 4
    });
    process::send(tabled.nginx.workers()[0], Signal::KILL);
    for visitor in waiting {
        assert!(!visitor.join().expect("no panic"), "the worker has gone");
    }
    held.store(false, Ordering::SeqCst);
    wait::until_true("the next worker to serve", || {
        Request::get("any.test", "/status")
            .try_send(port)
            .is_ok_and(|answer| answer.status == 200)
    });
    let now = status(&tabled);
    assert_eq!(
        (sum(&now, "requests"), sum(&now, "in_flight")),
        (24, 0),
        "{now}"
    );
    assert_eq!(now["workers"].as_array().map(Vec::len), Some(1), "{now}");
    // A reload goes on from there, too.
    tabled.nginx.reload_as_is();
    for site in 0..20 {
        let _ = tabled.ask(site);
    }
    assert_eq!(sum(&status(&tabled), "requests"), 44);
}

#[test]
fn a_backend_that_comes_in_the_place_of_another_begins_at_nothing() {
    let root = Root::new();
    let mut tabled = start(&root, 2, "", "", |_, _| Answer::ok("x"));
    for site in 0..60 {
        let _ = tabled.ask(site);
    }
    let old = tabled.records[1].clone();
    tabled.apply([Change::DeleteBackend(old.id)]);
    let _ = tabled.ask(0);
    let status_now = status(&tabled);
    assert_eq!(
        status_now["backends"].as_array().map(Vec::len),
        Some(1),
        "{status_now}"
    );
    let new = table::BackendRecord {
        id: table::BackendId::new(9).expect("not 0"),
        ..old
    };
    tabled.apply([Change::PutBackend(new)]);
    let before = backend(&status(&tabled), 1);
    assert_eq!(before["requests"], 0, "{before}");
    let generation = |tabled: &Tabled| status(tabled)["workers"][0]["table_generation"].clone();
    wait::until_true("some of its sites to have come", || {
        for site in 0..60 {
            let _ = tabled.ask(site);
        }
        backend(&status(&tabled), 1)["requests"].as_u64() > Some(0)
    });
    assert_eq!(generation(&tabled), 3, "that is the table it uses now");
    tabled.nginx.assert_healthy();
}
