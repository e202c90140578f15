//! `paas_hash KEY` over the `server` lines of an upstream block, through a real nginx and no daemon:
//! the choice is the pure function's, and what operators know from other balancers works.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use paas_tests::stub::Answer;
use paas_tests::{Certificate, Nginx, Request, Response, Root, Stub, build};
use routing::{Candidate, Method, Placement, State, Weight};

/// Backends that answer their own name, on ports in a row.
struct Backends {
    ports: Vec<u16>,
    stubs: BTreeMap<u16, Stub>,
}

impl Backends {
    fn start(root: &Root, count: u16) -> Backends {
        let first = root.ports(count);
        let ports: Vec<u16> = (first..first + count).collect();
        let stubs = ports.iter().map(|port| (*port, naming(*port))).collect();
        Backends { ports, stubs }
    }

    fn name(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.ports[index])
    }

    fn stop(&mut self, index: usize) {
        self.stubs.remove(&self.ports[index]).expect("it runs");
    }
}

fn naming(port: u16) -> Stub {
    Stub::tcp(port, move |_| Answer::ok(format!("127.0.0.1:{port}")))
}

/// An nginx whose `upstream` block has these lines.
fn balancer(root: &Root, upstream: &str) -> (Nginx, u16) {
    let port = root.port();
    (
        Nginx::start(root, "balancer", &balancing(port, upstream, ""), port),
        port,
    )
}

fn balancing(port: u16, upstream: &str, location: &str) -> String {
    format!(
        "upstream sites {{ {upstream} }}
         server {{
             listen 127.0.0.1:{port};
             location / {{
                 proxy_pass http://sites;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_set_header Host $http_host;
                 add_header X-Backend $paas_backend always;
                 {location}
             }}
         }}"
    )
}

fn ask(port: u16, key: impl AsRef<[u8]>) -> Response {
    Request::get("a.test", "/").header("X-Key", key).send(port)
}

/// The backend a key got, as the backend itself says; the variable must say the same.
fn chosen(port: u16, key: impl AsRef<[u8]>) -> String {
    let response = ask(port, key);
    let backend = response.expect(200);
    assert_eq!(
        response.header("X-Backend"),
        Some(backend.as_str()),
        "$paas_backend is the backend that answered"
    );
    backend
}

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("site-{number}.example.org"))
}

/// A backend as the pure function sees it.
type Server = (String, u32, State);

/// What the pure function says of these servers.
fn expected(servers: &[Server], key: &str, usable: impl Fn(usize) -> bool) -> String {
    let candidates = servers.iter().map(|(name, weight, state)| Candidate {
        key: name.as_bytes(),
        weight: Weight::new(*weight).expect("a weight"),
        state: *state,
    });
    let placement = Placement::fixed(Method::Rendezvous);
    let index = routing::Backends::new(candidates).choose(key.as_bytes(), None, &placement, usable);
    servers[index.expect("one is usable")].0.clone()
}

#[test]
fn the_choice_is_that_of_the_pure_function_also_with_weights() {
    let root = Root::new();
    let backends = Backends::start(&root, 5);
    let weights = [1, 3, 5, 1, 2];
    let lines: String = (0..5)
        .map(|at| format!("server {} weight={};", backends.name(at), weights[at]))
        .collect();
    let (nginx, port) = balancer(&root, &format!("paas_hash $http_x_key; {lines}"));
    let servers: Vec<_> = (0..5)
        .map(|at| (backends.name(at), weights[at], State::Active))
        .collect();
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for key in keys(600) {
        let backend = chosen(port, &key);
        assert_eq!(backend, expected(&servers, &key, |_| true), "{key}");
        *shares.entry(backend).or_default() += 1;
    }
    // Of 600 keys 50 stand for a weight of 1; the draws are fixed, the bounds are five deviations.
    for (at, weight) in weights.iter().enumerate() {
        let fair = 50.0 * f64::from(*weight);
        let share = f64::from(shares.get(&backends.name(at)).copied().unwrap_or(0));
        assert!(
            (share - fair).abs() < 5.0 * fair.sqrt(),
            "weight {weight}: {share} of 600, not about {fair}"
        );
    }
    nginx.assert_healthy();
}

