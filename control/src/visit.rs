//! A program in a sandbox like a site's: the same user, directories, environment, network and limits. An operator's own, or one that
//! looks at a site before it has a visitor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd, write};
use rustix::process::{getegid, geteuid};

use crate::initialize::confine::{Inmate, Unconfined, Walls};
use crate::initialize::order::Order;
use crate::model::{AbsolutePath, Domain, Network, Site, SiteId, UserName};
use crate::registry::{self, RegistryError};
use crate::settings::{Role, Settings};

/// What keeps a visit from being made.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The walls.
    #[error(transparent)]
    Unconfined(#[from] Unconfined),
    /// The site's owner is gone.
    #[error("the site's user {0} is not in the registry")]
    NoUser(String),
    /// The order could not be handed over.
    #[error("cannot hand the launcher its order: {0}")]
    Order(#[from] io::Error),
}

/// Whose files a program runs among: a site's, or those of what is to become one.
#[derive(Debug, Clone, Copy)]
pub struct Tenant<'a> {
    /// The site, if the registry has it.
    pub site: Option<SiteId>,
    /// Whose it is.
    pub user: &'a UserName,
    /// Its domain.
    pub domain: &'a Domain,
    /// Its directory.
    pub directory: &'a AbsolutePath,
    /// Its virtualenv.
    pub venv: Option<&'a AbsolutePath>,
}

impl<'a> From<&'a Site> for Tenant<'a> {
    fn from(site: &'a Site) -> Self {
        Self {
            site: Some(site.id),
            user: &site.user,
            domain: &site.domain,
            directory: &site.directory,
            venv: site.venv.as_ref(),
        }
    }
}

/// A tenant's sandbox on this machine, for programs without a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    settings: &'a Settings,
    tenant: Tenant<'a>,
}

impl<'a> Room<'a> {
    /// None where there is no sandbox: without root, where it is switched off, or on a machine that runs no sites and has not what
    /// it takes.
    pub fn of(settings: &'a Settings, tenant: Tenant<'a>) -> Option<Self> {
        let sandbox = &settings.sandbox;
        // Only a backend is made ready for connections to others.
        let has_all = || {
            let programs = [&sandbox.bwrap, &settings.backend.launcher];
            programs.iter().all(|program| program.as_path().exists())
                && sandbox.limits.network != Some(Network::Outbound)
        };
        let there =
            geteuid().is_root() && sandbox.enabled && (settings.has(Role::Backend) || has_all());
        there.then_some(Self { settings, tenant })
    }

    /// The command that becomes this program.
    pub fn command(&self, words: &[String]) -> Result<(Command, Trace), VisitError> {
        let visit = Visit {
            tenant: self.tenant,
            words,
            terminal: None,
        };
        visit.command(self.settings)
    }
}

/// What is run for a visitor.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Among whose files.
    pub tenant: Tenant<'a>,
    /// The program and its arguments.
    pub words: &'a [String],
    /// The kind of the visitor's terminal, if the program gets one: `xterm-256color`.
    pub terminal: Option<&'a str>,
}

/// What a visit needs until it has ended. Then its control groups go with this.
#[derive(Debug)]
pub struct Trace {
    _order: OwnedFd,
    groups: Vec<PathBuf>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        for group in &self.groups {
            // What the kernel has not let go of yet, the daemon removes.
            let _ = std::fs::remove_dir(group);
        }
    }
}

impl Visit<'_> {
    /// The command that becomes the visitor's program.
    pub fn command(&self, settings: &Settings) -> Result<(Command, Trace), VisitError> {
        let registry = Arc::new(Mutex::new(registry::open(settings)?));
        let mut own = registry::open(settings)?;
        let view = own.view()?;
        let tenant = self.tenant;
        let user = view
            .user(tenant.user)?
            .ok_or_else(|| VisitError::NoUser(tenant.user.to_string()))?;
        let (site_limits, environment) = match tenant.site {
            Some(site) => (view.site_limits(site)?, view.environment(site)?),
            None => Default::default(),
        };
        let name = tenant
            .site
            .map_or_else(|| "new".to_owned(), |site| site.to_string());
        let confinement = Walls::new(settings).confine(&Inmate {
            user: &user,
            user_limits: &view.user_limits(&user.name)?,
            site_limits: &site_limits,
            domain: tenant.domain,
            directory: tenant.directory,
            venv: tenant.venv,
            leaf: &format!("{name}@visit-{}", std::process::id()),
            registry: &registry,
        })?;
        let ids = match geteuid().is_root() {
            true => (user.uid.get(), user.uid.get()),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        let order = Order::visit(
            (tenant.directory, tenant.venv),
            &environment,
            ids,
            &confinement,
            self.words,
            self.terminal,
        );
        let file = in_memory(order.as_bytes())?;
        let mut command = Command::new(settings.backend.launcher.as_path());
        command.arg("visit").arg(file.as_raw_fd().to_string());
        if self.terminal.is_some() {
            command.arg("terminal");
        }
        let trace = Trace {
            _order: file,
            groups: confinement.groups,
        };
        Ok((command, trace))
    }
}

/// A file without a name, which the next program keeps open. The environment's secrets are in no argument.
fn in_memory(content: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create("order", MemfdFlags::CLOEXEC)?;
    let mut left = content;
    while !left.is_empty() {
        let count = write(&file, left)?;
        left = left.get(count..).unwrap_or_default();
    }
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}

/// Whether nobody but root can have put or changed anything at `path`: then what is read there is the operator's.
pub fn is_roots_alone(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    const STICKY: u32 = 0o1000;
    for place in path.canonicalize()?.ancestors() {
        let about = place.metadata()?;
        let open_to_others = about.mode() & 0o022 != 0 && about.mode() & STICKY == 0;
        if about.uid() != 0 || open_to_others {
            return Ok(false);
        }
    }
    Ok(true)
}
