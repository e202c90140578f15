//! A backend that answers "the site does not run here, and I wake none": the balancer goes on with the next one, whatever the
//! method and however large the body. The backends are stubs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paas_tests::stub::{Answer, Received};
use paas_tests::{Nginx, Request, Root, Stub, nginx, wait};
use routing::{Backends, Domain, Placement, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, Protocol, SiteId, SiteRecord, Writer};

const BACKENDS: u32 = 5;

/// A balancer whose draining backends wake nobody.
struct Balancer {
    port: u16,
    first: u16,
    writer: Writer,
    generation: u64,
    nginx: Nginx,
    stubs: Vec<Stub>,
    /// Whether the backends with these numbers answer "elsewhere".
    emptied: Vec<Arc<AtomicBool>>,
}

fn elsewhere() -> Answer {
    Answer::status(503, "not here, and a page that nobody reads")
        .header("Retry-After", "1")
        .header("X-Paas-Reason", "elsewhere")
}

fn told(name: u32, request: &Received) -> Answer {
    let sum = request
        .body
        .iter()
        .map(|byte| u64::from(*byte))
        .sum::<u64>();
    Answer::ok(format!(
        "b{name} {} {} {sum}",
        request.method,
        request.body.len()
    ))
}

impl Balancer {
    /// `proxy` is what stands in the location beside `proxy_pass`, `upstream` what follows `paas_hash`.
    fn start(root: &Root, proxy: &str, upstream: &str) -> Balancer {
        let port = root.port();
        let first = root.ports(u16::try_from(BACKENDS).expect("few"));
        let table: PathBuf = root.join("table");
        let http = format!(
            "paas_table {};
             upstream backends {{ paas_hash; {upstream} }}
             server {{
                 listen 127.0.0.1:{port} default_server;
                 paas_role balancer;
                 location / {{
                     proxy_pass http://backends;
                     proxy_set_header Host $http_host;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     add_header X-Tried $upstream_addr always;
                     add_header X-Statuses $upstream_status always;
                     {proxy}
                 }}
             }}",
            table.display()
        );
        let nginx = Nginx::start(root, "balancer", &http, port);
        let emptied: Vec<Arc<AtomicBool>> = (0..BACKENDS).map(|_| Arc::default()).collect();
        let stubs = (1..=BACKENDS)
            .zip(&emptied)
            .map(|(number, emptied)| {
                let emptied = Arc::clone(emptied);
                let port = first + u16::try_from(number - 1).expect("few");
                Stub::tcp(port, move |request| match emptied.load(Ordering::SeqCst) {
                    true => elsewhere(),
                    false => told(number, request),
                })
            })
            .collect();
        let options = Options {
            group: Some(nginx::group()),
            max_readers: 64,
            ..Options::default()
        };
        let mut balancer = Balancer {
            port,
            first,
            writer: Writer::open_or_create(&table, options).expect("a table can be made"),
            generation: 0,
            nginx,
            stubs,
            emptied,
        };
        let mut changes: Vec<Change> = (1..=BACKENDS)
            .map(|number| balancer.backend(number, State::Active))
            .collect();
        changes.extend((0..40).map(site));
        balancer.apply(changes);
        wait::until_true("the table to be seen", || {
            Request::get(name(0), "/").send(port).status == 200
        });
        balancer
    }

    fn backend(&self, number: u32, state: State) -> Change {
        let port = self.first + u16::try_from(number - 1).expect("few");
        Change::PutBackend(BackendRecord {
            id: BackendId::new(number).expect("not 0"),
            name: format!("b{number}"),
            key: format!("10.0.0.{number}:80").into_bytes(),
            address: ([127, 0, 0, 1], port).into(),
            weight: Weight::ONE,
            state,
        })
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.generation += 1;
        let generation = self.generation;
        self.writer.apply(generation, changes).expect("written");
    }

