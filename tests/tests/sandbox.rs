//! Strangers' code, from the inside (promise S3): what it finds of others, of the machine and of the platform, and what becomes of
//! its attempts to reach them. Each is made in a sandbox through the whole platform and, where the same uid could do it without
//! one, also outside: so that a test fails if the attempt is no good. What it can use up is in `sandbox_limits.rs`.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use paas_tests::prison::{INMATE, VICTIM};
use paas_tests::{Paasctl, Prison, Request, Root, process, wait};

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn no_file_of_others_or_of_the_platform_is_there() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    let platform = &prison.platform;
    let own = prison.directory(INMATE).join("app.py");
    assert_eq!(prison.inside(&["read", &text(&own)]), "done");

    // Open to everybody but for the sandbox.
    let open = prison.directory(VICTIM).join("app.py");
    prison.held_in(&["read", &text(&open)], "ENOENT");
    prison.held_in(&["listing", &text(&prison.directory(VICTIM))], "ENOENT");
    prison.held_in(&["listing", "/home"], "ENOENT");
    prison.held_in(&["listing", "/var/log"], "ENOENT");
    prison.held_in(&["listing", "/sys"], "ENOENT");
    prison.held_in(&["read", "/etc/hostname"], "ENOENT");
    // What there is of the directories above its own leads nowhere else.
    let sites = prison.directory("");
    assert_eq!(prison.inside(&["listing", &text(&sites)]), INMATE);
    assert!(prison.outside(&["listing", &text(&sites)]).contains(VICTIM));
    assert_eq!(prison.inside(&["listing", &text(root.path())]), "sites");

    // Closed by their modes as well.
    let machine = platform.backend(1);
    let run = machine.join("run/paas");
    let own_vassal = platform.vassals(INMATE);
    for path in [
        platform.vassals(VICTIM)[0].clone(),
        own_vassal[0].clone(),
        platform.vassals_directory(1),
        platform.directory().join("registry.db"),
        machine.join("etc/paas/paas.toml"),
        machine.join("var/lib/paas/table/current/data.mdb"),
        machine.join("var/lib/paas/history"),
        machine.join(format!("var/log/paas/{VICTIM}/server.log")),
        machine.join(format!("var/log/paas/{INMATE}/server.log")),
        run.join("notify"),
        "/etc/shadow".into(),
        "/root".into(),
    ] {
        assert!(path.exists(), "{}", path.display());
        for attempt in ["read", "listing"] {
            let said = prison.inside(&[attempt, &text(&path)]);
            assert_eq!(said, "ENOENT", "{attempt} {}", path.display());
        }
    }
    for socket in [
        run.join("control.sock"),
        run.join("launch.sock"),
        run.join("emperor-stats.sock"),
        platform.site_socket(VICTIM),
        platform.site_socket(INMATE),
    ] {
        assert!(socket.exists(), "{}", socket.display());
        let said = prison.inside(&["unix", &text(&socket)]);
        assert_eq!(said, "ENOENT", "{}", socket.display());
    }
    // Nor does anything lead there that is open already.
    let open = prison.inside(&["descriptors"]);
    let log = text(&machine.join(format!("var/log/paas/{INMATE}/server.log")));
    for line in open.lines() {
        let (number, target) = line.split_once('=').expect("NUMBER=TARGET");
        let harmless = target.starts_with("socket:[")
            || target.starts_with("pipe:[")
            || target.starts_with("anon_inode:")
            || target.starts_with("/memfd:")
            || target.starts_with("/dev/")
            || target.starts_with("/proc/")
            || target.ends_with(&log)
            || target.ends_with("(deleted)")
            || target.contains("/notify/");
        assert!(harmless, "{number} is {target}, among {open}");
    }
    prison.assert_victim_unharmed();
}

