//! A backend is drained, as `paasctl` says it: it wakes no more sites and serves those that are awake; whatever the request,
//! it goes on to the next backend, and nobody notices.

use paas_tests::apps::Recorder;
use paas_tests::platform::Options;
use paas_tests::process::master;
use paas_tests::{Platform, Request, Root, wait};

fn two_backends(root: &Root) -> Platform<'_> {
    Platform::with(
        root,
        Options {
            backends: 2,
            ..Options::default()
        },
    )
}

fn set_state(platform: &Platform<'_>, backend: &str, state: &str) {
    platform
        .paasctl()
        .ok(&["set-backend", backend, "--state", state]);
}

#[test]
fn who_is_awake_stays_and_who_sleeps_wakes_elsewhere() {
    let root = Root::new();
    let platform = two_backends(&root);
    let (awake_one, awake_site) = platform.recorder_at("b1", "awake", &[]);
    let (sleeping, sleeping_site) = platform.recorder_at("b1", "sleeping", &[]);
    let before = master(&platform.get(&awake_one, "/"));
    set_state(&platform, "b1", "draining");

    // The first request that the sleeping one gets has a large body and must not be run twice.
    let body = vec![b'x'; 5_000_000];
    let answer = Request::post(&sleeping, "/first", body).send(platform.port());
    assert!(answer.expect(200).starts_with("POST /first 5000000 "));
    let there = master(&answer);
    for number in 0..20 {
        let path = format!("/{number}");
        let (stays, moved) = (
            platform.get(&awake_one, &path),
            platform.get(&sleeping, &path),
        );
        assert_eq!(master(&stays), before, "it has not moved");
        assert_eq!(master(&moved), there, "it woke once");
    }
    assert_eq!((awake_site.starts(), sleeping_site.starts()), (1, 1));
    assert_eq!(sleeping_site.ran("POST", "/first"), 1);
    assert_eq!((platform.awake(1), platform.awake(2)), (1, 1));
    platform.assert_healthy();
}

#[test]
fn a_site_moves_when_it_is_idle_and_comes_back_when_its_backend_does() {
    let root = Root::new();
    let platform = two_backends(&root);
    let (domain, site) = platform.recorder_at("b1", "site", &["--idle", "1s"]);
    let first = master(&platform.get(&domain, "/"));
    set_state(&platform, "b1", "draining");
    wait::until_true("the site to sleep", || platform.awake(1) == 0);
    let answer = Request::post(&domain, "/moved", "body").send(platform.port());
    let second = master(&answer);
    assert_ne!(first, second);
    assert_eq!((platform.awake(1), platform.awake(2)), (0, 1));
    assert_eq!((site.starts(), site.ran("POST", "/moved")), (2, 1));

    // A daemon that comes to a backend that is being drained knows it before anybody can ask.
    platform.restart_daemon(1, rustix::process::Signal::KILL);
    wait::until_true("the site to sleep", || platform.awake(2) == 0);
    let _ = platform.get(&domain, "/again").expect(200);
    assert_eq!((platform.awake(1), platform.awake(2)), (0, 1));

    set_state(&platform, "b1", "active");
    let _ = platform.get(&domain, "/home").expect(200);
    assert_eq!(platform.awake(1), 1, "it is at home again");
    platform.assert_healthy();
}

#[test]
fn a_disabled_backend_wakes_nobody_even_if_it_is_asked() {
    let root = Root::new();
    let platform = two_backends(&root);
    let (domain, site) = platform.recorder_at("b1", "site", &[]);
    set_state(&platform, "b1", "disabled");
    let _ = platform.get(&domain, "/").expect(200);
    assert_eq!((platform.awake(1), platform.awake(2)), (0, 1));
    // As a balancer does that has not heard of it yet.
    let answer = Request::get(&domain, "/").send(platform.backend_port(1));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-paas-reason"), Some("elsewhere"));
    assert_eq!((platform.awake(1), site.starts()), (0, 1));
    platform.assert_healthy();
}

#[test]
fn a_site_cannot_send_its_requests_elsewhere() {
    const FORGER: &str = r#"
import os
def application(environ, start_response):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes", "ran"), "a") as notes:
        notes.write(environ["REQUEST_METHOD"] + "\n")
    start_response("503 Busy", [("X-Paas-Reason", "elsewhere"), ("x-paas-id", "1"), ("Content-Length", "4")])
    return [b"busy"]
"#;
    let root = Root::new();
    let platform = two_backends(&root);
    let site = Recorder::new(&root, "forger.test");
    root.write("sites/forger.test/app.py", FORGER);
    platform.add_site(
        "forger.test",
        site.directory(),
        &["--entry", "app:application", "--no-check"],
    );
    for state in ["active", "draining"] {
        let answer = Request::post("forger.test", "/", "x").send(platform.port());
        assert_eq!(answer.expect(503), "busy");
        assert_eq!(answer.header("x-paas-reason"), None);
        set_state(&platform, &platform.home("forger.test"), state);
    }
    let ran = std::fs::read_to_string(root.join("sites/forger.test/notes/ran")).expect("it ran");
    assert_eq!(ran.lines().count(), 2, "each request ran once");
    assert_eq!(platform.awake(1) + platform.awake(2), 1);
    platform.assert_healthy();
}

#[test]
fn where_every_backend_is_drained_the_answer_says_so_at_once() {
    let root = Root::new();
    let platform = two_backends(&root);
    let site = platform.recorder("a.test");
    for backend in ["b1", "b2"] {
        set_state(&platform, backend, "draining");
    }
    let answer = platform.get("a.test", "/");
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(site.starts(), 0);
    set_state(&platform, "b2", "active");
    let _ = platform.get("a.test", "/").expect(200);
    platform.assert_healthy();
}
