//! How generations end: by themselves, by order, by a deadline; and what begins afterwards.

use std::time::Duration;

use super::super::words::{
    Action, Answer, Deadline, Failure, Generation, Now, Reason, Socket, Visitor,
};
use super::reload::answers;
use super::{Fault, Machine, Phase, Start, State, Then};

/// How processes ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) queued: bool,
    pub(super) emperor: bool,
    pub(super) cause: Reason,
}

impl Machine {
    /// From running to stopping: no new requests, and what is under way is finished.
    pub(super) fn stop(&mut self, then: Then, stoppers: Vec<Visitor>, actions: &mut Vec<Action>) {
        let State::Running { generation, .. } = self.state else {
            return;
        };
        // Who wanted newer code has to wait for this end first: the next start reads it.
        let waiting = self.give_reload_up(actions);
        actions.push(Action::Withdraw(generation));
        actions.push(Action::Drain(generation));
        actions.push(Action::Remind(
            generation,
            Deadline::Drain,
            self.limits.drain,
        ));
        self.state = State::Stopping {
            generation,
            told: false,
            then,
            waiting,
            stoppers,
        };
    }

    pub(super) fn stop_ordered(&mut self, visitor: Visitor, now: Now, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Asleep => actions.push(Action::Answer(visitor, Answer::Asleep)),
            State::Stopping { stoppers, .. } => {
                stoppers.push(visitor);
                self.stop_for_good(Then::Sleep, actions);
            }
            State::Running { .. } => {
                self.forgive();
                let reloaders = self.give_reload_up(actions);
                actions.extend(answers(reloaders, Answer::Asleep));
                self.stop(Then::Sleep, vec![visitor], actions);
            }
            State::Starting { start, .. } => {
                let failure = Failure {
                    reason: Reason::Restarting,
                    generation: start.generation,
                };
                self.fail(failure, Fault::Nobodys, now, actions);
                // As far as it had come, it is stopping now, or gone.
                self.stop_ordered(visitor, now, actions);
            }
        }
    }

    /// The Emperor, or uWSGI itself, has told the processes to end: nothing is left to wait for.
    pub(super) fn stop_announced(&mut self, of: Generation, now: Now, actions: &mut Vec<Action>) {
        match &self.state {
            State::Running {
                generation, since, ..
            } if *generation == of => {
                // The site can say so, too, and again and again. uWSGI's own idle time is not shorter than this.
                let quick = now.monotonic.saturating_sub(*since) < self.limits.pause;
                let then = match quick && self.count_end(true, *since, now) {
                    true => Then::Release(self.crashing(of, now)),
                    false => Then::Sleep,
                };
                self.stop(then, Vec::new(), actions);
            }
            _ => {}
        }
        self.drained(of, actions);
    }

    pub(super) fn retired(&mut self, now: Now, actions: &mut Vec<Action>) {
        let disabled = |generation| Failure {
            reason: Reason::Disabled,
            generation,
        };
        match &self.state {
            State::Running { generation, .. } => {
                let failure = disabled(*generation);
                self.forgive();
                let reloaders = self.give_reload_up(actions);
                actions.extend(answers(reloaders, Answer::Unavailable(failure)));
                self.stop(Then::Release(failure), Vec::new(), actions);
            }
            State::Starting { start, .. } => {
                self.fail(disabled(start.generation), Fault::Nobodys, now, actions);
            }
            State::Stopping { generation, .. } => {
                self.stop_for_good(Then::Release(disabled(*generation)), actions);
            }
            State::Asleep => {}
        }
    }

    pub(super) fn exited(&mut self, of: Generation, end: End, now: Now, actions: &mut Vec<Action>) {
        if let Some(index) = self
            .retiring
            .iter()
            .position(|retiring| retiring.generation == of)
        {
            let gone = self.retiring.swap_remove(index);
            if !gone.told {
                actions.push(Action::Forget(of));
            }
            actions.push(Action::Release(of, gone.failure));
            return;
        }
        match &self.state {
            State::Starting { start, .. } if start.generation == of => {
                self.start_exited(end, now, actions);
            }
            State::Running { generation, .. } if *generation == of => {
                self.crashed(end, now, actions);
            }
            State::Running {
                reload: Some(reload),
                ..
            } if reload.generation() == of => {
                let failure = Failure {
                    reason: end.cause,
                    generation: of,
                };
                self.gone();
                self.start_failed(
                    failure,
                    Answer::Unavailable(failure),
                    Fault::Nobodys,
                    now,
                    actions,
                );
            }
            State::Stopping { generation, .. } if *generation == of => {
                self.stopped(end.queued, now, actions);
            }
            _ => {}
        }
    }

    /// The processes of the start are gone: nothing has to be waited for.
    fn gone(&mut self) {
        if let Some(start) = self.start() {
            start.phase = Phase::Written;
        }
    }

    fn start_exited(&mut self, end: End, now: Now, actions: &mut Vec<Action>) {
        self.gone();
        let State::Starting {
            start: Start { generation, .. },
            public,
            waiting,
            reload,
        } = &mut self.state
        else {
            return;
        };
        let (generation, public) = (*generation, *public);
        if !end.emperor && (end.queued || !waiting.is_empty() || !reload.is_empty()) {
            let mut waiting = std::mem::take(waiting);
            waiting.append(reload);
            actions.push(Action::Forget(generation));
            self.begin(public, Socket::Of(generation), waiting, now, actions);
            return;
        }
        let failure = Failure {
            reason: end.cause,
            generation,
        };
        let fault = match end.emperor {
            true => Fault::Sites,
            false => Fault::Machines,
        };
        self.fail(failure, fault, now, actions);
    }

    fn stopped(&mut self, queued: bool, now: Now, actions: &mut Vec<Action>) {
        let State::Stopping {
            generation,
            told,
            then,
            waiting,
            stoppers,
        } = std::mem::replace(&mut self.state, State::Asleep)
        else {
            return;
        };
        if !told {
            actions.push(Action::Forget(generation));
        }
        actions.extend(answers(stoppers, Answer::Asleep));
        match then {
            Then::Sleep | Then::Doze if queued || !waiting.is_empty() => {
                self.begin(false, Socket::Of(generation), waiting, now, actions);
            }
            Then::Sleep | Then::Doze => actions.push(Action::Release(generation, None)),
            Then::Release(failure) => {
                actions.push(Action::Release(generation, Some(failure)));
                if !waiting.is_empty() {
                    self.begin(false, Socket::New, waiting, now, actions);
                }
            }
        }
    }

    /// Whether early ends are a habit by now.
    fn count_end(&mut self, emperor: bool, since: Duration, now: Now) -> bool {
        if !emperor || now.monotonic.saturating_sub(since) >= self.limits.steady {
            self.forgive();
        } else {
            self.early_crashes = self.early_crashes.saturating_add(1);
        }
        self.early_crashes > self.limits.early_crashes
    }

    /// It is not restarted at once any more.
    fn crashing(&mut self, generation: Generation, now: Now) -> Failure {
        let failure = Failure {
            reason: Reason::Crashing,
            generation,
        };
        self.hold_back(failure, Fault::Sites, now);
        failure
    }

    fn crashed(&mut self, end: End, now: Now, actions: &mut Vec<Action>) {
        let State::Running {
            generation, since, ..
        } = self.state
        else {
            return;
        };
        let waiting = self.give_reload_up(actions);
        actions.push(Action::Forget(generation));
        if self.count_end(end.emperor, since, now) {
            let failure = self.crashing(generation, now);
            actions.extend(answers(waiting, Answer::Unavailable(failure)));
            actions.push(Action::Withdraw(generation));
            actions.push(Action::Release(generation, Some(failure)));
            self.state = State::Asleep;
        } else if end.emperor || end.queued || !waiting.is_empty() {
            self.begin(true, Socket::Of(generation), waiting, now, actions);
        } else {
            // Everything has gone with the Emperor: sites come back when they are asked for, not all at once. Somebody may have
            // connected since the queue was looked at.
            actions.push(Action::Withdraw(generation));
            actions.push(Action::Recount(generation));
            self.state = State::Stopping {
                generation,
                told: true,
                then: Then::Sleep,
                waiting: Vec::new(),
                stoppers: Vec::new(),
            };
        }
    }

    pub(super) fn passed(
        &mut self,
        of: Generation,
        deadline: Deadline,
        emperor: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match deadline {
            Deadline::Launch | Deadline::Start => self.late(of, deadline, emperor, now, actions),
            Deadline::Drain => self.drained(of, actions),
            Deadline::Stop => {
                let is_retiring = self
                    .retiring
                    .iter()
                    .any(|retiring| retiring.generation == of);
                let is_stopping =
                    matches!(self.state, State::Stopping { generation, .. } if generation == of);
                if is_retiring || is_stopping {
                    actions.push(Action::Kill(of));
                }
            }
        }
    }

    fn late(
        &mut self,
        of: Generation,
        deadline: Deadline,
        emperor: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let launch = self.limits.launch;
        let Some(start) = self.start().filter(|start| start.generation == of) else {
            return;
        };
        let reason = match (start.phase, deadline) {
            // So many start at once that the Emperor has not come to this one: it is asked again, not blamed.
            (Phase::Written, Deadline::Launch) if emperor => {
                actions.push(Action::Start(of));
                actions.push(Action::Remind(of, Deadline::Launch, launch));
                return;
            }
            (Phase::Written, _) => Reason::NoEmperor,
            (Phase::Launched, Deadline::Start) => Reason::StartTimeout,
            (Phase::Probing, Deadline::Start) => Reason::ProbeFailed,
            (Phase::Preparing, Deadline::Start) => Reason::NotPrepared,
            _ => return,
        };
        let fault = match reason {
            Reason::StartTimeout => Fault::Sites,
            _ => Fault::Machines,
        };
        let failure = Failure {
            reason,
            generation: of,
        };
        self.start_failed(failure, Answer::Unavailable(failure), fault, now, actions);
    }

    /// Ends the start that there is, be it the site's or a reload's.
    pub(super) fn start_failed(
        &mut self,
        failure: Failure,
        answer: Answer,
        fault: Fault,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match &self.state {
            State::Starting { .. } => self.fail_with(failure, answer, fault, now, actions),
            State::Running { .. } => self.reload_failed(failure, answer, now, actions),
            State::Asleep | State::Stopping { .. } => {}
        }
    }

    fn fail(&mut self, failure: Failure, fault: Fault, now: Now, actions: &mut Vec<Action>) {
        self.fail_with(failure, Answer::Unavailable(failure), fault, now, actions);
    }

    /// Ends a start: whoever waits is told, here and in the queue.
    fn fail_with(
        &mut self,
        failure: Failure,
        answer: Answer,
        fault: Fault,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let State::Starting {
            start: Start { generation, phase },
            public,
            waiting,
            reload,
        } = std::mem::replace(&mut self.state, State::Asleep)
        else {
            return;
        };
        self.hold_back(failure, fault, now);
        actions.extend(answers(waiting, answer));
        if public {
            actions.push(Action::Withdraw(generation));
        }
        if phase != Phase::Preparing {
            actions.push(Action::Forget(generation));
        }
        if phase == Phase::Launched {
            // The processes still hold the socket: what waits in its queue is answered when they are gone.
            actions.push(Action::Kill(generation));
            self.state = State::Stopping {
                generation,
                told: true,
                then: Then::Release(failure),
                waiting: reload,
                stoppers: Vec::new(),
            };
        } else {
            actions.push(Action::Release(generation, Some(failure)));
            if !reload.is_empty() {
                // They want the code that is there now, not the one that has just failed.
                self.begin(false, Socket::New, reload, now, actions);
            }
        }
    }
}
