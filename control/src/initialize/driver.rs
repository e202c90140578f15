//! Does what the sites' machines say: one task that owns all of them, their sockets and their waiting visitors.
//!
//! It never waits: what takes time runs in tasks of its own, which report back by messages. Small files in `run/` are written
//! and removed right here.

mod hands;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::held::Held;
use super::launching::Question;
use super::machine::{Adopted, Limits, Machine, Shown};
use super::notice::Notice;
use super::prepare::{Place, Prepared, SharedRegistry, Unprepared};
use super::probe::ProbeError;
use super::words::{Answer, Deadline, Event, Generation, Now, Order, Visit, Visitor};
use crate::emperor::Alarm;
use crate::model::SiteId;
use crate::watch::Readable;

/// What reaches the driver.
#[derive(Debug)]
pub enum Message {
    /// nginx asks for a site.
    Visited(SiteId, Visit, oneshot::Sender<Answer>),
    /// The operator wants something of a site.
    Ordered(SiteId, Order, oneshot::Sender<Answer>),
    /// A preparation has ended.
    Prepared(SiteId, Generation, Box<Result<Prepared, Unprepared>>),
    /// A launcher asks for its socket.
    LaunchAsked(Question),
    /// A site's uWSGI has said something.
    Noticed(SiteId, Generation, Notice),
    /// A site's processes have ended.
    Exited(SiteId, Generation),
    /// A reload's application has answered its probe: well, or why not.
    Probed(SiteId, Generation, Result<(), ProbeError>),
    /// No connection to a generation's socket is left.
    Drained(SiteId, Generation),
    /// A deadline has passed.
    Passed(SiteId, Generation, Deadline),
    /// A new Emperor lives.
    EmperorArrived(OwnedFd),
    /// The registry says the site is off or gone.
    Retired(SiteId),
    /// Which sites do not sleep, and what they do.
    Asked(oneshot::Sender<Vec<SiteNow>>),
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

/// One site.
#[derive(Debug)]
struct Entry {
    machine: Machine,
    lives: BTreeMap<Generation, Life>,
    /// A launcher that waits for its answer: the machine gives it at once.
    question: Option<Question>,
}

/// Everything that belongs to one generation of a site.
#[derive(Debug, Default)]
struct Life {
    held: Option<Held>,
    prepared: Option<Prepared>,
    process: Option<Arc<Readable>>,
    listening: Option<JoinHandle<()>>,
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

    /// Takes over what an earlier daemon started.
    pub fn adopt(&mut self, found: Vec<Found>) {
        let mut sites: BTreeMap<SiteId, Vec<Adopted>> = BTreeMap::new();
        for found in found {
            let generation = found.adopted.generation();
            sites.entry(found.site).or_default().push(found.adopted);
            self.life(found.site, generation).held = Some(found.held);
            if !matches!(found.adopted, Adopted::Ending { told: true, .. }) {
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
        while let Some(message) = messages.recv().await {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Visited(site, visit, answer) => {
                let visitor = self.admit(answer);
                self.step(site, Event::Visited(visitor, visit));
            }
            Message::Ordered(site, order, answer) => {
                let visitor = self.admit(answer);
                self.step(site, Event::Ordered(visitor, order));
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
                self.step(site, Event::StopAnnounced(generation));
                tracing::info!(%site, %generation, "stopping");
            }
            Message::Noticed(site, generation, Notice::Ended(code)) => {
                tracing::debug!(%site, %generation, code, "its program has ended");
            }
            Message::Probed(site, generation, outcome) => {
                if let Err(problem) = &outcome {
                    tracing::warn!(%site, %generation, %problem, "the new code does not answer well; the old goes on serving");
                }
                self.step(site, Event::Probed(generation, outcome.is_ok()));
            }
            Message::Drained(site, generation) => self.step(site, Event::Drained(generation)),
            Message::Exited(site, generation) => {
                let queued = self.held(site, generation).is_some_and(Held::is_queued);
                let emperor = self.emperor_lives();
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

    fn admit(&mut self, answer: oneshot::Sender<Answer>) -> Visitor {
        self.visitors += 1;
        let visitor = Visitor(self.visitors);
        self.waiting.insert(visitor, answer);
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
}

impl Entry {
    fn new(machine: Machine) -> Entry {
        Entry {
            machine,
            lives: BTreeMap::new(),
            question: None,
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