#[test]
fn a_server_that_is_down_gets_nothing_and_only_its_own_keys_move() {
    let root = Root::new();
    let backends = Backends::start(&root, 4);
    let lines = |down: Option<usize>| -> String {
        (0..4)
            .map(|at| {
                format!(
                    "server {}{};",
                    backends.name(at),
                    if down == Some(at) { " down" } else { "" }
                )
            })
            .collect()
    };
    let (nginx, port) = balancer(&root, &format!("paas_hash $http_x_key; {}", lines(None)));
    let before: Vec<String> = keys(200).map(|key| chosen(port, key)).collect();
    nginx.reload(&balancing(
        port,
        &format!("paas_hash $http_x_key; {}", lines(Some(2))),
        "",
    ));
    let servers: Vec<_> = (0..4)
        .map(|at| {
            (
                backends.name(at),
                1,
                if at == 2 {
                    State::Disabled
                } else {
                    State::Active
                },
            )
        })
        .collect();
    let mut moved = 0;
    for (key, old) in keys(200).zip(before) {
        let new = chosen(port, &key);
        assert_ne!(new, backends.name(2));
        if old == backends.name(2) {
            moved += 1;
            assert_eq!(new, expected(&servers, &key, |_| true), "{key}");
        } else {
            assert_eq!(new, old, "{key} was not on the server that went down");
        }
    }
    assert!(moved > 0, "the server that went down had keys");
    nginx.assert_healthy();
}

#[test]
fn a_backup_server_is_used_only_when_no_other_can_be() {
    let root = Root::new();
    let mut backends = Backends::start(&root, 3);
    let lines = format!(
        "server {}; server {}; server {} backup;",
        backends.name(0),
        backends.name(1),
        backends.name(2)
    );
    let (nginx, port) = balancer(&root, &format!("paas_hash $http_x_key; {lines}"));
    assert!(
        keys(60).all(|key| chosen(port, key) != backends.name(2)),
        "the others answer"
    );
    backends.stop(0);
    assert!(
        keys(60).all(|key| chosen(port, key) == backends.name(1)),
        "one of the others answers"
    );
    backends.stop(1);
    assert!(
        keys(60).all(|key| chosen(port, key) == backends.name(2)),
        "none of the others answers"
    );
    backends.stop(2);
    assert_eq!(ask(port, "any").status, 502);
    nginx.assert_healthy();
}

#[test]
fn a_dead_server_costs_its_keys_one_more_try_in_rendezvous_order() {
    let root = Root::new();
    let mut backends = Backends::start(&root, 4);
    let lines: String = (0..4)
        .map(|at| format!("server {};", backends.name(at)))
        .collect();
    let (nginx, port) = balancer(&root, &format!("paas_hash $http_x_key; {lines}"));
    backends.stop(1);
    let servers: Vec<_> = (0..4)
        .map(|at| (backends.name(at), 1, State::Active))
        .collect();
    for key in keys(200) {
        let next = expected(&servers, &key, |at| at != 1);
        // Twice: what was learned from the first failure must not change the choice.
        assert_eq!(chosen(port, &key), next, "{key}");
        assert_eq!(chosen(port, &key), next, "{key}");
    }
    nginx.assert_healthy();
}

