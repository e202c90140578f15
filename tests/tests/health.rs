//! A balancer's daemon probes the backends, whether there are requests or not: who cannot serve is left out, and only he.

use std::fs;

use paas_tests::apps::Recorder;
use paas_tests::platform::Options;
use paas_tests::{Platform, Response, Root, process, wait};
use rustix::process::Signal;

/// Two backends, which must serve what is on their `storage`, and a balancer that is quick to notice.
fn start<'r>(root: &'r Root, probe: &str) -> Platform<'r> {
    for backend in ["b1", "b2"] {
        fs::create_dir_all(root.join(format!("p/{backend}/storage"))).expect("made");
    }
    Platform::with(
        root,
        Options {
            backends: 2,
            balancer: format!(
                "eject = {{ return = \"1s\" }}\nprobe = {{ interval = \"100ms\", timeout = \"3s\", {probe} }}\n"
            ),
            backend: "health = { storage = [\"storage\"] }\n".to_owned(),
            ..Options::default()
        },
    )
}

fn wait_for_opinion(platform: &Platform<'_>, backend: &str, serves: bool) -> serde_json::Value {
    let what = format!("probes to say that {backend} serves: {serves}");
    wait::until(&what, || {
        platform
            .probed(backend)
            .filter(|said| said["serves"] == serves)
    })
}

/// Who answered.
fn backend_of(answer: &Response) -> String {
    let body = answer.expect(200);
    let told: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    told["PAAS_BACKEND"].as_str().expect("a name").to_owned()
}

/// A site that says which backend it runs on, and is at home on `b1`.
fn teller(platform: &Platform<'_>, root: &Root, code: &str) -> String {
    (0..64)
        .map(|number| format!("teller{number}.test"))
        .find(|domain| {
            let site = Recorder::new(root, domain);
            root.write(format!("sites/{domain}/app.py"), code);
            platform.add_site(
                domain,
                site.directory(),
                &["--entry", "app:application", "--no-check"],
            );
            platform.home(domain) == "b1"
        })
        .expect("about half of all names are at home there")
}

const TELLER: &str = r#"
import json
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"PAAS_BACKEND": environ["PAAS_BACKEND"]}).encode()]
"#;

#[test]
fn storage_that_is_gone_takes_a_backend_out_and_storage_that_is_back_brings_it_back() {
    let root = Root::new();
    let platform = start(&root, "failures = 2");
    let site = teller(&platform, &root, TELLER);
    for backend in ["b1", "b2"] {
        let said = wait_for_opinion(&platform, backend, true);
        let report = &said["report"]["report"];
        assert_eq!(report["emperor"], true, "{said}");
        for number in [
            "/memory/available",
            "/memory/total",
            "/disk/free",
            "/disk/total",
        ] {
            assert!(
                report
                    .pointer(number)
                    .is_some_and(|value| value.as_u64() > Some(0)),
                "{said}"
            );
        }
    }
    assert_eq!(backend_of(&platform.get(&site, "/")), "b1");
    wait::until_true("b1 to report the site", || {
        let said = platform.probed("b1").expect("it is known");
        said["report"]["report"]["awake"] == 1
    });

    let (storage, away) = (root.join("p/b1/storage"), root.join("p/b1/away"));
    fs::rename(&storage, &away).expect("moved");
    let said = wait_for_opinion(&platform, "b1", false);
    assert_eq!(said["report"]["reason"], "storage", "{said}");
    assert!(said["why"].as_str().expect("words").contains("storage"));
    // The site is awake there, and yet no request is sent.
    for _ in 0..20 {
        assert_eq!(backend_of(&platform.get(&site, "/")), "b2");
    }
    fs::rename(&away, &storage).expect("moved");
    let _ = wait_for_opinion(&platform, "b1", true);
    wait::until_true("the site to be at home again", || {
        backend_of(&platform.get(&site, "/")) == "b1"
    });
    // What changes is logged, and nothing else, though it was probed some dozens of times.
    let log = root.join("p/balancer/var/log/paas/paasctl.log");
    let log = fs::read_to_string(log).expect("it logs");
    let of_b1 = log.lines().filter(|line| line.contains("backend=b1"));
    let lines = |what: &str| of_b1.clone().filter(|line| line.contains(what)).count();
    assert_eq!(lines("fails its probes and gets no requests"), 1, "{log}");
    assert_eq!(lines("answers its probes"), 2, "{log}");
    platform.assert_healthy();
}

