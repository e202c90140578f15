//! `list-sites`, `show-site`, `set-site`, `remove-site`; `add-site` is in `add_site.rs`.
use super::backend::backend_of;
use super::domain::site_of;
use super::limits::{self, Limited};
use super::machine::{Concerns, Machine};
use super::output::{Table, facts, json, or_empty};
use super::tuning::{self, Tuning};
use super::{CliError, Format};
use crate::model::{
    AbsolutePath, Application, BackendId, BackendName, CommandLine, Domain, EntryPoint, Idle, Site,
    SiteSettings, UrlPrefix, UserName, parse_domain,
};
use crate::registry::{SiteFilter, View};
use serde::Serialize;
use std::collections::HashMap;
use std::io::Write;

/// Arguments of `list-sites`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this user.
    #[arg(long)]
    user: Option<UserName>,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `show-site`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    #[command(flatten)]
    format: Format,
}

/// Arguments of `set-site`: what is not named stays.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["user", "dir", "entry", "command", "venv", "no_venv", "idle", "no_idle", "enabled", "pin", "no_pin",
    "workers", "threads", "cheaper", "harakiri", "max_requests", "buffer_size", "post_buffering", "probe", "statics", "no_static"]).args(limits::ARGUMENTS))]
pub struct Set {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    /// Another owner.
    #[arg(long)]
    user: Option<UserName>,
    /// Where its code lies.
    #[arg(long, alias = "directory", value_parser = typed_path)]
    dir: Option<AbsolutePath>,
    /// MODULE:CALLABLE, or path.py:callable below the directory.
    #[arg(long)]
    entry: Option<EntryPoint>,
    /// A command in place of a callable: a server that takes its listening socket as descriptor 0 and speaks HTTP.
    #[arg(long, conflicts_with = "entry")]
    command: Option<CommandLine>,
    /// A virtualenv.
    #[arg(long, value_parser = typed_path)]
    venv: Option<AbsolutePath>,
    /// No virtualenv.
    #[arg(long, conflicts_with = "venv")]
    no_venv: bool,
    /// After how long without a request it is put to sleep: 10m, or never.
    #[arg(long, value_name = "TIME|never")]
    idle: Option<Idle>,
    /// As the machine's settings say.
    #[arg(long, conflicts_with = "idle")]
    no_idle: bool,
    /// Whether it is served.
    #[arg(long, action = clap::ArgAction::Set)]
    enabled: Option<bool>,
    /// The backend it runs on, whatever placement says.
    #[arg(long, value_name = "BACKEND")]
    pin: Option<BackendName>,
    /// Where placement says.
    #[arg(long, conflicts_with = "pin")]
    no_pin: bool,
    #[command(flatten)]
    tuning: Tuning,
    /// Leave the requests below this URL to the application again; may be repeated.
    #[arg(long, value_name = "URL")]
    no_static: Vec<UrlPrefix>,
    #[command(flatten)]
    limits: Limited,
}

/// Arguments of `remove-site`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its primary domain.
    #[arg(value_parser = parse_domain)]
    domain: Domain,
}

/// A site as programs see it.
#[derive(Serialize)]
pub(super) struct Shown {
    id: u64,
    domain: String,
    user: String,
    directory: String,
    entry: Option<String>,
    command: Option<String>,
    venv: Option<String>,
    idle: Option<String>,
    enabled: bool,
    pin: Option<String>,
    settings: SiteSettings,
}

/// Backends' names by their ids.
pub(super) type Names = HashMap<BackendId, BackendName>;

pub(super) fn names(view: &dyn View) -> Result<Names, CliError> {
    Ok(view
        .backends()?
        .into_iter()
        .map(|backend| (backend.id, backend.name))
        .collect())
}

