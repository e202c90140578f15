//! When running sites are put to sleep: the driver looks at nginx's counters, as seldom as it can.

use std::io;
use std::time::{Duration, Instant};

use activity::{Reader, Snapshot};

use super::super::machine::Shown;
use super::super::sleeping::{Awake, plan};
use super::super::words::{Event, Generation};
use super::Driver;
use crate::model::{Idle, SiteId};
use crate::paths::Paths;

/// nginx's counters, and what the operator has been told about them.
#[derive(Debug)]
pub(super) struct Counters {
    reader: Reader,
    told: Option<Trouble>,
    /// When to look next; none while no site runs.
    again: Option<Instant>,
}

/// Why no site can be put to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Unreadable,
    Blind,
    Nobody,
    Full,
}

impl Counters {
    pub(super) fn new(paths: &Paths) -> Counters {
        Counters {
            reader: Reader::new(&paths.activity()),
            told: None,
            again: None,
        }
    }

    /// Comes back when it is time to look.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        let again = self.again;
        async move {
            match again {
                Some(again) => tokio::time::sleep_until(again.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Looks soon: a site runs that did not before.
    pub(super) fn wake(&mut self) {
        self.again.get_or_insert_with(Instant::now);
    }

    /// What is counted, if it can be relied upon.
    fn look(&mut self) -> Option<Snapshot> {
        let (snapshot, trouble) = match self.reader.look() {
            Ok(snapshot) if snapshot.is_blind() => (None, Some(Trouble::Blind)),
            Ok(snapshot) if !snapshot.is_complete() => (None, Some(Trouble::Nobody)),
            // It can be relied upon: what is not listed counts for every site.
            Ok(snapshot) => {
                let is_full = snapshot.unlisted() > 0;
                (Some(snapshot), is_full.then_some(Trouble::Full))
            }
            Err(problem) => {
                self.tell(Some((Trouble::Unreadable, Some(&problem))));
                return None;
            }
        };
        self.tell(trouble.map(|trouble| (trouble, None)));
        snapshot
    }

    fn tell(&mut self, trouble: Option<(Trouble, Option<&io::Error>)>) {
        let now = trouble.map(|(trouble, _)| trouble);
        if std::mem::replace(&mut self.told, now) == now {
            return;
        }
        match trouble {
            Some((Trouble::Unreadable, problem)) => {
                tracing::error!(
                    problem = problem.map(tracing::field::display),
                    "cannot read nginx's counters: no site is put to sleep"
                );
            }
            Some((Trouble::Blind, _)) => {
                tracing::error!(
                    "a worker of nginx cannot count requests (its error log says why): no site is put to sleep"
                );
            }
            Some((Trouble::Nobody, _)) => {
                tracing::info!(
                    "nginx does not run here, or does not count requests: no site is put to sleep"
                );
            }
            Some((Trouble::Full, _)) => {
                tracing::warn!(
                    "nginx's workers serve more sites at once than they can count: sites sleep later; raise waking.counted_sites in paas.toml"
                );
            }
            None => tracing::info!("nginx counts requests: idle sites are put to sleep"),
        }
    }
}

impl Driver {
    /// Puts to sleep whom nobody needs.
    pub(super) fn put_to_sleep(&mut self) {
        let now = activity::now();
        let running: Vec<_> = self
            .sites
            .iter()
            .filter_map(|(site, entry)| Some((*site, entry.machine.serving()?)))
            .collect();
        let dozing = self.count(|shown| matches!(shown, Shown::Stopping(_)));
        if running.is_empty() && dozing == 0 {
            self.counters.again = None;
            return;
        }
        let Some(snapshot) = self.counters.look() else {
            self.counters.again = Some(Instant::now() + Duration::from_secs(1));
            return;
        };
        let mut awake = Vec::with_capacity(running.len());
        for (site, generation) in running {
            let busy = snapshot.of(site.get());
            let life = self.life(site, generation);
            let Some(idle) = life.idle else { continue };
            // Taken over from an earlier daemon: since when it is idle, the counters know; if not, since now.
            let unknown = if busy.last.is_some() { 0 } else { now };
            let since = *life.since.get_or_insert(unknown);
            awake.push(Awake {
                site,
                idle,
                since,
                busy,
            });
        }
        let plan = plan(&awake, now, self.memory(), self.room(), dozing);
        self.counters.again = Some(Instant::now() + plan.again);
        for site in plan.sleep {
            if let Some(generation) = self.entry(site).machine.serving() {
                tracing::debug!(%site, %generation, "nobody needs it");
                self.step(site, Event::Idle(generation));
            }
        }
    }

    /// No connection is left to a generation that lost its name. Its requests may still be on their way to one.
    pub(super) fn drained(&mut self, site: SiteId, generation: Generation) {
        if self.entry(site).machine.is_falling_asleep() {
            let busy = self
                .counters
                .look()
                .is_none_or(|snapshot| snapshot.of(site.get()).in_flight > 0);
            if busy {
                self.step(site, Event::Needed(generation));
                return;
            }
        }
        self.step(site, Event::Drained(generation));
    }

    /// The site's idle time has been changed.
    pub(super) fn settled(&mut self, site: SiteId, idle: Idle) {
        if let Some(entry) = self.sites.get_mut(&site) {
            for life in entry.lives.values_mut() {
                life.idle = Some(idle);
            }
            self.counters.wake();
        }
    }

    pub(super) fn count(&self, what: impl Fn(Shown) -> bool) -> usize {
        let sites = self.sites.values();
        sites.filter(|entry| what(entry.machine.shown())).count()
    }
}
