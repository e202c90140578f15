//! Old or new, whatever happens. nginx is played by a script that refuses what contains `refuse`.
use super::*;
use std::os::unix::fs::PermissionsExt;

struct World {
    settings: Settings,
    directory: tempfile::TempDir,
}

const PRETENDER: &str = "#!/bin/sh\nfor last; do :; done\ncase $(/bin/cat \"$last\") in *refuse*) echo \"nginx: [emerg] unknown directive in $last:1\" >&2; exit 1;; esac\n";

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("pretender");
        std::fs::write(&program, PRETENDER).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(directory.path().join("etc/paas")).unwrap();
        std::fs::write(
            directory.path().join("etc/paas/paas.toml"),
            "name = \"m\"\n[nginx]\nbinary = \"pretender\"\n",
        )
        .unwrap();
        Self {
            settings: Settings::load(directory.path()).unwrap(),
            directory,
        }
    }

    fn generations(&self) -> Generations<'_> {
        Generations::of(&self.settings)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.settings.paths().generations()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    fn live(&self) -> String {
        std::fs::read_to_string(self.settings.paths().current().join("nginx.conf")).unwrap()
    }
}

fn tree(main: &str) -> Rendered {
    let files = [("nginx.conf", main), ("snippets/http.d/a.conf", "a\n")];
    Rendered {
        files: files
            .map(|(name, content)| (name.to_owned(), content.to_owned()))
            .into(),
        notes: Vec::new(),
    }
}

#[test]
fn an_accepted_tree_is_in_force_and_the_same_again_changes_nothing() {
    let world = World::new();
    assert_eq!(world.generations().live().unwrap(), None);
    let first = world.generations().put(&tree("one\n")).unwrap();
    let changed = vec!["nginx.conf".to_owned(), "snippets/http.d/a.conf".to_owned()];
    assert_eq!(
        first,
        Outcome::Switched {
            generation: 1,
            changed,
            warnings: String::new()
        }
    );
    assert_eq!(
        world.generations().put(&tree("one\n")).unwrap(),
        Outcome::Unchanged { generation: 1 }
    );
    let second = world.generations().put(&tree("two\n")).unwrap();
    assert_eq!(
        second,
        Outcome::Switched {
            generation: 2,
            changed: vec!["nginx.conf".to_owned()],
            warnings: String::new()
        }
    );
    assert_eq!(world.live(), "two\n");
    assert_eq!(
        world.generations().live().unwrap().unwrap(),
        (2, tree("two\n").files)
    );
    let mode = world
        .settings
        .paths()
        .generations()
        .join("2")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o750, "snippets may hold secrets");
}

#[test]
fn a_refused_tree_leaves_the_old_one_and_nothing_else_behind() {
    let world = World::new();
    world.generations().put(&tree("one\n")).unwrap();
    let said = world
        .generations()
        .put(&tree("refuse\n"))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("nginx refuses") && said.contains("unknown directive in nginx.conf:1"),
        "{said}"
    );
    assert_eq!(world.live(), "one\n");
    assert_eq!(world.names(), ["1"]);
    assert_eq!(
        world.generations().put(&tree("one\n")).unwrap(),
        Outcome::Unchanged { generation: 1 }
    );
}

#[test]
fn checking_changes_no_generation() {
    let world = World::new();
    world.generations().check(&tree("one\n")).unwrap();
    assert!(world.generations().check(&tree("refuse\n")).is_err());
    assert!(!world.settings.paths().generations().exists());
    assert!(!world.settings.paths().current().exists());
}

#[test]
fn what_a_crash_left_is_cleared_and_never_in_force() {
    let world = World::new();
    world.generations().put(&tree("one\n")).unwrap();
    let generations = world.settings.paths().generations();
    // Killed while staging, and killed between the tree's name and the link.
    std::fs::create_dir(generations.join(".stage-x")).unwrap();
    std::fs::create_dir(generations.join("2")).unwrap();
    std::fs::write(generations.join("2/nginx.conf"), "half").unwrap();
    assert_eq!(world.live(), "one\n");
    assert!(matches!(
        world.generations().put(&tree("two\n")).unwrap(),
        Outcome::Switched { generation: 3, .. }
    ));
    assert_eq!(world.names(), ["1", "2", "3"]);
}

#[test]
fn a_missing_nginx_is_named() {
    let world = World::new();
    std::fs::remove_file(world.directory.path().join("pretender")).unwrap();
    let said = world
        .generations()
        .put(&tree("one\n"))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("pretender") && said.contains("nginx.binary"),
        "{said}"
    );
}

#[test]
fn only_the_last_ones_are_kept() {
    let world = World::new();
    for number in 0..KEPT + 3 {
        world
            .generations()
            .put(&tree(&format!("{number}\n")))
            .unwrap();
    }
    assert_eq!(world.names().len(), KEPT);
    assert_eq!(world.names().last().unwrap(), &(KEPT + 3).to_string());
}

#[test]
fn a_diff_names_what_is_new_and_what_is_gone() {
    let before = Tree::from([
        ("a".to_owned(), "1\n2\n".to_owned()),
        ("gone".to_owned(), "x\n".to_owned()),
    ]);
    let after = Tree::from([
        ("a".to_owned(), "1\n3\n".to_owned()),
        ("new".to_owned(), "y\n".to_owned()),
    ]);
    let text = diff(&before, &after);
    assert_eq!(
        text,
        "--- live/a\n+++ rendered/a\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n--- live/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n--- /dev/null\n+++ rendered/new\n@@ -0,0 +1 @@\n+y\n"
    );
    assert_eq!(diff(&after, &after), "");
}
