//! `paas_health`, by which a backend's nginx tells how its machine is, and `paas_monitor`, through which the workers of a balancer
//! hear what probes say of backends.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use activity::backends::{Board, Verdict};
use paas_tests::stub::Answer;
use paas_tests::tabled::{Lines, SITES};
use paas_tests::{Nginx, Request, Response, Root, Tabled, process, wait};
use rustix::process::Signal;

/// A balancer whose workers hear what is said on the board.
struct Heard {
    tabled: Tabled,
    board: Board,
}

impl Heard {
    fn start(root: &Root, count: u16, main: &str, eject: &str) -> Heard {
        let directory = root.join("backends");
        let http = format!("{eject} paas_monitor {};", directory.display());
        let lines = Lines {
            main,
            http: &http,
            ..Lines::default()
        };
        Heard {
            tabled: Tabled::start_with(root, count, lines, |_, _| Answer::ok("x")),
            board: Board::new(&directory),
        }
    }

    fn say(&mut self, backend: usize, verdict: Verdict) {
        let id = self.tabled.records[backend].id.get();
        let heard = self.board.say(id.into(), verdict).expect("it is written");
        assert!(heard, "nginx has made the file");
    }

    /// As good as for ever.
    fn say_down(&mut self, backend: usize) {
        let until = activity::now() + 600_000;
        self.say(backend, Verdict::Down { until });
    }

    fn way(&self, site: usize) -> Vec<usize> {
        let answer = self.tabled.ask(site);
        assert_eq!(answer.status, 200);
        self.tabled.way(&answer)
    }

    fn all_at_home(&self) -> bool {
        (0..SITES).all(|site| self.way(site) == [self.tabled.home(site)])
    }
}

#[test]
fn a_backend_that_fails_its_probes_gets_no_request_and_comes_back_when_it_answers_them() {
    let root = Root::new();
    let mut heard = Heard::start(&root, 4, "worker_processes 2;", "paas_eject return=1s;");
    assert!(heard.all_at_home());
    let out = heard.tabled.home(0);
    heard.say_down(out);
    // Not even one, in neither worker: whoever is told need not find out.
    let mut pids = BTreeSet::new();
    for round in 0.. {
        for site in 0..SITES {
            let answer = heard.tabled.ask(site);
            let home = heard.tabled.home(site);
            let way = heard.tabled.way(&answer);
            assert!(!way.contains(&out), "site {site} went {way:?}");
            assert!(home == out || way == [home], "no other site moves");
            pids.insert(answer.header("X-Pid").expect("it says so").to_owned());
        }
        if pids.len() == 2 {
            break;
        }
        assert!(round < 100, "both workers answer");
    }
    wait::until_true("idle connections to it to be closed", || {
        let _ = heard.tabled.ask(1);
        heard.tabled.open(out) == 0
    });
    heard.say(out, Verdict::Up);
    wait::until_true("its sites to be at home again", || heard.all_at_home());
    let errors = heard.tabled.nginx.errors();
    let lines = |what: &str| errors.matches(what).count();
    assert_eq!(
        lines("fails its probes and gets no requests"),
        1,
        "{errors}"
    );
    assert_eq!(lines("answers its probes again"), 1, "{errors}");
    heard.tabled.nginx.assert_healthy();
}

#[test]
fn what_was_said_ends_by_itself() {
    let root = Root::new();
    let mut heard = Heard::start(&root, 3, "", "paas_eject return=100ms;");
    let out = heard.tabled.home(0);
    let until = activity::now() + 1_500;
    heard.say(out, Verdict::Down { until });
    let mut avoided = 0;
    wait::until_true("the verdict to end", || {
        let way = heard.way(0);
        avoided += usize::from(!way.contains(&out));
        assert!(way != [out] || activity::now() + 20 >= until, "too early");
        way == [out]
    });
    assert!(avoided > 0);
    // What is old when it is heard is no news.
    wait::until_true("its sites to be at home again", || heard.all_at_home());
    heard.say(out, Verdict::Down { until });
    assert!(heard.all_at_home());
    heard.tabled.nginx.assert_healthy();
}

#[test]
fn if_probes_say_that_more_than_half_are_down_they_are_not_believed() {
    let root = Root::new();
    let mut heard = Heard::start(&root, 4, "", "paas_eject return=1ms;");
    for backend in 0..3 {
        heard.say_down(backend);
    }
    assert!(
        heard.all_at_home(),
        "a prober that is itself cut off harms nobody"
    );
    heard.say(0, Verdict::Up);
    wait::until_true("those that are down to be left out", || {
        (0..SITES).all(|site| matches!(heard.way(site)[0], 0 | 3))
    });
    heard.tabled.nginx.assert_healthy();
}

