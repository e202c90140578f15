//! A site that does not start is tried again, but not at the expense of all others: with a second between the first starts that
//! fail, then with a minute. An order starts it at once, and so does whoever comes when something has changed since it failed.

use std::time::Duration;

use super::super::words::{Action, Answer, Failure, Now, Visit, Visitor};
use super::{Machine, State};

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody's: the next visitor tries again.
    Nobodys,
    /// The machine's: tried again after the shortest pause.
    Machines,
    /// The site's, which costs the machine a start each time.
    Sites,
}

/// The last failure, and how long it answers for the site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    pub(super) failure: Failure,
    /// Until then nothing but an order begins another start.
    again: Duration,
    /// Until then nothing but an order or a change does.
    until: Duration,
}

impl Machine {
    /// From now on the failure answers for the site, for as long as it deserves.
    pub(super) fn hold_back(&mut self, failure: Failure, fault: Fault, now: Now) {
        let pause = match fault {
            Fault::Nobodys => {
                self.failing = None;
                return;
            }
            Fault::Machines => self.limits.pause,
            Fault::Sites => {
                self.failures = self.failures.saturating_add(1);
                match self.failures > self.limits.quick_failures {
                    true => self.limits.long_pause,
                    false => self.limits.pause,
                }
            }
        };
        self.failing = Some(Failing {
            failure,
            again: now.monotonic + self.limits.pause,
            until: now.monotonic + pause,
        });
    }

    /// What failed before does not count any more.
    pub(super) fn forgive(&mut self) {
        self.early_crashes = 0;
        self.failures = 0;
    }

    /// What answers for the site now.
    pub(super) fn held_back(&self, now: Now) -> Option<Failing> {
        self.failing.filter(|failing| now.monotonic < failing.until)
    }

    /// Somebody comes whom a failure answers: perhaps there is a reason to try again.
    pub(super) fn meets_failure(
        &self,
        visitor: Visitor,
        failing: Failing,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let may_begin = matches!(self.state, State::Asleep) && now.monotonic >= failing.again;
        actions.push(match may_begin {
            true => Action::Inspect(visitor),
            false => Action::Answer(visitor, Answer::Unavailable(failing.failure)),
        });
    }

    pub(super) fn inspected(
        &mut self,
        visitor: Visitor,
        changed: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let failing = self.held_back(now);
        match (failing, matches!(self.state, State::Asleep)) {
            // It failed once more since the look: that is too early again.
            (Some(failing), true) if !changed || now.monotonic < failing.again => {
                let answer = Answer::Unavailable(failing.failure);
                actions.push(Action::Answer(visitor, answer));
            }
            (Some(_), true) => {
                self.forgive();
                self.failing = None;
                self.visited(visitor, Visit::UNSENT, now, actions);
            }
            _ => self.visited(visitor, Visit::UNSENT, now, actions),
        }
    }
}
