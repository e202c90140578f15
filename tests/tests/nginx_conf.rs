//! The examples in `nginx-conf/`, as they stand there but for addresses and paths, in a real nginx: what they replace, what
//! they replace it with, and the way back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use paas_tests::stub::Answer;
use paas_tests::{Nginx, Paasctl, Process, Request, Root, Stub, build, nginx, wait};
use rustix::process::Signal;

/// What the distribution's package of the Lua module loads.
const LUA: &str = "load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;";

fn examples() -> PathBuf {
    build::workspace().join("nginx-conf")
}

/// Three servers that answer their own address, and an nginx in front of them that reads examples.
struct Front<'r> {
    root: &'r Root,
    port: u16,
    stubs: Vec<(String, Stub)>,
    main: String,
    nginx: Option<Nginx>,
}

impl<'r> Front<'r> {
    fn new(root: &'r Root) -> Front<'r> {
        let first = root.ports(3);
        let stubs = (first..first + 3).map(|port| {
            let address = format!("127.0.0.1:{port}");
            let answer = address.clone();
            (
                address,
                Stub::tcp(port, move |_| Answer::ok(answer.clone())),
            )
        });
        let ours = build::module();
        Front {
            root,
            port: root.port(),
            stubs: stubs.collect(),
            main: format!("{LUA}\nload_module {};", ours.display()),
            nginx: None,
        }
    }

    /// Puts an example in force: starts nginx with it, or reloads.
    fn use_example(&mut self, file: &str, change: impl Fn(String) -> String) {
        let text = fs::read_to_string(examples().join(file)).expect("the example is there");
        let mut text = change(text)
            .replace("listen 80;", &format!("listen 127.0.0.1:{};", self.port))
            .replace(
                "/etc/nginx/balancer",
                &examples().join("replace-lua").to_string_lossy(),
            );
        for (number, (address, _)) in self.stubs.iter().enumerate() {
            text = text.replace(&format!("10.0.0.1{}:8080", number + 1), address);
        }
        assert!(!text.contains("10.0.0."), "{text}");
        let prefix = Nginx::configure(self.root, "front", &self.main, &text);
        match &self.nginx {
            Some(running) => running.reload_as_is(),
            None => self.nginx = Some(Nginx::run(&prefix, "nginx.conf", self.port)),
        }
    }

    fn places(&self) -> BTreeMap<String, String> {
        let hosts = (0..150).map(|number| format!("site{number}.example.org"));
        hosts
            .map(|host| {
                let place = Request::get(&host, "/").send(self.port).expect(200);
                (host, place)
            })
            .collect()
    }

    fn connections(&self) -> usize {
        let last = |stub: &Stub| stub.received().last().map_or(0, |last| last.connections);
        self.stubs.iter().map(|(_, stub)| last(stub)).sum()
    }

    fn assert_healthy(&self) {
        self.nginx.as_ref().expect("it runs").assert_healthy();
    }
}

fn moved(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    let pairs = before.iter().zip(after);
    pairs.filter(|(before, after)| before != after).count()
}

#[test]
fn replacing_lua_moves_no_site_and_one_reload_leads_back() {
    let root = Root::new();
    let mut front = Front::new(&root);
    for (lua, ours, expect) in [
        ("hash64", "python64", "python64"),
        ("hash32", "python32", "python32"),
    ] {
        front.use_example("replace-lua/before.conf", |text| {
            text.replace("python_hash.hash64", &format!("python_hash.{lua}"))
        });
        let connections = front.connections();
        let before = front.places();
        assert!(
            front.connections() >= connections + before.len(),
            "a new connection for each request"
        );

        let pairs: String = before
            .iter()
            .map(|(host, place)| format!("{host},{place}\n"))
            .collect();
        let pairs = root.write("pairs.csv", pairs);
        let servers: Vec<&str> = front.stubs.iter().map(|(name, _)| name.as_str()).collect();
        let report = Paasctl::new(root.path()).ok(&[
            "check-takeover",
            &pairs.to_string_lossy(),
            "--servers",
            &servers.join(","),
            "--expect",
            expect,
        ]);
        assert!(
            report.contains(&format!("{expect}    150 (100.0 %)")),
            "{report}"
        );

        front.use_example("replace-lua/after.conf", |text| {
            text.replace("method=python64", &format!("method={ours}"))
        });
        let connections = front.connections();
        assert_eq!(moved(&before, &front.places()), 0, "no site moves");
        assert!(
            front.connections() < connections + 10,
            "connections are kept"
        );

        front.use_example("replace-lua/before.conf", |text| {
            text.replace("python_hash.hash64", &format!("python_hash.{lua}"))
        });
        assert_eq!(moved(&before, &front.places()), 0, "and none moves back");
    }
    front.assert_healthy();
}

#[test]
fn replacing_the_consistent_hash_slowly_moves_each_site_once() {
    let root = Root::new();
    let mut front = Front::new(&root);
    let same = |text| text;
    front.use_example("replace-consistent-hash/before.conf", same);
    let mut steps = vec![front.places()];
    for share in ["30%", "60%"] {
        front.use_example("replace-consistent-hash/slowly.conf", |text| {
            text.replace("30%", share)
        });
        steps.push(front.places());
    }
    front.use_example("replace-consistent-hash/after.conf", same);
    steps.push(front.places());
    let (old, new) = (steps[0].clone(), steps[3].clone());
    assert!(moved(&old, &new) > 75, "about two of three sites move");
    for (host, old) in &old {
        let places: Vec<&String> = steps.iter().map(|step| &step[host]).collect();
        let moves = places.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(moves <= 1, "{host}, from {old}: {places:?}");
    }
    for (step, least, most) in [(1, 20, 45), (2, 45, 80)] {
        let gone = moved(&old, &steps[step]);
        assert!(
            (least..most).contains(&gone),
            "step {step}: {gone} have moved"
        );
    }
    front.use_example("replace-consistent-hash/before.conf", same);
    assert_eq!(moved(&old, &front.places()), 0, "one reload leads back");
    front.assert_healthy();
}

const APP: &str = r#"
import os, uwsgi

def application(environ, start_response):
    if environ["PATH_INFO"] == "/crash":
        os._exit(1)
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("%d %s" % (uwsgi.masterpid(), body.decode())).encode()]
"#;

