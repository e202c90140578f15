//! What an operator sets for a site is seen by the site that runs: workers, threads, limits, files, environment, options.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root, wait};
use rustix::process::Signal;

/// Tells what uWSGI and the system say of it.
const TELLER: &str = r#"
import json, os, time
import uwsgi

def plain(value):
    return value.decode() if isinstance(value, bytes) else value

def master():
    """The master's number where it lives (a sandbox has its own), and when it began."""
    pid = uwsgi.masterpid()
    with open("/proc/%d/stat" % pid) as file:
        return "%d-%s-%s" % (pid, file.read().rpartition(")")[2].split()[19], os.readlink("/proc/self/ns/pid"))

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(30)
    told = {
        "opt": {plain(k): [plain(v) for v in o] if isinstance(o, list) else plain(o) for k, o in uwsgi.opt.items()},
        "env": dict(os.environ),
        "cheap": sum(plain(worker["status"]) == "cheap" for worker in uwsgi.workers()),
        "workers": len(uwsgi.workers()),
        "pid": os.getpid(),
        "master": master(),
        "path": path,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
"#;

struct Teller<'p> {
    platform: &'p Platform<'p>,
    directory: PathBuf,
}

impl<'p> Teller<'p> {
    fn add(root: &Root, platform: &'p Platform<'p>, more: &[&str]) -> Teller<'p> {
        root.write("sites/a.test/app.py", TELLER);
        let directory = root.join("sites/a.test");
        let mut arguments = vec!["--entry", "app:application", "--no-check"];
        arguments.extend_from_slice(more);
        platform.add_site("a.test", &directory, &arguments);
        Teller {
            platform,
            directory,
        }
    }

    fn told(&self) -> serde_json::Value {
        let text = self.platform.get("a.test", "/").expect(200).to_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn server_log(&self) -> String {
        let log = self
            .platform
            .backend(1)
            .join("var/log/paas/a.test/server.log");
        fs::read_to_string(log).unwrap_or_default()
    }

    fn master(&self) -> u32 {
        process::outside(self.told()["master"].as_str().expect("a process"))
    }

    /// Ends its processes; the platform starts it anew.
    fn start_anew(&self) {
        let master = self.master();
        process::send(master, Signal::KILL);
        wait::until_true("the old processes' end", || Seen::look(master).is_none());
    }
}

#[test]
fn numbers_reach_the_running_site() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Teller::add(
        &root,
        &platform,
        &[
            "--workers",
            "4",
            "--cheaper",
            "1",
            "--threads",
            "3",
            "--max-requests",
            "700",
            "--harakiri",
            "90s",
            "--buffer-size",
            "8k",
            "--post-buffering",
            "16k",
        ],
    );
    let paasctl = platform.paasctl();
    paasctl.ok(&[
        "set-option",
        "a.test",
        "lazy-apps",
        "reload-on-rss=999",
        "pythonpath=/srv/modules",
    ]);
    let told = site.told();
    assert_eq!(
        (&told["workers"], &told["cheap"]),
        (&4.into(), &3.into()),
        "four workers, one awake: {told}"
    );
    for (option, value) in [
        ("threads", "3"),
        ("max-requests", "700"),
        ("harakiri", "90"),
        ("buffer-size", "8192"),
        ("post-buffering", "16384"),
        ("reload-on-rss", "999"),
        ("pythonpath", "/srv/modules"),
    ] {
        assert_eq!(told["opt"][option], value, "{option} in {told}");
    }
    assert!(
        told["opt"]["lazy-apps"] == true || told["opt"]["lazy-apps"] == "true",
        "{told}"
    );
    platform.assert_healthy();
}

#[test]
fn threads_answer_side_by_side() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder_with("a.test", &["--workers", "1", "--threads", "3"]);
    let port = platform.port();
    let held: Vec<_> = (0..3)
        .map(|_| thread::spawn(move || Request::get("a.test", "/hold").send(port)))
        .collect();
    site.wait_for("GET", "/hold", 3);
    site.set("go");
    for request in held {
        assert_eq!(request.join().expect("an answer").status, 200);
    }
}

#[test]
fn a_request_that_takes_too_long_is_ended() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Teller::add(&root, &platform, &["--workers", "1", "--harakiri", "1s"]);
    let before = site.told()["pid"].clone();
    assert_eq!(platform.get("a.test", "/slow").status, 502);
    assert_ne!(site.told()["pid"], before, "its worker ended with it");
    assert!(
        site.server_log().contains("HARAKIRI"),
        "{}",
        site.server_log()
    );
}

#[test]
fn a_worker_is_started_anew_after_its_requests() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Teller::add(&root, &platform, &["--workers", "1", "--max-requests", "3"]);
    platform
        .paasctl()
        .ok(&["set-option", "a.test", "min-worker-lifetime=0"]);
    let first = site.told()["pid"].clone();
    wait::until_true("another worker", || site.told()["pid"] != first);
}

#[test]
fn a_head_larger_than_the_buffer_is_refused_by_uwsgi_alone() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let _site = Teller::add(&root, &platform, &["--buffer-size", "4k"]);
    let large = "x".repeat(6000);
    let answer = |header: &str| {
        Request::get("a.test", "/")
            .header("X-Large", header)
            .send(platform.port())
            .status
    };
    assert_eq!(answer("x"), 200);
    assert_eq!(answer(&large), 502);
    platform
        .paasctl()
        .ok(&["set-site", "a.test", "--buffer-size", "16k"]);
    Teller {
        platform: &platform,
        directory: root.join("sites/a.test"),
    }
    .start_anew();
    assert_eq!(answer(&large), 200);
}

