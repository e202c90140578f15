//! The whole way of a request, browser to site and back, for every example and for the probe.

use std::path::PathBuf;

use paas_tests::platform::Options;
use paas_tests::{Connection, Platform, Request, Response, Root, build, process};

/// Installs an example as its owner would, and adds it as a site; paasctl guesses the entry point.
fn install(root: &Root, platform: &Platform<'_>, example: &str) -> PathBuf {
    let directory = root.join(format!("sites/{example}"));
    let uid = platform.owner_uid();
    let script = build::workspace().join("scripts/install-example");
    let (status, _, words) = process::run(
        script,
        &[
            example,
            &directory.to_string_lossy(),
            &format!("{uid}:{uid}"),
        ],
    );
    assert!(status.success(), "{words}");
    platform.add_site(&format!("{example}.test"), &directory, &[]);
    directory
}

/// A body of `size` bytes in which every place is different from its neighbours.
fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from(at % 251).expect("below 256"))
        .collect()
}

fn json(answer: &Response) -> serde_json::Value {
    let text = answer.expect(200);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// SHA-256 by the system's own program.
fn sha256(root: &Root, bytes: &[u8]) -> String {
    let file = root.write("hashed", bytes);
    let (status, out, words) = process::run("sha256sum", &[&file.to_string_lossy()]);
    assert!(status.success(), "{words}");
    out.split(' ').next().expect("a sum").to_owned()
}

/// What holds for every framework's example.
fn check_example(root: &Root, port: u16, host: &str) {
    // The first visit wakes it.
    let page = Request::get(host, "/").send(port);
    assert!(page.expect(200).contains("<html"), "{page:?}");
    let head = Request::head(host, "/").send(port);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), page.header("content-type"));

    // Uploads, with a length and in chunks.
    let body = pattern(10 * 1024 * 1024);
    let sum = sha256(root, &body);
    let upload = Request::post(host, "/upload", body.clone())
        .header("Content-Type", "application/octet-stream")
        .send(port);
    let seen = json(&upload);
    assert_eq!(
        (seen["length"].as_u64(), seen["sha256"].as_str()),
        (Some(10 * 1024 * 1024), Some(sum.as_str()))
    );
    let chunked = Request::new("POST", host, "/upload")
        .header("Content-Type", "application/octet-stream")
        .chunks(body.chunks(70_001).map(<[u8]>::to_vec))
        .send(port);
    let seen = json(&chunked);
    assert_eq!(
        (seen["length"].as_u64(), seen["sha256"].as_str()),
        (Some(10 * 1024 * 1024), Some(sum.as_str()))
    );

    // A download, whole and right.
    let download = Request::get(host, "/download?mb=100").send(port);
    assert_eq!((download.status, download.body.len()), (200, 100 << 20));
    assert!(
        download
            .body
            .iter()
            .zip((0..=255_u8).cycle())
            .all(|(byte, expected)| *byte == expected)
    );
    assert!(
        download
            .header("content-disposition")
            .is_some_and(|value| value.contains("100mb.bin"))
    );

    // The site's own pages for what is not there and for what fails.
    let missing = Request::get(host, "/nowhere").send(port);
    assert!(missing.expect(404).contains("own 404 page"), "{missing:?}");
    let broken = Request::get(host, "/broken").send(port);
    assert!(broken.expect(500).contains("own 500 page"), "{broken:?}");
}

#[test]
fn the_smallest_site() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _ = install(&root, &platform, "smallest");
    let page = platform.get("smallest.test", "/");
    let text = page.expect(200);
    assert!(
        text.contains("It runs.") && text.contains("Your visit woke this process."),
        "{text}"
    );
    assert!(
        text.contains(&format!("uid {}", platform.owner_uid())),
        "{text}"
    );
    let head = Request::head("smallest.test", "/").send(platform.port());
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        platform.get("smallest.test", "/nowhere").expect(404),
        "This site has one page.\n"
    );
    platform.assert_healthy();
}

/// A form, its redirect and its cookie.
fn check_form_and_cookie(port: u16, host: &str) {
    let sent = Request::post(host, "/", "name=Ada")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .send(port);
    assert_eq!(sent.status, 303, "{sent:?}");
    let location = sent.header("location").expect("a redirect has a location");
    assert!(
        location == "/" || location == format!("http://{host}/"),
        "no port or name of a backend: {location}"
    );
    let cookie = sent
        .header("set-cookie")
        .and_then(|cookie| cookie.split(';').next())
        .expect("a cookie");
    assert!(cookie.starts_with("visitor="), "{cookie}");
    let page = Request::get(host, "/").header("Cookie", cookie).send(port);
    assert!(page.expect(200).contains("Ada"), "{page:?}");
}

