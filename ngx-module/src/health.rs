//! `paas_eject`: which backends of the table fail, known to all workers. `routing::health` decides, this remembers. What the daemon's
//! probes say is another event to it: `paas_monitor` has the place where the daemon writes it.
//!
//! Every backend has an entry of atomics in shared memory, found by its number. Nothing is locked; a reload hands the entries on. An
//! entry that a race gave to another backend is noticed by its number, and that backend then counts as healthy until the backends
//! change again.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use activity::backends::Verdict;
use activity::backends::layout::{BACKENDS, HEALTH as WORDS, Known};
use routing::State;
use routing::health::{Action, Event, Health, Settings};
use routing::rendezvous::key_hash;
use table::BackendId;

use crate::ffi::conf::{Conf, Refusal};
use crate::ffi::shm::{Entry, Zone};
use crate::ffi::{milliseconds, prefetch};
use crate::monitor::Monitor;

/// Answers closer together than this are noted as one: workers would only contend for the place.
const GRAIN: u64 = 50;

/// What is known of the backends of the table.
pub(crate) struct Watch {
    memory: Memory,
    settings: Settings,
}

/// Where the entries are. The first one is about all backends.
enum Memory {
    /// In memory of nginx's own; a reload copies it.
    Zone(Zone<WORDS>),
    /// In the file of `paas_monitor`.
    File(Monitor),
}

/// What is said about a backend when the list of them is new.
pub(crate) struct Enrolled<'a> {
    pub(crate) id: BackendId,
    pub(crate) address: &'a [u8],
    pub(crate) state: State,
}

/// Where a backend's entry is, if it has one.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) id: BackendId,
    pub(crate) index: u32,
}

impl Watch {
    /// Remembers in this file, or else asks nginx for memory.
    pub(crate) fn add(
        conf: Conf<'_>,
        settings: Settings,
        monitor: Option<Monitor>,
    ) -> Result<Self, Refusal> {
        if let Some(monitor) = monitor {
            return Ok(Self {
                memory: Memory::File(monitor),
                settings,
            });
        }
        let zone = Zone::add(conf, "paas_eject", 1 + BACKENDS, |old, new| {
            for (old, new) in old.iter().zip(new) {
                for (old, new) in old.iter().zip(new) {
                    new.store(old.load(Relaxed), Relaxed);
                }
            }
        })?;
        Ok(Self {
            memory: Memory::Zone(zone),
            settings,
        })
    }

