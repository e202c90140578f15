//! `set-env`, `unset-env`, `list-env`: the environment of a site's processes. A secret goes in and is never shown again.
use super::domain::site_of;
use super::machine::{Concerns, Machine, note};
use super::output::{Table, json};
use super::tuning::say_when;
use super::{CliError, Format};
use crate::model::{Domain, EnvName, EnvValue, EnvVariable, Environment, parse_domain};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// More than any value may have; nothing endless is read.
const MOST: u64 = 64 * 1024;

/// Arguments of `set-env`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    /// NAME=VALUE, as many as you like; with --from, one NAME.
    #[arg(value_name = "NAME=VALUE", required = true)]
    variables: Vec<String>,
    /// Never show the value again. What once was a secret stays one until it is unset.
    #[arg(long)]
    secret: bool,
    /// Read the value from a file (- is standard input); one newline at its end is not part of it.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// `NAME=VALUE` or `NAME`.
struct Assignment {
    name: EnvName,
    value: Option<EnvValue>,
}

impl Assignment {
    /// Read here, not with the other arguments: a message about those repeats what was typed, and this may be a secret.
    fn parse(text: &str) -> Result<Self, CliError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(EnvValue::parse(value)?)),
            None => (text, None),
        };
        Ok(Self {
            name: EnvName::parse(name)?,
            value,
        })
    }
}

/// Arguments of `unset-env`.
#[derive(Debug, clap::Args)]
pub struct Unset {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    /// Their names.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<EnvName>,
}

/// Arguments of `list-env`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    #[command(flatten)]
    format: Format,
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let secret = arguments.secret;
    let typed = arguments.variables.iter();
    let typed = typed.map(|text| Assignment::parse(text));
    let typed = typed.collect::<Result<Vec<_>, _>>()?;
    let assignments = match &arguments.from {
        None => typed,
        Some(file) => vec![read(typed, file)?],
    };
    let mut values = Vec::new();
    for Assignment { name, value } in assignments {
        match value {
            Some(value) => values.push((name, value)),
            None => {
                return Err(CliError::Other(format!(
                    "{name} has no value: write {name}=VALUE, or --from FILE (- is standard input)"
                )));
            }
        }
    }
    if secret && arguments.from.is_none() {
        note(
            "a value on the command line stays in the shell's history and can be read in the list of processes while the command runs; `--from -` takes it from standard input",
        );
    }
    let names: Vec<_> = values.iter().map(|(name, _)| name.to_string()).collect();
    change(machine, &arguments.site, |variables| {
        for (name, value) in values {
            let secret = secret || variables.get(&name).is_some_and(|before| before.secret);
            variables.insert(name, EnvVariable { value, secret });
        }
        Ok(())
    })?;
    writeln!(out, "set {} of {}", names.join(", "), arguments.site)?;
    say_when(&arguments.site);
    Ok(())
}

/// The one name that was typed, with the value from `file`.
fn read(typed: Vec<Assignment>, file: &Path) -> Result<Assignment, CliError> {
    let [Assignment { name, value: None }] = typed.as_slice() else {
        return Err(CliError::Other(
            "with --from, write one name without a value".to_owned(),
        ));
    };
    let input: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(file).map_err(|error| {
            CliError::Other(format!("cannot read {}: {error}", file.display()))
        })?),
    };
    let mut bytes = Vec::new();
    input.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::Other(format!("what {} holds is not UTF-8", file.display())))?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Assignment {
        name: name.clone(),
        value: Some(EnvValue::parse(value.strip_suffix('\r').unwrap_or(value))?),
    })
}

pub(super) fn unset(
    machine: &Machine,
    arguments: Unset,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let site = &arguments.site;
    change(machine, site, |variables| {
        for name in &arguments.names {
            if variables.remove(name).is_none() {
                return Err(CliError::Other(format!(
                    "{site} has no variable {name}; `paasctl list-env {site}` shows those it has"
                )));
            }
        }
        Ok(())
    })?;
    let names: Vec<_> = arguments.names.iter().map(ToString::to_string).collect();
    writeln!(out, "unset {} of {site}", names.join(", "))?;
    say_when(site);
    Ok(())
}

fn change(
    machine: &Machine,
    domain: &Domain,
    change: impl FnOnce(&mut BTreeMap<EnvName, EnvVariable>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    machine.edit(Concerns::Registry, |edit| {
        let site = site_of(edit, domain)?;
        let mut variables = edit.environment(site.id)?.variables().clone();
        change(&mut variables)?;
        Ok(edit.set_environment(site.id, &Environment::new(variables)?)?)
    })
}

pub(super) fn list(
    machine: &Machine,
    arguments: List,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Shown<'a> {
        name: &'a str,
        value: Option<&'a str>,
        secret: bool,
    }
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let site = site_of(&*view, &arguments.site)?;
    let environment = view.environment(site.id)?;
    let shown = environment
        .variables()
        .iter()
        .map(|(name, variable)| Shown {
            name: name.as_str(),
            value: (!variable.secret).then(|| variable.value.expose()),
            secret: variable.secret,
        });
    if arguments.format.json {
        return json(out, &shown.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["NAME", "VALUE"]);
    for variable in shown {
        let value = variable.value.map_or_else(
            || "(secret)".to_owned(),
            |value| value.escape_debug().to_string(),
        );
        table.row([variable.name.to_owned(), value]);
    }
    table.print(out)
}
