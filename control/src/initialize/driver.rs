//! Does what the sites' machines say: one task that owns all of them, their sockets and their waiting visitors.
//!
//! It never waits: what takes time runs in tasks of its own, which report back by messages. Small files in `run/` are written
//! and removed right here.

mod admitting;
mod hands;
mod inspecting;
mod records;
mod sleeping;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::admitting::{Bounds, Tally};
use self::sleeping::Counters;
use super::admission::Admission;
use super::held::Held;
use super::history::{self, History, Notes};
use super::launching::Question;
use super::machine::{Adopted, Limits, Machine, Shown};
use super::notice::Notice;
use super::premises::Premises;
use super::prepare::{Place, Prepared, SharedRegistry, Unprepared};
use super::probe::{self, ProbeError};
use super::words::{Answer, Deadline, Event, Generation, Now, Order, Visit, Visitor};
use crate::emperor::Alarm;
use crate::model::{Idle, Protocol, SiteId};
use crate::settings::Waking;
use crate::watch::Readable;
pub use admitting::{Load, Parked, Starts};
use records::Record;

/// What reaches the driver.
#[derive(Debug)]
pub enum Message {
    /// nginx asks for a site.
    Visited(SiteId, Visit, oneshot::Sender<Told>),
    /// Whether this machine is out of service or being emptied, and so wakes no site that somebody visits.
    Emptied(bool),
    /// The operator wants something of a site.
    Ordered(SiteId, Order, oneshot::Sender<Told>),
    /// A preparation has ended.
    Prepared(SiteId, Generation, Box<Result<Prepared, Unprepared>>),
    /// A launcher asks for its socket.
    LaunchAsked(Question),
    /// A site's uWSGI has said something.
    Noticed(SiteId, Generation, Notice),
    /// A launcher could not become what it was to be.
    Complained(SiteId, Generation, String),
    /// A site's processes have ended.
    Exited(SiteId, Generation),
    /// A reload's application has answered its probe: well, or why not.
    Probed(SiteId, Generation, Result<(), ProbeError>),
    /// No connection to a generation's socket is left; the number is that of the drain.
    Drained(SiteId, Generation, u32),
    /// A deadline has passed.
    Passed(SiteId, Generation, Deadline),
    /// A new Emperor lives.
    EmperorArrived(OwnedFd),
    /// The registry says after how long the site sleeps.
    Settled(SiteId, Idle),
    /// The registry says the site is off or gone.
    Retired(SiteId),
    /// A visitor's look at a failing site has ended: whether anything has changed.
    Inspected(SiteId, Visitor, bool),
    /// What a failed start went by.
    Premised(SiteId, Premises),
    /// What happened to a site lately.
    Remembered(SiteId, oneshot::Sender<History>),
    /// Which sites do not sleep, and what they do.
    Asked(oneshot::Sender<Vec<SiteNow>>),
    /// What waits and what starts.
    Weighed(oneshot::Sender<Load>),
}

/// What whoever waits for a site is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What.
    pub answer: Answer,
    /// What an error page calls it.
    pub id: Option<String>,
}

/// What a site that does not simply sleep is doing.
#[derive(Clone, Copy, Debug)]
pub struct SiteNow {
    /// Which site.
    pub site: SiteId,
    /// What it does.
    pub shown: Shown,
    /// How many requests are parked until it has done it.
    pub waiting: usize,
}

/// Asks which sites do not simply sleep, and what they do. None: the driver has ended.
pub async fn sites_now(driver: &mpsc::Sender<Message>) -> Option<Vec<SiteNow>> {
    let (answer, asked) = oneshot::channel();
    driver.send(Message::Asked(answer)).await.ok()?;
    asked.await.ok()
}

