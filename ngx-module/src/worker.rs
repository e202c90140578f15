//! What this worker process knows of the table: one reader, opened at the first request (never before the
//! fork), and the backends decoded once for every revision of them.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use table::{BackendId, BackendRecord, Reader, TableError, View};

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
pub(crate) use backends::{Backend, Chosen, Member};
use memo::Memo;
pub(crate) use memo::Site;

/// The table that a configuration names, and what this process knows of it.
pub(crate) struct Table {
    directory: PathBuf,
    /// Whoever works with it takes it away meanwhile: after a panic it is gone, and nothing of what was known is trusted.
    worker: Cell<Option<Box<Worker>>>,
}

struct Worker {
    reader: Reader,
    memo: Memo,
    backends: Option<BackendList>,
}

impl Table {
    /// The table in this directory. Touches no file.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            worker: Cell::new(None),
        }
    }

    /// A look-up of this host is near.
    pub(crate) fn expect(&self, host: &[u8]) {
        if let Some(worker) = self.worker.take() {
            worker.memo.fetch(host);
            self.worker.set(Some(worker));
        }
    }

    /// Looks a host up, and keeps the list of backends fresh if the configuration needs it.
    pub(crate) fn lookup(&self, host: &[u8], with_backends: bool) -> Lookup {
        let found = self.with(|worker| worker.lookup(host, with_backends));
        found.unwrap_or_else(|error| {
            static LIMIT: OncePerSecond = OncePerSecond::new();
            if LIMIT.allows() {
                Log::of_cycle().write(Level::Critical, format_args!("paas_table: {error}"));
            }
            Lookup::Unavailable
        })
    }

    /// All backends of the table; none if it cannot be read.
    pub(crate) fn backends(&self) -> Vec<BackendRecord> {
        let read = self.with(|worker| worker.reader.read(View::backends));
        read.and_then(|backends| backends).unwrap_or_default()
    }

    /// A request of a site is about to be sent: takes notice of what has happened to the backends, and closes idle connections to
    /// those that get none. Returns how many backends may be given the request.
    pub(crate) fn begin(
        &self,
        site: Option<&Site>,
        keepalive: Option<&Keepalive>,
        watch: Option<&Watch>,
    ) -> usize {
        let begin = |list: &mut BackendList| {
            if let Some(watch) = watch {
                list.look(watch, milliseconds());
            }
            if let Some(keepalive) = keepalive {
                keepalive.agree_with(list.state(), || list.addresses(watch));
                if let Some(first) = site.and_then(|site| list.first_of(site)) {
                    keepalive.expect(&first.address);
                }
            }
            list.tries
        };
        self.with_backends(begin).unwrap_or(0)
    }

    /// The backend for a site of those that were not tried yet.
    pub(crate) fn choose(
        &self,
        site: &Site,
        is_tried: impl Fn(BackendId) -> bool,
        watch: Option<&Watch>,
    ) -> Option<Chosen> {
        self.with_backends(|list| list.choose(site, is_tried, watch, milliseconds()))?
    }

    /// Whether a site has a backend that was not tried yet, however it does.
    pub(crate) fn has_other(&self, site: &Site, is_tried: impl Fn(BackendId) -> bool) -> bool {
        let find = |list: &mut BackendList| list.find(site, is_tried, |_| true).is_some();
        self.with_backends(find).unwrap_or(false)
    }

    /// A backend has said that a site does not run there, and that it does not wake it.
    pub(crate) fn is_elsewhere(&self, site: &Site, backend: BackendId) {
        self.with_backends(|list| list.is_elsewhere(site, backend));
    }

    fn with<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> R {
        let known = self.worker.take();
        let mut worker = known.unwrap_or_else(|| Box::new(Worker::new(&self.directory)));
        let result = work(&mut worker);
        self.worker.set(Some(worker));
        result
    }

    /// Works with the backends, if they are known: a look-up of a site has come before.
    fn with_backends<R>(&self, work: impl FnOnce(&mut BackendList) -> R) -> Option<R> {
        let mut worker = self.worker.take()?;
        let result = worker.backends.as_mut().map(work);
        self.worker.set(Some(worker));
        result
    }
}

impl Worker {
    fn new(table: &Path) -> Self {
        Self {
            reader: Reader::new(table),
            memo: Memo::default(),
            backends: None,
        }
    }

    fn lookup(&mut self, host: &[u8], with_backends: bool) -> Result<Lookup, TableError> {
        let Self {
            reader,
            memo,
            backends,
        } = self;
        // What is remembered was read together with the backends.
        if let Some(stamp) = reader.stamp()
            && let Some(site) = memo.get(stamp, host)
        {
            return Ok(Lookup::Site(known(site, backends)));
        }
        let Ok(routing::Host::Domain(domain)) = routing::host::parse(host) else {
            return Ok(Lookup::Unknown);
        };
        reader.read(|view| {
            monitor::has_seen(view.header().generation);
            if with_backends {
                refresh(backends, view)?;
            }
            let Some(record) = view.site(&domain)? else {
                return Ok(Lookup::Unknown);
            };
            let site = memo.put(view.stamp(), host, &record);
            Ok(site.map_or(Lookup::Unavailable, |site| {
                Lookup::Site(known(site, backends))
            }))
        })?
    }
}

/// What is known of a site, for a request: with the backend that comes first for it.
fn known(site: &mut Site, backends: &mut Option<BackendList>) -> Site {
    if let Some(list) = backends {
        list.first(site);
    }
    site.clone()
}

fn refresh(backends: &mut Option<BackendList>, view: &View) -> Result<(), TableError> {
    let header = view.header();
    match backends {
        Some(list) if list.revision == header.backends_revision => list.place(header.placement),
        _ => {
            let records = view.backends()?;
            *backends = Some(BackendList::new(header, records));
        }
    }
    Ok(())
}