impl Shown {
    pub(super) fn new(site: &Site, names: &Names) -> Self {
        Self {
            id: site.id.get(),
            domain: site.domain.to_string(),
            user: site.user.to_string(),
            directory: site.directory.to_string(),
            entry: site.application.entry().map(ToString::to_string),
            command: site.application.command().map(ToString::to_string),
            venv: site.venv.as_ref().map(ToString::to_string),
            idle: site.idle.as_ref().map(ToString::to_string),
            enabled: site.enabled,
            pin: site
                .pin
                .and_then(|id| names.get(&id))
                .map(ToString::to_string),
            settings: site.settings.clone(),
        }
    }

    fn application(&self) -> String {
        or_empty(self.entry.as_ref().or(self.command.as_ref()))
    }

    fn state(&self) -> &'static str {
        if self.enabled { "enabled" } else { "disabled" }
    }
}

/// A path typed at the command line: a relative one is meant from the working directory.
pub(super) fn typed_path(text: &str) -> Result<AbsolutePath, crate::model::Invalid> {
    let refuse =
        |error: std::io::Error| crate::model::Invalid::new("a path", text, error.to_string());
    let path = std::path::absolute(text).map_err(refuse)?;
    // Links stay links (`current -> releases/7`), unless there is a `..`, which only the file system can resolve.
    let path = if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        path.canonicalize().map_err(refuse)?
    } else {
        path
    };
    let path = path
        .to_str()
        .ok_or_else(|| crate::model::Invalid::new("a path", text, "it is not valid UTF-8"))?;
    AbsolutePath::parse(path)
}

/// The id of a backend that a site is to be pinned to.
pub(super) fn pin(view: &(impl View + ?Sized), name: &BackendName) -> Result<BackendId, CliError> {
    Ok(backend_of(view, name)?.id)
}

pub(super) fn list(
    machine: &Machine,
    arguments: List,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let names = names(&*view)?;
    let mut shown = Vec::new();
    view.each_site(
        &SiteFilter {
            user: arguments.user,
        },
        &mut |site| {
            shown.push(Shown::new(&site, &names));
            Ok(())
        },
    )?;
    if arguments.format.json {
        return json(out, &shown);
    }
    let mut table = Table::new(&[
        "DOMAIN",
        "ID",
        "USER",
        "ENTRY",
        "DIRECTORY",
        "STATE",
        "IDLE",
        "PIN",
    ]);
    for one in shown {
        let (state, application) = (one.state().to_owned(), one.application());
        table.row([
            one.domain,
            one.id.to_string(),
            one.user,
            application,
            one.directory,
            state,
            or_empty(one.idle),
            or_empty(one.pin),
        ]);
    }
    table.print(out)
}

pub(super) fn show(
    machine: &Machine,
    arguments: Show,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Whole {
        #[serde(flatten)]
        site: Shown,
        uid: Option<u32>,
        domains: Vec<String>,
        socket: String,
        limits: limits::Shown,
    }
    let mut registry = machine.registry()?;
    let view = registry.view()?;
    let site = site_of(&*view, &arguments.domain)?;
    let of_user = view.user_limits(&site.user)?;
    let whole = Whole {
        limits: limits::Shown::new(
            &view.site_limits(site.id)?,
            &of_user.or(&machine.settings.sandbox.limits),
        ),
        uid: view.user(&site.user)?.map(|user| user.uid.get()),
        domains: view
            .domains(site.id)?
            .iter()
            .map(ToString::to_string)
            .collect(),
        socket: machine
            .settings
            .paths()
            .site_socket(site.id, &site.domain)
            .display()
            .to_string(),
        site: Shown::new(&site, &names(&*view)?),
    };
    if arguments.format.json {
        return json(out, &whole);
    }
    let state = whole.site.state().to_owned();
    let Shown {
        id,
        domain,
        user,
        directory,
        entry,
        command,
        venv,
        idle,
        pin,
        settings,
        ..
    } = whole.site;
    let application = match command {
        Some(command) => ("command", command),
        None => ("entry", or_empty(entry)),
    };
    let mut shown = vec![
        ("domain", domain),
        ("id", id.to_string()),
        ("domains", whole.domains.join(" ")),
        ("user", user),
        ("uid", or_empty(whole.uid)),
        ("directory", directory),
        application,
        ("venv", or_empty(venv)),
        ("idle", or_empty(idle)),
        ("state", state),
        ("pin", or_empty(pin)),
        ("socket", whole.socket),
    ];
    shown.extend(tuning::shown(&settings));
    shown.extend(whole.limits.facts());
    facts(out, &shown)
}

