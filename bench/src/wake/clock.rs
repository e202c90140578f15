//! Moments as they stand in logs and in what sites write, on one clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds of the day (UTC), as precise as a float holds it: to a tenth of a microsecond.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment(f64);

const DAY: f64 = 86_400_000.0;

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Moment {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Moment::of_epoch(since.as_secs_f64() * 1000.0)
    }

    /// So many milliseconds after 1970 began.
    #[must_use]
    pub fn of_epoch(milliseconds: f64) -> Moment {
        Moment(milliseconds % DAY)
    }

    /// As the daemon writes it: `2026-11-25T04:22:12.123456Z`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Moment> {
        let time = text.strip_suffix('Z')?.split_once('T')?.1;
        let mut seconds = 0.0;
        for part in time.split(':') {
            seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
        }
        Some(Moment(seconds * 1000.0))
    }

    /// How many milliseconds after `earlier` it was; midnight may lie between them.
    #[must_use]
    pub fn since(self, earlier: Moment) -> f64 {
        let difference = self.0 - earlier.0;
        if difference < -DAY / 2.0 {
            difference + DAY
        } else {
            difference
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_s_time_and_an_epoch_s_are_the_same_moment() {
        let logged = Moment::parse("1970-01-02T00:00:01.250000Z").unwrap();
        assert!(logged.since(Moment::of_epoch(86_401_000.0)) - 250.0 < 1e-6);
        let midnight = Moment::parse("2026-11-24T23:59:59.999000Z").unwrap();
        assert!(
            (Moment::parse("2026-11-25T00:00:00.001000Z")
                .unwrap()
                .since(midnight)
                - 2.0)
                .abs()
                < 1e-6
        );
        assert_eq!(Moment::parse("yesterday"), None);
    }
}
