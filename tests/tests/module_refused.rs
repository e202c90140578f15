//! Configurations the module refuses when they are read, each with a message that names the cause.

use paas_tests::{Nginx, Root};

/// A refused `http` block and words its message must have.
fn refused(http: &str, words: &[&str]) {
    let root = Root::new();
    let (accepted, message) = Nginx::test(
        &root,
        &http.replace("{root}", &root.path().to_string_lossy()),
    );
    assert!(!accepted, "accepted: {http}");
    assert!(
        !message.contains("panick") && !message.contains("signal"),
        "{message}"
    );
    let line = message
        .lines()
        .find(|line| line.contains("[emerg]"))
        .unwrap_or_else(|| panic!("no [emerg]: {message}"));
    for word in words {
        assert!(
            line.contains(word),
            "the message of `{http}` does not say {word:?}: {line}"
        );
    }
    assert!(
        line.contains("nginx.conf:") || line.contains(" in "),
        "the message says no place: {line}"
    );
}

fn accepted(http: &str) {
    let root = Root::new();
    let (accepted, message) = Nginx::test(
        &root,
        &http.replace("{root}", &root.path().to_string_lossy()),
    );
    assert!(accepted, "{http}: {message}");
}

fn upstream(lines: &str) -> String {
    format!(
        "upstream sites {{ {lines} }} server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://sites; }} }}"
    )
}

const SERVER: &str = "server 127.0.0.1:1;";

/// A location with this line in it.
fn location(line: &str) -> String {
    format!("server {{ listen 127.0.0.1:1; location / {{ {line} }} }}")
}

#[test]
fn what_is_to_be_seen_from_outside_is_said_rightly() {
    let monitor = "paas_monitor {root}/backends;";
    for form in ["", " json", " prometheus"] {
        accepted(&format!(
            "{monitor} {}",
            location(&format!("paas_status{form};"))
        ));
    }
    accepted(&location("paas_health /run/beat stale=500ms;"));
    refused(
        &location("paas_status;"),
        &["paas_status", "paas_monitor DIRECTORY"],
    );
    for (http, words) in [
        (format!("{monitor} {monitor}"), &["is duplicate"][..]),
        (
            "paas_monitor backends;".to_owned(),
            &["\"backends\" is not an absolute path"],
        ),
        (
            format!("{monitor} {}", location("paas_status xml;")),
            &["\"xml\"", "json or prometheus"],
        ),
        (
            format!("{monitor} {}", location("paas_status; paas_status;")),
            &["is duplicate"],
        ),
        (
            location("paas_health beat;"),
            &["\"beat\" is not an absolute path"],
        ),
        (
            location("paas_health /beat stale=soon;"),
            &["is not a time"],
        ),
        (location("paas_health /beat stale=0;"), &["is not a time"]),
        (
            location("paas_health /beat fresh=1s;"),
            &["does not know the argument \"fresh=1s\""],
        ),
        (location("paas_health;"), &["paas_health"]),
        ("paas_status;".to_owned(), &["not allowed here"]),
    ] {
        refused(&http, words);
    }
}

#[test]
fn what_the_others_are_measured_against_is_accepted() {
    accepted(&upstream(&format!("paas_hash $host; {SERVER}")));
    accepted(&upstream(&format!(
        "paas_hash $host method=rendezvous; {SERVER} keepalive 8;"
    )));
    accepted(&upstream(&format!(
        "paas_keepalive 8 per_peer=2 timeout=60s requests=10000 time=1h reuse=repeatable; {SERVER} paas_hash $host;"
    )));
    accepted(&format!(
        "paas_table {{root}}/table; {}",
        upstream("paas_hash; paas_keepalive 8;")
    ));
    accepted(&format!(
        "paas_table {{root}}/table; {}",
        upstream("paas_hash; keepalive 8;")
    ));
    accepted(&upstream(
        "zone sites 64k; server 127.0.0.1:1 max_conns=3 max_fails=2 fail_timeout=5s weight=2; server [::1]:1 backup;
         server unix:/run/a.sock down; paas_hash $host;",
    ));
    accepted(
        "paas_table {root}/table;
         server { listen 127.0.0.1:1; recursive_error_pages on; paas_socket \"{root}/{id}/app.sock\";
             location / { paas_role backend; uwsgi_pass unix:$paas_socket; error_page 502 = @wake; }
             location @wake { paas_fallback vassal={root}/$paas_site_id.ini initialize=/init timeout=5s max_parked=2;
                 uwsgi_pass unix:$paas_socket; }
             location = /init { internal; return 204; } }",
    );
}

#[test]
fn keepalive_before_the_hash() {
    refused(
        &upstream(&format!("{SERVER} keepalive 8; paas_hash $host;")),
        &["paas_hash", "keepalive"],
    );
}

