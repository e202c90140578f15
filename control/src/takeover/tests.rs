use super::lines::{Form, Line, LogFormat};
use super::*;
use proptest::prelude::*;
use routing::python27;
use std::borrow::Cow;
use std::num::NonZeroU32;

fn servers(count: usize) -> Vec<Server> {
    let server = |number| {
        let key = format!("10.0.0.{number}:8080");
        Server {
            names: vec![key.clone(), format!("b{number}")],
            weight: Weight::ONE,
            key,
        }
    };
    (1..=count).map(server).collect()
}

/// Where CPython 2.7's `hash(host) % n` on a 64-bit machine puts a host.
fn python(host: &str, n: u32) -> usize {
    let n = NonZeroU32::new(n).unwrap();
    python27::floor_mod(python27::hash64(host.as_bytes()), n) as usize
}

fn take(check: &mut Check, line: u64, host: &str, name: &str) -> Taken {
    check.take(line, host.as_bytes(), name, || {
        Some(host.as_bytes().to_vec())
    })
}

fn count(check: &Check, method: Method) -> &Count {
    let found = check.counts().iter().find(|count| count.method == method);
    found.unwrap()
}

#[test]
fn a_deployment_that_was_placed_by_python_agrees_with_python_alone() {
    let mut check = Check::new(servers(7), 3);
    for number in 0..1000 {
        let host = format!("site{number}.example.org");
        let name = format!("b{}", python(&host, 7) + 1);
        assert_eq!(take(&mut check, number + 1, &host, &name), Taken::Compared);
    }
    assert_eq!((check.lines(), check.hosts()), (1000, 1000));
    let all = count(&check, Method::Python64);
    assert_eq!(
        (all.hosts, all.lines, &all.first[..]),
        (1000, 1000, &[][..])
    );
    for method in [Method::Python32, Method::Rendezvous] {
        let other = count(&check, method);
        assert!(
            other.hosts < 250,
            "about a seventh agrees by chance: {}",
            other.hosts
        );
        assert_eq!(other.first.len(), 3, "as many as are to be shown");
        assert!(other.first.iter().all(|one| one.was != one.would_be));
        assert!(other.first.is_sorted_by_key(|one| one.line));
    }
}

