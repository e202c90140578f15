//! How generations end: by themselves, by order, by a deadline; and what begins afterwards.

use std::time::Duration;

use super::super::words::{
    Action, Answer, Deadline, Failure, Generation, Now, Reason, Socket, Visitor,
};
use super::reload::answers;
use super::{Machine, Phase, Start, State, Then};

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
                let reloaders = self.give_reload_up(actions);
                actions.extend(answers(reloaders, Answer::Asleep));
                self.stop(Then::Sleep, vec![visitor], actions);
            }
            State::Starting { start, .. } => {
                let failure = Failure {
                    reason: Reason::Restarting,
                    generation: start.generation,
                };
                self.fail(failure, Duration::ZERO, now, actions);
                // As far as it had come, it is stopping now, or gone.
                self.stop_ordered(visitor, now, actions);
            }
        }
    }

    /// The Emperor, or uWSGI itself, has told the processes to end: nothing is left to wait for.
    pub(super) fn stop_announced(&mut self, of: Generation, now: Now, actions: &mut Vec<Action>) {
        match &self.state {
            State::Running { generation, .. } if *generation == of => {
                self.early_crashes = 0;
                self.stop(Then::Sleep, Vec::new(), actions);
            }
            _ => {}
        }
        let _ = now;
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
                let reloaders = self.give_reload_up(actions);
                actions.extend(answers(reloaders, Answer::Unavailable(failure)));
                self.stop(Then::Release(failure), Vec::new(), actions);
            }
            State::Starting { start, .. } => {
                self.fail(disabled(start.generation), Duration::ZERO, now, actions);
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
                    Duration::ZERO,
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
        self.fail(failure, self.limits.pause, now, actions);
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

    fn crashed(&mut self, end: End, now: Now, actions: &mut Vec<Action>) {
        let State::Running {
            generation, since, ..
        } = self.state
        else {
            return;
        };
        let waiting = self.give_reload_up(actions);
        let steady = now.monotonic.saturating_sub(since) >= self.limits.steady;
        self.early_crashes = if !end.emperor || steady {
            0
        } else {
            self.early_crashes.saturating_add(1)
        };
        actions.push(Action::Forget(generation));
        if self.early_crashes > self.limits.early_crashes {
            let failure = Failure {
                reason: Reason::Crashing,
                generation,
            };
            actions.extend(answers(waiting, Answer::Unavailable(failure)));
            actions.push(Action::Withdraw(generation));
            actions.push(Action::Release(generation, Some(failure)));
            self.failing = Some((failure, now.monotonic + self.limits.pause));
            self.state = State::Asleep;
        } else if end.emperor || end.queued || !waiting.is_empty() {
            self.begin(true, Socket::Of(generation), waiting, now, actions);
        } else {
            // Everything has gone with the Emperor: sites come back when they are asked for, not all at once.
            actions.push(Action::Withdraw(generation));
            actions.push(Action::Release(generation, None));
            self.state = State::Asleep;
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
        let (pause, launch) = (self.limits.pause, self.limits.launch);
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
        let failure = Failure {
            reason,
            generation: of,
        };
        self.start_failed(failure, Answer::Unavailable(failure), pause, now, actions);
    }

    /// Ends the start that there is, be it the site's or a reload's.
    pub(super) fn start_failed(
        &mut self,
        failure: Failure,
        answer: Answer,
        pause: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match &self.state {
            State::Starting { .. } => self.fail_with(failure, answer, pause, now, actions),
            State::Running { .. } => self.reload_failed(failure, answer, now, actions),
            State::Asleep | State::Stopping { .. } => {}
        }
    }

    fn fail(&mut self, failure: Failure, pause: Duration, now: Now, actions: &mut Vec<Action>) {
        self.fail_with(failure, Answer::Unavailable(failure), pause, now, actions);
    }

    /// Ends a start: whoever waits is told, here and in the queue.
    fn fail_with(
        &mut self,
        failure: Failure,
        answer: Answer,
        pause: Duration,
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
        self.failing = (!pause.is_zero()).then(|| (failure, now.monotonic + pause));
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
