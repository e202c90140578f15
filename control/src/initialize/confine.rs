//! What holds a site in on this machine: what the registry says of its user and of itself, control groups made for it, and the
//! directories it sees, looked up. Blocking, as all of `prepare`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::cgroup::Groups;
use crate::model::{AbsolutePath, Domain, Limits, Network, User};
use crate::outbound;
use crate::paths::Paths;
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
    interface: String,
    nameservers: Vec<IpAddr>,
}

/// Whose processes are to be held in, and where they come from.
#[derive(Debug)]
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
    /// Its network.
    #[error(
        "it may connect to others, but this machine cannot let it: {0}; `paasctl doctor` says more"
    )]
    Outbound(String),
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
            interface: interface(paths),
            nameservers: outbound::nameservers(&settings.sandbox),
        }
    }

    /// What a user has here of whom these limits are said.
    pub fn of_user(&self, said: &Limits) -> Limits {
        said.or(&self.settings.limits)
    }

    /// Makes what it takes, and says what the launcher is to do.
    pub fn confine(&self, inmate: &Inmate<'_>) -> Result<Confinement, Unconfined> {
        let user = self.of_user(inmate.user_limits);
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
                outbound::is_open(&self.interface).map_err(Unconfined::Outbound)?;
                Some(Outbound {
                    range: self.settings.range,
                    interface: self.interface.clone(),
                    nameservers: self.nameservers.clone(),
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
