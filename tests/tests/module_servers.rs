//! `paas_hash KEY` over `server` lines: what nginx's own `hash` does with their settings, this does, too. Where both can be asked,
//! both are.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use paas_tests::stub::Answer;
use paas_tests::{Nginx, Request, Response, Root, Stub, process, wait};
use rustix::process::Signal;

/// The directive under test, and nginx's own.
const BOTH: [&str; 2] = ["paas_hash $http_x_key;", "hash $http_x_key;"];
const OURS: &str = BOTH[0];

fn balancing(port: u16, upstream: &str, location: &str) -> String {
    format!(
        "upstream sites {{ {upstream} }}
         server {{ listen 127.0.0.1:{port} reuseport; location / {{
             proxy_pass http://sites; proxy_http_version 1.1; proxy_set_header Connection '';
             add_header X-Way $upstream_addr always; add_header X-Pid $pid always; {location}
         }} }}"
    )
}

fn ask(port: u16, key: &str) -> Response {
    Request::get("a.test", "/").header("X-Key", key).send(port)
}

/// The servers a request was sent to, in their order.
fn way(answer: &Response) -> Vec<u16> {
    let way = answer.header("X-Way").expect("it says so");
    way.split(", ")
        .filter_map(|address| address.rsplit(':').next()?.parse().ok())
        .collect()
}

/// A key whose first server is this one.
fn key_of(port: u16, server: u16) -> String {
    (0..1000)
        .map(|number| format!("key-{number}"))
        .find(|key| way(&ask(port, key)).first() == Some(&server))
        .expect("some key leads there")
}

/// Servers that fail when they are told to, and an nginx in front of them.
struct Balanced {
    port: u16,
    servers: Vec<u16>,
    stubs: Vec<Stub>,
    failing: Arc<Mutex<BTreeSet<u16>>>,
    nginx: Nginx,
}

impl Balanced {
    /// `lines` makes the block's lines from the servers' ports.
    fn start(
        root: &Root,
        main: &str,
        count: u16,
        lines: impl Fn(&[u16]) -> String,
        location: &str,
    ) -> Balanced {
        let (port, first) = (root.port(), root.ports(count));
        let servers: Vec<u16> = (first..first + count).collect();
        let failing = Arc::new(Mutex::new(BTreeSet::new()));
        let stubs = servers
            .iter()
            .map(|&server| {
                let failing = Arc::clone(&failing);
                Stub::tcp(server, move |_| {
                    match failing.lock().expect("no panic").contains(&server) {
                        true => Answer::Close,
                        false => Answer::ok("x"),
                    }
                })
            })
            .collect();
        let http = balancing(port, &lines(&servers), location);
        let nginx = Nginx::start_with(root, "balancer", main, &http, port);
        Balanced {
            port,
            servers,
            stubs,
            failing,
            nginx,
        }
    }

    fn fail(&self, server: usize, fails: bool) {
        let mut failing = self.failing.lock().expect("no panic");
        let port = self.servers[server];
        if fails {
            failing.insert(port)
        } else {
            failing.remove(&port)
        };
    }

    fn received(&self, server: usize) -> usize {
        self.stubs[server].received().len()
    }
}

#[test]
fn max_fails_takes_a_server_out_and_fail_timeout_tries_it_once() {
    for method in BOTH {
        let root = Root::new();
        let balanced = Balanced::start(
            &root,
            "",
            3,
            |ports| {
                let lines: String = ports
                    .iter()
                    .map(|port| format!("server 127.0.0.1:{port} max_fails=2 fail_timeout=2s;"))
                    .collect();
                format!("{method} {lines}")
            },
            "",
        );
        let key = key_of(balanced.port, balanced.servers[1]);
        balanced.fail(1, true);
        let before = balanced.received(1);
        let mut first = 0;
        for _ in 0..12 {
            let answer = ask(balanced.port, &key);
            assert_eq!(answer.status, 200, "{method}: the next server answers");
            first += usize::from(way(&answer)[0] == balanced.servers[1]);
        }
        assert_eq!(
            (first, balanced.received(1) - before),
            (2, 2),
            "{method}: two failures, then none"
        );
        // It still fails: one request finds that out, the others are spared again.
        wait::until_true("the server to be tried again", || {
            assert_eq!(ask(balanced.port, &key).status, 200);
            balanced.received(1) > before + 2
        });
        for _ in 0..5 {
            let _ = ask(balanced.port, &key);
        }
        assert_eq!(balanced.received(1) - before, 3, "{method}: one trial");
        // It works again: the trial finds that out, and everything goes there again.
        balanced.fail(1, false);
        wait::until_true("the server to be used again", || {
            way(&ask(balanced.port, &key)) == [balanced.servers[1]]
        });
        for _ in 0..5 {
            assert_eq!(
                way(&ask(balanced.port, &key)),
                [balanced.servers[1]],
                "{method}"
            );
        }
        balanced.nginx.assert_healthy();
    }
}

