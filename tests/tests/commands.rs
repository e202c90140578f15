//! Sites that bring their own HTTP server: started, woken, watched and ended like the others, proxied by HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use paas_tests::apps::SERVER;
use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root, wait};
use rustix::process::Signal;

struct Server<'p> {
    platform: &'p Platform<'p>,
    directory: PathBuf,
}

impl<'p> Server<'p> {
    fn add(root: &Root, platform: &'p Platform<'p>) -> Server<'p> {
        use std::os::unix::fs::PermissionsExt;
        root.write("sites/c.test/server.py", SERVER);
        let directory = root.join("sites/c.test");
        fs::create_dir(directory.join("notes")).expect("it is ours");
        fs::set_permissions(directory.join("notes"), fs::Permissions::from_mode(0o777))
            .expect("it is ours");
        platform.add_site(
            "c.test",
            &directory,
            &["--command", "/usr/bin/python3 server.py 'two words' --flag"],
        );
        Server {
            platform,
            directory,
        }
    }

    fn notes(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("notes").join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn set(&self, name: &str) {
        fs::write(self.directory.join("notes").join(name), "").expect("a note");
    }

    /// A server that came back on its queue may answer before the daemon has heard of it.
    fn wait_until_running(&self) {
        wait::until_true("the daemon to know that it runs", || {
            let status = self.platform.daemon_status(1);
            status.is_some_and(|status| status["sites"][0]["state"] == "running")
        });
    }

    fn pid(&self) -> u32 {
        let answer = self.platform.get("c.test", "/");
        let told = answer.header("x-me");
        process::outside(told.unwrap_or_else(|| panic!("{answer:?}")))
    }
}

#[test]
fn two_hundred_first_requests_wake_it_once_and_are_all_answered() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    platform
        .paasctl()
        .ok(&["set-env", "c.test", "GREETING=hello"]);
    let port = platform.port();
    let visitors: Vec<_> = (0..200_usize)
        .map(|number| {
            thread::spawn(move || {
                let path = format!("/{number}?q=1");
                let (request, length) = match number % 2 {
                    0 => (Request::get("c.test", &path), 0),
                    _ => (
                        Request::post("c.test", &path, vec![b'x'; number * 1000]),
                        number * 1000,
                    ),
                };
                let answer = request.send(port);
                let method = if number % 2 == 0 { "GET" } else { "POST" };
                assert!(
                    answer
                        .expect(200)
                        .starts_with(&format!("{method} {path} {length} ")),
                    "{answer:?}"
                );
            })
        })
        .collect();
    for visitor in visitors {
        visitor.join().expect("an answer");
    }
    assert_eq!(site.notes("starts").len(), 1, "one start");
    assert_eq!(site.notes("requests").len(), 200, "each once");

    let answer = platform.get("c.test", "/");
    assert_eq!(answer.header("x-env"), Some("hello"));
    assert_eq!(answer.header("x-argv"), Some("two words --flag"));
    assert_eq!(
        answer.header("x-fds"),
        Some("0,1,2"),
        "nothing of the launcher's is left open"
    );
    assert!(answer.text().trim().ends_with(" http"), "{answer:?}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            answer.header("x-uid"),
            Some(platform.owner_uid().to_string().as_str())
        );
        for seen in platform.family(site.pid()) {
            assert_eq!(seen.uid, platform.owner_uid(), "{seen:?}");
        }
    }
    platform.assert_healthy();
}

#[test]
fn what_it_answers_cannot_steer_nginx() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _site = Server::add(&root, &platform);
    let answer = platform.get("c.test", "/hostile");
    assert!(
        answer.expect(200).starts_with("GET /hostile 0 "),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-paas-id"), None);
}

#[test]
fn a_crash_is_a_real_502_and_it_is_up_again() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    let first = site.pid();
    assert_eq!(
        Request::post("c.test", "/exit", "x")
            .send(platform.port())
            .status,
        502
    );
    wait::until_true("another start", || site.notes("starts").len() == 2);
    assert_ne!(site.pid(), first);
    assert_eq!(
        site.notes("requests")
            .iter()
            .filter(|request| request.contains("/exit"))
            .count(),
        1,
        "not repeated"
    );
    let log = platform.backend(1).join("var/log/paas/c.test/server.log");
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("ended by itself: exit status: 3"), "{log}");
    // Killed from outside, too, and without a visitor.
    site.wait_until_running();
    process::send(site.pid(), Signal::KILL);
    wait::until_true("a third start", || site.notes("starts").len() == 3);
    assert_eq!(platform.vassals("c.test").len(), 1);
    platform.assert_healthy();
}

