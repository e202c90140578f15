//! The machine of a site whose processes outlived an earlier daemon.

use super::super::words::{Action, Deadline, Generation, Now};
use super::{Limits, Machine, Phase, Retiring, Start, State, Then};

/// A generation whose processes outlived an earlier daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Its socket has the site's name; `ready` if its application accepts.
    Public {
        /// Which.
        generation: Generation,
        /// The application accepts.
        ready: bool,
    },
    /// Its socket has its own name yet: a start.
    Private {
        /// Which.
        generation: Generation,
        /// The application accepts.
        ready: bool,
    },
    /// It was on its way down.
    Ending {
        /// Which.
        generation: Generation,
        /// Its vassal file is gone.
        told: bool,
    },
}

impl Adopted {
    /// Which.
    pub fn generation(self) -> Generation {
        match self {
            Adopted::Public { generation, .. }
            | Adopted::Private { generation, .. }
            | Adopted::Ending { generation, .. } => generation,
        }
    }
}

impl Machine {
    /// The machine of a site of which these generations run.
    ///
    /// The one with the site's name serves; without one, the latest with a name of its own is a start. What else has a name of
    /// its own was to be a reload: it has not been probed, so it goes. The others finish what they were asked.
    pub fn adopted(limits: Limits, found: &[Adopted], now: Now) -> (Machine, Vec<Action>) {
        let mut machine = Machine::asleep(limits);
        machine.last = found.iter().map(|found| found.generation()).max();
        let mut actions = Vec::new();
        let current = found
            .iter()
            .filter(|found| !matches!(found, Adopted::Ending { .. }))
            .max_by_key(|found| (matches!(found, Adopted::Public { .. }), found.generation()))
            .or_else(|| found.iter().max_by_key(|found| found.generation()));
        for one in found.iter().filter(|one| Some(*one) != current) {
            machine.take_beside(*one, &mut actions);
        }
        if let Some(current) = current {
            machine.take_current(*current, now, &mut actions);
        }
        (machine, actions)
    }

    fn take_current(&mut self, found: Adopted, now: Now, actions: &mut Vec<Action>) {
        let generation = found.generation();
        let (public, ready) = match found {
            Adopted::Public { ready, .. } => (true, ready),
            Adopted::Private { ready, .. } => (false, ready),
            Adopted::Ending { told, .. } => {
                self.state = State::Stopping {
                    generation,
                    told,
                    then: Then::Sleep,
                    waiting: Vec::new(),
                    stoppers: Vec::new(),
                };
                let (deadline, after) = match told {
                    true => (Deadline::Stop, self.limits.stop),
                    false => {
                        actions.push(Action::Drain(generation));
                        (Deadline::Drain, self.limits.drain)
                    }
                };
                actions.push(Action::Remind(generation, deadline, after));
                return;
            }
        };
        if ready {
            if !public {
                actions.push(Action::Publish(generation));
            }
            self.state = State::Running {
                generation,
                since: now.monotonic,
                reload: None,
            };
            return;
        }
        actions.push(Action::Remind(
            generation,
            Deadline::Start,
            self.limits.start,
        ));
        self.state = State::Starting {
            start: Start {
                generation,
                phase: Phase::Launched,
            },
            public,
            waiting: Vec::new(),
            reload: Vec::new(),
        };
    }

    fn take_beside(&mut self, found: Adopted, actions: &mut Vec<Action>) {
        match found {
            Adopted::Public { generation, .. } | Adopted::Private { generation, .. } => {
                let start = Start {
                    generation,
                    phase: Phase::Launched,
                };
                self.dispose(start, None, actions);
            }
            Adopted::Ending {
                generation,
                told: false,
            } => self.retire(generation, actions),
            Adopted::Ending {
                generation,
                told: true,
            } => {
                self.retiring.push(Retiring {
                    generation,
                    told: true,
                    failure: None,
                });
                actions.push(Action::Remind(generation, Deadline::Stop, self.limits.stop));
            }
        }
    }
}
