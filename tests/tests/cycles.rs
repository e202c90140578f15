//! Sites are woken and put to sleep again and again: nothing of it stays, neither memory nor descriptors, processes, files,
//! control groups or sockets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use paas_tests::platform::Options;
use paas_tests::process::{self, Seen};
use paas_tests::{Platform, Request, Root, times, wait};

/// How many sites go on at the same time.
const SITES: usize = 8;
/// What a process may have more of anonymous memory at the end: far less than if each cycle left something behind in a long
/// run, and far more than an allocator's moods.
const MEMORY: u64 = 4 << 20;

/// How often a site is woken and put to sleep in a test; `PAAS_TEST_CYCLES` says it otherwise.
fn cycles() -> usize {
    let said = std::env::var("PAAS_TEST_CYCLES").ok();
    said.and_then(|said| said.parse().ok())
        .unwrap_or_else(|| times(80, 10_000))
}

/// All that there is while all sites sleep.
#[derive(Debug)]
struct Footprint {
    /// The test's descendants, the dead among them.
    processes: usize,
    /// Files and directories of the machines, without logs.
    files: usize,
    /// Control groups of the user.
    groups: usize,
    /// Unix sockets with a name below the root.
    sockets: usize,
    /// What the daemon, the Emperor and nginx have open.
    descriptors: BTreeMap<String, usize>,
}

impl Footprint {
    fn of(root: &Root, platform: &Platform<'_>, groups: &[PathBuf]) -> Footprint {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let below = root.path().to_string_lossy().into_owned();
        Footprint {
            processes: process::descendants(std::process::id()).len(),
            files: count_files(&platform.directory()),
            groups: groups.iter().map(|group| count_directories(group)).sum(),
            sockets: sockets.lines().filter(|line| line.contains(&below)).count(),
            descriptors: long_lived(platform)
                .into_iter()
                .map(|(name, seen)| {
                    let open = fs::read_dir(format!("/proc/{}/fd", seen.pid));
                    (name, open.map_or(0, Iterator::count))
                })
                .collect(),
        }
    }

    /// Whether there is no more of anything than there was.
    fn is_within(&self, before: &Footprint) -> bool {
        self.processes <= before.processes
            && self.files <= before.files
            && self.groups <= before.groups
            && self.sockets <= before.sockets
            && self.descriptors.keys().eq(before.descriptors.keys())
            && self
                .descriptors
                .iter()
                .all(|(name, count)| *count <= before.descriptors[name])
    }
}

/// The long-lived processes of the backend, and the balancer's nginx.
fn long_lived(platform: &Platform<'_>) -> Vec<(String, Seen)> {
    let mut found = Vec::new();
    for machine in ["b1", "balancer"] {
        let family = platform.family(platform.nginx(machine).pid).into_iter();
        found.extend(family.map(|seen| {
            let (kind, _) = seen.command.split_once(" process").unwrap_or_default();
            (format!("{machine}, {kind}"), seen)
        }));
    }
    found.push(("the daemon".to_owned(), platform.daemon("b1")));
    found.push(("the Emperor".to_owned(), platform.emperor("b1")));
    found
}

/// Anonymous memory in bytes.
fn memory(seen: &Seen) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", seen.pid));
    let text = text.expect("a process that lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.expect("the kernel tells") * 1024
}

fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "log" => {
                1 + count_files(&entry.path())
            }
            _ => 1,
        })
        .sum()
}

/// The control groups that the sites of a process's user have in all trees, by a process of one of them; none without a sandbox.
fn groups_around(pid: u32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let user = |line: &str| {
        let (trees, path) = line.split_once(':')?.1.split_once(':')?;
        let user = Path::new(path.strip_prefix('/')?).parent()?;
        let is_ours = user.components().count() == 2;
        is_ours.then(|| Path::new("/sys/fs/cgroup").join(trees).join(user))
    };
    text.lines().filter_map(user).collect()
}

