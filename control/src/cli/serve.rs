//! `paasctl serve`: the daemon.
use super::CliError;
use crate::settings::Settings;
use std::process::ExitCode;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {}

/// Runs the daemon until it is told to stop.
pub fn run(_settings: Settings, _arguments: Serve) -> Result<ExitCode, CliError> {
    Err(CliError::Other("serve is not there yet".to_owned()))
}
