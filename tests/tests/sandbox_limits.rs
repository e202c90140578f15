//! Strangers' code, from the inside (promise S3): what it can use up of a machine, and that what it uses up is its own: another
//! owner's site answers all along, from the same processes, and the platform goes on.

use std::thread;

use paas_tests::prison::INMATE;
use paas_tests::{Prison, Request, Root, process, wait};

/// Small enough to be used up in no time.
const LIMITS: &str =
    "[limits]\nmemory = \"128m\"\nprocesses = 40\ndescriptors = 200\ntemporary = \"8m\"\n";

#[test]
fn a_fork_bomb_ends_at_the_limit_and_the_operator_ends_it_for_good() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, LIMITS) else {
        return;
    };
    let platform = &prison.platform;
    let said = prison.inside(&["fork_bomb"]);
    let (children, refusal) = said.split_once(' ').expect("two words");
    let children: u32 = children.parse().expect("a number");
    assert_eq!(refusal, "EAGAIN");
    // uWSGI's own processes and bubblewrap's count as well.
    assert!((20..40).contains(&children), "{said}");
    prison.assert_victim_unharmed();

    // The limit is the owner's: no other site of his starts now, and why is said.
    prison.add("second.test");
    let answer = platform.get("second.test", "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    let why = platform.paasctl().ok(&["why", "second.test", "--json"]);
    assert!(why.contains("too-many-processes"), "{why}");

    // All of them end with the site.
    let bombs = || {
        process::under(&prison.directory(INMATE))
            .into_iter()
            .filter(|seen| seen.uid == prison.uid())
            .count()
    };
    assert!(bombs() > 20);
    platform.paasctl().ok(&["stop-site", INMATE]);
    wait::until_true("the bombs to be gone", || bombs() == 0);
    wait::until_true("the second site to start", || {
        platform.get("second.test", "/").status == 200
    });
    prison.assert_victim_unharmed();
    platform.assert_healthy();
}

#[test]
fn a_memory_bomb_kills_itself_alone_and_why_names_it() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, LIMITS) else {
        return;
    };
    let platform = &prison.platform;
    let daemon = platform.daemon("b1").pid;
    let emperor = platform.emperor("b1").pid;
    assert_eq!(prison.inside(&["memory_bomb", "16"]), "16");
    let answer = prison.ask(INMATE, &["memory_bomb", "4096"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    let id = answer.header("x-paas-id").expect("an id").to_owned();
    wait::until_true("why to know", || {
        platform
            .paasctl()
            .ok(&["why", &id, "--json"])
            .contains("\"out-of-memory\"")
    });
    prison.assert_victim_unharmed();

    // While it is imported.
    let app = prison.directory(INMATE).join("app.py");
    let good = std::fs::read_to_string(&app).expect("it is there");
    std::fs::write(
        &app,
        "held = []\nwhile True:\n    held.append(b'x' * (1 << 20))\n",
    )
    .expect("it is ours");
    platform.paasctl().ok(&["stop-site", INMATE]);
    let answer = platform.get(INMATE, "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-paas-reason"), Some("out-of-memory"));
    std::fs::write(&app, good).expect("it is ours");
    wait::until_true("the repaired site to start", || {
        platform.get(INMATE, "/").status == 200
    });

    // Open files are bounded for each process.
    let said = prison.inside(&["limit", "RLIMIT_NOFILE"]);
    assert_eq!(said, "200 200");
    prison.assert_victim_unharmed();
    assert_eq!(platform.daemon("b1").pid, daemon);
    assert_eq!(platform.emperor("b1").pid, emperor);
    platform.assert_healthy();
}

#[test]
fn temporary_directories_are_small_and_nobody_else_s() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, LIMITS) else {
        return;
    };
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        let said = prison.inside(&["fill", directory, "64"]);
        assert_eq!(said, "8 ENOSPC", "{directory}");
        let seen = prison.inside(&["listing", directory]);
        // What leads to its own directory.
        let own = prison.directory(INMATE);
        let way = own
            .strip_prefix(directory)
            .ok()
            .and_then(|way| way.iter().next());
        assert_eq!(
            seen,
            way.map_or("".into(), |way| way.to_string_lossy()),
            "{directory}"
        );
        assert_eq!(prison.outside(&["fill", directory, "64"]), "64 nothing");
    }
    // Between two sites of one owner, too.
    prison.add("second.test");
    assert_eq!(prison.inside(&["write", "/tmp/mine"]), "done");
    let other = prison.ask("second.test", &["read", "/tmp/mine"]);
    assert_eq!(other.expect(200), "ENOENT");
    prison.assert_victim_unharmed();
}

#[test]
fn what_it_writes_without_end_disturbs_nobody() {
    let root = Root::new();
    let settings = format!("[backend]\nlog_size = \"1m\"\nlog_keep = 2\n{LIMITS}");
    let Some(prison) = Prison::start(&root, &settings) else {
        return;
    };
    let platform = &prison.platform;
    let port = platform.port();
    let logs = platform.backend(1).join("var/log/paas");
    let length = |log: &str| std::fs::metadata(logs.join(log)).map_or(0, |data| data.len());
    // Its log, the Emperor's pipe (each byte is a word to the Emperor, which logs it), the daemon's pipe.
    for (number, least) in [("1", 100_000_000), ("3", 10_000), ("5", 10_000)] {
        let platform_s = || length("emperor.log") + length("paasctl.log");
        let before = platform_s();
        let flood = Request::post(
            INMATE,
            "/",
            format!("[\"flood_descriptor\", \"{number}\", \"2\"]"),
        );
        let flooding = thread::spawn(move || flood.send(port).expect(200));
        while !flooding.is_finished() {
            prison.assert_victim_unharmed();
        }
        let written: u64 = flooding
            .join()
            .expect("it answers")
            .parse()
            .expect("a number");
        assert!(written > least, "{number} took {written} bytes only");
        let grown = platform_s() - before;
        assert!(
            grown < 20_000,
            "{number}: {grown} bytes of the platform's logs"
        );
    }
    // What it wrote is bounded again: the newest, and as many older ones as there may be.
    let own = logs.join(INMATE);
    wait::until_true("its logs to be bounded", || {
        let files = std::fs::read_dir(&own).expect("its logs are there");
        let sizes = files.flatten().filter_map(|file| file.metadata().ok());
        sizes.map(|file| file.len()).sum::<u64>() < (3 << 20) + (1 << 19)
    });
    // The Emperor hears and is heard: the flooded site ends when it is told to, and others start.
    platform.paasctl().ok(&["stop-site", INMATE]);
    wait::until_true("its end", || platform.site_processes(INMATE).is_empty());
    assert_eq!(prison.inside(&["uname"]), INMATE);
    prison.assert_victim_unharmed();
    platform.assert_healthy();
}
