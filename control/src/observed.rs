//! What this machine, if it is a balancer, knows of the backends now: what nginx's workers share, and what the daemon's probes say.
//! For commands that show it; none of it is in the registry.

use std::time::Duration;

use activity::backends::{Entry, Reader, Seen};
use hyper::Method;
use routing::State;
use routing::health::{Event, Health, Settings, is_panic};

use crate::client;
use crate::model::{Backend, BackendId};
use crate::probe::Known;
use crate::settings::{self, BackendsFrom, Role};

/// A daemon that takes longer is asked in vain.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known.
#[derive(Debug, Default)]
pub struct Observed {
    seen: Option<Seen>,
    known: Vec<Known>,
    /// When it was looked at, in milliseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
    /// How the balancer judges.
    pub eject: Settings,
}

/// A backend's report of itself, as far as it is used here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Sites with processes.
    pub awake: Option<u64>,
    /// Bytes of memory.
    pub memory_total: Option<u64>,
    /// Bytes of it that are left.
    pub memory_available: Option<u64>,
    /// What its sites have of it.
    pub sites_memory: Option<u64>,
}

impl Observed {
    /// What this machine knows; nothing if it is no balancer, or nginx does not run.
    pub fn of(settings: &settings::Settings) -> Self {
        if !settings.has(Role::Balancer) || settings.balancer.backends != BackendsFrom::Live {
            return Self::default();
        }
        let paths = settings.paths();
        let seen = Reader::new(&paths.monitor()).look();
        let answer = client::ask(&paths.control_socket(), Method::GET, "/backends", PATIENCE);
        let known = answer
            .ok()
            .filter(|answer| answer.status.is_success())
            .and_then(|answer| serde_json::from_str(&answer.body).ok());
        let eject = &settings.balancer.eject;
        Self {
            seen: seen.unwrap_or_default(),
            known: known.unwrap_or_default(),
            now: activity::now(),
            eject: Settings {
                failures: eject.failures,
                time: eject.time.millis(),
                max_time: eject.max_time.millis(),
                return_time: eject.return_time.millis(),
            },
        }
    }

    /// What nginx's workers share about a backend.
    pub fn entry(&self, id: BackendId) -> Option<&Entry> {
        self.seen.as_ref()?.backends.get(&id.get().into())
    }

    /// Its health as the workers have it; that of one nobody has heard of is good.
    fn health(&self, id: BackendId) -> Health {
        let word = self.entry(id).map_or(0, |entry| entry.health);
        Health::from_word(word)
    }

    /// Its health, as a worker would see it at its next request.
    pub fn now_of(&self, id: BackendId) -> Health {
        let health = self.health(id);
        match self.probed(id).and_then(|known| known.serves) {
            Some(false) if self.eject.failures > 0 => {
                let until = u64::MAX;
                health.step(self.now, Event::Down { until }, &self.eject).0
            }
            Some(true) => health.step(self.now, Event::Up, &self.eject).0,
            _ => health,
        }
    }

    /// Its health in a word; none if nobody here can know.
    pub fn word(&self, id: BackendId) -> Option<&'static str> {
        let is_known = self.seen.is_some() || self.probed(id).is_some();
        is_known.then(|| self.now_of(id).word(self.now, &self.eject))
    }

    /// What probes say of it.
    pub fn probed(&self, id: BackendId) -> Option<&Known> {
        self.known.iter().find(|known| known.id == id.get())
    }

    /// What it says of itself.
    pub fn report(&self, id: BackendId) -> Report {
        let report = self.probed(id).and_then(|known| known.report.as_ref());
        let number = |pointer: &str| report?.pointer(pointer)?.as_u64();
        Report {
            awake: number("/report/awake"),
            memory_total: number("/report/memory/total"),
            memory_available: number("/report/memory/available"),
            sites_memory: number("/report/sites_memory"),
        }
    }

    /// Whether health is ignored, as more than half look unhealthy.
    pub fn is_panic(&self, backends: impl Iterator<Item = (BackendId, State)>) -> bool {
        let in_service: Vec<_> = backends
            .filter(|(_, state)| *state != State::Disabled)
            .collect();
        let unhealthy = in_service
            .iter()
            .filter(|(id, _)| !self.now_of(*id).is_in_service())
            .count();
        is_panic(unhealthy, in_service.len())
    }

    /// How it is, for a line of a listing: why it does not serve, if it does not.
    pub fn why(&self, backend: &Backend) -> Option<&str> {
        self.probed(backend.id)?.why.as_deref()
    }
}

/// Bytes as people read them.
pub fn bytes(number: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("G", 30), ("M", 20), ("K", 10)];
    let found = UNITS.iter().find(|(_, shift)| number >> shift > 0);
    match found {
        Some((unit, shift)) => {
            let tenths = (number >> (shift - 10)) * 10 / 1024;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => number.to_string(),
    }
}

/// A length of time as people read it.
pub fn ago(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(512), "512");
        assert_eq!(bytes(1536), "1.5K");
        assert_eq!(bytes(24_602_204 * 1024), "23.4G");
        assert_eq!(
            (ago(12), ago(119_999)),
            ("12ms".to_owned(), "119s".to_owned())
        );
        assert_eq!(
            (ago(120_000), ago(7_200_000)),
            ("2m".to_owned(), "2h".to_owned())
        );
    }
}
