//! A slow change of placement: how far it is, and what its next step is. Pure: time is an argument.
use super::{Invalid, Placement, SlowChange, Span};
use std::fmt;
use std::str::FromStr;

/// Which way a slow change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Sites go over to the new method.
    Forward,
    /// They go back to the one before.
    Back,
}

/// How a slow change goes on. The threshold itself is in the [`Placement`]; it says which sites have gone over.
///
/// The registry holds both, and whichever daemon finds a step due takes it in one transaction: the threshold depends on
/// what the registry says and on the time since the last step, not on who takes it. A daemon whose clock is ahead takes
/// it a little early. Time in which no step was taken (no daemon ran, or it was held) is not made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How long it takes from no site to all.
    pub over: Span,
    /// Which way it goes.
    pub direction: Direction,
    /// The operator has stopped it for now.
    pub paused: bool,
    /// When the last step was taken, in milliseconds since 1970.
    pub stepped_at: u64,
}

/// A backend that cannot bear more sites at the moment: too many wait for their start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The machine's name.
    pub machine: String,
    /// How many sites start or wait for their start.
    pub starting: u32,
    /// Until when the change waits, in milliseconds since 1970, if the machine says nothing more.
    pub until: u64,
}

/// A change is made in about so many steps.
const STEPS: u64 = 1000;
/// The time between two steps, in milliseconds.
const SHORTEST: u64 = 100;
const LONGEST: u64 = 60_000;

impl Progress {
    /// The time between two steps, in milliseconds.
    pub fn interval(&self) -> u64 {
        (self.over.millis() / STEPS).clamp(SHORTEST, LONGEST)
    }

    /// When the next step is due, in milliseconds since 1970; none while it is paused.
    pub fn next_at(&self) -> Option<u64> {
        (!self.paused).then(|| self.stepped_at.saturating_add(self.interval()))
    }

    /// The placement after the step that is due at `now`, and how it goes on: `None` if that was the last one. No step is
    /// due, or there is no change: `None`.
    pub fn step(&self, placement: &Placement, now: u64) -> Option<(Placement, Option<Self>)> {
        let change = placement.change?;
        if self.next_at().is_none_or(|next| now < next) {
            return None;
        }
        let elapsed = (now - self.stepped_at).min(2 * self.interval());
        // Rounded up, so that the last of equal steps is the last.
        let share = (u128::from(elapsed) << 64).div_ceil(u128::from(self.over.millis()));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let threshold = match self.direction {
            Direction::Forward => change.threshold.saturating_add(share),
            Direction::Back => change.threshold.saturating_sub(share),
        };
        let method = match (self.direction, threshold) {
            (Direction::Forward, u64::MAX) => placement.method,
            (Direction::Back, 0) => change.from,
            _ => {
                let placement = Placement {
                    method: placement.method,
                    change: Some(SlowChange {
                        threshold,
                        ..change
                    }),
                };
                let next = Self {
                    stepped_at: now,
                    ..*self
                };
                return Some((placement, Some(next)));
            }
        };
        Some((Placement::fixed(method), None))
    }

    /// How many milliseconds it takes from this threshold to its end, if nothing holds it.
    pub fn left(&self, threshold: u64) -> u64 {
        let left = match self.direction {
            Direction::Forward => u64::MAX - threshold,
            Direction::Back => threshold,
        };
        let left = (u128::from(left) * u128::from(self.over.millis())) >> 64;
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Back => "back",
        })
    }
}

impl FromStr for Direction {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "forward" => Ok(Self::Forward),
            "back" => Ok(Self::Back),
            _ => Err(Invalid::new(
                "a direction",
                text,
                "it must be forward or back",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;
    use proptest::prelude::*;

    fn begun(over: &str) -> (Placement, Progress) {
        let change = SlowChange {
            from: Method::Python64,
            threshold: 0,
        };
        let placement = Placement {
            method: Method::Rendezvous,
            change: Some(change),
        };
        let progress = Progress {
            over: Span::parse(over).unwrap(),
            direction: Direction::Forward,
            paused: false,
            stepped_at: 0,
        };
        (placement, progress)
    }

    #[test]
    fn it_takes_as_long_as_was_said_and_ends() {
        let (mut placement, mut progress) = begun("48h");
        let mut steps = 0;
        let end = loop {
            let now = progress.next_at().unwrap();
            let (next, going_on) = progress.step(&placement, now).unwrap();
            placement = next;
            steps += 1;
            match going_on {
                Some(next) => progress = next,
                None => break now,
            }
        };
        assert_eq!(placement, Placement::fixed(Method::Rendezvous));
        assert_eq!(steps, 2880, "a step each minute");
        assert!(end.abs_diff(48 * 3_600_000) <= 60_000, "{end}");
    }

    #[test]
    fn it_goes_back_to_where_it_came_from() {
        let (placement, progress) = begun("1h");
        let (placement, going_on) = progress.step(&placement, 5000).unwrap();
        let back = Progress {
            direction: Direction::Back,
            ..going_on.unwrap()
        };
        let (end, going_on) = back.step(&placement, 100_000).unwrap();
        assert_eq!(end, Placement::fixed(Method::Python64));
        assert_eq!(going_on, None);
    }

    #[test]
    fn a_step_is_taken_once_and_lost_time_is_not_made_up_for() {
        let (placement, progress) = begun("1h");
        assert_eq!(progress.step(&placement, 3599), None, "not due yet");
        let (after, going_on) = progress.step(&placement, 3600).unwrap();
        assert_eq!(going_on.unwrap().step(&after, 3601), None, "another daemon");
        let (late, _) = progress.step(&placement, 1_000_000).unwrap();
        let threshold = |placement: &Placement| placement.change.unwrap().threshold;
        assert_eq!(threshold(&late) / 2, threshold(&after));
        let paused = Progress {
            paused: true,
            ..progress
        };
        assert_eq!(paused.step(&placement, 1_000_000), None);
    }

    proptest! {
        /// However late steps are taken, the threshold never turns.
        #[test]
        fn the_threshold_goes_one_way(delays in proptest::collection::vec(0u64..500_000, 1..200), over in 1u64..10_000_000) {
            let (mut placement, mut progress) = begun("1h");
            progress.over = Span::from_millis(over).unwrap();
            let mut now = 0;
            for delay in delays {
                now += delay;
                let Some((next, going_on)) = progress.step(&placement, now) else { continue };
                let Some(change) = next.change else { break };
                prop_assert!(change.threshold > placement.change.unwrap().threshold);
                prop_assert!(progress.left(change.threshold) <= over);
                (placement, progress) = (next, going_on.unwrap());
            }
        }
    }
}
