//! `show-placement`, `set-placement`: how sites are spread over backends.
use super::machine::{Concerns, Machine};
use super::output::{facts, json};
use super::{CliError, Format};
use crate::model::{Method, Placement};
use serde::Serialize;
use std::io::Write;

/// Arguments of `set-placement`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// rendezvous, python64 or python32. Sites move at once.
    method: Method,
}

#[derive(Serialize)]
struct Shown {
    method: String,
    previous: Option<String>,
    threshold: Option<u64>,
}

pub(super) fn show(machine: &Machine, format: Format, out: &mut dyn Write) -> Result<(), CliError> {
    let Placement { method, change } = machine.registry()?.view()?.placement()?;
    let (previous, threshold) = change
        .map(|change| (change.from.to_string(), change.threshold))
        .unzip();
    let shown = Shown {
        method: method.to_string(),
        previous,
        threshold,
    };
    if format.json {
        return json(out, &shown);
    }
    facts(
        out,
        &[
            ("method", shown.method),
            ("previous", shown.previous.unwrap_or_default()),
        ],
    )
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let method = arguments.method;
    machine.edit(Concerns::Backends, |edit| {
        Ok(edit.set_placement(&Placement::fixed(method))?)
    })?;
    Ok(writeln!(out, "placement is {method} now")?)
}