    fn entries(&self) -> &[Entry<WORDS>] {
        match &self.memory {
            Memory::Zone(zone) => zone.entries(),
            Memory::File(monitor) => monitor.health(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Differs after a backend was ejected, tried or readmitted.
    pub(crate) fn epoch(&self) -> u64 {
        match self.entries() {
            [[epoch, ..], ..] => epoch.load(Relaxed),
            [] => 0,
        }
    }

    fn turn(&self) {
        if let [[epoch, ..], ..] = self.entries() {
            epoch.fetch_add(1, Relaxed);
        }
    }

    /// Gives each backend its entry, in the same order, and takes those back of backends that are gone. A backend that is new,
    /// that was out of service, or that has moved is a newcomer.
    pub(crate) fn enroll(&self, backends: &[Enrolled<'_>], now: u64) -> Vec<Option<Place>> {
        let [_, entries @ ..] = self.entries() else {
            return backends.iter().map(|_| None).collect();
        };
        let newcomer = match self.has_begun(now) {
            true => Health::of_newcomer(now),
            false => Health::default(),
        };
        let wanted: HashMap<u64, ()> = backends.iter().map(|one| (number(one.id), ())).collect();
        let mut places = HashMap::new();
        let mut free = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let [id, ..] = entry;
            let id = id.load(Relaxed);
            if id != 0 && !wanted.contains_key(&id) {
                clear(entry);
            }
            match id != 0 && wanted.contains_key(&id) {
                true => drop(places.insert(id, index)),
                false if free.len() < backends.len() => free.push(index),
                false => (),
            }
        }
        let mut free = free.into_iter();
        let enroll = |one: &Enrolled<'_>| {
            let id = number(one.id);
            let index = match places.get(&id) {
                Some(index) => *index,
                None => {
                    free.find(|index| entries.get(*index).is_some_and(|entry| claim(entry, id)))?
                }
            };
            let known = Known::of(entries.get(index)?);
            let is_out = u64::from(one.state == State::Disabled);
            let was_out = known.out.swap(is_out, Relaxed) > is_out;
            let at = key_hash(one.address);
            if known.address.swap(at, Relaxed) != at || was_out {
                known.health.store(newcomer.to_word(), Relaxed);
                self.turn();
            }
            Some(Place {
                id: one.id,
                index: u32::try_from(index).ok()?,
            })
        };
        backends.iter().map(enroll).collect()
    }

    /// Whether this balancer runs for so long that it can know who is new.
    fn has_begun(&self, now: u64) -> bool {
        let [[_, begun, ..], ..] = self.entries() else {
            return false;
        };
        let begun = begun.compare_exchange(0, now.max(1), Relaxed, Relaxed);
        begun.is_err_and(|begun| now.saturating_sub(begun) > self.settings.return_time)
    }

    /// Differs when the daemon's probes have news.
    pub(crate) fn news(&self) -> u64 {
        match &self.memory {
            Memory::Zone(_) => 0,
            Memory::File(monitor) => monitor.news(),
        }
    }

    /// What they say.
    pub(crate) fn verdicts(&self) -> Vec<(u64, Verdict)> {
        match &self.memory {
            Memory::Zone(_) => Vec::new(),
            Memory::File(monitor) => monitor.verdicts().collect(),
        }
    }

    /// Probes say this of a backend.
    pub(crate) fn probed(&self, place: Option<Place>, verdict: Verdict, now: u64) -> Action {
        let Some(of) = self.of(place) else {
            return Action::Nothing;
        };
        let event = match verdict {
            Verdict::Up => Event::Up,
            Verdict::Down { until } => Event::Down { until },
        };
        let action = self.step(&of, now, event);
        if action == Action::Readmit && !self.has_begun(now) {
            // Machines that were started together with this one, and a little later.
            of.health.store(Health::default().to_word(), Relaxed);
        }
        action
    }

    fn of(&self, place: Option<Place>) -> Option<Known<'_, AtomicU64>> {
        let place = place?;
        let entries = self.entries().get(1..)?;
        let known = Known::of(entries.get(place.index as usize)?);
        (known.id.load(Relaxed) == number(place.id)).then_some(known)
    }

    /// The health of a backend.
    pub(crate) fn health(&self, place: Option<Place>) -> Health {
        self.of(place).map_or_else(Health::default, |of| {
            Health::from_word(of.health.load(Relaxed))
        })
    }

    /// What it answers will be noted soon.
    pub(crate) fn expect(&self, place: Option<Place>) {
        let entries = self.entries().get(1..).zip(place);
        if let Some(entry) = entries.and_then(|(all, place)| all.get(place.index as usize)) {
            prefetch(entry);
        }
    }

    /// A request is about to be sent there.
    pub(crate) fn chosen(&self, place: Option<Place>, now: u64) -> Action {
        match self.of(place) {
            Some(of) => self.step(&of, now, Event::Chosen),
            None => Action::Nothing,
        }
    }

    /// It answered.
    pub(crate) fn answered(&self, place: Option<Place>) -> Action {
        let Some(of) = self.of(place) else {
            return Action::Nothing;
        };
        let now = milliseconds();
        if now.saturating_sub(of.last_answer.load(Relaxed)) >= GRAIN {
            of.last_answer.store(now, Relaxed);
        }
        if of.health.load(Relaxed) == Health::default().to_word() {
            return Action::Nothing;
        }
        self.step(&of, now, Event::Answered)
    }

    /// A request that was sent then has failed, and the backend is to blame.
    pub(crate) fn failed(&self, place: Option<Place>, sent: u64) -> Action {
        let Some(of) = self.of(place) else {
            return Action::Nothing;
        };
        let now = milliseconds();
        of.last_failure.store(now, Relaxed);
        of.failures.fetch_add(1, Relaxed);
        let action = self.step(&of, now, Event::Failed { sent });
        if let Action::Eject(_) = action {
            of.ejections.fetch_add(1, Relaxed);
        }
        action
    }

    /// A request that was sent then got no answer in time. A site may be slow by itself: the backend is to blame only if it has
    /// answered nobody else either since.
    pub(crate) fn was_silent(&self, place: Option<Place>, sent: u64) -> Action {
        let last_answer = self.of(place).map_or(0, |of| of.last_answer.load(Relaxed));
        match last_answer + GRAIN > sent {
            true => Action::Nothing,
            false => self.failed(place, sent),
        }
    }

    fn step(&self, of: &Known<'_, AtomicU64>, now: u64, event: Event) -> Action {
        let mut action = Action::Nothing;
        let _ = of.health.fetch_update(Relaxed, Relaxed, |word| {
            let after;
            (after, action) = Health::from_word(word).step(now, event, &self.settings);
            (after.to_word() != word).then_some(after.to_word())
        });
        if !matches!(action, Action::Nothing | Action::Avoid) {
            self.turn();
        }
        action
    }
}

fn number(id: BackendId) -> u64 {
    id.get().into()
}

fn clear([id, rest @ ..]: &Entry<WORDS>) {
    for word in rest {
        word.store(0, Relaxed);
    }
    id.store(0, Relaxed);
}

fn claim([place, ..]: &Entry<WORDS>, id: u64) -> bool {
    place.compare_exchange(0, id, Relaxed, Relaxed).is_ok()
}
