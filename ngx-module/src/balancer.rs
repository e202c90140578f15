//! `paas_hash`: which backend a request goes to, and which one after it failed.

use std::cell::RefCell;
use std::sync::Arc;

use routing::{Backends, Candidate, Placement, SlotTable, State, Weight};
use table::{BackendId, SiteRecord};

use crate::context::Context;
use crate::directives::{HttpConf, Method, ServerConf};
use crate::ffi::conf::Refusal;
use crate::ffi::keepalive::Keepalive;
use crate::ffi::peer::{Address, Peer};
use crate::ffi::request::{Expression, Request};
#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
use crate::ffi::tls::Sessions;
use crate::ffi::upstream::{Server, Upstream};
use crate::{site, worker};

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
    Servers(Servers),
}

/// The servers of a block: the others come first, the backups only if none of them can be used.
pub(crate) struct Servers {
    primary: Group,
    backup: Group,
}

struct Group {
    members: Vec<Member>,
    /// The addresses of those that are not down.
    tries: usize,
    slots: RefCell<SlotTable>,
}

struct Member {
    name: Arc<str>,
    addresses: Vec<Address>,
}

/// Checks a complete block and makes its list of servers.
pub(crate) fn prepare(
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
    if block.has_zone() {
        return Err(format!(
            "\"paas_hash\"{place} does not use a shared \"zone\", which would be out of date: remove the zone line"
        ));
    }
    hash.over = Some(if hash.key.is_some() {
        Over::Servers(Servers::new(block, place)?)
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
        http.places_by_table = true;
        Over::Table
    });
    Ok(())
}

impl Servers {
    fn new(block: Upstream<'_>, place: &str) -> Result<Self, Refusal> {
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        for server in block.servers() {
            check(&server, place)?;
            if server.backup {
                backup.push(server)
            } else {
                primary.push(server)
            }
        }
        Ok(Self {
            primary: Group::new(primary)?,
            backup: Group::new(backup)?,
        })
    }

    fn tries(&self) -> usize {
        self.primary.tries + self.backup.tries
    }

    fn group(&self, place: Place) -> &Group {
        if place.is_backup {
            &self.backup
        } else {
            &self.primary
        }
    }

    fn choose(&self, key: &[u8], method: Method, tried: &[Place]) -> Option<Place> {
        let place = |is_backup, index| Place {
            is_backup,
            index,
            address: 0,
        };
        let usable = |place: Place| !tried.iter().any(|tried| tried.is_same_server(place));
        self.primary
            .choose(key, method, |index| usable(place(false, index)))
            .map(|index| place(false, index))
            .or_else(|| {
                self.backup
                    .choose(key, method, |index| usable(place(true, index)))
                    .map(|index| place(true, index))
            })
    }
}

/// Refuses what would be ignored silently otherwise.
fn check(server: &Server<'_>, place: &str) -> Result<(), Refusal> {
    let name = String::from_utf8_lossy(server.name);
    let refuse = |setting: &str, instead: &str| {
        Err(format!(
            "server {name}: \"paas_hash\"{place} does not support \"{setting}\": {instead}"
        ))
    };
    if server.max_conns != 0 {
        return refuse(
            "max_conns",
            "remove it, and limit connections on the server itself",
        );
    }
    if server.max_fails != 1 {
        return refuse(
            "max_fails",
            "remove it; a failed request goes to the next server (\"proxy_next_upstream\"), and no server is taken out of the choice",
        );
    }
    if server.fail_timeout != 10 {
        return refuse(
            "fail_timeout",
            "remove it; no server is taken out of the choice after a failure",
        );
    }
    Ok(())
}

impl Group {
    fn new(servers: Vec<Server<'_>>) -> Result<Self, Refusal> {
        let candidates: Vec<Candidate<'_>> =
            servers.iter().map(candidate).collect::<Result<_, _>>()?;
        let slots = SlotTable::new(Backends::new(candidates));
        let tries = servers
            .iter()
            .filter(|server| !server.down)
            .map(|server| server.addresses.len())
            .sum();
        let members = servers.into_iter().map(|server| Member {
            name: String::from_utf8_lossy(server.name).into(),
            addresses: server.addresses,
        });
        Ok(Self {
            members: members.collect(),
            tries,
            slots: RefCell::new(slots),
        })
    }

    fn choose(&self, key: &[u8], method: Method, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.slots
            .try_borrow_mut()
            .ok()?
            .choose(key, None, &Placement::fixed(method), usable)
    }
}

