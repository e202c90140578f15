//! Each site has logs of its own: whole, bounded, its owner's to read and nobody else's.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use paas_tests::platform::Options;
use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root, wait};
use rustix::process::Signal;

/// Prints what it is asked for, raises at `/raise`, ends its worker at `/exit`.
const TALKER: &str = r#"
import os, sys
import uwsgi

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("raised on purpose")
    if path == "/exit":
        os._exit(3)
    if path == "/plant":
        log = os.readlink("/proc/self/fd/2")
        def tried(what):
            try:
                what()
                return "done"
            except OSError as error:
                return error.__class__.__name__
        answer = tried(lambda: os.symlink("/etc/passwd", os.path.join(os.path.dirname(log), "planted")))
        answer += " " + tried(lambda: open(log).read())
    else:
        sys.stderr.write("said %s %s\n" % (path, "x" * 500))
        sys.stderr.flush()
        answer = "fine"
    start_response("200 OK", [("X-Master", str(uwsgi.masterpid()))])
    return [answer.encode()]
"#;

fn talker(root: &Root, platform: &Platform<'_>, domain: &str) {
    root.write(format!("sites/{domain}/app.py"), TALKER);
    let directory = root.join(format!("sites/{domain}"));
    platform.add_site(
        domain,
        &directory,
        &["--entry", "app:application", "--no-check"],
    );
}

fn logs(platform: &Platform<'_>, domain: &str) -> PathBuf {
    platform.backend(1).join("var/log/paas").join(domain)
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// All lines of a log, the oldest first.
fn all(directory: &Path, name: &str) -> Vec<String> {
    let mut files: Vec<PathBuf> = (1..)
        .map(|number| directory.join(format!("{name}.{number}")))
        .take_while(|file| file.exists())
        .collect();
    files.reverse();
    files.push(directory.join(name));
    let lines = |file: PathBuf| -> Vec<String> {
        text(file)
            .lines()
            .filter(|line| !line.trim_matches([' ', '\0']).is_empty())
            .map(str::to_owned)
            .collect()
    };
    files.into_iter().flat_map(lines).collect()
}

#[test]
fn every_kind_holds_what_it_is_for_and_is_shown() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let paasctl = platform.paasctl();
    talker(&root, &platform, "a.test");
    assert!(
        paasctl
            .refused(&["logs", "a.test"])
            .contains("has not run here")
    );
    assert_eq!(platform.get("a.test", "/first?q=1").status, 200);
    assert_eq!(platform.get("a.test", "/exit").status, 502);
    assert_eq!(platform.get("a.test", "/raise").status, 502);
    let directory = logs(&platform, "a.test");
    wait::until_true("three lines of access", || {
        text(directory.join("access.log")).lines().count() == 3
    });
    let access = paasctl.ok(&["logs", "a.test", "--kind", "access"]);
    assert!(
        access.contains("\"GET /first?q=1 HTTP/1.1\" 200")
            && access.contains("\"GET /exit HTTP/1.1\" 502"),
        "{access}"
    );
    assert_eq!(
        paasctl
            .ok(&["logs", "a.test", "--kind", "access", "-n", "1"])
            .lines()
            .count(),
        1
    );
    let error = paasctl.ok(&["logs", "a.test", "--kind", "error"]);
    assert!(
        error.contains(" 502 site-failed id=") && error.contains("/exit"),
        "{error}"
    );
    assert!(!error.contains("/first"), "{error}");
    let objects = paasctl.ok(&["logs", "a.test", "--kind", "error", "--json"]);
    let lines: Vec<String> = objects
        .lines()
        .map(|object| {
            let object: serde_json::Value = serde_json::from_str(object).expect("an object");
            assert_eq!(object["kind"], "error");
            let log = object["log"].as_str().expect("a path");
            assert!(log.ends_with("var/log/paas/a.test/error.log"), "{log}");
            object["line"].as_str().expect("a line").to_owned()
        })
        .collect();
    assert_eq!(lines, error.lines().collect::<Vec<_>>());
    let server = paasctl.ok(&["logs", "a.test"]);
    assert!(
        server.contains("said /first") && server.contains("raised on purpose"),
        "{server}"
    );
    // What belongs to no site is in the machine's own, and makes no directory.
    assert_eq!(
        Request::get("unknown.test", "/")
            .send(platform.backend_port(1))
            .status,
        404
    );
    let machine = platform.backend(1).join("var/log/paas/backend-access.log");
    wait::until_true("the machine's line", || {
        text(&machine).contains("unknown.test")
    });
    assert!(
        !text(&machine).contains("a.test \"GET /first"),
        "{}",
        text(&machine)
    );
    assert!(
        !platform.nginx_errors().contains("access.log"),
        "{}",
        platform.nginx_errors()
    );
    platform.assert_healthy();
}

