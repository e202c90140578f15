//! `paas_keepalive`: connections to backends are used again, never wrongly, and never for too long.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use paas_tests::stub::Answer;
use paas_tests::tabled::SITES;
use paas_tests::{
    Certificate, Connection, Nginx, Process, Request, Response, Root, Stub, Tabled, process, wait,
};
use routing::State;
use rustix::process::Signal;
use table::Change;

/// An nginx in front of these servers, which chooses the one that the header `X-Key` leads to.
fn balancing(port: u16, keepalive: &str, servers: &[u16]) -> String {
    let lines: String = servers
        .iter()
        .map(|server| format!("server 127.0.0.1:{server};"))
        .collect();
    format!(
        "upstream sites {{ paas_hash $http_x_key; {lines} paas_keepalive {keepalive}; }}
         server {{ listen 127.0.0.1:{port}; location / {{
             proxy_pass http://sites; proxy_http_version 1.1; proxy_set_header Connection $http_x_connection;
             proxy_set_header Upgrade $http_upgrade; add_header X-Backend $paas_backend always;
         }} }}"
    )
}

/// Backends that answer with `behaviour`, and an nginx in front of them.
struct Balanced {
    port: u16,
    stubs: Vec<Stub>,
    nginx: Nginx,
}

impl Balanced {
    fn start(
        root: &Root,
        count: u16,
        keepalive: &str,
        behaviour: impl Fn(&paas_tests::stub::Received) -> Answer + Send + Sync + Clone + 'static,
    ) -> Balanced {
        let (port, first) = (root.port(), root.ports(count));
        let servers: Vec<u16> = (first..first + count).collect();
        let stubs = servers
            .iter()
            .map(|port| Stub::tcp(*port, behaviour.clone()))
            .collect();
        let nginx = Nginx::start(
            root,
            "balancer",
            &balancing(port, keepalive, &servers),
            port,
        );
        Balanced { port, stubs, nginx }
    }

    fn ask(&self, key: &str) -> Response {
        Request::get("a.test", "/")
            .header("X-Key", key)
            .send(self.port)
    }

    fn open(&self) -> usize {
        self.stubs.iter().map(Stub::open).sum()
    }

    fn accepted(&self) -> usize {
        self.stubs.iter().map(accepted).sum()
    }

    fn wait_for_open(&self, count: usize) {
        wait::until_true(&format!("{count} open connections"), || {
            self.open() == count
        });
    }
}

/// How many connections a backend has got, as of its last request.
fn accepted(stub: &Stub) -> usize {
    stub.received().last().map_or(0, |last| last.connections)
}

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("site-{number}.test"))
}

#[test]
fn every_backend_has_its_own_and_uses_it_again() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 5, "16", |_| Answer::ok("x"));
    for _ in 0..10 {
        for key in keys(40) {
            assert_eq!(balanced.ask(&key).expect(200), "x");
        }
    }
    assert_eq!((balanced.open(), balanced.accepted()), (5, 5));
    balanced.nginx.assert_healthy();
}

#[test]
fn the_one_that_was_idle_longest_goes_first() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 4, "2", |_| Answer::ok("x"));
    // One key for each backend.
    let mut of: Vec<(String, String)> = Vec::new();
    for key in keys(100) {
        let backend = balanced.ask(&key);
        let backend = backend.header("X-Backend").expect("it says so").to_owned();
        if of.iter().all(|(_, known)| *known != backend) {
            of.push((key, backend));
        }
    }
    assert_eq!(of.len(), 4, "100 keys lead to all four");
    for (key, _) in &of {
        let _ = balanced.ask(key);
    }
    balanced.wait_for_open(2);
    let before = balanced.accepted();
    for (key, _) in of.iter().rev().take(2) {
        let _ = balanced.ask(key);
    }
    assert_eq!(balanced.accepted(), before, "the two used last were kept");
    balanced.nginx.assert_healthy();
}

#[test]
fn of_one_backend_no_more_are_kept_than_its_bound() {
    let root = Root::new();
    let gate = Arc::new(Barrier::new(6));
    let balanced = Balanced::start(&root, 1, "64 per_peer=2", {
        let gate = Arc::clone(&gate);
        move |_| {
            gate.wait();
            Answer::ok("x")
        }
    });
    let visitors: Vec<_> = (0..6)
        .map(|_| {
            let port = balanced.port;
            thread::spawn(move || Request::get("a.test", "/").send(port).expect(200))
        })
        .collect();
    for visitor in visitors {
        assert_eq!(visitor.join().expect("answered"), "x");
    }
    assert_eq!(balanced.accepted(), 6);
    balanced.wait_for_open(2);
    balanced.nginx.assert_healthy();
}

