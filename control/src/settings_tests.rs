//! What a `paas.toml` may say, and what an operator is told who writes another thing.
use super::*;

fn read(root: &str, text: &str) -> Result<Settings, SettingsError> {
    let root = Path::new(root);
    Settings::parse(root, &root.join("etc/paas/paas.toml"), text)
}

fn refused(text: &str) -> String {
    read("/r", text).unwrap_err().to_string()
}

#[test]
fn everything_has_a_default() {
    let settings = read("/r", "").unwrap();
    assert!(settings.has(Role::Balancer) && settings.has(Role::Backend));
    assert_eq!(settings.uid_range.numbers(), 200_000..=265_535);
    assert_eq!(
        settings.paths().registry(),
        Path::new("/r/var/lib/paas/registry.db")
    );
    assert_eq!(
        settings.backend.socket_path.as_str(),
        "/r/run/paas/sites/{id}/app.sock"
    );
    assert_eq!(settings.backend.start_timeout, Span::seconds(60));
    assert_eq!(settings.balancer.connect_timeout.to_string(), "300ms");
    assert!(!settings.name.is_empty());
    let at_home = read("/", "").unwrap();
    assert_eq!(
        at_home.paths().control_socket(),
        Path::new("/run/paas/control.sock")
    );
    assert_eq!(
        at_home.backend.socket_path.as_str(),
        "/run/paas/sites/{id}/app.sock"
    );
}

#[test]
fn relative_paths_are_below_the_root_and_absolute_ones_are_not() {
    let settings = read("/r", "registry = \"reg.db\"\n[nginx]\nmodule = \"/m.so\"").unwrap();
    assert_eq!(settings.paths().registry(), Path::new("/r/reg.db"));
    assert_eq!(settings.nginx.module.as_str(), "/m.so");
    let moved = read("/", "root = \"/srv/paas\"").unwrap();
    assert_eq!(
        moved.paths().table(),
        Path::new("/srv/paas/var/lib/paas/table")
    );
    assert_eq!(
        moved.paths().settings_file(),
        Path::new("/etc/paas/paas.toml")
    );
}

#[test]
fn an_unknown_key_is_refused_by_its_name_and_line() {
    let said = refused("name = \"b1\"\n[balancer]\nlisten_on = []\n");
    assert!(
        said.contains("listen_on") && said.contains("line 3"),
        "{said}"
    );
}

#[test]
fn a_bad_value_is_refused_with_its_key_and_the_rule() {
    for (text, key, rule) in [
        ("name = \"a b\"", "name", "letters"),
        ("roles = []", "roles", "balancer"),
        ("uid_range = [0, 5]", "uid_range", "root"),
        ("uid_range = [9, 5]", "uid_range", "above"),
        ("[nginx]\nuser = \"a;b\"", "nginx.user", "letters"),
        ("[nginx]\nworkers = \"many\"", "nginx.workers", "auto"),
        ("[nginx]\nworkers = 0", "nginx.workers", "1 to 1024"),
        ("[nginx]\nbinary = \"a\\nb\"", "nginx.binary", "control"),
        (
            "[balancer]\ncertificate = \"c\"",
            "balancer.certificate",
            "both",
        ),
        (
            "[balancer]\nclient_max_body_size = \"1m; x\"",
            "balancer.client_max_body_size",
            "100m",
        ),
        (
            "[balancer]\nread_timeout = \"1 s\"",
            "balancer.read_timeout",
            "75s",
        ),
        (
            "[balancer]\nstatus = \"0.0.0.0:9180\"",
            "balancer.status",
            "this machine only",
        ),
        (
            "[balancer.probe]\nsuccesses = 0",
            "balancer.probe.successes",
            "1 to 255",
        ),
        (
            "[balancer.eject]\nreturn = \"soon\"",
            "balancer.eject.return",
            "75s",
        ),
        (
            "[balancer]\nconnect_timeout_ms = 0",
            "balancer.connect_timeout_ms",
            "more than 0",
        ),
        (
            "[backend]\ntrusted = [\"10.0.0.0/33\"]",
            "backend.trusted",
            "10.0.0.0/8",
        ),
        (
            "[backend]\ntrusted = [\"all;\"]",
            "backend.trusted",
            "10.0.0.0/8",
        ),
        (
            "[backend]\nsocket_path = \"/run/all.sock\"",
            "backend.socket_path",
            "{id}",
        ),
        (
            "[backend]\nsocket_path = \"/run/{id}/{user}\"",
            "backend.socket_path",
            "{domain}",
        ),
        (
            "[backend]\nsocket_path = \"run/{id}\"",
            "backend.socket_path",
            "begin with /",
        ),
        (
            "[backend]\nsocket_path = \"/run/$host/{id}\"",
            "backend.socket_path",
            "$",
        ),
        ("[backend]\nworkers = 0", "backend.workers", "1 to 1024"),
        (
            "[backend]\nlog_size = \"1k\"",
            "backend.log_size",
            "65536 to",
        ),
        ("[backend]\nlog_size = \"big\"", "backend.log_size", "10m"),
        (
            "[backend]\nlog_keep = 1001",
            "backend.log_keep",
            "0 to 1000",
        ),
    ] {
        let said = refused(text);
        assert!(
            said.contains(&format!("paas.toml: {key}: ")) && said.contains(rule),
            "{text}: {said}"
        );
    }
}

