//! What holds a site in on this machine: what the registry says of its user and of itself, control groups made for it, and the
//! directories it sees, looked up. Blocking, as all of `prepare`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::geteuid;

use super::prepare::SharedRegistry;
use crate::cgroup::Groups;
use crate::model::{AbsolutePath, Domain, Limits, Network, Uid, User};
use crate::outbound;
use crate::paths::Paths;
use crate::registry::RegistryError;
use crate::sandbox::{self, Confinement, NotShown, Outbound, Sandbox};
use crate::settings::{self, Settings};

/// Where the kernel shows control groups.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// What is the same for all sites of this machine.
#[derive(Debug)]
pub struct Walls {
    /// The control groups, if this machine has what they take and the daemon is root.
    pub groups: Option<Groups>,
    settings: settings::Sandbox,
    root: bool,
    platform: Vec<PathBuf>,
    /// The way out of those that have one.
    pub outbound: outbound::Outbound,
    /// Users whose CPU time of the day is used up.
    slowed: Mutex<BTreeSet<Uid>>,
}

/// Whose processes are to be held in, and where they come from.
pub struct Inmate<'a> {
    /// The user.
    pub user: &'a User,
    /// What is said of the user.
    pub user_limits: &'a Limits,
    /// What is said of the site.
    pub site_limits: &'a Limits,
    /// The site's domain.
    pub domain: &'a Domain,
    /// The site's directory.
    pub directory: &'a AbsolutePath,
    /// Its virtualenv.
    pub venv: Option<&'a AbsolutePath>,
    /// The name of its control group.
    pub leaf: &'a str,
    /// Where the platform's machines are known.
    pub registry: &'a SharedRegistry,
}

/// Why a site cannot be held in.
#[derive(Debug, thiserror::Error)]
pub enum Unconfined {
    /// Its directories.
    #[error(transparent)]
    Directory(#[from] NotShown),
    /// Its control groups.
    #[error("cannot make its control groups: {0}")]
    Groups(io::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its network.
    #[error(
        "it may connect to others, but this machine cannot let it: {0}; `paasctl doctor` says more"
    )]
    Outbound(outbound::OutboundError),
}

impl Walls {
    /// Of a machine with these settings.
    pub fn new(settings: &Settings) -> Walls {
        let root = geteuid().is_root();
        let paths = settings.paths();
        let groups = || Groups::find(Path::new(CGROUPS), &group_name(paths)).ok();
        Walls {
            groups: if root { groups() } else { None },
            settings: settings.sandbox.clone(),
            root,
            platform: paths.private(),
            outbound: outbound::Outbound::new(&settings.sandbox, interface(paths)),
            slowed: Mutex::default(),
        }
    }

    /// What a user has here, now, of whom these limits are said.
    pub fn of_user(&self, uid: Uid, said: &Limits) -> Limits {
        let limits = said.or(&self.settings.limits);
        match self.slowed().contains(&uid) {
            true => Limits {
                cpu: Some(self.settings.tarpit),
                ..limits
            },
            false => limits,
        }
    }

    /// From now on the user has what is left when the CPU time of the day is used up, or has no longer. Whether that is new.
    pub fn slow(&self, uid: Uid, slowed: bool) -> bool {
        match slowed {
            true => self.slowed().insert(uid),
            false => self.slowed().remove(&uid),
        }
    }

    fn slowed(&self) -> MutexGuard<'_, BTreeSet<Uid>> {
        self.slowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what it takes, and says what the launcher is to do.
    pub fn confine(&self, inmate: &Inmate<'_>) -> Result<Confinement, Unconfined> {
        let user = self.of_user(inmate.user.uid, inmate.user_limits);
        let site = inmate.site_limits.or(&user);
        if !self.root {
            return Ok(Confinement::none(&site));
        }
        let uid = inmate.user.uid.get();
        let make = |groups: &Groups| groups.make(uid, inmate.leaf, &user, inmate.site_limits);
        let groups = self
            .groups
            .as_ref()
            .map(make)
            .transpose()
            .map_err(Unconfined::Groups)?;
        let sandbox = match self.settings.enabled {
            true => Some(self.sandbox(inmate, &site)?),
            false => None,
        };
        Ok(Confinement {
            groups: groups.unwrap_or_default(),
            sandbox,
            ..Confinement::none(&site)
        })
    }

    fn sandbox(&self, inmate: &Inmate<'_>, limits: &Limits) -> Result<Sandbox, Unconfined> {
        let network = match limits.network {
            Some(Network::Outbound) => {
                let outbound = &self.outbound;
                let mut registry = inmate
                    .registry
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                outbound
                    .ensure(&*registry.view()?)
                    .map_err(Unconfined::Outbound)?;
                Some(Outbound {
                    range: outbound.range,
                    interface: outbound.interface.clone(),
                    nameservers: outbound.nameservers.clone(),
                })
            }
            _ => None,
        };
        Ok(Sandbox {
            bwrap: self.settings.bwrap.clone(),
            domain: inmate.domain.clone(),
            user: inmate.user.name.clone(),
            uid: inmate.user.uid.get(),
            home: inmate.directory.clone(),
            temporary: limits.temporary.map_or(64 << 20, |size| size.get()),
            network,
            shown: self.settings.shown.clone(),
            own: sandbox::own(inmate.directory, inmate.venv, &self.platform)?,
        })
    }
}

/// The name of the machine's control groups: several machines on one kernel must not meet.
pub fn group_name(paths: &Paths) -> String {
    match paths.root() == Path::new("/") {
        true => "paas".to_owned(),
        false => format!("paas-{:06x}", paths.tag()),
    }
}

/// How the names of the devices begin that lead to this machine's sites.
pub fn interface(paths: &Paths) -> String {
    format!("pn{:06x}", paths.tag())
}
