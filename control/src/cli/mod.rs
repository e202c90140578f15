//! The command line: one file for each noun. What a command prints on standard output is its answer; what it has to say
//! about it goes to standard error.
pub mod serve;
pub mod up;

use crate::settings::{Settings, SettingsError};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A platform for very many Python sites: nginx in front, the uWSGI Emperor behind, one registry.
#[derive(Debug, Parser)]
#[command(name = "paasctl", version)]
pub struct Cli {
    /// The directory that everything lies below.
    #[arg(
        long,
        global = true,
        env = "PAAS_ROOT",
        default_value = "/",
        value_name = "DIR"
    )]
    pub root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: keep the table up to date, wake sites.
    Serve(serve::Serve),
    /// Run the whole platform on this machine in the foreground.
    Up(up::Up),
}

/// Any error a command can end in.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// Something typed at the command line.
    #[error(transparent)]
    Invalid(#[from] crate::model::Invalid),
    /// Anything that says itself what happened, to what, and what to do.
    #[error("{0}")]
    Other(String),
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paasctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    match cli.command {
        // `up` composes machines, each with its own settings below the root.
        Command::Up(up) => up::run(&cli.root, up),
        Command::Serve(serve) => serve::run(Settings::load(&cli.root)?, serve),
    }
}
