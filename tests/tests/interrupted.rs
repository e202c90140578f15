//! `paasctl` is killed (`kill -9`) wherever it happens to be: what it did is done whole or not at all, the daemon follows what is done even
//! if nobody lives to tell it, and the next command finds nothing in its way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use paas_tests::{Paasctl, Platform, Root, build, times, wait};

/// What there is to know of each site, by its domain.
type Sites = BTreeMap<String, serde_json::Value>;

fn sites(paasctl: &Paasctl) -> Sites {
    let text = paasctl.ok(&["list-sites", "--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    all.into_iter()
        .map(|site| (site["domain"].as_str().expect("a domain").to_owned(), site))
        .collect()
}

/// Runs a command and kills it after that time, if it has not ended. Says whether it was killed.
fn interrupted(mut command: Command, after: Duration) -> bool {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be run");
    std::thread::sleep(after);
    child.kill().expect("it is ours");
    let status = child.wait().expect("it is ours");
    status.signal().is_some()
}

/// How long a command takes that nobody kills.
fn duration(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn accepts(configuration: &Path) {
    let output = Command::new(build::nginx())
        .args(["-q", "-t", "-c"])
        .arg(configuration)
        .output()
        .expect("nginx can be run");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_command_killed_anywhere_is_done_or_not_done_and_the_daemon_knows_which() {
    let rounds = u32::try_from(times(40, 400)).expect("few");
    let root = Root::new();
    let platform = Platform::start(&root);
    let paasctl = platform.paasctl();
    let keep = platform.recorder("keep.test");
    let directory = root.join("sites/keep.test").to_string_lossy().into_owned();
    let add = |domain: &str| {
        let arguments = ["add-site", domain, "--user", "owner", "--directory"];
        let entry = ["--entry", "app:application", "--no-check"];
        paasctl.command(&[&arguments[..], &[directory.as_str()], &entry].concat())
    };
    let took = duration(|| {
        let status = add("first.test").status().expect("it can be run");
        assert!(status.success());
    });
    let mut before = sites(&paasctl);
    let (mut killed, mut done) = ([0, 0, 0], 0);
    for round in 0..rounds {
        // Each command at every part of the time that it takes, and a little longer.
        let after = took.mul_f64(1.2 * f64::from(round / 3) / f64::from(rounds / 3));
        let last = before
            .keys()
            .rfind(|domain| *domain != "keep.test")
            .cloned();
        let (domain, command) = match (round % 3, last) {
            (0, _) | (_, None) => {
                let domain = format!("new{round}.test");
                let command = add(&domain);
                (domain, command)
            }
            (1, Some(domain)) => {
                let workers = (2 + round % 5).to_string();
                let command = paasctl.command(&["set-site", &domain, "--workers", &workers]);
                (domain, command)
            }
            (_, Some(domain)) => {
                let command = paasctl.command(&["remove-site", &domain]);
                (domain, command)
            }
        };
        let which = usize::try_from(round % 3).expect("small");
        killed[which] += u32::from(interrupted(command, after));

        let now = sites(&paasctl);
        let others = |sites: &Sites| {
            let mut sites = sites.clone();
            sites.remove(&domain);
            sites
        };
        assert_eq!(others(&now), others(&before), "nothing else has changed");
        // The table, and nginx with it, is what the registry is, whoever was to tell.
        let status = if now.contains_key(&domain) { 200 } else { 404 };
        wait::until_true(&format!("{domain} to answer {status}"), || {
            platform.get(&domain, "/").status == status
        });
        done += u32::from(now != before);
        before = now;
    }
    eprintln!("killed: {killed:?} of {rounds}; {done} had done what they were to do");
    assert!(done > 0 && done < rounds);
    for count in killed {
        assert!(count >= rounds / 12, "most had ended by then: {killed:?}");
    }
    let _ = platform.get("keep.test", "/").expect(200);
    assert!(keep.starts() >= 1);
    platform.assert_healthy();
}

#[test]
fn a_render_killed_anywhere_leaves_the_old_configuration_or_the_new() {
    let rounds = u32::try_from(times(24, 200)).expect("few");
    let root = Root::new();
    let platform = Platform::start(&root);
    let paasctl = platform.paasctl();
    let balancer = platform.machine("balancer");
    let generations = balancer.join("var/lib/paas/generations");
    let current = balancer.join("var/lib/paas/current");
    let say = |round: u32| {
        let text = format!("keepalive_requests {};", 1_000 + round);
        fs::create_dir_all(balancer.join("etc/paas/server.d")).expect("it is ours");
        fs::write(balancer.join("etc/paas/server.d/round.conf"), text).expect("it is ours");
    };
    // Which of them is in force.
    let said = || -> u32 {
        let copy = current.join("snippets/server.d/round.conf");
        let text = fs::read_to_string(copy).expect("it is there");
        let rest = text.split("keepalive_requests 1").nth(1).expect("a round");
        rest[..3].parse().expect("a number")
    };
    say(0);
    let took = duration(|| drop(paasctl.ok(&["render"])));
    let (mut killed, mut switched) = (0, 0);
    for round in 1..=rounds {
        let before = said();
        say(round);
        let after = took.mul_f64(1.2 * f64::from(round) / f64::from(rounds));
        killed += u32::from(interrupted(paasctl.command(&["render"]), after));
        // Whichever it is, it is whole.
        let now = said();
        assert!(
            now == before || now == round,
            "{now}, not {before} or {round}"
        );
        switched += u32::from(now == round);
        accepts(&current.join("nginx.conf"));
    }
    eprintln!("{killed} of {rounds} were killed, {switched} had done what they were to do");
    assert!(killed >= rounds / 4 && switched > 0 && switched < rounds);
    // The next one is not held up by what they left, and leaves none of it.
    say(999);
    paasctl.ok(&["render"]);
    assert_eq!(said(), 999);
    let left: Vec<String> = fs::read_dir(generations)
        .expect("it is there")
        .map(|entry| entry.expect("it is ours").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.parse::<u64>().is_err())
        .collect();
    assert!(
        left.iter().all(|name| name == "lock" || name == ".lock"),
        "{left:?}"
    );
    platform.assert_healthy();
}
