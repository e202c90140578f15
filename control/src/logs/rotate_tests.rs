use super::*;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

const BOUND: Bound = Bound {
    size: LEAST,
    keep: 3,
};

fn append(directory: &Path) -> File {
    let log = directory.join("server.log");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .unwrap()
}

fn lines(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["server.log.3", "server.log.2", "server.log.1", "server.log"] {
        let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
        let text = text.trim_start_matches('\0');
        lines.extend(
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .map(str::to_owned),
        );
    }
    lines
}

#[test]
fn a_small_log_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!rotate(directory.path(), "server.log", BOUND).unwrap());
    append(directory.path()).write_all(&[b'x'; 60_000]).unwrap();
    assert!(!rotate(directory.path(), "server.log", BOUND).unwrap());
}

/// Writers that never open the log anew, as a site's processes, until it has been cut several times.
fn no_line_is_lost(directory: &Path) {
    let cuts = AtomicU32::new(0);
    let many = Bound {
        keep: 1_000,
        ..BOUND
    };
    let write = |writer: usize| {
        let mut log = append(directory);
        let mut lines = Vec::new();
        while cuts.load(Ordering::SeqCst) < 8 {
            let number = lines.len();
            let line = format!("writer {writer} line {number} {}", "x".repeat(number % 300));
            log.write_all(format!("{line}\n").as_bytes()).unwrap();
            lines.push(line);
        }
        lines
    };
    let written: BTreeSet<String> = std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..3)
            .map(|writer| scope.spawn(move || write(writer)))
            .collect();
        while cuts.load(Ordering::SeqCst) < 8 {
            let cut = rotate(directory, "server.log", many).unwrap();
            cuts.fetch_add(cut.into(), Ordering::SeqCst);
        }
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    });
    let cuts = cuts.into_inner();
    let mut found = Vec::new();
    for number in (0..=cuts).rev() {
        let name = match number {
            0 => "server.log".to_owned(),
            number => older("server.log", number),
        };
        let text = fs::read_to_string(directory.join(&name)).unwrap();
        let lines = text.trim_start_matches('\0').lines();
        found.extend(
            lines
                .filter(|line| !line.trim().is_empty())
                .map(str::to_owned),
        );
    }
    assert_eq!(found.len(), written.len(), "each once");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), written);
}

#[test]
fn no_line_is_lost_or_twice_while_processes_write() {
    no_line_is_lost(tempfile::tempdir().unwrap().path());
}

#[test]
fn nor_where_blocks_can_only_be_freed() {
    // tmpfs cannot collapse.
    match tempfile::tempdir_in("/dev/shm") {
        Ok(directory) => no_line_is_lost(directory.path()),
        Err(problem) => eprintln!("no tmpfs at /dev/shm ({problem}): skipped"),
    }
}

#[test]
fn disk_use_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = append(directory.path());
    for number in 0..40 {
        log.write_all(format!("{number} {}\n", "x".repeat(40_000)).as_bytes())
            .unwrap();
        rotate(directory.path(), "server.log", BOUND).unwrap();
    }
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 4, "the log and three older ones: {files:?}");
    let all = lines(directory.path());
    assert!(
        all.last().unwrap().starts_with("39 "),
        "the newest is there"
    );
    // Much more at once than the bound: only the newest of it is kept.
    log.write_all(&b"y\n".repeat(2 << 20)).unwrap();
    assert!(rotate(directory.path(), "server.log", BOUND).unwrap());
    let older = (1..=4).filter_map(|number| {
        let file = directory.path().join(super::older("server.log", number));
        fs::metadata(file).ok()
    });
    let older: Vec<_> = older.map(|data| data.len()).collect();
    assert!(older.iter().sum::<u64>() <= 4 * LEAST, "{older:?}");
    assert!(append(directory.path()).metadata().unwrap().blocks() * 512 <= 2 * LEAST);
}

#[test]
fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::write(&victim, "v\n".repeat(100_000)).unwrap();
    symlink(&victim, directory.path().join("server.log")).unwrap();
    assert!(rotate(directory.path(), "server.log", BOUND).is_err());
    fs::remove_file(directory.path().join("server.log")).unwrap();
    // Nor one in the place of what it writes.
    append(directory.path())
        .write_all(&b"x\n".repeat(50_000))
        .unwrap();
    symlink(&victim, directory.path().join("server.log.new")).unwrap();
    symlink(&victim, directory.path().join("server.log.1")).unwrap();
    assert!(rotate(directory.path(), "server.log", BOUND).unwrap());
    assert_eq!(fs::read_to_string(&victim).unwrap().len(), 200_000);
    assert!(
        fs::symlink_metadata(directory.path().join("server.log.1"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn a_file_without_any_line_is_cut_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    append(directory.path())
        .write_all(&vec![b'x'; 200_000])
        .unwrap();
    assert!(rotate(directory.path(), "server.log", BOUND).unwrap());
    assert!(
        fs::metadata(directory.path().join("server.log"))
            .unwrap()
            .len()
            <= BLOCK
    );
}
