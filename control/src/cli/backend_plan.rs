//! `plan-backend`: what adding or removing a backend would move, and whether those that get it can carry it. Changes nothing.
use super::machine::Machine;
use super::moves::{self, Places, place};
use super::output::{Table, json, or_empty};
use super::{CliError, Format};
use crate::model::{
    Backend, BackendKey, BackendName, NewBackend, State, Weight, parse_address, parse_weight,
};
use crate::observed::{Observed, Report, bytes};
use crate::registry;
use serde::Serialize;
use std::io::Write;
use std::net::SocketAddr;

/// Arguments of `plan-backend`.
#[derive(Debug, clap::Args)]
pub struct Plan {
    #[command(subcommand)]
    what: What,
}

/// What is planned.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// What adding a backend would move to it.
    Add {
        /// The name it would have.
        name: BackendName,
        /// Where its nginx would listen.
        #[arg(value_parser = parse_address)]
        address: SocketAddr,
        /// What would be hashed for it; without it the address.
        #[arg(long)]
        key: Option<BackendKey>,
        /// Its share of the sites, 1 to 10000.
        #[arg(long, default_value = "1", value_parser = parse_weight)]
        weight: Weight,
        #[command(flatten)]
        show: Show,
    },
    /// What removing, draining or losing a backend would move to the others.
    Remove {
        /// Its name.
        name: BackendName,
        #[command(flatten)]
        show: Show,
    },
}

#[derive(Debug, clap::Args)]
struct Show {
    /// List the sites that would move, and whereto.
    #[arg(long)]
    sites: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Answer {
    sites: u64,
    moved: u64,
    backends: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moves: Option<Vec<Move>>,
}

#[derive(Serialize)]
struct Move {
    site: String,
    from: Option<String>,
    to: Option<String>,
}

/// A backend before and after; what nobody knows is null.
#[derive(Serialize, Default)]
struct Row {
    backend: String,
    sites: u64,
    sites_after: u64,
    awake: Option<u64>,
    /// As many of the sites that move are awake as of all where they are now.
    awake_after: Option<u64>,
    memory_available: Option<u64>,
    /// With as much for each site that is awake as sites have now on average.
    memory_available_after: Option<u64>,
    /// Whether that leaves as much free as starts leave.
    carries: Option<bool>,
}

pub(super) fn run(machine: &Machine, arguments: Plan, out: &mut dyn Write) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let before = view.backends()?;
    let mut after = before.clone();
    let (words, show) = match arguments.what {
        What::Add {
            name,
            address,
            key,
            weight,
            show,
        } => {
            if before.iter().any(|backend| backend.name == name) {
                return Err(CliError::Other(format!(
                    "there is a backend {name} already"
                )));
            }
            let words = format!("adding {name}");
            let new = NewBackend {
                name,
                address,
                key: key.unwrap_or_else(|| BackendKey::of(address)),
                weight,
                state: State::Active,
            };
            moves::add(&mut after, new);
            (words, show)
        }
        What::Remove { name, show } => {
            if !before.iter().any(|backend| backend.name == name) {
                return Err(CliError::missing("backend", &name));
            }
            after.retain(|backend| backend.name != name);
            (format!("removing {name}"), show)
        }
    };
    let mut rows: Vec<Row> = names(&before, &after)
        .map(|name| Row {
            backend: name.to_string(),
            ..Row::default()
        })
        .collect();
    let (old, new) = (Places::new(&*view, before)?, Places::new(&*view, after)?);
    let (mut sites, mut moved, mut moves) = (0, 0, Vec::new());
    // How many sites go from one backend to another, by their rows.
    let mut flows = vec![vec![0_u64; rows.len()]; rows.len()];
    for site in registry::sites(&*view) {
        let site = site?;
        let name_of = |places: &Places, index: Option<usize>| {
            index
                .and_then(|index| places.backends.get(index))
                .map(|backend| backend.name.to_string())
        };
        let from = name_of(&old, place(&old, &site.primary, site.pin));
        let to = name_of(&new, place(&new, &site.primary, site.pin));
        let row = |name: &Option<String>| {
            let name = name.as_ref()?;
            rows.iter().position(|row| row.backend == *name)
        };
        let (here, there) = (row(&from), row(&to));
        sites += 1;
        if let Some(row) = here.and_then(|here| rows.get_mut(here)) {
            row.sites += 1;
        }
        if let Some(row) = there.and_then(|there| rows.get_mut(there)) {
            row.sites_after += 1;
        }
        if from == to {
            continue;
        }
        moved += 1;
        let flow = here
            .zip(there)
            .and_then(|(here, there)| flows.get_mut(here)?.get_mut(there));
        if let Some(flow) = flow {
            *flow += 1;
        }
        if show.sites {
            let site = site.primary.to_string();
            moves.push(Move { site, from, to });
        }
    }
    let observed = Observed::of(&machine.settings);
    let reports: Vec<Report> = rows
        .iter()
        .map(|row| {
            let known = old
                .backends
                .iter()
                .find(|one| one.name.as_str() == row.backend);
            known.map_or_else(Report::default, |one| observed.report(one.id))
        })
        .collect();
    let is_new = |row: &Row| {
        !old.backends
            .iter()
            .any(|one| one.name.as_str() == row.backend)
    };
    let fresh: Vec<bool> = rows.iter().map(is_new).collect();
    project(
        &mut rows,
        &reports,
        &fresh,
        &flows,
        machine.settings.waking.memory_reserve,
    );
    let answer = Answer {
        sites,
        moved,
        backends: rows,
        moves: show.sites.then_some(moves),
    };
    match show.format.json {
        true => json(out, &answer),
        false => print(&words, &answer, out),
    }
}

