//! The daemon is restarted while sites run: they go on, and nothing of theirs is lost.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use paas_tests::load::{Load, Versioned};
use paas_tests::process::{self, Process, Seen};
use paas_tests::{Platform, Request, Response, Root, build, wait};
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
fn the_first_visitors_of_sleeping_sites_wait_for_the_next_daemon() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let names: Vec<_> = (0..4).map(|number| format!("s{number}.test")).collect();
    let sites: Vec<_> = names.iter().map(|name| platform.recorder(name)).collect();
    let port = platform.port();
    let between = platform.between_daemons(1);
    let visitors: Vec<_> = names
        .iter()
        .flat_map(|name| {
            [
                Request::get(name, "/get"),
                Request::post(name, "/post", "body"),
            ]
        })
        .map(|request| thread::spawn(move || request.send(port)))
        .collect();
    wait::until_true("eight questions", || between.questions() >= visitors.len());
    between.end();
    for visitor in visitors {
        let answer = visitor.join().expect("an answer");
        let _ = answer.expect(200);
    }
    for site in sites {
        let ran = (site.ran("GET", "/get"), site.ran("POST", "/post"));
        assert_eq!((ran, site.starts()), ((1, 1), 1));
    }
    platform.assert_healthy();
}

#[test]
fn parked_visitors_outlive_the_daemon_that_parked_them() {
    for signal in [Signal::TERM, Signal::KILL] {
        let root = Root::new();
        let platform = Platform::start(&root);
        let site = platform.recorder("a.test");
        site.close();
        let port = platform.port();
        let parked: Vec<_> = (0..10)
            .flat_map(|number| {
                let path = format!("/{number}");
                [
                    Request::get("a.test", &path),
                    Request::post("a.test", &path, "x"),
                ]
            })
            .map(|request| thread::spawn(move || request.send(port)))
            .collect();
        platform.wait_for_parked("a.test", parked.len());
        platform.restart_daemon(1, signal);
        // They ask the new one, which has taken the start over.
        platform.wait_for_parked("a.test", parked.len());
        site.open();
        for visitor in parked {
            let _ = visitor.join().expect("an answer").expect(200);
        }
        assert_eq!((site.starts(), site.requests().len()), (1, 20));
        platform.assert_healthy();
    }
}

#[test]
fn daemons_are_replaced_under_load_and_nothing_is_lost_or_started_again() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let busy = Versioned::add(&platform, &root, "busy.test", "1");
    assert_eq!(busy.version(&platform), "1");
    let names: Vec<_> = (0..6).map(|number| format!("s{number}.test")).collect();
    let sites: Vec<_> = names.iter().map(|name| platform.recorder(name)).collect();
    let vassals = platform.vassals("busy.test");
    let port = platform.port();
    let load = Load::start(port, "busy.test", 6);
    load.more(20);
    for (number, name) in names.iter().enumerate() {
        let visitors = [
            Request::get(name, "/get"),
            Request::post(name, "/post", "body"),
        ]
        .map(|request| thread::spawn(move || request.send(port)));
        let signal = [Signal::TERM, Signal::KILL][number % 2];
        platform.restart_daemon(1, signal);
        for visitor in visitors {
            let _ = visitor.join().expect("an answer").expect(200);
        }
        load.more(20);
    }
    let answered = load.end(&busy);
    assert!(answered >= 140, "{answered}");
    assert_eq!(platform.vassals("busy.test"), vassals, "no new generation");
    for site in sites {
        let ran = (site.ran("GET", "/get"), site.ran("POST", "/post"));
        assert_eq!(ran, (1, 1));
    }
    platform.assert_healthy();
}

#[test]
fn a_daemon_takes_the_socket_that_systemd_holds() {
    // As systemd does it: bound before, handed over as descriptor 3, named in the environment.
    const SYSTEMD: &str = "import os, socket, sys\n\
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
        s.set_inheritable(True) if s.fileno() == 3 else os.dup2(s.fileno(), 3)\n\
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
        os.execv(sys.argv[2], sys.argv[2:])";
    let root = Root::new();
    root.write("m/etc/paas/paas.toml", "roles = [\"balancer\"]\n");
    let socket = root.join("m/run/paas/control.sock");
    std::fs::create_dir_all(socket.parent().expect("a directory")).expect("ours");
    let start = || {
        let mut command = Command::new("python3");
        command.args(["-c", SYSTEMD]).arg(&socket);
        command.arg(build::program("paasctl")).arg("--root");
        command.arg(root.join("m")).arg("serve");
        Process::start(
            "paasctl serve",
            &mut command,
            &root.join("log"),
            Signal::TERM,
        )
    };
    let mut daemon = start();
    let answer = wait::until("an answer", || {
        let mut stream = UnixStream::connect(&socket).ok()?;
        let question = Request::get("paas", "/status").to_bytes();
        stream.write_all(&question).ok()?;
        Response::read(&mut BufReader::new(stream), false).ok()
    });
    let _ = answer.expect(200);
    assert!(
        daemon.output().contains("handed over"),
        "{}",
        daemon.output()
    );
    daemon.stop();
    assert!(socket.exists(), "it is systemd's");
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
