//! `paas_activity`: what nginx's workers count of each site's requests, as the daemon reads it. No daemon here: the site
//! is played by the test, which holds every request as long as it likes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use activity::{Busy, Reader, Snapshot};
use paas_tests::{Connection, Nginx, Request, Root, nginx, process, wait};
use routing::Domain;
use rustix::process::Signal;
use table::{Change, Options, Protocol, SiteId, SiteRecord, Writer};

/// A backend's nginx with the sites `s1.test` to `s9.test`, all of them behind one socket.
struct Backend<'r> {
    root: &'r Root,
    port: u16,
    nginx: Nginx,
    listener: UnixListener,
}

fn http(root: &Root, port: u16, sites: usize) -> String {
    let path = root.path().display();
    format!(
        "paas_table {path}/table;
        paas_activity {path}/activity sites={sites};
        server {{
            listen 127.0.0.1:{port};
            # The id stands in the path, and all paths lead to one socket.
            paas_socket \"{path}/site-{{id}}\";
            location / {{
                paas_role backend;
                proxy_pass http://unix:{path}/app.sock;
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $http_connection;
                proxy_request_buffering on;
            }}
            location /parked {{
                paas_role backend;
                paas_fallback initialize=/never timeout=20s;
                proxy_pass http://unix:{path}/app.sock;
            }}
            location /own {{
                # A location of the operator's own, without a role.
                proxy_set_header X-Socket $paas_socket;
                proxy_pass http://unix:{path}/app.sock;
            }}
            location = /never {{
                internal;
                proxy_pass http://unix:{path}/app.sock;
            }}
        }}"
    )
}

impl<'r> Backend<'r> {
    fn start(root: &'r Root, sites: usize) -> Backend<'r> {
        let listener = UnixListener::bind(root.join("app.sock")).expect("it is free");
        fs::set_permissions(root.join("app.sock"), fs::Permissions::from_mode(0o666))
            .expect("it is ours");
        let options = Options {
            group: Some(nginx::group()),
            max_readers: 64,
            ..Options::default()
        };
        let mut writer =
            Writer::open_or_create(root.join("table"), options).expect("a table can be made");
        let records = (1..10).map(|id| {
            let name = Domain::parse(&format!("s{id}.test")).expect("a domain");
            let record = SiteRecord {
                protocol: Protocol::Uwsgi,
                id: SiteId::new(id).expect("not 0"),
                primary: name.clone(),
                pin: None,
                enabled: true,
            };
            Change::PutHost(name, record)
        });
        writer.rebuild(1, records).expect("written");
        let port = root.port();
        let nginx = Nginx::start(root, "backend", &http(root, port, sites), port);
        Backend {
            root,
            port,
            nginx,
            listener,
        }
    }

    fn look(&self) -> Snapshot {
        Reader::new(&self.root.join("activity"))
            .look()
            .expect("the counters can be read")
    }

    fn of(&self, site: u64) -> Busy {
        self.look().of(site)
    }

    /// Waits until so many requests of a site are in flight.
    fn wait_for(&self, site: u64, in_flight: u64) {
        wait::until_true(&format!("{in_flight} in flight of site {site}"), || {
            self.of(site).in_flight == in_flight
        });
    }

    /// A request to this site, sent.
    fn send(&self, site: u64, target: &str) -> Connection {
        let mut connection = Connection::open(self.port).expect("nginx listens");
        connection
            .send(&Request::get(format!("s{site}.test"), target))
            .expect("sent");
        connection
    }

    /// The site's end of the next request; its head has arrived.
    fn accept(&self) -> UnixStream {
        let (mut stream, _) = self.listener.accept().expect("nginx connects");
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a head") == 1 {
            head.extend(byte);
        }
        stream
    }
}

fn answer(mut site: UnixStream) {
    site.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .expect("nginx listens");
}

#[test]
fn a_request_counts_from_its_head_to_the_end_of_its_answer() {
    let root = Root::new();
    let backend = Backend::start(&root, 16);
    wait::until_true("workers to count, before the first request", || {
        backend.look().is_complete()
    });
    assert_eq!(backend.of(1), Busy::default());
    let before = activity::now();
    let mut client = Connection::open(backend.port).expect("nginx listens");
    let upload = b"POST / HTTP/1.1\r\nHost: s1.test\r\nContent-Length: 8\r\n\r\nhalf";
    client.send_bytes(upload).expect("sent");
    backend.wait_for(1, 1);
    client.send_bytes(b"half").expect("sent");
    let site = backend.accept();
    let other = backend.send(1, "/");
    backend.wait_for(1, 2);
    assert_eq!(backend.of(2), Busy::default(), "no other site is busy");
    answer(site);
    assert_eq!(client.receive(false).expect("an answer").status, 200);
    backend.wait_for(1, 1);
    answer(backend.accept());
    backend.wait_for(1, 0);
    let last = backend.of(1).last.expect("it was visited");
    assert!((before..=activity::now()).contains(&last));
    // The clients' connections are still open, and idle.
    drop((client, other));

    let own = backend.send(3, "/own");
    backend.wait_for(3, 1);
    drop(own);
    backend.wait_for(3, 0);
    backend.nginx.assert_healthy();
}

