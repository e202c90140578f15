//! Who may start and who may wait: the driver's side of admission.

use std::sync::Arc;
use std::thread::available_parallelism;

use serde::Serialize;

use super::super::admission::{Admission, Memory, Urgency};
use super::super::words::{Answer, Event, Failure, Generation, Reason, Visit};
use super::super::{memory, process};
use super::Driver;
use crate::model::SiteId;
use crate::settings::Waking;
use crate::watch::Readable;

/// Starts for each core at once: while one waits for its disk, another computes.
const STARTS_PER_CORE: usize = 2;

/// What the machine bears.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) starts: usize,
    memory_reserve: u64,
    parked_per_site: usize,
    parked: usize,
}

impl Bounds {
    pub(super) fn new(waking: &Waking) -> Bounds {
        let cores = available_parallelism().map_or(1, usize::from);
        Bounds {
            starts: waking.starts.unwrap_or(cores * STARTS_PER_CORE),
            memory_reserve: waking.memory_reserve,
            parked_per_site: waking.parked_per_site,
            parked: waking.parked,
        }
    }
}

/// What waits and what starts, beside what the machine bears; "most" is since the daemon began.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// The starts of sites.
    pub starts: Starts,
    /// The requests that wait for them, and the operator's orders.
    pub parked: Parked,
}

/// See [`Load`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Starts {
    /// So many at once.
    pub at_once: usize,
    /// Under way.
    pub now: usize,
    /// Wait for their turn.
    pub waiting: usize,
    /// The most that were under way at once.
    pub most: usize,
}

/// See [`Load`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parked {
    /// So many for one site.
    pub per_site: usize,
    /// So many in all.
    pub in_all: usize,
    /// That many now.
    pub now: usize,
    /// The most there were at once.
    pub most: usize,
    /// The most there were for one site.
    pub most_per_site: usize,
    /// How many found no place.
    pub turned_away: u64,
}

/// What is only counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    most: usize,
    most_per_site: usize,
    turned_away: u64,
}

impl Driver {
    /// A site wants to start this generation.
    pub(super) fn ask(&mut self, site: SiteId, generation: Generation) {
        self.admission.done(site);
        self.asking.insert(site, generation);
        self.admission.ask(site, self.urgency(site));
    }

    fn urgency(&self, site: SiteId) -> Urgency {
        match self.sites.get(&site) {
            Some(entry) if entry.machine.waiting() == 0 => Urgency::Unvisited,
            Some(entry) if entry.failed => Urgency::Retry,
            _ => Urgency::Visited,
        }
    }

    /// The process of the site, when a request broke off because its program has ended, and nobody here has heard of that yet:
    /// taken for one that the running site failed, it would not be sent again.
    pub(super) fn ended_unheard(&self, site: SiteId, visit: Visit) -> Option<Arc<Readable>> {
        let entry = self.sites.get(&site).filter(|_| visit.sent)?;
        let life = entry.lives.get(&entry.machine.serving()?)?;
        life.process
            .clone()
            .filter(|running| process::has_ended(running))
    }

    /// A visitor waits for this site now; if it waits for its turn, it may have become more urgent.
    pub(super) fn hurry(&mut self, site: SiteId) {
        if self.asking.contains_key(&site) {
            self.admission.ask(site, self.urgency(site));
        }
    }

    /// Lets start who may. Called after everything that can make room or want it.
    pub(super) fn admit_starts(&mut self) {
        while self.admission.waiting() > 0 {
            let memory = self.memory();
            let Some(site) = self.admission.next(memory) else {
                return;
            };
            let Some(generation) = self.asking.remove(&site) else {
                self.admission.done(site);
                continue;
            };
            if self.is_deserted(site) {
                // All have gone who waited: others first.
                self.ask_again(site, generation);
                continue;
            }
            self.begin(site, generation);
            self.step(site, Event::Admitted(generation));
        }
    }

    /// Whether visitors wanted it who all have given up, for the first time.
    fn is_deserted(&mut self, site: SiteId) -> bool {
        let waiting = &self.waiting;
        let Some(entry) = self.sites.get_mut(&site) else {
            return false;
        };
        if entry.deserted || entry.machine.waiting() == 0 {
            return false;
        }
        entry.deserted = !waiting
            .values()
            .any(|(of, answer)| *of == site && !answer.is_closed());
        entry.deserted
    }

    fn ask_again(&mut self, site: SiteId, generation: Generation) {
        self.admission.done(site);
        self.asking.insert(site, generation);
        self.admission.ask(site, Urgency::Unvisited);
    }

    /// A site that is not on its way up any more makes room.
    pub(super) fn make_room(&mut self, site: SiteId) {
        let rising = self
            .sites
            .get(&site)
            .is_some_and(|entry| entry.machine.is_rising());
        if !rising {
            self.admission.done(site);
            self.asking.remove(&site);
        }
    }

    /// What a visitor is told at once because too many wait already.
    pub(super) fn turn_away(&mut self, site: SiteId, visit: Visit) -> Option<Answer> {
        let now = self.now();
        let entry = self.sites.get(&site);
        if entry.is_some_and(|entry| !entry.machine.parks(visit, now)) {
            return None;
        }
        if entry.is_none() && !(visit.may_be_replayed() && visit.may_wake) {
            return None;
        }
        let of_site = entry.map_or(0, |entry| entry.machine.waiting());
        let last = entry.and_then(|entry| entry.machine.last());
        if of_site < self.bounds.parked_per_site && self.waiting.len() < self.bounds.parked {
            return None;
        }
        // Those who have given up meanwhile do not count.
        self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        let of_site = self.waiting.values().filter(|(of, _)| *of == site).count();
        if of_site < self.bounds.parked_per_site && self.waiting.len() < self.bounds.parked {
            return None;
        }
        self.tally.turned_away += 1;
        Some(Answer::Unavailable(Failure {
            reason: Reason::Crowded,
            generation: last.unwrap_or_else(|| Generation::after(None, now.unix)),
        }))
    }

    /// Somebody may wait for this site now.
    pub(super) fn tally_parked(&mut self, site: SiteId) {
        let of_site = self
            .sites
            .get(&site)
            .map_or(0, |entry| entry.machine.waiting());
        let tally = &mut self.tally;
        tally.most = tally.most.max(self.waiting.len());
        tally.most_per_site = tally.most_per_site.max(of_site);
    }

    /// What waits and what starts.
    pub(super) fn load(&self) -> Load {
        Load {
            starts: Starts {
                at_once: self.bounds.starts,
                now: self.admission.starting(),
                waiting: self.admission.waiting(),
                most: self.admission.most(),
            },
            parked: Parked {
                per_site: self.bounds.parked_per_site,
                in_all: self.bounds.parked,
                now: self.waiting.len(),
                most: self.tally.most,
                most_per_site: self.tally.most_per_site,
                turned_away: self.tally.turned_away,
            },
        }
    }

    /// The machine's memory, if the kernel tells.
    pub(super) fn memory(&self) -> Option<Memory> {
        memory::available().map(|available| Memory {
            available,
            reserve: self.bounds.memory_reserve,
        })
    }

    /// For how many starts there should be memory: those under way, and the next.
    pub(super) fn room(&self) -> usize {
        self.admission.starting() + usize::from(self.admission.waiting() > 0)
    }

    pub(super) fn new_admission(bounds: &Bounds) -> Admission {
        Admission::new(bounds.starts)
    }
}
