//! Hosts: unknown, hostile, unusual and very long ones, through the whole platform.

use paas_tests::{Connection, Platform, Request, Root};

#[test]
fn an_unknown_host_gets_the_balancer_s_404_page() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    for host in [
        "unknown.test",
        "b.a.test",
        "a.test.com",
        "atest",
        "localhost",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:80",
    ] {
        let answer = platform.get(host, "/");
        let page = answer.expect(404);
        assert!(page.contains("</html>"), "{host}: {page}");
        assert!(
            !page.contains(host) || host.len() < 8,
            "the page repeats nothing a visitor sent"
        );
    }
    assert_eq!(site.starts(), 0);
    platform.assert_healthy();
}

#[test]
fn one_site_has_many_spellings() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    platform
        .paasctl()
        .ok(&["add-domain", "www.other.test", "--site", "a.test"]);
    platform
        .paasctl()
        .ok(&["add-domain", "bücher.test", "--site", "a.test"]);
    let spellings = [
        "a.test",
        "A.TEST",
        "a.Test.",
        "a.test:80",
        "a.test.:8443",
        "www.other.test",
        "WWW.OTHER.TEST",
        "xn--bcher-kva.test",
    ];
    for host in spellings {
        assert!(
            platform
                .get(host, "/x")
                .expect(200)
                .starts_with("GET /x 0 "),
            "{host}"
        );
    }
    assert_eq!((site.starts(), site.requests().len()), (1, spellings.len()));
    platform.paasctl().ok(&["remove-domain", "www.other.test"]);
    assert_eq!(platform.get("www.other.test", "/").status, 404);
    platform.assert_healthy();
}

/// The longest name there can be: 253 characters, labels of at most 63.
fn longest() -> String {
    let label = "x".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "y".repeat(61));
    assert_eq!(name.len(), 253);
    name
}

#[test]
fn a_domain_of_253_characters_is_a_site_like_any_other() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let name = longest();
    let site = platform.recorder(&name);
    assert!(platform.get(&name, "/").expect(200).starts_with("GET / 0 "));
    assert!(
        Request::post(format!("{name}.:80"), "/p", "body")
            .send(platform.port())
            .expect(200)
            .starts_with("POST /p 4 ")
    );
    assert_eq!(site.starts(), 1);
    let too_long = format!("z{name}");
    assert!(matches!(platform.get(&too_long, "/").status, 400 | 404));
    let refusal = platform.paasctl().refused(&[
        "add-site",
        &too_long,
        "--user",
        "owner",
        "--directory",
        "/tmp",
    ]);
    assert!(refusal.contains("253"), "{refusal}");
    platform.assert_healthy();
}

#[test]
fn hostile_hosts_get_an_error_and_do_no_harm() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let mut hosts: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "a..test",
        ".a.test",
        "a.test..",
        "/",
        "../../etc/passwd",
        "a.test/..",
        "a.test\\",
        "a.test%00",
        "a.test%2e",
        "a.test;b",
        "a.test b",
        "a.test,b.test",
        "a.test#",
        "a.test?x",
        "user@a.test",
        "a.test:",
        "a.test:x",
        "a.test:99999",
        "a.test:80:80",
        "[::1",
        "::1",
        "[a.test]",
        "[::g]",
        "$host",
        "${paas_socket}",
        "{id}",
        "'\"",
        "<script>",
        "a_b.test",
        "-a.test",
        "a-.test",
        "xn--",
        "xn--\u{fc}.test",
        "b\u{fc}cher.test",
        "127.1",
        "0x7f.0.0.1",
        "1.2.3.4.5",
        "999.1.1.1",
    ]
    .iter()
    .map(|host| host.as_bytes().to_vec())
    .collect();
    hosts.extend([
        vec![0xff; 10],
        vec![0x80, b'.', 0xfe],
        b"a\x01b.test".to_vec(),
        b"a.test\x7f".to_vec(),
        b"a.te\0st".to_vec(),
        b"\tb.test".to_vec(),
    ]);
    hosts.extend([
        vec![b'a'; 64],
        vec![b'a'; 254],
        vec![b'.'; 300],
        vec![b'a'; 5_000],
        format!("{}.test", "l".repeat(64)).into_bytes(),
    ]);
    hosts.extend(
        (0..=255_u8)
            .filter(|byte| !matches!(byte, b'\n' | b'\r'))
            .map(|byte| vec![b'z', byte, b'.', b't']),
    );
    for host in hosts {
        let answer = Request::get(&host, "/").try_send(platform.port());
        let answer =
            answer.unwrap_or_else(|error| panic!("{:?}: {error}", host.escape_ascii().to_string()));
        // "a.test:" and the like are spellings of the site's own name to nginx and to browsers.
        let own = matches!(
            host.as_slice(),
            b"a.test:" | b"a.test:x" | b"a.test:99999" | b"a.test:80:80"
        );
        assert!(
            matches!(answer.status, 400 | 404 | 414 | 431) || (own && answer.status == 200),
            "{}: {answer:?}",
            host.escape_ascii()
        );
    }
    // None at all, two of them, and an absolute URI that says another thing.
    for (bytes, allowed) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], &[400][..]),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            &[400],
        ),
        (b"GET / HTTP/1.0\r\n\r\n", &[400, 404]),
        (
            b"GET http://unknown.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            &[400, 404],
        ),
        (
            b"GET paas:initialize HTTP/1.1\r\nHost: a.test\r\n\r\n",
            &[400, 404],
        ),
        (b"GET @wake HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400, 404]),
        (b"GET /\0 HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400]),
    ] {
        let mut connection = Connection::open(platform.port()).expect("the balancer listens");
        connection.send_bytes(bytes).expect("sent");
        let answer = connection.receive(false).expect("an answer");
        assert!(
            allowed.contains(&answer.status),
            "{}: {answer:?}",
            bytes.escape_ascii()
        );
    }
    let starts = site.starts();
    assert!(
        platform
            .get("a.test", "/")
            .expect(200)
            .starts_with("GET / 0 ")
    );
    assert!(starts <= 1);
    platform.assert_healthy();
}

#[test]
fn a_backend_answers_for_itself_when_asked_directly_by_an_unknown_host() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let port = platform.backend_port(1);
    assert_eq!(Request::get("unknown.test", "/").send(port).status, 404);
    assert_eq!(Request::get(vec![0xff_u8; 3], "/").send(port).status, 404);
    assert!(
        Request::get("a.test", "/direct")
            .send(port)
            .expect(200)
            .starts_with("GET /direct 0 ")
    );
    assert_eq!(site.starts(), 1);
    platform.assert_healthy();
}
