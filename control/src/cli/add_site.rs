//! `add-site`: one site from arguments, or many from a file in one transaction.
use super::application::{self, Found};
use super::domain::socket_fits;
use super::machine::{Concerns, Machine};
use super::output::json;
use super::site::{Shown, names, pin, typed_path};
use super::tuning::Tuning;
use super::{CliError, Format};
use crate::model::{
    AbsolutePath, Application, BackendName, CommandLine, Domain, EntryPoint, Idle, NewSite,
    SiteSettings, UserName, parse_domain,
};
use crate::registry::Edit;
use crate::visit::Tenant;
use serde::Deserialize;
use std::io::{BufRead, Write};
use std::path::PathBuf;

/// Arguments of `add-site`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// The primary domain; names in other scripts become A-labels.
    #[arg(value_parser = parse_domain, required_unless_present = "from")]
    domain: Option<Domain>,
    /// Who owns it.
    #[arg(long, required_unless_present = "from")]
    user: Option<UserName>,
    /// Where its code lies.
    #[arg(long, alias = "directory", value_parser = typed_path, required_unless_present = "from")]
    dir: Option<AbsolutePath>,
    /// MODULE:CALLABLE, or path.py:callable below the directory; without it, it is guessed.
    #[arg(long)]
    entry: Option<EntryPoint>,
    /// In place of a callable, a server that takes its listening socket as descriptor 0 and speaks HTTP on it: 'uvicorn
    /// app:app --fd 0'. It is run in the site's directory, without a shell.
    #[arg(long, conflicts_with = "entry")]
    command: Option<CommandLine>,
    /// A virtualenv.
    #[arg(long, value_parser = typed_path)]
    venv: Option<AbsolutePath>,
    /// After how long without a request it is put to sleep: 10m, or never; without it, as the machine's settings say.
    #[arg(long, value_name = "TIME|never")]
    idle: Option<Idle>,
    /// The backend it runs on, whatever placement says.
    #[arg(long, value_name = "BACKEND")]
    pin: Option<BackendName>,
    #[command(flatten)]
    tuning: Tuning,
    /// Add it even if its directory or application is not found from here.
    #[arg(long)]
    no_check: bool,
    /// Many sites: a file (- is standard input) with a JSON object on each line, as in `list-sites --json`. All or none.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "user", "dir", "entry", "command", "venv", "idle", "pin",
        "workers", "threads", "cheaper", "harakiri", "max_requests", "buffer_size", "post_buffering", "probe", "statics"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

pub(super) fn add(
    machine: &Machine,
    mut arguments: Add,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let tuning = std::mem::take(&mut arguments.tuning);
    let settings = tuning.apply(SiteSettings::default(), &[])?;
    match (
        &arguments.from,
        &arguments.domain,
        &arguments.user,
        &arguments.dir,
    ) {
        (Some(file), ..) => many(machine, file, out),
        (None, Some(domain), Some(user), Some(directory)) => one(
            machine,
            &arguments,
            settings,
            (domain, user, directory),
            out,
        ),
        _ => Err(CliError::Other(
            "name a domain, --user and --dir".to_owned(),
        )),
    }
}

fn one(
    machine: &Machine,
    arguments: &Add,
    settings: SiteSettings,
    (domain, user, directory): (&Domain, &UserName, &AbsolutePath),
    out: &mut dyn Write,
) -> Result<(), CliError> {
    socket_fits(machine, domain)?;
    let found = directory.as_path().is_dir();
    let named = arguments.entry.is_some() || arguments.command.is_some();
    if !found && (!arguments.no_check || !named) {
        return Err(CliError::Other(format!(
            "{directory} is no directory on this machine; if backends see it, name the application with --entry and say --no-check"
        )));
    }
    let (application, venv) = application(machine, arguments, (domain, user, directory))?;
    settings.suit(&application)?;
    let new = NewSite {
        user: user.clone(),
        domain: domain.clone(),
        directory: directory.clone(),
        application,
        venv,
        idle: arguments.idle,
        enabled: true,
        pin: None,
        settings,
    };
    let (site, names) = machine.edit(Concerns::Table, |edit| {
        let pin = arguments
            .pin
            .as_ref()
            .map(|name| pin(edit, name))
            .transpose()?;
        let site = edit.add_site(&NewSite { pin, ..new })?;
        Ok((site, names_of(edit)?))
    })?;
    match arguments.format.json {
        true => json(out, &Shown::new(&site, &names)),
        false => Ok(writeln!(
            out,
            "added site {} ({}, id {})",
            site.domain, site.application, site.id
        )?),
    }
}

