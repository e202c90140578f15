//! The daemon is restarted while sites run: they go on, and nothing of theirs is lost.

use std::thread;

use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root, wait};
use rustix::process::Signal;

fn master(platform: &Platform<'_>, domain: &str) -> u32 {
    process::master(&platform.get(domain, "/"))
}

fn restarted_by(signal: Signal) {
    let root = Root::new();
    let platform = Platform::start(&root);
    let (running, sleeping) = (
        platform.recorder("running.test"),
        platform.recorder("sleeping.test"),
    );
    let first = master(&platform, "running.test");
    platform.restart_daemon(1, signal);

    // It goes on without a new start, and was not restarted.
    assert_eq!(master(&platform, "running.test"), first);
    assert_eq!(running.starts(), 1);
    // Sleeping sites wake.
    assert!(
        platform
            .get("sleeping.test", "/")
            .expect(200)
            .starts_with("GET / 0 ")
    );
    assert_eq!(sleeping.starts(), 1);

    // Its socket was taken back: a crash afterwards loses no queued request.
    let port = platform.port();
    let held: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || Request::post("running.test", "/hold", "x").send(port)))
        .collect();
    running.wait_for("POST", "/hold", 2);
    let queued: Vec<_> = (0..20)
        .map(|number| {
            thread::spawn(move || {
                Request::post("running.test", &format!("/queued-{number}"), "x").send(port)
            })
        })
        .collect();
    wait::until_true("twenty in the queue", || {
        platform.queue_length("running.test") >= 20
    });
    process::send(first, Signal::KILL);
    for (number, request) in queued.into_iter().enumerate() {
        let answer = request.join().expect("an answer");
        assert!(
            answer
                .expect(200)
                .starts_with(&format!("POST /queued-{number} 1 ")),
            "{answer:?}"
        );
    }
    for request in held {
        assert_eq!(request.join().expect("an answer").status, 502);
    }
    assert_eq!(running.starts(), 2);
    platform.assert_healthy();
}

#[test]
fn a_daemon_that_was_killed_takes_its_sites_back() {
    restarted_by(Signal::KILL);
}

#[test]
fn a_daemon_that_was_stopped_takes_its_sites_back() {
    restarted_by(Signal::TERM);
}

#[test]
fn a_site_that_ended_while_no_daemon_ran_is_started_at_the_next_visit() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let first = master(&platform, "a.test");
    let gap = platform.without_daemon(1);
    process::send(first, Signal::KILL);
    wait::until_true("its end", || Seen::look(first).is_none());
    gap.end();
    assert!(
        Request::post("a.test", "/after", "body")
            .send(platform.port())
            .expect(200)
            .starts_with("POST /after 4 ")
    );
    assert_eq!(site.ran("POST", "/after"), 1);
    assert_eq!(platform.vassals("a.test").len(), 1);
    platform.assert_healthy();
}

#[test]
fn a_restarted_daemon_puts_an_old_site_to_sleep() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder_with("a.test", &["--idle", "2s"]);
    let first = master(&platform, "a.test");
    platform.restart_daemon(1, Signal::KILL);
    let socket = platform.site_socket("a.test");
    wait::until_true("the idle stop", || {
        Seen::look(first).is_none() && !socket.exists() && platform.vassals("a.test").is_empty()
    });
    assert_eq!(site.starts(), 1);
    let _ = platform.get("a.test", "/").expect(200);
    assert_eq!(site.starts(), 2);
    platform.assert_healthy();
}

#[test]
fn an_emperor_that_was_killed_costs_the_running_sites_but_everything_wakes_again() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let first = master(&platform, "a.test");
    let emperor = platform.emperor("b1").pid;
    process::send(emperor, Signal::KILL);
    wait::until_true("the end of the Emperor and its site", || {
        Seen::look(emperor).is_none() && Seen::look(first).is_none()
    });
    wait::until_true("another answer", || {
        platform.get("a.test", "/after").status == 200
    });
    assert_ne!(master(&platform, "a.test"), first);
    assert!(site.starts() >= 2);
    assert_eq!(platform.vassals("a.test").len(), 1);
    platform.assert_healthy();
}

#[test]
fn what_is_added_is_served_at_once_and_what_is_removed_is_gone() {
    let root = Root::new();
    let platform = Platform::start(&root);
    for number in 0..10 {
        let name = format!("new-{number}.test");
        let _site = platform.recorder(&name);
        assert!(
            platform.get(&name, "/").expect(200).starts_with("GET / 0 "),
            "right after the command has returned"
        );
    }
    let errors = platform.nginx_errors();
    assert!(!errors.contains("SIGHUP"), "no reload for a site");
    platform.paasctl().ok(&["remove-site", "new-3.test"]);
    assert_eq!(platform.get("new-3.test", "/").status, 404);
    wait::until_true("the removed site's processes to end", || {
        platform.site_processes("new-3.test").is_empty()
    });
    platform.assert_healthy();
}
