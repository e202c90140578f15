//! What nobody has seen goes to the next backend, whatever its method. What somebody may have seen is sent again only if its method
//! allows it. Nothing is run twice otherwise: counted by the backends.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use paas_tests::stub::Answer;
use paas_tests::tabled::Lines;
use paas_tests::{Connection, Request, Response, Root, Tabled};

const METHODS: [(&str, bool); 8] = [
    ("GET", true),
    ("HEAD", true),
    ("PUT", true),
    ("DELETE", true),
    ("OPTIONS", true),
    ("POST", false),
    ("PATCH", false),
    ("LOCK", false),
];

/// As the balancer's location is rendered.
const LOCATION: &str =
    "proxy_connect_timeout 300ms; proxy_next_upstream error timeout; proxy_next_upstream_tries 3;";

fn tabled(
    root: &Root,
    location: &str,
    behaviour: impl Fn(usize, &paas_tests::stub::Received) -> Answer + Send + Sync + 'static,
) -> Tabled {
    let lines = Lines {
        http: "paas_eject off;",
        location,
        ..Lines::default()
    };
    Tabled::start_with(root, 3, lines, behaviour)
}

fn ask(tabled: &Tabled, method: &str, mark: &str) -> Response {
    let request = Request::new(method, "site-0.test", "/").header("X-Mark", mark);
    let request = match method {
        "POST" | "PUT" | "PATCH" => request.body("x".repeat(100_000)),
        _ => request,
    };
    request.send(tabled.port)
}

/// How often a request arrived whole, anywhere.
fn arrived(tabled: &Tabled, mark: &str) -> usize {
    let of = |backend| {
        let received = tabled.received(backend);
        let ours = received
            .iter()
            .filter(|request| request.header("X-Mark") == Some(mark));
        ours.inspect(|request| {
            if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
                assert_eq!(request.body.len(), 100_000, "whole");
            }
        })
        .count()
    };
    (0..3).map(of).sum()
}

#[test]
fn a_dead_backend_costs_no_request() {
    let root = Root::new();
    let mut tabled = tabled(&root, LOCATION, |_, _| Answer::ok("x"));
    tabled.kill(tabled.home(0));
    for (method, _) in METHODS {
        let answer = ask(&tabled, method, method);
        assert_eq!(
            (answer.status, tabled.way(&answer).len()),
            (200, 2),
            "{method}"
        );
        assert_eq!(arrived(&tabled, method), 1, "{method}");
    }
    tabled.nginx.assert_healthy();
}

#[test]
fn a_backend_that_accepts_no_connection_costs_no_request() {
    let root = Root::new();
    let mut tabled = tabled(&root, LOCATION, |_, _| Answer::ok("x"));
    let home = tabled.home(0);
    tabled.kill(home);
    // A queue of connections that nobody accepts: once it is full the kernel drops what comes, as an unplugged machine does.
    let address = tabled.records[home].address;
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .expect("a socket");
    rustix::net::sockopt::set_socket_reuseaddr(&listener, true).expect("ours");
    rustix::net::bind(&listener, &address).expect("the port is free");
    rustix::net::listen(&listener, 0).expect("ours");
    let filling = fill(address);
    for (method, _) in METHODS {
        let answer = ask(&tabled, method, method);
        assert_eq!(
            (answer.status, tabled.way(&answer).len()),
            (200, 2),
            "{method}"
        );
        assert_eq!(arrived(&tabled, method), 1, "{method}");
    }
    drop(filling);
    tabled.nginx.assert_healthy();
}

/// Connects until nobody is let in any more.
fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        connections.push(connection);
        assert!(connections.len() < 100, "the queue has an end");
    }
    connections
}

#[test]
fn what_a_backend_may_have_run_is_not_run_again_unless_its_method_allows_it() {
    for (what, answer) in [("a reset", Answer::Reset), ("a close", Answer::Close)] {
        let root = Root::new();
        let tabled = tabled(&root, LOCATION, move |_, _| answer.clone());
        for (method, again) in METHODS {
            assert_eq!(ask(&tabled, method, method).status, 502, "{what} {method}");
            let times = if again { 3 } else { 1 };
            assert_eq!(arrived(&tabled, method), times, "{what} {method}");
        }
        tabled.nginx.assert_healthy();
    }
}

#[test]
fn on_a_kept_connection_the_same_holds() {
    let root = Root::new();
    let tabled = tabled(&root, LOCATION, |_, request| {
        match request.header("X-Mark") {
            Some("warm") => Answer::ok("x"),
            _ => Answer::Reset,
        }
    });
    for (method, again) in METHODS {
        assert_eq!(ask(&tabled, "GET", "warm").status, 200);
        assert_eq!(ask(&tabled, method, method).status, 502, "{method}");
        // The reset of a kept connection may mean that it was stale: the same backend is asked once more than the others are.
        let times = if again { 4 } else { 1 };
        assert_eq!(arrived(&tabled, method), times, "{method}");
    }
    tabled.nginx.assert_healthy();
}

#[test]
fn a_frozen_backend_runs_nothing_twice() {
    let root = Root::new();
    let location = format!("{LOCATION} proxy_read_timeout 500ms;");
    let mut tabled = tabled(&root, &location, |_, _| Answer::ok("x"));
    let home = tabled.home(0);
    tabled.kill(home);
    // The kernel goes on taking connections and bytes; nobody answers.
    let frozen = TcpListener::bind(tabled.records[home].address).expect("the port is free");
    for (method, again) in METHODS {
        let answer = ask(&tabled, method, method);
        let (status, elsewhere) = if again { (200, 1) } else { (504, 0) };
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(arrived(&tabled, method), elsewhere, "{method}");
    }
    drop(frozen);
    tabled.nginx.assert_healthy();
}

#[test]
fn a_body_that_still_comes_in_is_sent_whole_to_the_next() {
    let root = Root::new();
    let mut tabled = tabled(&root, LOCATION, |_, _| Answer::ok("x"));
    tabled.kill(tabled.home(0));
    let mut visitor = Connection::open(tabled.port).expect("nginx listens");
    let head =
        "POST / HTTP/1.1\r\nHost: site-0.test\r\nX-Mark: slow\r\nContent-Length: 100000\r\n\r\n";
    visitor.send_bytes(head.as_bytes()).expect("sent");
    for _ in 0..10 {
        visitor.send_bytes(&[b'x'; 10_000]).expect("sent");
    }
    let answer = visitor.receive(false).expect("an answer");
    assert_eq!((answer.status, arrived(&tabled, "slow")), (200, 1));
    tabled.nginx.assert_healthy();
}