pub(super) fn set(machine: &Machine, arguments: Set, out: &mut dyn Write) -> Result<(), CliError> {
    let domain = arguments.domain.clone();
    let concerns_processes = arguments.user.is_some()
        || arguments.dir.is_some()
        || arguments.entry.is_some()
        || arguments.command.is_some()
        || arguments.venv.is_some()
        || arguments.no_venv
        || arguments.idle.is_some()
        || arguments.no_idle
        || arguments.tuning.is_any()
        || !arguments.no_static.is_empty()
        || arguments.limits.is_any();
    machine.edit(Concerns::Table, |edit| {
        let mut site = site_of(edit, &domain)?;
        if let Some(backend) = &arguments.pin {
            site.pin = Some(pin(edit, backend)?);
        }
        if arguments.no_pin {
            site.pin = None;
        }
        if arguments.venv.is_some() || arguments.no_venv {
            site.venv = arguments.venv;
        }
        if arguments.idle.is_some() || arguments.no_idle {
            site.idle = arguments.idle;
        }
        site.user = arguments.user.unwrap_or(site.user);
        site.directory = arguments.dir.unwrap_or(site.directory);
        let entry = arguments.entry.map(Application::Wsgi);
        let application = entry.or(arguments.command.map(Application::Command));
        site.application = application.unwrap_or(site.application);
        site.settings = arguments
            .tuning
            .apply(site.settings, &arguments.no_static)?;
        site.settings.suit(&site.application)?;
        site.enabled = arguments.enabled.unwrap_or(site.enabled);
        edit.set_site(&site)?;
        if arguments.limits.is_any() {
            let limits = arguments.limits.apply(edit.site_limits(site.id)?);
            edit.set_site_limits(site.id, &limits)?;
        }
        Ok(())
    })?;
    writeln!(out, "set site {domain}")?;
    if concerns_processes {
        tuning::say_when(&domain);
    }
    Ok(())
}

/// Arguments of `pin-site`.
#[derive(Debug, clap::Args)]
pub struct Pin {
    /// The site.
    #[arg(value_parser = crate::model::parse_domain)]
    site: Domain,
    /// The backend that serves it while it can.
    backend: BackendName,
}

/// Arguments of `unpin-site`.
#[derive(Debug, clap::Args)]
pub struct Unpin {
    /// The site.
    #[arg(value_parser = crate::model::parse_domain)]
    site: Domain,
}

pub(super) fn pin_to(
    machine: &Machine,
    arguments: Pin,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let Pin { site, backend } = &arguments;
    machine.edit(Concerns::Table, |edit| {
        let id = pin(edit, backend)?;
        let found = site_of(edit, site)?;
        Ok(edit.set_site(&Site {
            pin: Some(id),
            ..found
        })?)
    })?;
    Ok(writeln!(out, "site {site} is pinned to {backend}")?)
}

pub(super) fn unpin(
    machine: &Machine,
    arguments: Unpin,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let site = &arguments.site;
    machine.edit(Concerns::Table, |edit| {
        let found = site_of(edit, site)?;
        Ok(edit.set_site(&Site { pin: None, ..found })?)
    })?;
    Ok(writeln!(out, "site {site} is where placement puts it")?)
}

pub(super) fn remove(
    machine: &Machine,
    arguments: Remove,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let domain = &arguments.domain;
    machine.edit(Concerns::Table, |edit| {
        let site = site_of(edit, domain)?;
        if site.domain != *domain {
            let primary = &site.domain;
            return Err(CliError::Other(format!(
                "{domain} is a further domain of the site {primary}: `paasctl remove-domain {domain}` removes the name, `paasctl remove-site {primary}` the site"
            )));
        }
        Ok(edit.remove_site(site.id)?)
    })?;
    Ok(writeln!(out, "removed site {domain}")?)
}
