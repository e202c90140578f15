//! The backends of one revision of the table, decoded, and what the worker makes of their health.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Deref;
use std::rc::Rc;

use routing::health::{Action, Heed, is_panic};
use routing::rendezvous::key_hash;
use routing::{Backends, Placement, SlotTable, State};
use table::{BackendId, BackendRecord, Header};

use super::elsewhere::Elsewhere;
use super::memo::{First, Site};
use crate::ffi::log::{Level, Log};
use crate::ffi::peer::Address;
use crate::ffi::prefetch;
use crate::health::{Enrolled, Place, Watch};

/// A worker that loses the race for a trial so often takes what there is.
const MOST_RACES: usize = 8;

/// A backend of the table, ready to be connected to.
// What every request looks at comes first, in a cache line of its own: of many backends hardly any is in the caches.
#[repr(C, align(64))]
pub(crate) struct Backend {
    pub(crate) id: BackendId,
    state: State,
    /// Its entry among the watched ones.
    place: Cell<Option<Place>>,
    pub(crate) address: Address,
    pub(crate) name: Box<str>,
}

const _: () = assert!(
    std::mem::offset_of!(Backend, address) + Address::HEAD <= 64,
    "what every request looks at fits a cache line"
);

/// A backend of a list. It stays where it is as long as this lives, whatever becomes of the list.
#[derive(Clone)]
pub(crate) struct Member {
    all: Rc<Vec<Backend>>,
    index: u32,
}

/// A backend that was chosen for a request.
pub(crate) struct Chosen {
    pub(crate) backend: Member,
    /// Its entry among the watched ones.
    pub(crate) place: Option<Place>,
}

impl Chosen {
    fn new(all: &Rc<Vec<Backend>>, index: usize) -> Option<Self> {
        Some(Self {
            place: all.get(index)?.place(),
            backend: Member {
                all: Rc::clone(all),
                index: u32::try_from(index).ok()?,
            },
        })
    }
}

impl Deref for Member {
    type Target = Backend;

    #[allow(
        clippy::indexing_slicing,
        reason = "there was one when this was made, and a list does not change"
    )]
    fn deref(&self) -> &Backend {
        &self.all[self.index as usize]
    }
}

pub(super) struct BackendList {
    pub(super) revision: u64,
    placement: Placement,
    /// Another for every list and every placement that this worker has seen; never 0.
    number: u32,
    /// In their configured order, which is that of their numbers.
    members: Rc<Vec<Backend>>,
    /// How many of them are not disabled.
    pub(super) tries: usize,
    slots: SlotTable,
    /// None if no backend is being drained.
    elsewhere: Option<Elsewhere>,
    health: Seen,
    /// The news of the daemon's probes that was heeded last.
    news: Option<u64>,
}

/// What was made of the health of all of them.
#[derive(Default)]
struct Seen {
    is_enrolled: bool,
    /// When; None: not yet.
    epoch: Option<u64>,
    /// More than half look unhealthy.
    is_panic: bool,
    /// All serve, and from then on have all of their sites, if nothing happens.
    calm_from: Option<u64>,
}

impl BackendList {
    pub(super) fn new(header: &Header, records: Vec<BackendRecord>) -> Self {
        let slots = SlotTable::new(Backends::new(records.iter().map(BackendRecord::candidate)));
        let tries = records
            .iter()
            .filter(|record| record.state != State::Disabled)
            .count();
        let is_draining = |record: &BackendRecord| record.state == State::Draining;
        let elsewhere = records.iter().any(is_draining).then(Elsewhere::default);
        let members = records.into_iter().map(|record| Backend {
            id: record.id,
            state: record.state,
            place: Cell::new(None),
            address: Address::from_socket(record.address),
            name: record.name.into(),
        });
        Self {
            revision: header.backends_revision,
            placement: header.placement,
            number: next_number(),
            members: Rc::new(members.collect()),
            tries,
            slots,
            elsewhere,
            health: Seen::default(),
            news: None,
        }
    }

