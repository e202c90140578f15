//! Rendered text against the trees in `tests/golden/` (`PAAS_BLESS=1 cargo test` writes them anew: look at the diff),
//! and that no setting can become a directive.
use super::*;
use crate::escape::readers::nginx_words;
use crate::generations::diff;
use crate::model::{BackendId, BackendKey, BackendName, SlowChange, State, Weight};
use std::path::PathBuf;

/// Settings that do not depend on the machine the test runs on.
fn settings(root: &str, more: &str) -> Settings {
    let text = format!("name = \"m1\"\n{more}\n");
    Settings::parse(Path::new(root), Path::new("paas.toml"), &text).unwrap()
}

fn backend_at(id: u32, address: &str, state: State) -> Backend {
    let address = address.parse().unwrap();
    Backend {
        id: BackendId::new(id).unwrap(),
        name: BackendName::parse(&format!("b{id}")).unwrap(),
        address,
        key: BackendKey::of(address),
        weight: Weight::new(id).unwrap(),
        state,
    }
}

fn backends() -> Vec<Backend> {
    vec![
        backend_at(1, "10.0.0.1:9001", State::Active),
        backend_at(2, "[2001:db8::2]:9001", State::Draining),
        Backend {
            key: BackendKey::parse("old-address:9001").unwrap(),
            ..backend_at(3, "10.0.0.3:9001", State::Disabled)
        },
    ]
}

fn rendered(settings: &Settings, backends: &[Backend], placement: Placement) -> Rendered {
    let snippets = BTreeMap::new();
    render(Input {
        settings,
        backends,
        placement,
        root: true,
        emperor: None,
        snippets: &snippets,
    })
    .unwrap()
}

fn is_golden(name: &str, rendered: &Rendered) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("PAAS_BLESS").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (file, content) in &rendered.files {
            std::fs::write(directory.join(file), content).unwrap();
        }
    }
    let golden = std::fs::read_dir(&directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (
            entry.file_name().into_string().unwrap(),
            std::fs::read_to_string(entry.path()).unwrap(),
        )
    });
    let difference = diff(&golden.collect(), &rendered.files);
    assert!(difference.is_empty(), "{difference}");
}

#[test]
fn one_machine_with_both_roles() {
    let settings = settings("/", "");
    let first = rendered(&settings, &[], Placement::default());
    is_golden("both", &first);
    assert_eq!(
        first,
        rendered(&settings, &[], Placement::default()),
        "the same input gives the same bytes"
    );
    assert_eq!(
        first,
        rendered(&settings, &backends(), Placement::default()),
        "live mode renders nothing of the registry"
    );
}

#[test]
fn a_status_is_told_where_it_is_asked_for_and_to_this_machine_only() {
    let part = |more: &str| {
        let settings = settings("/", &format!("[balancer]\n{more}\n"));
        let tree = rendered(&settings, &backends(), Placement::default());
        tree.files["paas-balancer.conf"].clone()
    };
    assert!(!part("").contains("paas_status"));
    let told = part("status = \"127.0.0.1:9180\"");
    for line in [
        "listen 127.0.0.1:9180;",
        "paas_status;",
        "paas_status prometheus;",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let of_lines = part("status = \"127.0.0.1:9180\"\nbackends = \"static\"");
    assert!(
        !of_lines.contains("paas_status"),
        "nothing is counted there"
    );
}

#[test]
fn a_static_balancer_with_https() {
    let text = "roles = [\"balancer\"]\n[nginx]\nworkers = 4\n[balancer]\nlisten = [\"192.0.2.1:80\", \"[2001:db8::1]:80\"]\n\
        https_listen = [\"192.0.2.1:443\"]\ncertificate = \"/etc/ssl/my cert.pem\"\ncertificate_key = \"/etc/ssl/key.pem\"\n\
        backends = \"static\"\nkeepalive = 0\ndefault_server = false\nclient_max_body_size = \"1g\"\n";
    let settings = settings("/", text);
    let placement = Placement {
        method: Method::Python64,
        change: Some(SlowChange {
            from: Method::Rendezvous,
            threshold: 1,
        }),
    };
    let tree = rendered(&settings, &backends(), placement);
    is_golden("static", &tree);
    let notes = tree.notes.join("\n");
    for word in [
        "b2: draining",
        "b3: `server` lines hash the address 10.0.0.3:9001, not its key old-address:9001",
        "slow change",
    ] {
        assert!(notes.contains(word), "{notes}");
    }
}

#[test]
fn a_backend_alone() {
    let text = "roles = [\"backend\"]\n[backend]\nlisten = \"10.0.0.1:9001\"\ntrusted = [\"10.0.0.0/24\", \"::1\"]\n\
        socket_path = \"/var/sockets/{domain}/socket\"\nstart_timeout = \"1500ms\"\nread_timeout = \"2m\"\n";
    is_golden(
        "backend",
        &rendered(&settings("/srv/b 1", text), &[], Placement::default()),
    );
}

#[test]
fn a_static_balancer_without_backends_is_told_so() {
    let settings = settings("/", "[balancer]\nbackends = \"static\"");
    let snippets = BTreeMap::new();
    let input = Input {
        settings: &settings,
        backends: &[],
        placement: Placement::default(),
        root: false,
        emperor: None,
        snippets: &snippets,
    };
    let said = render(input).unwrap_err().to_string();
    assert!(said.contains("paasctl add-backend"), "{said}");
}

#[test]
fn snippets_are_recorded_and_the_emperors_file_is_there() {
    let settings = settings("/", "");
    let snippets = BTreeMap::from([("http.d/a.conf".to_owned(), "x on;".to_owned())]);
    let input = Input {
        settings: &settings,
        backends: &[],
        placement: Placement::default(),
        root: false,
        emperor: Some("[uwsgi]\n"),
        snippets: &snippets,
    };
    let files = render(input).unwrap().files;
    assert_eq!(files["snippets/http.d/a.conf"], "x on;");
    assert_eq!(files["emperor.ini"], "[uwsgi]\n");
    assert!(
        !files["nginx.conf"].contains("user "),
        "only root can become somebody else"
    );
}

/// Every directive of a configuration: its words, blocks flattened.
fn directives(mut text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\n', '}']);
        while text.starts_with('#') {
            text = text
                .split_once('\n')
                .map_or("", |(_, rest)| rest)
                .trim_start_matches([' ', '\n', '}']);
        }
        match nginx_words(text) {
            Some((words, rest)) => (found.push(words), text = rest).1,
            None => {
                assert!(text.is_empty(), "unread: {text}");
                return found;
            }
        }
    }
}

#[test]
fn hostile_paths_stay_values() {
    let nasty = "/x; daemon off; #y";
    let text = |path: &str| {
        format!(
            "[nginx]\nmodule = \"{path}/m.so\"\n[balancer]\ncertificate = \"{path}/c\"\ncertificate_key = \"{path}/k\"\n[backend]\nsocket_path = \"{path}/{{id}}\"\n"
        )
    };
    let plain = rendered(
        &settings("/plain", &text("/plain")),
        &[],
        Placement::default(),
    );
    let hostile = rendered(&settings(nasty, &text(nasty)), &[], Placement::default());
    for (name, content) in &plain.files {
        let (expected, found) = (directives(content), directives(&hostile.files[name]));
        assert!(!expected.is_empty());
        let replaced: Vec<Vec<String>> = expected
            .iter()
            .map(|words| {
                words
                    .iter()
                    .map(|word| word.replace("/plain", nasty))
                    .collect()
            })
            .collect();
        assert_eq!(found, replaced, "{name}");
    }
}
