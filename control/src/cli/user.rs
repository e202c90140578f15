//! `add-user`, `list-users`, `show-user`, `set-user`, `remove-user`.
use super::machine::{Concerns, Machine};
use super::output::{Table, facts, json};
use super::{CliError, Format};
use crate::model::{Uid, User, UserName};
use crate::registry::{SiteFilter, View};
use serde::Serialize;
use std::io::Write;

/// Arguments of `add-user`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// 1 to 32 of a-z, 0-9, _ and -.
    name: UserName,
    /// A uid of uid_range that nobody has had; without it the next free one.
    #[arg(long)]
    uid: Option<u32>,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `show-user`.
#[derive(Debug, clap::Args)]
pub struct Show {
    name: UserName,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `set-user`.
#[derive(Debug, clap::Args)]
pub struct Set {
    name: UserName,
    /// The name from now on.
    #[arg(long = "rename", value_name = "NEW")]
    name_to: UserName,
}

/// Arguments of `remove-user`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    name: UserName,
    /// Remove the user's sites, too.
    #[arg(long)]
    with_sites: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    user: &'a User,
    sites: Vec<String>,
}

pub(super) fn add(machine: &Machine, arguments: Add, out: &mut dyn Write) -> Result<(), CliError> {
    let uid = arguments.uid.map(Uid::new).transpose()?;
    let range = machine.settings.uid_range;
    let user = machine.edit(Concerns::Registry, |edit| {
        Ok(edit.add_user(&arguments.name, uid, range)?)
    })?;
    match arguments.format.json {
        true => json(out, &user),
        false => Ok(writeln!(
            out,
            "added user {} with uid {}",
            user.name, user.uid
        )?),
    }
}

pub(super) fn list(machine: &Machine, format: Format, out: &mut dyn Write) -> Result<(), CliError> {
    let users = machine.registry()?.view()?.users()?;
    if format.json {
        return json(out, &users);
    }
    let mut table = Table::new(&["NAME", "UID"]);
    users
        .iter()
        .for_each(|user| table.row([user.name.to_string(), user.uid.to_string()]));
    table.print(out)
}

pub(super) fn show(
    machine: &Machine,
    arguments: Show,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let user = view
        .user(&arguments.name)?
        .ok_or_else(|| CliError::missing("user", &arguments.name))?;
    let sites = sites_of(&*view, &user.name)?;
    if arguments.format.json {
        return json(out, &Shown { user: &user, sites });
    }
    facts(
        out,
        &[
            ("name", user.name.to_string()),
            ("uid", user.uid.to_string()),
            ("sites", sites.join(" ")),
        ],
    )
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    machine.edit(Concerns::Registry, |edit| {
        Ok(edit.rename_user(&arguments.name, &arguments.name_to)?)
    })?;
    Ok(writeln!(
        out,
        "user {} is {} now",
        arguments.name, arguments.name_to
    )?)
}

pub(super) fn remove(
    machine: &Machine,
    arguments: Remove,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let concerns = if arguments.with_sites {
        Concerns::Table
    } else {
        Concerns::Registry
    };
    let sites = machine.edit(concerns, |edit| {
        let mut ids = Vec::new();
        if arguments.with_sites {
            let filter = SiteFilter {
                user: Some(arguments.name.clone()),
            };
            edit.each_site(&filter, &mut |site| {
                ids.push(site.id);
                Ok(())
            })?;
        }
        for id in &ids {
            edit.remove_site(*id)?;
        }
        edit.remove_user(&arguments.name)?;
        Ok(ids.len())
    })?;
    match sites {
        0 => writeln!(out, "removed user {}", arguments.name)?,
        1 => writeln!(out, "removed user {} and the user's site", arguments.name)?,
        sites => writeln!(out, "removed user {} and {sites} sites", arguments.name)?,
    }
    Ok(())
}

fn sites_of(view: &dyn View, user: &UserName) -> Result<Vec<String>, CliError> {
    let mut sites = Vec::new();
    view.each_site(
        &SiteFilter {
            user: Some(user.clone()),
        },
        &mut |site| {
            sites.push(site.domain.to_string());
            Ok(())
        },
    )?;
    Ok(sites)
}
