//! `why SITE|ID`: what keeps a site, or kept a request, from being served; what to do; how its last starts went.
use super::domain::site_of;
use super::machine::{Machine, note};
use super::output::{Table, facts, json, or_empty};
use super::{CliError, Format, life};
use crate::client;
use crate::initialize::diagnosis;
use crate::initialize::history::{History, Incident, Start};
use crate::initialize::log_tail;
use crate::initialize::words::Reason;
use crate::model::{Site, SiteId, parse_domain};
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// A daemon answers such questions at once.
const WITHIN: Duration = Duration::from_secs(10);
/// uWSGI says what happened to a request before or after nginx notices: so many bytes of its log before that are looked at.
const BEFORE: u64 = 4096;

/// Arguments of `why`.
#[derive(Debug, clap::Args)]
pub struct Why {
    /// Any domain of a site, or the id from an error page.
    #[arg(value_name = "SITE|ID")]
    what: String,
    #[command(flatten)]
    format: Format,
}

/// A backend whose daemon answers here.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) socket: PathBuf,
    sites: Vec<SiteState>,
}

#[derive(Debug, Deserialize)]
struct Status {
    name: String,
    backend: bool,
    sites: Vec<SiteState>,
}

#[derive(Clone, Debug, Deserialize)]
struct SiteState {
    id: u64,
    state: String,
    reason: Option<String>,
    generation: Option<String>,
}

/// The backends whose daemons answer on this machine.
pub(super) fn backends(machine: &Machine) -> Vec<Backend> {
    let mut backends = Vec::new();
    for socket in client::daemons(&machine.settings) {
        match client::ask(&socket, Method::GET, "/status", WITHIN) {
            Ok(answer) => {
                if let Ok(status) = serde_json::from_str::<Status>(&answer.body)
                    && status.backend
                {
                    backends.push(Backend {
                        name: status.name,
                        socket,
                        sites: status.sites,
                    });
                }
            }
            Err(error) if life::answers(&error) => note(&error.to_string()),
            Err(_) => {}
        }
    }
    backends
}

/// What is said of a failure.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    /// On its error page.
    id: String,
    reason: String,
    what: String,
    #[serde(rename = "do")]
    advice: String,
    detail: Option<String>,
    exit: Option<String>,
    log_file: Option<PathBuf>,
    log: Vec<String>,
}

impl Failed {
    fn new(id: &str, reason: &str, start: Option<&Start>) -> Failed {
        let known = Reason::of_word(reason);
        let end = start.and_then(|start| start.end.as_ref());
        let file = start.and_then(|start| start.log.clone());
        // What has not ended yet (it hangs, or a probe failed) has only its log.
        let log = match end {
            Some(end) if !end.log.is_empty() => end.log.clone(),
            _ => file
                .as_ref()
                .map_or_else(Vec::new, |(log, from)| lines(log, *from)),
        };
        Failed {
            id: id.to_owned(),
            reason: reason.to_owned(),
            what: known.map_or("something unknown", Reason::what).to_owned(),
            advice: known.map_or("", Reason::advice).to_owned(),
            detail: end.and_then(|end| end.detail.clone()),
            exit: end.and_then(|end| end.exit).map(|exit| exit.to_string()),
            log_file: file.map(|(log, _)| log),
            log,
        }
    }

    fn of_incident(incident: &Incident) -> Failed {
        let log = incident.log.as_ref().map_or_else(Vec::new, |(log, from)| {
            lines(log, from.saturating_sub(BEFORE))
        });
        // What the daemon could not know stands in the log.
        let known =
            Reason::of_word(&incident.reason).filter(|reason| *reason != Reason::SiteFailed);
        let reason = known.unwrap_or_else(|| diagnosis::of_request(&log.join("\n")));
        Failed {
            id: incident.id.clone(),
            reason: reason.word().to_owned(),
            what: reason.what().to_owned(),
            advice: reason.advice().to_owned(),
            detail: None,
            exit: None,
            log_file: incident.log.as_ref().map(|(log, _)| log.clone()),
            log,
        }
    }

