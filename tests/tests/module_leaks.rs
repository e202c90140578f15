//! nginx under valgrind: what a worker holds at its end does not grow with the requests it served, nor what the master holds with
//! its reloads; and nobody reads or writes where he must not.
//!
//! Requests come through every callback of the module. Without the module nginx holds a little at its end, too; so the
//! same is done twice as often, and both must end alike.

use std::fs;
use std::path::Path;
use std::process::Command;

use paas_tests::{Front, Root, build, process, times, wait};
use rustix::process::Signal;

/// What valgrind says of one process at its end.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    /// Bytes and blocks that were not given back.
    in_use: (u64, u64),
    /// Places where memory is read or written that must not be.
    faults: Vec<String>,
}

impl Report {
    fn read(root: &Root, pid: u32) -> Report {
        let file = root.join(format!("valgrind.{pid}"));
        let text = wait::until("valgrind's report", || {
            let text = fs::read_to_string(&file).ok()?;
            text.contains("ERROR SUMMARY").then_some(text)
        });
        let line = text
            .lines()
            .find_map(|line| line.split_once("in use at exit: "))
            .expect("it says so");
        let mut numbers = line
            .1
            .split(' ')
            .filter_map(|word| word.replace(',', "").parse().ok());
        let mut number = || numbers.next().expect("bytes and blocks");
        Report {
            in_use: (number(), number()),
            faults: text
                .lines()
                .filter(|line| {
                    [
                        "Invalid ",
                        "Conditional jump",
                        "Use of uninit",
                        "Syscall param",
                        "Mismatched",
                    ]
                    .iter()
                    .any(|fault| line.contains(fault))
                })
                .map(str::to_owned)
                .collect(),
        }
    }
}

fn start(root: &Root) -> Front {
    let log = format!("--log-file={}/valgrind.%p", root.path().display());
    Front::start(root, &build::module(), |command| {
        let mut valgrind = Command::new("valgrind");
        // An upgrade of glibc or of the processor must not decide this: only what is certainly wrong counts as a fault.
        valgrind.args(["--leak-check=full", "--num-callers=30", &log]);
        valgrind.arg(command.get_program()).args(command.get_args());
        valgrind
    })
}

/// Every child of the master; valgrind does not let a process change its name.
fn children(master: u32) -> Vec<u32> {
    fs::read_to_string(Path::new("/proc").join(format!("{master}/task/{master}/children")))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn worker(front: &Front) -> u32 {
    wait::until("one worker", || {
        match children(front.nginx.master()).as_slice() {
            [worker] => Some(*worker),
            _ => None,
        }
    })
}

const PATHS: [&str; 6] = [
    "/servers",
    "/again",
    "/tls",
    "/table",
    "/sleeping",
    "/variables",
];

fn visit_all(front: &Front, rounds: usize) {
    for _ in 0..rounds {
        for path in PATHS {
            let status = front.visit(path);
            assert!([200, 404].contains(&status), "{path}: {status}");
        }
    }
}

#[test]
fn a_worker_holds_no_more_after_twice_as_many_requests() {
    let rounds = times(5, 1000);
    let reports = [rounds, 2 * rounds].map(|rounds| {
        let root = Root::new();
        let front = start(&root);
        let worker = worker(&front);
        visit_all(&front, rounds);
        front.nginx.signal(Signal::QUIT);
        Report::read(&root, worker)
    });
    assert_eq!(reports[0].faults, [""; 0]);
    assert_eq!(
        reports[0], reports[1],
        "after {rounds} rounds and twice as many"
    );
}

#[test]
fn a_master_holds_no_more_after_twice_as_many_reloads() {
    let reloads = times(2, 50);
    let reports = [reloads, 2 * reloads].map(|reloads| {
        let root = Root::new();
        let front = start(&root);
        visit_all(&front, 1);
        for _ in 0..reloads {
            let before = worker(&front);
            front.nginx.signal(Signal::HUP);
            wait::until_true("the old worker to end", || {
                process::Seen::look(before).is_none()
            });
            visit_all(&front, 1);
        }
        let (master, worker) = (front.nginx.master(), worker(&front));
        front.nginx.signal(Signal::QUIT);
        [Report::read(&root, master), Report::read(&root, worker)]
    });
    assert_eq!(reports[0][0].faults, [""; 0]);
    assert_eq!(
        reports[0], reports[1],
        "after {reloads} reloads and twice as many"
    );
}
