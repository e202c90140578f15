//! Health of a backend, from what becomes of the requests it is sent: ejected after failures in a row, tried again by one request
//! after a time that grows, and then given its sites back little by little. And from what somebody finds out who probes it: he takes
//! it out and puts it back, and is believed for as long as he says so himself.
//!
//! Pure: a state, an event and the time make the next state. A state is one word, so that it can be kept in memory that several
//! processes share and be changed by compare-and-swap. All times are milliseconds of one clock that never goes back.

/// When a backend is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// So many failures in a row eject it; at most 255. 0: nothing does.
    pub failures: u8,
    /// For how long, the first time; each time after that, twice as long.
    pub time: u64,
    /// But never for longer than this.
    pub max_time: u64,
    /// Over how long a backend that comes back, or is new, takes its sites over.
    pub return_time: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 3,
            time: 1_000,
            max_time: 30_000,
            return_time: 30_000,
        }
    }
}

/// After this long without news of the request that tries a backend, another one may.
const TRIAL_TIME: u64 = 5_000;

/// The state of one backend, in one word. 0 is a backend that has served since ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health(u64);

/// What a word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    InService {
        /// Since when; 0: since ever.
        since: u64,
        /// Failures in a row.
        failures: u8,
    },
    /// It gets no requests.
    Ejected {
        /// Until when.
        until: u64,
    },
    /// One request finds out whether it serves again.
    OnTrial {
        /// Since when.
        since: u64,
    },
    /// Probes say that it cannot serve: it gets no requests.
    Down {
        /// Until when they are believed if there are no new ones.
        until: u64,
    },
}

/// What happens to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request is about to be sent to it.
    Chosen,
    /// It answered.
    Answered,
    /// A request failed, and it is to blame.
    Failed {
        /// When the request was sent.
        sent: u64,
    },
    /// Probes say that it serves. About requests that failed they say nothing.
    Up,
    /// Probes say that it cannot serve.
    Down {
        /// Until when they are to be believed.
        until: u64,
    },
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// The request that was about to be sent must go elsewhere.
    Avoid,
    /// The request that is about to be sent is the trial.
    Try,
    /// It gets no more requests, for this long.
    Eject(u64),
    /// It gets no more requests until probes say otherwise.
    Withdraw,
    /// It gets requests again.
    Readmit,
}

// From the lowest bit: failures (8), how often it was ejected since it served for long (6), the phase (2), a time (48).
const FAILURES: u32 = 0;
const TIMES: u32 = 8;
const PHASE: u32 = 14;
const TIME: u32 = 16;
const MOST_TIMES: u8 = 63;
const LATEST: u64 = u64::MAX >> TIME;

const IN_SERVICE: u8 = 0;
const EJECTED: u8 = 1;
const ON_TRIAL: u8 = 2;
const DOWN: u8 = 3;

impl Health {
    /// What a word of shared memory says; every word says something.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to keep.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// A backend that has just come.
    #[must_use]
    pub fn of_newcomer(now: u64) -> Self {
        Self::new(IN_SERVICE, now, 0, 0)
    }

    fn new(phase: u8, time: u64, times: u8, failures: u8) -> Self {
        Self(
            time.min(LATEST) << TIME
                | u64::from(phase) << PHASE
                | u64::from(times.min(MOST_TIMES)) << TIMES
                | u64::from(failures) << FAILURES,
        )
    }

    /// What it says.
    #[must_use]
    pub fn phase(self) -> Phase {
        let time = self.0 >> TIME;
        match (self.0 >> PHASE) as u8 & 0b11 {
            EJECTED => Phase::Ejected { until: time },
            ON_TRIAL => Phase::OnTrial { since: time },
            DOWN => Phase::Down { until: time },
            _ => Phase::InService {
                since: time,
                failures: (self.0 >> FAILURES) as u8,
            },
        }
    }

    /// How often it was ejected since it served for long.
    fn times(self) -> u8 {
        (self.0 >> TIMES) as u8 & MOST_TIMES
    }

    /// How it does, in a word.
    #[must_use]
    pub fn word(self, now: u64, settings: &Settings) -> &'static str {
        match self.phase() {
            Phase::Down { until } if now < until => "down",
            Phase::Ejected { .. } | Phase::Down { .. } => "ejected",
            Phase::OnTrial { .. } => "on-trial",
            Phase::InService { .. } => match self.has_returned_at(settings) {
                Some(at) if now < at => "returning",
                _ => "in-service",
            },
        }
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_in_service(self) -> bool {
        matches!(self.phase(), Phase::InService { .. })
    }

    /// Whether anybody is sent there.
    #[must_use]
    pub fn gets_requests(self) -> bool {
        !matches!(self.phase(), Phase::Ejected { .. } | Phase::Down { .. })
    }

    /// Whether a request may try it now though it does not serve.
    #[must_use]
    pub fn may_be_tried(self, now: u64) -> bool {
        match self.phase() {
            Phase::InService { .. } => false,
            Phase::Ejected { until } | Phase::Down { until } => now >= until,
            Phase::OnTrial { since } => now.saturating_sub(since) >= TRIAL_TIME,
        }
    }

