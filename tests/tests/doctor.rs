//! `paasctl doctor` says what a machine lacks, and what to do, and is content with one that lacks nothing.

use paas_tests::{Paasctl, Platform, Root};
use serde_json::Value;

fn finding(paasctl: &Paasctl, what: &str) -> (Option<i32>, Value) {
    let outcome = paasctl.run(&["doctor", "--json"]);
    let findings: Value = serde_json::from_str(&outcome.out).expect("JSON");
    let mut found = findings.as_array().expect("a list").iter();
    let found = found.find(|finding| finding["what"] == what);
    (
        outcome.code,
        found
            .unwrap_or_else(|| panic!("{what}: {findings}"))
            .clone(),
    )
}

#[test]
fn a_machine_that_lacks_nothing_is_well_and_one_that_does_is_told_what_to_do() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let paasctl = Paasctl::new(&platform.backend(1));
    for what in ["registry", "daemon", "nginx", "emperor", "paas-launch"] {
        let (code, found) = finding(&paasctl, what);
        assert_eq!(
            (code, &found["state"]),
            (Some(0), &Value::from("good")),
            "{found}"
        );
    }
    let text = paasctl.ok(&["doctor"]);
    assert!(
        text.starts_with("WHAT ") && text.contains("emperor      good"),
        "{text}"
    );

    let gap = platform.without_daemon(1);
    let (code, found) = finding(&paasctl, "daemon");
    assert_eq!(
        (code, &found["state"]),
        (Some(1), &Value::from("bad")),
        "{found}"
    );
    assert!(
        found["text"]
            .as_str()
            .is_some_and(|text| text.contains("paasctl serve")),
        "{found}"
    );
    gap.end();

    let file = platform.backend(1).join("etc/paas/paas.toml");
    let before = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(
        &file,
        format!("{before}\n[sandbox]\nbwrap = \"/no/bwrap\"\n"),
    )
    .expect("ours");
    let (_, found) = finding(&paasctl, "sandbox");
    assert_eq!(found["state"], "warning", "{found}");
    if rustix::process::geteuid().is_root() {
        assert!(
            found["text"]
                .as_str()
                .is_some_and(|text| text.contains("install bubblewrap")),
            "{found}"
        );
    }
    std::fs::write(&file, before).expect("ours");
    platform.assert_healthy();
}
