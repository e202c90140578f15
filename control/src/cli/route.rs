//! `route HOST`: where a request for a host goes, by the same table and the same function as the nginx module's.
use super::machine::Machine;
use super::output::{Table, facts, json, json_line, or_empty};
use super::{CliError, Format};
use crate::model::Domain;
use crate::observed::Observed;
use routing::health::Heed;
use routing::rendezvous::key_hash;
use routing::{Backends, Host, Placement, State};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use table::{BackendRecord, Reader, SiteRecord, TableError, View};

/// Arguments of `route`.
#[derive(Debug, clap::Args)]
pub struct Route {
    /// A host as a browser sends it, with or without port; - reads many from standard input, one on each line, and
    /// answers each with a line of JSON.
    #[arg(value_name = "HOST")]
    host: String,
    /// Also show every backend in the site's order, and why it gets the site's requests or not.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    format: Format,
}

/// Where a request goes; what is not so is null.
#[derive(Debug, Default, Serialize)]
struct Answer {
    host: String,
    /// The primary domain of the site.
    site: Option<String>,
    id: Option<u64>,
    enabled: Option<bool>,
    socket: Option<String>,
    /// None if no backend may be given a request.
    backend: Option<String>,
    address: Option<String>,
    /// Why it goes nowhere.
    error: Option<String>,
    /// Every backend, in the order in which they would be asked; only if that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<Candidate>>,
}

/// A backend, and what a site's requests have to do with it.
#[derive(Debug, Serialize)]
struct Candidate {
    backend: String,
    address: String,
    state: String,
    /// 1 is asked first; none if it is never asked.
    rank: Option<usize>,
    why: &'static str,
    /// `in-service`, `returning`, `on-trial`, `ejected`, `down`; none if nobody here can know.
    health: Option<&'static str>,
    /// What health has to do with it, if it has.
    health_why: Option<String>,
    /// Whether a request that came now would be sent there.
    now: bool,
}

/// Answers; the exit code says of a single host whether its requests go anywhere.
pub(super) fn run(
    machine: &Machine,
    arguments: Route,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let router = Router::new(machine)?;
    if arguments.host == "-" {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            let host = line.strip_suffix(b"\n").unwrap_or(&line);
            json_line(out, &router.route(host, arguments.explain)?)?;
            line.clear();
        }
        return Ok(ExitCode::SUCCESS);
    }
    // As typed by a person: other scripts become A-labels before anything else.
    let host = match arguments.host.is_ascii() {
        true => arguments.host,
        false => crate::model::parse_domain(&arguments.host)?.to_string(),
    };
    let answer = router.route(host.as_bytes(), arguments.explain)?;
    if arguments.format.json {
        json(out, &answer)?;
    } else if let Some(site) = &answer.site {
        let state = if answer.enabled == Some(true) {
            "enabled"
        } else {
            "disabled"
        };
        facts(
            out,
            &[
                ("site", site.clone()),
                ("id", or_empty(answer.id)),
                ("state", state.to_owned()),
                ("backend", or_empty(answer.backend.as_ref())),
                ("address", or_empty(answer.address.as_ref())),
                ("socket", or_empty(answer.socket.as_ref())),
            ],
        )?;
        if let Some(candidates) = &answer.candidates {
            writeln!(out)?;
            print(candidates, out)?;
        }
    }
    match answer.error {
        Some(error) if !arguments.format.json => {
            Err(CliError::Other(format!("{}: {error}", answer.host)))
        }
        Some(_) => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The backend that a site's visitors are sent to.
pub(super) fn backend_of(machine: &Machine, domain: &Domain) -> Result<Option<String>, CliError> {
    let router = Router::new(machine)?;
    Ok(router.route(domain.as_str().as_bytes(), false)?.backend)
}

fn print(candidates: &[Candidate], out: &mut dyn Write) -> Result<(), CliError> {
    let mut table = Table::new(&["RANK", "BACKEND", "ADDRESS", "STATE", "HEALTH", "WHY"]);
    for one in candidates {
        let health = one.health_why.as_ref();
        table.row([
            or_empty(one.rank),
            one.backend.clone(),
            one.address.clone(),
            one.state.clone(),
            or_empty(one.health),
            health.map_or_else(
                || one.why.to_owned(),
                |health| format!("{}; {health}", one.why),
            ),
        ]);
    }
    table.print(out)?;
    // Only where health says otherwise than placement.
    if let Some(now) = candidates.iter().find(|one| one.now && one.rank != Some(1)) {
        writeln!(out, "\nrequests go to {} now", now.backend)?;
    }
    Ok(())
}

/// Knows the table as one worker of nginx does.
struct Router<'a> {
    machine: &'a Machine,
    reader: Reader,
    backends: Vec<BackendRecord>,
    candidates: Backends,
}

