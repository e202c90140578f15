//! A running site's next generation: it starts beside the one that serves, on a socket of its own, and gets the site's name
//! only when it has answered a probe. Until then whatever happens to it costs no visitor anything.

use super::super::words::{
    Action, Answer, Deadline, Failure, Generation, Now, Reason, Socket, Visitor,
};
use super::{Machine, Phase, Retiring, Start, State, Then};

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    start: Start,
    orders: Vec<Visitor>,
    /// Orders that came when this generation may have read older code already: they get one more.
    again: Vec<Visitor>,
}

impl Reload {
    pub(super) fn start(&self) -> Start {
        self.start
    }

    pub(super) fn start_mut(&mut self) -> &mut Start {
        &mut self.start
    }

    pub(super) fn generation(&self) -> Generation {
        self.start.generation
    }
}

impl Machine {
    pub(super) fn reload_ordered(&mut self, visitor: Visitor, now: Now, actions: &mut Vec<Action>) {
        self.forgive();
        let was_failing = self.failing.take().is_some();
        match &mut self.state {
            // What failed is tried again, so that the operator learns whether it is repaired.
            State::Asleep if was_failing => {
                self.begin(false, Socket::New, vec![visitor], now, actions);
            }
            State::Stopping { .. } => {
                // Nobody may keep the older code awake.
                self.stop_for_good(Then::Sleep, actions);
                actions.push(Action::Answer(visitor, Answer::Asleep));
            }
            // The next start reads what is there then.
            State::Asleep => {
                actions.push(Action::Answer(visitor, Answer::Asleep));
            }
            State::Starting {
                start,
                waiting,
                reload,
                ..
            } => match start.phase {
                Phase::Preparing | Phase::Written => waiting.push(visitor),
                Phase::Launched | Phase::Probing => reload.push(visitor),
            },
            State::Running {
                reload: Some(reload),
                ..
            } => match reload.start.phase {
                Phase::Preparing | Phase::Written => reload.orders.push(visitor),
                Phase::Launched | Phase::Probing => reload.again.push(visitor),
            },
            State::Running { reload: None, .. } => self.reload(vec![visitor], now, actions),
        }
    }

    /// Begins a reload of the running generation, for these orders (for none: not at all).
    pub(super) fn reload(&mut self, orders: Vec<Visitor>, now: Now, actions: &mut Vec<Action>) {
        if orders.is_empty() || !matches!(self.state, State::Running { .. }) {
            return;
        }
        let start = self.rise(Socket::New, now, actions);
        if let State::Running { reload, .. } = &mut self.state {
            *reload = Some(Reload {
                start,
                orders,
                again: Vec::new(),
            });
        }
    }

    pub(super) fn probed(
        &mut self,
        of: Generation,
        good: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let probing = Start {
            generation: of,
            phase: Phase::Probing,
        };
        let State::Running {
            generation: old,
            reload,
            ..
        } = &mut self.state
        else {
            return;
        };
        let old = *old;
        let Some(done) = reload.take_if(|reload| reload.start == probing) else {
            return;
        };
        if !good {
            *reload = Some(done);
            let failure = Failure {
                reason: Reason::ProbeFailed,
                generation: of,
            };
            self.reload_failed(failure, Answer::Unavailable(failure), now, actions);
            return;
        }
        actions.push(Action::Publish(of));
        actions.extend(answers(done.orders, Answer::Ready));
        self.retire(old, actions);
        self.state = State::Running {
            generation: of,
            since: now.monotonic,
            reload: None,
        };
        self.reload(done.again, now, actions);
    }

    /// The new generation will not do: the old one stays.
    pub(super) fn reload_failed(
        &mut self,
        failure: Failure,
        answer: Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let State::Running { reload, .. } = &mut self.state else {
            return;
        };
        let Some(failed) = reload.take() else {
            return;
        };
        actions.extend(answers(failed.orders, answer));
        self.dispose(failed.start, Some(failure), actions);
        self.reload(failed.again, now, actions);
    }

    /// The generation that serves comes to its end: the new one is not needed, and its orders wait for what comes next.
    pub(super) fn give_reload_up(&mut self, actions: &mut Vec<Action>) -> Vec<Visitor> {
        let State::Running { reload, .. } = &mut self.state else {
            return Vec::new();
        };
        let Some(Reload {
            start,
            mut orders,
            again,
        }) = reload.take()
        else {
            return Vec::new();
        };
        orders.extend(again);
        self.dispose(start, None, actions);
        orders
    }

    /// Takes a generation that never had the site's name off the machine.
    pub(super) fn dispose(
        &mut self,
        start: Start,
        failure: Option<Failure>,
        actions: &mut Vec<Action>,
    ) {
        let Start { generation, phase } = start;
        match phase {
            // What is prepared comes back unwanted.
            Phase::Preparing => actions.push(Action::Release(generation, failure)),
            Phase::Written => {
                actions.push(Action::Forget(generation));
                actions.push(Action::Release(generation, failure));
            }
            Phase::Launched | Phase::Probing => {
                actions.push(Action::Forget(generation));
                actions.push(Action::Kill(generation));
                self.retiring.push(Retiring {
                    generation,
                    told: true,
                    failure,
                });
            }
        }
    }

    /// Lets a generation that has just lost the site's name finish what it was asked.
    pub(super) fn retire(&mut self, generation: Generation, actions: &mut Vec<Action>) {
        actions.push(Action::Drain(generation));
        actions.push(Action::Remind(
            generation,
            Deadline::Drain,
            self.limits.drain,
        ));
        self.retiring.push(Retiring {
            generation,
            told: false,
            failure: None,
        });
    }

    /// The Emperor may stop it now: nobody can hand it a request any more.
    pub(super) fn drained(&mut self, of: Generation, actions: &mut Vec<Action>) {
        let stop = self.limits.stop;
        let mut tell = |generation, told: &mut bool| {
            if generation == of && !std::mem::replace(told, true) {
                actions.push(Action::Forget(of));
                actions.push(Action::Remind(of, Deadline::Stop, stop));
            }
        };
        for retiring in &mut self.retiring {
            tell(retiring.generation, &mut retiring.told);
        }
        if let State::Stopping {
            generation, told, ..
        } = &mut self.state
        {
            tell(*generation, told);
        }
    }
}

pub(super) fn answers(visitors: Vec<Visitor>, answer: Answer) -> impl Iterator<Item = Action> {
    visitors
        .into_iter()
        .map(move |visitor| Action::Answer(visitor, answer))
}