#[test]
fn max_fails_0_and_a_single_server_are_never_taken_out() {
    for method in BOTH {
        let root = Root::new();
        let balanced = Balanced::start(
            &root,
            "",
            2,
            |ports| {
                format!(
                    "{method} server 127.0.0.1:{} max_fails=0; server 127.0.0.1:{};",
                    ports[0], ports[1]
                )
            },
            "",
        );
        let key = key_of(balanced.port, balanced.servers[0]);
        balanced.fail(0, true);
        let before = balanced.received(0);
        for _ in 0..5 {
            assert_eq!(
                way(&ask(balanced.port, &key)),
                balanced.servers,
                "{method}: tried first every time"
            );
        }
        assert_eq!(balanced.received(0) - before, 5);
        drop(balanced);
        let root = Root::new();
        let balanced = Balanced::start(
            &root,
            "",
            1,
            |ports| format!("{method} server 127.0.0.1:{};", ports[0]),
            "",
        );
        balanced.fail(0, true);
        for _ in 0..5 {
            assert_eq!(ask(balanced.port, "key").status, 502);
        }
        assert_eq!(balanced.received(0), 5, "{method}: there is no other");
        balanced.fail(0, false);
        assert_eq!(ask(balanced.port, "key").status, 200, "{method}: at once");
    }
}

#[test]
fn backups_serve_while_all_others_are_taken_out() {
    // nginx's `hash` has no backups; its round robin does.
    for method in [OURS, ""] {
        let root = Root::new();
        let balanced = Balanced::start(
            &root,
            "",
            3,
            |ports| {
                format!(
                    "{method} server 127.0.0.1:{} fail_timeout=1h; server 127.0.0.1:{} fail_timeout=1h; server 127.0.0.1:{} backup;",
                    ports[0], ports[1], ports[2]
                )
            },
            "",
        );
        balanced.fail(0, true);
        balanced.fail(1, true);
        for number in 0..20 {
            assert_eq!(
                ask(balanced.port, &format!("key-{number}")).status,
                200,
                "{method}"
            );
        }
        assert_eq!(
            (balanced.received(0), balanced.received(1)),
            (1, 1),
            "{method}: each failed once"
        );
        balanced.fail(2, true);
        assert_eq!(ask(balanced.port, "key").status, 502, "{method}");
        let answer = ask(balanced.port, "key");
        assert_eq!(answer.status, 502, "{method}");
        assert!(
            balanced.nginx.errors().contains("no live upstreams"),
            "{method}"
        );
    }
}

/// Lets requests in only when it is opened, and counts those that wait.
#[derive(Default)]
struct Gate {
    waiting: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.waiting.lock().expect("no panic");
        state.0 += 1;
        let mut state = self
            .changed
            .wait_while(state, |state| !state.1)
            .expect("no panic");
        state.0 -= 1;
    }

    fn open(&self) {
        self.waiting.lock().expect("no panic").1 = true;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.waiting.lock().expect("no panic").0
    }
}