    /// Takes notice of how sites are placed.
    pub(super) fn place(&mut self, placement: Placement) {
        if self.placement != placement {
            self.placement = placement;
            self.number = next_number();
        }
    }

    /// Takes notice of what has become of the health of the backends.
    pub(super) fn look(&mut self, watch: &Watch, now: u64) {
        if !self.health.is_enrolled {
            let all: Vec<Enrolled<'_>> = self.members.iter().map(Backend::to_enroll).collect();
            let places = watch.enroll(&all, now);
            for (member, place) in self.members.iter().zip(places) {
                member.place.set(place);
            }
            self.health.is_enrolled = true;
        }
        let news = watch.news();
        if self.news != Some(news) {
            self.news = Some(news);
            self.heed(watch, now);
        }
        let epoch = watch.epoch();
        if self.health.epoch == Some(epoch) {
            return;
        }
        let in_service = || self.members.iter().filter(|member| member.is_in_service());
        let unhealthy = in_service()
            .filter(|member| !watch.health(member.place()).is_in_service())
            .count();
        let returned = |member: &Backend| {
            watch
                .health(member.place())
                .has_returned_at(watch.settings())
        };
        self.health = Seen {
            is_enrolled: true,
            epoch: Some(epoch),
            is_panic: is_panic(unhealthy, in_service().count()),
            calm_from: in_service()
                .map(returned)
                .try_fold(0, |latest, returned| returned.map(|at| latest.max(at))),
        };
    }

    /// Takes what the daemon's probes say to heart.
    fn heed(&self, watch: &Watch, now: u64) {
        for (id, verdict) in watch.verdicts() {
            let id = u32::try_from(id).ok().and_then(BackendId::new);
            let member = id.and_then(|id| self.members.get(self.member(id)?));
            if let Some(member) = member {
                follow(watch.probed(member.place(), verdict, now), member);
            }
        }
    }

    /// A number for the state that [`BackendList::addresses`] are of.
    pub(super) fn state(&self) -> u64 {
        self.revision.rotate_left(32) ^ self.health.epoch.unwrap_or(0)
    }

    /// Where requests may be sent.
    pub(super) fn addresses(&self, watch: Option<&Watch>) -> HashSet<&[u8]> {
        let wanted = |member: &&Backend| {
            member.is_in_service()
                && watch.is_none_or(|watch| watch.health(member.place()).gets_requests())
        };
        self.members
            .iter()
            .filter(wanted)
            .map(|member| member.address.sockaddr())
            .collect()
    }

    /// The backend for a site of those that were not tried yet.
    pub(super) fn choose(
        &mut self,
        site: &Site,
        is_tried: impl Fn(BackendId) -> bool,
        watch: Option<&Watch>,
        now: u64,
    ) -> Option<Chosen> {
        let is_calm = self.health.calm_from.is_some_and(|from| now >= from);
        let Some(watch) = watch.filter(|_| !is_calm) else {
            return self.find(site, is_tried, |_| true);
        };
        let site_hash = key_hash(site.primary());
        for _ in 0..MOST_RACES {
            let mut found = None;
            for heed in Heed::order(self.health.is_panic) {
                found = self
                    .find(site, &is_tried, |member| {
                        let health = watch.health(member.place());
                        heed.allows(health, site_hash, now, watch.settings())
                    })
                    .map(|chosen| (chosen, heed));
                if found.is_some() {
                    break;
                }
            }
            let (chosen, heed) = found?;
            let action = watch.chosen(chosen.place, now);
            if action != Action::Avoid || matches!(heed, Heed::Nothing) {
                return Some(chosen);
            }
        }
        self.find(site, is_tried, |_| true)
    }

