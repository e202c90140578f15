//! Whatever goes in: the reader finds one value equal to it, or it was refused. The last tests ask nginx and uWSGI themselves.
use super::readers::{ini_pairs, nginx_words};
use super::*;
use proptest::prelude::*;
use std::process::Command;

/// Text as an attacker would choose it: mostly the characters that mean something.
fn hostile() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        '"', '\'', '\\', ';', '{', '}', '$', '#', ' ', '\n', '\r', '\t', '%', '(', ')', '@', '[',
        ']', '=', '\0', 'n', 'a', 'é', '\u{85}', '\u{2028}',
    ]);
    prop_oneof![
        prop::collection::vec(special, 0..24).prop_map(|c| c.into_iter().collect()),
        ".*",
        "[ -~]*"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nginx_finds_one_value_equal_to_it(text in hostile()) {
        if let Ok(value) = NginxValue::new(&text) {
            let config = format!("directive {value} after;next;");
            let (words, rest) = nginx_words(&config).expect("nginx reads it");
            prop_assert_eq!(words, ["directive".to_owned(), text, "after".to_owned()]);
            prop_assert_eq!(rest, "next;");
        }
    }

    #[test]
    fn uwsgi_finds_one_value_equal_to_it(text in hostile()) {
        if let Ok(value) = IniValue::new(&text) {
            let file = format!("[uwsgi]\nkey = {value}\nnext = true\n");
            let pairs = ini_pairs(&file).expect("nothing is replaced");
            prop_assert_eq!(pairs, [("key".to_owned(), text), ("next".to_owned(), "true".to_owned())]);
        }
    }

    #[test]
    fn plain_values_are_never_refused(text in "[A-Za-z0-9/._ %é-]{0,60}[a-z]") {
        prop_assert!(NginxValue::new(&text).is_ok());
        prop_assert!(IniValue::new(text.trim_start()).is_ok());
    }
}

#[test]
fn what_no_quoting_can_keep_is_refused() {
    for bad in ["$host", "a\nb", "a\0b", "\u{7f}", &"a".repeat(2001)] {
        assert!(NginxValue::new(bad).is_err(), "{bad:?}");
    }
    for bad in [
        "",
        " a",
        "a ",
        "a\nb",
        "$(HOME)",
        "@(/etc/shadow)",
        "%(module)",
        "100%(x)",
    ] {
        assert!(IniValue::new(bad).is_err(), "{bad:?}");
    }
    assert!(NginxValue::snippets("/srv/[a]").is_err());
}

const SAMPLES: [&str; 9] = [
    "/plain/path",
    "a b",
    "x; daemon off",
    "}",
    "a\"b'c\\d",
    "a\\",
    "é# {",
    "100% of %d",
    "[section] key = value",
];

#[test]
fn nginx_itself_agrees() {
    for text in SAMPLES.into_iter().filter(|text| !text.contains('[')) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("nginx.conf");
        let value = NginxValue::new(&format!("/nonexistent/{text}")).unwrap();
        std::fs::write(&config, format!("include {value};")).unwrap();
        let output = Command::new("/usr/sbin/nginx")
            .args(["-e", "stderr", "-t", "-c"])
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(&format!("open() \"/nonexistent/{text}\" failed")),
            "{text:?}: {said}"
        );
    }
}

#[test]
fn uwsgi_itself_agrees() {
    for text in SAMPLES {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("site.ini");
        std::fs::write(
            &config,
            format!(
                "[uwsgi]\nset-placeholder = probe={}\n",
                IniValue::new(text).unwrap()
            ),
        )
        .unwrap();
        let output = Command::new("/usr/bin/uwsgi")
            .arg("--ini")
            .arg(&config)
            .args(["--get", "probe"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim_end_matches('\n'),
            text
        );
    }
}