fn count_directories(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

/// Wakes a site and waits until it sleeps, so many times.
fn wake_and_sleep(port: u16, domain: &str, id: u64, vassals: &Path, count: usize) {
    let start = format!("{id}@");
    for number in 0..count {
        let path = format!("/{number}");
        let answer = Request::get(domain, &path).send(port).expect(200);
        assert!(answer.starts_with(&format!("GET {path} 0 ")), "{answer}");
        wait::until_true("the site sleeps", || {
            let files = fs::read_dir(vassals).expect("the vassals' directory is there");
            !files.flatten().any(|file| {
                let name = file.file_name();
                name.to_string_lossy().starts_with(&start)
            })
        });
    }
}

#[test]
fn sites_wake_and_sleep_again_and_again_and_leave_nothing() {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            backend: "idle = \"50ms\"\nworkers = 1\n".to_owned(),
            ..Options::default()
        },
    );
    let mut sites = platform.recorders((1..SITES).map(|number| format!("s{number}.test")));
    // One brings its own server.
    let serving = platform.serving_recorder("serving.test", &[]);
    sites.push(("serving.test".to_owned(), serving));
    let ids: Vec<u64> = sites
        .iter()
        .map(|(domain, _)| platform.site_id(domain))
        .collect();
    let (port, vassals) = (platform.port(), platform.vassals_directory(1));
    let go_round = |rounds: usize| {
        thread::scope(|scope| {
            for ((domain, _), id) in sites.iter().zip(&ids) {
                scope.spawn(|| wake_and_sleep(port, domain, *id, &vassals, rounds));
            }
        });
    };

    let held = {
        let domain = sites[0].0.clone();
        thread::spawn(move || Request::get(&domain, "/hold").send(port).expect(200))
    };
    sites[0].1.wait_for("GET", "/hold", 1);
    let running = process::descendants(platform.emperor("b1").pid);
    let groups = running
        .iter()
        .map(|seen| groups_around(seen.pid))
        .max_by_key(Vec::len)
        .unwrap_or_default();
    sites[0].1.set("go");
    held.join().expect("it is answered");

    // What is made once is made now; then everything is counted, when the last process has ended.
    let warming = cycles().div_ceil(20 * SITES).max(3);
    go_round(warming);
    let asleep = || {
        wait::until_true("no process and no control group of a site is left", || {
            process::descendants(platform.emperor("b1").pid).is_empty()
                && groups
                    .iter()
                    .map(|group| count_directories(group))
                    .sum::<usize>()
                    == 0
        });
    };
    asleep();
    let before = Footprint::of(&root, &platform, &groups);
    let memory_before: Vec<u64> = long_lived(&platform)
        .iter()
        .map(|(_, seen)| memory(seen))
        .collect();

    let (began, rounds) = (Instant::now(), cycles().div_ceil(SITES));
    go_round(rounds);
    let took = began.elapsed();
    asleep();
    // What is on its way out is given time.
    let mut after = Footprint::of(&root, &platform, &groups);
    let _ = wait::within(Duration::from_secs(30), || {
        after = Footprint::of(&root, &platform, &groups);
        after.is_within(&before).then_some(())
    });
    let grown: Vec<String> = long_lived(&platform)
        .iter()
        .zip(memory_before)
        .map(|((name, seen), before)| {
            let now = memory(seen);
            assert!(now <= before + MEMORY, "{name}: {before} bytes, then {now}");
            format!("{name} {:+} KiB", (now as i64 - before as i64) / 1024)
        })
        .collect();
    eprintln!(
        "{} cycles in {:.0} s ({:.1} a second); {before:?}; {}",
        rounds * SITES,
        took.as_secs_f64(),
        (rounds * SITES) as f64 / took.as_secs_f64(),
        grown.join(", ")
    );
    assert!(after.is_within(&before), "{after:#?} after {before:#?}");
    for (domain, site) in &sites[1..] {
        assert_eq!(
            site.starts(),
            warming + rounds,
            "{domain}: one for each visit"
        );
    }
    platform.assert_healthy();
}
