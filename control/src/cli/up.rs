//! `paasctl up`: the whole platform on this machine, in the foreground.
use super::CliError;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub struct Up {
    /// How many backends.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub backends: u16,
}

/// Runs everything until Ctrl-C.
pub fn run(_root: &Path, _arguments: Up) -> Result<ExitCode, CliError> {
    Err(CliError::Other("up is not there yet".to_owned()))
}
