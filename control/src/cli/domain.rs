//! `add-domain`, `list-domains`, `show-domain`, `set-domain`, `remove-domain`: the names that lead to sites.
use super::machine::{Concerns, Machine};
use super::output::{Table, facts, json};
use super::{CliError, Format};
use crate::model::{Domain, Site, parse_domain};
use crate::registry::{Edit, View, hosts};
use serde::Serialize;
use std::io::Write;
use table::SiteRecord;

/// Arguments of `add-domain`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// The further domain.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    /// The site it leads to, by any of its domains.
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    site: Domain,
}

/// Arguments of `list-domains`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this site.
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    site: Option<Domain>,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `show-domain`.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `set-domain`.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    /// The site it leads to from now on, by any of its domains.
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    site: Domain,
}

/// Arguments of `remove-domain`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    #[arg(value_parser = parse_domain)]
    domain: Domain,
}

#[derive(Serialize)]
struct Shown {
    domain: String,
    site: String,
    id: u64,
    primary: bool,
}

impl Shown {
    fn new(domain: &Domain, record: &SiteRecord) -> Self {
        Self {
            domain: domain.to_string(),
            site: record.primary.to_string(),
            id: record.id.get(),
            primary: *domain == record.primary,
        }
    }
}

/// The site that a domain leads to.
pub(super) fn site_of(view: &(impl View + ?Sized), domain: &Domain) -> Result<Site, CliError> {
    view.site_of(domain)?
        .ok_or_else(|| CliError::missing("site", domain))
}

/// Refuses a domain that would make a socket's path too long, where sockets are named by domains.
pub(super) fn socket_fits(machine: &Machine, domain: &Domain) -> Result<(), CliError> {
    match machine.settings.backend.socket_path.too_long(domain) {
        None => Ok(()),
        Some(length) => Err(CliError::Other(format!(
            "{domain}: with socket_path = {:?} a socket of this site would have a path of {length} bytes, and the kernel allows 107; name sockets by {{id}}",
            machine.settings.backend.socket_path.as_str()
        ))),
    }
}

pub(super) fn add(machine: &Machine, arguments: Add, out: &mut dyn Write) -> Result<(), CliError> {
    let Add { domain, site } = arguments;
    let site = lead(machine, &site, |edit, site| {
        Ok(edit.add_domain(&domain, site.id)?)
    })?;
    Ok(writeln!(
        out,
        "added domain {domain}: it leads to {}",
        site.domain
    )?)
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let Set { domain, site } = arguments;
    let site = lead(machine, &site, |edit, site| {
        Ok(edit.set_domain(&domain, site.id)?)
    })?;
    Ok(writeln!(
        out,
        "domain {domain} leads to {} now",
        site.domain
    )?)
}

fn lead(
    machine: &Machine,
    site: &Domain,
    change: impl FnOnce(&mut dyn Edit, &Site) -> Result<(), CliError>,
) -> Result<Site, CliError> {
    machine.edit(Concerns::Table, |edit| {
        let site = site_of(edit, site)?;
        change(edit, &site)?;
        Ok(site)
    })
}

pub(super) fn list(
    machine: &Machine,
    arguments: List,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let shown = match &arguments.site {
        Some(site) => {
            let site = site_of(&*view, site)?;
            let record = site.record();
            view.domains(site.id)?
                .iter()
                .map(|domain| Shown::new(domain, &record))
                .collect()
        }
        None => all(&*view)?,
    };
    if arguments.format.json {
        return json(out, &shown);
    }
    let mut table = Table::new(&["DOMAIN", "SITE", "KIND"]);
    for one in shown {
        table.row([
            one.domain,
            one.site,
            if one.primary { "primary" } else { "further" }.to_owned(),
        ]);
    }
    table.print(out)
}

fn all(view: &dyn View) -> Result<Vec<Shown>, CliError> {
    hosts(view)
        .map(|host| {
            let (domain, record) = host?;
            Ok(Shown::new(&domain, &record))
        })
        .collect()
}

pub(super) fn show(
    machine: &Machine,
    arguments: Show,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let record = machine.registry()?.view()?.host(&arguments.domain)?;
    let shown = Shown::new(
        &arguments.domain,
        &record.ok_or_else(|| CliError::missing("domain", &arguments.domain))?,
    );
    if arguments.format.json {
        return json(out, &shown);
    }
    let kind = if shown.primary { "primary" } else { "further" };
    facts(
        out,
        &[
            ("domain", shown.domain),
            ("site", shown.site),
            ("id", shown.id.to_string()),
            ("kind", kind.to_owned()),
        ],
    )
}

pub(super) fn remove(
    machine: &Machine,
    arguments: Remove,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    machine.edit(Concerns::Table, |edit| {
        Ok(edit.remove_domain(&arguments.domain)?)
    })?;
    Ok(writeln!(out, "removed domain {}", arguments.domain)?)
}
