//! Host headers: what is accepted, what it becomes, and that nothing else is.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use routing::host::{self, Domain, Host, HostError};

fn parsed(raw: &str) -> Result<String, HostError> {
    host::parse(raw.as_bytes()).map(|host| host.to_string())
}

#[test]
fn names_are_normalised() {
    for (raw, name) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:80", "example.com"),
        ("example.com:", "example.com"),
        ("example.com.:65535", "example.com"),
        ("example.com:00080", "example.com"),
        ("localhost", "localhost"),
        ("a", "a"),
        ("1.example", "1.example"),
        ("1a", "1a"),
        ("0x7f.0.0.x1", "0x7f.0.0.x1"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("my_site.example", "my_site.example"),
        ("_.example", "_.example"),
        ("a--b.example", "a--b.example"),
    ] {
        assert_eq!(parsed(raw).as_deref(), Ok(name), "{raw}");
    }
}

#[test]
fn addresses_are_told_from_names() {
    for (raw, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[::1]:", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
    ] {
        assert!(
            matches!(host::parse(raw.as_bytes()), Ok(Host::Ip(_))),
            "{raw}"
        );
        assert_eq!(parsed(raw).as_deref(), Ok(address), "{raw}");
    }
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    use HostError::*;
    for (raw, error) in [
        ("", Empty),
        (".", Empty),
        (":80", Empty),
        ("..", EmptyLabel),
        (".example", EmptyLabel),
        ("a..b", EmptyLabel),
        ("example.com..", EmptyLabel),
        ("-a.example", Hyphen),
        ("a-.example", Hyphen),
        ("example-", Hyphen),
        ("xn--.example", Hyphen),
        ("a b", Byte(b' ')),
        ("a/b", Byte(b'/')),
        ("a\\b", Byte(b'\\')),
        ("a%00", Byte(b'%')),
        ("a\0", Byte(0)),
        ("a\n", Byte(b'\n')),
        ("user@example", Byte(b'@')),
        ("*.example", Byte(b'*')),
        ("$host", Byte(b'$')),
        ("bücher.example", Byte(0xc3)),
        ("example.com,", Byte(b',')),
        ("a]", Byte(b']')),
        ("a[::1]", Port),
        ("example.com:80:80", Port),
        ("example.com:http", Port),
        ("example.com:-1", Port),
        ("example.com:+1", Port),
        ("example.com: 80", Port),
        ("example.com:65536", Port),
        ("example.com:000080", Port),
        ("::1", Port),
        ("[::1]80", Port),
        ("[::1].", Port),
        ("[::1", Ipv6),
        ("[]", Ipv6),
        ("[127.0.0.1]", Ipv6),
        ("[fe80::1%eth0]", Ipv6),
        ("[fe80::1%25eth0]", Ipv6),
        ("[v1.a]", Ipv6),
        ("[[::1]]", Port),
        ("1", Number),
        ("1.2.3", Number),
        ("1.2.3.4.5", Number),
        ("256.1.1.1", Number),
        ("127.0.0.01", Number),
        ("example.1", Number),
    ] {
        assert_eq!(parsed(raw), Err(error), "{raw:?}");
    }
}

#[test]
fn the_limits_are_63_and_253() {
    let label = |length: usize| "a".repeat(length);
    let name = |last: usize| format!("{0}.{0}.{0}.{1}", label(63), label(last));
    assert_eq!(name(61).len(), 253);
    assert_eq!(parsed(&name(61)), Ok(name(61)));
    assert_eq!(
        parsed(&format!("{}.:65535", name(61).to_uppercase())),
        Ok(name(61))
    );
    assert_eq!(parsed(&name(62)), Err(HostError::TooLong));
    assert_eq!(parsed(&"a.".repeat(1000)), Err(HostError::TooLong));
    assert_eq!(parsed(&label(63)), Ok(label(63)));
    assert_eq!(parsed(&label(64)), Err(HostError::LabelTooLong));
    assert_eq!(
        parsed(&format!("{}.example", label(64))),
        Err(HostError::LabelTooLong)
    );
    assert_eq!(parsed(&"a".repeat(1 << 20)), Err(HostError::TooLong));
}

