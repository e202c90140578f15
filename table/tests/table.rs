//! The table as its users see it: a writer, readers, and what they must survive.

use std::collections::BTreeMap;

use proptest::prelude::*;
use routing::{Domain, Placement, State, Weight};
use table::{
    BackendId, BackendRecord, Change, Options, Protocol, Reader, SiteId, SiteRecord, TableError,
    Writer,
};

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn put_host(name: &str, id: u64) -> Change {
    let host = domain(name);
    let site = SiteRecord {
        id: SiteId::new(id).unwrap(),
        primary: host.clone(),
        pin: None,
        enabled: true,
        protocol: Protocol::Uwsgi,
    };
    Change::PutHost(host, site)
}

fn backend(id: u32) -> BackendRecord {
    BackendRecord {
        id: BackendId::new(id).unwrap(),
        name: format!("b{id}"),
        key: format!("10.0.0.{id}:9001").into_bytes(),
        address: format!("10.0.0.{id}:9001").parse().unwrap(),
        weight: Weight::ONE,
        state: State::Active,
    }
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::new(dir.path());
    assert!(matches!(
        reader.read(|_| ()),
        Err(TableError::Missing { .. })
    ));

    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    assert_eq!(writer.generation(), 0);
    writer
        .apply(
            7,
            [
                put_host("a.example", 1),
                Change::PutBackend(backend(2)),
                Change::PutBackend(backend(1)),
            ],
        )
        .unwrap();
    assert_eq!(writer.generation(), 7);

    let reader = Reader::new(dir.path());
    reader
        .read(|view| {
            assert_eq!(view.header().generation, 7);
            assert_eq!(view.header().placement, Placement::default());
            assert_eq!(
                view.site(&domain("a.example")).unwrap().unwrap().id.get(),
                1
            );
            assert_eq!(view.site(&domain("b.example")).unwrap(), None);
            assert_eq!(view.backends().unwrap(), [backend(1), backend(2)]);
        })
        .unwrap();

    writer
        .apply(
            8,
            [
                Change::DeleteHost(domain("a.example")),
                put_host("b.example", 2),
            ],
        )
        .unwrap();
    assert_eq!(
        reader
            .read(|view| view.site(&domain("a.example")).unwrap())
            .unwrap(),
        None
    );
    writer.rebuild(9, [put_host("c.example", 3)]).unwrap();
    assert_eq!(reader.read(|view| view.header().generation).unwrap(), 9);
    assert!(
        reader
            .read(|view| view.site(&domain("c.example")).unwrap())
            .unwrap()
            .is_some()
    );
}

/// What a reader finds: host by host, and all of them.
fn agrees(reader: &Reader, wanted: &BTreeMap<Domain, SiteRecord>, others: &[Domain]) {
    reader
        .read(|view| {
            assert_eq!(view.header().spread.hosts, wanted.len() as u64);
            for (host, site) in wanted {
                assert_eq!(view.site(host).unwrap().as_ref(), Some(site), "{host}");
            }
            for host in others {
                assert_eq!(
                    view.site(host).unwrap().as_ref(),
                    wanted.get(host),
                    "{host}"
                );
            }
            let all: BTreeMap<_, _> = view.hosts().unwrap().map(Result::unwrap).collect();
            assert_eq!(&all, wanted);
        })
        .unwrap();
}

#[test]
fn a_table_grows_a_bucket_at_a_time_and_every_host_is_found_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    writer.rebuild(1, []).unwrap();
    let reader = Reader::new(dir.path());
    let mut wanted = BTreeMap::new();
    let (mut next, mut generation) = (0, 1);
    // Changes of one host, of few and of many at once, up to some forty buckets.
    for count in [1, 1, 158, 1, 1, 500, 3, 2000, 40, 3999] {
        let site = |id: u64| {
            let host = domain(&format!("site{id}.example"));
            let Change::PutHost(_, mut site) = put_host("any.example", id + 1) else {
                unreachable!()
            };
            // Every third is another name of a site.
            site.primary = match id % 3 {
                0 => domain("primary.example"),
                _ => host.clone(),
            };
            (host, site)
        };
        let new: Vec<_> = (next..next + count).map(site).collect();
        next += count;
        generation += 1;
        let changes = new
            .iter()
            .map(|(host, site)| Change::PutHost(host.clone(), site.clone()));
        writer.apply(generation, changes).unwrap();
        wanted.extend(new);
        agrees(&reader, &wanted, &[domain("nobody.example")]);
    }
    let buckets = |reader: &Reader| reader.read(|view| view.header().spread.buckets).unwrap();
    assert!((40..60).contains(&buckets(&reader)), "{}", buckets(&reader));
    // And shrinks to nothing.
    let gone = wanted.keys().cloned().map(Change::DeleteHost);
    writer.apply(generation + 1, gone).unwrap();
    agrees(&reader, &BTreeMap::new(), &[domain("site1.example")]);
    // A second writer finds it as it was left.
    drop((reader, writer));
    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    writer
        .apply(generation + 2, [put_host("again.example", 1)])
        .unwrap();
    let reader = Reader::new(dir.path());
    assert!(
        reader
            .read(|view| view.site(&domain("again.example")).unwrap())
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_source_that_fails_after_many_changes_has_changed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    let site = |id: u64| put_host(&format!("site{id}.example"), id + 1);
    let as_map = |count| {
        let pair = |id| match site(id) {
            Change::PutHost(host, site) => (host, site),
            _ => unreachable!(),
        };
        (0..count).map(pair).collect::<BTreeMap<_, _>>()
    };
    writer.rebuild(1, (0..400).map(site)).unwrap();
    let before = *writer.header().unwrap();
    let failing = (400..5000).map(|id| Ok(site(id)));
    let failing = failing.chain([Err("the registry is gone")]);
    assert!(matches!(
        writer.try_apply(2, failing),
        Err(TableError::Source(_))
    ));
    assert_eq!(*writer.header().unwrap(), before);
    let reader = Reader::new(dir.path());
    agrees(&reader, &as_map(400), &[domain("site400.example")]);
    writer.apply(2, (400..1500).map(site)).unwrap();
    agrees(&reader, &as_map(1500), &[]);
    // And more at once than are held.
    writer.apply(3, (1500..70_000).map(site)).unwrap();
    agrees(&reader, &as_map(70_000), &[domain("site70000.example")]);
}

