//! A site's life: it sleeps when nobody visits, wakes, crashes and is up again, under its user's uid.

use std::thread;

use paas_tests::process::{self, Seen};
use paas_tests::{Connection, Platform, Request, Root, wait};
use rustix::process::Signal;

fn master(platform: &Platform<'_>, domain: &str) -> u32 {
    process::master(&platform.get(domain, "/"))
}

#[test]
fn a_site_nobody_visits_sleeps_and_leaves_nothing() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder_with("a.test", &["--idle", "1s"]);
    let first = master(&platform, "a.test");
    let (socket, vassals) = (platform.site_socket("a.test"), platform.vassals("a.test"));
    assert!(socket.exists());
    assert_eq!(vassals.len(), 1, "{vassals:?}");
    wait::until_true("its processes to end", || Seen::look(first).is_none());
    wait::until_true("its vassal file to be gone", || {
        platform.vassals("a.test").is_empty()
    });
    wait::until_true("its socket's name to be gone", || !socket.exists());
    wait::until_true("its processes to be gone", || {
        platform.site_processes("a.test").is_empty()
    });
    assert_eq!(site.starts(), 1, "the Emperor did not start it again");
    // And it wakes again, as often as one likes.
    assert!(
        Request::post("a.test", "/again", "body")
            .send(platform.port())
            .expect(200)
            .starts_with("POST /again 4 ")
    );
    assert_eq!(site.starts(), 2);
    platform.assert_healthy();
}

#[test]
fn waking_a_sleeping_site_is_no_error() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder_with("a.test", &["--idle", "1s"]);
    let socket = platform.site_socket("a.test");
    for round in 1..=3 {
        let _ = platform.get("a.test", "/get").expect(200);
        let answer = Request::post("a.test", "/post", "x").send(platform.port());
        let _ = answer.expect(200);
        wait::until_true("it to sleep", || {
            !socket.exists() && platform.vassals("a.test").is_empty()
        });
        assert_eq!(site.starts(), round);
    }
    let errors = platform.nginx_errors();
    let bad: Vec<_> = errors
        .lines()
        .filter(|line| {
            ["[warn]", "[error]", "[crit]"]
                .iter()
                .any(|level| line.contains(level))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    platform.assert_healthy();
}

#[test]
fn requests_all_around_the_moment_of_an_idle_stop_are_answered() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder_with("a.test", &["--idle", "1s"]);
    let port = platform.port();
    let _ = platform.get("a.test", "/first").expect(200);
    // A visitor after every pause between "too short to sleep" and "long asleep" meets every stage of the stop.
    let visitors: Vec<_> = (0..40_u64)
        .map(|step| {
            thread::spawn(move || {
                thread::park_timeout(std::time::Duration::from_millis(900 + step * 25));
                let path = format!("/step-{step}");
                let answer = Request::post("a.test", &path, "x").send(port);
                assert!(answer.expect(200).contains(&path), "{answer:?}");
            })
        })
        .collect();
    for visitor in visitors {
        visitor.join().expect("every visitor was answered right");
    }
    let mut ran = site.requests();
    assert_eq!(ran.len(), 41);
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), 41, "none ran twice");
    platform.assert_healthy();
}

#[test]
fn a_crashed_site_is_up_again_on_its_held_socket_and_serves_its_queue() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let first = master(&platform, "a.test");
    let port = platform.port();
    // Both workers are busy; the others wait in the socket's queue, POSTs that must not be lost or run twice.
    let held: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || Request::post("a.test", "/hold", "x").send(port)))
        .collect();
    site.wait_for("POST", "/hold", 2);
    let queued: Vec<_> = (0..30)
        .map(|number| {
            thread::spawn(move || {
                Request::post("a.test", &format!("/queued-{number}"), "x").send(port)
            })
        })
        .collect();
    wait::until_true("thirty in the queue", || {
        platform.queue_length("a.test") >= 30
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
        assert_ne!(process::master(&answer), first);
    }
    for request in held {
        assert_eq!(
            request.join().expect("an answer").status,
            502,
            "it was running and is not repeated"
        );
    }
    assert_eq!(site.starts(), 2);
    assert_eq!(
        site.requests()
            .iter()
            .filter(|request| request.contains("/queued"))
            .count(),
        30
    );
    platform.assert_healthy();
}

#[test]
fn a_crashed_site_is_up_again_without_a_visitor() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let first = master(&platform, "a.test");
    process::send(first, Signal::KILL);
    site.wait_for_starts(2);
    assert_ne!(master(&platform, "a.test"), first);
    assert_eq!(
        platform.vassals("a.test").len(),
        1,
        "only the file of the running generation is there"
    );
    platform.assert_healthy();
}

