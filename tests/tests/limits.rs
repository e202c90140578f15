//! What a user and a site may have: what is set is what the processes have, at once or with the next start; who uses up the CPU
//! time of the day is slowed, not stopped; who may connect to others reaches the world and nothing of the platform's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use paas_tests::process::Process;
use paas_tests::{Platform, Root, network, process, wait};
use rustix::process::Signal;
use serde_json::Value;

/// Does what its visitors say.
const DOER: &str = r#"
import os, resource, socket, time, urllib.request

def connect(host, port):
    try:
        socket.create_connection((host, int(port)), 3).close()
        return "connected"
    except OSError as error:
        return error.__class__.__name__ + " " + str(error.errno)

def eat(megabytes):
    held = b"x" * (int(megabytes) << 20)
    return "ate %d" % len(held)

def burn(seconds):
    end = time.process_time() + float(seconds)
    began = time.monotonic()
    while time.process_time() < end:
        pass
    return "%.3f" % (time.monotonic() - began)

def files():
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

def tmp():
    about = os.statvfs("/tmp")
    return str(about.f_blocks * about.f_frsize)

def fetch(host, port):
    return urllib.request.urlopen("http://%s:%s/" % (host, port), timeout=5).read().decode()

def resolver():
    return open("/etc/resolv.conf").read()

def address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
        it.connect(("203.0.113.1", 9))
        return it.getsockname()[0]

def application(environ, start_response):
    what, *words = environ["PATH_INFO"][1:].split("/")
    text = globals()[what](*words) if what else "fine"
    start_response("200 OK", [])
    return [text.encode()]
"#;

fn root_only() -> bool {
    let is = rustix::process::geteuid().is_root();
    if !is {
        eprintln!("not run: limits and networks take root");
    }
    is
}

fn add(root: &Root, platform: &Platform<'_>, name: &str) {
    root.write(format!("sites/{name}/app.py"), DOER);
    platform.add_site(
        name,
        &root.join(format!("sites/{name}")),
        &["--entry", "app:application"],
    );
}

fn shown(platform: &Platform<'_>, arguments: &[&str]) -> Value {
    let text = platform.paasctl().ok(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The directories of the machine's control groups, in the tree of this controller, or in the only one.
fn groups(controller: &str) -> Vec<PathBuf> {
    let list = |directory: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mount = Path::new("/sys/fs/cgroup");
    let tree = mount.join(controller);
    let tree = if tree.is_dir() { tree } else { mount.into() };
    let named = |path: &PathBuf| path.to_string_lossy().contains("/paas-");
    list(tree).into_iter().filter(named).collect()
}

/// The control group of a site's process, in the tree of this controller.
fn group_of(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let found = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let version_2 = controllers.is_empty();
        (version_2 || controllers.split(',').any(|one| one == controller)).then(|| {
            let mount = Path::new("/sys/fs/cgroup");
            let tree = if version_2 {
                mount.into()
            } else {
                mount.join(controller)
            };
            tree.join(path.trim_start_matches('/'))
        })
    });
    found.unwrap_or_else(|| panic!("no group: {text}"))
}

/// The process below the platform that is in a group of this generation's name.
fn process_in(platform: &Platform<'_>, leaf: &str) -> u32 {
    let all = process::under(&platform.directory());
    let of = all.iter().map(|seen| seen.pid).find(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.contains(leaf)
    });
    of.unwrap_or_else(|| panic!("nothing runs in {leaf}"))
}