#[test]
fn a_host_that_was_elsewhere_once_does_not_agree_and_is_named_once() {
    let mut check = Check::new(servers(2), 10);
    let home = python("a.test", 2) + 1;
    let (home, other) = (format!("b{home}"), format!("b{}", 3 - home));
    for (line, name) in [(1, &home), (2, &other), (3, &other), (4, &home)] {
        take(&mut check, line, "a.test", name);
    }
    let count = count(&check, Method::Python64);
    assert_eq!((count.lines, count.hosts), (2, 0));
    assert_eq!(
        count.first.iter().map(|one| one.line).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn what_cannot_be_compared_is_said_and_not_counted() {
    let mut check = Check::new(servers(2), 10);
    assert_eq!(take(&mut check, 1, "a.test", "b3"), Taken::UnknownBackend);
    let mut asked = 0;
    for line in 2..4 {
        let nobody = || {
            asked += 1;
            None
        };
        assert_eq!(
            check.take(line, b"b.test", "b1", nobody),
            Taken::UnknownHost
        );
    }
    assert_eq!(asked, 1, "what is hashed for a host is asked once");
    assert_eq!((check.lines(), check.hosts()), (0, 0));
}

fn pair(host: &'static str, backend: &'static str) -> Line<'static> {
    Line::Pair {
        host: Cow::Borrowed(host.as_bytes()),
        backend: Cow::Borrowed(backend),
    }
}

#[test]
fn pairs_are_read_as_they_are_usually_written() {
    for (line, expected) in [
        ("a.test,10.0.0.1:80", pair("a.test", "10.0.0.1:80")),
        (" a.test , b1 ", pair("a.test", "b1")),
        ("\"a.test\",\"b1\"", pair("a.test", "b1")),
        ("host,backend", Line::Nothing),
        ("# a comment", Line::Nothing),
        ("", Line::Nothing),
        ("a.test", Line::Other),
        ("a.test,", Line::Other),
        ("a,b,c", Line::Other),
    ] {
        assert_eq!(Form::Pairs.read(line.as_bytes()), expected, "{line:?}");
    }
}

const FORMAT: &str = "$remote_addr - $remote_user [$time_local] $host \"$request\" $status \
                      \"$http_user_agent\" upstream=$upstream_addr;$request_time";

#[test]
fn a_log_is_read_by_the_format_it_was_written_with() {
    let form = Form::Log(LogFormat::parse(FORMAT, None, None).unwrap());
    let line = |host, agent, upstream| {
        format!(
            "::1 - - [25/Nov/2026:04:06:37 +0000] {host} \"GET /a b HTTP/1.1\" 200 \"{agent}\" upstream={upstream};0.001"
        )
    };
    for (host, agent, upstream, expected) in [
        (
            "a.test",
            "curl/8 [en]",
            "10.0.0.1:80",
            pair("a.test", "10.0.0.1:80"),
        ),
        (
            "a.test",
            "-",
            "10.0.0.1:80, 10.0.0.2:80 : b",
            pair("a.test", "10.0.0.1:80"),
        ),
        (
            "a.test",
            "upstream=\\x22",
            "unix:/run/s",
            pair("a.test", "unix:/run/s"),
        ),
        // Answered by nginx itself.
        ("a.test", "-", "-", Line::Nothing),
        ("", "-", "10.0.0.1:80", Line::Nothing),
    ] {
        let line = line(host, agent, upstream);
        assert_eq!(form.read(line.as_bytes()), expected, "{line}");
    }
    for other in ["", "rubbish", "::1 - - [25/Nov/2026:04:06:37 +0000] a.test"] {
        assert!(
            !matches!(form.read(other.as_bytes()), Line::Pair { .. }),
            "{other}"
        );
    }
}

#[test]
fn the_variables_that_matter_can_be_named_or_are_missed() {
    let read = |format: &str, host: Option<&str>, backend: Option<&str>| {
        let form = Form::Log(LogFormat::parse(format, host, backend).unwrap());
        form.read(b"a.test 10.0.0.1:80") == pair("a.test", "10.0.0.1:80")
    };
    assert!(read("$http_host $proxy_host", None, None));
    assert!(read(
        "$name ${backend_ip}",
        Some("name"),
        Some("backend_ip")
    ));
    for (format, host, why) in [
        (
            "$remote_addr",
            None,
            "no variable with the host ($host or $http_host)",
        ),
        (
            "$host",
            None,
            "no variable with the backend ($upstream_addr or $proxy_host)",
        ),
        ("$host $upstream_addr", Some("site"), "it has no $site"),
        ("$host$upstream_addr", None, "side by side"),
        ("$host $", None, "a $ without"),
    ] {
        let error = LogFormat::parse(format, host, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_expression_names_host_and_backend() {
    let form = Form::pattern(r"^(?<host>\S+) .* -> (?<backend>\S+)$").unwrap();
    assert_eq!(form.read(b"a.test GET / -> b1"), pair("a.test", "b1"));
    assert_eq!(form.read(b"nothing of it"), Line::Other);
    assert!(
        Form::pattern("(?<host>.*)")
            .unwrap_err()
            .to_string()
            .contains("(?<backend>")
    );
    assert!(Form::pattern("(").is_err());
}

proptest! {
    /// Whatever stands in a log, reading it ends and takes nothing that is not there.
    #[test]
    fn any_line_is_read(line: Vec<u8>) {
        for form in [
            Form::Pairs,
            Form::Log(LogFormat::parse(FORMAT, None, None).unwrap()),
            Form::pattern("(?<host>[^ ]*) (?<backend>[^ ]*)").unwrap(),
        ] {
            if let Line::Pair { host, .. } = form.read(&line) {
                prop_assert!(line.windows(host.len().max(1)).any(|part| part == &*host));
            }
        }
    }

    /// What nginx writes by a format is read back.
    #[test]
    fn what_is_logged_is_read_back(host in "[a-z0-9.-]{1,40}", backend in "[0-9.]{7,15}:[0-9]{1,5}", request in "[ -!#-~]{0,60}", agent in "[ -!#-~]{0,60}") {
        let line = format!("1.2.3.4 - - [now] {host} \"{request}\" 200 \"{agent}\" upstream={backend};0.1");
        let form = Form::Log(LogFormat::parse(FORMAT, None, None).unwrap());
        prop_assume!(host != "-");
        let expected = Line::Pair { host: host.as_bytes().into(), backend: backend.as_str().into() };
        prop_assert_eq!(form.read(line.as_bytes()), expected);
    }
}