#[test]
fn a_new_worker_and_a_reload_know_what_was_said() {
    let root = Root::new();
    let mut heard = Heard::start(&root, 3, "", "");
    let out = heard.tabled.home(0);
    heard.say_down(out);
    assert!(!heard.way(0).contains(&out));
    process::send(heard.tabled.nginx.workers()[0], Signal::KILL);
    wait::until_true("the next worker to serve", || {
        Request::get("site-0.test", "/")
            .try_send(heard.tabled.port)
            .is_ok()
    });
    assert!(!heard.way(0).contains(&out));
    heard.tabled.nginx.reload_as_is();
    assert!(!heard.way(0).contains(&out));
    // Whatever is written there, a worker lives.
    let file = fs::read_dir(root.join("backends")).expect("it is there");
    let file = file.flatten().next().expect("one file").path();
    let mut bytes = vec![0xa5; 300_000];
    bytes[..24].fill(0xff);
    let _ = fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
    let pid = heard.tabled.nginx.workers();
    for site in 0..SITES {
        let _ = Request::get(format!("site-{site}.test"), "/").send(heard.tabled.port);
    }
    assert_eq!(heard.tabled.nginx.workers(), pid, "nobody died of nonsense");
}

#[test]
fn who_ejects_nobody_does_not_heed_probes() {
    let root = Root::new();
    let mut heard = Heard::start(&root, 3, "", "paas_eject off;");
    for backend in 0..3 {
        heard.say_down(backend);
        assert!(heard.all_at_home());
    }
    heard.tabled.nginx.assert_healthy();
}

/// An nginx that tells how its machine is.
struct Told {
    nginx: Nginx,
    port: u16,
    file: PathBuf,
}

impl Told {
    fn start(root: &Root) -> Told {
        let (port, file) = (root.port(), root.join("beat"));
        let http = format!(
            "server {{ listen 127.0.0.1:{port}; location = /health {{ paas_health {} stale=10s; }} }}",
            file.display()
        );
        Told {
            nginx: Nginx::start(root, "backend", &http, port),
            port,
            file,
        }
    }

    fn ask(&self) -> Response {
        Request::get("paas.invalid", "/health").send(self.port)
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(&self.file, content).expect("written");
        fs::set_permissions(&self.file, fs::Permissions::from_mode(0o644)).expect("ours");
    }

    /// What it says, and by what status.
    fn says(&self) -> (u16, serde_json::Value) {
        let answer = self.ask();
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let text = String::from_utf8(answer.body.clone()).expect("text");
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (answer.status, json)
    }
}

#[test]
fn a_machine_says_what_its_daemon_last_wrote_and_not_for_ever() {
    let root = Root::new();
    let told = Told::start(&root);
    let (status, says) = told.says();
    assert_eq!(
        (status, &says["daemon"], &says["report"]),
        (200, &"unknown".into(), &().into())
    );

    told.write(format!("ok {}\n{{\"awake\": 3}}\n", activity::now()));
    let (status, says) = told.says();
    assert_eq!(
        (status, &says["serves"], &says["daemon"]),
        (200, &true.into(), &"alive".into())
    );
    assert_eq!(says["report"]["awake"], 3);

    told.write(format!("storage {}\n{{}}\n", activity::now()));
    let (status, says) = told.says();
    assert_eq!(
        (status, &says["serves"], &says["reason"]),
        (503, &false.into(), &"storage".into())
    );

    // A daemon that died while the storage was away does not keep the machine out.
    told.write(format!("storage {}\n{{}}\n", activity::now() - 11_000));
    let (status, says) = told.says();
    assert_eq!(
        (status, &says["serves"], &says["daemon"]),
        (200, &true.into(), &"silent".into())
    );
    assert!(says["age_ms"].as_u64().is_some_and(|age| age >= 11_000));

    for nonsense in [
        &b""[..],
        b"ok",
        b"ok 1",
        b"ok 1\n",
        b"ok 1\n[]",
        b"OK! 1\n{}",
        b"\" 1\n{}",
        b"ok x\n{}",
        b"\xff 1\n{}",
        &[b'x'; 100_000],
    ] {
        told.write(nonsense);
        let (status, says) = told.says();
        assert_eq!(
            (status, &says["daemon"]),
            (200, &"unknown".into()),
            "{nonsense:?}"
        );
    }
    told.nginx.assert_healthy();
}

#[test]
fn only_who_asks_is_told() {
    let root = Root::new();
    let told = Told::start(&root);
    assert_eq!(
        Request::post("a.test", "/health", "body")
            .send(told.port)
            .status,
        405
    );
    let head = Request::new("HEAD", "a.test", "/health").send(told.port);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(
        head.header("content-length")
            .is_some_and(|length| length != "0")
    );
    assert_eq!(told.ask().header("cache-control"), Some("no-store"));
    let with_body = Request::new("GET", "a.test", "/health").body(vec![b'x'; 100_000]);
    assert_eq!(with_body.send(told.port).status, 200);
    told.nginx.assert_healthy();
}
