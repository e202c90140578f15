//! What this worker process knows of the table: one reader, opened at the first request (never before the
//! fork), and the backends decoded once for every revision of them.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use routing::Placement;
use table::{BackendId, BackendRecord, Reader, SiteRecord, TableError, View};

use crate::ffi::keepalive::Keepalive;
use crate::ffi::log::{Level, Log, OncePerSecond};
use crate::ffi::milliseconds;
use crate::health::Watch;
use crate::monitor;
use crate::site::Lookup;

mod backends;
mod elsewhere;
mod memo;

use backends::BackendList;
pub(crate) use backends::{Backend, Chosen};
use memo::Memo;

/// A worker has one thread, so nobody ever waits for this lock.
static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

struct Worker {
    reader: Reader,
    memo: Memo,
    placement: Placement,
    backends: Option<BackendList>,
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

/// All backends of the table; none if it cannot be read.
pub(crate) fn backends(table: &Path) -> Vec<BackendRecord> {
    let Some(mut worker) = lock() else {
        return Vec::new();
    };
    let worker = worker.get_or_insert_with(|| Worker::new(table));
    let read = worker.reader.read(View::backends);
    read.and_then(|backends| backends).unwrap_or_default()
}

/// A request of a site is about to be sent: takes notice of what has happened to the backends, and closes idle connections to those
/// that get none. Returns how many backends may be given the request.
pub(crate) fn begin(keepalive: Option<&Keepalive>, watch: Option<&Watch>) -> usize {
    let mut worker = lock();
    let Some(list) = worker
        .as_mut()
        .and_then(|worker| worker.as_mut()?.backends.as_mut())
    else {
        return 0;
    };
    if let Some(watch) = watch {
        list.look(watch, milliseconds());
    }
    if let Some(keepalive) = keepalive {
        keepalive.agree_with(list.state(), || list.addresses(watch));
    }
    list.tries
}

/// The backend for a site of those that were not tried yet.
pub(crate) fn choose(
    site: &SiteRecord,
    tried: &[BackendId],
    watch: Option<&Watch>,
) -> Option<Chosen> {
    let mut worker = lock()?;
    let worker = worker.as_mut()?;
    worker
        .backends
        .as_mut()?
        .choose(site, &worker.placement, tried, watch, milliseconds())
}

/// Whether a site has a backend that was not tried yet, however it does.
pub(crate) fn has_other(site: &SiteRecord, tried: &[BackendId]) -> bool {
    let mut worker = lock();
    worker
        .as_mut()
        .and_then(|worker| worker.as_mut())
        .and_then(|worker| {
            let list = worker.backends.as_mut()?;
            list.find(site, &worker.placement, tried, |_| true)
        })
        .is_some()
}

/// A backend has said that a site does not run there, and that it does not wake it.
pub(crate) fn is_elsewhere(site: &SiteRecord, backend: BackendId) {
    let mut worker = lock();
    let list = worker
        .as_mut()
        .and_then(|worker| worker.as_mut()?.backends.as_mut());
    if let Some(list) = list {
        list.is_elsewhere(site, backend);
    }
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
            monitor::has_seen(view.header().generation);
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
