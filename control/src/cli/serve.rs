//! `paasctl serve`: the daemon.
use super::CliError;
use crate::daemon;
use crate::settings::Settings;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {}

/// Runs the daemon until it is told to stop.
pub fn run(settings: Settings, _arguments: Serve) -> Result<ExitCode, CliError> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|problem| CliError::Other(format!("cannot start the event loop: {problem}")))?;
    let ended = runtime.block_on(daemon::run(settings));
    // A blocking task that still waits for something must not hold the end up.
    runtime.shutdown_background();
    ended
        .map(|()| ExitCode::SUCCESS)
        .map_err(|problem| CliError::Other(problem.to_string()))
}

/// Log lines go to standard error, as many as `PAAS_LOG` says (`info` unless set).
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("PAAS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