/// All that are there before or after, each once.
fn names<'b>(before: &'b [Backend], after: &'b [Backend]) -> impl Iterator<Item = &'b BackendName> {
    let is_new = |backend: &&Backend| !before.iter().any(|old| old.id == backend.id);
    let new = after.iter().filter(is_new);
    before.iter().chain(new).map(|backend| &backend.name)
}

/// What becomes of sites that are awake, and of memory. Pure.
fn project(rows: &mut [Row], reports: &[Report], fresh: &[bool], flows: &[Vec<u64>], reserve: u64) {
    let (memory, awake) = reports
        .iter()
        .filter_map(|report| report.sites_memory.zip(report.awake))
        .fold((0_u64, 0_u64), |(memory, awake), (more, count)| {
            (memory.saturating_add(more), awake.saturating_add(count))
        });
    let each = (awake > 0).then(|| memory / awake);
    let now: Vec<u64> = rows.iter().map(|row| row.sites).collect();
    for (index, row) in rows.iter_mut().enumerate() {
        let report = reports.get(index).copied().unwrap_or_default();
        let own = match fresh.get(index) {
            Some(true) => Some(0),
            _ => report.awake,
        };
        row.awake = own;
        row.memory_available = report.memory_available;
        // Of the sites of a backend, each is as likely as another to be awake.
        let of = |from: usize, count: u64| {
            let (awake, sites) = (reports.get(from)?.awake?, *now.get(from)?);
            (count == 0 || sites > 0).then(|| count.saturating_mul(awake).div_ceil(sites.max(1)))
        };
        let comes = flows.iter().enumerate().map(|(from, to)| {
            let count = to.get(index).copied().unwrap_or(0);
            if count == 0 { Some(0) } else { of(from, count) }
        });
        let comes: Option<u64> = comes.sum();
        let goes: u64 = flows.get(index).map_or(0, |to| to.iter().sum());
        let goes = if goes == 0 { Some(0) } else { of(index, goes) };
        let (Some(own), Some(comes), Some(goes)) = (own, comes, goes) else {
            continue;
        };
        row.awake_after = Some((own + comes).saturating_sub(goes));
        let after = match (report.memory_available, each) {
            (Some(available), _) if comes == 0 => Some(available),
            (Some(available), Some(each)) => {
                Some(available.saturating_sub(comes.saturating_mul(each)))
            }
            _ => None,
        };
        row.memory_available_after = after;
        row.carries = after.map(|after| comes == 0 || after >= reserve);
    }
}

