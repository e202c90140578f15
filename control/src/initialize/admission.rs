//! Which sites may start now: as many at once as the machine bears, those first that somebody waits for.
//!
//! A start costs a core for as long as the application is loaded, and then memory for as long as it lives. So starts are
//! admitted a few at a time, and one at a time when memory is short (never none: a machine that is always short would wake
//! nothing). Who waits longest comes first. Pure: no clock, no IO.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::SiteId;

/// What a start is taken to need until it is seen what it took: two processes of a middling application.
pub const MEMORY: u64 = 64 << 20;

/// How much a start matters. A lesser one waits for all greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Visitors wait for it.
    Visited,
    /// Visitors wait, but the last start failed.
    Retry,
    /// Nobody waits: it comes up again after a crash.
    Unvisited,
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What could be used without swapping.
    pub available: u64,
    /// What is to be left of it.
    pub reserve: u64,
}

impl Memory {
    /// How much is missing for so many starts.
    pub fn missing(self, starts: usize) -> u64 {
        let needed = MEMORY.saturating_mul(starts as u64);
        self.reserve
            .saturating_add(needed)
            .saturating_sub(self.available)
    }
}

/// The starts of all sites.
#[derive(Debug)]
pub struct Admission {
    at_once: usize,
    /// In the order in which they are to start.
    queue: BTreeMap<Turn, SiteId>,
    waiting: HashMap<SiteId, Turn>,
    starting: HashSet<SiteId>,
    most: usize,
    asked: u64,
}

type Turn = (Urgency, u64);

impl Admission {
    /// Admits so many starts at once, at least one.
    pub fn new(at_once: usize) -> Admission {
        Admission {
            at_once: at_once.max(1),
            queue: BTreeMap::new(),
            waiting: HashMap::new(),
            starting: HashSet::new(),
            most: 0,
            asked: 0,
        }
    }

    /// A site wants to start. One that waits already keeps its turn, unless it matters more now.
    pub fn ask(&mut self, site: SiteId, urgency: Urgency) {
        match self.waiting.get(&site) {
            Some((known, _)) if *known <= urgency => return,
            Some(turn) => drop(self.queue.remove(turn)),
            None => {}
        }
        self.asked += 1;
        let turn = (urgency, self.asked);
        self.queue.insert(turn, site);
        self.waiting.insert(site, turn);
    }

    /// The next site that may start, if one may.
    pub fn next(&mut self, memory: Option<Memory>) -> Option<SiteId> {
        // What starts has not taken its memory yet.
        let is_short = memory.is_some_and(|memory| memory.missing(self.starting.len() + 1) > 0);
        let at_once = if is_short { 1 } else { self.at_once };
        if self.starting.len() >= at_once {
            return None;
        }
        let (_, site) = self.queue.pop_first()?;
        self.waiting.remove(&site);
        self.starting.insert(site);
        self.most = self.most.max(self.starting.len());
        Some(site)
    }

    /// A site does not start any more: it runs, has failed, or is not wanted.
    pub fn done(&mut self, site: SiteId) {
        self.starting.remove(&site);
        if let Some(turn) = self.waiting.remove(&site) {
            self.queue.remove(&turn);
        }
    }

    /// How many sites start at this moment.
    pub fn starting(&self) -> usize {
        self.starting.len()
    }

