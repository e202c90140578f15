//! What the driver does for each action.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit, pidfd_send_signal};

use tokio::time::timeout;

use super::super::held::{Held, remove_if_there};
use super::super::launching::Grant;
use super::super::machine::Shown;
use super::super::notice::{Notice, Notices};
use super::super::prepare::{Prepared, Unprepared, prepare};
use super::super::words::{Action, Deadline, Event, Failure, Generation, Reason, Socket};
use super::super::{connections, probe, reject};
use super::{Driver, Life, Message, Record, Told, report};
use crate::files;
use crate::model::{Protocol, SiteId};
use crate::watch::Readable;

/// How long a site that nobody needs waits for its connections to end.
const DOZE: Duration = Duration::from_secs(5);

impl Driver {
    /// Does one thing; answers what came of it if that is known at once.
    pub(super) fn act(&mut self, site: SiteId, action: Action) -> Option<Event> {
        match action {
            Action::Answer(visitor, answer) => {
                let id = self.id_of(site, answer);
                // nginx may have given up waiting.
                let (_, waiting) = self.waiting.remove(&visitor)?;
                let _ = waiting.send(Told { answer, id });
            }
            Action::Look(visitor) => {
                let generation = self.entry(site).machine.serving()?;
                let held = self.held(site, generation)?;
                return Some(Event::Looked(visitor, held.look()));
            }
            Action::Inspect(visitor) => return self.inspect(site, visitor),
            Action::Prepare(generation, socket) => self.prepare(site, generation, socket),
            Action::Start(generation) => return self.start(site, generation),
            Action::Grant(generation) => {
                self.mark(site, generation, |phases, took| phases.launch = Some(took));
                self.grant(site, generation);
            }
            Action::Refuse(_) => drop(self.entry(site).question.take()),
            Action::Probe(generation) => self.probe(site, generation),
            Action::Publish(generation) => {
                tracing::info!(%site, %generation, "ready");
                self.entry(site).failed = false;
                self.entry(site).premises = None;
                let life = self.life(site, generation);
                life.since = Some(activity::now());
                life.stop_draining();
                self.counters.wake();
                self.rename(
                    site,
                    generation,
                    Held::publish,
                    "give the site's name to its socket",
                );
            }
            Action::Withdraw(generation) => {
                self.rename(
                    site,
                    generation,
                    Held::withdraw,
                    "take the site's name from its socket",
                );
            }
            Action::Drain(generation) => self.drain(site, generation),
            Action::Forget(generation) => self.forget(site, generation),
            Action::Kill(generation) => {
                tracing::warn!(%site, %generation, "ending the site's processes by force");
                if let Some(process) = &self.life(site, generation).process {
                    // Gone already is as good.
                    let _ = pidfd_send_signal(process.as_ref(), Signal::KILL);
                }
            }
            Action::Recount(generation) => {
                return Some(Event::Exited {
                    generation,
                    queued: self.held(site, generation).is_some_and(Held::is_queued),
                    emperor: self.emperor_lives(),
                    cause: Reason::Restarting,
                });
            }
            Action::Release(generation, failure) => self.release(site, generation, failure),
            Action::Remind(generation, deadline, after) => {
                let reports = self.reports.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    report(&reports, Message::Passed(site, generation, deadline)).await;
                });
            }
        }
        None
    }

    fn prepare(&mut self, site: SiteId, generation: Generation, socket: Socket) {
        if let Socket::Of(earlier) = socket {
            // Taken over right now: whatever becomes of this start, the socket is its own to release.
            if let Some(life) = self.entry(site).lives.remove(&earlier) {
                self.note(site, &life.record);
                self.life(site, generation).held = life.held;
            }
        }
        self.life(site, generation).record = Record::new(generation);
        self.entry(site).deserted = false;
        self.ask(site, generation);
    }

    /// The machine bears one more start: this one.
    pub(super) fn begin(&mut self, site: SiteId, generation: Generation) {
        tracing::info!(%site, %generation, "starting");
        self.mark(site, generation, |phases, took| phases.wait = Some(took));
        let fresh = self.held(site, generation).is_none();
        let (place, registry, reports) = (
            self.place.clone(),
            self.registry.clone(),
            self.reports.clone(),
        );
        tokio::task::spawn_blocking(move || {
            let result = prepare(&place, &registry, site, generation, fresh);
            // Only a driver that has ended does not listen.
            let _ = reports.blocking_send(Message::Prepared(site, generation, Box::new(result)));
        });
    }

    pub(super) fn prepared(
        &mut self,
        site: SiteId,
        generation: Generation,
        result: Result<Prepared, Unprepared>,
    ) {
        let wanted = self.entry(site).machine.is_preparing(generation);
        match result {
            Ok(mut prepared) if wanted => {
                let life = self.life(site, generation);
                life.held = prepared.held.take().or(life.held.take());
                life.record.start.log = Some((prepared.log.clone(), prepared.log_from));
                life.probe = Some(prepared.probe.clone());
                life.idle = Some(prepared.idle);
                life.prepared = Some(prepared);
                self.mark(site, generation, |phases, took| phases.prepare = Some(took));
                if let Some(held) = self.held(site, generation) {
                    mind_the_limit(held);
                }
                self.listen(site, generation);
                self.step(site, Event::Prepared(generation));
            }
            Ok(prepared) => {
                if let Some(held) = prepared.held {
                    held.discard();
                }
                self.remove(&self.place.notice(site, generation));
                self.step(site, Event::Prepared(generation));
            }
            Err(problem) => {
                tracing::warn!(%site, %generation, %problem, "cannot start the site");
                if wanted {
                    self.detail(site, generation, problem.to_string());
                }
                self.step(site, Event::NotPrepared(generation, problem.why()));
            }
        }
    }

    fn start(&mut self, site: SiteId, generation: Generation) -> Option<Event> {
        let file = self.place.vassal(site, generation);
        let life = self.sites.get(&site)?.lives.get(&generation)?;
        let prepared = life.prepared.as_ref()?;
        if !file.exists()
            && let Err(problem) = files::write_briefly(&file, prepared.config.as_bytes(), 0o600)
        {
            tracing::error!(%site, file = %file.display(), %problem, "cannot write a vassal file");
            return Some(Event::Passed {
                generation,
                deadline: Deadline::Start,
                emperor: false,
            });
        }
        self.alarm.ring();
        None
    }

    fn grant(&mut self, site: SiteId, generation: Generation) {
        let entry = self.entry(site);
        let life = entry.lives.entry(generation).or_default();
        let (Some(question), Some(prepared), Some(held)) =
            (entry.question.take(), &life.prepared, &life.held)
        else {
            return;
        };
        match held.listener().try_clone_to_owned() {
            Ok(listener) => {
                let order = prepared.order.clone();
                // A launcher that has died meanwhile is noticed by its handle.
                let _ = question.answer.send(Grant { order, listener });
                self.watch(site, generation, question.process);
            }
            Err(problem) => {
                tracing::error!(%site, %problem, "cannot hand a socket on; raise the daemon's limit of open files");
                self.watch(site, generation, question.process);
            }
        }
    }

    /// Reports the end of the site's processes.
    pub(super) fn watch(&mut self, site: SiteId, generation: Generation, process: OwnedFd) {
        let process = match Readable::new(process) {
            Ok(process) => Arc::new(process),
            Err(problem) => {
                tracing::error!(%site, %problem, "cannot watch a process");
                return;
            }
        };
        self.life(site, generation).process = Some(process.clone());
        let reports = self.reports.clone();
        tokio::spawn(async move {
            if process.ready().await.is_ok() {
                report(&reports, Message::Exited(site, generation)).await;
            }
        });
    }

    /// Reports what the site's uWSGI says. A command says nothing: its first answer tells that it serves.
    pub(super) fn listen(&mut self, site: SiteId, generation: Generation) {
        let reports = self.reports.clone();
        let life = self.life(site, generation);
        if let (Some(held), Some(request)) = (&life.held, &life.probe)
            && request.protocol == Protocol::Http
        {
            let (socket, request) = (held.name().to_owned(), request.clone());
            let task = tokio::spawn(async move {
                probe::until_served(&socket, &request).await;
                report(&reports, Message::Noticed(site, generation, Notice::Ready)).await;
            });
            if let Some(earlier) = life.listening.replace(task) {
                earlier.abort();
            }
            return;
        }
        let mut notices = match Notices::open(&self.place.notice(site, generation)) {
            Ok(notices) => notices,
            Err(problem) => {
                tracing::error!(%site, %generation, %problem, "cannot open a notice pipe: the site will seem not to start");
                return;
            }
        };
        let task = tokio::spawn(async move {
            while let Ok(Some(notice)) = notices.next().await {
                report(&reports, Message::Noticed(site, generation, notice)).await;
            }
        });
        if let Some(earlier) = self.life(site, generation).listening.replace(task) {
            earlier.abort();
        }
    }

    /// Reports what comes of a request to the new application.
    fn probe(&mut self, site: SiteId, generation: Generation) {
        let Some(life) = self
            .sites
            .get(&site)
            .and_then(|entry| entry.lives.get(&generation))
        else {
            return;
        };
        let (Some(held), Some(request)) = (&life.held, &life.probe) else {
            return;
        };
        let (socket, request) = (held.own_name().to_owned(), request.clone());
        let reports = self.reports.clone();
        tokio::spawn(async move {
            let outcome = probe::send(&socket, &request).await;
            report(&reports, Message::Probed(site, generation, outcome)).await;
        });
    }

    /// Reports when nothing is connected to the generation's socket any more. The kernel announces no such thing: it is asked,
    /// seldom enough.
    fn drain(&mut self, site: SiteId, generation: Generation) {
        let Some(held) = self.held(site, generation) else {
            return;
        };
        let (listener, name) = (
            held.listener().try_clone_to_owned(),
            held.own_name().to_owned(),
        );
        let listener = match listener {
            Ok(listener) => listener,
            Err(problem) => {
                tracing::error!(%site, %problem, "cannot watch a socket's connections; raise the daemon's limit of open files");
                return;
            }
        };
        let dozes = self.entry(site).machine.is_falling_asleep();
        let reports = self.reports.clone();
        let life = self.life(site, generation);
        life.stop_draining();
        let number = life.drains;
        life.draining = Some(tokio::spawn(async move {
            let none_left = connections::none_left(listener, &name);
            if dozes {
                // What is left after that belongs to nobody who lives, or nginx's counters say otherwise.
                let _ = timeout(DOZE, none_left).await;
            } else {
                none_left.await;
            }
            report(&reports, Message::Drained(site, generation, number)).await;
        }));
    }

    fn rename(
        &mut self,
        site: SiteId,
        generation: Generation,
        rename: fn(&Held) -> io::Result<()>,
        doing: &str,
    ) {
        if let Some(Err(problem)) = self.held(site, generation).map(rename) {
            tracing::error!(%site, %problem, "cannot {doing}");
        }
    }

    fn forget(&mut self, site: SiteId, generation: Generation) {
        self.remove(&self.place.vassal(site, generation));
        self.remove(&self.place.notice(site, generation));
        let life = self.life(site, generation);
        life.record.told = true;
        if let Some(listening) = life.listening.take() {
            listening.abort();
        }
        self.alarm.ring();
    }

    fn release(&mut self, site: SiteId, generation: Generation, failure: Option<Failure>) {
        let entry = self.entry(site);
        entry.failed |= failure.is_some();
        let Some(mut life) = entry.lives.remove(&generation) else {
            return;
        };
        if entry.lives.is_empty() && failure.is_none() {
            tracing::info!(%site, "asleep");
        }
        say_end(
            site,
            generation,
            failure,
            life.prepared.as_ref().map(|prepared| &*prepared.log),
        );
        life.record.end(failure.map(|failure| failure.reason));
        self.note(site, &life.record);
        let shown = self.sites.get(&site).map(|entry| entry.machine.shown());
        if matches!(shown, Some(Shown::Failing(_))) {
            self.recall_premises(site, &mut life);
        }
        let late = Failure {
            reason: Reason::Restarting,
            generation,
        };
        if let Some(held) = life.held {
            let protocol = life.probe.map(|probe| probe.protocol).unwrap_or_default();
            reject::release(held, site, protocol, failure.unwrap_or(late));
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(problem) = remove_if_there(path) {
            tracing::error!(path = %path.display(), %problem, "cannot remove a file");
        }
    }
}