#[test]
fn a_root_too_deep_for_a_socket_is_refused_with_the_lengths() {
    let longest = |length: usize| format!("/{}", "r".repeat(length - 1));
    // <root>/run/paas/sites/<10 digits>/app.sock.<10 digits>
    assert!(read(&longest(61), "").is_ok());
    let said = read(&longest(64), "").unwrap_err().to_string();
    assert!(
        said.contains("110 bytes") && said.contains("107") && said.contains("3 bytes shorter"),
        "{said}"
    );
    // The control socket counts where sites' sockets lie elsewhere.
    assert!(read(&longest(79), "[backend]\nsocket_path = \"/s/{id}\"").is_ok());
    assert!(read(&longest(80), "[backend]\nsocket_path = \"/s/{id}\"").is_err());
}

#[test]
fn a_root_that_nginx_would_misread_is_refused() {
    for root in [
        "/a$b",
        "/a:b",
        "/a*b",
        "/a\"b",
        "/a{b",
        "/a%b",
        "/a\nb",
        "/a;b/../c",
    ] {
        assert!(read(root, "").is_err(), "{root:?}");
    }
    assert!(read("/a b;c#d", "").is_ok(), "quoting keeps these");
}

#[test]
fn sockets_named_by_domains_know_their_limit() {
    let settings = read(
        "/r",
        "[backend]\nsocket_path = \"/var/sockets/{domain}/socket\"",
    )
    .unwrap();
    let domain = |length: usize| crate::model::Domain::parse(&"a".repeat(length)).unwrap();
    let id = crate::model::SiteId::new(7).unwrap();
    assert_eq!(
        settings.paths().site_socket(id, &domain(2)),
        Path::new("/var/sockets/aa/socket")
    );
    assert_eq!(
        settings.paths().generation_socket(id, &domain(2), 9),
        Path::new("/var/sockets/aa/socket.9")
    );
    assert_eq!(settings.backend.socket_path.too_long(&domain(63)), None);
    let long =
        crate::model::Domain::parse(&format!("{}.{}", "a".repeat(40), "b".repeat(40))).unwrap();
    assert_eq!(
        settings.backend.socket_path.too_long(&long),
        Some(13 + 81 + 7 + 11)
    );
}

#[test]
fn every_setting_is_in_a_document() {
    let documents = [
        include_str!("../../docs/machine.md"),
        include_str!("../../docs/health.md"),
        include_str!("../../docs/module.md"),
        include_str!("../../docs/sandbox.md"),
        include_str!("../../docs/waking.md"),
    ]
    .concat();
    let sections = [
        "",
        "nginx",
        "balancer",
        "balancer.eject",
        "balancer.probe",
        "backend",
        "backend.health",
        "waking",
        "sandbox",
        "limits",
    ];
    for section in sections {
        let heading = match section {
            "" => String::new(),
            section => format!("[{section}]\n"),
        };
        // What is refused names what there is.
        let said = refused(&format!("{heading}no_such_setting = 1\n"));
        let (_, known) = said.split_once("expected").expect("what there is");
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(known.len() > 1, "{said}");
        for name in known {
            assert!(documents.contains(name), "{section}: {name}");
        }
    }
}
