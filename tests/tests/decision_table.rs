//! "Asleep or broken?": the rows of the table one by one, each through the real parts.

use std::os::unix::net::UnixStream;
use std::thread;

use paas_tests::platform::Options;
use paas_tests::process::{self, Seen};
use paas_tests::{Connection, Platform, Request, Response, Root, wait};
use rustix::process::Signal;

fn in_background(port: u16, request: Request) -> thread::JoinHandle<Response> {
    thread::spawn(move || request.send(port))
}

/// An error page of the platform: status, an id, and words for a person.
#[track_caller]
fn assert_error_page(answer: &Response, status: u16) {
    let page = answer.expect(status);
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html")),
        "{answer:?}"
    );
    let id = answer.header("x-paas-id").map(str::to_owned);
    assert!(page.contains("</html>"), "{answer:?}");
    if let Some(id) = id {
        assert!(page.contains(&id), "the page shows the id: {answer:?}");
    }
    let shown = page.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    assert!(
        shown
            .clone()
            .any(|word| word.len() >= 8 && word.chars().filter(char::is_ascii_digit).count() >= 2),
        "the page has an id to quote: {page}"
    );
}

#[track_caller]
fn assert_retry_after(answer: &Response) {
    let seconds = answer
        .header("retry-after")
        .and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(
        seconds.is_some_and(|seconds| (1..=600).contains(&seconds)),
        "{answer:?}"
    );
}

#[test]
fn not_sent_and_asleep_wakes_and_replays_any_method() {
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let root = Root::new();
        let platform = Platform::start(&root);
        let site = platform.recorder("a.test");
        let answer = Request::new(method, "a.test", "/first")
            .body("five!")
            .send(platform.port());
        assert!(
            answer
                .expect(200)
                .starts_with(&format!("{method} /first 5 ")),
            "{answer:?}"
        );
        assert_eq!((site.starts(), site.requests().len()), (1, 1));
    }
}

#[test]
fn not_sent_and_starting_waits_for_that_start() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.close();
    let first = in_background(platform.port(), Request::get("a.test", "/first"));
    site.wait_for_starts(1);
    let second = in_background(platform.port(), Request::post("a.test", "/second", "body"));
    platform.wait_for_parked("a.test", 2);
    assert!(site.requests().is_empty(), "nothing can have run yet");
    site.open();
    assert!(
        first
            .join()
            .expect("an answer")
            .expect(200)
            .starts_with("GET /first 0 ")
    );
    assert!(
        second
            .join()
            .expect("an answer")
            .expect(200)
            .starts_with("POST /second 4 ")
    );
    assert_eq!((site.starts(), site.requests().len()), (1, 2));
    platform.assert_healthy();
}

#[test]
fn not_sent_and_running_with_a_full_queue_is_503() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let _ = platform.get("a.test", "/").expect(200);
    // Every worker is busy, and the queue behind them is filled to the brim.
    let workers = 2;
    let held: Vec<_> = (0..workers)
        .map(|_| in_background(platform.port(), Request::get("a.test", "/hold")))
        .collect();
    site.wait_for("GET", "/hold", workers);
    let socket = platform.site_socket("a.test");
    let mut queued = Vec::new();
    let full = fill(&socket, &mut queued);
    assert!(full, "the queue took {} connections", queued.len());
    for request in [
        Request::get("a.test", "/more"),
        Request::post("a.test", "/more", "x"),
    ] {
        let answer = request.send(platform.port());
        assert_error_page(&answer, 503);
        assert_retry_after(&answer);
    }
    assert_eq!(site.starts(), 1, "an overloaded site is not started again");
    drop(queued);
    site.set("go");
    for request in held {
        let _ = request.join().expect("an answer").expect(200);
    }
    assert_eq!(site.ran("GET", "/more") + site.ran("POST", "/more"), 0);
    wait::until_true("the queue to drain", || {
        platform.get("a.test", "/after").status == 200
    });
    platform.assert_healthy();
}

/// Connects until the queue is full. A non-blocking connect says so at once.
fn fill(socket: &std::path::Path, queued: &mut Vec<UnixStream>) -> bool {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let address = SocketAddrUnix::new(socket).expect("a socket's path is short");
    while queued.len() < 8_192 {
        let stream = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        match connect(&stream, &address) {
            Ok(()) => queued.push(UnixStream::from(stream)),
            Err(rustix::io::Errno::AGAIN) => return true,
            Err(error) => panic!("{}: {error}", socket.display()),
        }
    }
    false
}

#[test]
fn not_sent_and_running_with_its_name_gone_is_repaired() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let _ = platform.get("a.test", "/").expect(200);
    std::fs::remove_file(platform.site_socket("a.test")).expect("the name is there");
    let answer = Request::post("a.test", "/again", "body").send(platform.port());
    assert!(answer.expect(200).starts_with("POST /again 4 "));
    assert_eq!(site.ran("POST", "/again"), 1);
    // And it stays repaired.
    let starts = site.starts();
    let _ = platform.get("a.test", "/more").expect(200);
    assert_eq!(site.starts(), starts);
    platform.assert_healthy();
}