    pub(super) fn tell(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let mut known = vec![
            ("id", self.id.clone()),
            ("reason", format!("{}: {}", self.reason, self.what)),
            ("do", self.advice.clone()),
        ];
        for (name, text) in [("detail", &self.detail), ("exit", &self.exit)] {
            if let Some(text) = text {
                known.push((name, text.trim_end().to_owned()));
            }
        }
        facts(out, &known)?;
        if let Some(file) = &self.log_file {
            writeln!(out, "log {}:", file.display())?;
            for line in &self.log {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }
}

fn lines(log: &std::path::Path, from: u64) -> Vec<String> {
    match log_tail::since(log, from) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(problem) => vec![format!("({}: {problem})", log.display())],
    }
}

fn history(backend: &Backend, site: SiteId) -> Result<History, CliError> {
    let path = format!("/history?site={site}");
    let answer = client::ask(&backend.socket, Method::GET, &path, WITHIN)
        .map_err(|error| CliError::Other(error.to_string()))?;
    serde_json::from_str(&answer.body)
        .map_err(|error| CliError::Other(format!("{}: {}: {error}", backend.name, answer.status)))
}

/// What is known of the failure that ended an order.
pub(super) fn failed(
    backend: &Backend,
    site: &Site,
    reason: &str,
    id: &str,
) -> Result<Failed, CliError> {
    let history = history(backend, site.id)?;
    Ok(Failed::new(id, reason, start_of(&history, id)))
}

/// The start that an error page's id names: `<site id>-<generation>`, perhaps with more behind it.
fn start_of<'h>(history: &'h History, id: &str) -> Option<&'h Start> {
    let generation = id.split('-').nth(1)?;
    history
        .starts
        .iter()
        .find(|start| start.generation == generation)
}

/// What one backend knows.
#[derive(Serialize)]
struct Known {
    backend: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failed>,
    starts: Vec<Start>,
    incidents: Vec<Incident>,
}

#[derive(Serialize)]
struct Answer {
    site: String,
    id: u64,
    enabled: bool,
    backends: Vec<Known>,
}

pub(super) fn why(machine: &Machine, arguments: &Why, out: &mut dyn Write) -> Result<(), CliError> {
    let (site, id) = find(machine, &arguments.what)?;
    let backends = backends(machine);
    if backends.is_empty() {
        return Err(CliError::Other(format!(
            "no daemon of a backend answers on this machine; run this command on the backend that `paasctl route {}` names",
            site.domain
        )));
    }
    let mut answer = Answer {
        site: site.domain.to_string(),
        id: site.id.get(),
        enabled: site.enabled,
        backends: Vec::new(),
    };
    for backend in &backends {
        let known = know(backend, &site, id.as_deref())?;
        // A backend that never ran it has nothing to say.
        if backends.len() == 1 || !known.starts.is_empty() || known.failure.is_some() {
            answer.backends.push(known);
        }
    }
    if let Some(id) = &id
        && answer.backends.iter().all(|known| known.failure.is_none())
    {
        return Err(CliError::Other(format!(
            "nothing is known of {id} any more: the last ten starts and broken requests of each site are kept, on the backend where they were"
        )));
    }
    if arguments.format.json {
        return json(out, &answer);
    }
    tell(&answer, out)
}

/// The site, and the id if it is one.
fn find(machine: &Machine, what: &str) -> Result<(Site, Option<String>), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let mut parts = what.split('-');
    let numbers = parts
        .clone()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if numbers && parts.clone().count() >= 2 {
        let id = parts
            .next()
            .and_then(|id| id.parse().ok())
            .and_then(SiteId::new);
        let site = match id {
            Some(id) => view.site(id)?,
            None => None,
        };
        let site = site.ok_or_else(|| {
            CliError::Other(format!(
                "no site has to do with the id {what}: it begins with a site's number, and there is none of that number (any more)"
            ))
        })?;
        return Ok((site, Some(what.to_owned())));
    }
    let domain = parse_domain(what)?;
    Ok((site_of(&*view, &domain)?, None))
}

