//! What users may have, kept in force while their sites run: limits that have changed, the CPU time of the day, the packet
//! filter's rules, and control groups that nobody needs any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cgroup::{Group, Groups};
use crate::follow::Follower;
use crate::initialize::prepare::{Place, SharedRegistry};
use crate::model::{Limits, Uid, User};
use crate::outbound::OutboundError;
use crate::registry::{CpuUsed, RegistryError};

/// How often CPU time is counted.
const ROUND: Duration = Duration::from_secs(10);
/// Less is left for the next round.
const LITTLE: Duration = Duration::from_millis(10);
/// A group of a start that is only about to enter it.
const YOUNG: Duration = Duration::from_secs(10);
/// Days are UTC's.
const DAY: u64 = 86_400;

/// What keeps a round from being done.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot read or write control groups: {0}")]
    Groups(#[from] std::io::Error),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the rules for sites that may connect to others: {0}")]
    Outbound(#[from] OutboundError),
}

/// Goes round for ever, if the daemon is root: otherwise nothing is limited.
pub async fn keep(
    place: Arc<Place>,
    machine: String,
    registry: SharedRegistry,
    follower: Follower,
) {
    if !place.root {
        return;
    }
    let mut revision = follower.revision();
    let keeper = Arc::new(Keeper {
        place,
        machine,
        registry,
    });
    let mut in_force = BTreeMap::new();
    let mut problem = None;
    loop {
        let working = keeper.clone();
        let before = std::mem::take(&mut in_force);
        let round = tokio::task::spawn_blocking(move || working.round(before)).await;
        let outcome = match round {
            Ok(Ok(now)) => {
                in_force = now;
                None
            }
            Ok(Err(problem)) => Some(problem.to_string()),
            Err(problem) => Some(problem.to_string()),
        };
        if outcome != problem {
            if let Some(problem) = &outcome {
                tracing::error!(%problem, "users' limits are not kept up to date");
            }
            problem = outcome;
        }
        // A change is in force at once.
        if let Ok(Err(_)) = tokio::time::timeout(ROUND, revision.changed()).await {
            return;
        }
    }
}

struct Keeper {
    place: Arc<Place>,
    machine: String,
    registry: SharedRegistry,
}

/// A user with processes here.
struct Present {
    user: User,
    said: Limits,
    /// Used today, on all machines.
    used: Duration,
}

impl Keeper {
    /// One round; takes and answers what is in force.
    fn round(&self, before: BTreeMap<Uid, Limits>) -> Result<BTreeMap<Uid, Limits>, Problem> {
        self.keep_outbound()?;
        let Some(groups) = &self.place.walls.groups else {
            return Ok(before);
        };
        let present = groups.users()?;
        self.count(&present, today())?;
        let mut in_force = BTreeMap::new();
        for group in present {
            let Some(present) = self.present(group.uid, today())? else {
                continue;
            };
            let uid = present.user.uid;
            let limits = self.limits(&present);
            if before.get(&uid) != Some(&limits) {
                groups.limit(group.uid, &limits)?;
            }
            in_force.insert(uid, limits);
        }
        self.tidy(groups)?;
        Ok(in_force)
    }

    fn keep_outbound(&self) -> Result<(), Problem> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let view = registry.view()?;
        Ok(self.place.walls.outbound.keep(&*view)?)
    }

    /// Adds what has been used since the last round.
    fn count(&self, present: &[Group], day: u64) -> Result<(), Problem> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut more = Vec::new();
        {
            let view = registry.view()?;
            for group in present {
                // A group of somebody else's making.
                let Ok(uid) = Uid::new(group.uid) else {
                    continue;
                };
                let counter = group.cpu_used;
                let counted = view.cpu_counter(uid, &self.machine)?;
                // One that was made anew counts from the beginning.
                let used = counter.checked_sub(counted).unwrap_or(counter);
                if used >= LITTLE {
                    more.push((uid, used, counter));
                }
            }
        }
        if more.is_empty() {
            return Ok(());
        }
        let mut edit = registry.edit()?;
        for (uid, more, counter) in more {
            edit.add_cpu(&CpuUsed {
                uid,
                backend: &self.machine,
                day,
                more,
                counter,
            })?;
        }
        Ok(edit.commit().map(drop)?)
    }

    fn present(&self, uid: u32, day: u64) -> Result<Option<Present>, Problem> {
        let Ok(uid) = Uid::new(uid) else {
            return Ok(None);
        };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let view = registry.view()?;
        let Some(user) = view.user_by_uid(uid)? else {
            return Ok(None);
        };
        Ok(Some(Present {
            said: view.user_limits(&user.name)?,
            used: view.cpu_used(uid, day)?,
            user,
        }))
    }

    /// What the user has now: little CPU when that of the day is used up.
    fn limits(&self, present: &Present) -> Limits {
        let (walls, user) = (&self.place.walls, &present.user);
        let allowed = walls.of_user(user.uid, &present.said).cpu_per_day;
        let slowed = allowed.is_some_and(|allowed| present.used >= allowed.duration());
        if walls.slow(user.uid, slowed) {
            let used = present.used.as_secs();
            match slowed {
                true => {
                    tracing::warn!(user = %user.name, used, "the CPU time of the day is used up: slowed until midnight (UTC)")
                }
                false => tracing::info!(user = %user.name, used, "has CPU time again"),
            }
        }
        walls.of_user(user.uid, &present.said)
    }

    /// Removes the groups of generations that are gone.
    fn tidy(&self, groups: &Groups) -> Result<(), Problem> {
        let vassals = self.place.paths.vassals();
        Ok(groups.tidy(&|leaf| is_young(leaf) || has_vassal(&vassals, leaf))?)
    }
}

fn has_vassal(vassals: &Path, leaf: &Path) -> bool {
    leaf.file_name().is_some_and(|name| {
        let mut file = name.to_owned();
        file.push(".ini");
        vassals.join(file).exists()
    })
}

fn is_young(leaf: &Path) -> bool {
    let made = fs::metadata(leaf).and_then(|about| about.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < YOUNG))
}

/// The day of UTC, counted from 1970.
pub fn today() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / DAY)
}
