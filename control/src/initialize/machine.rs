//! When a site starts, when it stops and what its visitors are told: a state machine without IO and without a clock.
//!
//! One machine per site. `step` takes what happened and answers what to do; the driver does it. What holds in every state:
//! * one generation has the site's name or is on its way to it; only a reload prepares another beside it, and it gets the name
//!   when it has answered a probe; generations that have lost the name only finish what they were asked;
//! * every visitor is answered exactly once, and so is who gave an order;
//! * a vassal file exists from `Start` to `Forget`, never longer than its generation;
//! * nobody is told to stop who can still be handed a request: first the name goes, then the connections, then the file;
//! * a socket is given to the next generation or released, and its queue is never closed unanswered.

mod adopted;
mod endings;
mod failing;
mod idle;
mod reload;

use std::time::Duration;

use super::words::{
    Action, Answer, Deadline, Event, Failure, Generation, NotPrepared, Now, Order, Reason, Seen,
    Socket, Visit, Visitor,
};
pub use adopted::Adopted;
use endings::End;
use failing::{Failing, Fault};
use reload::Reload;

/// The times the machine works with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the vassal file to the launcher's question.
    pub launch: Duration,
    /// From the beginning of a start to the application accepting, and for a reload to the answer of its probe.
    pub start: Duration,
    /// How long a generation without the site's name may finish what it was asked.
    pub drain: Duration,
    /// From the announcement of a stop to the end of the processes.
    pub stop: Duration,
    /// After a failed start, for this long the next visitors get its error page, whatever has changed.
    pub pause: Duration,
    /// So many starts in a row fail with no longer pause between them.
    pub quick_failures: u32,
    /// After more, the next visitors get the error page for this long, unless something has changed.
    pub long_pause: Duration,
    /// A generation that runs shorter than this has crashed early.
    pub steady: Duration,
    /// So many early crashes in a row are restarted at once.
    pub early_crashes: u32,
}

impl Limits {
    /// The usual times, with the machine's own `start_timeout`.
    pub fn with_start(start: Duration) -> Limits {
        Limits {
            launch: Duration::from_secs(5),
            start,
            drain: Duration::from_secs(30),
            stop: Duration::from_secs(40),
            pause: Duration::from_secs(1),
            quick_failures: 5,
            long_pause: Duration::from_secs(60),
            steady: Duration::from_secs(10),
            early_crashes: 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Written,
    Launched,
    /// Only in a reload.
    Probing,
}

/// A generation on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    generation: Generation,
    phase: Phase,
}

/// What to do when a stopping generation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Serve what is left in the queue, or sleep.
    Sleep,
    /// The same, but whoever comes before the processes are told to end keeps the site awake.
    Doze,
    /// The socket is of no use any more: release it; whoever waits gets a new one.
    Release(Failure),
}

#[derive(Debug)]
enum State {
    Asleep,
    Starting {
        start: Start,
        public: bool,
        waiting: Vec<Visitor>,
        /// Orders to reload that came when this generation may have read older code already.
        reload: Vec<Visitor>,
    },
    Running {
        generation: Generation,
        since: Duration,
        reload: Option<Reload>,
    },
    Stopping {
        generation: Generation,
        /// Its vassal file is gone; before that, it finishes what it was asked.
        told: bool,
        then: Then,
        waiting: Vec<Visitor>,
        /// Who ordered the stop.
        stoppers: Vec<Visitor>,
    },
}

/// A generation that has lost the site's name to another, or never got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retiring {
    generation: Generation,
    /// Its vassal file is gone; before that, it finishes what it was asked.
    told: bool,
    /// Why it never got the name.
    failure: Option<Failure>,
}

/// One site.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    state: State,
    retiring: Vec<Retiring>,
    last: Option<Generation>,
    failing: Option<Failing>,
    /// Starts that failed in a row, and crashes that were a habit.
    failures: u32,
    early_crashes: u32,
}

