//! `paasctl doctor` says what a machine lacks, and what to do, and is content with one that lacks nothing.

use std::os::unix::fs::PermissionsExt;

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
    let refused = root.write(
        "refuses",
        "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1\n",
    );
    std::fs::set_permissions(&refused, PermissionsExt::from_mode(0o755)).expect("ours");
    let refused = refused.to_string_lossy();
    for (bwrap, said) in [
        ("/no/bwrap", "install bubblewrap"),
        (&*refused, "uid map: Permission denied; docs/sandbox.md"),
    ] {
        let settings = format!("{before}\n[sandbox]\nbwrap = {bwrap:?}\n");
        std::fs::write(&file, settings).expect("ours");
        let (code, found) = finding(&paasctl, "sandbox");
        if rustix::process::geteuid().is_root() {
            let text = found["text"].as_str().expect("words");
            assert!(text.contains(said), "{found}");
            assert_eq!((code, &found["state"]), (Some(1), &Value::from("bad")));
        } else {
            assert_eq!(found["state"], "warning", "{found}");
        }
    }
    std::fs::write(&file, before).expect("ours");
    platform.assert_healthy();
}