#[test]
fn of_changes_of_one_host_the_last_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    let delete = |name| Change::DeleteHost(domain(name));
    writer
        .apply(
            1,
            [
                put_host("a.example", 1),
                put_host("a.example", 2),
                put_host("b.example", 3),
                delete("b.example"),
                delete("c.example"),
                put_host("c.example", 4),
            ],
        )
        .unwrap();
    let reader = Reader::new(dir.path());
    let id = |name| {
        let site = reader.read(|view| view.site(&domain(name)).unwrap());
        site.unwrap().map(|site| site.id.get())
    };
    assert_eq!(
        ["a.example", "b.example", "c.example"].map(id),
        [Some(2), None, Some(4)]
    );
    assert_eq!(reader.read(|view| view.header().spread.hosts).unwrap(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_changed_in_whatever_order_is_what_a_map_would_hold(
        steps in prop::collection::vec(prop::collection::vec((0_u32..600, any::<bool>(), 1_u64..9), 0..400), 1..8)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
        writer.rebuild(1, []).unwrap();
        let reader = Reader::new(dir.path());
        let mut wanted = BTreeMap::new();
        for (step, changes) in steps.into_iter().enumerate() {
            let changes: Vec<Change> = changes
                .into_iter()
                .map(|(number, puts, id)| {
                    let name = format!("{number}.example");
                    match puts {
                        true => put_host(&name, id),
                        false => Change::DeleteHost(domain(&name)),
                    }
                })
                .collect();
            for change in &changes {
                match change {
                    Change::PutHost(host, site) => drop(wanted.insert(host.clone(), site.clone())),
                    Change::DeleteHost(host) => drop(wanted.remove(host)),
                    _ => (),
                }
            }
            writer.apply(2 + step as u64, changes).unwrap();
            let others: Vec<Domain> = (0..600).map(|number| domain(&format!("{number}.example"))).collect();
            agrees(&reader, &wanted, &others);
        }
    }
}

#[test]
fn a_table_of_the_format_before_is_built_anew_and_its_readers_follow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("7");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink("7", dir.path().join("current")).unwrap();
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(3).map_size(1 << 20);
    // SAFETY: nobody else has it open.
    let old = unsafe { options.open(&path) }.unwrap();
    let mut txn = old.write_txn().unwrap();
    for (name, key, record) in [
        ("meta", &b"header"[..], [&[2, 0, 0][..], &[0; 26]].concat()),
        ("hosts", b"a.example", vec![1; 20]),
        ("backends", &[0, 0, 0, 1], vec![1; 20]),
    ] {
        let database: heed::Database<heed::types::Bytes, heed::types::Bytes> =
            old.create_database(&mut txn, Some(name)).unwrap();
        database.put(&mut txn, key, &record).unwrap();
    }
    txn.commit().unwrap();
    old.prepare_for_closing().wait();

    let version = Reader::new(dir.path()).read(|_| ()).unwrap_err();
    assert!(
        matches!(version, TableError::Version { found: 2, .. }),
        "{version}"
    );
    let mut writer = Writer::open_or_create(dir.path(), Options::default()).unwrap();
    assert_eq!(writer.generation(), 0);
    writer.apply(9, [put_host("a.example", 1)]).unwrap();
    let reader = Reader::new(dir.path());
    let site = reader.read(|view| view.site(&domain("a.example")).unwrap());
    assert_eq!(site.unwrap().map(|site| site.id.get()), Some(1));
    assert!(!path.exists(), "the old one is removed");
}