#[test]
fn not_sent_and_a_vassal_file_left_behind_is_repaired() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    // A file of a generation that nobody runs: the Emperor's own attempt to start it finds no socket and fails.
    let id = platform.site_id("a.test");
    std::fs::write(
        platform.vassals_directory(1).join(format!("{id}@1.ini")),
        "[uwsgi]\n",
    )
    .expect("ours");
    let answer = Request::post("a.test", "/stale", "body").send(platform.port());
    assert!(
        answer.expect(200).starts_with("POST /stale 4 "),
        "{answer:?}"
    );
    assert_eq!(site.ran("POST", "/stale"), 1);
    platform.assert_healthy();
}

#[test]
fn not_sent_and_failing_shows_its_page_with_an_id() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.set("broken");
    for request in [
        Request::get("a.test", "/"),
        Request::post("a.test", "/", "x"),
    ] {
        let answer = request.send(platform.port());
        assert_error_page(&answer, 503);
        assert_retry_after(&answer);
    }
    platform.assert_healthy();
}

#[test]
fn not_sent_and_disabled_shows_its_page() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    platform
        .paasctl()
        .ok(&["set-site", "a.test", "--enabled", "false"]);
    let answer = platform.get("a.test", "/");
    assert_error_page(&answer, 503);
    assert_eq!(site.starts(), 0, "a disabled site is not started");
    platform
        .paasctl()
        .ok(&["set-site", "a.test", "--enabled", "true"]);
    let _ = platform.get("a.test", "/").expect(200);
    platform.assert_healthy();
}

#[test]
fn sent_and_running_is_a_real_502_and_never_a_replay() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let _ = platform.get("a.test", "/").expect(200);
    for request in [
        Request::get("a.test", "/exit"),
        Request::post("a.test", "/exit", "x"),
    ] {
        assert_error_page(&request.send(platform.port()), 502);
    }
    assert_eq!(
        (site.ran("GET", "/exit"), site.ran("POST", "/exit")),
        (1, 1),
        "each ran once"
    );
    assert_eq!(site.starts(), 1, "and is not mistaken for sleep");
    let _ = platform.get("a.test", "/after").expect(200);
    platform.assert_healthy();
}

/// Kills a site's processes while they hold a request of each kind.
fn stopped_under(requests: Vec<Request>) -> (Vec<Response>, usize, usize) {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            backend: "[backend]\nworkers = 2\n".to_owned(),
            ..Options::default()
        },
    );
    let site = platform.recorder("a.test");
    let master = process::master(&platform.get("a.test", "/"));
    let count = requests.len();
    let held: Vec<_> = requests
        .into_iter()
        .map(|request| in_background(platform.port(), request))
        .collect();
    wait::until_true("the requests to be running", || {
        site.requests()
            .iter()
            .filter(|request| request.contains(" /hold "))
            .count()
            == count
    });
    process::send(master, Signal::KILL);
    wait::until_true("the end of the master", || Seen::look(master).is_none());
    site.wait_for_starts(2);
    site.set("go");
    let answers = held
        .into_iter()
        .map(|request| request.join().expect("an answer"))
        .collect();
    let _ = platform.get("a.test", "/after").expect(200);
    let ran = site
        .requests()
        .iter()
        .filter(|request| request.contains(" /hold "))
        .count();
    platform.assert_healthy();
    (answers, ran, site.starts())
}

#[test]
fn sent_and_stopped_under_it_replays_an_idempotent_request() {
    let (answers, ran, starts) = stopped_under(vec![Request::get("a.test", "/hold")]);
    assert!(answers[0].expect(200).starts_with("GET /hold 0 "));
    assert_eq!((ran, starts), (2, 2));
}

#[test]
fn sent_and_stopped_under_it_does_not_replay_another() {
    let (answers, ran, starts) = stopped_under(vec![Request::post("a.test", "/hold", "x")]);
    assert_error_page(&answers[0], 502);
    assert_eq!((ran, starts), (1, 2));
}

#[test]
fn an_unreachable_daemon_is_503_for_what_was_not_sent_and_502_for_what_was() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let running = platform.recorder("running.test");
    let _sleeping = platform.recorder("sleeping.test");
    let _ = platform.get("running.test", "/").expect(200);
    let gap = platform.without_daemon(1);
    let answer = Request::post("sleeping.test", "/", "x").send(platform.port());
    assert_error_page(&answer, 503);
    assert_retry_after(&answer);
    assert_error_page(&platform.get("running.test", "/exit"), 502);
    assert_eq!(running.ran("GET", "/exit"), 1);
    let mut kept = Connection::open(platform.port()).expect("the balancer listens");
    assert_eq!(
        kept.exchange(&Request::get("running.test", "/on"))
            .expect("an answer")
            .status,
        200,
        "running sites go on"
    );
    gap.end();
}