#[test]
fn an_idle_connection_ends_after_its_time() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 2, "8 timeout=50ms", |_| Answer::ok("x"));
    for round in 1..4 {
        for key in keys(20) {
            let _ = balanced.ask(&key);
        }
        balanced.wait_for_open(0);
        assert!(balanced.accepted() >= 2 * round);
    }
    balanced.nginx.assert_healthy();
}

/// One backend, which takes its time for what is slow, and an nginx that waits for it 300 ms or for long.
fn waiting(root: &Root) -> (u16, Stub, Nginx) {
    let (port, backend) = (root.port(), root.port());
    let stub = Stub::tcp(backend, |request| {
        match request.target.rsplit('/').next() {
            Some("slow") => thread::sleep(Duration::from_secs(1)),
            Some("slower") => thread::sleep(Duration::from_millis(150)),
            _ => (),
        }
        Answer::ok("x")
    });
    let http = format!(
        "upstream sites {{ paas_hash $host; server 127.0.0.1:{backend}; paas_keepalive 8; }}
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off;
         server {{ listen 127.0.0.1:{port};
             location /short/ {{ proxy_pass http://sites; proxy_read_timeout 300ms; }}
             location /long/ {{ proxy_pass http://sites; proxy_read_timeout 60s; }}
             location /kept/ {{ proxy_pass http://sites; proxy_read_timeout 9s; }}
         }}"
    );
    let nginx = Nginx::start(root, "balancer", &http, port);
    (port, stub, nginx)
}

#[test]
fn the_read_time_out_of_one_request_is_not_that_of_the_next() {
    let root = Root::new();
    let (port, stub, nginx) = waiting(&root);
    let ask = |target: &str| Request::get("a.test", target).send(port).status;
    assert_eq!(ask("/short/x"), 200);
    assert_eq!(ask("/long/slow"), 200, "it may take longer");
    assert_eq!(ask("/long/x"), 200);
    assert_eq!(ask("/short/slow"), 504, "it may not take so long");
    // Of the time of the one before only what is left is less than the next takes.
    assert_eq!(ask("/short/x"), 200);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ask("/short/slower"), 200);
    // One that is idle waits for nothing, so no time passes for it.
    assert_eq!(ask("/short/x"), 200);
    thread::sleep(Duration::from_secs(1));
    let before = accepted(&stub);
    assert_eq!(ask("/short/x"), 200);
    assert_eq!(accepted(&stub), before, "the connection was used again");
    nginx.assert_healthy();
}

#[test]
fn the_read_time_out_does_not_pass_while_a_request_is_sent() {
    let root = Root::new();
    let (port, stub, nginx) = waiting(&root);
    assert_eq!(Request::get("a.test", "/kept/x").send(port).status, 200);
    let mut visitor = TcpStream::connect(("127.0.0.1", port)).expect("nginx listens");
    let head =
        "POST /kept/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 8\r\n\r\n";
    visitor.write_all(head.as_bytes()).expect("sent");
    // Longer than the time-out: the least for which the timer of the request before is left where it is.
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(1_200));
        visitor.write_all(b"x").expect("sent");
    }
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(accepted(&stub), 1, "the connection was used again");
    nginx.assert_healthy();
}

#[test]
fn a_connection_serves_no_more_requests_and_grows_no_older_than_allowed() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 1, "8 requests=3", |_| Answer::ok("x"));
    for _ in 0..9 {
        let _ = balanced.ask("key");
    }
    assert_eq!(balanced.accepted(), 3);
    drop(balanced);
    let root = Root::new();
    let balanced = Balanced::start(&root, 1, "8 time=1ms", |_| {
        thread::sleep(Duration::from_millis(5));
        Answer::ok("x")
    });
    for _ in 0..3 {
        let _ = balanced.ask("key");
    }
    assert_eq!(balanced.accepted(), 3, "each was older than a millisecond");
    balanced.nginx.assert_healthy();
}

#[test]
fn what_must_not_be_used_again_is_not() {
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    let cases: [(&str, Answer, u16, &str); 6] = [
        (
            "the backend says close",
            Answer::ok("x").header("Connection", "close"),
            200,
            "x",
        ),
        (
            "more than was announced",
            raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
            ),
            200,
            "x",
        ),
        (
            "HTTP/1.0",
            raw("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
            200,
            "x",
        ),
        ("no answer", Answer::Close, 502, ""),
        ("a reset", Answer::Reset, 502, ""),
        (
            "no HTTP",
            raw("SSH-2.0-OpenSSH\r\n\r\n"),
            200,
            "SSH-2.0-OpenSSH\r\n\r\n",
        ),
    ];
    for (what, answer, status, body) in cases {
        let root = Root::new();
        let balanced = Balanced::start(&root, 1, "8", move |request| {
            match request.target.as_str() {
                "/bad" => answer.clone(),
                _ => Answer::ok("good"),
            }
        });
        let _ = balanced.ask("key");
        let mut visitor = Connection::open(balanced.port).expect("nginx listens");
        visitor
            .send_bytes(b"GET /bad HTTP/1.1\r\nHost: a.test\r\nX-Key: key\r\n\r\n")
            .expect("sent");
        if what == "no HTTP" {
            // nginx passes on what is no HTTP/1.1 as HTTP/0.9: until the other side closes, so there is no end to wait for.
            drop(visitor);
        } else {
            let got = visitor.receive(false).expect("an answer");
            assert_eq!(got.status, status, "{what}");
            assert!(got.text().starts_with(body), "{what}: {got:?}");
        }
        // Whatever was said there, the next request gets its own answer, on another connection.
        let before = balanced.accepted();
        assert_eq!(balanced.ask("key").expect(200), "good", "{what}");
        assert_eq!(balanced.accepted(), before + 1, "{what}: a new connection");
        balanced.wait_for_open(1);
        balanced.nginx.assert_healthy();
    }
}

#[test]
fn an_upgraded_connection_is_its_visitor_s_alone() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 1, "8", |request| match request.header("upgrade") {
        Some(_) => Answer::Raw(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
                .to_vec(),
        ),
        None => Answer::ok("x"),
    });
    let _ = balanced.ask("key");
    let mut visitor = Connection::open(balanced.port).expect("nginx listens");
    visitor
        .send_bytes(
            b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Key: key\r\nUpgrade: echo\r\nX-Connection: upgrade\r\nConnection: upgrade\r\n\r\n",
        )
        .expect("sent");
    let mut stream_open = 0;
    wait::until_true("the request to be upgraded", || {
        stream_open = balanced.open();
        balanced.stubs[0].received().len() == 2
    });
    assert_eq!(stream_open, 1);
    let _ = balanced.ask("key");
    assert_eq!(
        balanced.open(),
        2,
        "another request gets another connection"
    );
    drop(visitor);
    balanced.wait_for_open(1);
    balanced.nginx.assert_healthy();
}

