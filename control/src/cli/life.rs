//! `start-site`, `stop-site`, `reload-site`, `disable-site`, `enable-site`: what the operator wants of a site's processes.
//!
//! Processes belong to a backend, so these commands ask the daemon of this machine, and those that `paasctl up` runs beside it.
use super::domain::site_of;
use super::machine::{Concerns, Machine};
use super::output::json;
use super::why::{self, Backend};
use super::{CliError, Format, application, route};
use crate::client::{self, AskError};
use crate::http::Outcome;
use crate::model::{Domain, Site, parse_domain};
use crate::visit::Tenant;
use hyper::Method;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of all of them.
#[derive(Debug, clap::Args)]
pub struct Order {
    /// Any domain of the site.
    #[arg(value_name = "SITE", value_parser = parse_domain)]
    domain: Domain,
    /// Wait for the outcome; this is the default.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return when the daemon has the order.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `enable-site`, which has nothing to wait for.
#[derive(Debug, clap::Args)]
pub struct Enable {
    /// Any domain of the site.
    #[arg(value_name = "SITE", value_parser = parse_domain)]
    domain: Domain,
    #[command(flatten)]
    format: Format,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Run.
    Start,
    /// End; the next visitor wakes it.
    Stop,
    /// Run the code that is there now.
    Reload,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Stop => "stop",
            Kind::Reload => "reload",
        }
    }
}

/// What came of an order on one backend.
#[derive(Debug, Serialize)]
struct Done {
    backend: String,
    #[serde(flatten)]
    outcome: Outcome,
    /// What the operator should know of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<why::Failed>,
}

#[derive(Serialize)]
struct Answer<'a> {
    site: &'a str,
    order: &'static str,
    backends: &'a [Done],
}