#[test]
fn what_is_set_is_what_the_processes_have_and_who_wants_more_memory_is_told() {
    if !root_only() {
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&root, &platform, "a.test");
    let paasctl = platform.paasctl();
    paasctl.ok(&[
        "set-user",
        "owner",
        "--memory",
        "300m",
        "--open-files",
        "200",
    ]);
    paasctl.ok(&["set-site", "a.test", "--memory", "150m", "--tmp", "3m"]);
    assert_eq!(platform.get("a.test", "/files").expect(200), "200");
    assert_eq!(
        platform.get("a.test", "/tmp").expect(200),
        (3 << 20).to_string()
    );
    assert_eq!(
        platform.get("a.test", "/eat/50").expect(200),
        format!("ate {}", 50 << 20)
    );
    let answer = platform.get("a.test", "/eat/200");
    assert_eq!(answer.status, 502, "{answer:?}");
    let id = answer.header("x-paas-id").expect("an id").to_owned();
    let told = shown(&platform, &["why", &id, "--json"]);
    assert_eq!(
        told["backends"][0]["failure"]["reason"], "out-of-memory",
        "{told:#}"
    );
    // It was its own process that was killed; the site goes on.
    assert_eq!(platform.get("a.test", "/").expect(200), "fine");

    let user = shown(&platform, &["show-user", "owner", "--json"]);
    assert_eq!(user["limits"]["said"]["memory"], "300m", "{user:#}");
    assert_eq!(user["limits"]["in_force"]["processes"], 256, "{user:#}");
    let site = shown(&platform, &["show-site", "a.test", "--json"]);
    assert_eq!(site["limits"]["in_force"]["memory"], "150m", "{site:#}");
    assert_eq!(site["limits"]["in_force"]["descriptors"], 200, "{site:#}");
    paasctl.ok(&["set-site", "a.test", "--memory", "default"]);
    let site = shown(&platform, &["show-site", "a.test", "--json"]);
    assert_eq!(site["limits"]["in_force"]["memory"], "300m", "{site:#}");
    for refused in [
        ["--memory", "12q"],
        ["--processes", "1"],
        ["--network", "all"],
        ["--cpu", "0"],
    ] {
        let all = [&["set-user", "owner"][..], &refused].concat();
        let outcome = paasctl.run(&all);
        assert_eq!(outcome.code, Some(2), "{refused:?}: {outcome:?}");
    }
    platform.assert_healthy();
}

#[test]
fn a_limit_of_a_user_holds_at_once_and_groups_go_with_their_sites() {
    if !root_only() {
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&root, &platform, "a.test");
    let _ = platform.get("a.test", "/").expect(200);
    let before = process_in(&platform, "/1@");
    let leaf = group_of(before, "pids");
    let user = leaf.parent().expect("the user's").join("pids.max");
    assert_eq!(
        fs::read_to_string(&user).expect("it is there").trim(),
        "256"
    );
    platform
        .paasctl()
        .ok(&["set-user", "owner", "--processes", "77"]);
    wait::until_true("the limit to hold", || {
        fs::read_to_string(&user).is_ok_and(|text| text.trim() == "77")
    });
    platform.paasctl().ok(&["stop-site", "a.test", "--wait"]);
    wait::within(Duration::from_secs(60), || (!leaf.exists()).then_some(()))
        .expect("the group of a generation that is gone goes, too");
    drop(platform);
    let own = leaf.components().find_map(|part| {
        let name = part.as_os_str().to_string_lossy().into_owned();
        name.starts_with("paas-").then_some(name)
    });
    let own = own.expect("a machine's directory");
    assert!(
        !groups("pids").iter().any(|path| path.ends_with(&own)),
        "nothing is left of a platform that was stopped"
    );
}

#[test]
fn who_has_used_up_the_cpu_time_of_the_day_is_slowed_and_not_stopped() {
    if !root_only() {
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    add(&root, &platform, "a.test");
    let paasctl = platform.paasctl();
    paasctl.ok(&["set-user", "owner", "--cpu-per-day", "1s"]);
    let _ = platform.get("a.test", "/burn/1.5").expect(200);
    let quota = || {
        let leaf = group_of(process_in(&platform, "/1@"), "cpu");
        let user = leaf.parent().expect("the user's").to_owned();
        ["cpu.cfs_quota_us", "cpu.max"]
            .iter()
            .find_map(|file| fs::read_to_string(user.join(file)).ok())
            .map(|text| {
                text.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
    };
    // 5 % of a core.
    wait::within(Duration::from_secs(60), || {
        (quota().as_deref() == Some("5000")).then_some(())
    })
    .expect("slowed");
    let user = shown(&platform, &["show-user", "owner", "--json"]);
    assert!(user["cpu_used_today_s"].as_f64() > Some(1.0), "{user:#}");
    // It still serves, in twenty times the time it has.
    let took: f64 = platform
        .get("a.test", "/burn/0.1")
        .expect(200)
        .parse()
        .expect("seconds");
    assert!(took > 0.5, "{took} s for 0.1 s of CPU time");
    // A site that wakes now is no way out of it.
    platform.paasctl().ok(&["stop-site", "a.test", "--wait"]);
    let _ = platform.get("a.test", "/").expect(200);
    assert_eq!(quota().as_deref(), Some("5000"));
    paasctl.ok(&["set-user", "owner", "--cpu-per-day", "default"]);
    wait::until_true("what it had before", || {
        quota().is_some_and(|quota| quota == "-1" || quota == "max")
    });
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status();
    let status = status.expect("sh can be run");
    assert!(status.success(), "{script}: {status}");
}

/// A machine outside, at 203.0.113.1, which answers with the address it is asked from; and one that is nobody's business, at
/// 10.99.0.1.
fn world(root: &Root) -> Process {
    let page = root.write(
        "world/serve.py",
        r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Asked(BaseHTTPRequestHandler):
    def do_GET(self):
        text = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
ThreadingHTTPServer(("0.0.0.0", 8000), Asked).serve_forever()
"#,
    );
    let output = root.join("world/log");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", "ip link set lo up; while ! ip link show world >/dev/null 2>&1; do sleep 0.01; done; ip addr add 203.0.113.1/24 dev world; ip addr add 10.99.0.1/24 dev world; ip link set world up; exec python3 \"$0\""])
        .arg(&page)
        .stdin(Stdio::null());
    let process = Process::start("the world", &mut command, &output, Signal::KILL);
    let network = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).expect("it runs");
    wait::until_true("its own network", || {
        network(&process.id().to_string()) != network("self")
    });
    sh(&format!(
        "ip link add up0 type veth peer name world netns {}; ip addr add 203.0.113.2/24 dev up0; ip addr add 10.99.0.2/24 dev up0; ip link set up0 up",
        process.id()
    ));
    wait::until_true("the world to answer", || {
        let fetch =
            "import urllib.request; urllib.request.urlopen('http://203.0.113.1:8000/', timeout=1)";
        let status = Command::new("python3")
            .args(["-c", fetch])
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    });
    process
}