    /// The registry says that a backend is drained, and it knows.
    fn drain(&mut self, number: u32) {
        self.emptied[number as usize - 1].store(true, Ordering::SeqCst);
        let change = self.backend(number, State::Draining);
        self.apply(vec![change]);
    }

    fn received(&self, number: u32, host: &str) -> usize {
        let received = self.stubs[number as usize - 1].received();
        let of_host = |request: &&Received| request.header("host") == Some(host);
        received.iter().filter(of_host).count()
    }
}

fn name(number: u64) -> String {
    format!("site-{number}.test")
}

fn site(number: u64) -> Change {
    let primary = Domain::parse(&name(number)).expect("a domain");
    let record = SiteRecord {
        id: SiteId::new(number + 1).expect("not 0"),
        primary: primary.clone(),
        pin: None,
        enabled: true,
        protocol: Protocol::Uwsgi,
    };
    Change::PutHost(primary, record)
}

/// The numbers of the backends in the order of a site.
fn order(number: u64) -> Vec<u32> {
    let keys: Vec<String> = (1..=BACKENDS).map(|n| format!("10.0.0.{n}:80")).collect();
    let backends = Backends::new(keys.iter().map(|key| routing::Candidate {
        key: key.as_bytes(),
        weight: Weight::ONE,
        state: State::Active,
    }));
    let order = backends.preference(name(number).as_bytes(), None, &Placement::default());
    order.into_iter().map(|index| index as u32 + 1).collect()
}

#[test]
fn the_next_one_gets_the_request_whole_and_once_whatever_nginx_may_retry() {
    // nginx's own rules would go on with none of these, or with two of five.
    for (proxy, upstream) in [
        ("proxy_next_upstream off;", "paas_keepalive 16;"),
        (
            "proxy_next_upstream error timeout; proxy_next_upstream_tries 2;",
            "",
        ),
        ("proxy_next_upstream_tries 1;", "keepalive 16;"),
    ] {
        let root = Root::new();
        let mut balancer = Balancer::start(&root, proxy, upstream);
        let order = order(1);
        for drained in &order[..3] {
            balancer.drain(*drained);
        }
        let next = format!("b{}", order[3]);
        let mut expected = 0;
        for (method, size) in [
            ("POST", 5_000_000),
            ("GET", 0),
            ("PATCH", 70_000),
            ("POST", 1),
        ] {
            let mut request = Request::new(method, name(1), "/");
            if size > 0 {
                request = request.body(vec![7; size]);
            }
            let answer = request.send(balancer.port);
            assert_eq!(
                answer.expect(200),
                format!("{next} {method} {size} {}", 7 * size),
                "{proxy}"
            );
            expected += 1;
            assert_eq!(
                balancer.received(order[3], &name(1)),
                expected,
                "{method}: once"
            );
        }
        let chunked = Request::new("POST", name(1), "/").chunks(["one ", "two"]);
        let _ = chunked.send(balancer.port).expect(200);
        assert_eq!(balancer.received(order[4], &name(1)), 0, "nobody beyond it");
        balancer.nginx.assert_healthy();
    }
}

#[test]
fn a_draining_backend_is_asked_once_for_a_site_that_it_does_not_run() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root, "", "paas_keepalive 16;");
    let order = order(2);
    let host = name(2);
    balancer.drain(order[0]);
    let ask = |balancer: &Balancer| Request::get(name(2), "/").send(balancer.port);
    let first = ask(&balancer);
    assert_eq!(first.header("x-statuses"), Some("503, 200"), "{first:?}");
    for _ in 0..10 {
        let answer = ask(&balancer);
        assert_eq!(answer.header("x-statuses"), Some("200"), "{answer:?}");
        assert!(answer.expect(200).starts_with(&format!("b{}", order[1])));
    }
    assert_eq!(balancer.received(order[0], &host), 1);
    // Whatever changes about backends: it is asked again, and here the site has come back.
    balancer.emptied[order[0] as usize - 1].store(false, Ordering::SeqCst);
    let change = balancer.backend(order[0], State::Active);
    balancer.apply(vec![change]);
    assert!(
        ask(&balancer)
            .expect(200)
            .starts_with(&format!("b{}", order[0]))
    );
    // One whose daemon has not heard yet that it is in service is not taken at its word for longer than a request.
    balancer.emptied[order[0] as usize - 1].store(true, Ordering::SeqCst);
    assert!(
        ask(&balancer)
            .expect(200)
            .starts_with(&format!("b{}", order[1]))
    );
    balancer.emptied[order[0] as usize - 1].store(false, Ordering::SeqCst);
    assert!(
        ask(&balancer)
            .expect(200)
            .starts_with(&format!("b{}", order[0]))
    );
    balancer.nginx.assert_healthy();
}

