//! What must hold for any bytes: [`host()`], [`table()`], [`arguments()`], [`escape()`]. Each panics if it does not.
//!
//! `scripts/fuzz` lets libFuzzer look for such bytes; a short search of another kind is among the tests. `seeds/` has the bytes
//! to begin with, and every input that ever broke something.
#![forbid(unsafe_code)]

use ::arguments::{
    Activity, Fallback, Form, Hash, Health, Keepalive, Pattern, Role, directory, eject,
};
use ::table::{BackendId, bucket, codec};
use control::escape::{IniValue, NginxValue};
use routing::host::{self, Host, MAX_DOMAIN};

#[path = "../../control/src/escape_readers.rs"]
mod readers;

/// The Host parser: a domain is normalised, bounded, and parsed again it is itself; so is an address.
pub fn host(bytes: &[u8]) {
    let Ok(found) = host::parse(bytes) else {
        return;
    };
    let shown = found.to_string();
    assert_eq!(
        host::parse(shown.as_bytes()).as_ref(),
        Ok(&found),
        "{shown}"
    );
    if let Host::Domain(domain) = found {
        assert!(!shown.is_empty() && shown.len() <= MAX_DOMAIN, "{shown}");
        assert!(
            shown.bytes().all(|byte| byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || b"-_.".contains(&byte)),
            "{shown}"
        );
        assert_eq!(
            routing::Domain::from_normalised(domain.as_bytes()),
            Some(domain)
        );
    }
}

/// The table's codec: bytes that are a record are the very bytes that this record is written as.
pub fn table(bytes: &[u8]) {
    if let Ok(header) = codec::decode_header(bytes) {
        assert_eq!(codec::encode_header(&header), bytes);
    }
    if let Some(retired) = codec::retire_header(bytes) {
        assert_eq!(codec::retire_header(&retired).as_ref(), Some(&retired));
    }
    if let Some(host) = routing::Domain::from_normalised(b"site.example.com")
        && let Ok(site) = codec::decode_site(bytes, &host)
    {
        let mut again = Vec::new();
        codec::encode_site(&site, host.as_bytes(), &mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(entries) = bucket::entries(bytes) {
        // The slots may lead anywhere.
        for (number, entry) in entries.iter().enumerate() {
            let _ = bucket::find(bytes, number as u64, entry.host);
        }
        // Any hash will do, as long as the same one is looked for.
        let hash = |host: &[u8]| host.iter().map(|byte| u64::from(*byte) << 40).sum();
        let distinct: std::collections::BTreeMap<_, _> =
            entries.iter().map(|entry| (entry.host, *entry)).collect();
        let again = bucket::encode(distinct.values().map(|entry| (hash(entry.host), *entry)));
        if let Ok(again) = again {
            for (host, entry) in distinct {
                assert_eq!(
                    bucket::find(&again, hash(host), host),
                    Ok(Some(entry.record))
                );
            }
        }
    }
    let _ = bucket::find(bytes, 7 << 48, b"site.example.com");
    if let Ok(id) = codec::decode_backend_key(bytes) {
        assert_eq!(codec::backend_key(id), bytes);
    }
    if let Some(id) = BackendId::new(1)
        && let Ok(backend) = codec::decode_backend(id, bytes)
    {
        assert_eq!(codec::encode_backend(&backend).as_deref(), Ok(bytes));
    }
}

/// The words behind a directive: whatever is accepted is within its bounds, and a refusal is one printable line. The first byte
/// says which directive, the words are separated by zeroes.
pub fn arguments(bytes: &[u8]) {
    let Some((directive, words)) = bytes.split_first() else {
        return;
    };
    let words = words.split(|byte| *byte == 0);
    let first = || words.clone().next().unwrap_or_default();
    let refusal = match directive % 10 {
        0 => directory(first()).map(|path| assert!(path.is_absolute())),
        1 => Activity::parse(words).map(|said| {
            assert!(said.directory.is_absolute());
            assert!(said.layout.sites() > 0);
        }),
        2 => ::arguments::text(first())
            .and_then(Pattern::parse)
            .map(|pattern| {
                let of =
                    |id, domain| ::arguments::Path::new(Some(&pattern), id, domain).to_string();
                assert_ne!(of(1, "a.test"), of(2, "b.test"), "sites share a socket");
            }),
        3 => Role::parse(first()).map(|_| ()),
        4 => Hash::parse(words).map(|said| {
            assert!(said.key.is_some() || said.method == routing::Method::default());
        }),
        5 => Keepalive::parse(words, seconds).map(|said| {
            assert!(said.limits.total > 0 && said.limits.per_peer > 0);
            assert!(said.timeout > 0 && said.requests > 0 && said.time > 0);
        }),
        6 => eject(words, seconds).map(|said| {
            assert!(said.time > 0 && said.max_time >= said.time);
        }),
        7 => Form::parse(words).map(|_| ()),
        8 => Health::parse(words, seconds).map(|said| {
            assert!(said.file.is_absolute() && said.stale > 0);
        }),
        _ => Fallback::parse(words, seconds).map(|said| {
            assert!(said.timeout > 0 && said.max_parked > 0);
            let expressions = [said.socket, said.vassal, said.initialize];
            assert!(
                expressions
                    .into_iter()
                    .flatten()
                    .all(|text| !text.is_empty())
            );
        }),
    };
    if let Err(why) = refusal {
        assert!(
            !why.is_empty() && !why.contains(char::is_control),
            "{why:?}"
        );
    }
}

/// Stands in for nginx's reader of times.
fn seconds(value: &[u8]) -> Option<usize> {
    let number: usize = ::arguments::number(value.strip_suffix(b"s")?)?;
    number.checked_mul(1000)
}

/// The escapers: nginx and uWSGI find one value, equal to what was given, and what follows it as it was.
pub fn escape(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(value) = NginxValue::new(&text) {
        let config = format!("directive {value} after;next;");
        let (words, rest) = readers::nginx_words(&config).expect("nginx reads it");
        assert_eq!(words, ["directive", &text, "after"]);
        assert_eq!(rest, "next;");
    }
    if let Ok(value) = IniValue::new(&text) {
        let file = format!("[uwsgi]\nkey = {value}\nnext = true\n");
        let pairs = readers::ini_pairs(&file).expect("nothing is replaced");
        let expected = [("key", &*text), ("next", "true")];
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        assert_eq!(pairs, expected);
    }
}
