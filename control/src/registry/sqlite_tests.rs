//! The registry through its trait, as the rest of the program sees it.
use super::*;
use crate::model::*;
use crate::registry::{Changed, SiteFilter};

struct World {
    registry: Sqlite,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            registry: Sqlite::open(&directory.path().join("var/registry.db")).unwrap(),
            directory,
        }
    }

    /// With the user anna, the backend b1 and the site a.example.
    fn settled() -> (Self, Site, Backend) {
        let mut world = Self::new();
        let (site, backend) = world
            .edit(|edit| {
                edit.add_user(&user("anna"), None, range())?;
                Ok((
                    edit.add_site(&new_site("a.example"))?,
                    edit.add_backend(&new_backend("b1", 9001))?,
                ))
            })
            .unwrap();
        (world, site, backend)
    }

    fn edit<T>(&mut self, change: impl FnOnce(&mut dyn Edit) -> Result<T>) -> Result<T> {
        let mut edit = self.registry.edit()?;
        let answer = change(&mut *edit)?;
        edit.commit()?;
        Ok(answer)
    }

    fn refused<T: std::fmt::Debug>(
        &mut self,
        change: impl FnOnce(&mut dyn Edit) -> Result<T>,
    ) -> String {
        self.edit(change).unwrap_err().to_string()
    }

    fn revision(&mut self) -> u64 {
        self.registry.view().unwrap().revision().unwrap()
    }

    fn since(&mut self, revision: u64) -> Option<Vec<Changed>> {
        self.registry
            .view()
            .unwrap()
            .changes_since(revision)
            .unwrap()
    }
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn name(name: &str) -> BackendName {
    BackendName::parse(name).unwrap()
}

fn domain(text: &str) -> Domain {
    parse_domain(text).unwrap()
}

fn range() -> UidRange {
    UidRange::new(1000, 1003).unwrap()
}

fn new_site(name: &str) -> NewSite {
    NewSite {
        user: user("anna"),
        domain: domain(name),
        directory: AbsolutePath::parse("/srv/über $x").unwrap(),
        application: Application::Wsgi(EntryPoint::parse("web/my app.py:app").unwrap()),
        venv: Some(AbsolutePath::parse("/srv/v").unwrap()),
        idle: Some(Idle::parse("90s").unwrap()),
        enabled: true,
        pin: None,
        settings: SiteSettings::default(),
    }
}

