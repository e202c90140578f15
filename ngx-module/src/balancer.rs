//! `paas_hash`: which backend a request goes to, and which one after it failed.

use std::ptr::NonNull;
use std::rc::Rc;

use routing::health::Action;
use routing::idle::PeerId;
use table::BackendId;

use crate::context::Context;
use crate::directives::{HttpConf, Method, ServerConf};
use crate::ffi::conf::{Conf, Refusal};
use crate::ffi::keepalive::Keepalive;
use crate::ffi::log::Level;
use crate::ffi::milliseconds;
use crate::ffi::peer::Address;
use crate::ffi::request::{Expression, Request};
#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
use crate::ffi::tls::Sessions;
use crate::ffi::upstream::Upstream;
use crate::health::{Place as Entry, Watch};
use crate::monitor::{self, Sent};
use crate::site;
use crate::worker::{Backend, Chosen, Member, Site, Table};

mod peers;
mod servers;

use servers::{Place, Servers};

/// A request never tries more backends than this: what is left would find the same trouble.
const MOST_TRIES: usize = 64;

/// What `paas_hash` of an upstream block says.
pub(crate) struct Hash {
    /// The key of the `server` lines' mode; None: sites are placed by the table.
    pub(crate) key: Option<Expression>,
    pub(crate) method: Method,
    /// Where it was said, for messages.
    pub(crate) place: String,
    /// Set once the block is complete.
    pub(crate) over: Option<Over>,
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
    sessions: Sessions,
}

impl Hash {
    pub(crate) fn new(key: Option<Expression>, method: Method, place: String) -> Self {
        Self {
            key,
            method,
            place,
            over: None,
            #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
            sessions: Sessions::default(),
        }
    }
}

/// What a block's sites are spread over.
pub(crate) enum Over {
    /// The backends of the table.
    Table,
    /// The block's own servers.
    Servers(Box<Servers>),
}

/// Checks a complete block and makes its list of servers.
pub(crate) fn prepare(
    conf: Conf<'_>,
    block: Upstream<'_>,
    http: &mut HttpConf,
    part: &mut ServerConf,
) -> Result<(), Refusal> {
    let hash = part.hash.as_mut().ok_or("\"paas_hash\" is missing")?;
    let place = &hash.place;
    if let Some(keepalive) = &part.keepalive
        && block.is_wrapped()
    {
        return Err(format!(
            "\"keepalive\" is beside \"paas_keepalive\"{}: remove the \"keepalive\" line; \"paas_keepalive\" has its number and \
             its keepalive_timeout, _requests and _time as timeout=, requests= and time=",
            keepalive.place()
        ));
    }
    hash.over = Some(if hash.key.is_some() {
        Over::Servers(Box::new(Servers::new(conf, block)?))
    } else {
        if http.table.is_none() {
            return Err(format!(
                "\"paas_hash\"{place} has no key and there is no \"paas_table\": write \"paas_hash KEY;\" (for example \
                 \"paas_hash $host;\") to spread over the server lines, or \"paas_table DIRECTORY;\" in the http block"
            ));
        }
        // One is the placeholder.
        if block.servers().count() > 1 {
            return Err(format!(
                "\"paas_hash\"{place} without a key takes its backends from \"paas_table\": remove the server lines, \
                 or write \"paas_hash KEY;\" to spread over them"
            ));
        }
        if block.zone().is_some() {
            return Err(format!(
                "\"paas_hash\"{place} without a key needs no \"zone\": it has shared memory of its own; remove the zone line"
            ));
        }
        http.places_by_table = true;
        let monitor = http.monitor.clone().flatten();
        if http.watch.is_none() && (http.eject.failures > 0 || monitor.is_some()) {
            http.watch = Some(Watch::add(conf, http.eject, monitor)?);
        }
        Over::Table
    });
    Ok(())
}

/// How a server or backend that was given a request did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// Nobody knows: the visitor went away before it answered.
    Unknown,
    /// A connection kept alive that the other side had closed: nothing against the backend, which may be asked again.
    StaleConnection,
    /// It answered that another is to be asked (`proxy_next_upstream http_404`).
    Refused,
    /// The site does not run there, and it does not wake it: no application has seen the request.
    Elsewhere,
    /// It failed.
    Failed(Failure),
}

/// How it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// No connection: nobody has seen the request.
    Unreached,
    /// It has the request, or some of it, and was silent for too long.
    Silent,
    /// It has the request, or some of it, and closed the connection or answered what is no answer.
    Broken,
    /// It answered with a status that is said to be a failure (`proxy_next_upstream http_503`).
    Answered,
}

/// Who was chosen.
pub(crate) enum Named {
    /// A `server` line.
    Server(Rc<str>),
    /// A backend of the table.
    Backend(Member),
}