/// What answers, and in which virtualenv: as named, or as found.
fn application(
    machine: &Machine,
    arguments: &Add,
    (domain, user, directory): (&Domain, &UserName, &AbsolutePath),
) -> Result<(Application, Option<AbsolutePath>), CliError> {
    let venv = arguments.venv.clone();
    if let Some(command) = &arguments.command {
        let venv = match arguments.no_check {
            true => venv,
            false => application::venv(directory, venv)?,
        };
        return Ok((Application::Command(command.clone()), venv));
    }
    let found = match &arguments.entry {
        Some(entry) if arguments.no_check => Found {
            entry: entry.clone(),
            venv,
        },
        entry => application::find(directory, entry.clone(), venv)?,
    };
    if !arguments.no_check {
        let tenant = Tenant {
            site: None,
            user,
            domain,
            directory,
            venv: found.venv.as_ref(),
        };
        application::check(machine, tenant, &found.entry)?;
        application::compile(machine, tenant)?;
    }
    Ok((Application::Wsgi(found.entry), found.venv))
}

fn names_of(edit: &mut dyn Edit) -> Result<super::site::Names, CliError> {
    names(edit)
}

/// A line of a file of sites. What `list-sites` prints beside it is not needed here.
#[derive(Deserialize)]
struct Line {
    domain: String,
    user: UserName,
    directory: AbsolutePath,
    entry: Option<EntryPoint>,
    command: Option<CommandLine>,
    venv: Option<AbsolutePath>,
    idle: Option<Idle>,
    enabled: Option<bool>,
    pin: Option<BackendName>,
    #[serde(default)]
    settings: SiteSettings,
}

fn many(machine: &Machine, file: &PathBuf, out: &mut dyn Write) -> Result<(), CliError> {
    let name = if file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let unreadable =
        |error: std::io::Error| CliError::Other(format!("cannot read {name}: {error}"));
    let lines: Box<dyn BufRead> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::io::BufReader::new(
            std::fs::File::open(file).map_err(unreadable)?,
        )),
    };
    let count = machine.edit(Concerns::Table, |edit| {
        let mut count = 0_u64;
        for (number, line) in (1_u64..).zip(lines.lines()) {
            let line = line.map_err(unreadable)?;
            if line.trim().is_empty() {
                continue;
            }
            let at = |error: CliError| {
                CliError::Other(format!(
                    "{name}, line {number}: {error}; no site of the file was added"
                ))
            };
            let new = parse(edit, &line).map_err(at)?;
            socket_fits(machine, &new.domain).map_err(at)?;
            edit.add_site(&new).map_err(|error| at(error.into()))?;
            count += 1;
        }
        Ok(count)
    })?;
    Ok(writeln!(out, "added {count} sites")?)
}

fn parse(edit: &mut dyn Edit, line: &str) -> Result<NewSite, CliError> {
    let line: Line =
        serde_json::from_str(line).map_err(|error| CliError::Other(error.to_string()))?;
    let application = match (line.entry, line.command) {
        (Some(entry), None) => Application::Wsgi(entry),
        (None, Some(command)) => Application::Command(command),
        _ => {
            return Err(CliError::Other(
                "a site has either an entry or a command".to_owned(),
            ));
        }
    };
    line.settings.suit(&application)?;
    Ok(NewSite {
        user: line.user,
        domain: parse_domain(&line.domain)?,
        directory: line.directory,
        application,
        settings: line.settings,
        venv: line.venv,
        idle: line.idle,
        enabled: line.enabled.unwrap_or(true),
        pin: line.pin.map(|name| pin(edit, &name)).transpose()?,
    })
}