impl Life {
    /// Whatever is still waited for has nothing to say any more.
    fn stop_draining(&mut self) {
        self.drains += 1;
        if let Some(draining) = self.draining.take() {
            draining.abort();
        }
    }
}

fn say_end(site: SiteId, generation: Generation, failure: Option<Failure>, log: Option<&Path>) {
    match failure {
        None => tracing::info!(%site, %generation, "ended"),
        Some(Failure {
            reason: reason @ (Reason::Restarting | Reason::Disabled),
            generation,
        }) => {
            tracing::info!(%site, %generation, reason = reason.word(), "stopped");
        }
        Some(Failure { reason, generation }) => {
            let reason = reason.word();
            match log {
                Some(log) => {
                    tracing::warn!(%site, %generation, reason, log = %log.display(), "the site does not start; its log tells why");
                }
                None => tracing::warn!(%site, %generation, reason, "the site does not start"),
            }
        }
    }
}

/// Each running site takes some descriptors; the operator hears of it before there are none left.
fn mind_the_limit(held: &Held) {
    let used = u64::from(held.listener().as_raw_fd().unsigned_abs());
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if used > most / 5 * 4 {
        tracing::warn!(
            used,
            most,
            "nearly all descriptors are in use; raise the daemon's limit of open files (LimitNOFILE)"
        );
    }
}
