//! Waking with a real Emperor and real uWSGI.

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Answer, Backend, TestSite, gate, receive, send};

fn master(answer: &Answer) -> Pid {
    answer.master().expect("it runs")
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn two_hundred_visitors_wake_a_site_once() {
    let mut backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    let began = Instant::now();
    let visitors: Vec<_> = (0..200)
        .map(|_| {
            let site = site.clone();
            thread::spawn(move || {
                (
                    site.initialize().status,
                    site.request("/", b"").map(|answer| answer.status),
                )
            })
        })
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.join().unwrap(), (204, Some(200)));
    }
    eprintln!("200 visitors: {} ms", began.elapsed().as_millis());
    assert_eq!(backend.daemon().count(&["starting"]), 1);
    assert_eq!(
        (site.status().as_str(), backend.vassal_files()),
        ("running", 1)
    );
    assert_eq!(
        site.visit(1, 1).status,
        502,
        "it died in the running site: a real 502"
    );
    assert_eq!(
        site.visit(0, 0).status,
        204,
        "it listens, and there is room"
    );
}

#[test]
fn sixty_sites_wake_at_once() {
    let mut backend = Backend::start();
    let sites: Vec<_> = (0..60)
        .map(|number| backend.add_site(&format!("u{number}"), None, None))
        .collect();
    let began = Instant::now();
    let visitors: Vec<_> = sites
        .into_iter()
        .map(|site| thread::spawn(move || site.serve("/").status))
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.join().unwrap(), 200);
    }
    eprintln!("60 sites: {} ms", began.elapsed().as_millis());
    assert_eq!(backend.daemon().count(&["starting"]), 60);
}

#[test]
fn a_site_runs_as_its_user_with_nothing_of_the_emperors() {
    let backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    assert_eq!(site.initialize().status, 204);
    let about = site.request("/about", b"").unwrap();
    eprintln!("{}", about.body());
    if rustix::process::geteuid().is_root() {
        assert!(
            about.body().contains(&format!("({0}, {0}, [], ", site.uid)),
            "{}",
            about.body()
        );
    }
    for name in ["PAAS_LAUNCH_SOCKET", "USER", "CARGO", "SHELL"] {
        assert!(!about.body().contains(name), "{name} reached the site");
    }
    let vassal = fs::read_dir(backend.settings.paths().vassals())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&vassal.metadata().unwrap().permissions()) & 0o777,
        0o600
    );
    let log = backend
        .settings
        .paths()
        .site_logs(&site.row.domain)
        .join("server.log");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&log.metadata().unwrap().permissions()) & 0o777,
        0o640
    );
}

#[test]
fn a_site_that_reloads_itself_keeps_its_configuration_and_its_socket() {
    let backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    let before = master(&site.serve("/"));
    assert_eq!(site.serve("/reload").status, 200);
    let after = site.serve("/");
    assert_eq!((after.status, master(&after)), (200, before));
}