    /// When it will have all of its sites, if it serves and nothing happens.
    #[must_use]
    pub fn has_returned_at(self, settings: &Settings) -> Option<u64> {
        match self.phase() {
            Phase::InService { since: 0, .. } => Some(0),
            Phase::InService { since, .. } => Some(since.saturating_add(settings.return_time)),
            _ => None,
        }
    }

    /// Whether a site may be sent there already: at first no site may, after `return_time` all may, and one that may once still may
    /// later. `site_hash` is [`crate::rendezvous::key_hash`] of the site's key.
    #[must_use]
    pub fn takes(self, site_hash: u64, now: u64, settings: &Settings) -> bool {
        let Phase::InService { since, .. } = self.phase() else {
            return false;
        };
        let elapsed = now.saturating_sub(since);
        if since == 0 || elapsed >= settings.return_time {
            return true;
        }
        // Scrambled: other decisions about the site compare the hash itself. 32 bits of it and of the share do not overflow.
        let turn = site_hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let share = (u128::from(elapsed) << 32) / u128::from(settings.return_time);
        u128::from(turn) < share
    }

    /// The state after an event.
    #[must_use]
    pub fn step(self, now: u64, event: Event, settings: &Settings) -> (Self, Action) {
        if settings.failures == 0 {
            return (Self::default(), Action::Nothing);
        }
        let times = self.times();
        match (event, self.phase()) {
            (Event::Chosen, Phase::InService { .. }) => (self, Action::Nothing),
            (Event::Chosen, _) if self.may_be_tried(now) => {
                (Self::new(ON_TRIAL, now, times, 0), Action::Try)
            }
            (Event::Chosen, _) => (self, Action::Avoid),

            (Event::Answered, Phase::InService { since, .. }) => {
                let has_returned = now >= since.saturating_add(settings.return_time);
                match has_returned {
                    true => (Self::default(), Action::Nothing),
                    false => (Self::new(IN_SERVICE, since, times, 0), Action::Nothing),
                }
            }
            (Event::Answered, Phase::OnTrial { .. }) => {
                // Since 0 would be since ever.
                let since = now.max(1);
                (Self::new(IN_SERVICE, since, times, 0), Action::Readmit)
            }
            // To a request from before: whether new ones are answered the trial finds out.
            (Event::Answered, Phase::Ejected { .. } | Phase::Down { .. }) => {
                (self, Action::Nothing)
            }

            // What was sent before it came back says nothing about now.
            (Event::Failed { sent }, Phase::InService { since, .. } | Phase::OnTrial { since })
                if sent < since =>
            {
                (self, Action::Nothing)
            }
            (Event::Failed { .. }, Phase::InService { since, failures })
                if failures.saturating_add(1) < settings.failures =>
            {
                let failures = failures.saturating_add(1);
                (
                    Self::new(IN_SERVICE, since, times, failures),
                    Action::Nothing,
                )
            }
            (Event::Failed { .. }, Phase::InService { .. } | Phase::OnTrial { .. }) => {
                let factor = 1_u64.checked_shl(u32::from(times)).unwrap_or(u64::MAX);
                let time = settings.time.saturating_mul(factor).min(settings.max_time);
                let ejected = Self::new(
                    EJECTED,
                    now.saturating_add(time),
                    times.saturating_add(1),
                    0,
                );
                (ejected, Action::Eject(time))
            }
            (Event::Failed { .. }, Phase::Ejected { .. } | Phase::Down { .. }) => {
                (self, Action::Nothing)
            }

            // Nobody may be heard any more who said it.
            (Event::Down { until }, _) if until <= now => (self, Action::Nothing),
            (Event::Down { until }, phase) => {
                let action = match phase {
                    Phase::Down { .. } => Action::Nothing,
                    _ => Action::Withdraw,
                };
                (Self::new(DOWN, until, times, 0), action)
            }
            (Event::Up, Phase::Down { .. }) => {
                (Self::new(IN_SERVICE, now.max(1), times, 0), Action::Readmit)
            }
            (Event::Up, _) => (self, Action::Nothing),
        }
    }
}

/// How much health counts in a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// Backends that have just come back get the sites whose turn it is.
    All,
    /// Those that do not serve get no site.
    Service,
    /// None: better an error than no try.
    Nothing,
}

impl Heed {
    /// What is tried one after the other until it leaves a backend to choose.
    #[must_use]
    pub const fn order(is_panic: bool) -> &'static [Self] {
        match is_panic {
            true => &[Self::Nothing],
            false => &[Self::All, Self::Service, Self::Nothing],
        }
    }

    /// Whether a site may be sent to a backend with this health. `site_hash` is as for [`Health::takes`].
    #[must_use]
    pub fn allows(self, health: Health, site_hash: u64, now: u64, settings: &Settings) -> bool {
        match self {
            Self::All => health.takes(site_hash, now, settings) || health.may_be_tried(now),
            Self::Service => health.is_in_service() || health.may_be_tried(now),
            Self::Nothing => true,
        }
    }
}

/// Whether health is to be ignored: more than half of the backends look unhealthy. Better a few errors than all sites on the few that
/// are left.
#[must_use]
pub fn is_panic(unhealthy: usize, all: usize) -> bool {
    2 * unhealthy > all
}