/// What `GET /status` shows of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// No processes.
    Asleep,
    /// No processes, because the last start failed.
    Failing(Failure),
    /// On the way up.
    Starting(Generation),
    /// Serving.
    Running(Generation),
    /// Serving, while another generation is on its way to take over.
    Reloading(Generation),
    /// On the way down.
    Stopping(Generation),
}

impl Machine {
    /// A site that does not run.
    pub fn asleep(limits: Limits) -> Machine {
        Machine {
            limits,
            state: State::Asleep,
            retiring: Vec::new(),
            last: None,
            failing: None,
            failures: 0,
            early_crashes: 0,
        }
    }

    /// The last generation there was.
    pub fn last(&self) -> Option<Generation> {
        self.last
    }

    /// What the site is doing.
    pub fn shown(&self) -> Shown {
        match &self.state {
            State::Asleep => self
                .failing
                .map_or(Shown::Asleep, |failing| Shown::Failing(failing.failure)),
            State::Starting { start, .. } => Shown::Starting(start.generation),
            State::Running {
                reload: Some(reload),
                ..
            } => Shown::Reloading(reload.generation()),
            State::Running { generation, .. } => Shown::Running(*generation),
            State::Stopping { generation, .. } => Shown::Stopping(*generation),
        }
    }

    /// How many visitors wait for a start or for the end of a stop.
    pub fn waiting(&self) -> usize {
        match &self.state {
            State::Asleep | State::Running { .. } => 0,
            State::Starting { waiting, .. } | State::Stopping { waiting, .. } => waiting.len(),
        }
    }

    /// The generation that has the site's name.
    pub fn serving(&self) -> Option<Generation> {
        match self.state {
            State::Running { generation, .. } => Some(generation),
            State::Asleep | State::Starting { .. } | State::Stopping { .. } => None,
        }
    }

    /// How the last start failed, until the next one.
    pub fn failure(&self) -> Option<Failure> {
        self.failing.map(|failing| failing.failure)
    }

    /// Whether a visit now would have to wait for a start or the end of a stop.
    pub fn parks(&self, visit: Visit, now: Now) -> bool {
        let is_failing = self.held_back(now).is_some();
        let waits = match self.state {
            State::Running { .. } => false,
            State::Starting { .. } => true,
            State::Asleep | State::Stopping { .. } => {
                visit.may_wake && !is_failing && !self.is_falling_asleep()
            }
        };
        waits && visit.may_be_replayed()
    }

    /// Whether a generation is on its way up.
    pub fn is_rising(&self) -> bool {
        match &self.state {
            State::Starting { .. } => true,
            State::Running { reload, .. } => reload.is_some(),
            State::Asleep | State::Stopping { .. } => false,
        }
    }

    /// Whether this generation still waits for what it needs to start.
    pub fn is_preparing(&self, generation: Generation) -> bool {
        let start = match &self.state {
            State::Starting { start, .. } => Some(*start),
            State::Running { reload, .. } => reload.as_ref().map(Reload::start),
            State::Asleep | State::Stopping { .. } => None,
        };
        let preparing = Start {
            generation,
            phase: Phase::Preparing,
        };
        start == Some(preparing)
    }

    /// Whether a machine made anew would behave the same.
    pub fn is_forgettable(&self, now: Now) -> bool {
        matches!(self.state, State::Asleep)
            && self.retiring.is_empty()
            && self.early_crashes == 0
            && self.failures == 0
            && self.failing.is_none()
            && self
                .last
                .is_none_or(|last| Generation::after(None, now.unix) > last)
    }