#[test]
fn a_site_s_processes_run_under_its_user_s_uid() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: skipped");
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    platform.paasctl().ok(&["add-user", "other"]);
    let site = platform.recorder("a.test");
    let mut uids = vec![platform.owner_uid(), platform.uid_of("other")];
    let other = paas_tests::apps::Recorder::new(&root, "b.test");
    let directory = other.directory().to_string_lossy().into_owned();
    platform.paasctl().ok(&[
        "add-site",
        "b.test",
        "--user",
        "other",
        "--directory",
        &directory,
        "--entry",
        "app:application",
    ]);
    for (domain, uid) in [("a.test", uids[0]), ("b.test", uids[1])] {
        let answer = platform.get(domain, "/");
        assert_eq!(
            answer.header("x-uid"),
            Some(uid.to_string().as_str()),
            "{answer:?}"
        );
        let master = process::master(&answer);
        let family = platform.family(master);
        assert!(family.len() >= 2, "a master and workers: {family:?}");
        for seen in family {
            assert_eq!((seen.uid, seen.gid), (uid, uid), "{seen:?}");
            assert!(!seen.groups.contains(&0), "{seen:?}");
            let environment =
                std::fs::read(format!("/proc/{}/environ", seen.pid)).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(
                !environment.contains("CARGO") && !environment.contains("PAAS_LAUNCH"),
                "{environment}"
            );
        }
    }
    uids.dedup();
    assert_eq!(uids.len(), 2, "every user has a uid of its own");
    assert!(uids.iter().all(|uid| *uid >= 200_000));
    drop((site, other));

    // What is root's stays root's.
    let mode = |path: std::path::PathBuf| {
        use std::os::unix::fs::MetadataExt;
        let data =
            std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (data.uid(), data.mode() & 0o7777)
    };
    for vassal in platform.vassals("a.test") {
        assert_eq!(mode(vassal), (0, 0o600));
    }
    let run = platform.backend(1).join("run/paas");
    assert_eq!(mode(run.join("launch.sock")).1, 0o600);
    assert_eq!(mode(run.join("control.sock")).1, 0o660);
    assert_eq!(mode(platform.site_socket("a.test")).1, 0o660);
    assert_eq!(mode(run.join("emperor-stats.sock")).1 & 0o077, 0);
    platform.assert_healthy();
}

#[test]
fn one_user_s_site_cannot_reach_what_is_not_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: skipped");
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    let victim = platform.recorder("victim.test");
    let _ = platform.get("victim.test", "/").expect(200);
    platform.paasctl().ok(&["add-user", "curious"]);
    let source = r#"
import os, socket
def attempt(kind, path):
    try:
        if kind == "read":
            open(path, "rb").read(1)
        elif kind == "list":
            os.listdir(path)
        elif kind == "write":
            open(path, "ab").close()
        elif kind == "connect":
            s = socket.socket(socket.AF_UNIX); s.connect(path); s.close()
        elif kind == "signal":
            os.kill(int(path), 0)
        return "reached"
    except OSError as error:
        return error.__class__.__name__
def application(environ, start_response):
    kind, path = environ["wsgi.input"].read().decode().split(" ", 1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [attempt(kind, path).encode()]
"#;
    root.write("sites/curious/app.py", source);
    let directory = root.join("sites/curious").to_string_lossy().into_owned();
    platform.paasctl().ok(&[
        "add-site",
        "curious.test",
        "--user",
        "curious",
        "--directory",
        &directory,
        "--entry",
        "app:application",
    ]);
    let machine = platform.backend(1);
    let path = |relative: &str| machine.join(relative).to_string_lossy().into_owned();
    let victim_master = process::master(&platform.get("victim.test", "/")).to_string();
    let attempts = [
        ("list", path("run/paas/vassals")),
        ("connect", path("run/paas/control.sock")),
        ("connect", path("run/paas/launch.sock")),
        ("connect", path("run/paas/emperor-stats.sock")),
        (
            "connect",
            platform
                .site_socket("victim.test")
                .to_string_lossy()
                .into_owned(),
        ),
        (
            "read",
            platform
                .directory()
                .join("registry.db")
                .to_string_lossy()
                .into_owned(),
        ),
        (
            "write",
            platform
                .directory()
                .join("registry.db")
                .to_string_lossy()
                .into_owned(),
        ),
        ("read", path("var/lib/paas/table/current/data.mdb")),
        ("list", path("var/log/paas/victim.test")),
        ("read", path("var/log/paas/victim.test/server.log")),
        ("signal", victim_master),
        ("signal", platform.emperor("b1").pid.to_string()),
    ];
    for (kind, target) in attempts {
        let answer =
            Request::post("curious.test", "/", format!("{kind} {target}")).send(platform.port());
        assert_ne!(answer.expect(200), "reached", "{kind} {target}");
    }
    // The probe of this test itself works.
    let own = Request::post("curious.test", "/", format!("read {directory}/app.py"))
        .send(platform.port());
    assert_eq!(own.expect(200), "reached");
    assert_eq!(victim.starts(), 1);
}

#[test]
fn ctrl_c_stops_everything_and_a_second_up_finds_everything() {
    let root = Root::new();
    let mut platform = Platform::with(
        &root,
        paas_tests::platform::Options {
            backends: 2,
            ..Default::default()
        },
    );
    let sites: Vec<_> = (0..4)
        .map(|number| platform.recorder(&format!("s{number}.test")))
        .collect();
    for number in 0..4 {
        let _ = platform.get(&format!("s{number}.test"), "/one").expect(200);
    }
    let mut kept = Connection::open(platform.port()).expect("the balancer listens");
    assert_eq!(
        kept.exchange(&Request::get("s0.test", "/kept"))
            .expect("an answer")
            .status,
        200
    );
    let machines = platform.directory();
    assert!(
        process::under(&machines).len() > 8,
        "nginx, daemons, Emperors and sites run"
    );
    platform.stop();
    let left = process::under(root.path());
    assert!(left.is_empty(), "left behind: {left:#?}");
    assert!(
        Connection::open(platform.port()).is_err(),
        "the port is free"
    );

    platform.up();
    for (number, site) in sites.iter().enumerate() {
        let before = site.starts();
        assert!(
            platform
                .get(&format!("s{number}.test"), "/two")
                .expect(200)
                .starts_with("GET /two 0 ")
        );
        assert_eq!(site.starts(), before + 1);
    }
    platform.stop();
    assert!(process::under(root.path()).is_empty());
}