#[test]
fn a_dead_daemon_takes_no_backend_out() {
    let root = Root::new();
    let platform = start(&root, "failures = 2");
    let site = teller(&platform, &root, TELLER);
    let _ = wait_for_opinion(&platform, "b1", true);
    assert_eq!(backend_of(&platform.get(&site, "/")), "b1");
    let gap = platform.without_daemon(1);
    let said = wait::until("b1 to say that its daemon is silent", || {
        platform
            .probed("b1")
            .filter(|said| said["report"]["daemon"] == "silent")
    });
    assert_eq!(
        (&said["serves"], &said["why"]),
        (&true.into(), &().into()),
        "{said}"
    );
    for _ in 0..20 {
        assert_eq!(
            backend_of(&platform.get(&site, "/")),
            "b1",
            "what is awake is served"
        );
    }
    gap.end();
    wait::until_true("it to be alive again", || {
        platform
            .probed("b1")
            .is_some_and(|said| said["report"]["daemon"] == "alive")
    });
    platform.assert_healthy();
}

#[test]
fn a_frozen_nginx_is_noticed_without_a_request_and_so_is_that_it_goes_on() {
    let root = Root::new();
    let platform = start(&root, "failures = 2");
    let site = teller(&platform, &root, TELLER);
    let _ = wait_for_opinion(&platform, "b1", true);
    assert_eq!(backend_of(&platform.get(&site, "/")), "b1");
    let master = platform.nginx("b1").pid;
    let all: Vec<u32> = platform
        .family(master)
        .into_iter()
        .map(|seen| seen.pid)
        .collect();
    for pid in &all {
        process::send(*pid, Signal::STOP);
    }
    let said = wait_for_opinion(&platform, "b1", false);
    assert!(
        said["why"].as_str().expect("words").contains("no answer"),
        "{said}"
    );
    assert_eq!(
        backend_of(&platform.get(&site, "/")),
        "b2",
        "nobody finds out by waiting"
    );
    for pid in &all {
        process::send(*pid, Signal::CONT);
    }
    let _ = wait_for_opinion(&platform, "b1", true);
    wait::until_true("the site to be at home again", || {
        backend_of(&platform.get(&site, "/")) == "b1"
    });
}

#[test]
fn a_canary_finds_a_backend_that_answers_and_cannot_run_sites() {
    const CANARY: &str = r#"
import os
def application(environ, start_response):
    ill = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes", environ["PAAS_BACKEND"])
    start_response("500 Ill" if os.path.exists(ill) else "200 OK", [("Content-Length", "1")])
    return [b"x"]
"#;
    let root = Root::new();
    let probe =
        "canary = \"http://canary.test/\", canary_interval = \"100ms\", canary_timeout = \"60s\"";
    let platform = start(&root, probe);
    let canary = Recorder::new(&root, "canary.test");
    root.write("sites/canary.test/app.py", CANARY);
    platform.add_site(
        "canary.test",
        canary.directory(),
        &["--entry", "app:application", "--no-check"],
    );
    let site = teller(&platform, &root, TELLER);
    for backend in [1, 2] {
        let _ = wait_for_opinion(&platform, &format!("b{backend}"), true);
        wait::until_true("it to run on both", || platform.awake(backend) > 0);
    }
    canary.set("b1");
    let said = wait_for_opinion(&platform, "b1", false);
    assert!(
        said["why"]
            .as_str()
            .expect("words")
            .contains("canary.test: it answered 500"),
        "{said}"
    );
    assert_eq!(said["report"]["serves"], true, "it does not know itself");
    assert_eq!(backend_of(&platform.get(&site, "/")), "b2");
    canary.unset("b1");
    let _ = wait_for_opinion(&platform, "b1", true);
    platform.assert_healthy();
}