impl<'a> Router<'a> {
    fn new(machine: &'a Machine) -> Result<Self, CliError> {
        let reader = Reader::new(machine.settings.paths().table());
        let backends = reader.read(View::backends)??;
        let candidates = Backends::new(backends.iter().map(BackendRecord::candidate));
        Ok(Self {
            machine,
            reader,
            backends,
            candidates,
        })
    }

    fn route(&self, raw: &[u8], explain: bool) -> Result<Answer, CliError> {
        let host = String::from_utf8_lossy(raw).into_owned();
        let nowhere = |error: String| {
            Ok(Answer {
                host: host.clone(),
                error: Some(error),
                ..Answer::default()
            })
        };
        let domain = match routing::host::parse(raw) {
            Ok(Host::Domain(domain)) => domain,
            Ok(Host::Ip(_)) => return nowhere("an address is the host of no site".to_owned()),
            Err(error) => return nowhere(error.to_string()),
        };
        let looked = self
            .reader
            .read(|view| Ok::<_, TableError>((view.site(&domain)?, view.header().placement)))?;
        let (Some(site), placement) = looked? else {
            return nowhere("no site has this host".to_owned());
        };
        let pin = site
            .pin
            .and_then(|id| self.backends.iter().position(|backend| backend.id == id));
        let chosen = self
            .candidates
            .choose(site.primary.as_bytes(), pin, &placement, |_| true);
        let backend = chosen.and_then(|index| self.backends.get(index));
        let error = backend.is_none().then(|| {
            "no backend may be given a request; `paasctl list-backends` shows their states"
                .to_owned()
        });
        let paths = self.machine.settings.paths();
        let socket = paths.site_socket(site.id, &site.primary);
        Ok(Answer {
            host,
            site: Some(site.primary.to_string()),
            id: Some(site.id.get()),
            enabled: Some(site.enabled),
            socket: Some(socket.display().to_string()),
            backend: backend.map(|backend| backend.name.clone()),
            address: backend.map(|backend| backend.address.to_string()),
            error,
            candidates: explain.then(|| self.explain(&site, pin, &placement)),
        })
    }

    /// What would be asked one after the other if each failed, then what is never asked.
    fn explain(
        &self,
        site: &SiteRecord,
        pin: Option<usize>,
        placement: &Placement,
    ) -> Vec<Candidate> {
        let key = site.primary.as_bytes();
        let order = self.candidates.preference(key, pin, placement);
        let named = self.candidates.named(key, placement);
        let why = |index: usize, backend: &BackendRecord| match backend.state {
            State::Disabled => "disabled: never asked",
            State::Draining if Some(index) == pin => {
                "the site is pinned to it, but it is draining: it does not wake it"
            }
            _ if Some(index) == pin => "the site is pinned to it",
            State::Draining => {
                "draining: serves the site while it is awake there, wakes it no more"
            }
            State::Active if named == Some(index) => "its number is the hash modulo the backends",
            State::Active => "in the site's rendezvous order",
        };
        let rank = |index: usize| order.iter().position(|ranked| *ranked == index);
        let observed = Observed::of(&self.machine.settings);
        let ids = self.backends.iter().map(|one| (one.id, one.state));
        let is_panic = observed.is_panic(ids);
        let hash = key_hash(key);
        let allows = |heed: &Heed, index: usize| {
            self.backends.get(index).is_some_and(|one| {
                heed.allows(observed.now_of(one.id), hash, observed.now, &observed.eject)
            })
        };
        let now = Heed::order(is_panic).iter().find_map(|heed| {
            let usable = |index| allows(heed, index);
            self.candidates.choose(key, pin, placement, usable)
        });
        let health_why = |index: usize, backend: &BackendRecord| {
            let probes = observed
                .probed(backend.id)
                .and_then(|known| known.why.clone());
            let words = match observed.word(backend.id)? {
                "down" => format!("fails its probes: {}", probes.unwrap_or_default()),
                "ejected" => {
                    "its requests failed: it gets none, and is tried again soon".to_owned()
                }
                "on-trial" => {
                    "its requests failed: one is finding out whether it serves again".to_owned()
                }
                "returning" if allows(&Heed::All, index) => {
                    "it has come back, and has this site already".to_owned()
                }
                "returning" => "it has come back, and this site is not its own yet".to_owned(),
                _ => return None,
            };
            Some(match is_panic {
                true => format!("{words}; but more than half look so, and health is ignored"),
                false => words,
            })
        };
        let mut candidates: Vec<_> = self
            .backends
            .iter()
            .enumerate()
            .map(|(index, backend)| Candidate {
                health: observed.word(backend.id),
                health_why: health_why(index, backend),
                now: now == Some(index),
                backend: backend.name.clone(),
                address: backend.address.to_string(),
                state: backend.state.to_string(),
                rank: rank(index).map(|rank| rank + 1),
                why: why(index, backend),
            })
            .collect();
        candidates.sort_by_key(|one| one.rank.unwrap_or(usize::MAX));
        candidates
    }
}