#[test]
fn one_that_cannot_start_gives_the_error_page_to_all_who_wait() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    site.set("broken");
    let port = platform.port();
    let visitors: Vec<_> = (0..10)
        .map(|number| {
            thread::spawn(move || Request::post("c.test", &format!("/{number}"), "x").send(port))
        })
        .collect();
    for visitor in visitors {
        let answer = visitor.join().expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("start-failed"), "{answer:?}");
    }
    fs::remove_file(site.directory.join("notes/broken")).expect("it was there");
    wait::until_true("it starts when it can", || {
        platform.get("c.test", "/").status == 200
    });
    // A program that is not there at all says so in the log.
    platform.paasctl().ok(&[
        "set-site",
        "c.test",
        "--command",
        "no-such-program --port 0",
    ]);
    process::send(site.pid(), Signal::KILL);
    wait::until_true("the error page", || {
        platform.get("c.test", "/").status == 503
    });
    let log = platform.backend(1).join("var/log/paas/c.test/server.log");
    let said = || {
        fs::read_to_string(&log).unwrap_or_default()
            + &fs::read_to_string(root.join("up.log")).unwrap_or_default()
    };
    wait::until_true("the reason in a log", || {
        said().contains("cannot run no-such-program")
    });
}

#[test]
fn switched_off_it_is_asked_to_end_and_finishes_what_it_does() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    let pid = site.pid();
    platform
        .paasctl()
        .ok(&["set-site", "c.test", "--enabled", "false"]);
    wait::until_true("its end", || Seen::look(pid).is_none());
    assert_eq!(
        site.notes("stops"),
        site.notes("starts"),
        "it ended by itself, asked to"
    );
    wait::until_true("nothing of it is left", || {
        platform.site_processes("c.test").is_empty() && platform.vassals("c.test").is_empty()
    });
    assert_eq!(platform.get("c.test", "/").status, 503);
    platform
        .paasctl()
        .ok(&["set-site", "c.test", "--enabled", "true"]);
    assert_ne!(site.pid(), pid);
    platform.assert_healthy();
}

#[test]
fn a_new_daemon_takes_it_over_without_a_start_and_without_a_request() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    let pid = site.pid();
    site.wait_until_running();
    platform.restart_daemon(1, Signal::KILL);
    assert_eq!(site.pid(), pid);
    site.wait_until_running();
    process::send(pid, Signal::KILL);
    wait::until_true("another start", || site.notes("starts").len() == 2);
    assert_ne!(site.pid(), pid);
}

#[test]
fn a_websocket_passes_through_balancer_and_backend() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _site = Server::add(&root, &platform);
    let mut stream =
        TcpStream::connect(("127.0.0.1", platform.port())).expect("the balancer listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time-out");
    let head = "GET /socket HTTP/1.1\r\nHost: c.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        assert!(
            reader.read_line(&mut answer).expect("an answer") > 0,
            "{answer}"
        );
    }
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    for text in ["hello", "again, after a while"] {
        stream.write_all(text.as_bytes()).expect("sent");
        let mut echoed = vec![0u8; text.len()];
        reader.read_exact(&mut echoed).expect("echoed");
        assert_eq!(echoed, text.to_uppercase().as_bytes());
    }
}

#[test]
fn other_servers_serve_descriptor_zero() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let python = "import http.server, socket, socketserver\nclass S(socketserver.ThreadingMixIn, http.server.HTTPServer):\n  address_family = socket.AF_UNIX\n  def server_bind(self): pass\n  def server_activate(self): pass\n  def get_request(self):\n    c, _ = self.socket.accept()\n    return c, ('local', 0)\ns = S('', http.server.SimpleHTTPRequestHandler, bind_and_activate=False)\ns.socket.close()\ns.socket = socket.socket(fileno=0)\ns.serve_forever()\n";
    root.write("sites/h.test/serve.py", python);
    root.write("sites/h.test/hello.txt", "from http.server");
    platform.add_site(
        "h.test",
        &root.join("sites/h.test"),
        &["--command", "/usr/bin/python3 serve.py"],
    );
    assert_eq!(
        platform.get("h.test", "/hello.txt").expect(200),
        "from http.server"
    );
    if std::path::Path::new("/usr/bin/node").exists() {
        let node = "require('http').createServer((q, a) => a.end('from node ' + q.url)).listen({fd: 0});\n";
        root.write("sites/n.test/server.js", node);
        platform.add_site(
            "n.test",
            &root.join("sites/n.test"),
            &["--command", "/usr/bin/node server.js"],
        );
        assert_eq!(platform.get("n.test", "/x").expect(200), "from node /x");
    } else {
        eprintln!("no node: skipped");
    }
}

#[test]
fn one_that_nobody_visits_sleeps_and_wakes_again() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Server::add(&root, &platform);
    platform
        .paasctl()
        .ok(&["set-site", "c.test", "--idle", "1s"]);
    let pid = site.pid();
    wait::until_true("its end", || Seen::look(pid).is_none());
    wait::until_true("its vassal file to be gone", || {
        platform.vassals("c.test").is_empty()
    });
    assert_eq!(site.notes("stops"), site.notes("starts"), "it was asked to");
    assert_ne!(site.pid(), pid);
    assert_eq!(site.notes("starts").len(), 2);
    platform.assert_healthy();
}
