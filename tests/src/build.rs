//! Where the built parts are: beside the test's own executable, and what to run when they are not.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's top directory.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// `target/debug` or `target/release`, whichever this test was built into.
fn profile_directory() -> PathBuf {
    let executable = env::current_exe().expect("the test knows its own executable");
    let deps = executable
        .parent()
        .expect("an executable lies in a directory");
    if deps.ends_with("deps") {
        deps.parent().unwrap_or(deps).to_path_buf()
    } else {
        deps.to_path_buf()
    }
}

/// A program of the workspace built with the same profile as the test.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = profile_directory().join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build` in {}",
        path.display(),
        workspace().display()
    );
    path
}

/// The nginx module: `PAAS_MODULE`, or where `scripts/build-module` puts it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn module() -> PathBuf {
    let file = env::var_os("PAAS_MODULE").map_or_else(|| modules().join(MODULE), PathBuf::from);
    built(&file, "scripts/build-module (or set PAAS_MODULE)")
}

/// The module whose callbacks panic when told to, where `scripts/build-module --faults` puts it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn module_with_faults() -> PathBuf {
    built(
        &modules().join("faults").join(MODULE),
        "scripts/build-module --faults",
    )
}

const MODULE: &str = "ngx_http_paas_module.so";

/// The file itself, so that what a test loads stays what it is when the module is built again.
fn built(file: &Path, how: &str) -> PathBuf {
    file.canonicalize().unwrap_or_else(|error| {
        panic!(
            "the nginx module is missing at {} ({error}): run {how}",
            file.display()
        )
    })
}

fn modules() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("module")
}

/// The distribution's nginx.
#[must_use]
pub fn nginx() -> PathBuf {
    PathBuf::from(env::var_os("PAAS_NGINX").unwrap_or_else(|| "/usr/sbin/nginx".into()))
}
