//! [`Reader`]: how nginx's workers and the command line look at the table.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::env::{self, Access, Environment, Stamp};
use crate::error::TableError;
use crate::layout::Layout;
use crate::record::Header;
use crate::view::{self, View};

/// A table that could not be opened is not tried again before this has passed.
const RETRY: Duration = Duration::from_secs(1);
/// An open table is compared with `current` not more often than this.
const CHECK: Duration = Duration::from_secs(1);
/// How often a look-up follows a table that is replaced under it before it gives up.
const REPLACEMENTS: usize = 8;

/// A way to look at a table that may come, go and be replaced at any time.
///
/// It opens the table at the first [`read`](Reader::read), not before: nginx configures itself in the master and
/// reads in the workers, and an LMDB environment must not cross a fork. (One that did is noticed within a second and
/// opened again.)
///
/// A look-up makes no system call: that the table was replaced is said by a mark in the replaced one's header. Once a second
/// it also looks which file `current` names, in case the table's directory was replaced by other hands. If it is gone, the
/// table that is open goes on being used.
pub struct Reader {
    layout: Layout,
    state: Mutex<State>,
}

enum State {
    Closed,
    Open(Open),
    Failed { error: TableError, at: Duration },
}

struct Open {
    environment: Arc<Environment>,
    /// The header, and the transaction it was read in: it cannot have changed while that is the latest.
    header: Option<(usize, Header)>,
    checked: Duration,
}

/// Since the machine was started, as the kernel noted it some milliseconds ago: a tenth of what the exact time costs.
fn now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

impl Reader {
    /// A reader of the table in `dir`. Touches no file.
    #[must_use]
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            layout: Layout::new(dir.as_ref()),
            state: Mutex::new(State::Closed),
        }
    }

    /// The table's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }

    /// Looks at the table. Keep it short: as long as `look` runs, the writer cannot use space again.
    ///
    /// # Errors
    /// Why the table cannot be read; the same error for a second, then it is tried again.
    pub fn read<R>(&self, look: impl FnOnce(&View) -> R) -> Result<R, TableError> {
        let view = self.begin(now())?;
        Ok(look(&view))
    }

    /// The state the table is in now, at a fraction of the cost of [`read`](Reader::read): what a view with this
    /// stamp gave is what a new one would give. None: the table must be read to know.
    pub fn stamp(&mut self) -> Option<Stamp> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let State::Open(open) = state else {
            return None;
        };
        if open.is_in_force(&self.layout, now()) {
            return Some(open.environment.stamp_now());
        }
        *state = State::Closed;
        None
    }

    fn begin(&self, now: Duration) -> Result<View, TableError> {
        // A panic cannot leave the state half changed: it is assigned whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Failed { error, at } = &*state
            && now.saturating_sub(*at) < RETRY
        {
            return Err(error.clone());
        }
        self.follow(&mut state, now).inspect_err(|error| {
            // A crowd of readers passes, and the table is fine.
            if !matches!(
                error,
                TableError::Lmdb {
                    source: heed::MdbError::ReadersFull,
                    ..
                }
            ) {
                *state = State::Failed {
                    error: error.clone(),
                    at: now,
                };
            }
        })
    }

    /// Begins a view of the table in force, through as many replacements as it takes.
    fn follow(&self, state: &mut State, now: Duration) -> Result<View, TableError> {
        for _ in 0..REPLACEMENTS {
            if let State::Open(open) = state
                && open.is_in_force(&self.layout, now)
                && let Some(view) = open.view()?
            {
                return Ok(view);
            }
            // The old one is closed first: a process may have an environment open only once.
            *state = State::Closed;
            *state = State::Open(Open::new(&self.layout, now)?);
        }
        Err(TableError::Missing {
            dir: Arc::clone(&self.layout.dir),
        })
    }
}

impl Open {
    fn new(layout: &Layout, now: Duration) -> Result<Self, TableError> {
        loop {
            let number = layout.current()?;
            match env::open(&layout.environment(number), Access::Read) {
                Ok(environment) => {
                    return Ok(Self {
                        environment,
                        header: None,
                        checked: now,
                    });
                }
                // It may have been replaced and removed in between.
                Err(error) if layout.current()? == number => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn is_in_force(&mut self, layout: &Layout, now: Duration) -> bool {
        if now.saturating_sub(self.checked) < CHECK {
            return true;
        }
        self.checked = now;
        let same = layout
            .current_identity()
            .is_none_or(|identity| identity == self.environment.identity);
        same && self.environment.is_ours()
    }

    /// A view of the table, or none if it was replaced.
    fn view(&mut self) -> Result<Option<View>, TableError> {
        let txn = self.environment.read()?;
        let header = match self.header {
            Some((id, header)) if id == txn.id() => header,
            _ => {
                let header = view::read_header(&self.environment, &txn)?;
                self.header = Some((txn.id(), header));
                header
            }
        };
        let view = || View::new(txn, Arc::clone(&self.environment), header);
        Ok((!header.retired).then(view))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("dir", &self.layout.dir)
            .finish_non_exhaustive()
    }
}
