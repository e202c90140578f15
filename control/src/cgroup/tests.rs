//! Version 2 on a tree of plain files (that is all of it that these tests need a kernel for), version 1 on the kernel's where
//! there is one and we are root, else on such a tree, too.
use super::*;
use crate::model::{Bytes, CpuWeight, Processes};
use std::process::{Child, Command};

fn limits(memory: u64, cpu: Option<u32>) -> Limits {
    Limits {
        memory: Bytes::new(memory),
        processes: Some(Processes::constant(20)),
        cpu: cpu.map(Cpu::constant),
        weight: Some(CpuWeight::constant(50)),
        ..Limits::default()
    }
}

fn text(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .trim()
        .to_owned()
}

fn version_2() -> (tempfile::TempDir, Groups) {
    let mount = tempfile::tempdir().unwrap();
    fs::write(
        mount.path().join("cgroup.controllers"),
        "cpuset cpu io memory hugetlb pids rdma\n",
    )
    .unwrap();
    let groups = Groups::find(mount.path(), "paas-test").unwrap();
    assert_eq!(groups.version(), 2);
    (mount, groups)
}

#[test]
fn version_2_has_one_tree_and_every_level_shares_its_controllers() {
    let (mount, groups) = version_2();
    let leaves = groups
        .make(
            200_001,
            "7@3",
            &limits(1 << 30, Some(150)),
            &limits(1 << 20, Some(50)),
        )
        .unwrap();
    let user = mount.path().join("paas-test/u200001");
    assert_eq!(leaves, [user.join("7@3")]);
    for level in [mount.path(), &mount.path().join("paas-test"), &user] {
        assert_eq!(
            text(level, "cgroup.subtree_control"),
            "+cpu +memory +pids",
            "{}",
            level.display()
        );
    }
    assert!(
        !leaves[0].join("cgroup.subtree_control").exists(),
        "processes live there"
    );
    assert_eq!(text(&user, "memory.max"), (1 << 30).to_string());
    assert_eq!(text(&user, "cpu.max"), "150000 100000");
    assert_eq!(text(&user, "cpu.weight"), "50");
    assert_eq!(text(&leaves[0], "memory.max"), (1 << 20).to_string());
    assert_eq!(text(&leaves[0], "cpu.max"), "50000 100000");
    assert_eq!(text(&leaves[0], "pids.max"), "20");
    // Another user in between keeps both; a user's new limit holds at once; none is written as the kernel spells it.
    groups
        .make(200_002, "8@1", &limits(1 << 29, None), &Limits::default())
        .unwrap();
    groups.limit(200_001, &Limits::default()).unwrap();
    assert_eq!(
        (text(&user, "memory.max"), text(&user, "cpu.max")),
        ("max".to_owned(), "max 100000".to_owned())
    );
    assert_eq!(text(&leaves[0], "cpu.max"), "50000 100000");
}

#[test]
fn version_2_shares_what_is_not_shared_yet_and_forbids_swap_where_there_is_any() {
    let (mount, groups) = version_2();
    fs::write(
        mount.path().join("cgroup.subtree_control"),
        "cpu io memory\n",
    )
    .unwrap();
    let user = mount.path().join("paas-test/u5");
    fs::create_dir_all(&user).unwrap();
    fs::write(user.join("memory.swap.max"), "max").unwrap();
    groups
        .make(5, "1@1", &limits(1 << 20, None), &Limits::default())
        .unwrap();
    assert_eq!(text(mount.path(), "cgroup.subtree_control"), "+pids");
    // The limits of a user with a group are not written by a start.
    assert_eq!(text(&user, "memory.swap.max"), "max");
    groups.limit(5, &limits(1 << 20, None)).unwrap();
    assert_eq!(text(&user, "memory.swap.max"), "0");
}

#[test]
fn version_2_counts_cpu_and_kills() {
    let (mount, groups) = version_2();
    let leaves = groups
        .make(5, "1@1", &limits(1 << 20, None), &Limits::default())
        .unwrap();
    fs::write(
        mount.path().join("paas-test/u5/cpu.stat"),
        "usage_usec 1500000\nuser_usec 1\n",
    )
    .unwrap();
    assert_eq!(
        groups.users().unwrap(),
        [Group {
            uid: 5,
            cpu_used: Duration::from_millis(1500)
        }]
    );
    assert_eq!(groups.killed_for_memory("1@1"), 0);
    fs::write(
        leaves[0].join("memory.events"),
        "low 0\noom 4\noom_kill 3\noom_group_kill 0\n",
    )
    .unwrap();
    assert_eq!(groups.killed_for_memory("1@1"), 3);
}

