//! What the driver remembers for the operator: how starts went, why processes ended, which requests broke off.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::super::diagnosis::{self, Exit};
use super::super::history::{self, End, History, Incident, Note, Phases, Start};
use super::super::words::{Answer, Generation, Reason};
use super::super::{log_tail, process};
use super::Driver;
use crate::model::SiteId;

/// Requests that break off closer together than this are one incident.
const APART: Duration = Duration::from_millis(100);

/// A generation's start as it goes.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) start: Start,
    /// The end of the phase before.
    mark: Instant,
    /// The Emperor was told to stop it: its end is no surprise.
    pub(super) told: bool,
    detail: Option<String>,
    evidence: Option<Evidence>,
}

/// How processes ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// As the kernel tells it.
    exit: Option<Exit>,
    /// What they wrote last.
    log: String,
    /// The kernel killed one of them because there was no memory left for it.
    no_memory: bool,
}

impl Default for Record {
    fn default() -> Record {
        Record::new(Generation::after(None, 0))
    }
}

impl Record {
    pub(super) fn new(generation: Generation) -> Record {
        Record::of(Start::new(generation, unix_milliseconds()))
    }

    /// Of a generation that an earlier daemon started; what that one has noted is in the history.
    pub(super) fn adopted(directory: &Path, site: SiteId, generation: Generation) -> Record {
        history::start_of(directory, site, generation)
            .map_or_else(|| Record::new(generation), Record::of)
    }

    fn of(start: Start) -> Record {
        Record {
            start,
            mark: Instant::now(),
            told: false,
            detail: None,
            evidence: None,
        }
    }

    /// Closes it, with what is known by now.
    pub(super) fn end(&mut self, reason: Option<Reason>) {
        if let Some(end) = &mut self.start.end {
            if reason == Some(Reason::Crashing) {
                end.become_habit();
            }
            return;
        }
        let Evidence { exit, log, .. } = self.evidence.take().unwrap_or_default();
        self.start.end = Some(End {
            at: unix_milliseconds(),
            reason: reason.map(|reason| reason.word().to_owned()),
            detail: self.detail.take(),
            exit,
            log: log.lines().map(str::to_owned).collect(),
        });
    }
}

impl Driver {
    /// A phase of a start has ended.
    pub(super) fn mark(&mut self, site: SiteId, generation: Generation, set: fn(&mut Phases, f64)) {
        let entry = self.sites.get_mut(&site);
        if let Some(life) = entry.and_then(|entry| entry.lives.get_mut(&generation)) {
            let now = Instant::now();
            let took = now.duration_since(std::mem::replace(&mut life.record.mark, now));
            set(&mut life.record.start.phases, took.as_secs_f64() * 1000.0);
        }
    }

    /// More than a word about what went wrong.
    pub(super) fn detail(&mut self, site: SiteId, generation: Generation, detail: String) {
        let entry = self.sites.get_mut(&site);
        if let Some(life) = entry.and_then(|entry| entry.lives.get_mut(&generation)) {
            life.record.detail = Some(detail);
        }
    }

    /// New code has not passed its probe. Closed at once: whoever ordered it asks why before its processes have ended.
    pub(super) fn probe_failed(&mut self, site: SiteId, generation: Generation, detail: String) {
        let evidence = self.examine(site, generation);
        let entry = self.sites.get_mut(&site);
        if let Some(life) = entry.and_then(|entry| entry.lives.get_mut(&generation)) {
            life.record.detail = Some(detail);
            life.record.evidence = Some(evidence);
            life.record.end(Some(Reason::ProbeFailed));
        }
    }

    /// If it serves now, that is worth noting.
    pub(super) fn served(&mut self, site: SiteId, generation: Generation) {
        let Some(entry) = self.sites.get_mut(&site) else {
            return;
        };
        if entry.machine.serving() == Some(generation)
            && let Some(life) = entry.lives.get_mut(&generation)
            && !std::mem::replace(&mut life.record.start.served, true)
        {
            let start = life.record.start.clone();
            self.tell(Note::Start(site, Box::new(start)));
        }
    }

    pub(super) fn note(&self, site: SiteId, record: &Record) {
        self.tell(Note::Start(site, Box::new(record.start.clone())));
    }

    fn tell(&self, note: Note) {
        // The historian ends after the driver.
        let _ = self.notes.send(note);
    }

