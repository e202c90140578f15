//! `shell SITE`, `exec SITE -- COMMAND`: an operator's own program in the site's sandbox.
use super::CliError;
use super::domain::site_of;
use super::machine::Machine;
use crate::model::{Domain, Site, UserName, parse_domain};
use crate::registry::View;
use crate::settings::Role;
use crate::terminal;
use crate::visit::{Tenant, Visit, is_roots_alone};
use rustix::process::geteuid;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// Says who called `sudo`.
const CALLER: &str = "SUDO_UID";
/// The longest name of a terminal.
const LONGEST: usize = 40;

/// Arguments of `shell`.
#[derive(Debug, clap::Args)]
pub struct Shell {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    #[command(flatten)]
    whose: Whose,
}

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    #[command(flatten)]
    whose: Whose,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Whose {
    /// Only if the site belongs to the user who calls by sudo: for a rule in sudoers that lets users into their own sites.
    #[arg(long)]
    own: bool,
}

pub(super) fn shell(machine: &Machine, arguments: &Shell) -> Result<ExitCode, CliError> {
    let words = ["bash".to_owned()];
    visit(machine, &arguments.domain, &arguments.whose, &words)
}

pub(super) fn exec(machine: &Machine, arguments: &Exec) -> Result<ExitCode, CliError> {
    visit(
        machine,
        &arguments.domain,
        &arguments.whose,
        &arguments.command,
    )
}

fn visit(
    machine: &Machine,
    domain: &Domain,
    whose: &Whose,
    words: &[String],
) -> Result<ExitCode, CliError> {
    let settings = &machine.settings;
    if !settings.has(Role::Backend) {
        return Err(CliError::Other(format!(
            "{} runs no sites: call this on a backend",
            settings.name
        )));
    }
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let site = site_of(&*view, domain)?;
    if whose.own {
        is_callers(machine, &*view, &site)?;
    }
    drop(view);
    let kind = std::env::var("TERM").ok().filter(|kind| is_a_name(kind));
    let kind = kind.as_deref().unwrap_or("dumb");
    let visit = Visit {
        tenant: Tenant::from(&site),
        words,
        terminal: terminal::is_there().then_some(kind),
    };
    let (mut command, _trace) = visit
        .command(settings)
        .map_err(|problem| CliError::Other(problem.to_string()))?;
    let launcher = settings.backend.launcher.as_str();
    let failed = |problem| CliError::Other(format!("cannot run {launcher}: {problem}"));
    if visit.terminal.is_none() {
        return Err(failed(command.exec()));
    }
    let uid = owner(machine, &site)?;
    let status = terminal::run(command, uid).map_err(failed)?;
    Ok(ExitCode::from(terminal::code(status)))
}

/// As whom a site's processes run, if that is not who we are.
fn owner(machine: &Machine, site: &Site) -> Result<Option<u32>, CliError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = machine.registry()?.view()?.user(&site.user)?;
    Ok(user.map(|user| user.uid.get()))
}

/// Refuses unless whoever called `sudo` owns the site, by this machine's own settings and not by some of the caller's making.
fn is_callers(machine: &Machine, view: &dyn View, site: &Site) -> Result<(), CliError> {
    let refuse = |why: String| Err(CliError::Other(why));
    let settings = machine.settings.paths().settings_file();
    if !is_roots_alone(&settings)? {
        return refuse(format!(
            "{} could have been written by others than root: --own does not trust it",
            settings.display()
        ));
    }
    let caller = std::env::var(CALLER)
        .ok()
        .and_then(|uid| uid.parse::<u32>().ok());
    let Some(caller) = caller else {
        return refuse(format!("--own is for calls by sudo: {CALLER} is not set"));
    };
    let name: &UserName = &site.user;
    match view.user(name)? {
        Some(owner) if owner.uid.get() == caller => Ok(()),
        _ => refuse(format!("{} is not yours", site.domain)),
    }
}

/// Something like `xterm-256color`.
fn is_a_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(fits)
}