#[test]
fn the_system_is_there_to_read_and_devices_are_harmless() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    assert_eq!(
        prison.inside(&["listing", "/dev"]),
        "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let directory = text(&prison.directory(INMATE).join("memory"));
    assert_eq!(prison.inside(&["device", &directory]), "EPERM");
    for (path, refusal) in [
        ("/usr/bin/new", "EROFS"),
        ("/etc/passwd", "EACCES"),
        ("/etc/new", "EROFS"),
        ("/new", "EROFS"),
        ("/dev/new", "EROFS"),
        ("/run/paas-launch", "EACCES"),
    ] {
        assert_eq!(prison.inside(&["write", path]), refusal, "{path}");
    }
    for file in ["kmsg", "sys/kernel/core_pattern"] {
        let path = format!("/proc/{file}");
        assert_eq!(prison.inside(&["write", &path]), "EACCES", "{path}");
    }
    assert_eq!(prison.inside(&["uname"]), INMATE);
    assert_ne!(prison.outside(&["uname"]), INMATE);
    // Of accounts there are its own and nobody's.
    let accounts = prison.inside(&["contents", "/etc/passwd"]);
    let names: Vec<_> = accounts
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(names, ["mallory", "nobody"]);
}

#[test]
fn no_process_of_others_is_seen_signalled_or_looked_into() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    prison.add("second.test");
    let _ = prison.ask("second.test", &["uname"]).expect(200);
    let seen = prison.inside(&["processes"]);
    for line in seen.lines() {
        let ours = line.contains("bwrap") || line.contains(INMATE) || line.contains("/bin/uwsgi");
        assert!(ours, "{line} is seen, among:\n{seen}");
    }
    assert!(seen.lines().count() < 8, "{seen}");
    assert!(prison.outside(&["processes"]).lines().count() > seen.lines().count());

    // Of the same owner even, so that the uid does not stand in the way.
    let second = process::under(&prison.directory("second.test"));
    assert!(!second.is_empty(), "its processes run");
    for other in &second {
        assert_eq!(other.uid, prison.uid());
        let pid = other.pid.to_string();
        prison.held_in(&["kill", &pid], "ESRCH");
        for file in ["environ", "cmdline", "maps", "root", "cwd"] {
            let path = format!("/proc/{pid}/{file}");
            assert_eq!(prison.inside(&["read", &path]), "ENOENT", "{path}");
        }
        prison.held_in(&["read", &format!("/proc/{pid}/cmdline")], "ENOENT");
    }
    for pid in [
        prison.victim_master,
        prison.platform.daemon("b1").pid,
        prison.platform.emperor("b1").pid,
        prison.platform.nginx("b1").pid,
    ] {
        assert_eq!(prison.inside(&["kill", &pid.to_string()]), "ESRCH");
    }

    // Whatever it kills, it kills itself.
    let daemon = prison.platform.daemon("b1").pid;
    let _ = prison.ask(INMATE, &["kill_all"]);
    assert_eq!(prison.inside(&["uname"]), INMATE);
    for other in &second {
        assert!(
            process::Seen::look(other.pid).is_some(),
            "{other:?} has been killed"
        );
    }
    assert_eq!(prison.platform.daemon("b1").pid, daemon);
    prison.assert_victim_unharmed();
    prison.platform.assert_healthy();
}

