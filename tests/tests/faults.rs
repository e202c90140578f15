//! A panic in any callback of the module costs one request, or one reload: never a process of nginx's. Runs the build
//! of `scripts/build-module --faults`, whose callbacks panic when the file `faults` names them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use paas_tests::{Front, Request, Root, build, nginx, wait};
use rustix::process::Signal;

/// What an ordinary request to this path meets if the callback of this name panics in it.
const IN_REQUESTS: &[(&str, &str, &[u16])] = &[
    ("paas_table handler", "/table", &[500]),
    ("paas_role handler", "/table", &[500]),
    ("header filter", "/servers", &[500]),
    ("paas_hash peer.init", "/servers", &[500]),
    ("paas_hash peer.get", "/servers", &[500]),
    ("paas_hash process_header", "/servers", &[500]),
    // The second of two servers is not asked.
    ("paas_hash reinit_request", "/again", &[500]),
    // The answer is there already.
    ("paas_hash peer.free", "/servers", &[200]),
    ("paas_hash set_session", "/tls", &[500]),
    ("paas_hash save_session", "/tls", &[200]),
    ("paas_fallback handler", "/sleeping", &[500]),
    // Nobody notes the answer of the service.
    ("paas_fallback answer", "/sleeping", &[503]),
    // The service is waited for as long as its own location says.
    ("paas_fallback timeout", "/slow", &[503]),
    ("paas_health handler", "/health", &[500]),
    ("paas_status handler", "/status", &[500]),
    // A variable without a value.
    ("$paas_site", "/variables", &[200]),
    ("$paas_site_id", "/variables", &[200]),
    ("$paas_socket", "/variables", &[200]),
    ("$paas_backend", "/variables", &[200]),
    ("$paas_sent", "/variables", &[200]),
    ("$paas_idempotent", "/variables", &[200]),
    ("$paas_protocol", "/variables", &[200]),
    ("$paas_reason", "/variables", &[200]),
    ("$paas_id", "/variables", &[200]),
    // The request is over.
    ("cleanup", "/servers", &[200]),
];

/// Callbacks that run while a configuration is read.
const IN_CONFIGURATION: &[&str] = &[
    "create configuration",
    "merge configuration",
    "preconfiguration",
    "postconfiguration",
    "paas_table",
    "paas_activity",
    "paas_role",
    "paas_socket",
    "paas_hash",
    "paas_hash init",
    "paas_keepalive",
    "paas_eject",
    "paas_fallback",
    "paas_monitor",
    "paas_health",
    "paas_status",
];

/// Zones of shared memory can be made, but no directive makes one.
const UNUSED: &str = "shared memory";

fn start(root: &Root) -> Front {
    Front::start(root, &build::module_with_faults(), |command| command)
}

#[test]
fn a_panic_in_a_request_costs_that_request_alone() {
    let root = Root::new();
    let front = start(&root);
    assert_eq!(front.visit("/table"), 200);
    let (master, workers) = (front.nginx.master(), front.nginx.workers());
    for (callback, path, expected) in IN_REQUESTS {
        let without = front.visit(path);
        front.inject(callback);
        let met = front.visit(path);
        assert!(expected.contains(&met), "{callback} in {path}: {met}");
        wait::until_true(&format!("the panic of {callback} in the log"), || {
            front.panics(callback) > 0
        });
        front.inject("");
        assert_eq!(front.visit(path), without, "after {callback} in {path}");
    }
    assert_eq!(
        (master, workers),
        (front.nginx.master(), front.nginx.workers())
    );
    assert_no_signal(&front.nginx.errors());
}

#[test]
fn a_panic_while_a_configuration_is_read_refuses_it_and_nginx_goes_on() {
    let root = Root::new();
    let front = start(&root);
    assert_eq!(front.visit("/table"), 200);
    let (master, workers) = (front.nginx.master(), front.nginx.workers());
    for callback in IN_CONFIGURATION {
        front.inject(callback);
        let (status, words) = front.check();
        assert_eq!(
            status.code(),
            Some(1),
            "{callback}: nginx -t ended by {status}: {words}"
        );
        assert!(
            words.contains(&format!("panic in {callback} at")),
            "{callback}: {words}"
        );
        let before = front.panics(callback);
        front.nginx.signal(Signal::HUP);
        wait::until_true("the reload to be refused", || {
            front.panics(callback) > before
        });
        assert_eq!(
            front.visit("/table"),
            200,
            "the old configuration lives on after {callback}"
        );
    }
    front.inject("");
    assert_eq!(
        (master, workers),
        (front.nginx.master(), front.nginx.workers())
    );
    nginx::reload(master);
    assert_eq!(front.visit("/table"), 200);
    assert_no_signal(&front.nginx.errors());
}