#[test]
fn a_kernel_without_what_it_takes_is_named() {
    let mount = tempfile::tempdir().unwrap();
    let said = Groups::find(mount.path(), "x").unwrap_err();
    assert!(said.contains("memory, pids, cpu, cpuacct"), "{said}");
    fs::write(mount.path().join("cgroup.controllers"), "cpu pids\n").unwrap();
    let said = Groups::find(mount.path(), "x").unwrap_err();
    assert!(said.ends_with("lacks memory"), "{said}");
}

/// The machine's own, if it is of version 1 and we may write there.
fn version_1() -> Option<Groups> {
    let groups = Groups::find(
        Path::new("/sys/fs/cgroup"),
        &format!("paas-test-{}", std::process::id()),
    )
    .ok()?;
    let may = rustix::process::geteuid().is_root();
    if !may || groups.version() != 1 {
        eprintln!("not run: it takes root and control groups of version 1");
        return None;
    }
    Some(groups)
}

/// A process in a group, and the group's end.
struct Inside<'g>(Child, &'g Groups);

impl<'g> Inside<'g> {
    fn start(groups: &'g Groups, leaves: &[PathBuf]) -> Inside<'g> {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let inside = Inside(child, groups);
        for leaf in leaves {
            put(leaf, "cgroup.procs", &inside.0.id().to_string()).unwrap();
        }
        inside
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        self.1.remove().unwrap();
    }
}

#[test]
fn version_1_holds_on_this_kernel() {
    let Some(groups) = version_1() else { return };
    let (user, site) = (limits(1 << 30, Some(150)), limits(64 << 20, Some(50)));
    let leaves = groups.make(200_001, "7@3", &user, &site).unwrap();
    let inside = Inside::start(&groups, &leaves);
    assert_eq!(
        text(&leaves[0], "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    assert_eq!(
        text(leaves[0].parent().unwrap(), "memory.limit_in_bytes"),
        (1 << 30).to_string()
    );
    assert_eq!(text(&leaves[1], "pids.max"), "20");
    assert_eq!(text(&leaves[2], "cpu.cfs_quota_us"), "50000");
    assert_eq!(text(&leaves[2], "cpu.shares"), "512");
    // The tarpit: below what the site's own group had.
    groups
        .limit(
            200_001,
            &Limits {
                cpu: Some(Cpu::constant(5)),
                ..user.clone()
            },
        )
        .unwrap();
    assert_eq!(
        text(leaves[2].parent().unwrap(), "cpu.cfs_quota_us"),
        "5000"
    );
    groups.limit(200_001, &user).unwrap();
    // Memory goes down and up again, with swap where that is counted.
    groups
        .limit(
            200_001,
            &Limits {
                memory: Bytes::new(128 << 20),
                ..user.clone()
            },
        )
        .unwrap();
    groups.limit(200_001, &user).unwrap();
    assert_eq!(groups.users().unwrap().len(), 1);
    assert_eq!(groups.killed_for_memory("7@3"), 0);
    // What lives is not removed.
    groups.tidy(&|_| false).unwrap();
    assert!(leaves.iter().all(|leaf| leaf.is_dir()));
    drop(inside);
    assert!(leaves.iter().all(|leaf| !leaf.exists()));
}

#[test]
fn only_what_nobody_wants_is_removed() {
    let (mount, groups) = version_2();
    let tree = mount.path().join("paas-test");
    for leaf in ["u1/1@1", "u1/2@1", "u2/3@1"] {
        fs::create_dir_all(tree.join(leaf)).unwrap();
    }
    groups.tidy(&|leaf| leaf.ends_with("2@1")).unwrap();
    assert!(
        tree.join("u1/2@1").is_dir() && !tree.join("u1/1@1").exists() && !tree.join("u2").exists()
    );
}