#[test]
fn next_upstream_follows_nginx_s_own_rules() {
    let root = Root::new();
    let first = root.ports(3);
    let stubs: Vec<Stub> = (first..first + 3)
        .map(|port| {
            Stub::tcp(port, move |request| match request.header("X-Fail") {
                Some("500") => Answer::status(500, format!("fails on {port}")),
                Some("close") => Answer::Close,
                Some(only) if only == port.to_string() => Answer::status(500, "this one fails"),
                _ => Answer::ok(format!("127.0.0.1:{port}")),
            })
        })
        .collect();
    // Whoever fails is not taken out of the choice here: that is tested with its setting.
    let lines: String = (first..first + 3)
        .map(|port| format!("server 127.0.0.1:{port} max_fails=0;"))
        .collect();
    let port = root.port();
    let http = balancing(
        port,
        &format!("paas_hash $http_x_key; {lines}"),
        "proxy_next_upstream error timeout http_500;",
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    let received = || {
        stubs
            .iter()
            .map(|stub| stub.received().len())
            .sum::<usize>()
    };

    // One fails: the next one answers.
    let home = chosen(port, "key");
    let failing = home.rsplit(':').next().expect("a port").to_owned();
    let other = Request::get("a.test", "/")
        .header("X-Key", "key")
        .header("X-Fail", &failing)
        .send(port);
    assert_ne!(other.expect(200), home);

    // All fail: every one is tried once, the last answer is shown.
    let before = received();
    let answer = Request::get("a.test", "/")
        .header("X-Key", "key")
        .header("X-Fail", "500")
        .send(port);
    assert_eq!((answer.status, received() - before), (500, 3));

    // A POST that was sent is not repeated (`non_idempotent` is not set).
    let before = received();
    let answer = Request::post("a.test", "/", "x")
        .header("X-Key", "key")
        .header("X-Fail", "500")
        .send(port);
    assert_eq!((answer.status, received() - before), (500, 1));
    let before = received();
    let answer = Request::post("a.test", "/", "x")
        .header("X-Key", "key")
        .header("X-Fail", "close")
        .send(port);
    assert_eq!((answer.status, received() - before), (502, 1));

    // Failures of that kind do not take a server out of the choice.
    assert_eq!(chosen(port, "key"), home);
    nginx.assert_healthy();
}

#[test]
fn connections_are_kept_alive() {
    let root = Root::new();
    let backends = Backends::start(&root, 3);
    let lines: String = (0..3)
        .map(|at| format!("server {};", backends.name(at)))
        .collect();
    let (nginx, port) = balancer(
        &root,
        &format!("paas_hash $http_x_key; {lines} keepalive 16;"),
    );
    for _ in 0..20 {
        for key in keys(10) {
            let _ = chosen(port, key);
        }
    }
    for stub in backends.stubs.values() {
        let received = stub.received();
        assert!(received.len() > 1);
        assert_eq!(
            received.last().map(|last| last.connections),
            Some(1),
            "one connection for all requests"
        );
    }
    nginx.assert_healthy();
}

#[test]
fn a_kept_connection_that_went_stale_is_not_a_failure_of_its_server() {
    let root = Root::new();
    let mut backends = Backends::start(&root, 2);
    let lines: String = (0..2)
        .map(|at| format!("server {};", backends.name(at)))
        .collect();
    let (nginx, port) = balancer(
        &root,
        &format!("paas_hash $http_x_key; {lines} keepalive 16;"),
    );
    let homes: Vec<String> = keys(20).map(|key| chosen(port, key)).collect();
    // Both restart: whatever nginx kept is stale now.
    for at in 0..2 {
        backends.stop(at);
        let again = naming(backends.ports[at]);
        backends.stubs.insert(backends.ports[at], again);
    }
    let after: Vec<String> = keys(20).map(|key| chosen(port, key)).collect();
    assert_eq!(after, homes);
    nginx.assert_healthy();
}

#[test]
fn upstreams_that_speak_tls_work() {
    let root = Root::new();
    let Certificate { certificate, key } = Certificate::new(&root, &["backend.test"]);
    let port = root.ports(3);
    let backend = |at: u16| {
        format!(
            "server {{ listen 127.0.0.1:{at} ssl; ssl_certificate {}; ssl_certificate_key {}; return 200 127.0.0.1:{at}; }}",
            certificate.display(),
            key.display()
        )
    };
    let http = format!(
        "upstream sites {{ paas_hash $http_x_key; server 127.0.0.1:{}; server 127.0.0.1:{}; keepalive 4; }}
         {} {}
         server {{ listen 127.0.0.1:{port}; location / {{
             proxy_pass https://sites; proxy_http_version 1.1; proxy_set_header Connection ''; add_header X-Backend $paas_backend;
         }} }}",
        port + 1,
        port + 2,
        backend(port + 1),
        backend(port + 2),
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    let names: std::collections::BTreeSet<String> = keys(40).map(|key| chosen(port, key)).collect();
    assert_eq!(names.len(), 2, "both are used: {names:?}");
    nginx.assert_healthy();
}

/// The recorded answers of CPython 2.7: key bytes, and the index among 10, 7 and 100 servers for both widths.
fn python_vectors() -> Vec<(Vec<u8>, BTreeMap<String, usize>)> {
    let file = build::workspace().join("routing/tests/data/python27_hash.csv");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().expect("a head line").split(',').collect();
    let unhex = |digits: &str| -> Vec<u8> {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
            .collect()
    };
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let numbers = head
                .iter()
                .zip(&fields)
                .filter(|(name, _)| name.starts_with("mod"));
            (
                unhex(fields[0]),
                numbers
                    .map(|(name, value)| ((*name).to_owned(), value.parse().expect("an index")))
                    .collect(),
            )
        })
        .collect()
}