    /// Takes one event; answers what to do, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Visited(visitor, visit) => self.visited(visitor, visit, now, &mut actions),
            Event::Ordered(visitor, order) => self.ordered(visitor, order, now, &mut actions),
            Event::Looked(visitor, seen) => self.looked(visitor, seen, now, &mut actions),
            Event::Inspected(visitor, changed) => {
                self.inspected(visitor, changed, now, &mut actions);
            }
            Event::LaunchAsked(generation) => self.launch_asked(generation, &mut actions),
            Event::Prepared(generation) => self.prepared(generation, &mut actions),
            Event::NotPrepared(generation, why) => {
                self.not_prepared(generation, why, now, &mut actions);
            }
            Event::Ready(generation) => self.ready(generation, now, &mut actions),
            Event::Probed(generation, good) => self.probed(generation, good, now, &mut actions),
            Event::Drained(generation) => self.drained(generation, &mut actions),
            Event::StopAnnounced(generation) => {
                self.stop_announced(generation, now, &mut actions);
            }
            Event::Exited {
                generation,
                queued,
                emperor,
                cause,
            } => {
                let end = End {
                    queued,
                    emperor,
                    cause,
                };
                self.exited(generation, end, now, &mut actions);
            }
            Event::Passed {
                generation,
                deadline,
                emperor,
            } => self.passed(generation, deadline, emperor, now, &mut actions),
            Event::EmperorArrived => {
                if let Some(start) = self.start()
                    && start.phase == Phase::Written
                {
                    actions.push(Action::Start(start.generation));
                }
            }
            Event::Admitted(generation) => self.admitted(generation, &mut actions),
            Event::Idle(generation) => self.idle(generation, &mut actions),
            Event::Needed(generation) => self.needed(generation, now, &mut actions),
            Event::Retired => self.retired(now, &mut actions),
        }
        actions
    }

    /// The generation on its way up, if there is one: never more than one at a time.
    fn start(&mut self) -> Option<&mut Start> {
        match &mut self.state {
            State::Starting { start, .. } => Some(start),
            State::Running { reload, .. } => reload.as_mut().map(Reload::start_mut),
            State::Asleep | State::Stopping { .. } => None,
        }
    }

    fn visited(&mut self, visitor: Visitor, visit: Visit, now: Now, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Running { .. }) && !visit.sent {
            actions.push(Action::Look(visitor));
            return;
        }
        if matches!(self.state, State::Running { .. }) || !visit.may_be_replayed() {
            actions.push(Action::Answer(visitor, Answer::Real));
            return;
        }
        if self.is_falling_asleep() {
            self.keep_awake(Some(visitor), now, actions);
            return;
        }
        if !visit.may_wake && matches!(self.state, State::Asleep | State::Stopping { .. }) {
            actions.push(Action::Answer(visitor, Answer::Elsewhere));
            return;
        }
        let failing = self.held_back(now);
        match (&mut self.state, failing) {
            (State::Starting { waiting, .. }, _) => waiting.push(visitor),
            (_, Some(failing)) => self.meets_failure(visitor, failing, now, actions),
            (State::Stopping { waiting, .. }, None) => waiting.push(visitor),
            (State::Asleep | State::Running { .. }, None) => {
                self.begin(false, Socket::New, vec![visitor], now, actions);
            }
        }
    }

    fn looked(&mut self, visitor: Visitor, seen: Seen, now: Now, actions: &mut Vec<Action>) {
        let State::Running { generation, .. } = self.state else {
            self.visited(visitor, Visit::UNSENT, now, actions);
            return;
        };
        match seen {
            Seen::Open => actions.push(Action::Answer(visitor, Answer::Ready)),
            Seen::Full => {
                let overloaded = Failure {
                    reason: Reason::Overloaded,
                    generation,
                };
                actions.push(Action::Answer(visitor, Answer::Unavailable(overloaded)));
            }
            // The name cannot be given back to the socket: another generation gets it, and this one finishes.
            Seen::Stale => {
                let mut waiting = self.give_reload_up(actions);
                waiting.push(visitor);
                self.retire(generation, actions);
                self.begin(false, Socket::New, waiting, now, actions);
            }
        }
    }

    fn ordered(&mut self, visitor: Visitor, order: Order, now: Now, actions: &mut Vec<Action>) {
        match order {
            Order::Start => self.start_ordered(visitor, now, actions),
            Order::Stop => self.stop_ordered(visitor, now, actions),
            Order::Reload => self.reload_ordered(visitor, now, actions),
        }
    }

    fn start_ordered(&mut self, visitor: Visitor, now: Now, actions: &mut Vec<Action>) {
        self.failing = None;
        self.forgive();
        if self.is_falling_asleep() {
            self.keep_awake(Some(visitor), now, actions);
            return;
        }
        match &mut self.state {
            State::Asleep => self.begin(false, Socket::New, vec![visitor], now, actions),
            State::Starting { waiting, .. } | State::Stopping { waiting, .. } => {
                waiting.push(visitor);
            }
            State::Running { .. } => actions.push(Action::Look(visitor)),
        }
    }

    fn begin(
        &mut self,
        public: bool,
        socket: Socket,
        waiting: Vec<Visitor>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.failing = None;
        let start = self.rise(socket, now, actions);
        self.state = State::Starting {
            start,
            public,
            waiting,
            reload: Vec::new(),
        };
    }

    /// The next generation, asked to be prepared.
    fn rise(&mut self, socket: Socket, now: Now, actions: &mut Vec<Action>) -> Start {
        let generation = Generation::after(self.last, now.unix);
        self.last = Some(generation);
        actions.push(Action::Prepare(generation, socket));
        Start {
            generation,
            phase: Phase::Preparing,
        }
    }

    /// Its time counts from here: how long it waited for its turn is not its fault.
    fn admitted(&mut self, of: Generation, actions: &mut Vec<Action>) {
        if self.is_preparing(of) {
            actions.push(Action::Remind(of, Deadline::Start, self.limits.start));
        }
    }

    fn prepared(&mut self, of: Generation, actions: &mut Vec<Action>) {
        let launch = self.limits.launch;
        if let Some(start) = self.start()
            && *start
                == (Start {
                    generation: of,
                    phase: Phase::Preparing,
                })
        {
            start.phase = Phase::Written;
            actions.push(Action::Remind(of, Deadline::Launch, launch));
            actions.push(Action::Start(of));
        }
    }

    fn not_prepared(
        &mut self,
        of: Generation,
        why: NotPrepared,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !self.is_preparing(of) {
            return;
        }
        let (reason, fault) = match why {
            NotPrepared::NoSuchSite | NotPrepared::Disabled => (Reason::Disabled, Fault::Nobodys),
            NotPrepared::NoDirectory => (Reason::NoDirectory, Fault::Machines),
            NotPrepared::Failed => (Reason::NotPrepared, Fault::Machines),
        };
        let failure = Failure {
            reason,
            generation: of,
        };
        let answer = match why {
            NotPrepared::NoSuchSite => Answer::NoSuchSite,
            NotPrepared::Disabled | NotPrepared::NoDirectory | NotPrepared::Failed => {
                Answer::Unavailable(failure)
            }
        };
        self.start_failed(failure, answer, fault, now, actions);
    }

    fn launch_asked(&mut self, of: Generation, actions: &mut Vec<Action>) {
        match self.start() {
            Some(start)
                if *start
                    == (Start {
                        generation: of,
                        phase: Phase::Written,
                    }) =>
            {
                start.phase = Phase::Launched;
                actions.push(Action::Grant(of));
            }
            _ => actions.push(Action::Refuse(of)),
        }
    }

    fn ready(&mut self, of: Generation, now: Now, actions: &mut Vec<Action>) {
        let launched = Start {
            generation: of,
            phase: Phase::Launched,
        };
        match &mut self.state {
            State::Starting {
                start,
                public,
                waiting,
                reload,
            } if *start == launched => {
                if !*public {
                    actions.push(Action::Publish(of));
                }
                actions.extend(
                    waiting
                        .drain(..)
                        .map(|visitor| Action::Answer(visitor, Answer::Ready)),
                );
                let again = std::mem::take(reload);
                self.state = State::Running {
                    generation: of,
                    since: now.monotonic,
                    reload: None,
                };
                self.reload(again, now, actions);
            }
            State::Running {
                reload: Some(reload),
                ..
            } if reload.start() == launched => {
                reload.start_mut().phase = Phase::Probing;
                actions.push(Action::Probe(of));
            }
            _ => {}
        }
    }
}