#[test]
fn a_site_that_is_off_has_its_visitors_written_down_too() {
    let root = Root::new();
    let platform = Platform::start(&root);
    talker(&root, &platform, "a.test");
    platform
        .paasctl()
        .ok(&["set-site", "a.test", "--enabled", "false"]);
    assert_eq!(platform.get("a.test", "/off").status, 503);
    let log = logs(&platform, "a.test").join("error.log");
    wait::until_true("its line", || text(&log).contains(" 503 disabled "));
}

#[test]
fn logs_are_the_owner_s_to_read_and_a_site_can_put_nothing_there() {
    let root = Root::new();
    let platform = Platform::start(&root);
    talker(&root, &platform, "a.test");
    let answer = platform.get("a.test", "/plant").expect(200);
    let directory = logs(&platform, "a.test");
    if rustix::process::geteuid().is_root() {
        // There is no such directory in its sandbox.
        assert_eq!(answer, "FileNotFoundError FileNotFoundError");
        assert!(!directory.join("planted").exists());
        let owner = platform.owner_uid();
        let of = |path: PathBuf| {
            let data = fs::symlink_metadata(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (data.uid(), data.gid(), data.mode() & 0o7777)
        };
        assert_eq!(of(directory.clone()), (0, owner, 0o751));
        assert_eq!(of(directory.join("server.log")), (0, owner, 0o640));
        for name in ["access.log", "error.log"] {
            let (uid, gid, mode) = of(directory.join(name));
            assert!(
                uid != 0 && uid != owner && (gid, mode) == (owner, 0o640),
                "{name}: {uid} {gid} {mode:o}"
            );
        }
    }
    // Should a link get there all the same: nginx and paasctl do not follow it, and visitors do not notice.
    let victim = root.write("victim", "untouched");
    fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("it is ours");
    talker(&root, &platform, "b.test");
    assert_eq!(platform.get("b.test", "/").status, 200);
    let access = logs(&platform, "b.test").join("access.log");
    fs::remove_file(&access).expect("it is there");
    symlink(&victim, &access).expect("a link");
    wait::until_true("nginx to open it anew", || {
        assert_eq!(platform.get("b.test", "/").status, 200);
        platform.nginx_errors().contains("b.test/access.log")
    });
    assert_eq!(text(&victim), "untouched");
    let _ = platform
        .paasctl()
        .refused(&["logs", "b.test", "--kind", "access"]);
}

#[test]
fn logs_are_cut_under_load_and_no_line_is_lost() {
    let root = Root::new();
    let options = Options {
        backend: "log_size = \"64k\"\nlog_keep = 500\n".to_owned(),
        ..Options::default()
    };
    let platform = Platform::with(&root, options);
    talker(&root, &platform, "a.test");
    let directory = logs(&platform, "a.test");
    let master = platform
        .get("a.test", "/begin")
        .header("x-master")
        .map(str::to_owned);
    let nginx = platform.nginx("b1").pid;
    let (port, older) = (platform.port(), |name: &str| {
        directory.join(format!("{name}.2")).exists()
    });
    let mut sent = BTreeSet::from(["/begin".to_owned()]);
    let mut round = 0;
    wait::until_true("both logs to have been cut twice", || {
        round += 1;
        let visitors: Vec<_> = (0..4)
            .map(|visitor| {
                thread::spawn(move || {
                    let paths: Vec<_> = (0..60)
                        .map(|number| format!("/{round}-{visitor}-{number}"))
                        .collect();
                    for path in &paths {
                        assert_eq!(Request::get("a.test", path).send(port).status, 200);
                    }
                    paths
                })
            })
            .collect();
        for visitor in visitors {
            sent.extend(visitor.join().expect("answered"));
        }
        older("access.log") && older("server.log")
    });
    assert_eq!(
        platform
            .get("a.test", "/end")
            .header("x-master")
            .map(str::to_owned),
        master,
        "no process of the site was restarted"
    );
    sent.insert("/end".to_owned());
    assert_eq!(platform.nginx("b1").pid, nginx);
    wait::until_true("the last line", || {
        all(&directory, "access.log")
            .last()
            .is_some_and(|line| line.contains("/end"))
    });
    let path_of = |line: &String, before: &str| {
        Some(line.split_once(before)?.1.split(' ').next()?.to_owned())
    };
    let access: Vec<_> = all(&directory, "access.log")
        .iter()
        .filter_map(|line| path_of(line, "\"GET "))
        .collect();
    assert_eq!(access.len(), sent.len(), "each request once");
    assert_eq!(access.into_iter().collect::<BTreeSet<_>>(), sent);
    let server: Vec<_> = all(&directory, "server.log")
        .iter()
        .filter_map(|line| path_of(line, "said "))
        .collect();
    assert_eq!(server.len(), sent.len(), "each line of the site once");
    assert_eq!(server.into_iter().collect::<BTreeSet<_>>(), sent);
    for file in fs::read_dir(&directory).expect("a directory").flatten() {
        assert_eq!(
            file.metadata().expect("it is there").mode() & 0o7777,
            0o640,
            "{file:?}"
        );
    }
    platform.assert_healthy();
}

#[test]
fn new_lines_are_followed() {
    let root = Root::new();
    let platform = Platform::start(&root);
    talker(&root, &platform, "a.test");
    assert_eq!(platform.get("a.test", "/before").status, 200);
    let directory = logs(&platform, "a.test");
    wait::until_true("the first line", || {
        text(directory.join("access.log")).contains("/before")
    });
    let mut follow = platform
        .paasctl()
        .command(&["logs", "a.test", "--kind", "access", "-f", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("paasctl runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert!(next().contains("/before"));
    assert_eq!(platform.get("a.test", "/after").status, 200);
    assert!(next().contains("/after"));
    process::send(follow.id(), Signal::TERM);
    let _ = follow.wait();
    wait::until_true("its end", || Seen::look(follow.id()).is_none());
}

#[test]
fn a_later_owner_of_the_name_does_not_get_the_earlier_one_s_lines() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: skipped");
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    let paasctl = platform.paasctl();
    talker(&root, &platform, "a.test");
    assert_eq!(platform.get("a.test", "/confidential").status, 200);
    let directory = logs(&platform, "a.test");
    wait::until_true("its line", || {
        text(directory.join("access.log")).contains("/confidential")
    });
    paasctl.ok(&["remove-site", "a.test"]);
    paasctl.ok(&["add-user", "later"]);
    let site = root.join("sites/a.test").to_string_lossy().into_owned();
    paasctl.ok(&[
        "add-site",
        "a.test",
        "--user",
        "later",
        "--dir",
        &site,
        "--entry",
        "app:application",
        "--no-check",
    ]);
    wait::until_true("the later owner's site", || {
        platform.get("a.test", "/later").status == 200
    });
    let later = platform.uid_of("later");
    assert_eq!(fs::metadata(&directory).expect("it is there").gid(), later);
    for name in ["access.log", "server.log", "error.log"] {
        assert!(
            !text(directory.join(name)).contains("/confidential"),
            "{name}"
        );
    }
    let aside = directory.with_file_name(format!("a.test~{}", platform.owner_uid()));
    assert!(text(aside.join("access.log")).contains("/confidential"));
}

#[test]
fn what_the_machine_s_own_programs_write_is_bounded_too() {
    let root = Root::new();
    let options = Options {
        backend: "log_size = \"64k\"\nlog_keep = 2\n".to_owned(),
        ..Options::default()
    };
    let platform = Platform::with(&root, options);
    let directory = platform.backend(1).join("var/log/paas");
    let log = directory.join("emperor.log");
    let line = "as if many sites had started\n";
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .expect("the Emperor has written to it");
    file.write_all(line.repeat(10_000).as_bytes())
        .expect("ours");
    platform.restart_daemon(1, Signal::TERM);
    // First the copy is there, then what was copied is gone.
    wait::until_true("it to be cut", || directory.join("emperor.log.1").exists());
    let size = |path: &Path| path.metadata().expect("it is there").blocks() * 512;
    wait::until_true("it to be as small as told", || size(&log) <= 80 * 1024);
    // The Emperor goes on writing to it.
    let site = platform.recorder("a.test");
    let _ = platform.get("a.test", "/").expect(200);
    let vassal = format!("{}@", platform.site_id("a.test"));
    wait::until_true("its line", || {
        let text = fs::read(&log).expect("it is there");
        String::from_utf8_lossy(&text).contains(&vassal)
    });
    assert_eq!(site.starts(), 1);
    platform.assert_healthy();
}
