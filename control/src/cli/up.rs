//! `paasctl up`: the whole platform on this machine, or one machine of it, in the foreground.
use super::CliError;
use crate::up::{Plan, run as run_platform};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub struct Up {
    /// How many backends; later runs keep those there are.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub backends: Option<u16>,
    /// The balancer's port for http; a free one near 8080 is chosen if none is given.
    #[arg(long, value_name = "PORT")]
    pub http: Option<u16>,
    /// The balancer's port for https; needs a certificate.
    #[arg(long, value_name = "PORT", requires = "certificate")]
    pub https: Option<u16>,
    /// The certificate that the balancer shows, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    pub certificate: Option<std::path::PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub certificate_key: Option<std::path::PathBuf>,
    /// The address that the balancer listens on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: IpAddr,
}

/// Runs everything until Ctrl-C.
pub fn run(root: &Path, arguments: Up) -> Result<ExitCode, CliError> {
    if root == Path::new("/") {
        return Err(CliError::Other(
            "up needs a directory of its own: paasctl --root DIR up".to_owned(),
        ));
    }
    let Up {
        backends,
        http,
        https,
        certificate,
        certificate_key,
        bind,
    } = arguments;
    let plan = Plan {
        backends,
        http,
        https,
        certificate: certificate.zip(certificate_key),
        bind,
    };
    run_platform(root, &plan).map_err(|error| CliError::Other(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
