//! Failure is explained: each cause through the real parts, and what `paasctl why` says of it, by the site and by the id that its
//! visitor was shown.

use paas_tests::platform::Options;
use paas_tests::{Platform, Request, Response, Root, wait};
use serde_json::Value;

const FINE: &str = "def application(e, s):\n    s('200 OK', [])\n    return [b'fine']\n";

/// A site that was good when it was added.
fn add(platform: &Platform<'_>, root: &Root, name: &str, more: &[&str]) {
    root.write(format!("sites/{name}/app.py"), FINE);
    let mut arguments = vec!["--entry", "app:application"];
    arguments.extend_from_slice(more);
    platform.add_site(name, &root.join(format!("sites/{name}")), &arguments);
}

/// What `why` says of a site or an id: on the backend that knows it.
#[track_caller]
fn why(platform: &Platform<'_>, what: &str) -> Value {
    let text = platform.paasctl().ok(&["why", what, "--json"]);
    let answer: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    answer["backends"][0]["failure"].clone()
}

fn id(answer: &Response) -> String {
    let id = answer.header("x-paas-id");
    id.unwrap_or_else(|| panic!("no id: {answer:?}")).to_owned()
}

/// The visitor's page names the reason; the site and the page's id lead to the same, with the log's end.
#[track_caller]
fn assert_explained(platform: &Platform<'_>, name: &str, reason: &str, in_log: &str) {
    let answer = platform.get(name, "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-paas-reason"), Some(reason), "{answer:?}");
    for what in [name, &id(&answer)] {
        let failure = why(platform, what);
        assert_eq!(failure["reason"], reason, "{what}: {failure:#}");
        assert!(
            failure["do"]
                .as_str()
                .is_some_and(|advice| !advice.is_empty())
        );
        assert!(
            failure.to_string().contains(in_log),
            "{in_log}: {failure:#}"
        );
    }
}

#[test]
fn each_cause_that_keeps_a_site_from_starting_is_named() {
    let root = Root::new();
    let platform = Platform::start(&root);
    for (name, source, reason, in_log) in [
        (
            "import.test",
            "import no_such_module_anywhere\n",
            "import-failed",
            "no_such_module_anywhere",
        ),
        (
            "syntax.test",
            "def application(:\n",
            "syntax-error",
            "SyntaxError",
        ),
        (
            "spelled.test",
            "spelled_differently = None\n",
            "no-callable",
            "",
        ),
        (
            "exit.test",
            "import os\nos._exit(3)\n",
            "ended-itself",
            "exit 3",
        ),
        (
            "signal.test",
            "import os\nos.kill(os.getpid(), 11)\n",
            "killed",
            "Segmentation Fault",
        ),
        (
            "memory.test",
            "raise MemoryError('all of it')\n",
            "out-of-memory",
            "MemoryError",
        ),
        (
            "threads.test",
            "raise RuntimeError(\"can't start new thread\")\n",
            "too-many-processes",
            "start new thread",
        ),
    ] {
        add(&platform, &root, name, &[]);
        root.write(format!("sites/{name}/app.py"), source);
        assert_explained(&platform, name, reason, in_log);
    }
    platform.assert_healthy();
}

#[test]
fn what_a_site_lacks_is_named() {
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&platform, &root, "gone.test", &[]);
    std::fs::remove_dir_all(root.join("sites/gone.test")).expect("ours");
    assert_explained(
        &platform,
        "gone.test",
        "no-directory",
        "No such file or directory",
    );

    add(&platform, &root, "venv.test", &[]);
    let nowhere = root.join("no-venv");
    let nowhere = nowhere.to_string_lossy();
    platform
        .paasctl()
        .ok(&["set-site", "venv.test", "--venv", &nowhere]);
    assert_explained(&platform, "venv.test", "no-virtualenv", "Python Home");
    platform.assert_healthy();
}

#[test]
fn storage_that_goes_away_is_named_and_serves_again_when_it_is_back() {
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&platform, &root, "a.test", &[]);
    assert_eq!(platform.get("a.test", "/").expect(200), "fine");
    let (here, away) = (root.join("sites/a.test"), root.join("sites/away"));
    std::fs::rename(&here, &away).expect("ours");
    // What is loaded goes on.
    assert_eq!(platform.get("a.test", "/").expect(200), "fine");
    platform.paasctl().ok(&["stop-site", "a.test"]);
    assert_explained(&platform, "a.test", "no-directory", "No such file");
    std::fs::rename(&away, &here).expect("ours");
    wait::until_true("the site on its storage", || {
        platform.get("a.test", "/").status == 200
    });
    platform.assert_healthy();
}

/// What the only site that does not sleep does.
fn state(platform: &Platform<'_>) -> String {
    let status = platform.daemon_status(1).unwrap_or_default();
    let state = status["sites"][0]["state"].as_str();
    state.unwrap_or_default().to_owned()
}

