//! `paas_hash KEY` over the `server` lines of its block.

use std::cell::RefCell;
use std::rc::Rc;

use routing::{Backends, Candidate, Method, Placement, SlotTable, State, Weight};

use super::Outcome;
use super::peers::{Limits, Peers, Verdict};
use crate::ffi::conf::{Conf, Refusal};
use crate::ffi::peer::Address;
use crate::ffi::upstream::{Server, Upstream};

/// The servers of a block: the others come first, the backups only if none of them can be used.
pub(crate) struct Servers {
    primary: Group,
    backup: Group,
    peers: Peers,
    /// There is nothing to choose from: failures are not counted.
    is_single: bool,
}

struct Group {
    members: Vec<Member>,
    /// The addresses of those that are not down.
    tries: usize,
    slots: RefCell<SlotTable>,
}

struct Member {
    name: Rc<str>,
    limits: Limits,
    /// The number of its first address among all of the block.
    first: usize,
    addresses: Vec<Address>,
    /// The same for placement, in the same order: a key prefers one of them.
    order: Backends,
}

/// An address of a server of the block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    is_backup: bool,
    member: usize,
    address: usize,
    /// Its number among all of the block.
    number: usize,
}

impl Servers {
    pub(super) fn new(conf: Conf<'_>, block: Upstream<'_>) -> Result<Self, Refusal> {
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        for server in block.servers() {
            if server.is_resolved_later {
                return Err(format!(
                    "server {}: \"resolve\" does not work with \"paas_hash\": write its addresses, or let \"paas_hash;\" take backends from a table",
                    String::from_utf8_lossy(server.name)
                ));
            }
            if server.backup {
                backup.push(server)
            } else {
                primary.push(server)
            }
        }
        let mut ids = Vec::new();
        let primary = Group::new(primary, &mut ids)?;
        let backup = Group::new(backup, &mut ids)?;
        let name = String::from_utf8_lossy(block.name());
        let zone = block
            .zone()
            .map(|zone| format!("{}:{name}", String::from_utf8_lossy(zone)));
        Ok(Self {
            is_single: ids.len() == 1,
            peers: Peers::new(conf, zone.as_deref(), ids)?,
            primary,
            backup,
        })
    }

    pub(super) fn tries(&self) -> usize {
        self.primary.tries + self.backup.tries
    }

    fn member(&self, place: Place) -> Option<&Member> {
        let group = match place.is_backup {
            true => &self.backup,
            false => &self.primary,
        };
        group.members.get(place.member)
    }

    /// The address at a place, and the name of its server.
    pub(super) fn address(&self, place: Place) -> Option<(&Address, Rc<str>)> {
        let member = self.member(place)?;
        Some((
            member.addresses.get(place.address)?,
            Rc::clone(&member.name),
        ))
    }

    /// Where a request with this key is sent now, of what was not tried yet.
    pub(super) fn choose(
        &self,
        key: &[u8],
        method: Method,
        tried: &[Place],
        now: u64,
    ) -> Option<Place> {
        let usable = |number: usize, limits: &Limits| {
            !tried.iter().any(|tried| tried.number == number)
                && self.peers.is_usable(number, limits, now)
        };
        // Another worker may be quicker to try a failing server again: then it is not usable any more.
        for _ in 0..=self.tries() {
            let place = self.primary.choose(key, method, usable).or_else(|| {
                let place = self.backup.choose(key, method, usable)?;
                Some(Place {
                    is_backup: true,
                    ..place
                })
            })?;
            if self.begin(place, now) {
                return Some(place);
            }
        }
        None
    }

    /// A request is about to be sent there; see [`Peers::begin`].
    pub(super) fn begin(&self, place: Place, now: u64) -> bool {
        self.member(place)
            .is_none_or(|member| self.peers.begin(place.number, &member.limits, now))
    }

    /// The request is done; see [`Peers::end`].
    pub(super) fn end(&self, place: Place, now: u64, outcome: Outcome) -> bool {
        let verdict = match outcome {
            Outcome::Failed(_) if !self.is_single => Some(Verdict::Bad),
            Outcome::Answered | Outcome::Refused | Outcome::Elsewhere => Some(Verdict::Good),
            Outcome::Failed(_) | Outcome::Unknown | Outcome::StaleConnection => None,
        };
        self.member(place)
            .is_some_and(|member| self.peers.end(place.number, &member.limits, now, verdict))
    }
}

impl Group {
    fn new(servers: Vec<Server<'_>>, ids: &mut Vec<Vec<u8>>) -> Result<Self, Refusal> {
        let candidates: Vec<Candidate<'_>> =
            servers.iter().map(candidate).collect::<Result<_, _>>()?;
        let slots = SlotTable::new(Backends::new(candidates));
        let tries = servers
            .iter()
            .filter(|server| !server.down)
            .map(|server| server.addresses.len())
            .sum();
        let mut members = Vec::with_capacity(servers.len());
        for server in servers {
            let first = ids.len();
            for address in &server.addresses {
                ids.push([server.name, b" ", address.sockaddr()].concat());
            }
            let address = |address| Candidate {
                key: Address::sockaddr(address),
                weight: Weight::ONE,
                state: State::Active,
            };
            members.push(Member {
                name: String::from_utf8_lossy(server.name).into(),
                limits: Limits {
                    max_conns: server.max_conns,
                    max_fails: server.max_fails,
                    fail_timeout: u64::try_from(server.fail_timeout)
                        .unwrap_or(0)
                        .saturating_mul(1000),
                },
                first,
                order: server.addresses.iter().map(address).collect(),
                addresses: server.addresses,
            });
        }
        Ok(Self {
            members,
            tries,
            slots: RefCell::new(slots),
        })
    }

    fn choose(
        &self,
        key: &[u8],
        method: Method,
        usable: impl Fn(usize, &Limits) -> bool,
    ) -> Option<Place> {
        let is_usable =
            |member: &Member, address: usize| usable(member.first + address, &member.limits);
        let is_any_usable = |index: usize| {
            self.members.get(index).is_some_and(|member| {
                (0..member.addresses.len()).any(|address| is_usable(member, address))
            })
        };
        let placement = Placement::fixed(method);
        let mut slots = self.slots.try_borrow_mut().ok()?;
        // Most often it can be used, and nobody else need be looked at.
        let first = slots.first(key, None, &placement);
        let member = match first.filter(|first| is_any_usable(*first)) {
            Some(first) => first,
            None => slots.choose(key, None, &placement, is_any_usable)?,
        };
        let found = self.members.get(member)?;
        let address = match found.addresses.len() {
            1 => 0,
            _ => found.order.choose(
                key,
                None,
                &Placement::fixed(Method::Rendezvous),
                |address| is_usable(found, address),
            )?,
        };
        Some(Place {
            is_backup: false,
            member,
            address,
            number: found.first + address,
        })
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
