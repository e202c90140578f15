//! How generations end: by themselves, by order, by a deadline; and what begins afterwards.

use std::time::Duration;

use super::super::words::{Action, Answer, Deadline, Failure, Generation, Now, Reason, Visitor};
use super::{Machine, Phase, State, Then};

impl Machine {
    /// From running to stopping: no new requests, and the Emperor is told.
    pub(super) fn stop(&mut self, then: Then, waiting: Vec<Visitor>, actions: &mut Vec<Action>) {
        if let State::Running { generation, .. } = self.state {
            actions.push(Action::Withdraw);
            actions.push(Action::Forget(generation));
            actions.push(Action::Remind(generation, Deadline::Stop, self.limits.stop));
            self.state = State::Stopping {
                generation,
                then,
                waiting,
            };
        }
    }

    pub(super) fn exited(
        &mut self,
        queued: bool,
        emperor: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match std::mem::replace(&mut self.state, State::Asleep) {
            State::Asleep => {}
            State::Starting {
                generation,
                public,
                waiting,
                ..
            } => {
                if !emperor && (queued || !waiting.is_empty()) {
                    actions.push(Action::Forget(generation));
                    self.begin(public, waiting, now, actions);
                } else {
                    // The processes are gone: nothing has to be waited for.
                    self.state = State::Starting {
                        generation,
                        phase: Phase::Written,
                        public,
                        waiting,
                    };
                    let failure = Failure {
                        reason: Reason::StartFailed,
                        generation,
                    };
                    self.fail(
                        failure,
                        Answer::Unavailable(failure),
                        self.limits.pause,
                        now,
                        actions,
                    );
                }
            }
            State::Running { generation, since } => {
                self.crashed(generation, since, queued, emperor, now, actions)
            }
            State::Stopping {
                then: Then::Sleep,
                waiting,
                ..
            } => {
                if queued || !waiting.is_empty() {
                    self.begin(false, waiting, now, actions);
                } else {
                    actions.push(Action::Release(None));
                }
            }
            State::Stopping {
                then: Then::Release(failure),
                waiting,
                ..
            } => {
                actions.push(Action::Release(Some(failure)));
                if !waiting.is_empty() {
                    self.begin(false, waiting, now, actions);
                }
            }
        }
    }

    pub(super) fn crashed(
        &mut self,
        generation: Generation,
        since: Duration,
        queued: bool,
        emperor: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let steady = now.monotonic.saturating_sub(since) >= self.limits.steady;
        self.early_crashes = if !emperor || steady {
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
            actions.extend([Action::Withdraw, Action::Release(Some(failure))]);
            self.failing = Some((failure, now.monotonic + self.limits.pause));
        } else if emperor || queued {
            self.begin(true, Vec::new(), now, actions);
        } else {
            // Everything has gone with the Emperor: sites come back when they are asked for, not all at once.
            actions.extend([Action::Withdraw, Action::Release(None)]);
        }
    }

    pub(super) fn passed(
        &mut self,
        deadline: Deadline,
        emperor: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match (&self.state, deadline) {
            // So many start at once that the Emperor has not come to this one: it is asked again, not blamed.
            (
                &State::Starting {
                    generation,
                    phase: Phase::Written,
                    ..
                },
                Deadline::Launch,
            ) if emperor => {
                actions.push(Action::Start(generation));
                actions.push(Action::Remind(
                    generation,
                    Deadline::Launch,
                    self.limits.launch,
                ));
            }
            (
                &State::Starting {
                    generation,
                    phase: Phase::Written,
                    ..
                },
                Deadline::Launch | Deadline::Start,
            ) => {
                let failure = Failure {
                    reason: Reason::NoEmperor,
                    generation,
                };
                self.fail(
                    failure,
                    Answer::Unavailable(failure),
                    self.limits.pause,
                    now,
                    actions,
                );
            }
            (
                &State::Starting {
                    generation, phase, ..
                },
                Deadline::Start,
            ) => {
                let launched = phase == Phase::Launched;
                let reason = if launched {
                    Reason::StartTimeout
                } else {
                    Reason::NotPrepared
                };
                let failure = Failure { reason, generation };
                self.fail(
                    failure,
                    Answer::Unavailable(failure),
                    self.limits.pause,
                    now,
                    actions,
                );
            }
            (&State::Stopping { generation, .. }, Deadline::Stop) => {
                actions.push(Action::Kill(generation))
            }
            _ => {}
        }
    }

    /// Ends a start: whoever waits is told, here and in the queue.
    pub(super) fn fail(
        &mut self,
        failure: Failure,
        answer: Answer,
        pause: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let State::Starting {
            generation,
            phase,
            public,
            waiting,
        } = std::mem::replace(&mut self.state, State::Asleep)
        else {
            return;
        };
        self.failing = (!pause.is_zero()).then(|| (failure, now.monotonic + pause));
        actions.extend(
            waiting
                .into_iter()
                .map(|visitor| Action::Answer(visitor, answer)),
        );
        if public {
            actions.push(Action::Withdraw);
        }
        if phase != Phase::Preparing {
            actions.push(Action::Forget(generation));
        }
        if phase == Phase::Launched {
            // The processes still hold the socket: what waits in its queue is answered when they are gone.
            actions.push(Action::Kill(generation));
            self.state = State::Stopping {
                generation,
                then: Then::Release(failure),
                waiting: Vec::new(),
            };
        } else {
            actions.push(Action::Release(Some(failure)));
        }
    }
}
