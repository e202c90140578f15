//! When a site starts, when it stops and what its visitors are told: a state machine without IO and without a clock.
//!
//! One machine per site. `step` takes what happened and answers what to do; the driver does it. What holds in every state:
//! * there is one generation at a time: none is prepared before the one before it is gone, however many visitors wait;
//! * every visitor is answered exactly once;
//! * a vassal file exists from `Start` to `Forget`, never longer than its generation;
//! * a socket is given to the next generation or released, and its queue is never closed unanswered.

mod endings;

use std::time::Duration;

use super::words::{
    Action, Answer, Deadline, Event, Failure, Generation, NotPrepared, Now, Reason, Seen, Visit,
    Visitor,
};

/// The times the machine works with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the vassal file to the launcher's question.
    pub launch: Duration,
    /// From the beginning of a start to the application accepting.
    pub start: Duration,
    /// From the announcement of a stop to the end of the processes.
    pub stop: Duration,
    /// After a failed start, for this long the next visitors get its error page.
    pub pause: Duration,
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
            stop: Duration::from_secs(40),
            pause: Duration::from_secs(1),
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
}

/// What to do when a stopping generation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Serve what is left in the queue, or sleep.
    Sleep,
    /// The socket is of no use any more: release it; whoever waits gets a new one.
    Release(Failure),
}

#[derive(Debug)]
enum State {
    Asleep,
    Starting {
        generation: Generation,
        phase: Phase,
        public: bool,
        waiting: Vec<Visitor>,
    },
    Running {
        generation: Generation,
        since: Duration,
    },
    Stopping {
        generation: Generation,
        then: Then,
        waiting: Vec<Visitor>,
    },
}

/// One site.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    state: State,
    last: Option<Generation>,
    /// The last failure and until when it answers for the site.
    failing: Option<(Failure, Duration)>,
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
    /// On the way down.
    Stopping(Generation),
}

impl Machine {
    /// A site that does not run.
    pub fn asleep(limits: Limits) -> Machine {
        Machine {
            limits,
            state: State::Asleep,
            last: None,
            failing: None,
            early_crashes: 0,
        }
    }

    /// A site whose processes outlived an earlier daemon. `public`: its socket has the site's name.
    pub fn adopted(
        limits: Limits,
        generation: Generation,
        public: bool,
        ready: bool,
        now: Now,
    ) -> (Machine, Vec<Action>) {
        let mut machine = Machine::asleep(limits);
        machine.last = Some(generation);
        if ready {
            machine.state = State::Running {
                generation,
                since: now.monotonic,
            };
            let actions = if public {
                Vec::new()
            } else {
                vec![Action::Publish]
            };
            return (machine, actions);
        }
        machine.state = State::Starting {
            generation,
            phase: Phase::Launched,
            public,
            waiting: Vec::new(),
        };
        (
            machine,
            vec![Action::Remind(generation, Deadline::Start, limits.start)],
        )
    }

    /// The last generation there was.
    pub fn last(&self) -> Option<Generation> {
        self.last
    }

    /// What the site is doing.
    pub fn shown(&self) -> Shown {
        match self.state {
            State::Asleep => self
                .failing
                .map_or(Shown::Asleep, |(failure, _)| Shown::Failing(failure)),
            State::Starting { generation, .. } => Shown::Starting(generation),
            State::Running { generation, .. } => Shown::Running(generation),
            State::Stopping { generation, .. } => Shown::Stopping(generation),
        }
    }

    /// How many visitors wait for a start or for the end of a stop.
    pub fn waiting(&self) -> usize {
        match &self.state {
            State::Asleep | State::Running { .. } => 0,
            State::Starting { waiting, .. } | State::Stopping { waiting, .. } => waiting.len(),
        }
    }

