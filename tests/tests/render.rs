//! `paasctl render` beside a running nginx: what nginx accepts is in force after a reload by hand, what it refuses never is.

use std::fs;
use std::path::PathBuf;

use paas_tests::{Nginx, Paasctl, Request, Root, Stub, build, stub::Answer};

/// A balancer whose backends are rendered `server` lines: nobody but `paasctl` and nginx runs.
struct Machine {
    root: PathBuf,
    port: u16,
    paasctl: Paasctl,
}

impl Machine {
    fn new(root: &Root, more: &str) -> Machine {
        let port = root.port();
        root.write(
            "m/etc/paas/paas.toml",
            format!(
                "roles = [\"balancer\"]\n[nginx]\nworkers = 1\nmodule = {:?}\n[balancer]\nlisten = [\"127.0.0.1:{port}\"]\n\
                 backends = \"static\"\n{more}",
                build::module()
            ),
        );
        for directory in ["m/run/paas", "m/var/log/paas"] {
            fs::create_dir_all(root.join(directory)).expect("ours");
        }
        let root = root.join("m");
        let paasctl = Paasctl::new(&root);
        Machine {
            root,
            port,
            paasctl,
        }
    }

    fn add_backend(&self, root: &Root, name: &str) -> Stub {
        let port = root.port();
        let own = name.to_owned();
        let stub = Stub::tcp(port, move |_| Answer::ok(own.clone()));
        self.paasctl
            .ok(&["add-backend", name, &format!("127.0.0.1:{port}")]);
        stub
    }

    fn nginx(&self) -> Nginx {
        Nginx::rendered(&self.root, self.port)
    }

    /// Who answers a hundred different hosts.
    fn answering(&self) -> Vec<String> {
        let mut seen: Vec<String> = (0..100)
            .map(|host| {
                Request::get(format!("h{host}.test"), "/")
                    .send(self.port)
                    .expect(200)
            })
            .collect();
        seen.sort();
        seen.dedup();
        seen
    }

    fn generation(&self) -> PathBuf {
        fs::canonicalize(self.root.join("var/lib/paas/current")).expect("something is rendered")
    }
}

#[test]
fn add_backend_render_and_a_reload_by_hand_without_a_daemon() {
    let root = Root::new();
    let machine = Machine::new(&root, "");
    let _first = machine.add_backend(&root, "first");
    let said = machine.paasctl.ok(&["render"]);
    assert!(said.contains("to start nginx"), "{said}");
    let nginx = machine.nginx();
    assert_eq!(machine.answering(), ["first"]);

    let _second = machine.add_backend(&root, "second");
    assert_eq!(
        machine.answering(),
        ["first"],
        "not before it is rendered and reloaded"
    );
    let said = machine.paasctl.ok(&["render"]);
    assert!(said.contains("-s reload"), "{said}");
    nginx.reload_as_is();
    assert_eq!(machine.answering(), ["first", "second"]);

    machine.paasctl.ok(&["remove-backend", "first"]);
    machine.paasctl.ok(&["render"]);
    nginx.reload_as_is();
    assert_eq!(machine.answering(), ["second"]);
    nginx.assert_healthy();
}

#[test]
fn what_nginx_refuses_never_goes_live_and_the_cause_is_named() {
    let root = Root::new();
    let machine = Machine::new(&root, "");
    let _first = machine.add_backend(&root, "first");
    machine.paasctl.ok(&["render"]);
    let nginx = machine.nginx();
    let before = machine.generation();
    let tree = |directory: &PathBuf| {
        let mut files: Vec<_> = fs::read_dir(directory)
            .expect("it is there")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect();
        files.sort();
        files
    };
    let content = tree(&before);

    let snippet = root.write("m/etc/paas/server.d/mine.conf", "no_such_directive on;\n");
    let _second = machine.add_backend(&root, "second");
    for arguments in [["render"].as_slice(), &["render", "--check"]] {
        let words = machine.paasctl.refused(arguments);
        assert!(
            words.contains("no_such_directive") && words.contains("mine.conf:1"),
            "the cause and its place: {words}"
        );
    }
    assert_eq!(machine.generation(), before);
    assert_eq!(
        tree(&before),
        content,
        "not a byte of what is in force has changed"
    );
    // The operator's own snippet is read by nginx where it lies; without it, what is in force loads as before.
    fs::remove_file(&snippet).expect("ours");
    nginx.reload_as_is();
    assert_eq!(machine.answering(), ["first"]);
    machine.paasctl.ok(&["render"]);
    nginx.reload_as_is();
    assert_eq!(machine.answering(), ["first", "second"]);
    nginx.assert_healthy();
}

#[test]
fn an_existing_nginx_includes_the_parts() {
    let root = Root::new();
    let machine = Machine::new(&root, "default_server = false\n");
    let _first = machine.add_backend(&root, "first");
    machine.paasctl.ok(&["render"]);
    let current = machine.root.join("var/lib/paas/current");
    let current = current.display();
    let own = root.port();
    let nginx = Nginx::start(
        &root,
        "theirs",
        &format!(
            "server {{ listen 127.0.0.1:{own}; server_name _; return 200 theirs; }}
             include {current}/paas-http.conf;
             include {current}/paas-balancer.conf;"
        ),
        own,
    );
    assert_eq!(machine.answering(), ["first"]);
    assert_eq!(Request::get("h1.test", "/").send(own).expect(200), "theirs");
    let _second = machine.add_backend(&root, "second");
    machine.paasctl.ok(&["render"]);
    nginx.reload_as_is();
    assert_eq!(machine.answering(), ["first", "second"]);
    nginx.assert_healthy();
}

#[test]
fn diff_shows_what_would_change_and_changes_nothing() {
    let root = Root::new();
    let machine = Machine::new(&root, "");
    let _first = machine.add_backend(&root, "first");
    machine.paasctl.ok(&["render"]);
    assert_eq!(machine.paasctl.ok(&["render", "--diff"]), "");
    let _second = machine.add_backend(&root, "second");
    let before = machine.generation();
    let outcome = machine.paasctl.run(&["render", "--diff"]);
    assert!(
        !outcome.success && outcome.out.contains("+    server 127.0.0.1:"),
        "{outcome:?}"
    );
    assert_eq!(machine.generation(), before);
}
