//! What ran before this daemon did: which vassal files mean something, and which sockets can be taken back.
//!
//! A vassal means something if the Emperor runs it and its process holds the socket that was bound for the site. Everything
//! else (vassal files, notice pipes, sockets) is removed, so that the site can wake.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::driver::Found;
use super::held::{Held, Name, remove_if_there};
use super::machine::Adopted;
use super::prepare::{Place, SharedRegistry};
use super::probe;
use super::words::Generation;
use crate::emperor::{Stats, Vassal};
use crate::model::{Protocol, SiteId};
use crate::vassal;

/// Looks at everything that the Emperor runs and at every vassal file; `stats` is what the Emperor says, if there is one.
pub fn adopt(
    place: &Place,
    registry: &SharedRegistry,
    stats: Option<&Stats>,
) -> io::Result<Vec<Found>> {
    let files: HashSet<String> = names(&place.paths.vassals())?.into_iter().collect();
    let vassals = stats.map(|stats| &*stats.vassals).unwrap_or_default();
    let mut found = Vec::new();
    for vassal in vassals.iter().filter(|vassal| vassal.pid > 0) {
        let told = !files.contains(&vassal.id);
        if let Some((site, generation)) = vassal::parse_file_name(&vassal.id)
            && let Some(running) = take(place, registry, site, generation, vassal, told)
        {
            found.push(running);
        }
    }
    let meant: HashSet<String> = found
        .iter()
        .map(|found| vassal::file_name(found.site, found.adopted.generation()))
        .collect();
    for name in files.difference(&meant) {
        tracing::info!(name, "removing a vassal file that nothing belongs to");
        remove(&place.paths.vassals().join(name));
    }
    tidy(place, &found)?;
    Ok(found)
}

fn take(
    place: &Place,
    registry: &SharedRegistry,
    site: SiteId,
    generation: Generation,
    vassal: &Vassal,
    told: bool,
) -> Option<Found> {
    let row = registry
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .view()
        .ok()?
        .site(site)
        .ok()??;
    let (process, listener) = match descriptor_zero(vassal.pid) {
        Ok(taken) => taken,
        Err(problem) => {
            tracing::warn!(%site, %generation, pid = vassal.pid, %problem, "cannot take a site's socket back");
            return None;
        }
    };
    let (held, name) = Held::adopt(listener, &place.paths.site_socket(site, &row.domain))?;
    let probe = probe::Request::to(&row);
    let ready = match (probe.protocol, name) {
        (Protocol::Uwsgi, _) => vassal.accepting == 1,
        // It got the site's name when it had answered.
        (Protocol::Http, name) => matches!(name, Name::Public),
    };
    let adopted = match name {
        _ if told => Adopted::Ending { generation, told },
        Name::Public => Adopted::Public { generation, ready },
        Name::Own => Adopted::Private { generation, ready },
        Name::Lost => Adopted::Ending { generation, told },
    };
    Some(Found {
        site,
        adopted,
        held,
        process,
        probe,
        idle: place.idle(&row),
    })
}

fn descriptor_zero(pid: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let listener = pidfd_getfd(&process, 0, PidfdGetfdFlags::empty())?;
    Ok((process, listener))
}

/// Removes the notice pipes and the sockets of sites that do not run.
fn tidy(place: &Place, found: &[Found]) -> io::Result<()> {
    let pipes: HashSet<PathBuf> = found
        .iter()
        .map(|found| place.notice(found.site, found.adopted.generation()))
        .collect();
    for name in names(&place.paths.notify())? {
        let pipe = place.paths.notify().join(name);
        if !pipes.contains(&pipe) {
            remove(&pipe);
        }
    }
    let sockets: HashSet<PathBuf> = found
        .iter()
        .flat_map(|found| found.held.names())
        .map(Path::to_owned)
        .collect();
    for site in names(&place.paths.sites())? {
        let directory = place.paths.sites().join(site);
        if directory.is_dir() {
            for name in names(&directory)?
                .into_iter()
                .filter(|name| name == "app.sock" || name.starts_with("app.sock."))
            {
                let socket = directory.join(name);
                if !sockets.contains(&socket) {
                    remove(&socket);
                }
            }
        }
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn remove(path: &Path) {
    if let Err(problem) = remove_if_there(path) {
        tracing::warn!(path = %path.display(), %problem, "cannot remove a left-over");
    }
}
