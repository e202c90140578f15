//! The registry into the table: what changed since the revision the table holds, or all of it. Whichever way, the
//! table's generation is afterwards the registry's revision, and its content what the registry said at that revision.
use crate::model::Backend;
use crate::registry::{Changed, Registry, RegistryError, View, hosts};
use table::{BackendRecord, Change, TableError, Writer};

/// Why the table could not follow.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The registry could not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What was done to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// It held that revision already.
    Unchanged(u64),
    /// Changes were applied.
    Applied {
        /// The revision it holds now.
        revision: u64,
        /// How many records changed.
        changes: usize,
    },
    /// It was built anew.
    Rebuilt(u64),
}

impl Synced {
    /// The registry's revision that the table holds.
    pub fn revision(self) -> u64 {
        match self {
            Self::Unchanged(revision)
            | Self::Rebuilt(revision)
            | Self::Applied { revision, .. } => revision,
        }
    }
}

/// Brings the table to the registry's present revision, with as little writing as the registry's log of changes allows.
pub fn sync(registry: &mut dyn Registry, writer: &mut Writer) -> Result<Synced, SyncError> {
    let view = registry.view()?;
    let revision = view.revision()?;
    let held = writer.generation();
    // A table at revision 0 may be none at all: nginx needs one to be there, even with nothing in it.
    if held == revision && writer.header().is_some() {
        return Ok(Synced::Unchanged(revision));
    }
    let Some(changed) = view.changes_since(held)?.filter(|_| held > 0) else {
        return replace(&*view, writer);
    };
    let changes = changed
        .iter()
        .map(|one| record(&*view, one))
        .collect::<Result<Vec<_>, _>>()?;
    let changes: Vec<Change> = changes.into_iter().flatten().collect();
    let count = changes.len();
    match writer.apply(revision, changes) {
        Ok(()) => Ok(Synced::Applied {
            revision,
            changes: count,
        }),
        Err(problem) if problem.is_damage() => {
            tracing::warn!(%problem, "the table cannot be changed and is built anew");
            replace(&*view, writer)
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Builds the table anew whatever it holds.
pub fn rebuild(registry: &mut dyn Registry, writer: &mut Writer) -> Result<Synced, SyncError> {
    replace(&*registry.view()?, writer)
}

fn replace(view: &dyn View, writer: &mut Writer) -> Result<Synced, SyncError> {
    let revision = view.revision()?;
    let backends = view.backends()?.into_iter().map(put_backend);
    let first = std::iter::once(Change::SetPlacement(view.placement()?))
        .chain(backends)
        .map(Ok);
    let hosts = hosts(view).map(|host| host.map(|(name, record)| Change::PutHost(name, record)));
    writer.try_rebuild(revision, first.chain(hosts))?;
    Ok(Synced::Rebuilt(revision))
}

/// What the table must be told of one thing that changed, by what the registry says of it now.
fn record(view: &dyn View, changed: &Changed) -> Result<Vec<Change>, RegistryError> {
    Ok(match changed {
        Changed::User(_) => Vec::new(),
        Changed::Placement => vec![Change::SetPlacement(view.placement()?)],
        Changed::Backend(id) => vec![match view.backend_by_id(*id)? {
            Some(backend) => put_backend(backend),
            None => Change::DeleteBackend(*id),
        }],
        Changed::Domain(domain) => vec![match view.host(domain)? {
            Some(record) => Change::PutHost((**domain).clone(), record),
            None => Change::DeleteHost((**domain).clone()),
        }],
        // Every name of a site has a record of its own. If the site is gone, each of them is in the log itself.
        Changed::Site(id) => match view.site(*id)? {
            None => Vec::new(),
            Some(site) => {
                let record = site.record();
                view.domains(*id)?
                    .into_iter()
                    .map(|name| Change::PutHost(name, record.clone()))
                    .collect()
            }
        },
    })
}

fn put_backend(backend: Backend) -> Change {
    Change::PutBackend(BackendRecord {
        id: backend.id,
        name: backend.name.to_string(),
        key: backend.key.as_str().as_bytes().to_vec(),
        address: backend.address,
        weight: backend.weight,
        state: backend.state,
    })
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
