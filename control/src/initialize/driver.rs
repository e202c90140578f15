//! Does what the sites' machines say: one task that owns all of them, their sockets and their waiting visitors.
//!
//! It never waits: what takes time runs in tasks of its own, which report back by messages. Small files in `run/` are written
//! and removed right here.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::held::{Held, remove_if_there};
use super::launching::{Grant, Question};
use super::machine::{Limits, Machine, Shown};
use super::notice::{Notice, Notices};
use super::prepare::{Place, Prepared, SharedRegistry, Unprepared, prepare};
use super::reject;
use super::words::{
    Action, Answer, Deadline, Event, Failure, Generation, Now, Reason, Visit, Visitor,
};
use crate::emperor::Alarm;
use crate::files;
use crate::model::SiteId;
use crate::watch::Readable;

/// What reaches the driver.
#[derive(Debug)]
pub enum Message {
    /// nginx asks for a site.
    Visited(SiteId, Visit, oneshot::Sender<Answer>),
    /// A preparation has ended.
    Prepared(SiteId, Generation, Box<Result<Prepared, Unprepared>>),
    /// A launcher asks for its socket.
    LaunchAsked(Question),
    /// A site's uWSGI has said something.
    Noticed(SiteId, Generation, Notice),
    /// A site's processes have ended.
    Exited(SiteId, Generation),
    /// A deadline has passed.
    Passed(SiteId, Generation, Deadline),
    /// A new Emperor lives.
    EmperorArrived(OwnedFd),
    /// The registry says the site is off or gone.
    Retired(SiteId),
    /// Which sites do not sleep, and what they do.
    Asked(oneshot::Sender<Vec<(SiteId, Shown)>>),
}

/// One site with everything that belongs to its present life.
#[derive(Debug)]
struct Entry {
    machine: Machine,
    held: Option<Held>,
    prepared: Option<Prepared>,
    question: Option<Question>,
    process: Option<Arc<Readable>>,
    listening: Option<JoinHandle<()>>,
}

/// A site that was found running.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub site: SiteId,
    /// Its generation.
    pub generation: Generation,
    /// Its socket.
    pub held: Held,
    /// Whether the socket has the site's name.
    pub public: bool,
    /// Whether the application accepts.
    pub ready: bool,
    /// Its process.
    pub process: OwnedFd,
}

/// Owns every site of this machine.
pub struct Driver {
    place: Arc<Place>,
    registry: SharedRegistry,
    alarm: Alarm,
    limits: Limits,
    reports: mpsc::Sender<Message>,
    sites: HashMap<SiteId, Entry>,
    waiting: HashMap<Visitor, oneshot::Sender<Answer>>,
    visitors: u64,
    emperor: Option<OwnedFd>,
    born: Instant,
}

impl Driver {
    /// A driver without sites; `reports` is the other end of what it will `run` on.
    pub fn new(
        place: Arc<Place>,
        registry: SharedRegistry,
        alarm: Alarm,
        limits: Limits,
        reports: mpsc::Sender<Message>,
    ) -> Driver {
        Driver {
            place,
            registry,
            alarm,
            limits,
            reports,
            sites: HashMap::new(),
            waiting: HashMap::new(),
            visitors: 0,
            emperor: None,
            born: Instant::now(),
        }
    }

    /// Takes over a site that an earlier daemon started.
    pub fn adopt(&mut self, found: Found) {
        let Found {
            site,
            generation,
            held,
            public,
            ready,
            process,
        } = found;
        let (machine, actions) =
            Machine::adopted(self.limits, generation, public, ready, self.now());
        let mut entry = Entry::new(machine);
        entry.held = Some(held);
        self.sites.insert(site, entry);
        self.listen(site, generation);
        self.watch(site, generation, process);
        let follow = actions
            .into_iter()
            .filter_map(|action| self.act(site, action))
            .collect();
        self.steps(site, follow);
        tracing::info!(%site, %generation, ready, "took a running site over");
    }

