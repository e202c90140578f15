//! https on the balancer, where a certificate is set.

use paas_tests::platform::Options;
use paas_tests::{Certificate, Platform, Root, process};

/// Asks by curl, which checks the certificate; answers the body and what is before it.
fn curl(root: &Root, port: u16, host: &str, path: &str, more: &[&str]) -> (bool, String) {
    let resolve = format!("{host}:{port}:127.0.0.1");
    let authority = root.join("certificate.pem");
    let url = format!("https://{host}:{port}{path}");
    let authority = authority.to_string_lossy();
    let mut arguments = vec![
        "--silent",
        "--show-error",
        "--include",
        "--cacert",
        &*authority,
        "--resolve",
        &resolve,
    ];
    arguments.extend_from_slice(more);
    arguments.push(&url);
    let (status, out, words) = process::run("curl", &arguments);
    (status.success(), format!("{out}{words}"))
}

#[test]
fn a_site_is_served_over_https_and_knows_it() {
    let root = Root::new();
    let Certificate { certificate, key } = Certificate::new(&root, &["a.test", "unknown.test"]);
    let port = root.port();
    let balancer = format!(
        "[balancer]\nhttps_listen = [\"127.0.0.1:{port}\"]\ncertificate = \"{}\"\ncertificate_key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let platform = Platform::with(
        &root,
        Options {
            balancer,
            ..Options::default()
        },
    );
    let source = "def application(e, s):\n    s('200 OK', [('Content-Type', 'text/plain')])\n    \
                  return [('%s %s %s' % (e['wsgi.url_scheme'], e['HTTP_HOST'], e['wsgi.input'].read())).encode()]\n";
    root.write("sites/a/app.py", source);
    platform.add_site(
        "a.test",
        &root.join("sites/a"),
        &["--entry", "app:application"],
    );
    for http in ["--http1.1", "--http2"] {
        let (success, answer) = curl(&root, port, "a.test", "/", &[http, "--data", "secret"]);
        assert!(success, "{answer}");
        assert!(answer.contains(" 200"), "{answer}");
        assert!(
            answer.ends_with(&format!("https a.test:{port} b'secret'")),
            "{answer}"
        );
    }
    let (success, answer) = curl(&root, port, "unknown.test", "/", &[]);
    assert!(success && answer.contains(" 404"), "{answer}");
    // http goes on beside it.
    assert!(
        platform
            .get("a.test", "/")
            .expect(200)
            .starts_with("http a.test")
    );
    platform.assert_healthy();
}

#[test]
fn a_certificate_that_is_not_there_is_named() {
    let root = Root::new();
    let port = root.port();
    let machine = root.join("m");
    root.write(
        "m/etc/paas/paas.toml",
        format!(
            "roles = [\"balancer\"]\n[nginx]\nmodule = \"{}\"\n[balancer]\nlisten = [\"127.0.0.1:{port}\"]\n\
             https_listen = [\"127.0.0.1:{}\"]\ncertificate = \"/nowhere/c.pem\"\ncertificate_key = \"/nowhere/k.pem\"\n",
            paas_tests::build::module().display(),
            root.port()
        ),
    );
    let words = paas_tests::Paasctl::new(&machine).refused(&["render"]);
    assert!(words.contains("/nowhere/c.pem"), "{words}");
}
