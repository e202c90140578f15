//! Promise R2: what looking a host up costs among a million sites, when few of them are busy and when all are.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use heed::types::Bytes;
use heed::{Database, EnvOpenOptions};
use routing::{Domain, Host};
use table::{Change, Options, Protocol, Reader, SiteId, SiteRecord, Writer, codec};

const SITES: u64 = 1_000_000;
/// Whose hosts are visited, and how many they are.
const VISITED: [(&str, u64); 2] = [
    ("10,000 busy hosts of 1,000,000", 10_000),
    // As many as are visited twice only after everything between has displaced them from any cache.
    ("all 1,000,000 hosts", 250_000),
];

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

/// The host names of sites as requests bring them. Parsed ones are ten times as large, and would themselves displace what is measured.
fn names(prefix: &str, numbers: impl Iterator<Item = u64>) -> Vec<Box<[u8]>> {
    let name = |number| format!("{prefix}{number}.example.com").into_bytes().into();
    numbers.map(name).collect()
}

/// Numbers of sites, spread over all of them without an order.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    // The golden ratio of SITES, and without a common factor: every number comes once before one comes twice.
    (0..count).map(|at| at * 618_033 % SITES)
}

/// What a worker does: from the bytes of a Host to the record, which it looks at where it is.
fn look(reader: &Reader, host: &[u8]) -> bool {
    let Ok(Host::Domain(host)) = routing::host::parse(host) else {
        return false;
    };
    reader
        .read(|view| black_box(&view.site(&host).unwrap()).is_some())
        .unwrap()
}

fn looking_up(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open_or_create(directory.path(), Options::default()).unwrap();
    writer.rebuild(1, (0..SITES).map(site)).unwrap();
    drop(writer);
    let reader = Reader::new(directory.path());
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    for (which, hosts) in VISITED {
        let hosts = names("site", scattered(hosts));
        let mut visited = hosts.iter().cycle();
        group.bench_function(which, |bencher| {
            bencher.iter(|| assert!(look(&reader, black_box(visited.next().unwrap()))));
        });
    }
    let unknown = names("nobody", scattered(10_000));
    let mut visited = unknown.iter().cycle();
    group.bench_function("hosts that no site has", |bencher| {
        bencher.iter(|| assert!(!look(&reader, black_box(visited.next().unwrap()))));
    });
    drop(reader);
    alone(&mut group);
    group.finish();
}

/// The rival: what LMDB takes with a record for each host, found and not looked at.
fn alone(group: &mut BenchmarkGroup<'_, WallTime>) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(1).map_size(4 << 30);
    // SAFETY: nobody else has it open.
    let env = unsafe { options.open(directory.path()).unwrap() };
    let mut txn = env.write_txn().unwrap();
    let hosts: Database<Bytes, Bytes> = env.create_database(&mut txn, Some("hosts")).unwrap();
    for number in 0..SITES {
        let Change::PutHost(host, site) = site(number) else {
            unreachable!()
        };
        let mut record = Vec::new();
        // With the primary domain, as if it were another.
        codec::encode_site(&site, b"", &mut record);
        hosts.put(&mut txn, host.as_bytes(), &record).unwrap();
    }
    txn.commit().unwrap();
    for (which, visited) in VISITED {
        let visited = names("site", scattered(visited));
        let mut next = visited.iter().cycle();
        group.bench_function(format!("LMDB alone, {which}"), |bencher| {
            bencher.iter(|| {
                let host = black_box(next.next().unwrap());
                let txn = env.read_txn().unwrap();
                assert!(hosts.get(&txn, host).unwrap().is_some());
            });
        });
        let txn = env.read_txn().unwrap();
        group.bench_function(
            format!("LMDB alone, in one transaction, {which}"),
            |bencher| {
                bencher.iter(|| {
                    let host = black_box(next.next().unwrap());
                    assert!(hosts.get(&txn, host).unwrap().is_some());
                });
            },
        );
    }
}

criterion_group!(benches, looking_up);
criterion_main!(benches);
