//! New code without a gap: `reload-site` under load, and what happens when the new code is no good.

use std::thread;

use paas_tests::load::{Load, Versioned};
use paas_tests::{Platform, Request, Root, wait};
use rustix::process::Signal;

const UNTIL_GO: &str =
    "while not os.path.exists(os.path.join(os.path.dirname(RAN), '..', 'go')): time.sleep(0.01)";

/// The processes of a site's superseded generations end.
fn wait_for_one_generation(platform: &Platform<'_>, name: &str) {
    wait::until_true("the old generation's end", || {
        platform.vassals(name).len() == 1
    });
}

#[track_caller]
fn assert_refused(platform: &Platform<'_>, shown: &[&str]) {
    let outcome = platform.paasctl().run(&["reload-site", "a.test"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for expected in shown.iter().chain(&["what ran before goes on"]) {
        assert!(outcome.out.contains(expected), "{expected}: {outcome:?}");
    }
}

#[test]
fn many_reloads_under_load_lose_nothing_and_run_nothing_twice() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "0");
    assert_eq!(site.version(&platform), "0");
    let load = Load::start(platform.port(), "a.test", 4);
    for version in 1..=20 {
        load.more(50);
        site.write(&version.to_string(), "");
        let said = platform.paasctl().ok(&["reload-site", "a.test"]);
        assert!(said.contains("runs the new code"), "{said}");
        assert_eq!(site.version(&platform), version.to_string());
    }
    load.more(50);
    let count = load.end(&site);
    eprintln!("{count} requests through 20 reloads");
    wait_for_one_generation(&platform, "a.test");
    platform.assert_healthy();
}

#[test]
fn the_path_of_the_probe_is_a_setting_of_the_site() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "1");
    assert_eq!(site.version(&platform), "1");
    let probe = ["set-site", "a.test", "--probe", "/health?deep=1"];
    platform.paasctl().ok(&probe);
    // Its front page works, and what shows whether it works does not.
    let sick = "def application(e, s):\n\
        \x20   sick = e['PATH_INFO'] == '/health' and e['QUERY_STRING'] == 'deep=1'\n\
        \x20   s('500 Sick' if sick else '200 OK', [('X-Version', '2')])\n    return [b'']\n";
    root.write("sites/a.test/app.py", sick);
    assert_refused(&platform, &["probe-failed", "500 to GET /health?deep=1"]);
    assert_eq!(site.version(&platform), "1");
    let probe = ["set-site", "a.test", "--probe", "default"];
    platform.paasctl().ok(&probe);
    platform.paasctl().ok(&["reload-site", "a.test"]);
    assert_eq!(site.version(&platform), "2");
    let said = platform
        .paasctl()
        .refused(&["set-site", "a.test", "--probe", "/a b"]);
    assert!(said.contains("visible ASCII"), "{said}");
    platform.assert_healthy();
}

#[test]
fn a_request_that_takes_long_is_finished_by_the_code_it_began_with() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "old");
    assert_eq!(site.version(&platform), "old");
    let port = platform.port();
    let long = thread::spawn(move || Request::post("a.test", "/long?3", "x").send(port));
    wait::until_true("the long request", || site.ran().contains_key("POST/long"));
    site.write("new", "");
    platform.paasctl().ok(&["reload-site", "a.test"]);
    assert_eq!(site.version(&platform), "new", "others do not wait for it");
    assert_eq!(platform.vassals("a.test").len(), 2, "it still runs");
    let answer = long.join().expect("an answer");
    assert_eq!(
        (answer.status, answer.header("x-version")),
        (200, Some("old"))
    );
    wait_for_one_generation(&platform, "a.test");
    platform.assert_healthy();
}

#[test]
fn broken_new_code_leaves_the_old_serving_and_the_command_shows_the_traceback() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "good");
    assert_eq!(site.version(&platform), "good");
    let load = Load::start(platform.port(), "a.test", 4);
    for (more, reason, shown) in [
        (
            "import nothing_of_that_name",
            "import-failed",
            "No module named 'nothing_of_that_name'",
        ),
        ("def (:", "syntax-error", "SyntaxError"),
        ("os._exit(3)", "ended-itself", "exit 3"),
        (
            "RAN = time.broken_in_every_request",
            "import-failed",
            "broken_in_every_request",
        ),
    ] {
        site.write("bad", more);
        load.more(20);
        assert_refused(&platform, &[reason, shown]);
        assert_eq!(site.version(&platform), "good");
    }
    // It imports, and fails in every request.
    let broken =
        "def application(environ, start_response):\n    raise RuntimeError('broken request')\n";
    root.write("sites/a.test/app.py", broken);
    assert_refused(&platform, &["probe-failed", "broken request"]);
    assert_eq!(site.version(&platform), "good");
    load.more(20);
    let _ = load.end(&site);
    wait_for_one_generation(&platform, "a.test");
    site.write("better", "");
    platform.paasctl().ok(&["reload-site", "a.test"]);
    assert_eq!(site.version(&platform), "better");
    platform.assert_healthy();
}