/// Whether these bytes arrive in nginx as they are when sent as a header's value.
fn can_be_a_header(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) && bytes.trim_ascii() == bytes
}

#[test]
fn python_s_hash_chooses_what_python_2_7_chose() {
    let root = Root::new();
    let backends = Backends::start(&root, 10);
    let lines = |count: usize| -> String {
        (0..count)
            .map(|at| format!("server {};", backends.name(at)))
            .collect()
    };
    let port = root.ports(4);
    let variants = [
        ("python64", 10),
        ("python32", 10),
        ("python64", 7),
        ("python32", 7),
    ];
    let http: String = variants
        .iter()
        .zip(port..)
        .map(|((method, count), port)| {
            format!(
                "upstream {method}_{count} {{ paas_hash $http_x_key method={method}; {} }}
                 server {{ listen 127.0.0.1:{port}; location / {{
                     proxy_pass http://{method}_{count}; add_header X-Backend $paas_backend;
                 }} }}",
                lines(*count)
            )
        })
        .collect();
    let nginx = Nginx::start(&root, "balancer", &http, port);
    let mut checked = 0;
    for (key, expected) in python_vectors()
        .iter()
        .filter(|(key, _)| can_be_a_header(key))
    {
        for ((method, count), port) in variants.iter().zip(port..) {
            let index = expected[&format!("mod{count}_of_{}", method.trim_start_matches("python"))];
            assert_eq!(
                chosen(port, key),
                backends.name(index),
                "{method} of {key:?} over {count}"
            );
            checked += 1;
        }
    }
    assert!(checked > 1_000, "only {checked} vectors were compared");
    nginx.assert_healthy();
}

#[test]
fn python_s_modulus_counts_servers_that_are_down_and_others_take_over_in_rendezvous_order() {
    let root = Root::new();
    let mut backends = Backends::start(&root, 6);
    let lines: String = (0..6)
        .map(|at| {
            format!(
                "server {}{};",
                backends.name(at),
                if at == 3 { " down" } else { "" }
            )
        })
        .collect();
    let (nginx, port) = balancer(
        &root,
        &format!("paas_hash $http_x_key method=python64; {lines}"),
    );
    backends.stop(5);
    let servers: Vec<_> = (0..6)
        .map(|at| {
            (
                backends.name(at),
                1,
                if at == 3 {
                    State::Disabled
                } else {
                    State::Active
                },
            )
        })
        .collect();
    let count = NonZeroU32::new(6).expect("six");
    let mut replaced = 0;
    for key in keys(200) {
        let index =
            routing::python27::floor_mod(routing::python27::hash64(key.as_bytes()), count) as usize;
        let home = if matches!(index, 3 | 5) {
            replaced += 1;
            expected(&servers, &key, |at| at != 5)
        } else {
            backends.name(index)
        };
        assert_eq!(chosen(port, &key), home, "{key}");
    }
    assert!(replaced > 20);
    nginx.assert_healthy();
}

#[test]
fn the_key_is_hashed_exactly_as_evaluated() {
    let root = Root::new();
    let backends = Backends::start(&root, 10);
    let lines: String = (0..10)
        .map(|at| format!("server {};", backends.name(at)))
        .collect();
    let (nginx, port) = balancer(
        &root,
        &format!("paas_hash \"$http_x_key|$request_method\" method=python64; {lines}"),
    );
    let count = NonZeroU32::new(10).expect("ten");
    for key in ["Upper.Case.", "a b", "ü", ""] {
        let bytes = format!("{key}|GET");
        let index = routing::python27::floor_mod(routing::python27::hash64(bytes.as_bytes()), count)
            as usize;
        assert_eq!(chosen(port, key), backends.name(index), "{bytes}");
    }
    nginx.assert_healthy();
}

#[test]
fn a_server_name_with_several_addresses_uses_all_its_addresses() {
    let root = Root::new();
    let port = root.ports(2);
    // localhost has one IPv4 address everywhere; an IPv6 one may not be served: the other is tried.
    let stub = naming(port + 1);
    let http = balancing(
        port,
        &format!("paas_hash $http_x_key; server localhost:{};", port + 1),
        "",
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    for key in keys(10) {
        assert_eq!(
            ask(port, key).expect(200),
            format!("127.0.0.1:{}", port + 1)
        );
    }
    assert_eq!(stub.received().len(), 10);
    nginx.assert_healthy();
}