#[test]
fn a_site_that_crashes_again_and_again_is_named() {
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&platform, &root, "a.test", &[]);
    let source = "import os, time, uwsgi\n\
        def application(e, s):\n\
        \x20   if e['PATH_INFO'] == '/die':\n\
        \x20       print('the last words', flush=True)\n\
        \x20       os.kill(uwsgi.masterpid(), 9)\n\
        \x20       time.sleep(600)\n\
        \x20   s('200 OK', [])\n    return [b'fine']\n";
    root.write("sites/a.test/app.py", source);
    let mut crashes = Vec::new();
    wait::until_true("the end of its restarts", || {
        // A crash before it is known to serve is a start that failed.
        if platform.get("a.test", "/").status == 200 {
            wait::until_true("it to run", || state(&platform) == "running");
        }
        let answer = Request::post("a.test", "/die", "x").send(platform.port());
        crashes.push(answer.status);
        answer.status == 503
    });
    assert_eq!(crashes, [502, 502, 502, 502, 503]);
    assert_explained(&platform, "a.test", "crashing", "the last words");
    let failure = why(&platform, "a.test");
    assert_eq!(failure["exit"], "signal 9", "{failure:#}");
    // An order tries again at once.
    platform.paasctl().ok(&["start-site", "a.test"]);
    assert_eq!(platform.get("a.test", "/").expect(200), "fine");
    platform.assert_healthy();
}

#[test]
fn what_the_launcher_lacks_is_named() {
    if !rustix::process::geteuid().is_root() {
        // Without root there is no sandbox that could be missing.
        return;
    }
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            backend: "[backend]\n[sandbox]\nbwrap = \"/nowhere/bwrap\"\n".to_owned(),
            ..Options::default()
        },
    );
    root.write("sites/a.test/app.py", FINE);
    let more = ["--entry", "app:application", "--no-check"];
    platform.add_site("a.test", &root.join("sites/a.test"), &more);
    assert_explained(&platform, "a.test", "not-launched", "/nowhere/bwrap");
    platform.assert_healthy();
}

#[test]
fn a_start_that_takes_too_long_is_named() {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            backend: "[backend]\nstart_timeout = \"2s\"\n".to_owned(),
            ..Options::default()
        },
    );
    add(&platform, &root, "slow.test", &[]);
    let slow = "print('waiting for a database', flush=True)\nimport time\ntime.sleep(600)\n";
    root.write("sites/slow.test/app.py", slow);
    assert_explained(
        &platform,
        "slow.test",
        "start-timeout",
        "waiting for a database",
    );
    platform.assert_healthy();
}

#[test]
fn a_request_that_broke_off_is_told_from_a_start_and_its_cause_is_named() {
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&platform, &root, "a.test", &["--harakiri", "1s"]);
    let source = "import os, time\n\
        def application(e, s):\n\
        \x20   if e['PATH_INFO'] == '/crash': os.kill(os.getpid(), 11)\n\
        \x20   if e['PATH_INFO'] == '/slow': time.sleep(600)\n\
        \x20   s('200 OK', [])\n    return [b'fine']\n";
    root.write("sites/a.test/app.py", source);
    for (path, reason) in [("/crash", "request-crashed"), ("/slow", "harakiri")] {
        let answer = platform.get("a.test", path);
        assert_eq!(answer.status, 502, "{answer:?}");
        let id = id(&answer);
        // uWSGI writes of it when it has noticed.
        wait::until_true(reason, || why(&platform, &id)["reason"] == reason);
        assert_eq!(platform.get("a.test", "/").expect(200), "fine");
    }
    let text = platform.paasctl().ok(&["why", "a.test"]);
    for expected in ["harakiri", "IMPORT", "running"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(
        platform
            .paasctl()
            .refused(&["why", "1-1"])
            .contains("nothing is known")
    );
    platform.assert_healthy();
}

#[test]
fn a_start_shows_how_long_its_parts_took_and_a_restarted_daemon_remembers() {
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&platform, &root, "a.test", &[]);
    assert_eq!(platform.get("a.test", "/").expect(200), "fine");
    platform.restart_daemon(1, rustix::process::Signal::KILL);
    let text = platform.paasctl().ok(&["why", "a.test", "--json"]);
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    let start = &answer["backends"][0]["starts"][0];
    for phase in ["wait", "prepare", "launch", "spawn", "import", "accept"] {
        assert!(
            start["phases"][phase].as_f64().is_some(),
            "{phase}: {start:#}"
        );
    }
    assert_eq!(
        (&start["served"], &start["end"]),
        (&Value::Bool(true), &Value::Null)
    );
    assert_eq!(answer["backends"][0]["failure"], Value::Null);
    platform.assert_healthy();
}
