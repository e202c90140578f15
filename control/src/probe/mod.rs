//! Active health: a balancer's daemon probes every backend, and writes what it thinks of each where nginx's workers read it.
//!
//! A backend's nginx answers (`paas_health`) with what its daemon last wrote down; the answer alone shows that nginx works. Whoever
//! does not answer, or says himself that he cannot serve, several times in a row, gets no requests until he does. A daemon that is dead
//! takes nobody out: neither the backend's, whose nginx goes on, nor the balancer's own, whose verdicts end by themselves.

pub mod ask;
mod known;
mod verdict;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use activity::backends::{Board, Reader, Verdict};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::follow::Follower;
use crate::initialize::prepare::{SharedRegistry, with_registry};
use crate::model::{Backend, BackendId, State};
use crate::settings::{Probe, Settings};
use ask::Found;
pub use known::{Known, Opinions};
use verdict::Judge;

/// A canary must fail so often in a row.
const CANARY_FAILURES: u8 = 3;

/// Probes the backends of a registry.
pub struct Prober {
    settings: Probe,
    registry: SharedRegistry,
    follower: Follower,
    shared: Shared,
    tasks: HashMap<BackendId, (SocketAddr, State, JoinHandle<()>)>,
}

/// What all of its tasks use.
#[derive(Clone)]
struct Shared {
    opinions: Opinions,
    board: Arc<Mutex<Board>>,
    reader: Arc<Reader>,
}

impl Prober {
    /// A prober for this machine; what it finds out is to be seen in `opinions`.
    pub fn new(
        settings: &Settings,
        registry: SharedRegistry,
        follower: Follower,
        opinions: Opinions,
    ) -> Self {
        let directory = settings.paths().monitor();
        Self {
            settings: settings.balancer.probe.clone(),
            registry,
            follower,
            shared: Shared {
                opinions,
                board: Arc::new(Mutex::new(Board::new(&directory))),
                reader: Arc::new(Reader::new(&directory)),
            },
            tasks: HashMap::new(),
        }
    }

    /// Runs until the follower ends. Backends that come are probed, and those that go are not.
    pub async fn run(mut self) {
        let mut revision = self.follower.revision();
        revision.mark_changed();
        while revision.changed().await.is_ok() {
            let read = with_registry(&self.registry, |registry| registry.view()?.backends());
            match read.await {
                Ok(backends) => self.set(backends),
                Err(problem) => {
                    tracing::error!(%problem, "cannot look which backends there are; those known are probed");
                }
            }
        }
    }

    fn set(&mut self, backends: Vec<Backend>) {
        let gone = |id: &BackendId| !backends.iter().any(|backend| backend.id == *id);
        self.tasks.retain(|id, (_, _, task)| {
            let gone = gone(id);
            if gone {
                task.abort();
                self.shared.opinions.forget(*id);
            }
            !gone
        });
        for backend in backends {
            let (id, address, state) = (backend.id, backend.address, backend.state);
            if let Some((at, was, task)) = self.tasks.get(&id) {
                if (*at, *was) == (address, state) {
                    self.shared.opinions.rename(id, &backend.name);
                    continue;
                }
                task.abort();
            }
            let one = One {
                settings: self.settings.clone(),
                shared: self.shared.clone(),
                backend,
            };
            one.shared.opinions.begin(&one.backend);
            let task = tokio::spawn(one.run());
            self.tasks.insert(id, (address, state, task));
        }
    }
}

/// One backend.
struct One {
    settings: Probe,
    shared: Shared,
    backend: Backend,
}

impl One {
    async fn run(self) {
        // Why the canary is not well, if it is not.
        let canary = Mutex::new(None);
        tokio::join!(self.watch(&canary), self.watch_canary(&canary));
    }

    async fn watch(&self, canary: &Mutex<Option<String>>) {
        let mut judge = Judge::new(self.settings.failures, self.settings.successes);
        let mut ticks = tokio::time::interval(self.settings.interval.duration());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = activity::now();
            let found = ask::health(self.backend.address, self.settings.timeout).await;
            let why = self.why_not(&found, began).or_else(|| lock(canary).clone());
            let changed = judge.hear(why.is_none());
            self.shared
                .opinions
                .hear(self.backend.id, &found, judge.serves(), why.as_deref());
            if changed {
                self.log(judge, why.as_deref());
            }
            if changed || judge.serves() == Some(false) {
                self.say(judge);
            }
        }
    }

    /// Why it does not serve, if it does not.
    fn why_not(&self, found: &Found, began: u64) -> Option<String> {
        match found {
            Found::Serves(_) | Found::Unclear(_) => None,
            Found::Cannot(reason, _) => Some(format!("it says: {reason}")),
            Found::Unreached(why) => Some(why.clone()),
            // It may be slow at this and answer visitors all the same.
            Found::Silent => {
                let id = self.backend.id.get().into();
                let last = self.shared.reader.last_answer(id).unwrap_or(0);
                let silent = || format!("no answer within {}", self.settings.timeout);
                (last < began).then(silent)
            }
        }
    }

    /// Tells nginx's workers.
    fn say(&self, judge: Judge) {
        let verdict = match judge.serves() {
            Some(true) | None => Verdict::Up,
            Some(false) => Verdict::Down {
                until: activity::now() + self.holds(),
            },
        };
        let mut board = lock(&self.shared.board);
        if let Err(problem) = board.say(self.backend.id.get().into(), verdict) {
            tracing::error!(%problem, backend = %self.backend.name, "cannot tell nginx what probes say");
        }
    }

    /// For how many milliseconds a verdict holds: until several probes more should have been answered.
    fn holds(&self) -> u64 {
        4 * self.settings.interval.millis() + 4 * self.settings.timeout.millis() + 1_000
    }

    fn log(&self, judge: Judge, why: Option<&str>) {
        let Backend { name, address, .. } = &self.backend;
        let why = why.unwrap_or("");
        match judge.serves() {
            Some(false) => {
                tracing::warn!(backend = %name, %address, why, "fails its probes and gets no requests");
            }
            _ => tracing::info!(backend = %name, %address, "answers its probes"),
        }
    }

    async fn watch_canary(&self, state: &Mutex<Option<String>>) {
        let Some(canary) = &self.settings.canary else {
            return;
        };
        if self.backend.state != State::Active {
            return;
        }
        let mut judge = Judge::new(CANARY_FAILURES, 1);
        let mut ticks = tokio::time::interval(self.settings.canary_interval.duration());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (connect, within) = (self.settings.timeout, self.settings.canary_timeout);
        loop {
            ticks.tick().await;
            let asked = ask::canary(self.backend.address, canary, connect, within).await;
            let Some(answer) = asked else { continue };
            judge.hear(answer.is_ok());
            *lock(state) = match (judge.serves(), answer) {
                (Some(false), Err(why)) => Some(format!("canary {}: {why}", canary.host)),
                (Some(false), Ok(())) => continue,
                _ => None,
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long ago something was, in whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
