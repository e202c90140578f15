//! The words the machine speaks: what can happen to a site, what is to be done about it, and what a visitor is told.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

pub use super::reason::Reason;
use crate::model::SiteId;

/// One life of a site's processes. Grows with every start of the site, also across restarts of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The generation that follows `last`: the seconds of the clock, unless that many starts have already used them up.
    pub fn after(last: Option<Generation>, unix_seconds: u64) -> Generation {
        let next = last
            .map_or(1, |last| last.0.get().saturating_add(1))
            .max(unix_seconds);
        Generation(NonZeroU64::new(next).unwrap_or(NonZeroU64::MIN))
    }

    /// The generation that `digits` name: decimal, without sign or leading zero, as in a vassal file's name.
    pub fn parse(digits: &str) -> Option<Generation> {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        if plain {
            digits.parse().ok().map(Generation)
        } else {
            None
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Both clocks, read once for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the daemon started; never goes back.
    pub monotonic: Duration,
    /// Seconds since 1970: only ever used to number generations.
    pub unix: u64,
}

/// A request that nginx has parked with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Visitor(pub u64);

/// What nginx says about a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The site's processes may have read (some of) it.
    pub sent: bool,
    /// Doing it twice is doing it once.
    pub idempotent: bool,
    /// The machine wakes sites; one that is being emptied does not.
    pub may_wake: bool,
}

impl Visit {
    /// A visit that nothing has seen yet.
    pub const UNSENT: Visit = Visit {
        sent: false,
        idempotent: false,
        may_wake: true,
    };

    /// May the request be sent (again) once the site listens?
    pub fn may_be_replayed(self) -> bool {
        !self.sent || self.idempotent
    }
}

/// A reason and the generation it happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What happened.
    pub reason: Reason,
    /// To which generation.
    pub generation: Generation,
}

impl Failure {
    /// What an error page calls it, and `paasctl why` finds it by: `<site id>-<generation>`.
    pub fn id(self, site: SiteId) -> String {
        format!("{site}-{}", self.generation)
    }
}

/// What the operator wants of a site. Who gave the order waits for its answer like a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run, and forget earlier failures.
    Start,
    /// End when what is under way is done; the next visitor wakes it again.
    Stop,
    /// Run the code that is there now, without a gap; a site that sleeps goes on sleeping.
    Reload,
}

/// What a visitor is told, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The site listens: send the request.
    Ready,
    /// The request died in the running site: a real 502, never a replay.
    Real,
    /// An error page.
    Unavailable(Failure),
    /// The registry has no such site.
    NoSuchSite,
    /// The site does not run here, and this machine wakes none: another one does.
    Elsewhere,
    /// To who gave an order: the site does not run.
    Asleep,
}

/// Where a generation's listening socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A new one, under a name of its own.
    New,
    /// The one of the generation before it, with whatever waits in its queue.
    Of(Generation),
}

/// Why a start ended before there was anything to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPrepared {
    /// The registry has no such site.
    NoSuchSite,
    /// The registry says the site is off.
    Disabled,
    /// The site's directory is not there.
    NoDirectory,
    /// Something could not be made; the log tells what.
    Failed,
}

/// What a look at a running site's socket showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The name leads to the held socket and there is room in its queue.
    Open,
    /// The name leads to the held socket and its queue is full.
    Full,
    /// The name is missing or leads elsewhere.
    Stale,
}

/// A deadline of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The Emperor must have run the launcher.
    Launch,
    /// The application must accept requests.
    Start,
    /// What is under way must be done.
    Drain,
    /// The processes must have ended.
    Stop,
}

/// What has happened. An event of a generation that is not the current one is stale and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// nginx asks what to do with a request.
    Visited(Visitor, Visit),
    /// The operator wants something; the answer goes where visitors' answers go.
    Ordered(Visitor, Order),
    /// The answer to [`Action::Look`].
    Looked(Visitor, Seen),
    /// The answer to [`Action::Inspect`]: whether anything has changed.
    Inspected(Visitor, bool),
    /// The answer to [`Action::Prepare`]: everything is there but the vassal file.
    Prepared(Generation),
    /// The other answer to [`Action::Prepare`].
    NotPrepared(Generation, NotPrepared),
    /// The launcher asks for the generation's socket.
    LaunchAsked(Generation),
    /// The application accepts requests.
    Ready(Generation),
    /// The answer to [`Action::Probe`]: whether the application answered well.
    Probed(Generation, bool),
    /// The answer to [`Action::Drain`]: no connection to the socket is left.
    Drained(Generation),
    /// The processes have begun to end because the Emperor told them to.
    StopAnnounced(Generation),
    /// The processes are gone.
    Exited {
        /// Whose.
        generation: Generation,
        /// Connections wait in the held socket's queue.
        queued: bool,
        /// The Emperor lives: it is not what took the processes with it.
        emperor: bool,
        /// Why, as far as it shows.
        cause: Reason,
    },
    /// A deadline set by [`Action::Remind`] has passed.
    Passed {
        /// Whose.
        generation: Generation,
        /// Which.
        deadline: Deadline,
        /// The Emperor lives: it may only be slow.
        emperor: bool,
    },
    /// A new Emperor has started; it knows nothing of what the one before it was asked.
    EmperorArrived,
    /// The start may begin: the machine bears it.
    Admitted(Generation),
    /// Nobody has visited the site for as long as it stays awake.
    Idle(Generation),
    /// Requests of the site are in flight.
    Needed(Generation),
    /// The registry says the site is off or gone.
    Retired,
}

/// What is to be done, in this order, each before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the visitor.
    Answer(Visitor, Answer),
    /// Find out whether the site's name leads to the held socket and whether its queue is full.
    Look(Visitor),
    /// Find out whether anything has changed that may let the site start now: its files or its settings, since its last start failed.
    Inspect(Visitor),
    /// As soon as the machine bears it ([`Event::Admitted`]): read the site's row; make its log directory and its notice pipe; get the socket.
    Prepare(Generation, Socket),
    /// Write the vassal file unless it is there, and wake the Emperor.
    Start(Generation),
    /// Give the launcher the socket.
    Grant(Generation),
    /// Tell the launcher that it is not wanted.
    Refuse(Generation),
    /// Send the application a request, on the generation's own socket.
    Probe(Generation),
    /// Give the generation's socket the site's name, over whatever has it.
    Publish(Generation),
    /// Take the site's name from the generation's socket, which has it.
    Withdraw(Generation),
    /// Tell when no connection to the generation's socket is left, neither in its queue nor with the application.
    Drain(Generation),
    /// Remove the vassal file and wake the Emperor, which then stops the processes if they still live.
    Forget(Generation),
    /// End the processes by force.
    Kill(Generation),
    /// The processes are gone and nobody can connect any more: say once more, as [`Event::Exited`], whether connections wait.
    Recount(Generation),
    /// Close the generation's socket for good. Who waits in its queue gets an error page (of the failure, or "try again").
    Release(Generation, Option<Failure>),
    /// Send [`Event::Passed`] after this time.
    Remind(Generation, Deadline, Duration),
}