#[test]
fn slow_new_code_is_waited_for_while_the_old_serves() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "old");
    assert_eq!(site.version(&platform), "old");
    let load = Load::start(platform.port(), "a.test", 4);
    let go = root.join("sites/a.test/go");
    site.write("slow", UNTIL_GO);
    let paasctl = platform.paasctl();
    thread::scope(|scope| {
        let reload = scope.spawn(|| paasctl.ok(&["reload-site", "a.test"]));
        wait::until_true("the second generation", || {
            platform.vassals("a.test").len() == 2
        });
        load.more(100);
        assert_eq!(site.version(&platform), "old");
        std::fs::write(&go, "").expect("ours");
        reload.join().expect("it reloads");
    });
    assert_eq!(site.version(&platform), "slow");
    load.more(20);
    let _ = load.end(&site);
    platform.assert_healthy();
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_reload_leaves_one_good_generation() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "old");
    assert_eq!(site.version(&platform), "old");
    let load = Load::start(platform.port(), "a.test", 4);
    let go = root.join("sites/a.test/go");
    site.write(
        "new",
        &format!("open(RAN + '.loading', 'w').close()\n{UNTIL_GO}"),
    );
    platform
        .paasctl()
        .ok(&["reload-site", "a.test", "--no-wait"]);
    wait::until_true("the new code's import", || {
        root.join("sites/a.test/notes/ran.loading").exists()
    });
    platform.restart_daemon(1, Signal::KILL);
    wait_for_one_generation(&platform, "a.test");
    assert_eq!(
        site.version(&platform),
        "old",
        "the new one has proved nothing"
    );
    load.more(20);
    std::fs::write(&go, "").expect("ours");
    platform.paasctl().ok(&["reload-site", "a.test"]);
    assert_eq!(site.version(&platform), "new");
    load.more(20);
    let _ = load.end(&site);
    wait_for_one_generation(&platform, "a.test");
    platform.assert_healthy();
}

#[test]
fn orders_say_what_came_of_them() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Versioned::add(&platform, &root, "a.test", "1");
    let paasctl = platform.paasctl();
    let outcome = |order: &str| {
        let text = paasctl.ok(&[order, "a.test", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        answer["backends"][0]["outcome"].as_str().map(str::to_owned)
    };
    let is = |word: &str| Some(word.to_owned());
    assert_eq!(
        outcome("reload-site"),
        is("asleep"),
        "a sleeping site is not woken"
    );
    assert_eq!(outcome("stop-site"), is("asleep"));
    assert_eq!(outcome("start-site"), is("running"));
    assert_eq!(outcome("start-site"), is("running"));
    assert_eq!(platform.vassals("a.test").len(), 1);
    assert_eq!(outcome("stop-site"), is("asleep"));
    assert!(platform.vassals("a.test").is_empty());
    assert_eq!(site.version(&platform), "1", "a stopped site wakes");
    let noted = paasctl.run(&["set-site", "a.test", "--idle", "5m"]);
    assert!(noted.err.contains("reload-site a.test"), "{noted:?}");

    paasctl.ok(&["disable-site", "a.test"]);
    assert!(
        platform.vassals("a.test").is_empty(),
        "it is down when the command returns"
    );
    let answer = platform.get("a.test", "/");
    assert!(answer.expect(503).contains("maintenance"), "{answer:?}");
    assert_eq!(answer.header("x-paas-reason"), Some("disabled"));
    assert!(
        paasctl
            .refused(&["start-site", "a.test"])
            .contains("enable-site")
    );
    paasctl.ok(&["enable-site", "a.test"]);
    assert_eq!(site.version(&platform), "1");
    assert_eq!(paasctl.run(&["start-site", "none.test"]).code, Some(1));
    assert_eq!(paasctl.run(&["start-site"]).code, Some(2));
    platform.assert_healthy();
}
