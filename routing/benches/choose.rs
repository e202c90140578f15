//! Promise R2: what choosing a backend costs, with few and with many backends, and what parsing a Host does.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use routing::{Backends, Candidate, Method, Placement, SlotTable, State, Weight, host};

fn backends(n: usize, weight: impl Fn(usize) -> u32) -> Backends {
    let keys: Vec<String> = (0..n)
        .map(|i| format!("10.1.{}.{}:9001", i / 250, i % 250))
        .collect();
    Backends::new(keys.iter().enumerate().map(|(i, key)| Candidate {
        key: key.as_bytes(),
        weight: Weight::new(weight(i)).unwrap(),
        state: State::Active,
    }))
}

fn choosing(criterion: &mut Criterion) {
    let sites: Vec<String> = (0..1_000_000)
        .map(|i| format!("site{i}.example.com"))
        .collect();
    let mut group = criterion.benchmark_group("choose");
    group.throughput(Throughput::Elements(1));
    type Weights = fn(usize) -> u32;
    let lists: [(&str, Weights); 2] = [("equal", |_| 1), ("weighted", |i| 1 + i as u32 % 7)];
    for (weights, weight) in lists {
        for n in [8, 64, 1000] {
            let backends = backends(n, weight);
            for (method, placement) in [
                ("rendezvous", Placement::fixed(Method::Rendezvous)),
                ("python64", Placement::fixed(Method::Python64)),
            ] {
                let mut sites = sites.iter().cycle();
                group.bench_function(
                    BenchmarkId::new(format!("{method}/{weights}/direct"), n),
                    |bencher| {
                        bencher.iter(|| {
                            let site = black_box(sites.next().unwrap());
                            backends.choose(site.as_bytes(), None, &placement, |_| true)
                        });
                    },
                );
            }
            let placement = Placement::default();
            let mut memo = SlotTable::new(backends.clone());
            let every = sites
                .iter()
                .filter_map(|site| memo.choose(site.as_bytes(), None, &placement, |_| true))
                .count();
            assert_eq!(every, sites.len());
            for (which, busy) in [
                ("all 1,000,000 sites", 1_000_000),
                ("10,000 busy sites", 10_000),
            ] {
                let mut sites = sites.iter().take(busy).cycle();
                group.bench_function(
                    BenchmarkId::new(format!("rendezvous/{weights}/memo, {which}"), n),
                    |bencher| {
                        bencher.iter(|| {
                            let site = black_box(sites.next().unwrap());
                            memo.choose(site.as_bytes(), None, &placement, |_| true)
                        });
                    },
                );
            }
        }
    }
    group.finish();
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for raw in ["example.com", "Some-Shop.Example.org:8080", "127.0.0.1:80"] {
        group.bench_function(raw, |bencher| {
            bencher.iter(|| host::parse(black_box(raw.as_bytes())))
        });
    }
    group.finish();
}

criterion_group!(benches, choosing, parsing);
criterion_main!(benches);