    /// How many sites have ever started at the same moment.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many sites wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PLENTY: Option<Memory> = Some(Memory {
        available: u64::MAX,
        reserve: 0,
    });
    const SHORT: Option<Memory> = Some(Memory {
        available: 100 << 20,
        reserve: 100 << 20,
    });

    fn site(number: u64) -> SiteId {
        SiteId::new(number).unwrap()
    }

    fn all(admission: &mut Admission, memory: Option<Memory>) -> Vec<u64> {
        std::iter::from_fn(|| admission.next(memory))
            .map(|site| site.get())
            .collect()
    }

    #[test]
    fn as_many_start_as_may_and_who_waits_longest_comes_first() {
        let mut admission = Admission::new(2);
        for number in [5, 3, 9, 1] {
            admission.ask(site(number), Urgency::Visited);
        }
        assert_eq!(all(&mut admission, PLENTY), [5, 3]);
        admission.done(site(3));
        assert_eq!(all(&mut admission, PLENTY), [9]);
        assert_eq!((admission.starting(), admission.waiting()), (2, 1));
        admission.done(site(5));
        assert_eq!(admission.most(), 2);
    }

    #[test]
    fn visited_sites_come_before_retries_and_these_before_restarts() {
        let mut admission = Admission::new(9);
        admission.ask(site(1), Urgency::Unvisited);
        admission.ask(site(2), Urgency::Retry);
        admission.ask(site(3), Urgency::Visited);
        admission.ask(site(4), Urgency::Unvisited);
        admission.ask(site(5), Urgency::Visited);
        assert_eq!(all(&mut admission, PLENTY), [3, 5, 2, 1, 4]);
    }

    #[test]
    fn a_restart_that_somebody_visits_is_promoted_once() {
        let mut admission = Admission::new(9);
        admission.ask(site(1), Urgency::Unvisited);
        admission.ask(site(2), Urgency::Visited);
        admission.ask(site(1), Urgency::Visited);
        admission.ask(site(3), Urgency::Visited);
        admission.ask(site(1), Urgency::Unvisited);
        assert_eq!(all(&mut admission, PLENTY), [2, 1, 3]);
    }

    #[test]
    fn when_memory_is_short_one_starts_after_the_other_but_never_none() {
        let mut admission = Admission::new(8);
        for number in 1..=3 {
            admission.ask(site(number), Urgency::Visited);
        }
        assert_eq!(all(&mut admission, SHORT), [1]);
        admission.done(site(1));
        assert_eq!(all(&mut admission, SHORT), [2]);
        // Enough for one more beside the one that starts.
        let some = Some(Memory {
            available: (100 << 20) + 2 * MEMORY,
            reserve: 100 << 20,
        });
        assert_eq!(all(&mut admission, some), [3]);
    }

    #[test]
    fn who_is_not_wanted_any_more_has_no_turn() {
        let mut admission = Admission::new(1);
        admission.ask(site(1), Urgency::Visited);
        admission.ask(site(2), Urgency::Visited);
        admission.done(site(1));
        assert_eq!(all(&mut admission, PLENTY), [2]);
        admission.done(site(2));
        assert_eq!((admission.starting(), admission.waiting()), (0, 0));
    }

    proptest! {
        /// Whatever comes in whatever order: nobody is admitted twice, never too many, and everybody at last.
        #[test]
        fn everybody_starts_once(
            steps in prop::collection::vec((0u64..12, 0u8..5), 1..200),
            at_once in 1usize..5,
        ) {
            let mut admission = Admission::new(at_once);
            let (mut wanted, mut started) = (BTreeSet::new(), BTreeSet::new());
            for (number, step) in steps {
                let one = site(number + 1);
                match step {
                    0 | 1 if !started.contains(&one) => {
                        let urgency = if step == 0 { Urgency::Visited } else { Urgency::Unvisited };
                        admission.ask(one, urgency);
                        wanted.insert(one);
                    }
                    2 => {
                        if let Some(next) = admission.next(PLENTY) {
                            prop_assert!(wanted.remove(&next));
                            prop_assert!(started.insert(next));
                        }
                    }
                    3 => {
                        admission.done(one);
                        wanted.remove(&one);
                        started.remove(&one);
                    }
                    _ => {}
                }
                prop_assert!(started.len() <= at_once);
                prop_assert_eq!((admission.starting(), admission.waiting()), (started.len(), wanted.len()));
            }
            for one in started {
                admission.done(one);
            }
            while !wanted.is_empty() {
                let next = admission.next(PLENTY);
                prop_assert!(next.is_some_and(|next| wanted.remove(&next)));
                admission.done(next.unwrap());
            }
            prop_assert_eq!(admission.next(PLENTY), None);
        }
    }
}