#[test]
fn parked_requests_and_upgraded_connections_count() {
    let root = Root::new();
    let backend = Backend::start(&root, 16);
    let parked = backend.send(1, "/parked");
    let asked = backend.accept();
    backend.wait_for(1, 1);
    drop(parked);
    backend.wait_for(1, 0);
    drop(asked);

    let mut socket = Connection::open(backend.port).expect("nginx listens");
    let request = Request::get("s2.test", "/")
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade");
    socket.send(&request).expect("sent");
    let mut site = backend.accept();
    site.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )
    .expect("nginx listens");
    assert_eq!(socket.receive(true).expect("an answer").status, 101);
    for _ in 0..3 {
        socket.send_bytes(b"ping").expect("sent");
        let mut ping = [0; 4];
        site.read_exact(&mut ping).expect("nginx passes it on");
        assert_eq!(backend.of(2).in_flight, 1);
    }
    drop(socket);
    backend.wait_for(2, 0);
    backend.nginx.assert_healthy();
}

#[test]
fn what_a_killed_worker_had_in_flight_is_void() {
    let root = Root::new();
    let backend = Backend::start(&root, 16);
    let (one, two) = (backend.send(1, "/"), backend.send(2, "/"));
    backend.wait_for(1, 1);
    backend.wait_for(2, 1);
    let last = backend.of(1).last;
    let workers = backend.nginx.workers();
    process::send(workers[0], Signal::KILL);
    backend.wait_for(1, 0);
    assert_eq!(backend.of(2).in_flight, 0);
    wait::until_true("another worker", || {
        let now = backend.nginx.workers();
        !now.is_empty() && now != workers
    });
    wait::until_true("it to count", || backend.look().is_complete());
    assert_eq!(
        backend.of(1).last,
        last,
        "that it was visited is not forgotten"
    );
    let _again = backend.send(1, "/");
    backend.wait_for(1, 1);
    assert_eq!(backend.look().counting(), 1, "it has the slot of the dead");
    drop((one, two));
}

#[test]
fn workers_of_earlier_configurations_go_on_counting() {
    let root = Root::new();
    let backend = Backend::start(&root, 16);
    let mut oldest = backend.send(1, "/");
    let oldest_at_site = backend.accept();
    backend.wait_for(1, 1);
    backend.nginx.reload_as_is();
    let old = backend.send(1, "/");
    backend.wait_for(1, 2);
    // Another shape: another file.
    backend.nginx.reload(&http(&root, backend.port, 32));
    let new = backend.send(1, "/");
    backend.wait_for(1, 3);
    assert_eq!(backend.look().counting(), 3);
    let files = fs::read_dir(root.join("activity")).expect("it is there");
    assert_eq!(files.count(), 2);
    answer(oldest_at_site);
    assert_eq!(oldest.receive(false).expect("an answer").status, 200);
    backend.wait_for(1, 2);
    drop(old);
    backend.wait_for(1, 1);
    wait::until_true("the old workers to end", || backend.look().counting() == 1);
    drop(new);
    backend.wait_for(1, 0);
    backend.nginx.assert_healthy();
}

#[test]
fn a_site_for_which_there_is_no_room_is_never_taken_for_idle() {
    let root = Root::new();
    let backend = Backend::start(&root, 1);
    let first = backend.send(1, "/");
    backend.wait_for(1, 1);
    let second = backend.send(2, "/");
    backend.wait_for(2, 1);
    assert_eq!(backend.look().unlisted(), 1);
    drop(second);
    backend.wait_for(2, 0);
    assert!(backend.of(2).last.is_some());
    drop(first);
    backend.wait_for(1, 0);
    backend.nginx.assert_healthy();
}

#[test]
fn a_directory_that_cannot_be_used_and_a_wrong_size_are_refused() {
    let root = Root::new();
    let table = format!("paas_table {}/table;", root.path().display());
    for (line, word) in [
        ("paas_activity relative;", "absolute path"),
        ("paas_activity /tmp/x sites=0;", "sites="),
        ("paas_activity /tmp/x sites=many;", "sites="),
        ("paas_activity /tmp/x rooms=2;", "rooms=2"),
        ("paas_activity /tmp/x; paas_activity /tmp/y;", "duplicate"),
    ] {
        let (accepted, words) = Nginx::test(&root, &format!("{table} {line}"));
        assert!(!accepted && words.contains(word), "{line}: {words}");
    }
    let (accepted, words) = Nginx::test(&root, "paas_activity /tmp/x;");
    assert!(!accepted && words.contains("paas_table"), "{words}");
    // A test of the configuration makes nothing.
    let nowhere = root.join("nowhere");
    let line = format!("{table} paas_activity {};", nowhere.display());
    let (accepted, words) = Nginx::test(&root, &line);
    assert!(accepted && !nowhere.exists(), "{words}");
}