fn candidate<'s>(server: &Server<'s>) -> Result<Candidate<'s>, Refusal> {
    let weight = u32::try_from(server.weight).unwrap_or(u32::MAX);
    let weight = Weight::new(weight).map_err(|error| {
        format!(
            "server {}: weight={}: {error}",
            String::from_utf8_lossy(server.name),
            server.weight
        )
    })?;
    let state = if server.down {
        State::Disabled
    } else {
        State::Active
    };
    Ok(Candidate {
        key: server.name,
        weight,
        state,
    })
}

/// A server of a block, and which of its addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    is_backup: bool,
    index: usize,
    address: usize,
}

impl Place {
    fn is_same_server(self, other: Self) -> bool {
        (self.is_backup, self.index) == (other.is_backup, other.index)
    }
}

/// What failed, of a backend that was tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A connection kept alive that the other side had closed: nothing against the backend.
    StaleConnection,
    /// The backend itself.
    Backend,
}

/// The backends one request is sent to, one after the other.
pub(crate) struct Selection<'r> {
    request: Request<'r>,
    part: &'r ServerConf,
    hash: &'r Hash,
    context: &'r Context,
    among: Among<'r>,
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
        site: Option<&'r SiteRecord>,
        tried: Vec<BackendId>,
        current: Option<BackendId>,
    },
}

impl<'r> Selection<'r> {
    /// The selection for a request that is about to be sent. None: out of memory, or the key has no value.
    pub(crate) fn new(request: Request<'r>, part: &'r ServerConf) -> Option<Self> {
        let hash = part.hash.as_ref()?;
        let context = request.main().context_or_new()?;
        let among = match hash.over.as_ref()? {
            Over::Servers(servers) => {
                let key = request.evaluate(hash.key.as_ref()?)?;
                Among::Servers {
                    servers,
                    method: hash.method,
                    key,
                    tried: Vec::new(),
                    current: None,
                }
            }
            Over::Table => Among::Backends {
                site: site::of(request),
                tried: Vec::new(),
                current: None,
            },
        };
        Some(Self {
            request,
            part,
            hash,
            context,
            among,
        })
    }

    pub(crate) fn request(&self) -> Request<'r> {
        self.request
    }

    /// Where idle connections are kept, if they are.
    pub(crate) fn keepalive(&self) -> Option<&'r Keepalive> {
        self.part.keepalive.as_deref()
    }

    #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
    pub(crate) fn sessions(&self) -> &'r Sessions {
        &self.hash.sessions
    }

    /// How often nginx may ask for a backend; at least once.
    pub(crate) fn tries(&self) -> usize {
        let tries = match &self.among {
            Among::Servers { servers, .. } => servers.tries(),
            Among::Backends { .. } => worker::tries(self.keepalive()),
        };
        tries.clamp(1, MOST_TRIES)
    }

    /// Where to send the request now. None: nowhere is left.
    pub(crate) fn next(&mut self) -> Option<Peer<'r>> {
        let pool = self.request.pool()?;
        let (peer, name) = match &mut self.among {
            Among::Servers {
                servers,
                method,
                key,
                tried,
                current,
            } => {
                // After a failure `current` is the server's next address, if it has one.
                let place = match *current {
                    Some(place) => place,
                    None => servers.choose(key, *method, tried)?,
                };
                *current = Some(place);
                let member = servers.group(place).members.get(place.index)?;
                (
                    member.addresses.get(place.address)?.give(pool)?,
                    Arc::clone(&member.name),
                )
            }
            Among::Backends {
                site,
                tried,
                current,
            } => {
                let (id, backend) = worker::choose((*site)?, tried)?;
                *current = Some(id);
                (backend.address.give(pool)?, Arc::clone(&backend.name))
            }
        };
        *self.context.backend.borrow_mut() = Some(name);
        Some(peer)
    }

    /// What `next` gave last has failed.
    pub(crate) fn failed(&mut self, failure: Failure) {
        if failure == Failure::StaleConnection {
            return;
        }
        match &mut self.among {
            Among::Servers {
                servers,
                tried,
                current,
                ..
            } => {
                let Some(place) = current.take() else { return };
                let next = Place {
                    address: place.address + 1,
                    ..place
                };
                let addresses = servers
                    .group(place)
                    .members
                    .get(place.index)
                    .map_or(0, |member| member.addresses.len());
                if next.address < addresses {
                    *current = Some(next);
                } else {
                    tried.push(place);
                }
            }
            Among::Backends { tried, current, .. } => tried.extend(current.take()),
        }
    }
}