    /// A backend has said that a site does not run there, and that it does not wake it.
    pub(super) fn is_elsewhere(&mut self, site: &Site, backend: BackendId) {
        let member = self.member(backend).and_then(|at| self.members.get(at));
        // One that has not heard yet that it is in service again says so for the last time.
        if member.is_some_and(|member| member.state == State::Draining)
            && let Some(elsewhere) = &mut self.elsewhere
        {
            elsewhere.put(site.id, backend);
        }
    }

    fn member(&self, id: BackendId) -> Option<usize> {
        self.members
            .binary_search_by_key(&id, |member| member.id)
            .ok()
    }

    /// The backend for a site of those that are usable. One where the site does not run and is not woken comes last.
    pub(super) fn find(
        &mut self,
        site: &Site,
        is_tried: impl Fn(BackendId) -> bool,
        usable: impl Fn(&Backend) -> bool,
    ) -> Option<Chosen> {
        let first = match site.first {
            First { list, index } if list == self.number => Some(index.into()),
            // It was noted before the backends changed.
            _ => self.find_first(site),
        };
        let is = |index: usize, wanted: &dyn Fn(&Backend) -> bool| {
            self.members
                .get(index)
                .is_some_and(|member| !is_tried(member.id) && usable(member) && wanted(member))
        };
        let choose = |wanted: &dyn Fn(&Backend) -> bool| match first {
            Some(first) if is(first, wanted) => Some(first),
            _ => {
                let pin = site.pin.and_then(|pin| self.member(pin));
                let backends = self.slots.backends();
                let key = site.primary();
                backends.choose(key, pin, &self.placement, |index| is(index, wanted))
            }
        };
        let found = match &self.elsewhere {
            None => choose(&|_| true),
            Some(elsewhere) => {
                choose(&|member| !elsewhere.has(site.id, member.id)).or_else(|| choose(&|_| true))
            }
        };
        Chosen::new(&self.members, found?)
    }

    /// Notes which backend comes first for a site, whoever is usable, and fetches the memory that choosing it will look at.
    pub(super) fn first(&mut self, site: &mut Site) {
        if site.first.list != self.number
            && let Some(index) = self.find_first(site)
            && let Ok(index) = u16::try_from(index)
        {
            let list = self.number;
            site.first = First { list, index };
        }
        if let Some(first) = self.first_of(site) {
            prefetch(first);
            first.address.fetch();
        }
    }

    /// The backend that was noted to come first for a site.
    pub(super) fn first_of(&self, site: &Site) -> Option<&Backend> {
        let First { list, index } = site.first;
        self.members
            .get(usize::from(index))
            .filter(|_| list == self.number)
    }

    fn find_first(&mut self, site: &Site) -> Option<usize> {
        let pin = site.pin.and_then(|pin| self.member(pin));
        self.slots.first(site.primary(), pin, &self.placement)
    }
}

/// A number that this worker has given to no list yet.
fn next_number() -> u32 {
    thread_local! {
        static LAST: Cell<u32> = const { Cell::new(0) };
    }
    let number = LAST.get().checked_add(1).unwrap_or(1);
    LAST.set(number);
    number
}

fn follow(action: Action, Backend { name, address, .. }: &Backend) {
    let log = |message: std::fmt::Arguments<'_>| Log::of_cycle().write(Level::Warning, message);
    match action {
        Action::Withdraw => log(format_args!(
            "paas_eject: backend {name} ({address}) fails its probes and gets no requests"
        )),
        Action::Readmit => log(format_args!(
            "paas_eject: backend {name} ({address}) answers its probes again and gets its sites back"
        )),
        Action::Nothing | Action::Avoid | Action::Try | Action::Eject(_) => (),
    }
}

impl Backend {
    /// Its entry among the watched ones, if it has one.
    fn place(&self) -> Option<Place> {
        self.place.get()
    }

    fn is_in_service(&self) -> bool {
        self.state != State::Disabled
    }

    fn to_enroll(&self) -> Enrolled<'_> {
        Enrolled {
            id: self.id,
            address: self.address.sockaddr(),
            state: self.state,
        }
    }
}
