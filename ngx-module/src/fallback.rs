//! `paas_fallback`: the request could not be handed to its site. Asleep, or broken?
//!
//! The handler parks the request, asks who knows (our daemon, or a service of the operator's), and declines
//! when the site listens, so that the location's own `uwsgi_pass` replays the request. It decides nothing
//! about sites itself, except where nobody answers.

use std::cell::Ref;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ngx::ffi::ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE as PRECONTENT;

use crate::context::{Context, Reason};
use crate::ffi::log::Level;
use crate::ffi::phase::Handler;
use crate::ffi::request::{Expression, Outcome, Request};
use crate::ffi::subrequest::{End, Subrequest};
use crate::ffi::timer::Timer;
use crate::role::ELSEWHERE;
use crate::site;

mod parked;
mod patience;
mod reason;

use parked::Slot;
use patience::Patience;

/// The location that passes the question on to our daemon. No client can name it: it has no leading slash.
const INITIALIZE: &[u8] = b"paas:initialize";
/// A request that fails again after this many answers has had its chances: it must not go round for ever.
const MOST_QUESTIONS: u8 = 2;
/// Seconds after which a visitor may try again if nobody says it better.
const RETRY_AFTER: &[u8] = b"5";

/// What `paas_fallback` of a location says.
pub(crate) struct Settings {
    /// The site's socket: a request goes straight on while it is there.
    pub(crate) socket: Option<Expression>,
    /// The file whose presence means that the site runs.
    pub(crate) vassal: Option<Expression>,
    /// Whom to ask, instead of our daemon.
    pub(crate) initialize: Option<Expression>,
    /// How long to wait, in milliseconds.
    pub(crate) timeout: usize,
    /// How many requests may wait in one worker.
    pub(crate) max_parked: usize,
}

/// How far the handler is with a request.
#[derive(Default)]
pub(crate) enum Stage {
    /// It has not seen the request.
    #[default]
    New,
    /// Somebody was asked.
    Parked { subrequest: Subrequest, wait: Wait },
    /// The answer is there; the handler has not been called again yet.
    Answered { verdict: Verdict, wait: Wait },
    /// Nobody answered: the question is put again when this timer says so.
    Postponed { _again: Timer, wait: Wait },
    /// It says so.
    Due(Wait),
    /// The handler has let the request go on, or refused it.
    Decided,
}

/// What a request holds while it waits.
pub(crate) struct Wait {
    /// For the end of its time.
    _timer: Timer,
    _slot: Slot,
    /// With whoever should answer and does not.
    patience: Patience,
}

/// What became of the question.
pub(crate) enum Verdict {
    /// The site listens: replay.
    Ready,
    /// Show this status.
    Refuse {
        status: u16,
        retry_after: Option<Box<[u8]>>,
        word: Option<Box<str>>,
        id: Option<Box<str>>,
    },
    /// Nobody answered, or nothing that makes sense.
    Unanswered { word: &'static str },
}

/// The handler of the PRECONTENT phase.
pub(crate) struct Fallback;

impl Handler for Fallback {
    const NAME: &'static str = "paas_fallback handler";
    const PHASE: u32 = PRECONTENT;

    fn handle(request: Request<'_>) -> Outcome {
        let Some(settings) = request
            .location_conf()
            .and_then(|location| location.fallback.as_deref())
        else {
            return Outcome::Declined;
        };
        let Some(context) = request.context_or_new() else {
            return Outcome::Status(500);
        };
        let visit = Visit {
            request,
            context,
            settings,
        };
        if visit.may_pass() {
            return Outcome::Declined;
        }
        let stage = context.trouble().stage.take();
        match stage {
            Stage::New => visit.begin(),
            // Woken for another reason, unless the subrequest ended and nobody could note its answer.
            Stage::Parked { ref subrequest, .. } if !subrequest.is_done() => {
                context.trouble().stage.replace(stage);
                Outcome::Again
            }
            Stage::Parked { .. } => visit.decide(Verdict::Unanswered {
                word: "internal-error",
            }),
            Stage::Answered {
                verdict: Verdict::Unanswered { word: UNREACHABLE },
                wait,
            } => visit.postpone(wait),
            Stage::Answered { verdict, .. } => visit.decide(verdict),
            // Woken for another reason.
            Stage::Postponed { .. } => {
                context.trouble().stage.replace(stage);
                Outcome::Again
            }
            Stage::Due(wait) => visit.ask(wait).unwrap_or(Outcome::Failed),
            // It was replayed, failed again and came back.
            Stage::Decided => visit.begin(),
        }
    }
}

/// One call of the handler.
struct Visit<'r> {
    request: Request<'r>,
    context: &'r Context,
    settings: &'r Settings,
}

