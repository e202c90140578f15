//! A short search for bytes that break a fuzz target: the seeds, the seeds with something changed, and any bytes.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let seeds = fs::read_dir(&directory).expect("every target has seeds");
    seeds
        .map(|seed| fs::read(seed.expect("listed").path()).expect("readable"))
        .collect()
}

/// What happens to a seed: some of its bytes are replaced by others.
#[derive(Debug, Clone)]
struct Splice {
    at: prop::sample::Index,
    removed: usize,
    inserted: Vec<u8>,
}

fn splice() -> impl Strategy<Value = Splice> {
    let bytes = prop_oneof![
        prop::sample::select(b"\0=.:;[]{}$%\"'\\ \n-0a\x7f\xff".to_vec()),
        any::<u8>()
    ];
    (
        any::<prop::sample::Index>(),
        0_usize..4,
        prop::collection::vec(bytes, 0..4),
    )
        .prop_map(|(at, removed, inserted)| Splice {
            at,
            removed,
            inserted,
        })
}

fn input(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let seed = prop::sample::select(seeds(target));
    let changed = (seed, prop::collection::vec(splice(), 0..6)).prop_map(|(mut bytes, splices)| {
        for splice in splices {
            let at = splice.at.index(bytes.len() + 1);
            let end = bytes.len().min(at + splice.removed);
            bytes.splice(at..end, splice.inserted);
        }
        bytes
    });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

fn search(target: &str, body: fn(&[u8])) {
    for seed in seeds(target) {
        body(&seed);
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&input(target), |bytes| {
        body(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{target}: {error}"));
}

#[test]
fn a_host_of_any_bytes() {
    search("host", fuzz::host);
}

#[test]
fn a_table_of_any_bytes() {
    search("table", fuzz::table);
}

#[test]
fn directives_with_any_arguments() {
    search("arguments", fuzz::arguments);
}

#[test]
fn values_of_any_bytes() {
    search("escape", fuzz::escape);
}