#[test]
fn a_post_never_meets_a_connection_that_was_closed_before_it_was_read() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 1, "8", |_| Answer::ok("x"));
    let mut visitor = Connection::open(balanced.port).expect("nginx listens");
    let post = Request::post("a.test", "/", "once").header("X-Key", "key");
    for round in 1..=10 {
        assert_eq!(visitor.exchange(&post).expect("an answer").status, 200);
        // Both lie before the worker when it wakes, the request first: nginx has not heard of the close when it chooses.
        let worker = balanced.nginx.workers()[0];
        process::send(worker, Signal::STOP);
        visitor.send(&post).expect("sent");
        balanced.stubs[0].hang_up();
        process::send(worker, Signal::CONT);
        assert_eq!(
            visitor.receive(false).expect("an answer").status,
            200,
            "round {round}"
        );
    }
    assert_eq!(balanced.stubs[0].received().len(), 20, "each arrived once");
    balanced.nginx.assert_healthy();
}

#[test]
fn a_reload_does_not_wait_for_idle_connections() {
    let root = Root::new();
    let balanced = Balanced::start(&root, 4, "64 timeout=1h", |_| Answer::ok("x"));
    for key in keys(50) {
        let _ = balanced.ask(&key);
    }
    let old = balanced.nginx.workers();
    balanced.nginx.reload_as_is();
    wait::until_true("the old worker to end", || {
        old.iter()
            .all(|worker| process::Seen::look(*worker).is_none())
    });
    balanced.wait_for_open(0);
    assert_eq!(balanced.ask("key").expect(200), "x");
    balanced.nginx.assert_healthy();
}