fn know(backend: &Backend, site: &Site, id: Option<&str>) -> Result<Known, CliError> {
    let history = history(backend, site.id)?;
    let state = backend
        .sites
        .iter()
        .find(|state| state.id == site.id.get())
        .cloned();
    let failure = match id {
        Some(id) => of_id(&history, id),
        None => latest(&history, site, state.as_ref()),
    };
    Ok(Known {
        backend: backend.name.clone(),
        state: state.map_or_else(|| "asleep".to_owned(), |state| state.state),
        failure,
        starts: history.starts.into(),
        incidents: history.incidents.into(),
    })
}

fn of_id(history: &History, id: &str) -> Option<Failed> {
    let incident = history.incidents.iter().find(|incident| incident.id == id);
    if let Some(incident) = incident {
        return Some(Failed::of_incident(incident));
    }
    let start = start_of(history, id)?;
    let reason = start.end.as_ref().and_then(|end| end.reason.as_deref());
    Some(Failed::new(
        id,
        reason.unwrap_or("start-failed"),
        Some(start),
    ))
}

/// What went wrong last: with the site as it is now, or before.
fn latest(history: &History, site: &Site, state: Option<&SiteState>) -> Option<Failed> {
    if let Some(SiteState {
        reason: Some(reason),
        generation: Some(generation),
        ..
    }) = state
    {
        let id = format!("{}-{generation}", site.id);
        return Some(Failed::new(&id, reason, start_of(history, &id)));
    }
    let start = history
        .starts
        .iter()
        .rev()
        .find(|start| start.end.as_ref().is_some_and(|end| end.reason.is_some()));
    let incident = history.incidents.back();
    let ended = start.and_then(|start| start.end.as_ref());
    match (ended, incident) {
        (ended, Some(incident)) if ended.is_none_or(|end| end.at < incident.at) => {
            Some(Failed::of_incident(incident))
        }
        (Some(end), _) => {
            let start = start?;
            let id = format!("{}-{}", site.id, start.generation);
            Some(Failed::new(&id, end.reason.as_deref()?, Some(start)))
        }
        _ => None,
    }
}

fn tell(answer: &Answer, out: &mut dyn Write) -> Result<(), CliError> {
    let state = if answer.enabled {
        "enabled"
    } else {
        "disabled"
    };
    writeln!(out, "{} (id {}) is {state}", answer.site, answer.id)?;
    for known in &answer.backends {
        writeln!(out, "\nbackend {}: {}", known.backend, known.state)?;
        match &known.failure {
            Some(failure) => failure.tell(out)?,
            None => writeln!(out, "nothing has gone wrong lately")?,
        }
        if known.starts.is_empty() {
            continue;
        }
        writeln!(out, "\nlast starts (times in ms):")?;
        let mut table = Table::new(&[
            "GENERATION",
            "WAIT",
            "PREPARE",
            "LAUNCH",
            "SPAWN",
            "IMPORT",
            "ACCEPT",
            "PROBE",
            "SERVED",
            "END",
            "EXIT",
        ]);
        for start in known.starts.iter().rev() {
            let ms = |time: Option<f64>| or_empty(time.map(|time| format!("{time:.1}")));
            let end = start.end.as_ref();
            let phases = start.phases;
            table.row([
                start.generation.clone(),
                ms(phases.wait),
                ms(phases.prepare),
                ms(phases.launch),
                ms(phases.spawn),
                ms(phases.import),
                ms(phases.accept),
                ms(phases.probe),
                if start.served { "yes" } else { "no" }.to_owned(),
                end.map_or_else(String::new, |end| {
                    end.reason.clone().unwrap_or_else(|| "stopped".to_owned())
                }),
                or_empty(end.and_then(|end| end.exit)),
            ]);
        }
        table.print(out)?;
    }
    Ok(())
}
