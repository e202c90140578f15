//! `paas_activity`: how busy each site is, counted for the daemon, which puts idle sites to sleep.
//!
//! A request counts from the moment its site is known until nginx forgets it, whatever becomes of it in between: while its
//! body comes in, while it is parked, while its connection is upgraded. The crate `activity` says how the counters are kept
//! and how they survive reloads and killed workers.

use std::cell::OnceCell;
use std::fs::DirBuilder;
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::rc::Rc;

use activity::{BLIND, Layout, Place, SLOTS, Slot};

use crate::ffi::log::{Level, Log};
use crate::ffi::mapping::Mapping;
use crate::ffi::request::Request;
use crate::site;

/// The counters that a configuration names.
#[derive(Clone)]
pub(crate) struct Counters {
    mapping: Rc<Mapping>,
    layout: Layout,
}

/// Where this worker counts.
struct Counter {
    mapping: Rc<Mapping>,
    words: Range<usize>,
    slot: Slot,
}

/// A request in flight, counted until this is dropped.
pub(crate) struct InFlight {
    counter: Rc<Counter>,
    place: Place,
}

thread_local! {
    /// None in the master, and in a worker that has nothing to count or cannot.
    static COUNTER: OnceCell<Rc<Counter>> = const { OnceCell::new() };
}

impl Counters {
    /// Opens the file for this layout in a directory, which is made if need be.
    pub(crate) fn open(directory: &Path, layout: Layout) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        let path = directory.join(activity::file_name(layout)?);
        let mapping = Mapping::open_once(&path, layout.words())?;
        Ok(Self { mapping, layout })
    }

    /// A slot for this process; None if all are taken.
    fn claim(&self) -> io::Result<Option<Counter>> {
        let found = self
            .mapping
            .claim(SLOTS, |number| self.layout.slot(number))?;
        Ok(found.map(|(_, words)| Counter {
            mapping: Rc::clone(&self.mapping),
            slot: Slot::claim(self.mapping.words(words.clone())),
            words,
        }))
    }
}

/// A worker begins to work with these counters.
pub(crate) fn start(counters: &Counters) {
    // A single process that was reloaded goes on with its slot.
    if COUNTER.with(|here| here.get().is_some()) {
        return;
    }
    let why = match counters.claim() {
        Ok(Some(counter)) => {
            let _ = COUNTER.with(|here| here.set(Rc::new(counter)));
            return;
        }
        Ok(None) => format!("{SLOTS} workers count already"),
        Err(error) => error.to_string(),
    };
    let told = counters.mapping.share(BLIND);
    let consequence = match told {
        Ok(true) => "no site is put to sleep by the daemon while this worker lives".to_owned(),
        Ok(false) => "the daemon could not be told".to_owned(),
        Err(error) => format!("the daemon could not be told: {error}"),
    };
    Log::of_cycle().write(
        Level::Critical,
        format_args!("paas_activity: this worker cannot count requests: {why}; {consequence}"),
    );
}

/// Counts a request of a site, once.
pub(crate) fn count(request: Request<'_>) {
    COUNTER.with(|counter| {
        let Some(counter) = counter.get() else { return };
        let main = request.main();
        let (Some(site), Some(context)) = (site::of(main), main.context_or_new()) else {
            return;
        };
        context.in_flight.get_or_init(|| InFlight {
            counter: Rc::clone(counter),
            place: counter
                .slot
                .begin(counter.words(), site.id.0.get(), activity::now()),
        });
    });
}

impl Counter {
    fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.mapping.words(self.words.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let counter = &self.counter;
        counter
            .slot
            .end(counter.words(), self.place, activity::now());
    }
}