#[test]
fn system_calls_that_lead_out_do_not_exist() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    let own = std::process::id().to_string();
    for call in [
        vec!["ptrace"],
        vec!["ptrace", "16", &own],
        vec!["process_vm_readv"],
        vec!["process_vm_writev"],
        vec!["pidfd_getfd"],
        vec!["kcmp"],
        vec!["mount"],
        vec!["umount2"],
        vec!["pivot_root"],
        vec!["chroot"],
        vec!["open_tree"],
        vec!["move_mount"],
        vec!["fsopen"],
        vec!["mount_setattr"],
        vec!["unshare", "268435456"],
        vec!["setns"],
        vec!["clone3"],
        vec!["keyctl"],
        vec!["add_key"],
        vec!["request_key"],
        vec!["io_uring_setup"],
        vec!["bpf"],
        vec!["perf_event_open"],
        vec!["userfaultfd"],
        vec!["name_to_handle_at"],
        vec!["open_by_handle_at"],
        vec!["fanotify_init"],
        vec!["swapon"],
        vec!["acct"],
        vec!["syslog"],
        vec!["sethostname"],
        vec!["settimeofday"],
        vec!["reboot"],
        vec!["sync"],
    ] {
        let mut words = vec!["call"];
        words.extend(call);
        words.resize(8, "0");
        prison.held_in(&words, "ENOSYS");
    }
    // Kernels without modules have no such calls, here or there.
    for call in ["init_module", "finit_module", "delete_module"] {
        assert_eq!(prison.inside(&["call", call]), "ENOSYS", "{call}");
    }
    // mount, cgroup, uts, ipc, user, pid, network; the control is a user's, which needs no privilege.
    for flag in [
        "00020000", "02000000", "04000000", "08000000", "20000000", "40000000",
    ] {
        assert_eq!(prison.inside(&["namespace", flag]), "ENOSYS", "{flag}");
    }
    prison.held_in(&["namespace", "10000000"], "ENOSYS");
    // TIOCSTI and TIOCLINUX type into a terminal; TIOCSETD has the kernel load what few terminals need.
    for request in ["5412", "541c", "5423"] {
        prison.held_in(&["type_into_terminal", request], "ENOSYS");
    }
    // vsock, packets, the kernel's ciphers, the packet filter, SCTP, ICMP.
    for socket in [
        ["40", "1", "0"],
        ["17", "3", "0"],
        ["38", "5", "0"],
        ["16", "3", "12"],
        ["2", "1", "132"],
        ["2", "3", "1"],
    ] {
        let [family, kind, protocol] = socket;
        let said = prison.inside(&["raw_socket", family, kind, protocol]);
        assert_eq!(said, "ENOSYS", "{socket:?}");
    }
}

#[test]
fn no_privilege_is_left_and_none_can_be_gained() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    let none = "0000000000000000";
    // Also of the first process, which made the sandbox: a site may write its memory, as it may that of all its own.
    for pid in ["self", "1"] {
        for (field, value) in [
            ("CapInh", none),
            ("CapPrm", none),
            ("CapEff", none),
            ("CapBnd", none),
            ("CapAmb", none),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(
                prison.inside(&["status", field, pid]),
                value,
                "{field} of {pid}"
            );
        }
        let uid = prison.uid().to_string();
        let ids = prison.inside(&["status", "Uid", pid]);
        assert!(ids.split_whitespace().all(|id| id == uid), "{ids}");
        let groups = prison.inside(&["status", "Groups", pid]);
        assert!(
            groups.is_empty() || groups == uid || groups == "65534",
            "{groups}"
        );
    }

    // When the machine's memory is used up, it goes before the platform.
    let order = prison.inside(&["contents", "/proc/self/oom_score_adj"]);
    assert_eq!(order.trim(), "500");

    // A program that makes root of everybody.
    let id = prison.directory(INMATE).join("id");
    fs::copy("/usr/bin/id", &id).expect("it is copied");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).expect("it is ours");
    let words = ["program", &text(&id), "-u"];
    assert_eq!(prison.outside(&words), "0");
    assert_eq!(prison.inside(&words), prison.uid().to_string());
    // The machine's own.
    let said = prison.inside(&["program", "/usr/bin/su", "-c", "id"]);
    assert!(!said.contains("uid=0"), "{said}");
    let mounts = prison.inside(&["contents", "/proc/self/mountinfo"]);
    for mount in mounts.lines().filter(|line| !line.contains(" /proc")) {
        assert!(mount.contains("nosuid"), "{mount}");
    }
    assert!(mounts.lines().count() > 5, "{mounts}");
}

#[test]
fn no_network_but_its_own_loopback_and_no_socket_of_others() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    assert_eq!(prison.inside(&["interfaces"]), "lo");
    for port in [prison.platform.port(), prison.platform.backend_port(1)] {
        prison.held_in(&["tcp", "127.0.0.1", &port.to_string()], "ECONNREFUSED");
    }
    for host in ["10.0.0.1", "169.254.169.254", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(prison.inside(&["tcp", host, "80"]), "ENETUNREACH", "{host}");
    }
    // Abstract sockets belong to a network and to no directory: the host's, and another site's.
    let name = format!("paas-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let _listener = UnixListener::bind_addr(&address).expect("nobody has it");
    prison.held_in(&["unix", &format!("@{name}")], "ECONNREFUSED");
    prison.add("second.test");
    assert_eq!(
        prison
            .ask("second.test", &["listen", "@from-within"])
            .expect(200),
        "done"
    );
    let within = prison.ask("second.test", &["unix", "@from-within"]);
    assert_eq!(within.expect(200), "done");
    for (site, said) in [(INMATE, "ECONNREFUSED"), ("second.test", "done")] {
        let answer = prison.ask(site, &["unix", "@from-within"]);
        assert_eq!(answer.expect(200), said, "{site}");
    }
    let seen = prison.inside(&["sockets"]);
    assert!(
        !seen.contains(&name) && !seen.contains("control.sock"),
        "{seen}"
    );
    assert!(prison.outside(&["sockets"]).contains(&name));
}

