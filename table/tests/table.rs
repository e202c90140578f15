//! The table as its users see it: a writer, readers, and what they must survive.

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