#[test]
fn bottle() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _ = install(&root, &platform, "bottle");
    check_example(&root, platform.port(), "bottle.test");
    check_form_and_cookie(platform.port(), "bottle.test");
    assert!(
        platform
            .get("bottle.test", "/static/style.css")
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/css"))
    );
    platform.assert_healthy();
}

#[test]
fn flask() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _ = install(&root, &platform, "flask");
    check_example(&root, platform.port(), "flask.test");
    check_form_and_cookie(platform.port(), "flask.test");
    assert!(
        platform
            .get("flask.test", "/static/style.css")
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/css"))
    );
    platform.assert_healthy();
}

#[test]
fn django() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _ = install(&root, &platform, "django");
    let port = platform.port();
    check_example(&root, port, "django.test");

    // A form with CSRF and a file.
    let page = Request::get("django.test", "/").send(port);
    let text = page.expect(200);
    let cookie = page
        .header("set-cookie")
        .and_then(|cookie| cookie.split(';').next())
        .expect("a cookie")
        .to_owned();
    let token = text
        .split_once("csrfmiddlewaretoken\" value=\"")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_else(|| panic!("no token: {text}"));
    let file = pattern(300_000);
    let mut body = Vec::new();
    for (name, value) in [
        ("csrfmiddlewaretoken", token),
        ("name", "Ada"),
        ("text", "Good morning."),
    ] {
        body.extend_from_slice(
            format!(
                "--bound\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .as_bytes(),
        );
    }
    body.extend_from_slice(
        b"--bound\r\nContent-Disposition: form-data; name=\"attachment\"; filename=\"f.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n",
    );
    body.extend_from_slice(&file);
    body.extend_from_slice(b"\r\n--bound--\r\n");
    let form = |cookie: &str| {
        Request::post("django.test", "/", body.clone())
            .header("Content-Type", "multipart/form-data; boundary=bound")
            .header("Cookie", cookie)
            .send(port)
    };
    assert_eq!(form("").status, 403, "without the cookie Django refuses it");
    let sent = form(&cookie);
    assert_eq!(sent.status, 303, "{sent:?}");
    let page = platform.get("django.test", "/").expect(200);
    let attachment = page
        .split_once("href=\"/attachment/")
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_else(|| panic!("no attachment: {page}"));
    assert!(page.contains("Good morning."));
    let stored = platform.get("django.test", &format!("/attachment/{attachment}"));
    assert_eq!(
        (stored.status, stored.body == file),
        (200, true),
        "the file came back as it was"
    );

    // Static files and the admin.
    let style = platform.get("django.test", "/static/guestbook/style.css");
    assert!(style.status == 200 && !style.body.is_empty());
    let admin = platform.get("django.test", "/admin/");
    assert_eq!(admin.status, 302);
    let login = admin.header("location").expect("a location");
    assert!(login.starts_with("/admin/login/"), "{login}");
    assert!(
        platform
            .get("django.test", login)
            .expect(200)
            .contains("Django administration")
    );
    platform.assert_healthy();
}

/// A platform with the probe as `probe.test`.
fn probing(root: &Root) -> Platform<'_> {
    let platform = Platform::with(root, Options::default());
    let _ = install(root, &platform, "probe");
    platform
}

#[test]
fn methods_queries_bodies_and_connections_arrive_as_they_were_sent() {
    let root = Root::new();
    let platform = probing(&root);
    let mut connection = Connection::open(platform.port()).expect("the balancer listens");
    for (method, body) in [
        ("GET", None),
        ("POST", Some(pattern(1))),
        ("PUT", Some(pattern(200_000))),
        ("DELETE", None),
        ("PATCH", Some(Vec::new())),
        ("OPTIONS", None),
        ("GET", Some(pattern(5))),
    ] {
        let target = "/echo?a=1&b=%2F%20%C3%BC&a=2";
        let mut request =
            Request::new(method, "probe.test", target).header("Content-Type", "x/y; z=\"1\"");
        if let Some(body) = &body {
            request = request.body(body.clone());
        }
        let answer = connection
            .exchange(&request)
            .expect("an answer on the kept connection");
        let seen = json(&answer);
        assert_eq!(seen["method"], method);
        assert_eq!(seen["query"], "a=1&b=%2F%20%C3%BC&a=2");
        assert_eq!(seen["content_type"], "x/y; z=\"1\"");
        assert_eq!(
            seen["sha256"].as_str(),
            Some(sha256(&root, &body.unwrap_or_default()).as_str()),
            "{method}"
        );
    }
    // Paths are the site's business: they arrive decoded once, whatever they hold.
    for (target, path) in [("/echo", "/echo"), ("/status/299", "/status/299")] {
        let _ = path;
        assert!(matches!(
            connection
                .exchange(&Request::get("probe.test", target))
                .expect("an answer")
                .status,
            200 | 299
        ));
    }
    platform.assert_healthy();
}