/// Two servers, the first of which lets nobody go until its gate opens.
fn gated(
    root: &Root,
    main: &str,
    lines: impl Fn(u16, u16) -> String,
) -> (u16, [u16; 2], [Stub; 2], Arc<Gate>, Nginx) {
    let (port, first) = (root.port(), root.ports(2));
    let gate = Arc::new(Gate::default());
    let stubs = [
        Stub::tcp(first, {
            let gate = Arc::clone(&gate);
            move |request| {
                if request.header("X-Wait").is_some() {
                    gate.pass();
                }
                Answer::ok("first")
            }
        }),
        Stub::tcp(first + 1, |_| Answer::ok("second")),
    ];
    let http = balancing(port, &lines(first, first + 1), "");
    let nginx = Nginx::start_with(root, "balancer", main, &http, port);
    (port, [first, first + 1], stubs, gate, nginx)
}

fn hold(port: u16, key: &str, gate: &Gate) -> thread::JoinHandle<Option<u16>> {
    let before = gate.waiting();
    let key = key.to_owned();
    let visitor = thread::spawn(move || {
        let answer = Request::get("a.test", "/")
            .header("X-Key", &key)
            .header("X-Wait", "1")
            .try_send(port);
        answer.ok().map(|answer| answer.status)
    });
    wait::until_true("the request to be held", || gate.waiting() > before);
    visitor
}

#[test]
fn max_conns_sends_what_is_too_much_elsewhere() {
    for method in BOTH {
        let root = Root::new();
        let (port, servers, _stubs, gate, nginx) = gated(&root, "", |first, second| {
            format!(
                "{method} server 127.0.0.1:{first} max_conns=2; server 127.0.0.1:{second} max_conns=1;"
            )
        });
        let key = key_of(port, servers[0]);
        let held = [hold(port, &key, &gate), hold(port, &key, &gate)];
        for _ in 0..5 {
            assert_eq!(
                way(&ask(port, &key)),
                [servers[1]],
                "{method}: the first one has its two"
            );
        }
        gate.open();
        for visitor in held {
            assert_eq!(visitor.join().expect("no panic"), Some(200));
        }
        assert_eq!(
            way(&ask(port, &key)),
            [servers[0]],
            "{method}: there is room again"
        );
        nginx.assert_healthy();
    }
    // All are full: nobody is left, and nothing waits.
    for method in BOTH {
        let root = Root::new();
        let (port, _, _stubs, gate, nginx) = gated(&root, "", |first, _| {
            format!("{method} server 127.0.0.1:{first} max_conns=1;")
        });
        let held = hold(port, "key", &gate);
        assert_eq!(ask(port, "key").status, 502, "{method}");
        gate.open();
        assert_eq!(held.join().expect("no panic"), Some(200));
        assert_eq!(ask(port, "key").status, 200, "{method}");
        nginx.assert_healthy();
    }
}

const TWO_WORKERS: &str = "worker_processes 2;";

/// Asks until both workers have answered.
fn both_workers(port: u16, key: &str) -> BTreeSet<String> {
    let mut pids = BTreeSet::new();
    wait::until_true("both workers to answer", || {
        let answer = ask(port, key);
        assert_eq!(answer.status, 200);
        pids.insert(answer.header("X-Pid").expect("it says so").to_owned());
        pids.len() == 2
    });
    pids
}

#[test]
fn with_a_zone_all_workers_count_failures_together() {
    for method in BOTH {
        for (zone, attempts) in [("zone sites 256k;", 1), ("", 2)] {
            let root = Root::new();
            let balanced = Balanced::start(
                &root,
                TWO_WORKERS,
                2,
                |ports| {
                    let lines: String = ports
                        .iter()
                        .map(|port| format!("server 127.0.0.1:{port} fail_timeout=1h;"))
                        .collect();
                    format!("{zone} {method} {lines}")
                },
                "",
            );
            let key = key_of(balanced.port, balanced.servers[0]);
            let before = balanced.received(0);
            balanced.fail(0, true);
            both_workers(balanced.port, &key);
            both_workers(balanced.port, &key);
            assert_eq!(balanced.received(0) - before, attempts, "{method} {zone}");
            balanced.nginx.assert_healthy();
        }
    }
}

