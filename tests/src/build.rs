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
    let path = env::var_os("PAAS_MODULE").map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| workspace().join("target"), PathBuf::from);
            target.join("module/ngx_http_paas_module.so")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "the nginx module is missing at {}: run scripts/build-module (or set PAAS_MODULE)",
        path.display()
    );
    path.canonicalize()
        .expect("the module's path can be resolved")
}

/// The distribution's nginx.
#[must_use]
pub fn nginx() -> PathBuf {
    PathBuf::from(env::var_os("PAAS_NGINX").unwrap_or_else(|| "/usr/sbin/nginx".into()))
}
