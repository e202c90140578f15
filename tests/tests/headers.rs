//! No header of a client or of a site steers the platform.

use paas_tests::{Platform, Request, Response, Root, build, process};

fn probing(root: &Root) -> Platform<'_> {
    let platform = Platform::start(root);
    let directory = root.join("sites/probe");
    let uid = platform.owner_uid();
    let script = build::workspace().join("scripts/install-example");
    let (status, _, words) = process::run(
        script,
        &[
            "probe",
            &directory.to_string_lossy(),
            &format!("{uid}:{uid}"),
        ],
    );
    assert!(status.success(), "{words}");
    platform.add_site("probe.test", &directory, &[]);
    platform
}

/// The request headers that reached the site, by their CGI names.
fn reached(answer: &Response) -> serde_json::Map<String, serde_json::Value> {
    let text = answer.expect(200);
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(headers)) => headers,
        other => panic!("{other:?}: {text}"),
    }
}

#[test]
fn a_site_s_x_accel_headers_do_nothing() {
    let root = Root::new();
    let platform = probing(&root);
    for to in [
        "/secret",
        "@wake",
        "@paas_error",
        "paas:initialize",
        "/paas/anything",
        "/../../etc/passwd",
        "/echo",
    ] {
        // The first visit goes the way through the wake, too.
        let answer = platform.get(
            "probe.test",
            &format!("/xaccel?to={}", to.replace('@', "%40").replace(':', "%3A")),
        );
        assert_eq!(answer.expect(200), "the site's own body\n", "{to}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8"),
            "X-Accel-Charset does nothing"
        );
    }
    platform.assert_healthy();
}

#[test]
fn a_site_s_x_paas_headers_are_removed() {
    let root = Root::new();
    let platform = probing(&root);
    for _ in 0..2 {
        let answer = platform.get("probe.test", "/xaccel");
        let forged: Vec<&(String, String)> = answer
            .headers
            .iter()
            .filter(|(name, value)| {
                name.to_ascii_lowercase().starts_with("x-paas") && value == "forged"
            })
            .collect();
        assert!(forged.is_empty(), "{forged:?}");
    }
    platform.assert_healthy();
}

#[test]
fn a_client_s_headers_of_these_names_reach_no_site() {
    let root = Root::new();
    let platform = probing(&root);
    let answer = Request::get("probe.test", "/headers")
        .header("X-Paas-Site", "other.test")
        .header("X-PAAS-ID", "1")
        .header("x-paas-reason", "because")
        .header("X_Paas_Site", "other.test")
        .header("X-Accel-Redirect", "/secret")
        .header("X-Accel-Buffering", "no")
        .header("Proxy", "http://evil.test/")
        .header("X-Other", "kept")
        .send(platform.port());
    assert!(answer.header("x-accel-redirect").is_none());
    let headers = reached(&answer);
    let paas: Vec<&String> = headers
        .keys()
        .filter(|name| name.contains("PAAS"))
        .collect();
    assert!(paas.is_empty(), "{paas:?}");
    assert!(!headers.contains_key("HTTP_PROXY"), "httpoxy");
    assert_eq!(headers["HTTP_X_OTHER"], "kept");
    platform.assert_healthy();
}

#[test]
fn the_platform_s_own_error_pages_show_only_what_visitors_may_know() {
    let root = Root::new();
    let platform = probing(&root);
    let crashed = platform.get("probe.test", "/crash");
    assert_eq!(crashed.status, 502);
    assert!(
        !crashed.text().contains(&*root.path().to_string_lossy()),
        "no paths: {crashed:?}"
    );
    let versions = crashed.header("server").unwrap_or_default();
    assert!(
        !versions.contains("1.22") && !crashed.text().contains("nginx/1"),
        "no versions: {crashed:?}"
    );
    platform.assert_healthy();
}
