//! `add-backend`, `list-backends`, `show-backend`, `set-backend`, `remove-backend`, `enable-backend`, `drain-backend`,
//! `disable-backend`.
use super::machine::{Concerns, Machine};
use super::moves::{self, Consent};
use super::output::{facts, json};
use super::{CliError, Format};
use crate::change::unix_millis;
use crate::model::{
    Backend, BackendKey, BackendName, NewBackend, Span, State, Weight, parse_address, parse_weight,
};
use crate::registry::View;
use serde::Serialize;
use std::io::Write;
use std::net::SocketAddr;

/// Arguments of `add-backend`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Letters, digits, -, . and _.
    name: BackendName,
    /// Where its nginx listens for balancers: 10.0.0.5:9001; an IPv6 address in brackets.
    #[arg(value_parser = parse_address)]
    address: SocketAddr,
    /// What is hashed for it; without it the address. It stays when the address changes.
    #[arg(long)]
    key: Option<BackendKey>,
    /// Its share of the sites, 1 to 10000.
    #[arg(long, default_value = "1", value_parser = parse_weight)]
    weight: Weight,
    /// active, draining or disabled.
    #[arg(long, default_value = "active")]
    state: State,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `show-backend`.
#[derive(Debug, clap::Args)]
pub struct Show {
    name: BackendName,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `set-backend`: what is not named stays.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["address", "key", "weight", "state", "name_to"]))]
pub struct Set {
    name: BackendName,
    /// A new address; the key stays, so no site moves.
    #[arg(long, value_parser = parse_address)]
    address: Option<SocketAddr>,
    /// Another key: sites move.
    #[arg(long)]
    key: Option<BackendKey>,
    /// Its share of the sites, 1 to 10000.
    #[arg(long, value_parser = parse_weight)]
    weight: Option<Weight>,
    /// active, draining or disabled.
    #[arg(long)]
    state: Option<State>,
    /// The name from now on.
    #[arg(long = "rename", value_name = "NEW")]
    name_to: Option<BackendName>,
}

/// Arguments of `remove-backend`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    name: BackendName,
    #[command(flatten)]
    consent: Consent,
}

/// Arguments of `enable-backend`, `disable-backend`.
#[derive(Debug, clap::Args)]
pub struct Named {
    name: BackendName,
}

/// Arguments of `drain-backend`.
#[derive(Debug, clap::Args)]
pub struct Drain {
    name: BackendName,
    /// After this time put to sleep what is still awake: 10m. Requests under way are finished; the next visit wakes the site elsewhere.
    #[arg(long, value_name = "TIME")]
    deadline: Option<Span>,
}

/// What the registry says of a backend, as it is shown.
#[derive(Serialize)]
pub(super) struct Shown {
    pub id: u32,
    pub name: String,
    pub address: SocketAddr,
    pub key: String,
    pub weight: u32,
    pub state: String,
}

impl From<&Backend> for Shown {
    fn from(backend: &Backend) -> Self {
        Self {
            id: backend.id.get(),
            name: backend.name.to_string(),
            address: backend.address,
            key: backend.key.to_string(),
            weight: backend.weight.get(),
            state: backend.state.to_string(),
        }
    }
}

/// The backend of this name.
pub(super) fn backend_of(
    view: &(impl View + ?Sized),
    name: &BackendName,
) -> Result<Backend, CliError> {
    view.backend(name)?
        .ok_or_else(|| CliError::missing("backend", name))
}

pub(super) fn add(machine: &Machine, arguments: Add, out: &mut dyn Write) -> Result<(), CliError> {
    let Add {
        name,
        address,
        key,
        weight,
        state,
        consent,
        format,
    } = arguments;
    let new = NewBackend {
        key: key.unwrap_or_else(|| BackendKey::of(address)),
        name,
        address,
        weight,
        state,
    };
    moves::ask(machine, consent, &format!("adding {}", new.name), |list| {
        moves::add(list, new.clone());
    })?;
    let backend = machine.edit(Concerns::Backends, |edit| Ok(edit.add_backend(&new)?))?;
    match format.json {
        true => json(out, &Shown::from(&backend)),
        false => Ok(writeln!(
            out,
            "added backend {} at {}",
            backend.name, backend.address
        )?),
    }
}

pub(super) fn show(
    machine: &Machine,
    arguments: Show,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let backend = backend_of(&*machine.registry()?.view()?, &arguments.name)?;
    let shown = Shown::from(&backend);
    if arguments.format.json {
        return json(out, &shown);
    }
    let Shown {
        id,
        name,
        address,
        key,
        weight,
        state,
    } = shown;
    facts(
        out,
        &[
            ("name", name),
            ("id", id.to_string()),
            ("address", address.to_string()),
            ("key", key),
            ("weight", weight.to_string()),
            ("state", state),
        ],
    )
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let name = &arguments.name;
    machine.edit(Concerns::Backends, |edit| {
        let old = backend_of(edit, name)?;
        let new = Backend {
            id: old.id,
            name: arguments.name_to.clone().unwrap_or(old.name),
            address: arguments.address.unwrap_or(old.address),
            key: arguments.key.clone().unwrap_or(old.key),
            weight: arguments.weight.unwrap_or(old.weight),
            state: arguments.state.unwrap_or(old.state),
        };
        if new.state != State::Draining {
            edit.set_drain_deadline(new.id, None)?;
        }
        Ok(edit.set_backend(&new)?)
    })?;
    Ok(writeln!(out, "set backend {name}")?)
}

pub(super) fn remove(
    machine: &Machine,
    arguments: Remove,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let name = &arguments.name;
    moves::ask(
        machine,
        arguments.consent,
        &format!("removing {name}"),
        |list| {
            list.retain(|backend| backend.name != *name);
        },
    )?;
    machine.edit(Concerns::Backends, |edit| Ok(edit.remove_backend(name)?))?;
    Ok(writeln!(out, "removed backend {}", arguments.name)?)
}

pub(super) fn drain(
    machine: &Machine,
    arguments: Drain,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let Drain { name, deadline } = arguments;
    let at = deadline.map(|deadline| unix_millis().saturating_add(deadline.millis()));
    change_state(machine, &name, State::Draining, at)?;
    let until = deadline.map_or_else(String::new, |deadline| {
        format!("; what is awake in {deadline} is put to sleep")
    });
    Ok(writeln!(out, "backend {name} is draining now{until}")?)
}

/// Lets a backend serve, or not; it goes on being counted.
pub(super) fn set_state(
    machine: &Machine,
    arguments: Named,
    state: State,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let name = &arguments.name;
    change_state(machine, name, state, None)?;
    Ok(writeln!(out, "backend {name} is {state} now")?)
}

fn change_state(
    machine: &Machine,
    name: &BackendName,
    state: State,
    deadline: Option<u64>,
) -> Result<(), CliError> {
    machine.edit(Concerns::Backends, |edit| {
        let old = backend_of(edit, name)?;
        edit.set_drain_deadline(old.id, deadline)?;
        Ok(edit.set_backend(&Backend { state, ..old })?)
    })
}
