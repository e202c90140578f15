//! `set-option`, `unset-option`, `list-options`: uWSGI's own options that a site may set.
use super::domain::site_of;
use super::machine::{Concerns, Machine};
use super::output::{Table, json};
use super::tuning::say_when;
use super::{CliError, Format};
use crate::model::{
    ALLOWED, Domain, OptionName, SiteSettings, UwsgiOption, UwsgiOptions, parse_domain,
};
use serde::Serialize;
use std::io::Write;

/// Arguments of `set-option`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    /// Those of `list-options`.
    #[arg(value_name = "NAME[=VALUE]", required = true)]
    options: Vec<String>,
}

/// Arguments of `unset-option`.
#[derive(Debug, clap::Args)]
pub struct Unset {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    /// Their names.
    #[arg(value_name = "NAME", required = true)]
    options: Vec<String>,
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let options = arguments
        .options
        .iter()
        .map(|text| UwsgiOption::parse(text));
    let options = options.collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = options
        .iter()
        .map(|option| option.name.to_string())
        .collect();
    change(machine, &arguments.site, |mut set| {
        for option in options {
            set = set.with(option)?;
        }
        Ok(set)
    })?;
    writeln!(out, "set {} of {}", names.join(", "), arguments.site)?;
    say_when(&arguments.site);
    Ok(())
}

pub(super) fn unset(
    machine: &Machine,
    arguments: Unset,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let site = &arguments.site;
    change(machine, site, |mut set| {
        for text in &arguments.options {
            let missing = || {
                CliError::Other(format!(
                    "{site} does not set {text}; `paasctl show-site {site}` shows what it sets"
                ))
            };
            let name = OptionName::parse(text).map_err(|_| missing())?;
            set = set.without(name).ok_or_else(missing)?;
        }
        Ok(set)
    })?;
    writeln!(out, "unset {} of {site}", arguments.options.join(", "))?;
    say_when(site);
    Ok(())
}

fn change(
    machine: &Machine,
    domain: &Domain,
    change: impl FnOnce(UwsgiOptions) -> Result<UwsgiOptions, CliError>,
) -> Result<(), CliError> {
    machine.edit(Concerns::Registry, |edit| {
        let mut site = site_of(edit, domain)?;
        let mut values = site.settings.into_values();
        values.options = change(values.options)?;
        site.settings = SiteSettings::new(values)?;
        site.settings.suit(&site.application)?;
        Ok(edit.set_site(&site)?)
    })
}

pub(super) fn list(format: Format, out: &mut dyn Write) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Shown {
        name: &'static str,
        value: String,
        does: &'static str,
    }
    let options = ALLOWED.iter().map(|option| Shown {
        name: option.name,
        value: option.takes.to_string(),
        does: option.does,
    });
    if format.json {
        return json(out, &options.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["OPTION", "VALUE", "WHAT IT DOES"]);
    for option in options {
        table.row([option.name.to_owned(), option.value, option.does.to_owned()]);
    }
    table.print(out)
}
