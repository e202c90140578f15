//! The placement as a contract: other machines, architectures and versions must compute exactly this.
//!
//! If a change makes one of these fail, it moves the sites of every running deployment. The vectors of XXH3 and
//! SplitMix64 are their authors'; those of the placement were confirmed by an independent program (arbitrary-precision
//! integers, no tables shared) written from the description in `rendezvous.rs`.

use routing::rendezvous::{draw, key_hash, slot};
use routing::{Backends, Candidate, Method, Placement, SlotTable, State, Weight};

#[test]
fn keys_are_hashed_by_xxh3() {
    // From xxHash's own sanity test, and its command line.
    assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(key_hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
}

#[test]
fn draws_are_those_of_splitmix64() {
    let outputs = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    for (slot, output) in (0..).zip(outputs) {
        assert_eq!(draw(slot, 1_234_567), output);
    }
}

const RENDEZVOUS: Placement = Placement::fixed(Method::Rendezvous);

/// Backends named 192.0.2.1:9001 and so on.
fn backends(weights: &[u32]) -> Backends {
    let keys: Vec<String> = (1..=weights.len())
        .map(|i| format!("192.0.2.{i}:9001"))
        .collect();
    Backends::new(keys.iter().zip(weights).map(|(key, &weight)| Candidate {
        key: key.as_bytes(),
        weight: Weight::new(weight).unwrap(),
        state: State::Active,
    }))
}

#[test]
fn sites_are_where_they_always_were() {
    let equal = backends(&[1; 5]);
    let weighted = backends(&[1, 2, 3, 5, 8]);
    for (site, hash, slot_of_it, in_equal, in_weighted) in SITES {
        assert_eq!(key_hash(site.as_bytes()), hash, "{site}");
        assert_eq!(slot(hash), slot_of_it, "{site}");
        assert_eq!(
            equal.preference(site.as_bytes(), None, &RENDEZVOUS),
            in_equal,
            "{site}"
        );
        assert_eq!(
            weighted.preference(site.as_bytes(), None, &RENDEZVOUS),
            in_weighted,
            "{site}"
        );
    }
}

#[test]
fn ten_thousand_sites_on_forty_backends_are_where_they_always_were() {
    for (weights, digest) in DIGESTS {
        let weights: Vec<u32> = (1..=40).map(weights).collect();
        let mut memo = SlotTable::new(backends(&weights));
        let folded = (0..10_000).fold(0_u64, |folded, i| {
            let site = format!("site{i}.example.com");
            let index = memo
                .choose(site.as_bytes(), None, &RENDEZVOUS, |_| true)
                .unwrap();
            folded.wrapping_mul(1_000_003) ^ index as u64
        });
        assert_eq!(folded, digest, "weights {weights:?}: {folded:#018x}");
    }
}

type Site = (&'static str, u64, u32, [usize; 5], [usize; 5]);

/// A site's key, its hash, its slot, and its preference among five backends of equal and of unequal weight.
const SITES: [Site; 8] = [
    (
        "example.com",
        0x8b66_107e_8045_bb73,
        2283908,
        [4, 2, 1, 3, 0],
        [4, 2, 3, 1, 0],
    ),
    (
        "a",
        0xe6c6_32b6_1e96_4e1f,
        3781004,
        [3, 1, 2, 0, 4],
        [3, 4, 2, 1, 0],
    ),
    (
        "localhost",
        0x1613_c553_4ea9_f563,
        361713,
        [0, 4, 3, 1, 2],
        [4, 3, 0, 2, 1],
    ),
    (
        "xn--bcher-kva.example",
        0x6751_9d0e_20d5_24a6,
        1692775,
        [3, 4, 0, 1, 2],
        [3, 4, 2, 1, 0],
    ),
    (
        "flask.localhost",
        0xf6b4_3705_1069_e3f6,
        4041997,
        [0, 1, 2, 4, 3],
        [0, 1, 4, 2, 3],
    ),
    (
        "django.localhost",
        0xb522_84e1_a68d_0d80,
        2967713,
        [2, 1, 3, 4, 0],
        [2, 3, 1, 4, 0],
    ),
    (
        "1.example",
        0x24df_0470_b1a4_eead,
        604097,
        [3, 2, 0, 4, 1],
        [3, 4, 2, 0, 1],
    ),
    (
        "shop.example.org",
        0x1c7d_d8a5_e66b_434c,
        466806,
        [2, 0, 4, 3, 1],
        [2, 4, 0, 3, 1],
    ),
];

type Weights = fn(u32) -> u32;

/// Forty backends' weights, and the digest of where the sites are.
const DIGESTS: [(Weights, u64); 3] = [
    (|_| 1, 0x76d0_c206_7e21_d462),
    (|i| i, 0x1bdf_1423_3c1e_2d61),
    (|i| 1 + i * i * 7 % 9973, 0x357a_70fa_4ff9_3ebe),
];
