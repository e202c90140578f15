//! The table says what the registry says, whichever way it came there.
use std::collections::BTreeMap;

use super::*;
use crate::model::*;
use crate::registry::hosts::PAGE;
use crate::registry::sqlite::Sqlite;
use table::{Options, Reader, SiteRecord};

struct World {
    registry: Sqlite,
    writer: Writer,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Sqlite::open(&directory.path().join("registry.db")).unwrap();
        let writer =
            Writer::open_or_create(directory.path().join("table"), Options::default()).unwrap();
        Self {
            registry,
            writer,
            directory,
        }
    }

    fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut dyn crate::registry::Edit) -> Result<T, RegistryError>,
    ) -> T {
        let mut edit = self.registry.edit().unwrap();
        let answer = change(&mut *edit).unwrap();
        edit.commit().unwrap();
        answer
    }

    fn sync(&mut self) -> Synced {
        sync(&mut self.registry, &mut self.writer).unwrap()
    }

    /// Everything the table holds, and the same as a rebuilt one would hold it.
    fn both(&self) -> (Content, Content) {
        let mut other = Sqlite::open(&self.directory.path().join("registry.db")).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let mut writer =
            Writer::open_or_create(fresh.path().join("t"), Options::default()).unwrap();
        rebuild(&mut other, &mut writer).unwrap();
        (
            content(&self.directory.path().join("table")),
            content(&fresh.path().join("t")),
        )
    }
}

type Content = (
    u64,
    Placement,
    Vec<BackendRecord>,
    BTreeMap<Domain, SiteRecord>,
);

fn content(directory: &std::path::Path) -> Content {
    Reader::new(directory)
        .read(|view| {
            let hosts = view
                .hosts()
                .unwrap()
                .collect::<Result<BTreeMap<_, _>, _>>()
                .unwrap();
            (
                view.header().generation,
                view.header().placement,
                view.backends().unwrap(),
                hosts,
            )
        })
        .unwrap()
}

fn domain(text: &str) -> Domain {
    parse_domain(text).unwrap()
}

fn new_site(name: &str) -> NewSite {
    NewSite {
        user: UserName::parse("anna").unwrap(),
        domain: domain(name),
        directory: AbsolutePath::parse("/srv/a").unwrap(),
        application: Application::Wsgi(EntryPoint::parse("a:b").unwrap()),
        venv: None,
        idle: None,
        enabled: true,
        pin: None,
        settings: SiteSettings::default(),
    }
}

fn new_backend(name: &str, address: &str) -> NewBackend {
    let address = address.parse().unwrap();
    NewBackend {
        name: BackendName::parse(name).unwrap(),
        address,
        key: BackendKey::of(address),
        weight: Weight::ONE,
        state: State::Active,
    }
}

