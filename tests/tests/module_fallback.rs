//! `paas_fallback` without our daemon: a vassal file the operator names, and the operator's own
//! service that starts a site. The site is a stub behind a unix socket.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use paas_tests::stub::{Answer, Received};
use paas_tests::{Connection, Nginx, Request, Root, Stub, wait};

/// An nginx in front of one site.
struct Front {
    nginx: Nginx,
    port: u16,
    socket: PathBuf,
    vassal: PathBuf,
    service: PathBuf,
}

fn front(root: &Root, arguments: &str) -> Front {
    let port = root.port();
    let path = root.path().display();
    let http = format!(
        "server {{
            listen 127.0.0.1:{port};
            recursive_error_pages on;
            location / {{
                proxy_pass http://unix:{path}/app.sock;
                error_page 502 = @wake;
            }}
            location @wake {{
                paas_fallback vassal={path}/vassal initialize=/init {arguments};
                proxy_pass http://unix:{path}/app.sock;
                add_header X-Sent $paas_sent always;
                add_header X-Idempotent $paas_idempotent always;
            }}
            location = /init {{
                internal;
                proxy_pass http://unix:{path}/init.sock;
                proxy_pass_request_body off;
                proxy_set_header Content-Length '';
                proxy_set_header X-Original $request_uri;
                proxy_set_header X-Sent $paas_sent;
                proxy_set_header X-Idempotent $paas_idempotent;
            }}
        }}"
    );
    let nginx = Nginx::start(root, "front", &http, port);
    Front {
        nginx,
        port,
        socket: root.join("app.sock"),
        vassal: root.join("vassal"),
        service: root.join("init.sock"),
    }
}

fn echo(request: &Received) -> Answer {
    Answer::ok(format!(
        "{} {} {}",
        request.method,
        request.target,
        String::from_utf8_lossy(&request.body)
    ))
}

/// A wake service that starts the site (a stub on its socket) once, whoever asks.
fn waking(front: &Front) -> (Stub, Arc<Mutex<Option<Stub>>>) {
    let site: Arc<Mutex<Option<Stub>>> = Arc::default();
    let started = Arc::clone(&site);
    let socket = front.socket.clone();
    let service = Stub::unix(&front.service, move |_| {
        started
            .lock()
            .expect("not poisoned")
            .get_or_insert_with(|| Stub::unix(&socket, echo));
        Answer::status(204, "")
    });
    (service, site)
}

fn received(site: &Mutex<Option<Stub>>) -> Vec<Received> {
    site.lock()
        .expect("not poisoned")
        .as_ref()
        .map(Stub::received)
        .unwrap_or_default()
}

#[test]
fn a_sleeping_site_is_started_and_the_request_replayed_whole() {
    for (method, size) in [
        ("GET", None),
        ("POST", Some(5_000_000)),
        ("PUT", Some(10)),
        ("DELETE", None),
        ("PATCH", Some(0)),
    ] {
        let root = Root::new();
        let front = front(&root, "");
        let (service, site) = waking(&front);
        let mut request = Request::new(method, "a.test", "/path?query=1");
        if let Some(size) = size {
            request = request.body(vec![b'x'; size]);
        }
        let body = "x".repeat(size.unwrap_or(0));
        assert_eq!(
            request.send(front.port).expect(200),
            format!("{method} /path?query=1 {body}"),
            "{method}"
        );
        assert_eq!(received(&site).len(), 1, "{method} ran once");
        let asked = service.received();
        assert_eq!(asked.len(), 1);
        assert!(
            asked[0].body.is_empty() && asked[0].header("content-length").is_none(),
            "{:?}",
            asked[0]
        );
        assert_eq!(asked[0].header("x-original"), Some("/path?query=1"));
        assert_eq!(asked[0].header("x-sent"), Some("0"));
        let idempotent = if matches!(method, "POST" | "PATCH") {
            "0"
        } else {
            "1"
        };
        assert_eq!(
            asked[0].header("x-idempotent"),
            Some(idempotent),
            "{method}"
        );
        front.nginx.assert_healthy();
    }
}

#[test]
fn a_chunked_request_is_replayed_whole() {
    let root = Root::new();
    let front = front(&root, "");
    let (_service, site) = waking(&front);
    let request = Request::new("POST", "a.test", "/c").chunks(["one ", "two ", "three"]);
    assert_eq!(
        request.send(front.port).expect(200),
        "POST /c one two three"
    );
    assert_eq!(received(&site).len(), 1);
}

#[test]
fn requests_on_one_kept_connection_are_each_answered() {
    let root = Root::new();
    let front = front(&root, "");
    let (service, _site) = waking(&front);
    let mut connection = Connection::open(front.port).expect("nginx listens");
    for number in 0..5 {
        let answer = connection
            .exchange(&Request::get("a.test", &format!("/{number}")))
            .expect("an answer");
        assert_eq!(answer.expect(200), format!("GET /{number} "));
    }
    assert_eq!(
        service.received().len(),
        1,
        "only the first found it asleep"
    );
}