/// An nginx that says which connection a request came on.
const TELL: &str = "return 200 $connection,$connection_requests;";

/// Asks `count` times, and returns on how many connections the requests came.
fn connections(port: u16, count: usize) -> usize {
    let seen: std::collections::BTreeSet<String> = (0..count)
        .map(|_| {
            let body = Request::get("a.test", "/")
                .header("X-Key", "key")
                .send(port)
                .expect(200);
            body.split(',').next().expect("a number").to_owned()
        })
        .collect();
    seen.len()
}

#[test]
fn over_tls_connections_and_sessions_are_used_again() {
    let root = Root::new();
    let made = Certificate::new(&root, &["backend.test"]);
    let (certificate, key) = (made.certificate.display(), made.key.display());
    let port = root.ports(3);
    let http = |keepalive: &str| {
        format!(
            "upstream sites {{ paas_hash $http_x_key; server 127.0.0.1:{}; {keepalive} }}
             server {{ listen 127.0.0.1:{} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2;
                 ssl_session_cache shared:s:1m; return 200 $connection,$ssl_session_reused; }}
             server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection '';
                 location / {{ proxy_pass https://sites; }}
                 location /other/ {{ proxy_pass https://sites; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate};
                     proxy_ssl_name wrong.test; }}
             }}",
            port + 1,
            port + 1,
        )
    };
    let nginx = Nginx::start(&root, "balancer", &http("paas_keepalive 4;"), port);
    assert_eq!(connections(port, 10), 1);
    let other = Request::get("a.test", "/other/")
        .header("X-Key", "key")
        .send(port);
    assert_eq!(
        other.status, 502,
        "a location with other checks does not get a connection that was never checked"
    );
    nginx.reload(&http(""));
    let bodies: Vec<String> = (0..3)
        .map(|_| {
            Request::get("a.test", "/")
                .header("X-Key", "key")
                .send(port)
                .expect(200)
        })
        .collect();
    assert!(
        bodies[0].ends_with(",."),
        "the first session is new: {bodies:?}"
    );
    assert!(
        bodies[2].ends_with(",r"),
        "a session is used again: {bodies:?}"
    );
    nginx.assert_healthy();
}