impl Named {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Server(name) => name,
            Self::Backend(backend) => &backend.name,
        }
    }
}

/// What else is known of an attempt.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    /// When it began.
    pub(crate) sent: u64,
    /// The answer says that the backend, and not the site, is to blame.
    pub(crate) is_backend_s_fault: bool,
    /// Milliseconds until the head of the answer was there, if one was.
    pub(crate) time: Option<u64>,
}

impl Outcome {
    /// Whether the backend is to blame, whatever its site may have answered.
    fn is_blamed(self) -> bool {
        matches!(
            self,
            Self::Failed(Failure::Unreached | Failure::Silent | Failure::Broken)
        )
    }

    /// Whether the request goes to another one if it goes on.
    fn is_final(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Refused | Self::Elsewhere)
    }
}

/// The backends one request is sent to, one after the other.
pub(crate) struct Selection<'r> {
    request: Request<'r>,
    part: &'r ServerConf,
    hash: &'r Hash,
    context: &'r Context,
    among: Among<'r>,
    /// Among which idle connections the one in use belongs.
    peer: Option<PeerId>,
}

enum Among<'r> {
    Servers {
        servers: &'r Servers,
        method: Method,
        key: &'r [u8],
        tried: Vec<Place>,
        current: Option<Place>,
    },
    Backends {
        table: &'r Table,
        site: Option<&'r Site>,
        watch: Option<&'r Watch>,
        /// What was given before, for nginx goes on reading the addresses; and whether it may be given again.
        earlier: Vec<(Member, bool)>,
        current: Option<Chosen>,
        /// What has become of the current one, if nginx is done with it.
        outcome: Option<Outcome>,
        sent: Option<Sent>,
    },
}

impl<'r> Selection<'r> {
    /// The selection for a request that is about to be sent, kept until the request ends. None: out of memory, or the key has
    /// no value.
    pub(crate) fn keep(request: Request<'r>, part: &'r ServerConf) -> Option<NonNull<Self>> {
        let hash = part.hash.as_ref()?;
        let context = request.main().context_or_new()?;
        let among = match hash.over.as_ref()? {
            Over::Servers(servers) => Among::Servers {
                servers,
                method: hash.method,
                key: request.evaluate(hash.key.as_ref()?)?,
                tried: Vec::new(),
                current: None,
            },
            Over::Table => {
                let http = request.main().http_conf()?;
                Among::Backends {
                    table: http.table.as_ref()?,
                    site: site::of(request),
                    watch: http.watch.as_ref(),
                    earlier: Vec::new(),
                    current: None,
                    outcome: None,
                    sent: None,
                }
            }
        };
        request.pool()?.keep(|| Self {
            request,
            part,
            hash,
            context,
            among,
            peer: None,
        })
    }