#[test]
fn a_panic_in_a_worker_that_starts_does_not_keep_it_from_serving() {
    let root = Root::new();
    let front = start(&root);
    assert_eq!(front.visit("/table"), 200);
    front.inject("start of a worker");
    nginx::reload(front.nginx.master());
    wait::until_true("the panic in the log", || {
        front.panics("start of a worker") > 0
    });
    assert_eq!(front.visit("/table"), 200);
    assert_no_signal(&front.nginx.errors());
}

#[test]
fn a_worker_killed_in_any_callback_leaves_nothing_held() {
    let root = Root::new();
    let front = start(&root);
    let mut counters = activity::Reader::new(&front.activity);
    for (callback, path, _) in IN_REQUESTS {
        let without = front.visit(path);
        let worker = front.nginx.workers();
        front.inject(&format!("kill {callback}"));
        // The answer may be out by the time the callback is done.
        let _ = Request::get("a.test", path).try_send(front.port);
        wait::until_true(&format!("another worker after {callback}"), || {
            let now = front.nginx.workers();
            !now.is_empty() && now != worker
        });
        front.inject("");
        wait::until_true("an answer of the new worker", || {
            Request::get("a.test", path)
                .try_send(front.port)
                .is_ok_and(|answer| answer.status == without)
        });
        for (_, path, _) in IN_REQUESTS.iter().filter(|(_, path, _)| *path != "/slow") {
            let status = front.visit(path);
            assert!(
                ![502, 503, 504].contains(&status),
                "{path} after {callback}: {status}"
            );
        }
        wait::until_true(
            &format!("no request to be counted after {callback}"),
            || {
                let snapshot = counters.look().expect("the counters are there");
                snapshot.is_complete() && snapshot.of(1).in_flight == 0
            },
        );
    }
    nginx::reload(front.nginx.master());
    assert_eq!(front.visit("/table"), 200);
}

#[track_caller]
fn assert_no_signal(errors: &str) {
    let bad: Vec<&str> = errors
        .lines()
        .filter(|line| line.contains("exited on signal") || line.contains("[alert]"))
        .collect();
    assert!(bad.is_empty(), "the error log has:\n{}", bad.join("\n"));
}

/// The names that the sources give to guarded callbacks.
fn callbacks(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory)
        .expect("the module's sources are here")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            callbacks(&path, found);
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source file is text");
        let named = |start: &str, end: &str, prefix: &str| -> Vec<String> {
            let parts = source.split(start).skip(1);
            parts
                .filter_map(|part| Some(format!("{prefix}{}", part.split_once(end)?.0)))
                .collect()
        };
        found.extend(named("::Configuration(\"", "\"", ""));
        found.extend(named("::Request(\"", "\"", ""));
        found.extend(named("const NAME: &'static str = \"", "\"", ""));
        let prefix = if path.ends_with("variables.rs") {
            "$"
        } else {
            ""
        };
        found.extend(named("const NAME: &'static CStr = c\"", "\"", prefix));
        for (entry, name) in [
            ("guard!(Entry::Cleanup", "cleanup"),
            ("guard!(Entry::Process", "start of a worker"),
        ] {
            if source.contains(entry) {
                found.insert(name.to_owned());
            }
        }
    }
}

#[test]
fn every_callback_of_the_module_is_among_those_that_panic_here() {
    let mut there = BTreeSet::new();
    callbacks(&build::workspace().join("ngx-module/src"), &mut there);
    let rest = ["start of a worker", UNUSED];
    let requests = IN_REQUESTS.iter().map(|(callback, _, _)| *callback);
    let here: BTreeSet<String> = requests
        .chain(IN_CONFIGURATION.iter().copied())
        .chain(rest)
        .map(str::to_owned)
        .collect();
    assert_eq!(
        there, here,
        "a callback without a fault, or a fault without a callback"
    );
}