#[test]
fn two_kinds_of_keepalive() {
    for lines in [
        "paas_hash $host; paas_keepalive 8; keepalive 8;",
        "paas_keepalive 8; paas_hash $host; keepalive 8;",
        "keepalive 8; paas_hash $host; paas_keepalive 8;",
    ] {
        refused(
            &upstream(&format!("{lines} {SERVER}")),
            &["keepalive", "paas_keepalive"],
        );
    }
}

#[test]
fn a_keepalive_without_a_hash() {
    refused(
        &upstream(&format!("{SERVER} paas_keepalive 8;")),
        &["paas_keepalive", "paas_hash", "keepalive NUMBER"],
    );
}

#[test]
fn values_of_paas_keepalive_that_cannot_be() {
    for (arguments, word) in [
        ("0", "\"0\""),
        ("many", "many"),
        ("8 timeout=soon", "soon"),
        ("8 timeout=0", "timeout"),
        ("8 per_peer=0", "per_peer"),
        ("8 reuse=none", "reuse=repeatable"),
        ("8 requests=-1", "requests"),
        ("8 colour=red", "colour"),
        ("8 time=1h time=2h", "time"),
    ] {
        refused(
            &upstream(&format!(
                "paas_hash $host; paas_keepalive {arguments}; {SERVER}"
            )),
            &["paas_keepalive", word],
        );
    }
}

#[test]
fn two_methods_of_balancing() {
    refused(
        &upstream(&format!("paas_hash $host; paas_hash $uri; {SERVER}")),
        &["paas_hash", "duplicate"],
    );
}

#[test]
fn a_method_that_does_not_exist() {
    refused(
        &upstream(&format!("paas_hash $host method=md5; {SERVER}")),
        &["method", "md5"],
    );
}

#[test]
fn an_argument_that_does_not_exist() {
    refused(
        &upstream(&format!("paas_hash $host colour=red; {SERVER}")),
        &["paas_hash", "colour"],
    );
}

#[test]
fn no_key_and_no_table() {
    refused(
        &upstream(&format!("paas_hash; {SERVER}")),
        &["paas_hash", "paas_table"],
    );
}

#[test]
fn servers_beside_a_table() {
    refused(
        &format!(
            "paas_table {{root}}/table; {}",
            upstream(&format!("paas_hash; {SERVER}"))
        ),
        &["paas_hash", "server"],
    );
}

#[test]
fn a_zone_beside_a_table() {
    refused(
        &format!(
            "paas_table {{root}}/table; {}",
            upstream("zone sites 64k; paas_hash;")
        ),
        &["paas_hash", "zone"],
    );
}

#[test]
fn an_upstream_without_servers() {
    refused(&upstream("paas_hash $host;"), &["no servers"]);
}

#[test]
fn settings_of_a_server_that_no_nginx_without_a_licence_has() {
    for setting in ["slow_start=30s", "route=a", "drain"] {
        refused(
            &upstream(&format!(
                "zone z 64k; paas_hash $host; server 127.0.0.1:1 {setting};"
            )),
            &["invalid parameter", setting],
        );
    }
}

#[test]
fn a_server_whose_addresses_are_to_be_resolved_while_it_is_used() {
    // nginx itself refuses it before 1.27.3.
    let lines = "zone z 64k; paas_hash $host; server sites.test:1 resolve;";
    refused(
        &format!("resolver 127.0.0.1; {}", upstream(lines)),
        &["\"resolve\""],
    );
}

#[test]
fn a_second_table() {
    refused(
        "paas_table {root}/a; paas_table {root}/b;",
        &["paas_table", "duplicate"],
    );
}

#[test]
fn a_role_that_does_not_exist() {
    refused(
        "paas_table {root}/table; server { listen 127.0.0.1:1; paas_role boss; }",
        &["paas_role", "boss"],
    );
}

#[test]
fn a_role_without_a_table() {
    refused(
        "server { listen 127.0.0.1:1; paas_role balancer; }",
        &["paas_role", "paas_table"],
    );
}

#[test]
fn a_socket_pattern_with_an_unknown_or_no_placeholder() {
    refused(
        "paas_socket \"/run/{name}/app.sock\";",
        &["paas_socket", "{name}"],
    );
    refused("paas_socket /run/app.sock;", &["paas_socket"]);
}

#[test]
fn values_of_paas_fallback_that_cannot_be() {
    let fallback = |arguments: &str| {
        format!(
            "paas_table {{root}}/table;
             server {{ listen 127.0.0.1:1; location / {{ return 204; }} location @wake {{ paas_fallback {arguments}; }} }}"
        )
    };
    refused(&fallback("timeout=soon"), &["timeout", "soon"]);
    refused(&fallback("max_parked=many"), &["max_parked", "many"]);
    refused(&fallback("max_parked=0"), &["max_parked"]);
    refused(&fallback("colour=red"), &["colour"]);
    refused(&fallback("initialize="), &["initialize"]);
}
