//! Sites end by order, and because something that they need is killed: whoever waits is answered, and nothing is left in the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use paas_tests::apps::Recorder;
use paas_tests::load::{Load, Versioned};
use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Response, Root, wait};
use rustix::process::Signal;

/// Both workers of the site are busy, and so many requests wait in its queue.
fn queue(
    platform: &Platform<'_>,
    site: &Recorder,
    name: &'static str,
    count: usize,
) -> (Vec<JoinHandle<Response>>, Vec<JoinHandle<Response>>) {
    let port = platform.port();
    let held = (0..2)
        .map(|_| thread::spawn(move || Request::post(name, "/hold", "x").send(port)))
        .collect();
    site.wait_for("POST", "/hold", 2);
    let queued = (0..count)
        .map(|number| {
            let path = format!("/queued-{number}");
            thread::spawn(move || Request::post(name, &path, "x").send(port))
        })
        .collect();
    wait::until_true("the queue", || platform.queue_length(name) >= count);
    (held, queued)
}

#[test]
fn a_site_is_stopped_under_load_and_nothing_is_lost_or_run_twice() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "1");
    let load = Load::start(platform.port(), "a.test", 6);
    for _ in 0..8 {
        load.more(30);
        platform.paasctl().ok(&["stop-site", "a.test"]);
    }
    load.more(30);
    let answered = load.end(&site);
    assert!(answered >= 270, "{answered}");
    platform.assert_healthy();
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_stop_costs_nothing() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let first = process::master(&platform.get("a.test", "/"));
    let port = platform.port();
    let held = thread::spawn(move || Request::post("a.test", "/hold", "x").send(port));
    site.wait_for("POST", "/hold", 1);
    let socket = platform.site_socket("a.test");
    platform.paasctl().ok(&["stop-site", "a.test", "--no-wait"]);
    wait::until_true("the stop to begin", || !socket.exists());
    platform.restart_daemon(1, Signal::KILL);
    // Whoever comes now is served, whichever generation it is by.
    let port = platform.port();
    let next = thread::spawn(move || Request::post("a.test", "/next", "x").send(port));
    site.set("go");
    let _ = held.join().expect("an answer").expect(200);
    let _ = next.join().expect("an answer").expect(200);
    assert_eq!(
        (site.ran("POST", "/hold"), site.ran("POST", "/next")),
        (1, 1)
    );
    // The order has gone with the daemon: the site serves on, as one generation, and can be stopped.
    wait::until_true("one vassal file", || platform.vassals("a.test").len() == 1);
    platform.paasctl().ok(&["stop-site", "a.test"]);
    assert!(Seen::look(first).is_none() && !socket.exists());
    assert!(platform.vassals("a.test").is_empty());
    assert_ne!(process::master(&platform.get("a.test", "/")), first);
    platform.assert_healthy();
}

#[test]
fn requests_that_wait_when_the_emperor_is_killed_are_answered() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let _ = platform.get("a.test", "/").expect(200);
    let (held, queued) = queue(&platform, &site, "a.test", 20);
    process::send(platform.emperor("b1").pid, Signal::KILL);
    for (number, request) in queued.into_iter().enumerate() {
        let _ = request.join().expect("an answer").expect(200);
        assert_eq!(site.ran("POST", &format!("/queued-{number}")), 1);
    }
    for request in held {
        assert_eq!(request.join().expect("an answer").status, 502);
    }
    assert_eq!((site.ran("POST", "/hold"), site.starts()), (2, 2));
    platform.assert_healthy();
}

/// Directories of control groups that are named after one of these vassals.
fn groups(vassals: &[PathBuf]) -> Vec<PathBuf> {
    let leaves: Vec<_> = vassals.iter().filter_map(|file| file.file_stem()).collect();
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if leaves.contains(&&*entry.file_name()) {
                    found.push(entry.path());
                }
                left.push(entry.path());
            }
        }
    }
    found
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory)
        .expect("it is there")
        .next()
        .is_none()
}

#[test]
fn after_a_loss_of_power_nothing_runs_and_nothing_is_in_the_way() {
    let root = Root::new();
    let mut platform = Platform::start(&root);
    let sites: Vec<_> = ["a.test", "b.test"]
        .iter()
        .map(|name| (*name, platform.recorder(name)))
        .collect();
    for (name, _) in &sites {
        let _ = platform.get(name, "/").expect(200);
    }
    let vassals: Vec<_> = sites
        .iter()
        .flat_map(|(name, _)| platform.vassals(name))
        .collect();
    let sockets: Vec<_> = sites
        .iter()
        .map(|(name, _)| platform.site_socket(name))
        .collect();
    let had_groups = !groups(&vassals).is_empty();
    platform.lose_power();
    for left in vassals.iter().chain(&sockets) {
        assert!(left.exists(), "{} is not left", left.display());
    }
    platform.up();
    assert!(is_empty(&platform.vassals_directory(1)));
    for (name, site) in &sites {
        assert!(platform.site_processes(name).is_empty(), "{name} runs");
        assert_eq!(site.starts(), 1);
    }
    assert!(sockets.iter().all(|socket| !socket.exists()));
    // The groups go when they are old enough; nobody is in them.
    for group in groups(&vassals) {
        // A killed sandbox takes a moment to be gone with all that is in it.
        wait::until_true("the group to be empty", || {
            let inside = fs::read_to_string(group.join("cgroup.procs"));
            inside.unwrap_or_default().is_empty()
        });
    }
    for (name, site) in &sites {
        let answer = Request::post(*name, "/again", "x").send(platform.port());
        let _ = answer.expect(200);
        assert_eq!((site.ran("POST", "/again"), site.starts()), (1, 2));
    }
    assert!(!had_groups || !groups(&platform.vassals("a.test")).is_empty());
    platform.assert_healthy();
}