#[test]
fn head_is_replayed_as_head() {
    let root = Root::new();
    let front = front(&root, "");
    let (_service, site) = waking(&front);
    let answer = Request::head("a.test", "/h").send(front.port);
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("8"))
    );
    assert_eq!(received(&site)[0].method, "HEAD");
}

#[test]
fn a_site_with_a_vassal_file_is_broken_and_not_woken() {
    let root = Root::new();
    let front = front(&root, "");
    let (service, site) = waking(&front);
    root.write("vassal", "running");
    assert_eq!(Request::get("a.test", "/").send(front.port).status, 502);
    assert_eq!(
        Request::post("a.test", "/", "x").send(front.port).status,
        502
    );
    assert!(service.received().is_empty() && received(&site).is_empty());
    // Put to sleep by the operator: the next visitor wakes it.
    std::fs::remove_file(&front.vassal).expect("it was there");
    assert_eq!(Request::get("a.test", "/").send(front.port).status, 200);
    front.nginx.assert_healthy();
}

#[test]
fn a_request_that_ran_into_a_crash_is_not_repeated() {
    let root = Root::new();
    let front = front(&root, "");
    root.write("vassal", "running");
    let site = Stub::unix(&front.socket, |_| Answer::Close);
    let service = Stub::unix(&front.service, |_| Answer::status(204, ""));
    for request in [
        Request::get("a.test", "/"),
        Request::post("a.test", "/", "x"),
    ] {
        let before = site.received().len();
        assert_eq!(request.send(front.port).status, 502);
        assert_eq!(site.received().len(), before + 1, "run once");
    }
    assert!(service.received().is_empty());
    front.nginx.assert_healthy();
}

#[test]
fn a_502_that_the_site_itself_answers_is_shown_as_it_is() {
    let root = Root::new();
    let front = front(&root, "");
    root.write("vassal", "running");
    let site = Stub::unix(&front.socket, |_| {
        Answer::status(502, "the site's own words")
    });
    assert_eq!(
        Request::get("a.test", "/").send(front.port).expect(502),
        "the site's own words"
    );
    assert_eq!(site.received().len(), 1);
}

#[test]
fn the_service_s_refusals_reach_the_visitor() {
    for (status, shown) in [(502, 502), (503, 503), (504, 504), (404, 503), (500, 503)] {
        let root = Root::new();
        let front = front(&root, "");
        let service = Stub::unix(&front.service, move |_| {
            Answer::status(status, "no")
                .header("Retry-After", "17")
                .header("Set-Cookie", "leak=1")
        });
        let answer = Request::get("a.test", "/").send(front.port);
        assert_eq!(answer.status, shown, "the service said {status}");
        if matches!(status, 503 | 504) {
            assert_eq!(answer.header("retry-after"), Some("17"));
        } else if shown == 503 {
            assert!(answer.header("retry-after").is_some());
        }
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(service.received().len(), 1, "asked once");
        front.nginx.assert_healthy();
    }
}

#[test]
fn a_service_that_cannot_be_reached_is_503_when_nothing_was_sent_and_502_else() {
    let root = Root::new();
    let front = front(&root, "");
    let answer = Request::post("a.test", "/", "x").send(front.port);
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let _site = Stub::unix(&front.socket, |_| Answer::Close);
    assert_eq!(Request::get("a.test", "/").send(front.port).status, 502);
    front.nginx.assert_healthy();
}

#[test]
fn a_site_that_is_gone_again_after_the_wake_ends_in_an_error_not_in_a_loop() {
    let root = Root::new();
    let front = front(&root, "");
    let service = Stub::unix(&front.service, |_| Answer::status(204, ""));
    let answer = Request::get("a.test", "/").send(front.port);
    assert_eq!(answer.status, 502);
    assert_eq!(service.received().len(), 1, "asked once");
    assert!(!front.nginx.errors().contains("redirection cycle"));
    front.nginx.assert_healthy();
}

/// Holds answers back until told.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut open = self.open.lock().expect("not poisoned");
        while !*open {
            open = self.changed.wait(open).expect("not poisoned");
        }
    }

    fn open(&self) {
        *self.open.lock().expect("not poisoned") = true;
        self.changed.notify_all();
    }
}