/// Gives the order, and says what came of it; the exit code says whether it was done.
pub(super) fn order(
    machine: &Machine,
    kind: Kind,
    arguments: &Order,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let site = site_of(&*machine.registry()?.view()?, &arguments.domain)?;
    if !site.enabled && kind != Kind::Stop {
        return Err(CliError::Other(format!(
            "{} is disabled; `paasctl enable-site {}` switches it on",
            site.domain, site.domain
        )));
    }
    if kind == Kind::Reload && site.directory.as_path().is_dir() {
        application::compile(machine, Tenant::from(&site))?;
    }
    let done = give(machine, kind, &site, !arguments.no_wait)?;
    let failed = done
        .iter()
        .any(|done| matches!(done.outcome, Outcome::Failed { .. } | Outcome::NoSuchSite));
    if arguments.format.json {
        let answer = Answer {
            site: site.domain.as_str(),
            order: kind.word(),
            backends: &done,
        };
        json(out, &answer)?;
    } else {
        for one in &done {
            tell(kind, &site, one, out)?;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Asks every backend that may have processes of the site; a start, only the one that its visitors are sent to.
fn give(machine: &Machine, kind: Kind, site: &Site, wait: bool) -> Result<Vec<Done>, CliError> {
    let mut backends = why::backends(machine);
    if kind == Kind::Start && backends.len() > 1 {
        let chosen = route::backend_of(machine, &site.domain)?;
        backends.retain(|backend| Some(&backend.name) == chosen.as_ref());
        if backends.is_empty() {
            let chosen = chosen.unwrap_or_else(|| "no backend".to_owned());
            return Err(CliError::Other(format!(
                "visitors of {} are sent to {chosen}; run this command there",
                site.domain
            )));
        }
    }
    if backends.is_empty() {
        return Err(CliError::Other(format!(
            "no daemon of a backend answers on this machine; run this command on the backend that `paasctl route {}` names",
            site.domain
        )));
    }
    backends
        .iter()
        .map(|backend| give_one(machine, backend, kind, site, wait))
        .collect()
}

fn give_one(
    machine: &Machine,
    backend: &Backend,
    kind: Kind,
    site: &Site,
    wait: bool,
) -> Result<Done, CliError> {
    let path = format!(
        "/order?site={}&order={}&wait={}",
        site.id,
        kind.word(),
        u8::from(wait)
    );
    // Two starts and a stop fit in: a reload behind a start, an old generation that finishes.
    let start = machine.settings.backend.start_timeout.duration();
    let within = start * 2 + Duration::from_secs(80);
    let unclear = |error: String| CliError::Other(format!("{}: {error}", backend.name));
    let answer = client::ask(&backend.socket, Method::POST, &path, within)
        .map_err(|error| unclear(error.to_string()))?;
    let outcome = serde_json::from_str(&answer.body)
        .map_err(|error| unclear(format!("{}: {error}", answer.status)))?;
    let failure = match &outcome {
        Outcome::Failed { reason, id } => Some(why::failed(backend, site, reason, id)?),
        _ => None,
    };
    Ok(Done {
        backend: backend.name.clone(),
        outcome,
        failure,
    })
}

fn tell(kind: Kind, site: &Site, done: &Done, out: &mut dyn Write) -> Result<(), CliError> {
    let (domain, backend) = (&site.domain, &done.backend);
    match (&done.outcome, kind) {
        (Outcome::Running, Kind::Reload) => {
            writeln!(out, "{backend}: {domain} runs the new code")?;
        }
        (Outcome::Running, _) => writeln!(out, "{backend}: {domain} runs")?,
        (Outcome::Asleep, Kind::Reload) => writeln!(
            out,
            "{backend}: {domain} is asleep; its next visit starts the new code"
        )?,
        (Outcome::Asleep, _) => writeln!(out, "{backend}: {domain} is asleep")?,
        (Outcome::Ordered, _) => writeln!(out, "{backend}: ordered to {} {domain}", kind.word())?,
        (Outcome::NoSuchSite, _) => writeln!(out, "{backend}: there is no site {domain}")?,
        (Outcome::Failed { .. }, _) => {
            let left = match kind {
                Kind::Reload => "the new code does not serve; what ran before goes on",
                _ => "it does not start",
            };
            writeln!(out, "{backend}: {domain}: {left}")?;
            if let Some(failure) = &done.failure {
                failure.tell(out)?;
            }
        }
    }
    Ok(())
}

/// `disable-site`: visitors get the maintenance page; what is under way is finished.
pub(super) fn disable(
    machine: &Machine,
    arguments: &Order,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let site = set_enabled(machine, &arguments.domain, false)?;
    let mut done = Vec::new();
    if !why::backends(machine).is_empty() {
        done = give(machine, Kind::Stop, &site, !arguments.no_wait)?;
    }
    if arguments.format.json {
        let answer = Answer {
            site: site.domain.as_str(),
            order: "disable",
            backends: &done,
        };
        json(out, &answer)?;
    } else {
        writeln!(
            out,
            "{} is disabled: its visitors get the maintenance page",
            site.domain
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `enable-site`: the next visitor wakes it.
pub(super) fn enable(
    machine: &Machine,
    arguments: &Enable,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let site = set_enabled(machine, &arguments.domain, true)?;
    if arguments.format.json {
        let answer = Answer {
            site: site.domain.as_str(),
            order: "enable",
            backends: &[],
        };
        json(out, &answer)?;
    } else {
        writeln!(out, "{} is enabled: its next visit wakes it", site.domain)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn set_enabled(machine: &Machine, domain: &Domain, enabled: bool) -> Result<Site, CliError> {
    machine.edit(Concerns::Table, |edit| {
        let mut site = site_of(edit, domain)?;
        site.enabled = enabled;
        edit.set_site(&site)?;
        Ok(site)
    })
}

/// A daemon that does not answer is not asked again.
pub(super) fn answers(error: &AskError) -> bool {
    !matches!(error, AskError::NoDaemon { .. })
}