#[test]
fn links_that_a_site_plants_lead_nowhere() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    let platform = &prison.platform;
    let own = prison.directory(INMATE);
    // Among the files that are sent to visitors.
    let files = own.join("static");
    fs::create_dir(&files).expect("a directory");
    fs::write(files.join("plain.txt"), "plain").expect("a file");
    prison.give(&files);
    let secret = root.write(
        "secret.txt",
        "for everybody on this machine and nobody outside",
    );
    for (target, name) in [
        (secret.clone(), "secret.txt"),
        (platform.directory().join("registry.db"), "registry.db"),
        (platform.vassals_directory(1), "vassals"),
        (prison.directory(VICTIM), "victim"),
        ("/etc/shadow".into(), "shadow"),
    ] {
        let link = files.join(name);
        assert_eq!(
            prison.inside(&["link", &text(&target), &text(&link)]),
            "done"
        );
    }
    assert_eq!(
        prison.outside(&["read", &text(&files.join("secret.txt"))]),
        "done"
    );
    let map = format!("/static={}", files.display());
    platform
        .paasctl()
        .ok(&["set-site", INMATE, "--static", &map]);
    platform.paasctl().ok(&["reload-site", INMATE]);
    let get = |path: &str| Request::get(INMATE, &format!("/static/{path}")).send(platform.port());
    assert_eq!(get("plain.txt").expect(200), "plain");
    for path in [
        "secret.txt",
        "registry.db",
        "vassals/",
        "victim/app.py",
        "shadow",
    ] {
        // What is not found is the application's to answer.
        assert_eq!(get(path).expect(200), "alive", "{path}");
    }

    // Where nginx and the daemon write: not even the directory is there, and nobody but root may write in it.
    let logs = platform.backend(1).join(format!("var/log/paas/{INMATE}"));
    for directory in [
        logs.clone(),
        platform
            .site_socket(INMATE)
            .parent()
            .expect("one")
            .to_owned(),
        platform.backend(1).join("run/paas/notify"),
    ] {
        let link = text(&directory.join("planted"));
        assert_eq!(prison.inside(&["link", "/etc/shadow", &link]), "ENOENT");
        assert_eq!(prison.outside(&["link", "/etc/shadow", &link]), "EACCES");
    }

    // In place of its own directory, or on the way to it: then it does not start, and `why` says so.
    let home = root.join("sites/home");
    fs::create_dir(&home).expect("a directory");
    prison.settle(&home.join("site"));
    prison.give(&home);
    platform.paasctl().ok(&[
        "add-site",
        "moved.test",
        "--user",
        "mallory",
        "--directory",
        &text(&home.join("site")),
        "--entry",
        "app:application",
        "--no-check",
    ]);
    fs::remove_dir_all(home.join("site")).expect("ours");
    symlink(prison.directory(VICTIM), home.join("site")).expect("planted");
    std::os::unix::fs::lchown(home.join("site"), Some(prison.uid()), Some(prison.uid()))
        .expect("ours to give");
    let answer = platform.get("moved.test", "/");
    assert_eq!(answer.status, 503, "{answer:?}");
    let why = platform.paasctl().ok(&["why", "moved.test"]);
    assert!(why.contains("symbolic link"), "{why}");
    prison.assert_victim_unharmed();
    platform.assert_healthy();
}

