//! The registry: the single source of truth about users, sites, backends and placement. [`Registry`] is what the rest
//! of the program knows of it; [`sqlite`] keeps it in one file.
//!
//! A [`View`] reads one consistent state; an [`Edit`] is one transaction, which is nothing until it is committed.
pub(crate) mod hosts;
pub mod lasting;
mod limits;
pub mod sqlite;

pub use hosts::{Hosts, hosts, sites};
pub use limits::{CpuUsed, LimitsEdit, LimitsView};

use crate::model::*;
use crate::settings::Settings;
use std::path::PathBuf;
use table::SiteRecord;

/// What can go wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be opened or made.
    #[error("cannot open the registry {}: {why}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The database refused a statement.
    #[error("the registry: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row that this program would not have written.
    #[error(
        "the registry holds a {what} that is none ({key}): {source}; correct the row, or restore the registry from a copy"
    )]
    Row {
        /// Of what kind.
        what: &'static str,
        /// Which row.
        key: String,
        /// What is wrong.
        source: Invalid,
    },
    /// There is no such thing.
    #[error("there is no {what} {name}; `paasctl list-{what}s` shows those there are")]
    Missing {
        /// Of what kind.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// It is there already.
    #[error("the {what} {name} exists already{owner}")]
    Exists {
        /// Of what kind.
        what: &'static str,
        /// Its name.
        name: String,
        /// Whose it is, with a leading ": ", or nothing.
        owner: String,
    },
    /// It is allowed to no one, or not now; says why and what to do.
    #[error("{0}")]
    Refused(String),
}

/// A result of the registry.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// One thing that changed: it was added, set or removed; look it up to see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// A user.
    User(UserName),
    /// A backend.
    Backend(BackendId),
    /// A site's own properties.
    Site(SiteId),
    /// A domain.
    Domain(Box<Domain>),
    /// The placement.
    Placement,
}

/// Which sites a listing shows; `None` means all.
#[derive(Debug, Clone, Default)]
pub struct SiteFilter {
    /// Only this user's.
    pub user: Option<UserName>,
}

/// One consistent state of the registry: whatever is read through one view was true at the same moment.
pub trait View: LimitsView {
    /// The number of the last change; it only grows.
    fn revision(&self) -> Result<u64>;
    /// What changed after `revision`, each thing once; `None` if the log does not reach back that far (or `revision`
    /// was never reached here): then everything must be read again.
    fn changes_since(&self, revision: u64) -> Result<Option<Vec<Changed>>>;
    /// The placement.
    fn placement(&self) -> Result<Placement>;
    /// How a slow change of the placement goes on, if one is under way.
    fn progress(&self) -> Result<Option<Progress>>;
    /// The machines that hold slow changes up at `now`, in milliseconds since 1970.
    fn holds(&self, now: u64) -> Result<Vec<Hold>>;
    /// All users, by name.
    fn users(&self) -> Result<Vec<User>>;
    /// One user.
    fn user(&self, name: &UserName) -> Result<Option<User>>;
    /// All backends, in the order they were added: the order the python methods count in.
    fn backends(&self) -> Result<Vec<Backend>>;
    /// One backend.
    fn backend(&self, name: &BackendName) -> Result<Option<Backend>>;
    /// One backend by its id.
    fn backend_by_id(&self, id: BackendId) -> Result<Option<Backend>>;
    /// When sites that are still awake on a backend that is being drained are put to sleep, in milliseconds since 1970.
    fn drain_deadline(&self, backend: BackendId) -> Result<Option<u64>>;
    /// One site by its id.
    fn site(&self, id: SiteId) -> Result<Option<Site>>;
    /// The site that a domain leads to, primary or not.
    fn site_of(&self, domain: &Domain) -> Result<Option<Site>>;
    /// Hands out sites one after the other, by domain, without holding them all in memory.
    fn each_site(&self, filter: &SiteFilter, see: &mut dyn FnMut(Site) -> Result<()>)
    -> Result<()>;
    /// The domains of a site, the primary one included, by name.
    fn domains(&self, site: SiteId) -> Result<Vec<Domain>>;
    /// The environment of a site's processes, secrets included.
    fn environment(&self, site: SiteId) -> Result<Environment>;
    /// The host names after `after` with what the table says of each, by name, at most `limit` of them.
    fn hosts_after(&self, after: Option<&Domain>, limit: u32) -> Result<Vec<(Domain, SiteRecord)>>;
    /// What the table says of one host name.
    fn host(&self, domain: &Domain) -> Result<Option<SiteRecord>>;
}

/// A transaction. Dropped without `commit`, it has changed nothing.
pub trait Edit: View + LimitsEdit {
    /// Adds a user with `uid`, or with the next free one of `range`; a uid is never given twice.
    fn add_user(&mut self, name: &UserName, uid: Option<Uid>, range: UidRange) -> Result<User>;
    /// Gives a user another name.
    fn rename_user(&mut self, name: &UserName, new: &UserName) -> Result<()>;
    /// Removes a user who owns no site.
    fn remove_user(&mut self, name: &UserName) -> Result<()>;
    /// Adds a backend.
    fn add_backend(&mut self, backend: &NewBackend) -> Result<Backend>;
    /// Replaces what is known of a backend; `id` says which.
    fn set_backend(&mut self, backend: &Backend) -> Result<()>;
    /// Says when sites that are still awake on a backend that is being drained are put to sleep; none: when they are idle.
    fn set_drain_deadline(&mut self, backend: BackendId, at: Option<u64>) -> Result<()>;
    /// Removes a backend no site is pinned to.
    fn remove_backend(&mut self, name: &BackendName) -> Result<()>;
    /// Adds a site with its primary domain.
    fn add_site(&mut self, site: &NewSite) -> Result<Site>;
    /// Replaces what is known of a site; `id` says which. The primary domain stays.
    fn set_site(&mut self, site: &Site) -> Result<()>;
    /// Replaces the environment of a site's processes.
    fn set_environment(&mut self, site: SiteId, environment: &Environment) -> Result<()>;
    /// Removes a site and all its domains.
    fn remove_site(&mut self, id: SiteId) -> Result<()>;
    /// Lets a further domain lead to a site.
    fn add_domain(&mut self, domain: &Domain, site: SiteId) -> Result<()>;
    /// Lets a further domain lead to another site.
    fn set_domain(&mut self, domain: &Domain, site: SiteId) -> Result<()>;
    /// Removes a further domain; the primary one goes only with its site.
    fn remove_domain(&mut self, domain: &Domain) -> Result<()>;
    /// Sets the placement, and how a slow change of it goes on.
    fn set_placement(&mut self, placement: &Placement, progress: Option<&Progress>) -> Result<()>;
    /// Holds slow changes up, or goes on doing so.
    fn hold(&mut self, hold: &Hold) -> Result<()>;
    /// A machine holds nothing up any more.
    fn release(&mut self, machine: &str) -> Result<()>;
    /// Makes it so; durable when this returns. Gives the revision it led to.
    fn commit(self: Box<Self>) -> Result<u64>;
}

/// Where the truth is kept.
pub trait Registry: Send {
    /// A state to read.
    fn view(&mut self) -> Result<Box<dyn View + '_>>;
    /// A transaction to write; waits for others.
    fn edit(&mut self) -> Result<Box<dyn Edit + '_>>;
}

/// Opens the machine's registry; makes it if it is not there.
pub fn open(settings: &Settings) -> Result<Box<dyn Registry>> {
    Ok(Box::new(sqlite::Sqlite::open(settings.paths().registry())?))
}