    /// Serves messages until the last sender but its own is gone; sites go on running.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Visited(site, visit, answer) => {
                self.visitors += 1;
                let visitor = Visitor(self.visitors);
                self.waiting.insert(visitor, answer);
                self.step(site, Event::Visited(visitor, visit));
            }
            Message::Prepared(site, generation, result) => self.prepared(site, generation, *result),
            Message::LaunchAsked(question) => {
                let (site, generation) = (question.site, question.generation);
                self.entry(site).question = Some(question);
                self.step(site, Event::LaunchAsked(generation));
            }
            Message::Noticed(site, generation, Notice::Ready) => {
                self.step(site, Event::Ready(generation))
            }
            Message::Noticed(site, generation, Notice::Stopping) => {
                tracing::info!(%site, %generation, "stopping");
                self.step(site, Event::StopAnnounced(generation));
            }
            Message::Exited(site, generation) => {
                let queued = self
                    .sites
                    .get(&site)
                    .and_then(|entry| entry.held.as_ref())
                    .is_some_and(Held::is_queued);
                let emperor = self.emperor.as_ref().is_some_and(lives);
                self.step(
                    site,
                    Event::Exited {
                        generation,
                        queued,
                        emperor,
                    },
                );
            }
            Message::Passed(site, generation, deadline) => {
                self.step(site, Event::Passed(generation, deadline))
            }
            Message::EmperorArrived(process) => {
                self.emperor = Some(process);
                for site in self.sites.keys().copied().collect::<Vec<_>>() {
                    self.step(site, Event::EmperorArrived);
                }
            }
            Message::Retired(site) => self.step(site, Event::Retired),
            Message::Asked(answer) => {
                let shown = self
                    .sites
                    .iter()
                    .map(|(site, entry)| (*site, entry.machine.shown()));
                // Whoever asked may have gone.
                let _ = answer.send(shown.collect());
            }
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Now {
            monotonic: self.born.elapsed(),
            unix,
        }
    }

    fn entry(&mut self, site: SiteId) -> &mut Entry {
        let limits = self.limits;
        self.sites
            .entry(site)
            .or_insert_with(|| Entry::new(Machine::asleep(limits)))
    }

    fn step(&mut self, site: SiteId, event: Event) {
        self.steps(site, VecDeque::from([event]));
    }

    fn steps(&mut self, site: SiteId, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for action in self.entry(site).machine.step(event, now) {
                events.extend(self.act(site, action));
            }
        }
        let now = self.now();
        if self
            .sites
            .get(&site)
            .is_some_and(|entry| entry.machine.is_forgettable(now))
        {
            self.sites.remove(&site);
        }
    }

    /// Does one thing; answers what came of it if that is known at once.
    fn act(&mut self, site: SiteId, action: Action) -> Option<Event> {
        match action {
            Action::Answer(visitor, answer) => {
                // nginx may have given up waiting.
                let _ = self.waiting.remove(&visitor)?.send(answer);
            }
            Action::Look(visitor) => {
                let held = self.entry(site).held.as_ref()?;
                return Some(Event::Looked(visitor, held.look()));
            }
            Action::Prepare(generation) => self.prepare(site, generation),
            Action::Start(generation) => return self.start(site, generation),
            Action::Grant(generation) => self.grant(site, generation),
            Action::Refuse(_) => drop(self.entry(site).question.take()),
            Action::Publish => {
                tracing::info!(%site, "ready");
                self.rename(site, Held::publish, "give the site's name to its socket");
            }
            Action::Withdraw => {
                self.rename(site, Held::withdraw, "take the site's name from its socket")
            }
            Action::Forget(generation) => self.forget(site, generation),
            Action::Kill(generation) => {
                tracing::warn!(%site, %generation, "ending the site's processes by force");
                if let Some(process) = &self.entry(site).process {
                    // Gone already is as good.
                    let _ = pidfd_send_signal(process.as_ref(), Signal::KILL);
                }
            }
            Action::Release(failure) => self.release(site, failure),
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

    fn prepare(&mut self, site: SiteId, generation: Generation) {
        tracing::info!(%site, %generation, "starting");
        let fresh = self.entry(site).held.is_none();
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

    fn prepared(
        &mut self,
        site: SiteId,
        generation: Generation,
        result: Result<Prepared, Unprepared>,
    ) {
        let wanted = self.entry(site).machine.shown() == Shown::Starting(generation);
        match result {
            Ok(mut prepared) if wanted => {
                let entry = self.entry(site);
                entry.held = prepared.held.take().or(entry.held.take());
                entry.prepared = Some(prepared);
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
                self.step(site, Event::NotPrepared(generation, problem.why()));
            }
        }
    }

    fn start(&mut self, site: SiteId, generation: Generation) -> Option<Event> {
        let file = self.place.vassal(site, generation);
        let prepared = self.sites.get(&site)?.prepared.as_ref()?;
        if !file.exists()
            && let Err(problem) = files::write_briefly(&file, prepared.config.as_bytes(), 0o600)
        {
            tracing::error!(%site, file = %file.display(), %problem, "cannot write a vassal file");
            return Some(Event::Passed(generation, Deadline::Launch));
        }
        self.alarm.ring();
        None
    }

    fn grant(&mut self, site: SiteId, generation: Generation) {
        let entry = self.entry(site);
        let (Some(question), Some(prepared), Some(held)) =
            (entry.question.take(), &entry.prepared, &entry.held)
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
    fn watch(&mut self, site: SiteId, generation: Generation, process: OwnedFd) {
        let process = match Readable::new(process) {
            Ok(process) => Arc::new(process),
            Err(problem) => {
                tracing::error!(%site, %problem, "cannot watch a process");
                return;
            }
        };
        self.entry(site).process = Some(process.clone());
        let reports = self.reports.clone();
        tokio::spawn(async move {
            if process.ready().await.is_ok() {
                report(&reports, Message::Exited(site, generation)).await;
            }
        });
    }

    /// Reports what the site's uWSGI says.
    fn listen(&mut self, site: SiteId, generation: Generation) {
        let reports = self.reports.clone();
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
        if let Some(earlier) = self.entry(site).listening.replace(task) {
            earlier.abort();
        }
    }

    fn rename(&mut self, site: SiteId, rename: fn(&Held) -> std::io::Result<()>, doing: &str) {
        if let Some(Err(problem)) = self.entry(site).held.as_ref().map(rename) {
            tracing::error!(%site, %problem, "cannot {doing}");
        }
    }

    fn forget(&mut self, site: SiteId, generation: Generation) {
        self.remove(&self.place.vassal(site, generation));
        self.remove(&self.place.notice(site, generation));
        if let Some(listening) = self.entry(site).listening.take() {
            listening.abort();
        }
        self.alarm.ring();
    }

    fn release(&mut self, site: SiteId, failure: Option<Failure>) {
        let generation = self.last_generation(site);
        let entry = self.entry(site);
        let log = entry.prepared.take().map(|prepared| prepared.log);
        entry.process = None;
        match (failure, log) {
            (None, _) => tracing::info!(%site, "asleep"),
            (
                Some(Failure {
                    reason: reason @ (Reason::Restarting | Reason::Disabled),
                    generation,
                }),
                _,
            ) => {
                tracing::info!(%site, %generation, reason = reason.word(), "stopped");
            }
            (Some(Failure { reason, generation }), log) => {
                let log = log.unwrap_or_default();
                tracing::warn!(%site, %generation, reason = reason.word(), log = %log.display(), "the site does not start; its log tells why");
            }
        }
        if let Some(held) = entry.held.take()
            && let Some(generation) = generation
        {
            let late = Failure {
                reason: Reason::Restarting,
                generation,
            };
            reject::release(held, site, failure.unwrap_or(late));
        }
    }

    fn last_generation(&self, site: SiteId) -> Option<Generation> {
        self.sites.get(&site).and_then(|entry| entry.machine.last())
    }

    fn remove(&self, path: &std::path::Path) {
        if let Err(problem) = remove_if_there(path) {
            tracing::error!(path = %path.display(), %problem, "cannot remove a file");
        }
    }
}

impl Entry {
    fn new(machine: Machine) -> Entry {
        Entry {
            machine,
            held: None,
            prepared: None,
            question: None,
            process: None,
            listening: None,
        }
    }
}

async fn report(reports: &mpsc::Sender<Message>, message: Message) {
    // Only a driver that has ended does not listen.
    let _ = reports.send(message).await;
}

fn lives(process: &OwnedFd) -> bool {
    let mut end = [PollFd::new(process, PollFlags::IN)];
    poll(&mut end, Some(&Timespec::default())).is_ok_and(|ended| ended == 0)
}
