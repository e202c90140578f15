//! A slow change of placement under requests: sites go over one by one, none is lost, none moves twice; it waits where too
//! many sites start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use paas_tests::platform::Options;
use paas_tests::stub::Answer;
use paas_tests::{Connection, Nginx, Paasctl, Platform, Process, Request, Root, Stub, times, wait};
use rustix::process::Signal;
use serde_json::Value;

const SITES: usize = 20_000;
const BACKENDS: u16 = 4;
const VISITORS: usize = 4;

/// How many of the sites are visited all the time.
fn awake() -> usize {
    times(400, 2000)
}

fn host(number: usize) -> String {
    format!("site{number}.example.org")
}

fn placement(paasctl: &Paasctl) -> Value {
    serde_json::from_str(&paasctl.ok(&["show-placement", "--json"])).expect("JSON")
}

fn add_sites(paasctl: &Paasctl) {
    let mut lines = String::new();
    for number in 0..SITES {
        let host = host(number);
        writeln!(
            lines,
            r#"{{"domain":"{host}","user":"anna","directory":"/srv/a","entry":"app:app"}}"#
        )
        .expect("a string takes all");
    }
    let mut child = paasctl
        .command(&["add-site", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("paasctl can be run");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(lines.as_bytes()).expect("it reads them");
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

/// The backends that answered each site, one after the other, and how many requests there were.
type Seen = BTreeMap<usize, Vec<String>>;

/// Visits its share of the sites again and again until told to stop.
fn visit(port: u16, share: usize, stop: &AtomicBool, rounds: &AtomicUsize) -> Seen {
    let mut seen = Seen::new();
    let mut connection = Connection::open(port).expect("nginx listens");
    while !stop.load(Ordering::SeqCst) {
        for number in (share..awake()).step_by(VISITORS) {
            let answer = connection
                .exchange(&Request::get(host(number), "/"))
                .expect("an answer");
            let backend = answer.expect(200);
            let places = seen.entry(number).or_default();
            if places.last() != Some(&backend) {
                places.push(backend);
            }
        }
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    seen
}

#[test]
fn sites_go_over_one_by_one_and_none_is_lost_or_moves_twice() {
    let root = Root::new();
    let machine = root.join("m");
    root.write("m/etc/paas/paas.toml", "roles = [\"balancer\"]\n");
    let paasctl = Paasctl::new(&machine);
    let first = root.ports(BACKENDS);
    let _stubs: Vec<Stub> = (0..BACKENDS)
        .map(|number| Stub::tcp(first + number, move |_| Answer::ok(format!("b{number}"))))
        .collect();
    let quiet = |arguments: &[&str]| drop(paasctl.ok(arguments));
    quiet(&["set-placement", "python64"]);
    for number in 0..BACKENDS {
        let address = format!("127.0.0.1:{}", first + number);
        quiet(&["add-backend", &format!("b{number}"), &address]);
    }
    quiet(&["add-user", "anna"]);
    add_sites(&paasctl);
    let mut serve = paasctl.command(&["serve"]);
    let _serve = Process::start("serve", &mut serve, &root.join("serve.log"), Signal::TERM);
    wait::until_true("the daemon", || {
        machine.join("run/paas/control.sock").exists()
    });

    let port = root.port();
    let http = format!(
        "paas_table {}/var/lib/paas/table;
         upstream backends {{ paas_hash; paas_keepalive 64; }}
         server {{
             listen 127.0.0.1:{port};
             paas_role balancer;
             location / {{
                 proxy_pass http://backends;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
             }}
         }}",
        machine.display()
    );
    let nginx = Nginx::start_with(&root, "front", "worker_processes 2;", &http, port);
    let (stop, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let visitors: Vec<_> = (0..VISITORS)
        .map(|share| {
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            thread::spawn(move || visit(port, share, &stop, &rounds))
        })
        .collect();
    let all_were_visited = || {
        let before = rounds.load(Ordering::SeqCst);
        wait::until_true("every site to be visited", || {
            rounds.load(Ordering::SeqCst) >= before + 2 * VISITORS
        });
    };
    all_were_visited();

    paasctl.ok(&["set-placement", "rendezvous", "--over", "10s"]);
    let done = || placement(&paasctl)["change"]["done_percent"].as_f64();
    wait::until_true("a third to have gone over", || {
        done().is_some_and(|done| done > 30.0)
    });
    paasctl.ok(&["set-placement", "--pause"]);
    let paused = done();
    all_were_visited();
    assert_eq!(done(), paused, "nothing goes over while it is paused");
    assert!(
        paasctl
            .ok(&["list-backends"])
            .contains("python64 to rendezvous")
    );
    paasctl.ok(&["set-placement", "--resume"]);
    wait::until_true("the change to end", || {
        placement(&paasctl)["change"].is_null()
    });
    all_were_visited();
    stop.store(true, Ordering::SeqCst);

    let mut moved = 0;
    for visitor in visitors {
        for (number, places) in visitor.join().expect("every request was answered") {
            assert!(
                places.len() <= 2,
                "{} moved twice: {places:?}",
                host(number)
            );
            moved += places.len() - 1;
        }
    }
    let (least, most) = (awake() / 2, awake());
    assert!(
        (least..most).contains(&moved),
        "about three of four move: {moved}"
    );
    assert_eq!(placement(&paasctl)["method"], "rendezvous");
    nginx.assert_healthy();
}

#[test]
fn it_waits_while_too_many_sites_start_and_awake_sites_are_served_through_it() {
    let root = Root::new();
    let options = Options {
        backends: 2,
        ..Options::default()
    };
    let platform = Platform::with(&root, options);
    let paasctl = platform.paasctl();
    paasctl.ok(&["set-placement", "python64"]);
    let awake: Vec<_> = (0..6)
        .map(|number| {
            (
                format!("a{number}.test"),
                platform.recorder(&format!("a{number}.test")),
            )
        })
        .collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let slow: Vec<_> = (0..2 * 4 * cores + 2)
        .map(|number| {
            let site = platform.recorder(&format!("s{number}.test"));
            site.close();
            (format!("s{number}.test"), site)
        })
        .collect();
    for (host, _) in &awake {
        platform.get(host, "/").expect(200);
    }
    // One of the two backends has more than it bears.
    let waiting: Vec<_> = slow
        .iter()
        .map(|(host, _)| {
            let (host, port) = (host.clone(), platform.port());
            thread::spawn(move || Request::get(host, "/").send(port))
        })
        .collect();
    paasctl.ok(&["set-placement", "rendezvous", "--over", "6s"]);
    wait::until_true("the change to wait", || {
        let held = &placement(&paasctl)["change"]["held_by"];
        held.as_array().is_some_and(|held| !held.is_empty())
    });
    let words = paasctl.ok(&["list-backends"]);
    assert!(words.contains("; waits for b"), "{words}");
    slow.iter().for_each(|(_, site)| site.open());
    for visitor in waiting {
        visitor.join().expect("an answer").expect(200);
    }
    let mut answers = 0;
    while !placement(&paasctl)["change"].is_null() {
        for (host, _) in &awake {
            platform.get(host, "/").expect(200);
            answers += 1;
        }
    }
    assert!(answers > 0);
    for (host, site) in &awake {
        platform.get(host, "/").expect(200);
        assert!(site.starts() <= 2, "{host} moves once at most");
    }
    let moved: BTreeSet<&String> = awake
        .iter()
        .filter(|(_, site)| site.starts() == 2)
        .map(|(host, _)| host)
        .collect();
    assert!(!moved.is_empty(), "some of them move");
    platform.assert_healthy();
}
