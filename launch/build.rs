//! Compiles the seccomp filter of sites from the list in `seccomp/allowed.txt`.

#[path = "seccomp/compile.rs"]
mod compile;

use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=seccomp");
    let read = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let list = fs::read_to_string("seccomp/allowed.txt").map_err(|error| error.to_string())?;
    let filter = compile::compile(&list, &read("CARGO_CFG_TARGET_ARCH")?)?;
    fs::write(PathBuf::from(read("OUT_DIR")?).join("seccomp.bpf"), filter)
        .map_err(|error| error.to_string())
}