#[test]
fn a_reload_does_not_forget_what_the_zone_knows() {
    let root = Root::new();
    let balanced = Balanced::start(
        &root,
        "",
        2,
        |ports| {
            let lines: String = ports
                .iter()
                .map(|port| format!("server 127.0.0.1:{port} fail_timeout=1h;"))
                .collect();
            format!("zone sites 256k; {OURS} {lines}")
        },
        "",
    );
    let key = key_of(balanced.port, balanced.servers[0]);
    balanced.fail(0, true);
    assert_eq!(way(&ask(balanced.port, &key)), balanced.servers);
    let before = balanced.received(0);
    balanced.nginx.reload_as_is();
    for _ in 0..5 {
        assert_eq!(way(&ask(balanced.port, &key)), [balanced.servers[1]]);
    }
    assert_eq!(balanced.received(0), before);
    balanced.nginx.assert_healthy();
}

#[test]
fn connections_of_a_killed_worker_do_not_count() {
    let root = Root::new();
    let (port, servers, _stubs, gate, nginx) = gated(&root, "", |first, second| {
        format!(
            "zone sites 256k; {OURS} server 127.0.0.1:{first} max_conns=1; server 127.0.0.1:{second};"
        )
    });
    let key = key_of(port, servers[0]);
    let held = hold(port, &key, &gate);
    assert_eq!(way(&ask(port, &key)), [servers[1]]);
    let worker = nginx.workers()[0];
    process::send(worker, Signal::KILL);
    wait::until_true("another worker", || {
        nginx.workers().first().is_some_and(|new| *new != worker)
    });
    wait::until_true("an answer of the new worker", || {
        let answer = Request::get("a.test", "/")
            .header("X-Key", &key)
            .try_send(port);
        answer.is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(way(&ask(port, &key)), [servers[0]], "there is room again");
    gate.open();
    let _ = held.join();
}

#[test]
fn tries_and_their_time_are_nginx_s_own() {
    for method in BOTH {
        let root = Root::new();
        let balanced = Balanced::start(
            &root,
            "",
            4,
            |ports| {
                let lines: String = ports
                    .iter()
                    .map(|port| format!("server 127.0.0.1:{port} max_fails=0;"))
                    .collect();
                format!("{method} {lines}")
            },
            "proxy_next_upstream_tries 2;",
        );
        for server in 0..4 {
            balanced.fail(server, true);
        }
        let answer = ask(balanced.port, "key");
        assert_eq!((answer.status, way(&answer).len()), (502, 2), "{method}");
        let off = Request::get("a.test", "/")
            .header("X-Key", "key")
            .send(balanced.port);
        assert_eq!(off.status, 502);
    }
}

#[test]
fn ipv6_and_unix_addresses_and_a_name_with_several_serve() {
    let root = Root::new();
    let port = root.ports(4);
    let socket = root.join("backend.sock");
    let http = format!(
        "server {{ listen [::1]:{0}; listen unix:{1}; listen [::1]:{2}; listen 127.0.0.1:{2}; return 200 $server_addr:$server_port; }}
         upstream literal {{ {OURS} server [::1]:{0}; server unix:{1}; paas_keepalive 8; }}
         upstream named {{ {OURS} server localhost:{2}; paas_keepalive 8; }}
         server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection '';
             location / {{ proxy_pass http://literal; }} location /named/ {{ proxy_pass http://named; }} }}",
        port + 1,
        socket.display(),
        port + 2,
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    let answers = |path: &str| -> BTreeSet<String> {
        let keys = (0..64).map(|number| format!("key-{number}"));
        keys.map(|key| {
            let ask = || {
                Request::get("a.test", path)
                    .header("X-Key", &key)
                    .send(port)
                    .expect(200)
            };
            let first = ask();
            assert_eq!(ask(), first, "a key stays where it is");
            first
        })
        .collect()
    };
    let found = answers("/");
    assert_eq!(found.len(), 2, "{found:?}");
    let addresses =
        std::net::ToSocketAddrs::to_socket_addrs(&("localhost", port + 2)).expect("it resolves");
    let addresses: BTreeSet<_> = addresses.collect();
    assert_eq!(
        answers("/named/").len(),
        addresses.len(),
        "keys are spread over {addresses:?}"
    );
    nginx.assert_healthy();
}
