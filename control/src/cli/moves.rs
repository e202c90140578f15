//! How many sites a change of the backends moves, and whether it may. Placed by a hash modulo the number of backends, nearly
//! all of them do: nobody should learn that afterwards.
use super::CliError;
use super::machine::Machine;
use crate::model::{Backend, Method, Placement, Site};
use crate::registry::SiteFilter;
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
    let (list, new_list) = (candidates(&before), candidates(&after));
    let (mut sites, mut moved) = (0u64, 0u64);
    view.each_site(&SiteFilter::default(), &mut |site| {
        sites += 1;
        let old = place(&site, &before, &list, &placement);
        let new = place(&site, &after, &new_list, &placement);
        moved += u64::from(old != new);
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

fn candidates(backends: &[Backend]) -> Backends {
    let candidates = backends.iter().map(|backend| Candidate {
        key: backend.key.as_str().as_bytes(),
        weight: backend.weight,
        state: backend.state,
    });
    Backends::new(candidates)
}

/// The backend of a site.
fn place<'b>(
    site: &Site,
    backends: &'b [Backend],
    list: &Backends,
    placement: &Placement,
) -> Option<&'b str> {
    let pin = site
        .pin
        .and_then(|pin| backends.iter().position(|backend| backend.id == pin));
    let index = list.choose(site.domain.as_bytes(), pin, placement, |_| true)?;
    backends.get(index).map(|backend| backend.name.as_str())
}