#[test]
fn statuses_redirects_and_cookies_are_the_site_s_own() {
    let root = Root::new();
    let platform = probing(&root);
    for status in [
        200, 201, 204, 206, 304, 400, 401, 403, 404, 405, 410, 413, 418, 429, 451, 500, 501, 502,
        503, 504, 505, 599,
    ] {
        let answer = platform.get("probe.test", &format!("/status/{status}"));
        let text = answer.expect(status);
        if !matches!(status, 204 | 304) {
            assert_eq!(
                text,
                format!("the probe's own {status}\n"),
                "the page is the site's own"
            );
        }
    }
    for to in [
        "/echo",
        "http://elsewhere.test/x?y=1",
        "https://probe.test/",
        "//other.test/",
        "relative",
    ] {
        let answer = platform.get(
            "probe.test",
            &format!(
                "/redirect?code=302&to={}",
                to.replace(':', "%3A").replace('?', "%3F")
            ),
        );
        assert_eq!((answer.status, answer.header("location")), (302, Some(to)));
    }
    let answer = Request::get("probe.test", "/cookie?set=v1")
        .header("Cookie", "a=b; c=d")
        .send(platform.port());
    assert_eq!(
        answer.all("set-cookie"),
        ["probe=v1; Path=/; HttpOnly", "second=2; Path=/"]
    );
    assert_eq!(json(&answer)["cookie"], "a=b; c=d");
    let failed = platform.get("probe.test", "/raise");
    assert!(failed.status >= 500, "{failed:?}");
    platform.assert_healthy();
}

#[test]
fn large_bodies_go_both_ways() {
    let root = Root::new();
    let platform = probing(&root);
    let body = pattern(10 * 1024 * 1024);
    let mirrored = Request::post("probe.test", "/mirror", body.clone()).send(platform.port());
    assert_eq!((mirrored.status, mirrored.body == body), (200, true));
    for target in ["/download?mb=100", "/download?mb=100&length=no"] {
        let download = platform.get("probe.test", target);
        assert_eq!((download.status, download.body.len()), (200, 100 << 20));
        assert!(
            download
                .body
                .iter()
                .enumerate()
                .all(|(at, byte)| usize::from(*byte) == at % 251)
        );
    }
    // A site that answers without reading the body: its answer arrives.
    let ignored = Request::post("probe.test", "/ignore", body).send(platform.port());
    assert_eq!(ignored.expect(200), "not read\n");
    platform.assert_healthy();
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_limit_is_a_setting() {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            balancer: "[balancer]\nclient_max_body_size = \"1m\"\n".to_owned(),
            ..Options::default()
        },
    );
    let site = platform.recorder("a.test");
    assert_eq!(
        Request::post("a.test", "/", vec![b'x'; 2 << 20])
            .send(platform.port())
            .status,
        413
    );
    assert_eq!(site.starts(), 0, "a refused request wakes nobody");
    let _ = Request::post("a.test", "/", vec![b'x'; 1 << 20])
        .send(platform.port())
        .expect(200);
}

#[test]
fn the_site_sees_the_visitor_not_the_balancer() {
    let root = Root::new();
    let platform = probing(&root);
    let seen = json(&platform.get("probe.test", "/headers?x=1"));
    assert_eq!(seen["HTTP_HOST"], "probe.test");
    assert_eq!(seen["REQUEST_URI"], "/headers?x=1");
    assert_eq!(seen["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(seen["wsgi.url_scheme"], "http");
    // What a client claims about itself is not believed by the balancer.
    let forged = Request::get("probe.test", "/headers")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X-Forwarded-Proto", "https")
        .header("X-Real-IP", "6.6.6.6")
        .header("Forwarded", "for=6.6.6.6;proto=https")
        .send(platform.port());
    let seen = json(&forged);
    assert_eq!(seen["wsgi.url_scheme"], "http");
    assert_eq!(seen["REMOTE_ADDR"], "127.0.0.1");
    let forwarded = seen["HTTP_X_FORWARDED_FOR"].as_str().unwrap_or_default();
    assert!(!forwarded.starts_with("6.6.6.6"), "{forwarded}");
    assert_ne!(seen["HTTP_X_FORWARDED_PROTO"], "https");
    // With a port in the Host the site sees it, so that its redirects can be right.
    let ported = json(&Request::get("probe.test:8080", "/headers").send(platform.port()));
    assert_eq!(ported["HTTP_HOST"], "probe.test:8080");
    platform.assert_healthy();
}