#[test]
fn a_crash_leaves_no_core_and_reaches_no_handler() {
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    // One byte: no file is that short, and the kernel takes it for the handler's own crash, so it calls none.
    assert_eq!(prison.inside(&["limit", "RLIMIT_CORE"]), "1 1");
    // None at all would call the handler: it cannot be asked for.
    assert_eq!(prison.inside(&["raise_core"]), "ENOSYS");
    let directory = prison.directory(INMATE).join("crashed");
    fs::create_dir(&directory).expect("a directory");
    prison.give(&directory);
    let words = ["crash", &text(&directory)];
    assert_eq!(prison.inside(&words), "signal 6, dumped False, there is: ");
    // The same crash outside, where a machine has cores written to where the process stands.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the kernel's");
    if pattern.trim() == "core" {
        let said = prison.outside_by(&["prlimit", "--core=unlimited"], &words);
        assert!(said.contains("dumped True, there is: core"), "{said}");
    }
}

#[test]
fn what_is_tried_when_a_site_is_added_runs_in_its_sandbox() {
    const TRIED: &str = r#"
import json, app
with open("attempts") as file:
    attempts = json.load(file)
with open("said", "w") as file:
    json.dump([app.run(*words) for words in attempts], file)
application = app.application
"#;
    let root = Root::new();
    let Some(prison) = Prison::start(&root, "") else {
        return;
    };
    let platform = &prison.platform;
    let port = platform.port().to_string();
    let victims = text(&prison.directory(VICTIM));
    let attempts: [&[&str]; 4] = [
        &["listing", &victims],
        &["listing", "/var/log"],
        &["read", "/etc/hostname"],
        &["tcp", "127.0.0.1", &port],
    ];
    let refusals = ["ENOENT", "ENOENT", "ENOENT", "ECONNREFUSED"];
    for (words, refusal) in attempts.iter().zip(refusals) {
        prison.held_in(words, refusal);
    }
    // From a machine that runs sites, and from one that runs none but has what it takes.
    let machines = [platform.backend(1), platform.machine("balancer")];
    for (machine, domain) in machines.iter().zip(["one.test", "two.test"]) {
        let directory = prison.directory(domain);
        prison.settle(&directory);
        let list = serde_json::to_vec(&attempts).expect("words are JSON");
        fs::write(directory.join("attempts"), list).expect("it is ours");
        fs::write(directory.join("tried.py"), TRIED).expect("it is ours");
        let paasctl = Paasctl::new(machine);
        let arguments = ["add-site", domain, "--user", "mallory", "--directory"];
        let entry = [&*text(&directory), "--entry", "tried:application"];
        paasctl.ok(&[&arguments[..], &entry].concat());
        let said = fs::read(directory.join("said")).expect("it was tried");
        let said: Vec<String> = serde_json::from_slice(&said).expect("JSON");
        assert_eq!(said, refusals, "{}", machine.display());
        // Compiled, too, and as its owner.
        let compiled = directory.join("__pycache__");
        assert_eq!(
            compiled.metadata().expect("it is there").uid(),
            prison.uid()
        );
        let _ = platform.get(domain, "/").expect(200);
    }
    // One that does not end is ended, with all that it started.
    let directory = prison.directory("endless.test");
    prison.settle(&directory);
    let endless =
        "import os, time\nos.fork()\nos.setsid() if os.fork() == 0 else None\ntime.sleep(600)\n";
    fs::write(directory.join("endless.py"), endless).expect("it is ours");
    let settings = platform.backend(1).join("etc/paas/paas.toml");
    let before = fs::read_to_string(&settings).expect("it is there");
    fs::write(
        &settings,
        before.replace("[backend]\n", "[backend]\nstart_timeout = \"2s\"\n"),
    )
    .expect("it is ours");
    let refused = Paasctl::new(&platform.backend(1)).refused(&[
        "add-site",
        "endless.test",
        "--user",
        "mallory",
        "--directory",
        &text(&directory),
        "--entry",
        "endless:application",
    ]);
    assert!(
        refused.contains("still being imported after 2 s"),
        "{refused}"
    );
    wait::until_true("nothing of it to be left", || {
        let uid = prison.uid().to_string();
        let (status, ..) = process::run("pgrep", &["-u", &uid, "-f", "endless"]);
        status.code() == Some(1)
    });
    prison.assert_victim_unharmed();
}