#[test]
fn a_start_up_service_of_the_operator_s_own_wakes_sites() {
    let root = Root::new();
    let (run, sites) = (root.join("run"), root.join("srv"));
    root.write("srv/a.test/app.py", APP);
    let own = examples().join("own-start-up");
    let path = |path: &Path| path.to_string_lossy().into_owned();

    let mut starter = Command::new("/usr/bin/python3");
    starter.args([path(&own.join("starter.py")), path(&run), path(&sites)]);
    let _starter = Process::start(
        "starter.py",
        &mut starter,
        &root.join("starter.log"),
        Signal::TERM,
    );
    wait::until_true("the starter", || run.join("starter.sock").exists());

    let emperor = fs::read_to_string(own.join("emperor.ini")).expect("the example is there");
    let emperor = root.write("emperor.ini", emperor.replace("/run/sites", &path(&run)));
    let mut command = Command::new("uwsgi");
    command.arg("--ini").arg(emperor);
    let _emperor = Process::start(
        "uwsgi",
        &mut command,
        &root.join("emperor.log"),
        Signal::INT,
    );

    let port = root.port();
    let text = fs::read_to_string(own.join("backend.conf")).expect("the example is there");
    let text = text
        .replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
        .replace("include uwsgi_params", "include /etc/nginx/uwsgi_params")
        .replace("/run/sites", &path(&run));
    let front = Nginx::start(&root, "front", &text, port);

    // Many first visitors at once: one start.
    let visitors: Vec<_> = (0..20)
        .map(|number| {
            thread::spawn(move || {
                Request::post("a.test", "/", format!("visitor {number}")).send(port)
            })
        })
        .collect();
    let answers: Vec<String> = visitors
        .into_iter()
        .map(|visitor| visitor.join().expect("an answer").expect(200))
        .collect();
    let process = |answer: &str| answer.split(' ').next().unwrap_or_default().to_owned();
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(process(answer), process(&answers[0]), "one start for all");
        assert!(answer.ends_with(&format!("visitor {number}")), "{answer}");
    }

    // A real 502 of a running site, and a site that does not start.
    assert_eq!(Request::get("a.test", "/crash").send(port).status, 502);
    assert_eq!(Request::get("unknown.test", "/").send(port).status, 503);

    // Put to sleep by removing its vassal file; the next visitor wakes it. A uWSGI that is told to stop while it replaces a worker
    // may take a minute.
    let _ = Request::get("a.test", "/").send(port).expect(200);
    fs::remove_file(run.join("vassals/a.test.ini")).expect("it runs");
    wait::until_true("the site to stop", || !run.join("a.test/socket").exists());
    let woken = Request::get("a.test", "/").send(port).expect(200);
    assert_ne!(process(&woken), process(&answers[0]), "another process");
    nginx::assert_no_crash(&front.errors());
}