#[test]
fn a_start_that_fails_is_told_at_once_and_the_next_visit_tries_again() {
    let mut backend = Backend::start();
    let site = backend.add_site("anna", Some("import nothing_of_that_name"), None);
    let began = Instant::now();
    let answers: Vec<_> = (0..20)
        .map(|_| {
            let site = site.clone();
            thread::spawn(move || site.initialize())
        })
        .collect();
    for answer in answers {
        let answer = answer.join().unwrap();
        assert_eq!(
            (answer.status, answer.header("X-Paas-Reason")),
            (503, Some("import-failed"))
        );
        assert!(answer.header("Retry-After").is_some());
        assert!(
            answer
                .header("X-Paas-Id")
                .unwrap()
                .starts_with(&format!("{}-", site.id))
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        (site.status().as_str(), backend.vassal_files()),
        ("failing", 0)
    );
    assert!(
        backend
            .daemon()
            .wait_for(&["does not start", "server.log"])
            .contains("import-failed")
    );

    let repaired = backend.add_site("bert", None, None);
    site.write(&fs::read_to_string(repaired.directory.join("app.py")).unwrap());
    let deadline = Instant::now() + support::DEADLINE;
    while site.initialize().status != 204 {
        assert!(Instant::now() < deadline, "never tried again");
    }
    assert!(
        backend.daemon().count(&["starting"]) <= 4,
        "at most one start a second"
    );
}

#[test]
fn a_hanging_start_is_killed_in_time() {
    let mut backend = Backend::prepare();
    let file = backend.root.path().join("etc/paas/paas.toml");
    let short = fs::read_to_string(&file).unwrap().replace("20s", "1s");
    fs::write(&file, short).unwrap();
    backend.start_daemon();
    backend.start_emperor();
    let site = backend.add_site("anna", Some("open('gate').read()"), None);
    gate(&site);
    let answer = site.initialize();
    assert_eq!(
        (answer.status, answer.header("X-Paas-Reason")),
        (503, Some("start-timeout"))
    );
    backend
        .daemon()
        .wait_for(&["does not start", "start-timeout"]);
    assert_eq!(backend.vassal_files(), 0);
}

#[test]
fn an_idle_site_sleeps_and_late_requests_are_served() {
    let mut backend = Backend::start_with_net(1);
    let site = backend.add_site("anna", None, None);
    for round in 0..2 {
        assert_eq!(site.serve("/").status, 200);
        backend.daemon().wait_for(&["asleep"]);
        assert!(
            !site.socket.exists() && backend.vassal_files() == 0,
            "round {round}"
        );
    }
    // Requests that come while it stops wait for the next generation.
    for _ in 0..3 {
        // Lines of earlier lives are no news.
        backend.daemon().count(&[]);
        assert_eq!(site.serve("/").status, 200);
        backend.daemon().wait_for(&["stopping"]);
        let began = Instant::now();
        let late: Vec<_> = (0..20)
            .map(|_| {
                let site = site.clone();
                thread::spawn(move || site.serve("/").status)
            })
            .collect();
        for visitor in late {
            assert_eq!(visitor.join().unwrap(), 200);
        }
        eprintln!("late requests: {} ms", began.elapsed().as_millis());
    }
}

#[test]
fn a_crashed_site_is_up_again_and_its_queue_survives() {
    let mut backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    gate(&site);
    let before = master(&site.serve("/"));
    // Both workers are busy, so these wait in the queue.
    let busy: Vec<_> = (0..2).map(|_| waiting(&site, "/wait")).collect();
    wait_for_file(&site);
    let queued: Vec<_> = (0..50).map(|_| waiting(&site, "/")).collect();
    kill(before);
    for stream in queued {
        let answer = receive(stream).expect("a queued request was lost");
        assert_eq!(answer.status, 200);
        assert_ne!(master(&answer), before);
    }
    drop(busy);
    assert_eq!(backend.daemon().count(&["starting"]), 2);
    // The queue is served as soon as the application accepts; the daemon hears of it a moment later.
    let deadline = Instant::now() + support::DEADLINE;
    while site.status() != "running" {
        assert!(Instant::now() < deadline, "{}", site.status());
    }
    assert_eq!(backend.vassal_files(), 1);
}

#[test]
fn a_queue_whose_site_does_not_come_back_is_answered_with_the_failure() {
    let backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    gate(&site);
    let before = master(&site.serve("/"));
    let _busy: Vec<_> = (0..2).map(|_| waiting(&site, "/wait")).collect();
    wait_for_file(&site);
    let mut queued: Vec<_> = (0..20).map(|_| waiting(&site, "/")).collect();
    // One with a large body that nobody reads while it is being sent.
    let mut large = site.connect().unwrap();
    let sender = thread::spawn(move || {
        let sent = send(&mut large, "/", &vec![b'x'; 8 << 20]);
        (sent, large)
    });
    site.write("import nothing_of_that_name");
    kill(before);
    let began = Instant::now();
    let (sent, large) = sender.join().unwrap();
    sent.expect("the body met a closed socket");
    queued.push(large);
    for stream in queued {
        let answer = receive(stream).expect("a queued request was closed unanswered");
        let body = answer.body();
        assert!(
            answer.status == 503 && body.contains("import-failed"),
            "{} {body}",
            answer.status
        );
        assert!(answer.header("Retry-After").is_some() && body.contains(&format!("{}-", site.id)));
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(!site.socket.exists());
}

#[test]
fn a_site_that_keeps_crashing_is_not_restarted_for_ever() {
    let mut backend = Backend::start();
    // Imported by the master, which its own child then kills.
    let app = "import os, time\n\
               if os.fork() == 0:\n    time.sleep(0.3)\n    os.kill(os.getppid(), 9)\n    os._exit(0)\n\
               def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n";
    let site = backend.add_site("anna", Some(app), None);
    assert_eq!(site.initialize().status, 204);
    backend.daemon().wait_for(&["does not start", "crashing"]);
    assert_eq!(backend.daemon().count(&["starting"]), 4);
    assert_eq!(
        (site.status().as_str(), backend.vassal_files()),
        ("failing", 0)
    );
}

#[test]
fn a_restarted_daemon_takes_running_sites_back() {
    let mut backend = Backend::start_with_net(3);
    let site = backend.add_site("anna", None, None);
    let asleep = backend.add_site("bert", None, None);
    let before = master(&site.serve("/"));
    for signal in [Signal::KILL, Signal::TERM] {
        backend.daemon().signal(signal);
        backend.daemon().child.wait().unwrap();
        assert_eq!(
            master(&site.request("/", b"").unwrap()),
            before,
            "running sites go on"
        );
        backend.start_daemon();
        assert_eq!(site.status(), "running");
        assert_eq!(master(&site.serve("/")), before);
    }
    kill(before);
    backend.daemon().wait_for(&["starting"]);
    let after = master(&site.serve("/"));
    assert_ne!(after, before);
    backend.daemon().wait_for(&["asleep"]);
    assert_eq!(backend.vassal_files(), 0);
    assert_eq!(
        (site.serve("/").status, asleep.serve("/").status),
        (200, 200)
    );
}

#[test]
fn a_restarted_daemon_takes_starts_in_progress_over() {
    let mut backend = Backend::start();
    let slow = format!(
        "open('arrived', 'w').write('x')\nopen('gate').read()\n{}",
        fs::read_to_string(
            backend
                .add_site("bert", None, None)
                .directory
                .join("app.py")
        )
        .unwrap()
    );
    let site = backend.add_site("anna", Some(&slow), None);
    let gate = gate(&site);
    let parked = {
        let site = site.clone();
        thread::spawn(move || {
            support::http(
                &site.control,
                "GET",
                &format!("/initialize?site={}", site.id),
            )
        })
    };
    wait_for_file(&site);
    backend.daemon().signal(Signal::KILL);
    backend.daemon().child.wait().unwrap();
    assert!(
        parked.join().unwrap().is_none(),
        "its connection died with the daemon"
    );
    backend.start_daemon();
    assert_eq!(site.status(), "starting");
    let again = {
        let site = site.clone();
        thread::spawn(move || site.initialize().status)
    };
    fs::write(&gate, "go").unwrap();
    assert_eq!(again.join().unwrap(), 204);
    assert_eq!(site.request("/", b"").unwrap().status, 200);
    assert_eq!(
        backend.daemon().count(&["starting"]),
        0,
        "the start went on, it was not begun again"
    );
}

#[test]
fn a_site_that_becomes_ready_while_there_is_no_daemon_is_published_by_the_next() {
    let mut backend = Backend::start();
    let app = fs::read_to_string(
        backend
            .add_site("bert", None, None)
            .directory
            .join("app.py"),
    )
    .unwrap();
    let site = backend.add_site(
        "anna",
        Some(&format!(
            "open('arrived', 'w').write('x')\nopen('gate').read()\n{app}"
        )),
        None,
    );
    let gate = gate(&site);
    let control = site.control.clone();
    let path = format!("/initialize?site={}", site.id);
    let parked = thread::spawn(move || support::http(&control, "GET", &path));
    wait_for_file(&site);
    backend.daemon().signal(Signal::KILL);
    backend.daemon().child.wait().unwrap();
    parked.join().unwrap();
    fs::write(&gate, "go").unwrap();
    backend
        .emperor
        .as_mut()
        .unwrap()
        .wait_for(&["is ready to accept"]);
    backend.start_daemon();
    assert_eq!(site.request("/", b"").unwrap().status, 200);
}

#[test]
fn when_the_emperor_is_killed_everything_wakes_again_with_the_next() {
    let mut backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    let idle = backend.add_site("bert", None, None);
    assert_eq!((site.serve("/").status, idle.serve("/").status), (200, 200));
    backend.emperor.as_mut().unwrap().signal(Signal::KILL);
    for _ in 0..2 {
        backend.daemon().wait_for(&["asleep"]);
    }
    assert_eq!(backend.vassal_files(), 0);
    assert!(!site.socket.exists() && !idle.socket.exists());
    // A visitor who comes before the next Emperor does waits for it.
    let early = {
        let site = site.clone();
        thread::spawn(move || site.serve("/").status)
    };
    backend.daemon().wait_for(&["starting"]);
    backend.start_emperor();
    assert_eq!(early.join().unwrap(), 200);
    assert_eq!(
        (idle.status().as_str(), idle.serve("/").status),
        ("asleep", 200)
    );
}

#[test]
fn without_an_emperor_a_start_fails_and_says_so() {
    let mut backend = Backend::prepare();
    backend.start_daemon();
    let site = backend.add_site("anna", None, None);
    let answer = site.initialize();
    assert_eq!(
        (answer.status, answer.header("X-Paas-Reason")),
        (503, Some("no-emperor"))
    );
    assert_eq!(backend.vassal_files(), 0);
}

#[test]
fn a_full_queue_is_overload_and_a_lost_name_is_repaired() {
    let backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    let gate = gate(&site);
    assert_eq!(site.serve("/").status, 200);
    let mut streams: Vec<_> = (0..2).map(|_| waiting(&site, "/wait")).collect();
    wait_for_file(&site);
    // A connect would wait for room instead of being refused, so the queue is filled exactly.
    streams.extend((0..1025 - 1).map(|_| site.connect().unwrap()));
    let answer = (0..8).find_map(|_| {
        let answer = site.initialize();
        if answer.status == 204 {
            streams.push(site.connect().unwrap());
            return None;
        }
        Some(answer)
    });
    let answer = answer.expect("a full queue was not seen");
    assert_eq!(
        (answer.status, answer.header("X-Paas-Reason")),
        (503, Some("overloaded"))
    );
    assert!(answer.header("Retry-After").is_some());
    drop(streams);
    fs::write(&gate, "go").unwrap();

    fs::remove_file(&site.socket).unwrap();
    assert_eq!(
        site.serve("/").status,
        200,
        "the name was removed by somebody"
    );
    fs::remove_file(&site.socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&site.socket).unwrap());
    assert_eq!(
        site.serve("/").status,
        200,
        "somebody else's name lay in its place"
    );
}

#[test]
fn a_site_switched_off_stops_and_says_so() {
    let mut backend = Backend::start();
    let site = backend.add_site("anna", None, None);
    assert_eq!(site.serve("/").status, 200);
    let off = control::model::Site {
        enabled: false,
        ..site.row.clone()
    };
    backend.set_site(&off);
    backend.daemon().wait_for(&["stopped", "disabled"]);
    assert!(!site.socket.exists() && backend.vassal_files() == 0);
    let answer = site.initialize();
    assert_eq!(
        (answer.status, answer.header("X-Paas-Reason")),
        (503, Some("disabled"))
    );
    backend.set_site(&site.row);
    assert_eq!(site.serve("/").status, 200);
}

#[test]
fn unknown_sites_and_second_daemons_are_refused() {
    let backend = Backend::start();
    let control = backend.settings.paths().control_socket();
    assert_eq!(
        support::http(&control, "GET", "/initialize?site=999")
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        support::http(&control, "GET", "/initialize?site=0")
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        support::http(&control, "GET", "/initialize?site=x")
            .unwrap()
            .status,
        400
    );
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_paasctl"))
        .arg("--root")
        .arg(backend.root.path())
        .arg("serve")
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("a daemon already runs"));
}

fn waiting(site: &TestSite, path: &str) -> std::os::unix::net::UnixStream {
    let mut stream = site.connect().unwrap();
    send(&mut stream, path, b"").unwrap();
    stream
}

/// Waits until the application has written the file by which it tells that it has come to the gate.
fn wait_for_file(site: &TestSite) {
    let path = site.directory.join("arrived");
    let deadline = Instant::now() + support::DEADLINE;
    while !path.exists() {
        assert!(
            Instant::now() < deadline,
            "the application never came to the gate"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