    pub(crate) fn request(&self) -> Request<'r> {
        self.request
    }

    /// Where idle connections are kept, if they are.
    pub(crate) fn keepalive(&self) -> Option<&'r Keepalive> {
        self.part.keepalive.as_deref()
    }

    /// Remembers among which idle connections the one that is made or taken now belongs.
    pub(crate) fn keeps_as(&mut self, peer: Option<PeerId>) {
        self.peer = peer;
    }

    pub(crate) fn kept_as(&self) -> Option<PeerId> {
        self.peer
    }

    #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
    pub(crate) fn sessions(&self) -> &'r Sessions {
        &self.hash.sessions
    }

    /// How often nginx may ask for a backend; at least once.
    pub(crate) fn tries(&self) -> usize {
        let tries = match &self.among {
            Among::Servers { servers, .. } => servers.tries(),
            Among::Backends {
                table, site, watch, ..
            } => table.begin(*site, self.keepalive(), *watch),
        };
        tries.clamp(1, MOST_TRIES)
    }

    /// Whether there is another backend for a request whose backend says that the site does not run there. `server` lines
    /// may lead anywhere, so nothing they answer means that.
    pub(crate) fn may_go_on(&self) -> bool {
        match &self.among {
            Among::Servers { .. } => false,
            Among::Backends {
                table,
                site,
                earlier,
                current,
                ..
            } => {
                let current = current.as_ref().map(|chosen| chosen.backend.id);
                let is_tried = |id| Some(id) == current || is_out(earlier, id);
                site.is_some_and(|site| table.has_other(site, is_tried))
            }
        }
    }

    /// Where to send the request now. None: nowhere is left. What was given stays where it is as long as the selection lives.
    pub(crate) fn next(&mut self) -> Option<&Address> {
        let (address, chosen) = match &mut self.among {
            Among::Servers {
                servers,
                method,
                key,
                tried,
                current,
            } => {
                let place = servers.choose(key, *method, tried, milliseconds())?;
                *current = Some(place);
                let (address, name) = servers.address(place)?;
                (address, Named::Server(name))
            }
            Among::Backends {
                table,
                site,
                watch,
                earlier,
                current,
                outcome,
                sent,
            } => {
                if let Some(last) = current.take() {
                    let is_final = outcome.take().is_some_and(Outcome::is_final);
                    earlier.push((last.backend, is_final));
                }
                let chosen = table.choose((*site)?, |id| is_out(earlier, id), *watch)?;
                *sent = chosen
                    .place
                    .and_then(|place| monitor::begin(place.index, place.id));
                let backend = &current.insert(chosen).backend;
                (&backend.address, Named::Backend(backend.clone()))
            }
        };
        *self.context.backend.borrow_mut() = Some(chosen);
        Some(address)
    }

    /// There is an answer, so nginx will soon be done with what `next` gave last: fetches the memory that [`Selection::done`] will
    /// look at.
    pub(crate) fn expect_done(&self) {
        if let Among::Backends {
            watch: Some(watch),
            current: Some(chosen),
            ..
        } = &self.among
        {
            watch.expect(chosen.place);
        }
    }

    /// nginx is done with what `next` gave last.
    pub(crate) fn done(&mut self, outcome: Outcome, attempt: Attempt) {
        match &mut self.among {
            Among::Servers {
                servers,
                tried,
                current,
                ..
            } => {
                let Some(place) = current.take() else { return };
                if servers.end(place, milliseconds(), outcome) {
                    self.request.log().write(
                        Level::Warning,
                        format_args!("upstream server temporarily disabled"),
                    );
                }
                if outcome.is_final() {
                    tried.push(place);
                }
            }
            Among::Backends {
                table,
                site,
                watch,
                current: Some(chosen),
                outcome: known @ None,
                sent,
                ..
            } => {
                *known = Some(outcome);
                if let Some(mut sent) = sent.take() {
                    sent.failed = outcome.is_blamed() || attempt.is_backend_s_fault;
                    sent.time = attempt.time;
                }
                if let (Outcome::Elsewhere, Some(site)) = (outcome, site) {
                    table.is_elsewhere(site, chosen.backend.id);
                }
                if let Some(watch) = watch {
                    let action = tell(watch, chosen.place, outcome, attempt);
                    follow(action, self.request, &chosen.backend, self.part);
                }
            }
            Among::Backends { .. } => (),
        }
    }
}

/// Whether a backend was given before and may not be given again.
fn is_out(earlier: &[(Member, bool)], id: BackendId) -> bool {
    earlier
        .iter()
        .any(|(backend, is_final)| *is_final && backend.id == id)
}

impl Drop for Selection<'_> {
    /// nginx gives every peer back before the request ends. If that was lost to a panic, it does not count for ever.
    fn drop(&mut self) {
        self.done(
            Outcome::Unknown,
            Attempt {
                sent: 0,
                is_backend_s_fault: false,
                time: None,
            },
        );
    }
}

/// Notes what an attempt says of a backend's health.
fn tell(watch: &Watch, place: Option<Entry>, outcome: Outcome, attempt: Attempt) -> Action {
    match outcome {
        // A site's own errors say nothing about the backend. What its nginx says by itself it says in a header that no site
        // can send.
        Outcome::Answered
        | Outcome::Refused
        | Outcome::Elsewhere
        | Outcome::Failed(Failure::Answered) => match attempt.is_backend_s_fault {
            true => watch.failed(place, attempt.sent),
            false => watch.answered(place),
        },
        Outcome::Failed(Failure::Unreached | Failure::Broken) => watch.failed(place, attempt.sent),
        Outcome::Failed(Failure::Silent) => watch.was_silent(place, attempt.sent),
        Outcome::Unknown | Outcome::StaleConnection => Action::Nothing,
    }
}

/// Does what follows.
fn follow(action: Action, request: Request<'_>, backend: &Backend, part: &ServerConf) {
    let (name, address) = (&backend.name, &backend.address);
    let log = |message: std::fmt::Arguments<'_>| request.log().write(Level::Warning, message);
    match action {
        Action::Eject(time) => {
            if let Some(keepalive) = &part.keepalive {
                keepalive.close_to(|other| other == address.sockaddr());
            }
            log(format_args!(
                "paas_eject: backend {name} ({address}) fails and gets no requests for {time} ms"
            ));
        }
        Action::Readmit => log(format_args!(
            "paas_eject: backend {name} ({address}) serves again and gets its sites back little by little"
        )),
        Action::Nothing | Action::Avoid | Action::Try | Action::Withdraw => (),
    }
}