#[test]
fn who_may_connect_to_others_reaches_the_world_and_nothing_of_the_platform_s() {
    const TEST: &str = "who_may_connect_to_others_reaches_the_world_and_nothing_of_the_platform_s";
    let again = || network::again_in_its_own(["--exact", TEST, "--nocapture"]);
    if !root_only() || again().expect("it succeeds there") {
        return;
    }
    let root = Root::new();
    let _world = world(&root);
    let platform = Platform::start(&root);
    for name in ["out.test", "other.test", "none.test"] {
        add(&root, &platform, name);
    }
    let paasctl = platform.paasctl();
    for name in ["out.test", "other.test"] {
        paasctl.ok(&["set-site", name, "--network", "outbound"]);
    }
    let get = |path: &str| platform.get("out.test", path).expect(200);
    // With the host's address, not its own.
    assert_eq!(get("/fetch/203.0.113.1/8000"), "203.0.113.2");
    let own = get("/address");
    let others = platform.get("other.test", "/address").expect(200);
    assert!(own.starts_with("10.213.") && others.starts_with("10.213.") && own != others);
    let port = platform.port();
    let backend = platform.backend_port(1);
    for (what, path) in [
        ("a private address", "/connect/10.99.0.1/8000".to_owned()),
        (
            "a cloud's metadata",
            "/connect/169.254.169.254/80".to_owned(),
        ),
        ("the host's address", format!("/connect/203.0.113.2/{port}")),
        (
            "the host's loopback",
            format!("/connect/127.0.0.1/{backend}"),
        ),
        ("its gateway", format!("/connect/10.213.0.1/{port}")),
        ("another site", format!("/connect/{others}/80")),
    ] {
        let said = get(&path);
        assert!(
            !said.starts_with("connected"),
            "it reaches {what}: {path}: {said}"
        );
    }
    let none = platform.get("none.test", "/connect/203.0.113.1/8000");
    assert_eq!(none.expect(200), "OSError 101", "there is no way out");

    // Somebody flushes the machine's rules: they are there again before the next site wakes, and for those that run soon.
    sh("nft flush ruleset");
    wait::within(Duration::from_secs(60), || {
        get("/connect/10.99.0.1/8000")
            .starts_with("OSError")
            .then_some(())
    })
    .expect("closed again");
    platform.assert_healthy();

    // Its network goes with it, and so do its devices.
    drop(platform);
    wait::until_true("its devices to go", || {
        let list = Command::new("ip").args(["-br", "link"]).output();
        let list = list.expect("ip can be run").stdout;
        !String::from_utf8_lossy(&list).contains("pn")
    });
    let rules = Command::new("nft").args(["list", "ruleset"]).output();
    let rules = rules.expect("nft can be run").stdout;
    assert!(rules.is_empty(), "{}", String::from_utf8_lossy(&rules));
}
