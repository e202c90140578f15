//! Which running sites are to sleep now: those that nobody has visited for their idle time, and, when memory is short, those
//! that were visited longest ago. Pure: no clock, no IO.
//!
//! What is decided here may be outdated a moment later. The machine therefore takes the site's name away and looks again
//! before anybody is told to stop.

use std::time::Duration;

use activity::Busy;

use super::admission::{MEMORY, Memory};
use crate::model::{Idle, SiteId};

/// For so long after its start or its last request a site is not put to sleep for want of memory: it would only wake again.
const PROTECTED: u64 = 2000;
/// Between two looks at all sites, at least and at most.
const LOOKS: (u64, u64) = (50, 1000);

/// A site that runs.
#[derive(Clone, Copy, Debug)]
pub struct Awake {
    /// Which.
    pub site: SiteId,
    /// After how long it sleeps.
    pub idle: Idle,
    /// When it was ready, or taken over, in the counters' milliseconds.
    pub since: u64,
    /// What the counters say of it.
    pub busy: Busy,
}

impl Awake {
    fn last(&self) -> u64 {
        self.busy.last.unwrap_or(0).max(self.since)
    }

    /// When it is to sleep if nobody comes.
    fn due(&self) -> Option<u64> {
        let idle = self.idle.span()?;
        (self.busy.in_flight == 0).then(|| self.last().saturating_add(idle.millis()))
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Put these to sleep, in this order.
    pub sleep: Vec<SiteId>,
    /// Look again after this time.
    pub again: Duration,
}

/// What is to be done at `now`; `starts` sites are starting or wait for their start, and `stopping` are on their way down.
pub fn plan(
    awake: &[Awake],
    now: u64,
    memory: Option<Memory>,
    starts: usize,
    stopping: usize,
) -> Plan {
    let (mut sleep, mut next) = (Vec::new(), now + LOOKS.1);
    let mut others = Vec::new();
    for site in awake {
        match site.due() {
            Some(due) if due <= now => sleep.push((site.last(), site.site)),
            Some(due) => {
                next = next.min(due);
                if now.saturating_sub(site.last()) >= PROTECTED {
                    others.push((site.last(), site.site));
                }
            }
            None => {}
        }
    }
    sleep.sort_unstable();
    let missing = memory.map_or(0, |memory| memory.missing(starts));
    let wanted = usize::try_from(missing.div_ceil(MEMORY)).unwrap_or(usize::MAX);
    let wanted = wanted.saturating_sub(stopping + sleep.len());
    others.sort_unstable();
    sleep.extend(others.into_iter().take(wanted));
    Plan {
        sleep: sleep.into_iter().map(|(_, site)| site).collect(),
        again: Duration::from_millis((next - now).clamp(LOOKS.0, LOOKS.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn awake(number: u64, idle: &str, last: u64) -> Awake {
        Awake {
            site: SiteId::new(number).unwrap(),
            idle: Idle::parse(idle).unwrap(),
            since: 0,
            busy: Busy {
                in_flight: 0,
                last: Some(last),
            },
        }
    }

    fn sleepers(
        awake: &[Awake],
        memory: Option<Memory>,
        starts: usize,
        stopping: usize,
    ) -> Vec<u64> {
        let plan = plan(awake, NOW, memory, starts, stopping);
        plan.sleep.into_iter().map(|site| site.get()).collect()
    }

    fn short_of(sites: u64) -> Option<Memory> {
        Some(Memory {
            available: 0,
            reserve: sites * MEMORY,
        })
    }

    #[test]
    fn a_site_sleeps_when_its_time_has_passed_and_nothing_is_in_flight() {
        let mut sites = [
            awake(1, "10s", NOW - 10_000),
            awake(2, "10s", NOW - 9_999),
            awake(3, "10s", NOW - 60_000),
            awake(4, "never", 0),
            awake(5, "10s", NOW - 60_000),
            awake(6, "10s", NOW - 60_000),
        ];
        sites[4].busy.in_flight = 1;
        sites[5].since = NOW - 1;
        assert_eq!(
            sleepers(&sites, None, 0, 0),
            [3, 1],
            "the longest idle first"
        );
        let unvisited = Awake {
            busy: Busy::default(),
            since: NOW - 10_000,
            ..sites[0]
        };
        assert_eq!(sleepers(&[unvisited], None, 0, 0), [1]);
    }

    #[test]
    fn the_next_look_is_when_the_next_site_may_sleep() {
        let again = |idle: &str, last| plan(&[awake(1, idle, last)], NOW, None, 0, 0).again;
        assert_eq!(again("10s", NOW - 9_700), Duration::from_millis(300));
        assert_eq!(again("10s", NOW - 9_999), Duration::from_millis(50));
        assert_eq!(again("10s", NOW), Duration::from_millis(1000));
        assert_eq!(again("never", NOW), Duration::from_millis(1000));
    }

    #[test]
    fn when_memory_is_short_the_least_recently_used_go_first() {
        let mut sites = [
            awake(1, "1h", NOW - 5_000),
            awake(2, "1h", NOW - 9_000),
            awake(3, "1h", NOW - 7_000),
            awake(4, "never", 0),
            awake(5, "1h", NOW - PROTECTED + 1),
            awake(6, "1h", 1),
        ];
        sites[5].busy.in_flight = 2;
        assert_eq!(sleepers(&sites, short_of(2), 0, 0), [2, 3]);
        assert_eq!(
            sleepers(&sites, short_of(2), 0, 1),
            [2],
            "one is stopping already"
        );
        assert_eq!(
            sleepers(&sites, short_of(0), 1, 0),
            [2],
            "a start needs room"
        );
        assert_eq!(sleepers(&sites, short_of(100), 0, 0), [2, 3, 1]);
        assert!(sleepers(&sites, None, 100, 0).is_empty());
    }
}