#[test]
fn a_domain_is_a_name_only() {
    assert_eq!(
        Domain::parse("Example.COM.").unwrap().as_str(),
        "example.com"
    );
    for (name, error) in [
        ("127.0.0.1", HostError::Address),
        ("127.0.0.1.", HostError::Address),
        ("[::1]", HostError::Address),
        ("1.2.3", HostError::Number),
        ("example.com:80", HostError::Byte(b':')),
    ] {
        assert_eq!(Domain::parse(name), Err(error), "{name}");
    }
    assert_eq!(
        Domain::from_normalised(b"example.com").unwrap().as_str(),
        "example.com"
    );
    for bytes in [
        &b"Example.com"[..],
        b"example.com.",
        b"",
        b"127.0.0.1",
        b"\xff",
    ] {
        assert_eq!(Domain::from_normalised(bytes), None);
    }
}

#[test]
fn a_domain_compares_and_hashes_as_its_text() {
    let names = ["a.example", "a", "ab", "b", "a-b", "a_b", "a.b"];
    let mut domains: Vec<Domain> = names.iter().map(|name| name.parse().unwrap()).collect();
    let mut sorted = names;
    sorted.sort_unstable();
    domains.sort();
    assert!(domains.iter().map(Domain::as_str).eq(sorted));
    let set: HashSet<Domain> = domains.into_iter().collect();
    assert!(names.iter().all(|&name| set.contains(name)));
    let state = RandomState::new();
    assert_eq!(
        state.hash_one("a.example"),
        state.hash_one(Domain::parse("A.example").unwrap())
    );
    assert_eq!(
        format!(
            "{:>6}|{:?}",
            Domain::parse("a").unwrap(),
            Domain::parse("a").unwrap()
        ),
        "     a|Domain(a)"
    );
}

/// The rules once more, written to be read rather than to be fast.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    (1..=253).contains(&text.len())
        && text.split('.').all(good_label)
        && !last.chars().all(|c| c.is_ascii_digit())
}

/// Bytes that come close to being hosts.
fn nearly_a_host() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<Vec<u8>>(),
        r"[a-zA-Z0-9._:-]{0,300}".prop_map(String::into_bytes),
        r"([a-zA-Z0-9_-]{1,64}\.){0,5}[a-z0-9]{1,8}\.?(:[0-9]{0,6})?".prop_map(String::into_bytes),
        r"\[[0-9a-f:.]{0,30}\]?(:[0-9]{0,6})?".prop_map(String::into_bytes),
        r"[0-9]{1,3}(\.[0-9]{1,3}){0,5}\.?(:[0-9]{0,6})?".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_bytes_have_an_answer(raw in nearly_a_host()) {
        match host::parse(&raw) {
            Ok(Host::Domain(domain)) => {
                prop_assert!(is_name(domain.as_str()));
                prop_assert!(!domain.as_str().ends_with('.'));
                prop_assert_eq!(domain.as_str(), domain.as_str().to_ascii_lowercase());
                let again = host::parse(domain.as_bytes());
                prop_assert_eq!(again, Ok(Host::Domain(domain.clone())));
                prop_assert_eq!(Domain::from_normalised(domain.as_bytes()), Some(domain.clone()));
                prop_assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
            }
            Ok(Host::Ip(address)) => {
                let again = host::parse(Host::Ip(address).to_string().as_bytes());
                prop_assert_eq!(again, Ok(Host::Ip(address)));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn exactly_the_names_are_accepted(text in r"([a-zA-Z0-9_-]{0,64}\.){0,5}[a-zA-Z0-9-]{0,64}\.?") {
        let accepted = matches!(host::parse(text.as_bytes()), Ok(Host::Domain(_)));
        prop_assert_eq!(accepted, is_name(&text));
    }

    #[test]
    fn a_port_and_the_case_change_nothing(name in r"([a-z0-9_]{1,63}\.){0,2}[a-z]{1,63}", port: u16) {
        let plain = host::parse(name.as_bytes());
        prop_assert!(plain.is_ok());
        prop_assert_eq!(&host::parse(format!("{name}:{port}").as_bytes()), &plain);
        prop_assert_eq!(&host::parse(name.to_uppercase().as_bytes()), &plain);
        prop_assert_eq!(&host::parse(format!("{name}.:{port}").as_bytes()), &plain);
    }

    #[test]
    fn every_address_is_one(v4: u32, v6: u128, port: u16) {
        let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        prop_assert_eq!(host::parse(format!("{v4}:{port}").as_bytes()), Ok(Host::Ip(v4.into())));
        prop_assert_eq!(host::parse(format!("[{v6}]:{port}").as_bytes()), Ok(Host::Ip(v6.into())));
    }
}
