//! `add-user`, `list-users`, `show-user`, `set-user`, `remove-user`.
use super::limits::{self, Limited};
use super::machine::{Concerns, Machine};
use super::output::{Table, facts, json};
use super::tuning::{self, Typed};
use super::{CliError, Format};
use crate::allowance;
use crate::model::{Span, Uid, User, UserName};
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

/// Arguments of `set-user`: what is not named stays.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["rename", "cpu_per_day"]).args(limits::ARGUMENTS))]
pub struct Set {
    name: UserName,
    /// The name from now on.
    #[arg(long, value_name = "NEW")]
    rename: Option<UserName>,
    #[command(flatten)]
    limits: Limited,
    /// CPU time in a day (of UTC), on all machines; beyond it the user is slowed: 2h.
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Limits of its processes (`default` takes one back)"
    )]
    cpu_per_day: Option<Typed<Span>>,
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
    limits: limits::Shown,
    cpu_used_today_s: f64,
}

/// The user of this name.
pub(super) fn user_of(view: &(impl View + ?Sized), name: &UserName) -> Result<User, CliError> {
    view.user(name)?
        .ok_or_else(|| CliError::missing("user", name))
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
    let user = user_of(&*view, &arguments.name)?;
    let sites = sites_of(&*view, &user.name)?;
    let limits = limits::Shown::new(
        &view.user_limits(&user.name)?,
        &machine.settings.sandbox.limits,
    );
    let used = view.cpu_used(user.uid, allowance::today())?;
    if arguments.format.json {
        let shown = Shown {
            user: &user,
            sites,
            limits,
            cpu_used_today_s: used.as_secs_f64(),
        };
        return json(out, &shown);
    }
    let mut shown = vec![
        ("name", user.name.to_string()),
        ("uid", user.uid.to_string()),
        ("sites", sites.join(" ")),
    ];
    shown.extend(limits.facts());
    shown.push(limits.day());
    shown.push(("cpu-used-today", format!("{}s", used.as_secs())));
    facts(out, &shown)
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let Set {
        name,
        rename,
        limits,
        cpu_per_day,
    } = arguments;
    machine.edit(Concerns::Registry, |edit| {
        if limits.is_any() || cpu_per_day.is_some() {
            let user = user_of(edit, &name)?;
            let mut limits = limits.apply(edit.user_limits(&user.name)?);
            tuning::set(&mut limits.cpu_per_day, cpu_per_day);
            edit.set_user_limits(&user.name, &limits)?;
        }
        if let Some(new) = &rename {
            edit.rename_user(&name, new)?;
        }
        Ok(())
    })?;
    match rename {
        Some(new) => writeln!(out, "user {name} is {new} now")?,
        None => writeln!(out, "set user {name}")?,
    }
    Ok(())
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
