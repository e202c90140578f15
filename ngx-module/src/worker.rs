//! What this worker process knows of the table: one reader, opened at the first request (never before the
//! fork), and the backends decoded once for every revision of them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use routing::{Backends, Placement, SlotTable, State};
use table::{BackendId, BackendRecord, Reader, SiteRecord, TableError, View};

use crate::ffi::keepalive::Keepalive;
use crate::ffi::log::{Level, Log, OncePerSecond};
use crate::ffi::peer::Address;
use crate::site::Lookup;

mod memo;

use memo::Memo;

/// A worker has one thread, so nobody ever waits for this lock.
static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

struct Worker {
    reader: Reader,
    memo: Memo,
    placement: Placement,
    backends: Option<BackendList>,
}

/// The backends of one revision, decoded.
struct BackendList {
    revision: u64,
    /// In their configured order, which is that of their numbers.
    members: Vec<Member>,
    /// How many of them are not disabled.
    tries: usize,
    slots: SlotTable,
}

struct Member {
    id: BackendId,
    is_in_service: bool,
    backend: Arc<Backend>,
}

/// A backend of the table, ready to be connected to.
pub(crate) struct Backend {
    pub(crate) name: Arc<str>,
    pub(crate) address: Address,
}

/// Looks a host up, and keeps the list of backends fresh if the configuration needs it.
pub(crate) fn lookup(table: &Path, host: &[u8], with_backends: bool) -> Lookup {
    let Some(mut worker) = lock() else {
        return Lookup::Unavailable;
    };
    // A reload of a single-process nginx may name another table.
    if worker
        .as_ref()
        .is_some_and(|worker| worker.reader.dir().as_os_str() != table.as_os_str())
    {
        *worker = None;
    }
    worker
        .get_or_insert_with(|| Worker::new(table))
        .lookup(host, with_backends)
        .unwrap_or_else(|error| {
            static LIMIT: OncePerSecond = OncePerSecond::new();
            if LIMIT.allows() {
                Log::of_cycle().write(Level::Critical, format_args!("paas_table: {error}"));
            }
            Lookup::Unavailable
        })
}

/// The backend for a site of those that were not tried yet.
pub(crate) fn choose(site: &SiteRecord, tried: &[BackendId]) -> Option<(BackendId, Arc<Backend>)> {
    let mut worker = lock()?;
    let worker = worker.as_mut()?;
    worker
        .backends
        .as_mut()?
        .choose(site, &worker.placement, tried)
}

/// How many backends may be given a request that is about to be sent. Of connections kept to backends that are gone or out of
/// service, none is kept any longer.
pub(crate) fn tries(keepalive: Option<&Keepalive>) -> usize {
    let worker = lock();
    let Some(list) = worker
        .as_ref()
        .and_then(|worker| worker.as_ref()?.backends.as_ref())
    else {
        return 0;
    };
    if let Some(keepalive) = keepalive {
        keepalive.agree_with(list.revision, || list.addresses());
    }
    list.tries
}

fn lock() -> Option<MutexGuard<'static, Option<Worker>>> {
    match WORKER.try_lock() {
        Ok(worker) => Some(worker),
        // After a panic nothing of what was known is trusted.
        Err(TryLockError::Poisoned(poisoned)) => {
            WORKER.clear_poison();
            let mut worker = PoisonError::into_inner(poisoned);
            *worker = None;
            Some(worker)
        }
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Worker {
    fn new(table: &Path) -> Self {
        Self {
            reader: Reader::new(table),
            memo: Memo::default(),
            placement: Placement::default(),
            backends: None,
        }
    }

    fn lookup(&mut self, host: &[u8], with_backends: bool) -> Result<Lookup, TableError> {
        // What is remembered was read together with the placement and the backends.
        if let Some(stamp) = self.reader.stamp()
            && let Some(site) = self.memo.get(stamp, host)
        {
            return Ok(Lookup::Site(site));
        }
        let Ok(routing::Host::Domain(domain)) = routing::host::parse(host) else {
            return Ok(Lookup::Unknown);
        };
        let Self {
            reader,
            memo,
            placement,
            backends,
        } = self;
        reader.read(|view| {
            if with_backends {
                *placement = view.header().placement;
                refresh(backends, view)?;
            }
            Ok(match view.site(&domain)? {
                Some(site) => Lookup::Site(memo.put(view.stamp(), host, site)),
                None => Lookup::Unknown,
            })
        })?
    }
}

fn refresh(backends: &mut Option<BackendList>, view: &View) -> Result<(), TableError> {
    let revision = view.header().backends_revision;
    if backends
        .as_ref()
        .is_none_or(|list| list.revision != revision)
    {
        *backends = Some(BackendList::new(revision, view.backends()?));
    }
    Ok(())
}

impl BackendList {
    fn new(revision: u64, records: Vec<BackendRecord>) -> Self {
        let slots = SlotTable::new(Backends::new(records.iter().map(BackendRecord::candidate)));
        let tries = records
            .iter()
            .filter(|record| record.state != State::Disabled)
            .count();
        let members = records.into_iter().map(|record| Member {
            id: record.id,
            is_in_service: record.state != State::Disabled,
            backend: Arc::new(Backend {
                name: record.name.into(),
                address: Address::from_socket(record.address),
            }),
        });
        Self {
            revision,
            members: members.collect(),
            tries,
            slots,
        }
    }

    /// Where requests may be sent.
    fn addresses(&self) -> HashSet<&[u8]> {
        let in_service = self.members.iter().filter(|member| member.is_in_service);
        in_service
            .map(|member| member.backend.address.sockaddr())
            .collect()
    }

    fn choose(
        &mut self,
        site: &SiteRecord,
        placement: &Placement,
        tried: &[BackendId],
    ) -> Option<(BackendId, Arc<Backend>)> {
        let Self { members, slots, .. } = self;
        let pin = site
            .pin
            .and_then(|pin| members.binary_search_by_key(&pin, |member| member.id).ok());
        let usable = |index: usize| {
            tried.is_empty()
                || members
                    .get(index)
                    .is_some_and(|member| !tried.contains(&member.id))
        };
        let index = slots.choose(site.primary.as_bytes(), pin, placement, usable)?;
        members
            .get(index)
            .map(|member| (member.id, Arc::clone(&member.backend)))
    }
}
