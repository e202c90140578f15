//! `show-placement`, `set-placement`: how sites are spread over backends, at once or slowly.
use super::machine::{Concerns, Machine};
use super::output::{facts, json, or_empty};
use super::{CliError, Format};
use crate::change::unix_millis;
use crate::model::{Direction, Hold, Method, Placement, Progress, SlowChange, Span};
use crate::registry::View;
use crate::settings::BackendsFrom;
use serde::Serialize;
use std::io::Write;

/// Arguments of `set-placement`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("going_on").args(["pause", "resume", "revert"]).conflicts_with_all(["method", "over"]))]
pub struct Set {
    /// rendezvous, python64 or python32. Without --over sites move at once.
    #[arg(required_unless_present = "going_on")]
    method: Option<Method>,
    /// Let sites go over one by one, all of them in this time: 48h. The daemon moves them; sites that sleep, too.
    #[arg(long, value_name = "TIME", requires = "method")]
    over: Option<Span>,
    /// Stop the slow change under way where it is.
    #[arg(long)]
    pause: bool,
    /// Go on with it.
    #[arg(long)]
    resume: bool,
    /// Let sites go back, as slowly as they came.
    #[arg(long)]
    revert: bool,
}

/// The placement, as it is shown.
#[derive(Serialize)]
struct Shown {
    method: String,
    previous: Option<String>,
    threshold: Option<u64>,
    change: Option<ShownChange>,
}

#[derive(Serialize)]
struct ShownChange {
    /// The share of the sites that the new method places.
    done_percent: f64,
    direction: String,
    over: String,
    /// Until its end, if nothing holds it.
    left_seconds: u64,
    paused: bool,
    held_by: Vec<ShownHold>,
}

#[derive(Serialize)]
struct ShownHold {
    machine: String,
    sites_starting: u32,
}

pub(super) fn show(machine: &Machine, format: Format, out: &mut dyn Write) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let placement = view.placement()?;
    let change = change(&*view)?;
    let (previous, threshold) = placement
        .change
        .map(|change| (change.from.to_string(), change.threshold))
        .unzip();
    let shown = Shown {
        method: placement.method.to_string(),
        previous,
        threshold,
        change,
    };
    if format.json {
        return json(out, &shown);
    }
    let mut lines = vec![
        ("method", shown.method),
        ("previous", or_empty(shown.previous)),
    ];
    if let Some(change) = &shown.change {
        lines.push(("change", change.in_words()));
    }
    facts(out, &lines)
}

/// The slow change under way, if one is.
fn change(view: &dyn View) -> Result<Option<ShownChange>, CliError> {
    let (Some(change), Some(progress)) = (view.placement()?.change, view.progress()?) else {
        return Ok(None);
    };
    let holds = view.holds(unix_millis())?.into_iter();
    let SlowChange { threshold, .. } = change;
    // Shown only; to a hundredth.
    let done = threshold as f64 / u64::MAX as f64;
    Ok(Some(ShownChange {
        done_percent: (done * 10_000.0).floor() / 100.0,
        direction: progress.direction.to_string(),
        over: progress.over.to_string(),
        left_seconds: progress.left(threshold).div_ceil(1000),
        paused: progress.paused,
        held_by: holds
            .map(
                |Hold {
                     machine, starting, ..
                 }| ShownHold {
                    machine,
                    sites_starting: starting,
                },
            )
            .collect(),
    }))
}

impl ShownChange {
    fn in_words(&self) -> String {
        let mut words = format!("{:.2} % of the sites have gone over", self.done_percent);
        if self.direction == Direction::Back.to_string() {
            words.push_str(", going back");
        }
        if self.paused {
            words.push_str("; paused (`paasctl set-placement --resume` goes on)");
            return words;
        }
        let left = Span::seconds(u32::try_from(self.left_seconds).unwrap_or(u32::MAX));
        words.push_str(&format!("; {left} left of {}", self.over));
        for hold in &self.held_by {
            words.push_str(&format!(
                "; waits for {}, where {} sites start",
                hold.machine, hold.sites_starting
            ));
        }
        words
    }
}

/// A line for the listing of backends: the change under way, if one is.
pub(super) fn change_in_words(view: &dyn View) -> Result<Option<String>, CliError> {
    let Placement {
        method,
        change: under_way,
    } = view.placement()?;
    let words = change(view)?.map(|change| change.in_words());
    Ok(under_way.zip(words).map(|(under_way, words)| {
        format!(
            "placement changes from {} to {method}: {words}",
            under_way.from
        )
    }))
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let now = unix_millis();
    let is_static = machine.settings.balancer.backends == BackendsFrom::Static;
    if arguments.over.is_some() && is_static {
        return Err(CliError::Other(
            "backends are static here: rendered server lines are placed by one method; a slow change needs the table (backends = \"live\")".to_owned(),
        ));
    }
    let words = machine.edit(Concerns::Backends, |edit| {
        let (placement, progress) = (edit.placement()?, edit.progress()?);
        let (new, progress, words) = match (arguments.method, arguments.over) {
            (Some(method), None) => at_once(method),
            (Some(method), Some(over)) => begin(placement, progress, method, over, now)?,
            (None, _) => go_on(&arguments, placement, progress, now)?,
        };
        edit.set_placement(&new, progress.as_ref())?;
        Ok(words)
    })?;
    Ok(writeln!(out, "{words}")?)
}

type Next = (Placement, Option<Progress>, String);

fn at_once(method: Method) -> Next {
    let words = format!("placement is {method} now");
    (Placement::fixed(method), None, words)
}

fn begin(
    placement: Placement,
    under_way: Option<Progress>,
    method: Method,
    over: Span,
    now: u64,
) -> Result<Next, CliError> {
    let forward = Progress {
        over,
        direction: Direction::Forward,
        paused: false,
        stepped_at: now,
    };
    let change = match (placement.change, under_way) {
        (None, _) if placement.method == method => {
            return Err(CliError::Other(format!("placement is {method} already")));
        }
        (None, _) => SlowChange {
            from: placement.method,
            threshold: 0,
        },
        // The same change once more: another speed, or forward again.
        (Some(change), _) if placement.method == method => change,
        (Some(change), _) => {
            return Err(CliError::Other(format!(
                "placement is changing from {} to {}: let that end, or `paasctl set-placement --revert`, or choose one at once: `paasctl set-placement {}`",
                change.from, placement.method, change.from
            )));
        }
    };
    let words = format!(
        "placement changes from {} to {method} over {over}; `paasctl show-placement` shows how far it is",
        change.from
    );
    let placement = Placement {
        method,
        change: Some(change),
    };
    Ok((placement, Some(forward), words))
}

fn go_on(
    arguments: &Set,
    placement: Placement,
    progress: Option<Progress>,
    now: u64,
) -> Result<Next, CliError> {
    let (Some(change), Some(progress)) = (placement.change, progress) else {
        return Err(CliError::Other(
            "no slow change is under way; `paasctl set-placement METHOD --over TIME` begins one"
                .to_owned(),
        ));
    };
    let (next, words) = if arguments.pause {
        let next = Progress {
            paused: true,
            ..progress
        };
        (next, "the change is paused".to_owned())
    } else {
        let direction = match arguments.revert {
            true => Direction::Back,
            false => progress.direction,
        };
        let next = Progress {
            paused: false,
            direction,
            // The time it was paused for does not count.
            stepped_at: now,
            ..progress
        };
        let towards = match direction {
            Direction::Forward => placement.method,
            Direction::Back => change.from,
        };
        (next, format!("the change goes on, towards {towards}"))
    };
    Ok((placement, Some(next), words))
}