/// One site.
#[derive(Debug)]
struct Entry {
    machine: Machine,
    lives: BTreeMap<Generation, Life>,
    /// A launcher that waits for its answer: the machine gives it at once.
    question: Option<Question>,
    /// The last request that broke off, and when.
    incident: Option<(Instant, String)>,
    /// Its last start failed.
    failed: bool,
    /// Those who waited for the start under way have all gone.
    deserted: bool,
    /// What its last start went by, if that failed.
    premises: Option<Arc<Premises>>,
    /// Held by whoever looks whether they have changed.
    inspection: Arc<()>,
}

/// Everything that belongs to one generation of a site.
#[derive(Debug, Default)]
struct Life {
    held: Option<Held>,
    prepared: Option<Prepared>,
    process: Option<Arc<Readable>>,
    /// The code its program has ended with, if its sandbox has told.
    ended: Option<i32>,
    /// So many of its processes have been killed for their memory, as far as is told.
    killed_for_memory: u64,
    listening: Option<JoinHandle<()>>,
    record: Record,
    /// How it is asked whether it works; known as soon as it is prepared or taken over.
    probe: Option<probe::Request>,
    draining: Option<JoinHandle<()>>,
    /// How often it was drained or kept from it: an older drain's end means nothing.
    drains: u32,
    /// After how long without a request it sleeps.
    idle: Option<Idle>,
    /// When it was ready, in the counters' time.
    since: Option<u64>,
}

/// A generation that was found running.
#[derive(Debug)]
pub struct Found {
    /// Of which site.
    pub site: SiteId,
    /// Which generation, and how far it is.
    pub adopted: Adopted,
    /// Its socket.
    pub held: Held,
    /// Its process.
    pub process: OwnedFd,
    /// How it is asked whether it works.
    pub probe: probe::Request,
    /// After how long without a request it sleeps.
    pub idle: Idle,
}

