//! Without root, for development: everything runs, as the one user who started it, and it is said that nothing is held in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use paas_tests::{Platform, Root, build, process, wait};

/// Nobody's. As root, the test runs the other one below as this user.
const UID: u32 = 61_234;
const NOT_HELD_IN: &str = "not root: no sandbox, no limits";

#[test]
fn without_root_everything_runs_and_says_what_is_not_held_in() {
    if !rustix::process::geteuid().is_root() {
        return without_root();
    }
    // From a copy: the tree may lie where only root may go.
    let root = Root::new();
    let programs = root.join("programs");
    fs::create_dir(&programs).expect("a directory");
    let copy = |from: &Path| {
        let to = programs.join(from.file_name().expect("a file"));
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("it is ours");
        to.to_string_lossy().into_owned()
    };
    copy(&build::program("paasctl"));
    copy(&build::program("paas-launch"));
    let module = format!("PAAS_MODULE={}", copy(&build::module()));
    let test = copy(&std::env::current_exe().expect("this test"));
    let home = root.join("home");
    fs::create_dir(&home).expect("a directory");
    chown(&home, Some(UID), Some(UID)).expect("root may");
    let (user, group) = (format!("--reuid={UID}"), format!("--regid={UID}"));
    let home = format!("HOME={}", home.display());
    let words = [
        "-i",
        "PATH=/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/sbin:/bin",
        &home,
        &module,
        "setpriv",
        &user,
        &group,
        "--clear-groups",
        "--",
        &test,
        "--exact",
        "without_root_everything_runs_and_says_what_is_not_held_in",
        "--nocapture",
    ];
    let (status, said, errors) = process::run("env", &words);
    assert!(
        status.success() && said.contains("1 passed"),
        "{said}{errors}"
    );
}

fn without_root() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let uid = rustix::process::getuid().as_raw().to_string();
    let site = platform.recorder_with("a.test", &["--idle", "1s"]);
    let answer = platform.get("a.test", "/");
    assert!(answer.expect(200).starts_with("GET / 0 "));
    assert_eq!(answer.header("x-uid"), Some(&*uid));
    let _ = platform.paasctl().ok(&["reload-site", "a.test"]);
    assert_eq!(site.starts(), 2);
    wait::until_true("it sleeps", || platform.vassals("a.test").is_empty());
    let _ = platform.get("a.test", "/again").expect(200);
    assert_eq!(site.starts(), 3);

    for log in ["up.log", "p/b1/var/log/paas/paasctl.log"] {
        let text = fs::read_to_string(root.join(log)).expect("it is written");
        assert!(text.contains(NOT_HELD_IN), "{log}: {text}");
    }
    platform.assert_healthy();
}