impl<'r> Visit<'r> {
    /// Whether the request comes for the first time and its site seems to listen.
    fn may_pass(&self) -> bool {
        let is_new = self
            .context
            .known_trouble()
            .is_none_or(|trouble| matches!(*trouble.stage.borrow(), Stage::New));
        let socket = self.settings.socket.as_ref().filter(|_| is_new);
        socket
            .and_then(|socket| self.request.evaluate(socket))
            .is_some_and(exists)
    }

    fn begin(&self) -> Outcome {
        let was_sent = self.request.was_sent();
        self.context.trouble().was_sent.set(Some(was_sent));
        let asked = self.context.trouble().asked.get();
        if asked == MOST_QUESTIONS {
            return self.decide(Verdict::Unanswered {
                word: "failed-again",
            });
        }
        self.context.trouble().asked.set(asked + 1);
        if let Some(vassal) = &self.settings.vassal {
            let Some(path) = self.request.evaluate(vassal) else {
                return Outcome::Status(500);
            };
            let real = |word: &str| self.decide(Verdict::refuse(502, word));
            if exists(path) {
                return real("site-failed");
            }
            // The site stopped while the request was with it.
            if was_sent && !self.request.is_idempotent() {
                return real("site-stopped");
            }
        }
        let Some(slot) = Slot::take(self.settings.max_parked) else {
            return self.decide(Verdict::Unanswered {
                word: "too-many-parked",
            });
        };
        self.park(slot).unwrap_or(Outcome::Failed)
    }

    fn park(&self, slot: Slot) -> Option<Outcome> {
        self.ask(Wait {
            _timer: Timer::start(self.request, self.settings.timeout, timed_out)?,
            _slot: slot,
            patience: Patience::new(),
        })
    }

    fn ask(&self, wait: Wait) -> Option<Outcome> {
        let target = match &self.settings.initialize {
            Some(initialize) => self.request.evaluate(initialize)?,
            None => INITIALIZE,
        };
        let mut parts = target.splitn(2, |byte| *byte == b'?');
        let (uri, args) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let subrequest = self.request.ask(uri, args)?;
        self.context
            .trouble()
            .stage
            .replace(Stage::Parked { subrequest, wait });
        Some(Outcome::Again)
    }

    /// Nobody answered. Whoever should is being restarted, perhaps: asking twice does no harm.
    fn postpone(&self, mut wait: Wait) -> Outcome {
        let unreachable = Verdict::Unanswered { word: UNREACHABLE };
        // Whatever the answer would be, this is a real 502.
        let is_lost =
            self.context.trouble().was_sent.get() == Some(true) && !self.request.is_idempotent();
        let Some(pause) = wait.patience.pause().filter(|_| !is_lost) else {
            return self.decide(unreachable);
        };
        let Some(again) = Timer::start(self.request, pause, due) else {
            return self.decide(unreachable);
        };
        self.context.trouble().stage.replace(Stage::Postponed {
            _again: again,
            wait,
        });
        Outcome::Again
    }

    /// Ends the visit: the request goes on or is refused.
    fn decide(&self, verdict: Verdict) -> Outcome {
        self.context.trouble().stage.replace(Stage::Decided);
        let was_sent = self.context.trouble().was_sent.get().unwrap_or(false);
        let (status, retry_after, word, id) = match verdict {
            Verdict::Ready => return Outcome::Declined,
            Verdict::Refuse {
                status,
                retry_after,
                word,
                id,
            } => (status, retry_after, word, id),
            Verdict::Unanswered { word } if was_sent => (502, None, Some(word.into()), None),
            Verdict::Unanswered { word } => {
                (503, Some(RETRY_AFTER.into()), Some(word.into()), None)
            }
        };
        if let Some(retry_after) = retry_after
            && self
                .request
                .add_answer_header("Retry-After", &retry_after)
                .is_none()
        {
            return Outcome::Status(500);
        }
        let reason = Reason {
            word: word.unwrap_or_else(|| {
                if status == 502 {
                    "site-failed".into()
                } else {
                    "unavailable".into()
                }
            }),
            id: Some(id.unwrap_or_else(reason::new_id)),
        };
        self.log(status, &reason);
        *self.context.trouble().reason.borrow_mut() = Some(reason);
        Outcome::Status(status)
    }