#[test]
fn the_table_follows_every_kind_of_change() {
    let mut world = World::new();
    assert!(
        matches!(world.sync(), Synced::Rebuilt(_)),
        "an empty registry makes an empty table"
    );
    let range = UidRange::new(1000, 2000).unwrap();
    let (site, backend) = world.edit(|edit| {
        edit.add_user(&UserName::parse("anna").unwrap(), None, range)?;
        let backend = edit.add_backend(&new_backend("b1", "127.0.0.1:9001"))?;
        edit.add_backend(&new_backend("b2", "127.0.0.1:9002"))?;
        Ok((edit.add_site(&new_site("a.example"))?, backend))
    });
    assert!(matches!(world.sync(), Synced::Applied { .. }));
    let (held, right) = world.both();
    assert_eq!(held, right);
    assert_eq!((held.2.len(), held.3.len()), (2, 1));

    world.edit(|edit| edit.add_domain(&domain("www.a.example"), site.id));
    world.edit(|edit| {
        edit.set_site(&Site {
            pin: Some(backend.id),
            enabled: false,
            ..site.clone()
        })
    });
    world.edit(|edit| {
        edit.set_backend(&Backend {
            state: State::Draining,
            weight: Weight::new(5).unwrap(),
            ..backend.clone()
        })
    });
    world.edit(|edit| {
        let placement = Placement {
            method: Method::Python64,
            change: Some(SlowChange {
                from: Method::Rendezvous,
                threshold: u64::MAX - 1,
            }),
        };
        edit.set_placement(&placement, None)
    });
    world.sync();
    let (held, right) = world.both();
    assert_eq!(held, right);
    assert!(
        held.3
            .values()
            .all(|record| record.pin == Some(backend.id) && !record.enabled),
        "both names say so"
    );

    let other = world.edit(|edit| edit.add_site(&new_site("b.example")));
    world.edit(|edit| edit.set_domain(&domain("www.a.example"), other.id));
    world.edit(|edit| edit.remove_site(site.id));
    world.edit(|edit| edit.remove_backend(&BackendName::parse("b1").unwrap()));
    world.sync();
    let (held, right) = world.both();
    assert_eq!(held, right);
    assert_eq!(
        held.3.keys().map(Domain::as_str).collect::<Vec<_>>(),
        ["b.example", "www.a.example"]
    );
    assert!(matches!(world.sync(), Synced::Unchanged(_)));
}

#[test]
fn a_table_too_far_behind_or_ahead_is_built_anew() {
    let mut world = World::new();
    world.registry = Sqlite::open(&world.directory.path().join("registry.db"))
        .unwrap()
        .keeping(2);
    world.sync();
    world.edit(|edit| {
        edit.add_user(
            &UserName::parse("anna").unwrap(),
            None,
            UidRange::new(1000, 2000).unwrap(),
        )
    });
    for name in ["a.example", "b.example", "c.example"] {
        world.edit(|edit| edit.add_site(&new_site(name)));
    }
    assert!(matches!(world.sync(), Synced::Rebuilt(_)));
    // A registry restored from an older copy.
    world.writer.apply(1_000_000, []).unwrap();
    assert!(matches!(world.sync(), Synced::Rebuilt(_)));
    let (held, right) = world.both();
    assert_eq!(held, right);
}

#[test]
fn more_hosts_than_a_page_all_arrive() {
    let mut world = World::new();
    let count = 2 * PAGE as usize + 7;
    world.edit(|edit| {
        edit.add_user(
            &UserName::parse("anna").unwrap(),
            None,
            UidRange::new(1000, 2000).unwrap(),
        )?;
        (0..count).try_for_each(|n| edit.add_site(&new_site(&format!("s{n}.example"))).map(drop))
    });
    rebuild(&mut world.registry, &mut world.writer).unwrap();
    assert_eq!(
        content(&world.directory.path().join("table")).3.len(),
        count
    );
}

#[test]
fn a_table_that_is_damaged_where_it_is_to_be_changed_is_built_anew() {
    let mut world = World::new();
    world.edit(|edit| {
        let range = UidRange::new(1000, 2000).unwrap();
        edit.add_user(&UserName::parse("anna").unwrap(), None, range)?;
        edit.add_site(&new_site("a.example"))
    });
    world.sync();
    let path = world.directory.path().join("table/current/data.mdb");
    let mut file = std::fs::read(&path).unwrap();
    let host = b"a.example";
    let mut found = 0;
    for at in 3..file.len() - host.len() {
        if file[at..].starts_with(host) {
            // The lengths that stand before it.
            file[at - 3..at].fill(0xff);
            found += 1;
        }
    }
    assert!(found > 0);
    let mut open = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut open, &file).unwrap();
    assert!(
        Reader::new(world.directory.path().join("table"))
            .read(|view| view.site(&domain("a.example")))
            .unwrap()
            .is_err()
    );

    world.edit(|edit| edit.add_site(&new_site("b.example")));
    assert!(matches!(world.sync(), Synced::Rebuilt(_)));
    let (held, right) = world.both();
    assert_eq!(held, right);
    assert_eq!(held.3.len(), 2);
}
