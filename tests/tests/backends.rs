//! What an operator sees and does about backends, through the whole platform: `list-backends`, `plan-backend`, pins, deadlines, and
//! what `route --explain` says of health. All of it is in force without a reload.

use std::collections::BTreeMap;
use std::fs;

use paas_tests::platform::Options;
use paas_tests::process::master;
use paas_tests::{Platform, Root, wait};
use serde_json::Value;

fn start(root: &Root) -> Platform<'_> {
    for backend in ["b1", "b2"] {
        fs::create_dir_all(root.join(format!("p/{backend}/storage"))).expect("made");
    }
    Platform::with(
        root,
        Options {
            backends: 2,
            balancer:
                "eject = { return = \"1s\" }\nprobe = { interval = \"100ms\", timeout = \"5s\" }\n"
                    .to_owned(),
            backend: "health = { storage = [\"storage\"] }\n".to_owned(),
            ..Options::default()
        },
    )
}

fn json(platform: &Platform<'_>, arguments: &[&str]) -> Value {
    let text = platform.paasctl().ok(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn listed(platform: &Platform<'_>, backend: &str) -> Value {
    let all = json(platform, &["list-backends", "--json"]);
    let found = all
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["name"] == backend);
    found.cloned().expect("it is listed")
}

#[test]
fn the_listing_shows_what_a_balancer_knows_and_the_route_why_it_goes_elsewhere() {
    let root = Root::new();
    let platform = start(&root);
    let (domain, site) = platform.recorder_at("b1", "site", &[]);
    let _ = platform.get(&domain, "/").expect(200);
    let row = wait::until("b1 to report its site", || {
        Some(listed(&platform, "b1")).filter(|row| row["awake"] == 1)
    });
    assert_eq!(
        (&row["health"], &row["in_flight"]),
        (&"in-service".into(), &0.into()),
        "{row}"
    );
    assert_eq!(
        (&row["requests"], &row["failures"]),
        (&1.into(), &0.into()),
        "{row}"
    );
    assert_eq!(row["last_failure_ms_ago"], Value::Null);
    let number = |name: &str| {
        row[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {row}"))
    };
    assert!(number("memory_available") > 0 && number("memory_total") > number("memory_available"));
    let share = |name: &str| {
        listed(&platform, name)["sites_percent"]
            .as_f64()
            .expect("a number")
    };
    assert!((share("b1") + share("b2") - 100.0).abs() < 0.2 && share("b1") > 0.0);

    // A request in flight is seen while it is.
    let port = platform.port();
    let slow = {
        let domain = domain.clone();
        std::thread::spawn(move || paas_tests::Request::get(&domain, "/hold").send(port).status)
    };
    wait::until_true("a request in flight", || {
        listed(&platform, "b1")["in_flight"] == 1
    });
    site.set("go");
    assert_eq!(slow.join().expect("no panic"), 200);
    assert_eq!(listed(&platform, "b1")["in_flight"], 0);

    fs::rename(root.join("p/b1/storage"), root.join("p/b1/away")).expect("moved");
    let row = wait::until("b1 to be down", || {
        Some(listed(&platform, "b1")).filter(|row| row["health"] == "down")
    });
    assert_eq!(row["why"], "it says: storage", "{row}");
    let route = json(&platform, &["route", &domain, "--explain", "--json"]);
    let candidates = route["candidates"].as_array().expect("a list");
    assert_eq!(
        (&candidates[0]["backend"], &candidates[0]["now"]),
        (&"b1".into(), &false.into())
    );
    assert_eq!(
        candidates[0]["health_why"],
        "fails its probes: it says: storage"
    );
    assert_eq!(
        (&candidates[1]["backend"], &candidates[1]["now"]),
        (&"b2".into(), &true.into())
    );
    let words = platform.paasctl().ok(&["route", &domain, "--explain"]);
    assert!(words.contains("requests go to b2 now"), "{words}");
    let words = platform.paasctl().ok(&["list-backends"]);
    assert!(words.contains("\nb1: it says: storage\n"), "{words}");
    let before = site.starts();
    let _ = platform.get(&domain, "/").expect(200);
    assert_eq!(site.starts(), before + 1, "it has started on the other one");
    platform.assert_healthy();
}

#[test]
fn a_pin_holds_at_once_and_until_it_is_taken_away() {
    let root = Root::new();
    let platform = start(&root);
    let (domain, _site) = platform.recorder_at("b1", "site", &[]);
    let at_home = master(&platform.get(&domain, "/"));
    platform.paasctl().ok(&["pin-site", &domain, "b2"]);
    let pinned = master(&platform.get(&domain, "/"));
    assert_ne!(pinned, at_home);
    assert_eq!(platform.home(&domain), "b2");
    let words = platform.paasctl().ok(&["route", &domain, "--explain"]);
    assert!(words.contains("the site is pinned to it"), "{words}");
    platform.paasctl().ok(&["unpin-site", &domain]);
    assert_eq!(
        master(&platform.get(&domain, "/")),
        at_home,
        "it was awake there all the time"
    );
    platform.assert_healthy();
}

#[test]
fn at_its_deadline_a_draining_backend_is_empty_and_its_sites_are_elsewhere() {
    let root = Root::new();
    let platform = start(&root);
    let (domain, site) = platform.recorder_at("b1", "site", &["--idle", "never"]);
    let first = master(&platform.get(&domain, "/"));
    platform.paasctl().ok(&["drain-backend", "b1"]);
    assert_eq!(
        master(&platform.get(&domain, "/")),
        first,
        "without a deadline it stays"
    );
    let words = platform
        .paasctl()
        .ok(&["drain-backend", "b1", "--deadline", "3s"]);
    assert!(
        words.contains("what is awake in 3s is put to sleep"),
        "{words}"
    );
    let left = listed(&platform, "b1")["deadline_ms"]
        .as_u64()
        .expect("a number");
    assert!(left <= 3_000, "{left}");
    wait::until_true("b1 to be empty", || platform.awake(1) == 0);
    let second = master(&platform.get(&domain, "/"));
    assert_ne!(first, second);
    assert_eq!(
        (site.starts(), platform.awake(1), platform.awake(2)),
        (2, 0, 1)
    );

    // What is in service again has no deadline; what was, is over.
    platform.paasctl().ok(&["enable-backend", "b1"]);
    assert_eq!(listed(&platform, "b1")["deadline_ms"], Value::Null);
    wait::until_true("the site to be at home again", || {
        let _ = platform.get(&domain, "/").expect(200);
        platform.awake(1) == 1
    });
    platform.assert_healthy();
}

#[test]
fn a_plan_names_the_very_sites_that_move_and_changes_nothing() {
    let root = Root::new();
    let platform = start(&root);
    let domains: Vec<String> = (0..30).map(|number| format!("s{number}.test")).collect();
    let _sites: Vec<_> = domains
        .iter()
        .map(|domain| platform.recorder(domain))
        .collect();
    let homes = |platform: &Platform<'_>| -> BTreeMap<String, String> {
        let home = |domain: &String| (domain.clone(), platform.home(domain));
        domains.iter().map(home).collect()
    };
    let before = homes(&platform);
    let _ = platform.get(&domains[0], "/").expect(200);
    wait::until_true("the site to be reported", || {
        ["b1", "b2"]
            .iter()
            .any(|name| listed(&platform, name)["awake"] == 1)
    });
    let plan = json(
        &platform,
        &["plan-backend", "remove", "b1", "--sites", "--json"],
    );
    assert_eq!(homes(&platform), before, "nothing has changed");
    let moves: BTreeMap<&str, (&Value, &Value)> = plan["moves"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            (
                one["site"].as_str().expect("a name"),
                (&one["from"], &one["to"]),
            )
        })
        .collect();
    let of_b1 = before.iter().filter(|(_, home)| *home == "b1").count();
    assert_eq!(
        (plan["moved"].as_u64(), moves.len()),
        (Some(of_b1 as u64), of_b1)
    );
    let row = |plan: &Value, name: &str| {
        let mut rows = plan["backends"].as_array().expect("a list").iter();
        rows.find(|one| one["backend"] == name)
            .cloned()
            .expect("a row")
    };
    assert_eq!(row(&plan, "b2")["sites_after"], 30, "{plan}");
    assert_eq!(row(&plan, "b2")["awake_after"], 1, "{plan}");
    let adding = json(
        &platform,
        &["plan-backend", "add", "b3", "127.0.0.9:9001", "--json"],
    );
    let moved = adding["moved"].as_u64().expect("a number");
    assert!((1..30).contains(&moved), "{adding}");
    assert_eq!(
        row(&adding, "b3")["sites_after"],
        moved,
        "only to the new one: {adding}"
    );

    platform.paasctl().ok(&["remove-backend", "b1"]);
    for (domain, home) in homes(&platform) {
        match moves.get(&*domain) {
            Some((from, to)) => {
                assert_eq!(
                    (*from, *to),
                    (&before[&domain].clone().into(), &home.into())
                );
            }
            None => assert_eq!(home, before[&domain], "{domain} stays"),
        }
    }
    let unknown = platform
        .paasctl()
        .refused(&["plan-backend", "remove", "b7"]);
    assert!(unknown.contains("b7"), "{unknown}");
}