/// Owns every site of this machine.
pub struct Driver {
    place: Arc<Place>,
    registry: SharedRegistry,
    alarm: Alarm,
    limits: Limits,
    reports: mpsc::Sender<Message>,
    sites: HashMap<SiteId, Entry>,
    waiting: HashMap<Visitor, (SiteId, oneshot::Sender<Told>)>,
    notes: Notes,
    visitors: u64,
    is_emptied: bool,
    bounds: Bounds,
    admission: Admission,
    tally: Tally,
    /// The generations that wait for their turn.
    asking: HashMap<SiteId, Generation>,
    counters: Counters,
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
        waking: &Waking,
        reports: mpsc::Sender<Message>,
    ) -> Driver {
        let bounds = Bounds::new(waking);
        Driver {
            notes: history::keep(place.history.clone()),
            counters: Counters::new(&place.paths),
            admission: Driver::new_admission(&bounds),
            bounds,
            tally: Tally::default(),
            asking: HashMap::new(),
            place,
            registry,
            alarm,
            limits,
            reports,
            sites: HashMap::new(),
            waiting: HashMap::new(),
            visitors: 0,
            is_emptied: false,
            emperor: None,
            born: Instant::now(),
        }
    }

    /// Takes over what an earlier daemon started.
    pub fn adopt(&mut self, found: Vec<Found>) {
        let mut sites: BTreeMap<SiteId, Vec<Adopted>> = BTreeMap::new();
        for found in found {
            let generation = found.adopted.generation();
            sites.entry(found.site).or_default().push(found.adopted);
            let record = Record::adopted(&self.place.history, found.site, generation);
            let killed = self.killed_for_memory(found.site, generation);
            let protocol = found.probe.protocol;
            let life = self.life(found.site, generation);
            life.held = Some(found.held);
            life.record = record;
            life.killed_for_memory = killed;
            life.probe = Some(found.probe);
            life.idle = Some(found.idle);
            // A command says nothing more once it has the site's name.
            let may_say = match protocol {
                Protocol::Uwsgi => !matches!(found.adopted, Adopted::Ending { told: true, .. }),
                Protocol::Http => matches!(found.adopted, Adopted::Private { .. }),
            };
            if may_say {
                self.listen(found.site, generation);
            }
            self.watch(found.site, generation, found.process);
            tracing::info!(site = %found.site, found = ?found.adopted, "took a running generation over");
        }
        for (site, found) in sites {
            let (machine, actions) = Machine::adopted(self.limits, &found, self.now());
            self.entry(site).machine = machine;
            let follow = actions
                .into_iter()
                .filter_map(|action| self.act(site, action))
                .collect();
            self.steps(site, follow);
        }
    }

    /// Serves messages until the last sender but its own is gone; sites go on running.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        self.counters.wake();
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = self.counters.due() => self.put_to_sleep(),
            }
            self.admit_starts();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Visited(site, visit, answer) => {
                let visit = Visit {
                    may_wake: !self.is_emptied,
                    ..visit
                };
                if let Some(refusal) = self.turn_away(site, visit) {
                    // nginx may have given up waiting.
                    let id = self.id_of(site, refusal);
                    let _ = answer.send(Told {
                        answer: refusal,
                        id,
                    });
                    return;
                }
                if let Some(process) = self.ended_unheard(site, visit) {
                    tokio::spawn(after_the_end(
                        process,
                        self.reports.clone(),
                        Message::Visited(site, visit, answer),
                    ));
                    return;
                }
                let visitor = self.receive(site, answer);
                self.step(site, Event::Visited(visitor, visit));
                self.tally_parked(site);
                self.hurry(site);
            }
            Message::Emptied(is) => {
                if is != self.is_emptied {
                    tracing::info!(
                        emptied = is,
                        "{}",
                        match is {
                            true =>
                                "this backend wakes no more sites: it is being drained, or disabled",
                            false => "this backend wakes sites again",
                        }
                    );
                }
                self.is_emptied = is;
            }
            Message::Ordered(site, order, answer) => {
                let visitor = self.receive(site, answer);
                self.step(site, Event::Ordered(visitor, order));
            }
            Message::Prepared(site, generation, result) => self.prepared(site, generation, *result),
            Message::LaunchAsked(question) => {
                let (site, generation) = (question.site, question.generation);
                self.entry(site).question = Some(question);
                self.step(site, Event::LaunchAsked(generation));
            }
            Message::Noticed(site, generation, Notice::Loading) => {
                self.mark(site, generation, |phases, took| phases.spawn = Some(took));
            }
            Message::Noticed(site, generation, Notice::Loaded) => {
                self.mark(site, generation, |phases, took| phases.import = Some(took));
            }
            Message::Noticed(site, generation, Notice::Ready) => {
                self.mark(site, generation, |phases, took| phases.accept = Some(took));
                let held = self.held(site, generation);
                if let Some(Err(problem)) = held.map(Held::lengthen_queue) {
                    tracing::warn!(%site, %problem, "cannot lengthen a socket's queue");
                }
                self.step(site, Event::Ready(generation));
                self.served(site, generation);
            }
            Message::Noticed(site, generation, Notice::Stopping) => {
                self.step(site, Event::StopAnnounced(generation));
                tracing::info!(%site, %generation, "stopping");
            }
            Message::Noticed(site, generation, Notice::Ended(code)) => {
                tracing::debug!(%site, %generation, code, "its program has ended");
                let entry = self.sites.get_mut(&site);
                if let Some(life) = entry.and_then(|entry| entry.lives.get_mut(&generation)) {
                    life.ended = Some(code);
                }
            }
            Message::Probed(site, generation, outcome) => {
                self.mark(site, generation, |phases, took| phases.probe = Some(took));
                if let Err(problem) = &outcome {
                    tracing::warn!(%site, %generation, %problem, "the new code does not answer well; the old goes on serving");
                    self.probe_failed(site, generation, problem.to_string());
                }
                self.step(site, Event::Probed(generation, outcome.is_ok()));
                self.served(site, generation);
            }
            Message::Drained(site, generation, number) => {
                let life = self
                    .sites
                    .get(&site)
                    .and_then(|entry| entry.lives.get(&generation));
                if life.is_some_and(|life| life.drains == number) {
                    self.drained(site, generation);
                }
            }
            Message::Settled(site, idle) => self.settled(site, idle),
            Message::Complained(site, generation, complaint) => {
                self.detail(site, generation, complaint);
            }
            Message::Exited(site, generation) => {
                let queued = self.held(site, generation).is_some_and(Held::is_queued);
                let emperor = self.emperor_lives();
                let cause = self.settle(site, generation);
                self.step(
                    site,
                    Event::Exited {
                        generation,
                        queued,
                        emperor,
                        cause,
                    },
                );
            }
            Message::Passed(site, generation, deadline) => {
                let emperor = self.emperor_lives();
                self.step(
                    site,
                    Event::Passed {
                        generation,
                        deadline,
                        emperor,
                    },
                );
            }
            Message::EmperorArrived(process) => {
                self.emperor = Some(process);
                for site in self.sites.keys().copied().collect::<Vec<_>>() {
                    self.step(site, Event::EmperorArrived);
                }
            }
            Message::Inspected(site, visitor, changed) => {
                self.step(site, Event::Inspected(visitor, changed));
            }
            Message::Premised(site, premises) => self.premised(site, premises),
            Message::Remembered(site, answer) => self.remember(site, answer),
            Message::Retired(site) => self.step(site, Event::Retired),
            Message::Asked(answer) => {
                let shown = self.sites.iter().map(|(site, entry)| SiteNow {
                    site: *site,
                    shown: entry.machine.shown(),
                    waiting: entry.machine.waiting(),
                });
                // Whoever asked may have gone.
                let _ = answer.send(shown.collect());
            }
            Message::Weighed(answer) => {
                let _ = answer.send(self.load());
            }
        }
    }

    fn emperor_lives(&self) -> bool {
        self.emperor.as_ref().is_some_and(lives)
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

    fn receive(&mut self, site: SiteId, answer: oneshot::Sender<Told>) -> Visitor {
        self.visitors += 1;
        let visitor = Visitor(self.visitors);
        self.waiting.insert(visitor, (site, answer));
        visitor
    }

    fn held(&self, site: SiteId, generation: Generation) -> Option<&Held> {
        self.sites.get(&site)?.lives.get(&generation)?.held.as_ref()
    }

    fn life(&mut self, site: SiteId, generation: Generation) -> &mut Life {
        self.entry(site).lives.entry(generation).or_default()
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
            tracing::debug!(%site, ?event, "step");
            for action in self.entry(site).machine.step(event, now) {
                events.extend(self.act(site, action));
            }
        }
        self.make_room(site);
        let now = self.now();
        if self
            .sites
            .get(&site)
            .is_some_and(|entry| entry.machine.is_forgettable(now))
        {
            self.sites.remove(&site);
        }
    }
}

impl Entry {
    fn new(machine: Machine) -> Entry {
        Entry {
            machine,
            lives: BTreeMap::new(),
            question: None,
            incident: None,
            failed: false,
            deserted: false,
            premises: None,
            inspection: Arc::default(),
        }
    }
}

/// Reports it when the process is gone, and that has been reported or is about to be.
async fn after_the_end(process: Arc<Readable>, reports: mpsc::Sender<Message>, message: Message) {
    // What cannot be waited for has ended too.
    let _ = process.ready().await;
    tokio::task::yield_now().await;
    report(&reports, message).await;
}

async fn report(reports: &mpsc::Sender<Message>, message: Message) {
    // Only a driver that has ended does not listen.
    let _ = reports.send(message).await;
}

fn lives(process: &OwnedFd) -> bool {
    let mut end = [PollFd::new(process, PollFlags::IN)];
    poll(&mut end, Some(&Timespec::default())).is_ok_and(|ended| ended == 0)
}