fn new_backend(text: &str, port: u16) -> NewBackend {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    NewBackend {
        name: name(text),
        address,
        key: BackendKey::of(address),
        weight: Weight::ONE,
        state: State::Active,
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (mut world, site, backend) = World::settled();
    let mut again = Sqlite::open(&world.directory.path().join("var/registry.db")).unwrap();
    let view = again.view().unwrap();
    assert_eq!(view.site(site.id).unwrap().unwrap(), site);
    assert_eq!(view.site_of(&domain("a.example")).unwrap().unwrap(), site);
    assert_eq!(
        view.backend_by_id(backend.id).unwrap().as_ref(),
        Some(&backend)
    );
    drop(view);
    let changed = Site {
        pin: Some(backend.id),
        enabled: false,
        venv: None,
        idle: None,
        ..site
    };
    world.edit(|edit| edit.set_site(&changed)).unwrap();
    assert_eq!(
        again.view().unwrap().site(changed.id).unwrap().unwrap(),
        changed
    );
    let placement = Placement {
        method: Method::Python32,
        change: Some(SlowChange {
            from: Method::Rendezvous,
            threshold: u64::MAX,
        }),
    };
    world
        .edit(|edit| edit.set_placement(&placement, None))
        .unwrap();
    assert_eq!(again.view().unwrap().placement().unwrap(), placement);
}

#[test]
fn the_file_is_its_owners_alone_and_durable() {
    let world = World::new();
    let path = world.directory.path().join("var/registry.db");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let pragma = |name: &str| {
        world
            .registry
            .connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    assert_eq!(pragma("synchronous"), 2.into());
    assert_eq!(pragma("foreign_keys"), 1.into());
}

#[test]
fn a_file_of_something_else_or_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    let said = Sqlite::open(&path).err().unwrap().to_string();
    assert!(said.contains("something else"), "{said}");
    other.pragma_update(None, "user_version", 99).unwrap();
    let said = Sqlite::open(&path).err().unwrap().to_string();
    assert!(
        said.contains("version 99") && said.contains("newer paasctl"),
        "{said}"
    );
    std::fs::write(
        &path,
        "this is no database, but long enough to be looked at as one",
    )
    .unwrap();
    assert!(Sqlite::open(&path).is_err());
}

#[test]
fn an_edit_that_is_not_committed_changes_nothing() {
    let (mut world, ..) = World::settled();
    let before = world.revision();
    {
        let mut edit = world.registry.edit().unwrap();
        edit.add_site(&new_site("b.example")).unwrap();
    }
    assert_eq!(world.revision(), before);
    assert!(
        world
            .registry
            .view()
            .unwrap()
            .site_of(&domain("b.example"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_view_stays_as_it_was_while_others_write() {
    let (mut world, ..) = World::settled();
    let mut reader = Sqlite::open(&world.directory.path().join("var/registry.db")).unwrap();
    let view = reader.view().unwrap();
    let before = view.revision().unwrap();
    world
        .edit(|edit| edit.add_site(&new_site("b.example")))
        .unwrap();
    assert_eq!(view.revision().unwrap(), before);
    assert!(view.site_of(&domain("b.example")).unwrap().is_none());
}

#[test]
fn no_uid_is_given_twice() {
    let mut world = World::new();
    let add = |world: &mut World, who: &str| {
        world
            .edit(|edit| edit.add_user(&user(who), None, range()))
            .map(|user| user.uid.get())
    };
    assert_eq!(add(&mut world, "a").unwrap(), 1000);
    assert_eq!(
        world
            .edit(|edit| edit.add_user(&user("b"), Some(Uid::new(1002).unwrap()), range()))
            .unwrap()
            .uid
            .get(),
        1002
    );
    world.edit(|edit| edit.remove_user(&user("b"))).unwrap();
    let said =
        world.refused(|edit| edit.add_user(&user("c"), Some(Uid::new(1002).unwrap()), range()));
    assert!(
        said.contains("1002") && said.contains("given out before"),
        "{said}"
    );
    assert_eq!(
        add(&mut world, "b").unwrap(),
        1003,
        "not the one it had before"
    );
    assert_eq!(
        add(&mut world, "d").unwrap(),
        1001,
        "the gap, when the end is reached"
    );
    let said = add(&mut world, "e").unwrap_err().to_string();
    assert!(
        said.contains("1000 to 1003") && said.contains("widen uid_range"),
        "{said}"
    );
    let said = world.refused(|edit| edit.add_user(&user("f"), Some(Uid::new(5).unwrap()), range()));
    assert!(said.contains("not in uid_range"), "{said}");
}

#[test]
fn no_id_is_used_twice() {
    let (mut world, site, backend) = World::settled();
    world.edit(|edit| edit.remove_site(site.id)).unwrap();
    world
        .edit(|edit| edit.remove_backend(&backend.name))
        .unwrap();
    assert!(
        world
            .edit(|edit| edit.add_site(&new_site("a.example")))
            .unwrap()
            .id
            > site.id
    );
    assert!(
        world
            .edit(|edit| edit.add_backend(&new_backend("b1", 9001)))
            .unwrap()
            .id
            > backend.id
    );
}

#[test]
fn duplicates_are_refused_with_their_owner() {
    let (mut world, site, _) = World::settled();
    world
        .edit(|edit| edit.add_domain(&domain("www.a.example"), site.id))
        .unwrap();
    let said = world.refused(|edit| edit.add_site(&new_site("a.example")));
    assert!(
        said.contains("domain a.example exists")
            && said.contains("primary")
            && said.contains("anna"),
        "{said}"
    );
    let said = world.refused(|edit| edit.add_site(&new_site("www.a.example")));
    assert!(
        said.contains("leads to") && said.contains("anna, a.example"),
        "{said}"
    );
    let said = world.refused(|edit| edit.add_domain(&domain("www.a.example"), site.id));
    assert!(said.contains("a.example"), "{said}");
    assert!(
        world
            .refused(|edit| edit.add_user(&user("anna"), None, range()))
            .contains("exists")
    );
    assert!(
        world
            .refused(|edit| edit.add_backend(&new_backend("b1", 9009)))
            .contains("backend b1 exists")
    );
    assert!(
        world
            .refused(|edit| edit.add_backend(&new_backend("b2", 9001)))
            .contains("already that of the backend b1")
    );
    let repaired = |edit: &mut dyn Edit| {
        let backend = edit.backend(&name("b1"))?.unwrap();
        edit.set_backend(&Backend {
            address: "10.0.0.9:80".parse().unwrap(),
            ..backend
        })
    };
    world.edit(repaired).unwrap();
    let said = world.refused(|edit| edit.add_backend(&new_backend("b2", 9001)));
    assert!(
        said.contains("--key") && said.contains("b1"),
        "the key stays with the repaired one: {said}"
    );
}

#[test]
fn what_others_need_is_not_removed() {
    let (mut world, site, backend) = World::settled();
    let said = world.refused(|edit| edit.remove_user(&user("anna")));
    assert!(
        said.contains("a.example") && said.contains("--with-sites"),
        "{said}"
    );
    let said = world.refused(|edit| edit.remove_domain(&domain("a.example")));
    assert!(
        said.contains("primary") && said.contains("remove-site"),
        "{said}"
    );
    let said = world.refused(|edit| edit.set_domain(&domain("a.example"), site.id));
    assert!(said.contains("primary"), "{said}");
    world
        .edit(|edit| {
            edit.set_site(&Site {
                pin: Some(backend.id),
                ..site.clone()
            })
        })
        .unwrap();
    let said = world.refused(|edit| edit.remove_backend(&backend.name));
    assert!(
        said.contains("a.example") && said.contains("--no-pin"),
        "{said}"
    );
    for missing in [
        world.refused(|edit| edit.remove_user(&user("bert"))),
        world.refused(|edit| edit.remove_backend(&name("b9"))),
        world.refused(|edit| edit.remove_domain(&domain("x.example"))),
        world.refused(|edit| {
            edit.add_site(&NewSite {
                user: user("bert"),
                ..new_site("x.example")
            })
        }),
        world.refused(|edit| edit.add_domain(&domain("x.example"), SiteId::new(99).unwrap())),
    ] {
        assert!(
            missing.contains("there is no") && missing.contains("`paasctl list-"),
            "{missing}"
        );
    }
}

#[test]
fn a_renamed_user_keeps_the_sites() {
    let (mut world, site, _) = World::settled();
    world
        .edit(|edit| edit.rename_user(&user("anna"), &user("bert")))
        .unwrap();
    let view = world.registry.view().unwrap();
    assert_eq!(view.site(site.id).unwrap().unwrap().user, user("bert"));
    let mut found = Vec::new();
    view.each_site(
        &SiteFilter {
            user: Some(user("bert")),
        },
        &mut |site| {
            found.push(site.id);
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(found, [site.id]);
}

#[test]
fn the_log_names_each_thing_once_and_says_when_it_is_too_short() {
    let (mut world, site, backend) = World::settled();
    world.registry.kept = 6;
    let start = world.revision();
    assert_eq!(world.since(start), Some(Vec::new()));
    world
        .edit(|edit| {
            edit.set_backend(&Backend {
                weight: Weight::new(2).unwrap(),
                ..backend.clone()
            })
        })
        .unwrap();
    world
        .edit(|edit| {
            edit.set_backend(&Backend {
                weight: Weight::new(3).unwrap(),
                ..backend.clone()
            })
        })
        .unwrap();
    assert_eq!(world.since(start), Some(vec![Changed::Backend(backend.id)]));
    let before = world.revision();
    world
        .edit(|edit| edit.add_domain(&domain("www.a.example"), site.id))
        .unwrap();
    world.edit(|edit| edit.remove_site(site.id)).unwrap();
    let mut changed = world.since(before).unwrap();
    changed.sort();
    let names = ["a.example", "www.a.example"].map(|name| Changed::Domain(Box::new(domain(name))));
    assert_eq!(changed[0], Changed::Site(site.id));
    assert_eq!(changed[1..], names, "names that went with their site");
    assert_eq!(
        world.since(start),
        Some(vec![
            Changed::Backend(backend.id),
            Changed::Site(site.id),
            names[0].clone(),
            names[1].clone()
        ])
    );
    world
        .edit(|edit| edit.set_placement(&Placement::default(), None))
        .unwrap();
    assert_eq!(world.since(start), None, "trimmed");
    let now = world.revision();
    assert_eq!(world.since(now + 1), None, "never reached here");
}

#[test]
fn hosts_come_in_pages_and_in_the_tables_order() {
    let (mut world, site, _) = World::settled();
    world
        .edit(|edit| {
            ["z.example", "b.example", "a-b.example"]
                .iter()
                .try_for_each(|name| edit.add_domain(&domain(name), site.id))
        })
        .unwrap();
    let view = world.registry.view().unwrap();
    let first = view.hosts_after(None, 3).unwrap();
    let second = view.hosts_after(Some(&first[2].0), 3).unwrap();
    let all: Vec<String> = first
        .iter()
        .chain(&second)
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(all, ["a-b.example", "a.example", "b.example", "z.example"]);
    assert!(
        first
            .iter()
            .all(|(_, record)| record.primary == domain("a.example") && record.id == site.id)
    );
}

#[test]
fn a_row_nobody_should_have_written_is_an_error_that_names_it() {
    let (mut world, site, _) = World::settled();
    world
        .registry
        .connection
        .execute(
            "UPDATE sites SET entry = 'x; y' WHERE id = ?1",
            [site.id.get()],
        )
        .unwrap();
    let said = world
        .registry
        .view()
        .unwrap()
        .site(site.id)
        .unwrap_err()
        .to_string();
    assert!(said.contains("site") && said.contains('1'), "{said}");
}