#[test]
fn only_so_many_requests_are_parked() {
    let root = Root::new();
    let front = front(&root, "max_parked=2");
    let gate = Arc::new(Gate::default());
    let site: Arc<Mutex<Option<Stub>>> = Arc::default();
    let service = Stub::unix(&front.service, {
        let (gate, site, socket) = (Arc::clone(&gate), Arc::clone(&site), front.socket.clone());
        move |_| {
            gate.wait();
            site.lock()
                .expect("not poisoned")
                .get_or_insert_with(|| Stub::unix(&socket, echo));
            Answer::status(204, "")
        }
    });
    let port = front.port;
    let parked: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || Request::get("a.test", "/").send(port)))
        .collect();
    wait::until_true("two parked requests", || service.received().len() == 2);
    let refused = Request::get("a.test", "/").send(port);
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(service.received().len(), 2, "the third was not parked");
    gate.open();
    for request in parked {
        assert_eq!(request.join().expect("no panic").status, 200);
    }
    // The places are free again.
    site.lock().expect("not poisoned").take();
    std::fs::remove_file(&front.socket).expect("a stub leaves its socket");
    assert_eq!(Request::get("a.test", "/").send(port).status, 200);
    front.nginx.assert_healthy();
}

#[test]
fn visitors_that_give_up_free_their_places() {
    let root = Root::new();
    let front = front(&root, "max_parked=2");
    let gate = Arc::new(Gate::default());
    let service = Stub::unix(&front.service, {
        let gate = Arc::clone(&gate);
        move |_| {
            gate.wait();
            Answer::status(503, "no")
        }
    });
    let waiting: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(front.port).expect("nginx listens");
            connection.send(&Request::get("a.test", "/")).expect("sent");
            connection
        })
        .collect();
    wait::until_true("two parked requests", || service.received().len() == 2);
    drop(waiting);
    // Parked and not refused: the service is asked a third time.
    let mut third = Connection::open(front.port).expect("nginx listens");
    wait::until_true("a place", || {
        third = Connection::open(front.port).expect("nginx listens");
        third.send(&Request::get("a.test", "/")).expect("sent");
        wait::within(std::time::Duration::from_millis(200), || {
            (service.received().len() >= 3).then_some(())
        })
        .is_some()
    });
    gate.open();
    assert_eq!(third.receive(false).expect("an answer").status, 503);
    front.nginx.assert_healthy();
}

#[test]
fn a_service_that_is_away_for_a_moment_is_asked_again() {
    let root = Root::new();
    let front = front(&root, "");
    let port = front.port;
    let visitors: Vec<_> = [
        Request::get("a.test", "/"),
        Request::post("a.test", "/", "x"),
    ]
    .into_iter()
    .map(|request| thread::spawn(move || request.send(port)))
    .collect();
    let refusals = || front.nginx.errors().matches("init.sock failed").count();
    wait::until_true("the third question of both", || refusals() >= 6);
    let (service, site) = waking(&front);
    for visitor in visitors {
        let _ = visitor.join().expect("an answer").expect(200);
    }
    assert_eq!((service.received().len(), received(&site).len()), (2, 2));
    front.nginx.assert_healthy();
}

#[test]
fn a_visitor_who_leaves_before_the_service_comes_back_costs_nothing() {
    let root = Root::new();
    let front = front(&root, "max_parked=1");
    let mut visitor = Connection::open(front.port).expect("nginx listens");
    visitor
        .send(&Request::get("a.test", "/gone"))
        .expect("it is sent");
    let refusals = || front.nginx.errors().matches("init.sock failed").count();
    wait::until_true("two questions", || refusals() >= 2);
    drop(visitor);
    let (service, _site) = waking(&front);
    // The place that it had is free again as soon as it is noticed to be gone, or answered.
    wait::until_true("another visitor's answer", || {
        Request::get("a.test", "/next").send(front.port).status == 200
    });
    assert!(!service.received().is_empty());
    front.nginx.assert_healthy();
}

#[test]
fn a_service_that_stays_away_is_given_up() {
    let root = Root::new();
    let front = front(&root, "timeout=1s");
    let answer = Request::get("a.test", "/").send(front.port);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert!(front.nginx.errors().matches("init.sock failed").count() > 2);
    front.nginx.assert_healthy();
}

#[test]
fn a_service_that_does_not_answer_in_time_is_not_waited_for() {
    let root = Root::new();
    let front = front(&root, "timeout=1s");
    let gate = Arc::new(Gate::default());
    let _service = Stub::unix(&front.service, {
        let gate = Arc::clone(&gate);
        move |_| {
            gate.wait();
            Answer::status(204, "")
        }
    });
    let start = Instant::now();
    let answer = Request::get("a.test", "/").send(front.port);
    // nginx's own time-out of the subrequest is 60 s.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    gate.open();
    front.nginx.assert_healthy();
}

#[test]
fn no_client_can_ask_the_service_itself() {
    let root = Root::new();
    let front = front(&root, "");
    let (service, _site) = waking(&front);
    root.write("vassal", "running");
    assert_eq!(Request::get("a.test", "/init").send(front.port).status, 404);
    assert_eq!(
        Request::get("a.test", "/%69nit").send(front.port).status,
        404
    );
    assert!(service.received().is_empty());
}
