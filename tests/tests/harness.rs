//! The harness itself: what the other tests rely on.

use std::process::Command;
use std::time::Duration;

use paas_tests::process::{self, Process, Seen};
use paas_tests::stub::Answer;
use paas_tests::{Connection, Request, Root, Stub, wait};
use rustix::process::Signal;

#[test]
fn the_client_and_the_stub_speak_http() {
    let root = Root::new();
    let port = root.port();
    let stub = Stub::tcp(port, |request| match request.target.as_str() {
        "/close" => Answer::Close,
        target => Answer::status(
            201,
            format!("{} {target} {}", request.method, request.body.len()),
        )
        .header("X-A", "b"),
    });
    let mut connection = Connection::open(port).expect("the stub listens");
    let answer = connection
        .exchange(&Request::post("a.test", "/p", vec![7; 1_000_000]))
        .expect("an answer");
    assert_eq!(
        (answer.expect(201), answer.header("x-a")),
        ("POST /p 1000000".to_owned(), Some("b"))
    );
    let answer = connection
        .exchange(&Request::new("PUT", "a.test", "/c").chunks(["ab", "c"]))
        .expect("an answer");
    assert_eq!(answer.expect(201), "PUT /c 3");
    let head = connection
        .exchange(&Request::head("a.test", "/h"))
        .expect("an answer");
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (201, Some("9"), 0)
    );
    assert_eq!(
        stub.received()[2].connections,
        1,
        "one connection for all of them"
    );
    assert!(
        Request::get("a.test", "/close").try_send(port).is_err(),
        "a missing answer is an error"
    );
    assert_eq!(stub.received()[3].connections, 2);
}

#[test]
fn an_answer_that_is_cut_off_is_an_error() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTT",
        "",
    ] {
        let read = paas_tests::Response::read(&mut cut.as_bytes(), false);
        assert!(read.is_err(), "{cut:?}: {read:?}");
    }
}

#[test]
fn ports_are_no_one_else_s() {
    let (one, two) = (Root::new(), Root::new());
    let mut ports: Vec<u16> = (0..20).flat_map(|_| [one.port(), two.port()]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 40);
}

#[test]
fn nothing_a_test_started_outlives_its_root() {
    let root = Root::new();
    // A child that leaves a grandchild behind, in a session of its own, as a daemon does.
    let script = format!(
        "cd {0}; setsid sleep 1000 & echo $! > {0}/pid; wait",
        root.path().display()
    );
    let mut child = Process::start(
        "sh",
        Command::new("sh").arg("-c").arg(script),
        &root.join("sh.log"),
        Signal::TERM,
    );
    let pid: u32 = wait::until("the grandchild", || {
        std::fs::read_to_string(root.join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    });
    child.kill();
    assert!(Seen::look(pid).is_some());
    assert!(
        root.processes().iter().any(|seen| seen.pid == pid),
        "it is seen by its working directory"
    );
    drop(root);
    wait::until_true("its end", || Seen::look(pid).is_none());
}

#[test]
fn a_socket_s_queue_can_be_counted() {
    let root = Root::new();
    let path = root.join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(root.join("app.sock.1")).expect("bound");
    std::fs::rename(root.join("app.sock.1"), &path).expect("renamed");
    let connect = || std::os::unix::net::UnixStream::connect(&path).expect("connected");
    let clients: Vec<_> = (0..3).map(|_| connect()).collect();
    assert_eq!(process::queue_length(&path), 3);
    let _accepted = listener.accept().expect("one waits");
    assert_eq!(process::queue_length(&path), 2);
    drop(clients);
}

#[test]
fn waiting_ends_at_the_deadline() {
    assert_eq!(wait::within(Duration::from_millis(30), || None::<()>), None);
    assert_eq!(wait::within(Duration::ZERO, || Some(1)), Some(1));
}
