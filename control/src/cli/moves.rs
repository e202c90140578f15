//! How many sites a change of the backends moves, and whether it may. Placed by a hash modulo the number of backends, nearly
//! all of them do: nobody should learn that afterwards.
use super::CliError;
use super::machine::Machine;
use crate::model::{Backend, BackendId, Domain, Method, NewBackend, Placement};
use crate::registry::{SiteFilter, View};
use routing::{Backends, Candidate};
use std::io::{BufRead, IsTerminal, Write};

/// Consent to moving sites.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Consent {
    /// Do not ask, however many sites move.
    #[arg(long)]
    yes: bool,
}

/// Asks before `change` of the list of backends, named by `what` ("adding b4"), moves sites that rendezvous hashing would
/// leave where they are.
pub(super) fn ask(
    machine: &Machine,
    consent: Consent,
    what: &str,
    change: impl FnOnce(&mut Vec<Backend>),
) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let placement = view.placement()?;
    if consent.yes || is_gentle(&placement) {
        return Ok(());
    }
    let before = view.backends()?;
    let mut after = before.clone();
    change(&mut after);
    let (before, after) = (Places::new(&*view, before)?, Places::new(&*view, after)?);
    let (mut sites, mut moved) = (0u64, 0u64);
    view.each_site(&SiteFilter::default(), &mut |site| {
        sites += 1;
        let name = |places: &Places| {
            let index = place(places, &site.domain, site.pin)?;
            places
                .backends
                .get(index)
                .map(|backend| backend.name.clone())
        };
        moved += u64::from(name(&before) != name(&after));
        Ok(())
    })?;
    if moved == 0 {
        return Ok(());
    }
    let words = format!(
        "{what} moves {moved} of {sites} sites ({}.{} %): placement is {}, which counts the backends",
        moved * 100 / sites,
        moved * 1000 / sites % 10,
        counted_by(&placement)
    );
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Other(format!(
            "{words}. Say --yes to do it all the same; with `paasctl set-placement rendezvous --over 48h` before, few would move"
        )));
    }
    eprint!("{words}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stderr().flush()?;
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Other("nothing was changed".to_owned())),
    }
}

/// Adds one to the list of backends, as the registry would: as the last, with the next number.
pub(super) fn add(list: &mut Vec<Backend>, new: NewBackend) {
    let last = list.last().map_or(0, |last| last.id.get());
    list.extend(BackendId::new(last.saturating_add(1)).map(|id| new.with_id(id)));
}

fn is_gentle(placement: &Placement) -> bool {
    let before = placement.change.map(|change| change.from);
    placement.method == Method::Rendezvous
        && before.is_none_or(|method| method == Method::Rendezvous)
}

fn counted_by(placement: &Placement) -> String {
    match placement.change {
        Some(change) => format!("changing from {} to {}", change.from, placement.method),
        None => placement.method.to_string(),
    }
}

/// Backends as placement sees them.
pub(super) struct Places {
    /// In their order.
    pub backends: Vec<Backend>,
    list: Backends,
    placement: Placement,
}

impl Places {
    /// These backends, with the registry's placement.
    pub(super) fn new(view: &dyn View, backends: Vec<Backend>) -> Result<Self, CliError> {
        let candidates = backends.iter().map(|backend| Candidate {
            key: backend.key.as_str().as_bytes(),
            weight: backend.weight,
            state: backend.state,
        });
        Ok(Self {
            list: Backends::new(candidates),
            placement: view.placement()?,
            backends,
        })
    }
}

/// The index of a site's backend.
pub(super) fn place(places: &Places, site: &Domain, pin: Option<BackendId>) -> Option<usize> {
    let Places {
        backends,
        list,
        placement,
    } = places;
    let pin = pin.and_then(|pin| backends.iter().position(|backend| backend.id == pin));
    list.choose(site.as_bytes(), pin, placement, |_| true)
}
