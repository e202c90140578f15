//! An operator's own program in a sandbox like a site's: the same user, directories, environment, network and limits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd, write};
use rustix::process::{getegid, geteuid};

use crate::initialize::confine::{Inmate, Unconfined, Walls};
use crate::initialize::order::Order;
use crate::model::Site;
use crate::registry::{self, RegistryError};
use crate::settings::Settings;

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

/// What is run for a visitor.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Whose files.
    pub site: &'a Site,
    /// The program and its arguments.
    pub words: &'a [String],
    /// The kind of the visitor's terminal, if the program gets one: `xterm-256color`.
    pub terminal: Option<&'a str>,
}

impl Visit<'_> {
    /// The command that becomes the visitor's program. The order's file must stay open until it is started.
    pub fn command(&self, settings: &Settings) -> Result<(Command, OwnedFd), VisitError> {
        let registry = Arc::new(Mutex::new(registry::open(settings)?));
        let mut own = registry::open(settings)?;
        let view = own.view()?;
        let site = self.site;
        let user = view
            .user(&site.user)?
            .ok_or_else(|| VisitError::NoUser(site.user.to_string()))?;
        let confinement = Walls::new(settings).confine(&Inmate {
            user: &user,
            user_limits: &view.user_limits(&user.name)?,
            site_limits: &view.site_limits(site.id)?,
            domain: &site.domain,
            directory: &site.directory,
            venv: site.venv.as_ref(),
            leaf: &format!("{}@visit-{}", site.id, std::process::id()),
            registry: &registry,
        })?;
        let ids = match geteuid().is_root() {
            true => (user.uid.get(), user.uid.get()),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        let environment = view.environment(site.id)?;
        let order = Order::visit(
            site,
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
        Ok((command, file))
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