    /// How a generation's processes ended, unless they were told to. Looked at right here: until the machine knows of the end, it
    /// takes a request that broke off with them for one that the running site failed.
    fn examine(&self, site: SiteId, generation: Generation) -> Evidence {
        let life = self
            .sites
            .get(&site)
            .and_then(|entry| entry.lives.get(&generation));
        let Some(life) = life.filter(|life| !life.record.told) else {
            return Evidence::default();
        };
        let log = life.record.start.log.as_ref();
        Evidence {
            no_memory: self.killed_for_memory(site, generation) > life.killed_for_memory,
            exit: life
                .ended
                .map(Exit::of_code)
                .or_else(|| life.process.as_deref().and_then(process::exit)),
            log: log
                .and_then(|(log, from)| log_tail::since(log, *from).ok())
                .unwrap_or_default(),
        }
    }

    /// Takes the evidence down; answers what it points to.
    pub(super) fn settle(&mut self, site: SiteId, generation: Generation) -> Reason {
        let evidence = self.examine(site, generation);
        let cause = match evidence.no_memory {
            true => Reason::OutOfMemory,
            false => diagnosis::of_end(evidence.exit, &evidence.log),
        };
        let entry = self.sites.get_mut(&site);
        let Some(life) = entry.and_then(|entry| entry.lives.get_mut(&generation)) else {
            return cause;
        };
        let record = &mut life.record;
        let complained = record.detail.is_some() && record.start.phases.spawn.is_none();
        let cause = match cause {
            Reason::TooManyProcesses => cause,
            _ if complained => Reason::NotLaunched,
            cause => cause,
        };
        if !record.told {
            let exit = evidence
                .exit
                .map(|exit| exit.to_string())
                .unwrap_or_default();
            tracing::warn!(%site, %generation, exit, reason = cause.word(), "the site's processes have ended");
            record.evidence = Some(evidence);
            // A crash closes it here: the next generation takes the socket over.
            if record.start.served {
                record.end(Some(cause));
            }
        }
        cause
    }

    /// What an error page calls what it shows.
    pub(super) fn id_of(&mut self, site: SiteId, answer: Answer) -> Option<String> {
        match answer {
            Answer::Unavailable(failure) => Some(failure.id(site)),
            Answer::Real => Some(self.incident(site)),
            Answer::Ready | Answer::NoSuchSite | Answer::Elsewhere | Answer::Asleep => None,
        }
    }

    /// A request has broken off in the site.
    fn incident(&mut self, site: SiteId) -> String {
        let (now, unix) = (self.now(), unix_milliseconds());
        let entry = self.entry(site);
        if let Some((at, id)) = &entry.incident
            && at.elapsed() < APART
        {
            return id.clone();
        }
        let serving = entry.machine.serving();
        let generation = serving
            .or(entry.machine.last())
            .unwrap_or_else(|| Generation::after(None, now.unix));
        let life = entry.lives.get(&generation);
        let log = life.and_then(|life| life.record.start.log.clone());
        let id = format!("{site}-{generation}-{unix}");
        entry.incident = Some((Instant::now(), id.clone()));
        let killed = self.killed_for_memory(site, generation);
        let reason = match serving {
            Some(_) if self.has_lost_to_memory(site, generation, killed) => Reason::OutOfMemory,
            Some(_) => Reason::SiteFailed,
            None => Reason::SiteStopped,
        };
        self.tell(Note::Incident(
            site,
            Incident {
                id: id.clone(),
                at: unix,
                reason: reason.word().to_owned(),
                log: log.map(|(log, _)| (log.clone(), log_tail::length(&log))),
            },
        ));
        id
    }

    pub(super) fn killed_for_memory(&self, site: SiteId, generation: Generation) -> u64 {
        let groups = self.place.walls.groups.as_ref();
        groups.map_or(0, |groups| {
            groups.killed_for_memory(&format!("{site}@{generation}"))
        })
    }

    /// Whether there are more now than when it was asked last.
    fn has_lost_to_memory(&mut self, site: SiteId, generation: Generation, killed: u64) -> bool {
        let entry = self.sites.get_mut(&site);
        entry
            .and_then(|entry| entry.lives.get_mut(&generation))
            .is_some_and(|life| std::mem::replace(&mut life.killed_for_memory, killed) < killed)
    }

    pub(super) fn remember(&self, site: SiteId, answer: oneshot::Sender<History>) {
        let living = self.sites.get(&site).map(|entry| {
            let failed = entry.machine.failure();
            let lives = entry.lives.iter().map(|(generation, life)| {
                let mut record = life.record.clone();
                // Its visitors know already; that its processes end takes a moment.
                if let Some(failure) = failed.filter(|failure| failure.generation == *generation) {
                    record
                        .evidence
                        .get_or_insert_with(|| self.examine(site, *generation));
                    record.end(Some(failure.reason));
                }
                record.start
            });
            lives.collect()
        });
        self.tell(Note::Asked(site, living.unwrap_or_default(), answer));
    }
}

fn unix_milliseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