    /// Whether a machine made anew would behave the same.
    pub fn is_forgettable(&self, now: Now) -> bool {
        matches!(self.state, State::Asleep)
            && self.early_crashes == 0
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
            Event::Looked(visitor, seen) => self.looked(visitor, seen, now, &mut actions),
            Event::LaunchAsked(generation) => self.launch_asked(generation, &mut actions),
            Event::Prepared(generation) => self.prepared(generation, &mut actions),
            Event::NotPrepared(generation, why) => {
                self.not_prepared(generation, why, now, &mut actions)
            }
            Event::Ready(generation) => self.ready(generation, now, &mut actions),
            Event::StopAnnounced(generation) => {
                if matches!(self.state, State::Running { generation: current, .. } if current == generation)
                {
                    self.early_crashes = 0;
                    self.stop(Then::Sleep, Vec::new(), &mut actions);
                }
            }
            Event::Exited {
                generation,
                queued,
                emperor,
            } if self.is_current(generation) => {
                self.exited(queued, emperor, now, &mut actions);
            }
            Event::Passed {
                generation,
                deadline,
                emperor,
            } if self.is_current(generation) => {
                self.passed(deadline, emperor, now, &mut actions);
            }
            Event::EmperorArrived => {
                if let State::Starting {
                    generation,
                    phase: Phase::Written,
                    ..
                } = self.state
                {
                    actions.push(Action::Start(generation));
                }
            }
            Event::Retired => self.retired(now, &mut actions),
            Event::Exited { .. } | Event::Passed { .. } => {}
        }
        actions
    }

    fn is_current(&self, of: Generation) -> bool {
        match self.state {
            State::Asleep => false,
            State::Starting { generation, .. }
            | State::Running { generation, .. }
            | State::Stopping { generation, .. } => generation == of,
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
        let failing = self.failing.filter(|(_, until)| now.monotonic < *until);
        match (&mut self.state, failing) {
            (State::Starting { waiting, .. }, _) => waiting.push(visitor),
            (_, Some((failure, _))) => {
                actions.push(Action::Answer(visitor, Answer::Unavailable(failure)))
            }
            (State::Stopping { waiting, .. }, None) => waiting.push(visitor),
            (State::Asleep | State::Running { .. }, None) => {
                self.begin(false, vec![visitor], now, actions)
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
            Seen::Stale => {
                let restarting = Failure {
                    reason: Reason::Restarting,
                    generation,
                };
                self.stop(Then::Release(restarting), vec![visitor], actions);
            }
        }
    }

    fn begin(&mut self, public: bool, waiting: Vec<Visitor>, now: Now, actions: &mut Vec<Action>) {
        let generation = Generation::after(self.last, now.unix);
        self.last = Some(generation);
        self.failing = None;
        self.state = State::Starting {
            generation,
            phase: Phase::Preparing,
            public,
            waiting,
        };
        actions.push(Action::Remind(
            generation,
            Deadline::Start,
            self.limits.start,
        ));
        actions.push(Action::Prepare(generation));
    }

    fn prepared(&mut self, of: Generation, actions: &mut Vec<Action>) {
        if let State::Starting {
            generation,
            phase: phase @ Phase::Preparing,
            ..
        } = &mut self.state
            && *generation == of
        {
            *phase = Phase::Written;
            actions.push(Action::Remind(of, Deadline::Launch, self.limits.launch));
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
        if !matches!(self.state, State::Starting { generation, phase: Phase::Preparing, .. } if generation == of)
        {
            return;
        }
        let (reason, pause) = match why {
            NotPrepared::NoSuchSite | NotPrepared::Disabled => (Reason::Disabled, Duration::ZERO),
            NotPrepared::Failed => (Reason::NotPrepared, self.limits.pause),
        };
        let failure = Failure {
            reason,
            generation: of,
        };
        let answer = match why {
            NotPrepared::NoSuchSite => Answer::NoSuchSite,
            NotPrepared::Disabled | NotPrepared::Failed => Answer::Unavailable(failure),
        };
        self.fail(failure, answer, pause, now, actions);
    }

    fn retired(&mut self, now: Now, actions: &mut Vec<Action>) {
        match self.state {
            State::Running { generation, .. } => {
                let failure = Failure {
                    reason: Reason::Disabled,
                    generation,
                };
                self.stop(Then::Release(failure), Vec::new(), actions);
            }
            State::Starting { generation, .. } => {
                let failure = Failure {
                    reason: Reason::Disabled,
                    generation,
                };
                self.fail(
                    failure,
                    Answer::Unavailable(failure),
                    Duration::ZERO,
                    now,
                    actions,
                );
            }
            State::Asleep | State::Stopping { .. } => {}
        }
    }

    fn launch_asked(&mut self, of: Generation, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Starting {
                generation,
                phase: phase @ Phase::Written,
                ..
            } if *generation == of => {
                *phase = Phase::Launched;
                actions.push(Action::Grant(of));
            }
            _ => actions.push(Action::Refuse(of)),
        }
    }

    fn ready(&mut self, of: Generation, now: Now, actions: &mut Vec<Action>) {
        if let State::Starting {
            generation,
            phase: Phase::Launched,
            public,
            waiting,
        } = &mut self.state
            && *generation == of
        {
            if !*public {
                actions.push(Action::Publish);
            }
            actions.extend(
                waiting
                    .drain(..)
                    .map(|visitor| Action::Answer(visitor, Answer::Ready)),
            );
            self.state = State::Running {
                generation: of,
                since: now.monotonic,
            };
        }
    }
}
