//! Carries a slow change of placement on, step by step, and holds it up while too many sites start here.
//!
//! Every daemon around a registry does this, and needs to know of no other: a step is one transaction that looks whether it
//! is still due. While no change is under way, nothing is polled.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::follow::Follower;
use crate::initialize::driver::{Message, sites_now};
use crate::initialize::machine::Shown;
use crate::initialize::prepare::{SharedRegistry, with_registry};
use crate::model::{Hold, Progress};
use crate::registry::Result;

/// A machine on which more sites start, or wait for their start, than this for each core bears no more moves.
const STARTING_PER_CORE: usize = 4;
/// A hold ends by itself after so many steps' time, or this: a daemon that died holds nothing up for long.
const HELD_STEPS: u64 = 3;
const HELD_AT_LEAST: u64 = 5000;

/// Milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Carries changes on until the daemon ends.
pub struct Changer {
    /// The machine's name.
    pub machine: String,
    /// The registry.
    pub registry: SharedRegistry,
    /// The table's keeper.
    pub follower: Follower,
    /// The driver, on a machine that runs sites.
    pub driver: Option<mpsc::Sender<Message>>,
}

/// What was found at a look into the registry.
enum Look {
    /// No change is under way, or it is paused.
    Idle,
    /// The next step is due at this time, in milliseconds since 1970.
    Next(u64),
    /// A step was taken.
    Stepped,
}

impl Changer {
    /// Runs until the follower ends.
    pub async fn run(self) {
        let mut revision = self.follower.revision();
        // A daemon that ended while it held a change up holds nothing any more.
        let mut holding = true;
        loop {
            let starting = self.starting().await;
            let wait = match self.look(starting, &mut holding).await {
                Ok(Look::Idle) => None,
                Ok(Look::Next(at)) => Some(Duration::from_millis(
                    at.saturating_sub(unix_millis()).max(1),
                )),
                Ok(Look::Stepped) => {
                    if let Err(problem) = self.follower.refresh().await {
                        tracing::error!(
                            problem,
                            "the table does not follow the change of placement"
                        );
                    }
                    continue;
                }
                Err(problem) => {
                    tracing::error!(problem, "cannot carry the change of placement on");
                    Some(Duration::from_secs(5))
                }
            };
            tokio::select! {
                changed = revision.changed() => if changed.is_err() { return },
                () = sleep(wait) => {}
            }
        }
    }

    /// How many sites start here or wait for their start.
    async fn starting(&self) -> usize {
        let Some(driver) = &self.driver else { return 0 };
        let sites = sites_now(driver).await.unwrap_or_default();
        sites
            .iter()
            .filter(|site| matches!(site.shown, Shown::Starting(_)))
            .count()
    }

    async fn look(&self, starting: usize, holding: &mut bool) -> std::result::Result<Look, String> {
        let machine = self.machine.clone();
        let bound = std::thread::available_parallelism().map_or(1, usize::from) * STARTING_PER_CORE;
        let was_holding = *holding;
        let (look, now_holding) = with_registry(&self.registry, move |registry| {
            let starting = (starting > bound).then_some(starting);
            step(registry, &machine, starting, was_holding, unix_millis())
        })
        .await?;
        match (was_holding, now_holding, starting) {
            (false, true, starting) => tracing::warn!(
                starting,
                bound,
                "too many sites start here: the change of placement waits"
            ),
            (true, false, _) => {
                tracing::debug!("the change of placement does not wait for this machine")
            }
            _ => {}
        }
        *holding = now_holding;
        Ok(look)
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Takes the step that is due, unless somebody holds it up; `starting`: this machine does, because so many sites start.
/// Answers what was found, and whether this machine holds changes up now.
fn step(
    registry: &mut dyn crate::registry::Registry,
    machine: &str,
    starting: Option<usize>,
    holding: bool,
    now: u64,
) -> Result<(Look, bool)> {
    let Some(progress) = registry.view()?.progress()?.filter(|one| !one.paused) else {
        if holding {
            release(registry, machine)?;
        }
        return Ok((Look::Idle, false));
    };
    match progress.next_at() {
        Some(next) if next > now => return Ok((Look::Next(next), holding)),
        _ => {}
    }
    if let Some(starting) = starting {
        let hold = hold(machine, starting, &progress, now);
        let mut edit = registry.edit()?;
        edit.hold(&hold)?;
        edit.commit()?;
        return Ok((Look::Next(now + progress.interval()), true));
    }
    if holding {
        release(registry, machine)?;
    }
    if !registry.view()?.holds(now)?.is_empty() {
        return Ok((Look::Next(now + progress.interval()), false));
    }
    // Another daemon may have been faster: what is due is looked at again, with nobody beside it.
    let mut edit = registry.edit()?;
    let (placement, progress) = (edit.placement()?, edit.progress()?);
    if let Some((placement, progress)) = progress.and_then(|one| one.step(&placement, now)) {
        edit.set_placement(&placement, progress.as_ref())?;
        edit.commit()?;
        if progress.is_none() {
            tracing::info!(method = %placement.method, "the change of placement has come to its end");
        }
    }
    Ok((Look::Stepped, false))
}

fn hold(machine: &str, starting: usize, progress: &Progress, now: u64) -> Hold {
    Hold {
        machine: machine.to_owned(),
        starting: u32::try_from(starting).unwrap_or(u32::MAX),
        until: now + (HELD_STEPS * progress.interval()).max(HELD_AT_LEAST),
    }
}

fn release(registry: &mut dyn crate::registry::Registry, machine: &str) -> Result<()> {
    // Most have never held anything: do not wait for the writers' turn for nothing.
    if registry
        .view()?
        .holds(0)?
        .iter()
        .all(|hold| hold.machine != machine)
    {
        return Ok(());
    }
    let mut edit = registry.edit()?;
    edit.release(machine)?;
    edit.commit().map(drop)
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
