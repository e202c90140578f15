//! Promise R2: what looking a host up costs among a million sites, when few of them are busy and when all are.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use routing::Domain;
use table::{Change, Options, Protocol, Reader, SiteId, SiteRecord, Writer};

const SITES: u64 = 1_000_000;

fn domain(number: u64) -> Domain {
    Domain::parse(&format!("site{number}.example.com")).unwrap()
}

fn site(number: u64) -> Change {
    let domain = domain(number);
    let record = SiteRecord {
        id: SiteId::new(number + 1).unwrap(),
        primary: domain.clone(),
        pin: None,
        enabled: true,
        protocol: Protocol::Uwsgi,
    };
    Change::PutHost(domain, record)
}

/// Numbers of sites, spread over all of them without an order.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    // The golden ratio of SITES, and without a common factor: every number comes once before one comes twice.
    (0..count).map(|at| at * 618_033 % SITES)
}

fn looking_up(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open_or_create(directory.path(), Options::default()).unwrap();
    writer.rebuild(1, (0..SITES).map(site)).unwrap();
    drop(writer);
    let reader = Reader::new(directory.path());
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    for (which, hosts) in [
        ("10,000 busy hosts of 1,000,000", 10_000),
        // As many as are visited twice only after everything between has displaced them from any cache.
        ("all 1,000,000 hosts", 250_000),
    ] {
        let hosts: Vec<Domain> = scattered(hosts).map(domain).collect();
        let mut visited = hosts.iter().cycle();
        group.bench_function(which, |bencher| {
            bencher.iter(|| {
                let host = black_box(visited.next().unwrap());
                let site = reader.read(|view| view.site(host)).unwrap().unwrap();
                assert!(site.is_some());
                site
            });
        });
    }
    let unknown: Vec<Domain> = scattered(10_000)
        .map(|number| Domain::parse(&format!("nobody{number}.example.com")).unwrap())
        .collect();
    let mut visited = unknown.iter().cycle();
    group.bench_function("hosts that no site has", |bencher| {
        bencher.iter(|| {
            let host = black_box(visited.next().unwrap());
            reader.read(|view| view.site(host)).unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, looking_up);
criterion_main!(benches);