    fn log(&self, status: u16, reason: &Reason) {
        let site = site::of(self.request).map_or("-", |site| site.primary_str());
        let id = reason.id.as_deref().unwrap_or("-");
        let word = &reason.word;
        // Another backend answers: nothing failed.
        let level = match &**word {
            ELSEWHERE => Level::Information,
            _ => Level::Error,
        };
        self.request.log().write(
            level,
            format_args!(
                "paas_fallback: answered {status}, site: {site}, reason: {word}, id: {id}"
            ),
        );
    }
}

fn exists(path: &[u8]) -> bool {
    Path::new(OsStr::from_bytes(path)).exists()
}

impl Verdict {
    fn refuse(status: u16, word: &str) -> Self {
        Self::Refuse {
            status,
            retry_after: None,
            word: Some(word.into()),
            id: None,
        }
    }

    /// What the answer to the question means.
    fn of(answer: Request<'_>, end: End) -> Self {
        match end {
            End::Answered(200..=299) => Self::Ready,
            End::Answered(status @ (502..=504)) => Self::Refuse {
                status,
                retry_after: answer
                    .answer_header("Retry-After")
                    .filter(|_| status != 502)
                    .map(Box::from),
                word: answer.answer_header("X-Paas-Reason").and_then(reason::word),
                id: answer.answer_header("X-Paas-Id").and_then(reason::word),
            },
            End::Answered(_) => Self::Unanswered {
                word: "unexpected-answer",
            },
            End::Late => Self::Unanswered { word: TIMEOUT },
            End::Unreachable => Self::Unanswered { word: UNREACHABLE },
        }
    }
}

/// The subrequest has ended. nginx may say so twice, the second time with all of its headers.
pub(crate) fn answered(parent: Request<'_>, answer: Request<'_>, end: End) {
    let Some(context) = parent.context() else {
        return;
    };
    let mut stage = context.trouble().stage.borrow_mut();
    // What was noted before counts, but for the end of the time.
    *stage = match std::mem::take(&mut *stage) {
        Stage::Parked { wait, .. } => Stage::Answered {
            verdict: Verdict::of(answer, end),
            wait,
        },
        Stage::Answered { verdict, wait }
            if !matches!(verdict, Verdict::Unanswered { word: TIMEOUT }) =>
        {
            Stage::Answered {
                verdict: Verdict::of(answer, end),
                wait,
            }
        }
        stage => stage,
    };
}

const TIMEOUT: &str = "timeout";
const UNREACHABLE: &str = "unreachable";

/// The request has waited as long as it may.
fn timed_out(request: Request<'_>) {
    let Some(context) = request.context() else {
        return;
    };
    let timeout = |wait| Stage::Answered {
        verdict: Verdict::Unanswered { word: TIMEOUT },
        wait,
    };
    match context.trouble().stage.take() {
        Stage::Parked { subrequest, wait } => {
            context.trouble().stage.replace(timeout(wait));
            subrequest.abort();
        }
        Stage::Postponed { wait, .. } | Stage::Due(wait) => {
            context.trouble().stage.replace(timeout(wait));
            let _ = request.go_on();
        }
        stage => {
            context.trouble().stage.replace(stage);
        }
    }
}

/// The question is to be put again.
fn due(request: Request<'_>) {
    let Some(context) = request.context() else {
        return;
    };
    let stage = context.trouble().stage.take();
    if let Stage::Postponed { wait, .. } = stage {
        context.trouble().stage.replace(Stage::Due(wait));
        // Without memory for that, the end of its time wakes it.
        let _ = request.go_on();
    } else {
        context.trouble().stage.replace(stage);
    }
}

/// Whether the attempt that failed was sent: for the request itself and for the question about it.
pub(crate) fn was_sent(request: Request<'_>) -> bool {
    let mut current = Some(request);
    while let Some(request) = current {
        if let Some(was_sent) = request
            .context()
            .and_then(|context| context.known_trouble()?.was_sent.get())
        {
            return was_sent;
        }
        current = request.parent();
    }
    request.was_sent()
}

/// Why this request, or the one it belongs to, was refused.
pub(crate) fn reason(request: Request<'_>) -> Option<Ref<'_, Reason>> {
    fn of(request: Request<'_>) -> Option<Ref<'_, Reason>> {
        let trouble = request.context()?.known_trouble()?;
        Ref::filter_map(trouble.reason.borrow(), |reason| reason.as_ref()).ok()
    }
    of(request).or_else(|| of(request.main()))
}
