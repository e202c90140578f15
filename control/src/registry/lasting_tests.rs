use super::*;
use crate::model::UserName;
use std::os::unix::fs::PermissionsExt as _;

fn add_user(registry: &mut dyn Registry, name: &str) {
    let name = UserName::parse(name).expect("a name");
    let range = crate::model::UidRange::new(1000, 2000).expect("a range");
    let mut edit = registry.edit().expect("it can be written");
    edit.add_user(&name, None, range).expect("it is new");
    edit.commit().expect("it is committed");
}

fn users(registry: &mut dyn Registry) -> Result<Vec<String>> {
    let users = registry.view()?.users()?;
    Ok(users.iter().map(|user| user.name.to_string()).collect())
}

struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
    copy: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let join = |name| directory.path().join(name);
    let place = Place {
        path: join("here/registry.db"),
        copy: join("copy.db"),
        directory,
    };
    add_user(&mut Sqlite::open(&place.path).expect("it is made"), "ada");
    place
}

#[test]
fn a_registry_that_is_not_there_is_never_made() {
    let place = place();
    let nowhere = place.path.with_file_name("nowhere.db");
    let mut lasting = Lasting::new(&nowhere, None);
    assert!(lasting.view().is_err());
    assert!(lasting.edit().is_err());
    assert!(!nowhere.exists());
}

#[test]
fn a_registry_that_is_gone_is_read_in_its_copy_and_itself_again_when_it_is_back() {
    let place = place();
    copy_file(&place.path, &place.copy).expect("it is copied");
    let mode = fs::metadata(&place.copy)
        .expect("it is there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut lasting = Lasting::new(&place.path, Some(place.copy.clone()));
    add_user(&mut lasting, "eve");
    assert_eq!(users(&mut lasting).expect("itself"), ["ada", "eve"]);

    // As if its storage were not mounted any more.
    let [here, away] = ["here", "away"].map(|name| place.directory.path().join(name));
    fs::rename(&here, &away).expect("ours");
    assert_eq!(users(&mut lasting).expect("the copy"), ["ada"]);
    assert!(lasting.edit().is_err(), "nobody writes into a copy");

    fs::rename(&away, &here).expect("ours");
    assert_eq!(users(&mut lasting).expect("itself again"), ["ada", "eve"]);
    // A registry that was restored is another file.
    fs::rename(&here, &away).expect("ours");
    add_user(&mut Sqlite::open(&place.path).expect("it is made"), "kim");
    assert_eq!(users(&mut lasting).expect("the new one"), ["kim"]);
}

#[test]
fn a_damaged_registry_is_read_in_its_copy() {
    let place = place();
    copy_file(&place.path, &place.copy).expect("it is copied");
    fs::write(&place.path, vec![0x5a; 8192]).expect("ours");
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(place.path.with_file_name(format!("registry.db{end}")));
    }
    let mut lasting = Lasting::new(&place.path, Some(place.copy.clone()));
    assert_eq!(users(&mut lasting).expect("the copy"), ["ada"]);
}