#[test]
fn static_files_are_sent_without_the_application_and_links_out_are_not_followed() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let files = root.join("sites/a.test/files");
    let mapping = format!("/static={}", files.display());
    let site = Teller::add(&root, &platform, &["--static", &mapping]);
    let content = "styled".repeat(50_000);
    root.write("sites/a.test/files/css/a.css", &content);
    root.write("elsewhere/secret.txt", "not for visitors");
    symlink(root.join("elsewhere/secret.txt"), files.join("linked.txt")).expect("a link");
    symlink(root.join("elsewhere"), files.join("linked")).expect("a link");
    symlink("css/a.css", files.join("inner.css")).expect("a link");

    let answer = platform.get("a.test", "/static/css/a.css");
    assert_eq!(answer.header("content-type"), Some("text/css"));
    assert_eq!(answer.expect(200), content);
    assert_eq!(
        platform.get("a.test", "/static/inner.css").expect(200),
        content
    );
    for path in [
        "/static/linked.txt",
        "/static/linked/secret.txt",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
    ] {
        let answer = platform.get("a.test", path);
        assert!(
            !answer.text().contains("not for visitors") && !answer.text().contains("import uwsgi"),
            "{path}: {answer:?}"
        );
    }
    // What is no file is the application's.
    assert!(
        platform
            .get("a.test", "/static/none.css")
            .expect(200)
            .contains("\"path\": \"/static/none.css\"")
    );
    drop(site);
    platform.assert_healthy();
}

#[test]
fn the_environment_reaches_the_site_and_a_secret_nobody_else() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = Teller::add(&root, &platform, &[]);
    let paasctl = platform.paasctl();
    let secret = "s3cr3t-$(id)\n%h @(/etc/passwd) 'quoted\" ;".to_owned() + &"x".repeat(20_000);
    let mut set = paasctl
        .command(&["set-env", "a.test", "KEY", "--secret", "--from", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("paasctl runs");
    use std::io::Write;
    set.stdin
        .take()
        .expect("a pipe")
        .write_all(secret.as_bytes())
        .expect("it reads");
    assert!(set.wait().expect("it ends").success());
    paasctl.ok(&[
        "set-env",
        "a.test",
        "GREETING=good morning",
        "LANG=de_DE.UTF-8",
    ]);
    let told = site.told();
    assert_eq!(told["env"]["KEY"], secret.as_str());
    assert_eq!(told["env"]["GREETING"], "good morning");
    assert_eq!(told["env"]["LANG"], "de_DE.UTF-8");
    assert_eq!(
        told["env"]["HOME"],
        site.directory.to_string_lossy().as_ref()
    );

    for command in [
        ["list-env", "a.test"].as_slice(),
        &["list-env", "a.test", "--json"],
        &["show-site", "a.test", "--json"],
        &["list-sites", "--json"],
    ] {
        assert!(!paasctl.ok(command).contains("s3cr3t"), "{command:?}");
    }
    for seen in process::under(root.path()) {
        assert!(!seen.command.contains("s3cr3t"), "{seen:?}");
    }
    let mut holders = Vec::new();
    look_for(b"s3cr3t", &platform.directory(), &mut holders);
    look_for(b"s3cr3t", &root.join("up.log"), &mut holders);
    assert!(
        !holders.is_empty()
            && holders.iter().all(|file| file
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("registry.db"))),
        "only the registry holds it: {holders:?}"
    );
    use std::os::unix::fs::PermissionsExt;
    for file in holders {
        assert_eq!(
            fs::metadata(&file)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o077,
            0,
            "{}",
            file.display()
        );
    }

    // Taken away, it is gone at the next start.
    paasctl.ok(&["unset-env", "a.test", "KEY"]);
    assert_eq!(
        site.told()["env"]["KEY"],
        secret.as_str(),
        "what runs runs on as it is"
    );
    site.start_anew();
    assert!(site.told()["env"].get("KEY").is_none());
}

/// The files at or below `path` that hold `text`.
fn look_for(text: &[u8], path: &std::path::Path, found: &mut Vec<PathBuf>) {
    let Ok(data) = fs::symlink_metadata(path) else {
        return;
    };
    if data.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            look_for(text, &entry.path(), found);
        }
    } else if data.is_file()
        && fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
    {
        found.push(path.to_owned());
    }
}

#[test]
fn the_operator_s_lines_hold_for_all_sites_and_a_site_s_own_come_after_them() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let lines = "b1/etc/paas/vassal.d/10-machine.ini";
    root.write(format!("p/{lines}"), "harakiri = 77\nlog-slow = 5000\n");
    let site = Teller::add(&root, &platform, &[]);
    let told = site.told();
    assert_eq!(
        (&told["opt"]["harakiri"], &told["opt"]["log-slow"]),
        (&"77".into(), &"5000".into()),
        "{told}"
    );
    platform
        .paasctl()
        .ok(&["set-site", "a.test", "--harakiri", "33s"]);
    site.start_anew();
    let told = site.told();
    assert_eq!(
        (&told["opt"]["harakiri"], &told["opt"]["log-slow"]),
        (&"33".into(), &"5000".into()),
        "{told}"
    );
    // A section of their own would hide all that follows: refused, with the file's name in the daemon's log.
    root.write(format!("p/{lines}"), "[other]\nharakiri = 77\n");
    process::send(site.master(), Signal::KILL);
    wait::until_true("a start that is refused", || {
        let answer = platform.get("a.test", "/");
        answer.status == 503 && answer.text().contains("not-prepared")
    });
}