fn print(words: &str, answer: &Answer, out: &mut dyn Write) -> Result<(), CliError> {
    let Answer { sites, moved, .. } = answer;
    let thousandths = (moved * 1000).checked_div(*sites).unwrap_or(0);
    writeln!(
        out,
        "{words} moves {moved} of {sites} sites ({}.{} %)",
        thousandths / 10,
        thousandths % 10
    )?;
    let mut table = Table::new(&[
        "BACKEND",
        "SITES",
        "AFTER",
        "AWAKE",
        "AFTER",
        "FREE MEMORY",
        "AFTER",
        "CARRIES IT",
    ]);
    for row in &answer.backends {
        table.row([
            row.backend.clone(),
            row.sites.to_string(),
            row.sites_after.to_string(),
            or_empty(row.awake),
            or_empty(row.awake_after),
            or_empty(row.memory_available.map(bytes)),
            or_empty(row.memory_available_after.map(bytes)),
            match row.carries {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "unknown".to_owned(),
            },
        ]);
    }
    table.print(out)?;
    for Move { site, from, to } in answer.moves.iter().flatten() {
        let end = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        writeln!(out, "{site}: {} to {}", end(from), end(to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(sites: &[u64]) -> Vec<Row> {
        let row = |sites: &u64| Row {
            sites: *sites,
            ..Row::default()
        };
        sites.iter().map(row).collect()
    }

    fn report(awake: u64, available: u64, sites: u64) -> Report {
        Report {
            awake: Some(awake),
            memory_total: Some(1 << 40),
            memory_available: Some(available),
            sites_memory: Some(sites),
        }
    }

    fn after(rows: &[Row]) -> Vec<(Option<u64>, Option<u64>, Option<bool>)> {
        rows.iter()
            .map(|row| (row.awake_after, row.memory_available_after, row.carries))
            .collect()
    }

    #[test]
    fn the_others_get_what_one_has_and_may_not_bear_it() {
        // 10 sites are awake on each, with 100 each; the first one's 100 sites go to the others.
        let mut rows = rows(&[100, 100, 100]);
        let reports = [
            report(10, 5_000, 1_000),
            report(10, 5_000, 1_000),
            report(10, 900, 1_000),
        ];
        let flows = [vec![0, 60, 40], vec![0; 3], vec![0; 3]];
        project(&mut rows, &reports, &[false; 3], &flows, 600);
        assert_eq!(
            after(&rows),
            [
                (Some(0), Some(5_000), Some(true)),
                (Some(16), Some(4_400), Some(true)),
                (Some(14), Some(500), Some(false))
            ]
        );
    }

    #[test]
    fn a_new_one_takes_its_share_and_nobody_knows_its_memory() {
        let mut rows = rows(&[100, 0]);
        let reports = [report(10, 5_000, 1_000), Report::default()];
        let flows = [vec![0, 50], vec![0; 2]];
        project(&mut rows, &reports, &[false, true], &flows, 600);
        assert_eq!(
            after(&rows),
            [(Some(5), Some(5_000), Some(true)), (Some(5), None, None)]
        );
    }

    #[test]
    fn who_does_not_report_is_unknown() {
        let mut rows = rows(&[10, 10]);
        let flows = [vec![0, 10], vec![0; 2]];
        project(
            &mut rows,
            &[Report::default(), report(1, 1_000, 10)],
            &[false; 2],
            &flows,
            0,
        );
        assert_eq!(after(&rows), [(None, None, None), (None, None, None)]);
    }
}
