//! The command line: parse, call the library, print. Exit code 0: done; 1: failed, or the answer is no; 2: not understood.
use clap::Parser;
use control::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Cli::parse())
}
