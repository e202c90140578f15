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
use super::held::{Held, remove_if_there};
use super::prepare::{Place, SharedRegistry};
use super::words::Generation;
use crate::emperor::{Stats, Vassal};
use crate::model::SiteId;
use crate::vassal;

/// Looks at every vassal file; `stats` is what the Emperor says, if there is one.
pub fn adopt(
    place: &Place,
    registry: &SharedRegistry,
    stats: Option<&Stats>,
) -> io::Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for name in names(&place.paths.vassals())? {
        let running = vassal::parse_file_name(&name).and_then(|(site, generation)| {
            let vassal = stats?
                .vassals
                .iter()
                .find(|vassal| vassal.id == name && vassal.pid > 0)?;
            take(place, registry, site, generation, vassal)
        });
        match running {
            // Of two generations of one site, the later; the Emperor stops the other when its file is gone.
            Some(running)
                if found.iter().all(|other| {
                    other.site != running.site || other.generation < running.generation
                }) =>
            {
                found.retain(|other| {
                    other.site != running.site || forget(place, other.site, other.generation)
                });
                found.push(running);
            }
            _ => {
                tracing::info!(name, "removing a vassal file that nothing belongs to");
                remove(&place.paths.vassals().join(&name));
            }
        }
    }
    tidy(place, &found)?;
    Ok(found)
}

/// Removes the vassal file of the generation that lost; always false, so that it is dropped.
fn forget(place: &Place, site: SiteId, generation: Generation) -> bool {
    remove(&place.vassal(site, generation));
    false
}

fn take(
    place: &Place,
    registry: &SharedRegistry,
    site: SiteId,
    generation: Generation,
    vassal: &Vassal,
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
    let (held, public) = Held::adopt(listener, &place.paths.site_socket(site, &row.domain))?;
    Some(Found {
        site,
        generation,
        held,
        public,
        ready: vassal.accepting == 1,
        process,
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
        .map(|found| place.notice(found.site, found.generation))
        .collect();
    for name in names(&place.paths.notify())? {
        let pipe = place.paths.notify().join(name);
        if !pipes.contains(&pipe) {
            remove(&pipe);
        }
    }
    let running: HashSet<String> = found.iter().map(|found| found.site.to_string()).collect();
    for site in names(&place.paths.sites())?
        .into_iter()
        .filter(|site| !running.contains(site))
    {
        let directory = place.paths.sites().join(site);
        if directory.is_dir() {
            for name in names(&directory)?
                .into_iter()
                .filter(|name| name == "app.sock" || name.starts_with("app.sock."))
            {
                remove(&directory.join(name));
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
