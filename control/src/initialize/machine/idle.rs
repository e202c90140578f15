//! A site that nobody visits falls asleep. Until its processes are told to end, whoever comes keeps it awake: its name is given
//! back, and nothing has happened.

use super::super::words::{Action, Answer, Deadline, Generation, Now, Visitor};
use super::reload::answers;
use super::{Machine, State, Then};

impl Machine {
    /// Whether the site is about to fall asleep and can still be kept awake.
    pub fn is_falling_asleep(&self) -> bool {
        matches!(&self.state, State::Stopping { told: false, then: Then::Doze, stoppers, .. } if stoppers.is_empty())
    }

    /// Nobody seems to need the site.
    pub(super) fn idle(&mut self, of: Generation, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Running { generation, reload: None, .. } if generation == of)
        {
            self.forgive();
            actions.push(Action::Withdraw(of));
            actions.push(Action::Drain(of));
            self.state = State::Stopping {
                generation: of,
                told: false,
                then: Then::Doze,
                waiting: Vec::new(),
                stoppers: Vec::new(),
            };
        }
    }

    /// Requests of it are in flight.
    pub(super) fn needed(&mut self, of: Generation, now: Now, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Stopping { generation, .. } if generation == of) {
            self.keep_awake(None, now, actions);
        }
    }

    /// Somebody does need it. Does nothing if it is not falling asleep, or too far.
    pub(super) fn keep_awake(
        &mut self,
        visitor: Option<Visitor>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !self.is_falling_asleep() {
            return;
        }
        if let State::Stopping {
            generation,
            waiting,
            ..
        } = &mut self.state
        {
            let generation = *generation;
            let waiting = std::mem::take(waiting);
            actions.push(Action::Publish(generation));
            actions.extend(answers(waiting, Answer::Ready));
            actions.extend(visitor.map(|visitor| Action::Answer(visitor, Answer::Ready)));
            self.state = State::Running {
                generation,
                since: now.monotonic,
                reload: None,
            };
        }
    }

    /// Somebody else wants the site stopped: whoever comes does not keep it awake.
    pub(super) fn stop_for_good(&mut self, to: Then, actions: &mut Vec<Action>) {
        if let State::Stopping {
            generation,
            then: then @ Then::Doze,
            ..
        } = &mut self.state
        {
            *then = to;
            actions.push(Action::Remind(
                *generation,
                Deadline::Drain,
                self.limits.drain,
            ));
        }
    }
}