#[test]
fn grpc_pass_uses_its_connection_again() {
    let root = Root::new();
    let port = root.ports(2);
    let http = format!(
        "upstream sites {{ paas_hash $http_x_key; server 127.0.0.1:{0}; paas_keepalive 4; }}
         server {{ listen 127.0.0.1:{0} http2; {TELL} }}
         server {{ listen 127.0.0.1:{port}; location / {{ grpc_pass grpc://sites; }} }}",
        port + 1,
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    assert_eq!(connections(port, 10), 1);
    nginx.assert_healthy();
}

#[test]
fn fastcgi_pass_uses_its_connection_again_if_told_to_keep_it() {
    let root = Root::new();
    let port = root.ports(2);
    let accepted = fastcgi::serve(port + 1);
    let http = |keep: &str| {
        format!(
            "upstream sites {{ paas_hash $http_x_key; server 127.0.0.1:{}; paas_keepalive 4; }}
             server {{ listen 127.0.0.1:{port}; location / {{ fastcgi_pass sites; fastcgi_keep_conn {keep};
                 fastcgi_param REQUEST_METHOD $request_method; }} }}",
            port + 1,
        )
    };
    let nginx = Nginx::start(&root, "balancer", &http("on"), port);
    let ask = || {
        Request::get("a.test", "/")
            .header("X-Key", "key")
            .send(port)
            .expect(200)
    };
    for _ in 0..10 {
        assert_eq!(ask(), "fast");
    }
    assert_eq!(accepted.load(std::sync::atomic::Ordering::SeqCst), 1);
    nginx.reload(&http("off"));
    for _ in 0..3 {
        assert_eq!(ask(), "fast");
    }
    assert_eq!(accepted.load(std::sync::atomic::Ordering::SeqCst), 4);
    nginx.assert_healthy();
}

/// As much of FastCGI as a responder needs.
mod fastcgi {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// Answers every request; returns how many connections came. Its thread ends with the test's process.
    pub fn serve(port: u16) -> Arc<AtomicUsize> {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port of ours");
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || converse(stream));
            }
        });
        accepted
    }

    fn converse(mut stream: TcpStream) -> Option<()> {
        const BEGIN: u8 = 1;
        const STDIN: u8 = 5;
        let mut keep = false;
        loop {
            let mut head = [0; 8];
            stream.read_exact(&mut head).ok()?;
            let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
            let mut content = vec![0; length + usize::from(head[6])];
            stream.read_exact(&mut content).ok()?;
            match head[1] {
                BEGIN => keep = content[2] & 1 != 0,
                STDIN if length == 0 => {
                    let body = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nfast";
                    let mut answer = record(6, body);
                    answer.extend(record(6, b""));
                    answer.extend(record(3, &[0; 8]));
                    stream.write_all(&answer).ok()?;
                    if !keep {
                        return None;
                    }
                }
                _ => (),
            }
        }
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        let mut bytes = vec![1, kind, 0, 1, length[0], length[1], 0, 0];
        bytes.extend(content);
        bytes
    }
}

#[test]
fn uwsgi_pass_works_beside_it() {
    let root = Root::new();
    let port = root.ports(2);
    let app = root.write(
        "app.py",
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [environ['PATH_INFO'].encode()]\n",
    );
    let mut command = std::process::Command::new("uwsgi");
    command.args([
        "--plugin",
        "python3",
        "--uwsgi-socket",
        &format!("127.0.0.1:{}", port + 1),
    ]);
    command.args([
        "--wsgi-file",
        &app.to_string_lossy(),
        "--uid",
        "www-data",
        "--gid",
        "www-data",
    ]);
    let _uwsgi = Process::start("uwsgi", &mut command, &root.join("uwsgi.log"), Signal::INT);
    let http = format!(
        "upstream sites {{ paas_hash $http_x_key; server 127.0.0.1:{}; paas_keepalive 4; }}
         server {{ listen 127.0.0.1:{port}; location / {{
             uwsgi_pass sites; uwsgi_param REQUEST_METHOD $request_method; uwsgi_param PATH_INFO $uri;
             uwsgi_param QUERY_STRING $query_string; uwsgi_param SERVER_PROTOCOL $server_protocol; }} }}",
        port + 1,
    );
    let nginx = Nginx::start(&root, "balancer", &http, port);
    let ask = |path: &str| {
        Request::get("a.test", path)
            .header("X-Key", "key")
            .send(port)
    };
    wait::until_true("uWSGI to answer", || ask("/").status == 200);
    for number in 0..20 {
        assert_eq!(ask(&format!("/{number}")).expect(200), format!("/{number}"));
    }
    nginx.assert_healthy();
}

#[test]
fn connections_to_a_backend_that_goes_or_moves_are_closed() {
    let root = Root::new();
    let mut tabled = Tabled::start(&root, 6, |_, _| Answer::ok("x"));
    for site in 0..SITES {
        assert_eq!(tabled.ask(site).status, 200);
    }
    assert!((0..6).all(|at| tabled.open(at) == 1), "one for each");
    // The site that is asked for then is on none of these three.
    let others: Vec<usize> = (0..6).filter(|at| *at != tabled.home(0)).collect();
    let (disabled, removed, moved) = (others[0], others[1], others[2]);
    let mut record = tabled.records[disabled].clone();
    record.state = State::Disabled;
    let mut elsewhere = tabled.records[moved].clone();
    let port = root.port();
    let _new = Stub::tcp(port, |_| Answer::ok("x"));
    elsewhere.address = ([127, 0, 0, 1], port).into();
    tabled.apply([
        Change::PutBackend(record),
        Change::DeleteBackend(tabled.records[removed].id),
        Change::PutBackend(elsewhere),
    ]);
    assert_eq!(tabled.ask(0).status, 200);
    wait::until_true("the connections of three to be closed", || {
        others[..3].iter().all(|at| tabled.open(*at) == 0)
    });
    assert!(
        others[3..].iter().all(|at| tabled.open(*at) == 1),
        "those of the others are not touched"
    );
    tabled.nginx.assert_healthy();
}