#[test]
fn a_site_that_is_awake_on_a_draining_backend_stays_there() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root, "", "paas_keepalive 16;");
    for number in 0..40 {
        let home = order(number)[0];
        let change = balancer.backend(home, State::Draining);
        balancer.apply(vec![change]);
        let answer = Request::post(name(number), "/", "x").send(balancer.port);
        assert!(answer.expect(200).starts_with(&format!("b{home} ")));
        let change = balancer.backend(home, State::Active);
        balancer.apply(vec![change]);
    }
    balancer.nginx.assert_healthy();
}

#[test]
fn where_all_are_emptied_the_last_word_is_that_of_a_backend() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root, "", "paas_keepalive 16;");
    for number in 1..=BACKENDS {
        balancer.drain(number);
    }
    for round in 1..=2 {
        let answer = Request::post(name(3), "/", "body").send(balancer.port);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        for number in 1..=BACKENDS {
            assert_eq!(
                balancer.received(number, &name(3)),
                round,
                "each is asked once"
            );
        }
    }
    balancer.nginx.assert_healthy();
}

#[test]
fn only_this_answer_means_that_and_only_from_backends_of_the_table() {
    let root = Root::new();
    let (site, port) = (root.port(), root.port());
    let answers = [
        Answer::status(503, "busy"),
        Answer::status(503, "busy").header("X-Paas-Reason", "overloaded"),
        Answer::status(502, "dead").header("X-Paas-Reason", "elsewhere"),
        Answer::ok("fine").header("X-Paas-Reason", "elsewhere"),
    ];
    for answer in answers {
        let Answer::Reply(status, ..) = answer else {
            unreachable!("they are replies")
        };
        let root = Root::new();
        let mut balancer = Balancer::start(&root, "", "");
        let home = order(4)[0];
        drop(balancer.stubs.remove(home as usize - 1));
        let given = answer.clone();
        let port = balancer.first + u16::try_from(home - 1).expect("few");
        let stub = Stub::tcp(port, move |_| given.clone());
        let got = Request::post(name(4), "/", "x").send(balancer.port);
        assert_eq!(got.status, status, "{answer:?}");
        assert_eq!(stub.received().len(), 1);
        let others: usize = balancer
            .stubs
            .iter()
            .map(|stub| stub.received().len())
            .sum();
        // One looked whether the table is there.
        assert!(others <= 1, "{answer:?}: {others}");
        balancer.nginx.assert_healthy();
    }
    // `server` lines may lead to anybody.
    let http = format!(
        "upstream servers {{ paas_hash $host; server 127.0.0.1:{site}; server localhost:{site}; }}
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://servers; }} }}"
    );
    let nginx = Nginx::start(&root, "servers", &http, port);
    let stub = Stub::tcp(site, |_| elsewhere());
    assert_eq!(Request::get("a.test", "/").send(port).status, 503);
    assert_eq!(stub.received().len(), 1);
    nginx.assert_healthy();
}

#[test]
fn a_body_that_nginx_does_not_keep_is_not_sent_on() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root, "proxy_request_buffering off;", "");
    balancer.drain(order(5)[0]);
    let answer = Request::post(name(5), "/", vec![1; 2_000_000]).send(balancer.port);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    balancer.nginx.assert_healthy();
}
