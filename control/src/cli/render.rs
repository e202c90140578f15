//! `render`: the machine's configuration of nginx, written once nginx accepts it; or checked, or compared.
use super::CliError;
use super::machine::{Machine, note};
use crate::generations::{Generations, Outcome, diff};
use crate::model::Placement;
use crate::nginx;
use crate::render::{Input, RenderError, Rendered, render};
use crate::settings::{BackendsFrom, Role, Settings};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `render`.
#[derive(Debug, clap::Args)]
pub struct Render {
    /// Show what would change, and change nothing; the exit code is 1 if something would.
    #[arg(long, conflicts_with = "check")]
    diff: bool,
    /// Only ask nginx whether it accepts it.
    #[arg(long)]
    check: bool,
}

/// The configuration for the machine as it is.
pub fn of(machine: &Machine) -> Result<Rendered, CliError> {
    let settings = &machine.settings;
    let is_static =
        settings.has(Role::Balancer) && settings.balancer.backends == BackendsFrom::Static;
    // In live mode nothing of the registry is rendered, so that it need not even be reachable.
    let (backends, placement) = match is_static {
        false => (Vec::new(), Placement::default()),
        true => {
            let mut registry = machine.registry()?;
            let view = registry.view()?;
            (view.backends()?, view.placement()?)
        }
    };
    let emperor = settings
        .has(Role::Backend)
        .then(|| crate::emperor::configuration(settings));
    let emperor = emperor.transpose().map_err(RenderError::Template)?;
    Ok(render(Input {
        settings,
        backends: &backends,
        placement,
        root: rustix::process::geteuid().is_root(),
        emperor: emperor.as_deref(),
        snippets: &snippets(settings)?,
    })?)
}

/// The operator's own snippets that nginx will include.
fn snippets(settings: &Settings) -> Result<BTreeMap<String, String>, CliError> {
    let paths = settings.paths();
    let mut found = BTreeMap::new();
    for (kind, directory) in [
        ("http.d", paths.http_snippets()),
        ("server.d", paths.server_snippets()),
    ] {
        let unreadable = |error: std::io::Error| {
            CliError::Other(format!("cannot read {}: {error}", directory.display()))
        };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            // What nginx's pattern *.conf means.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".conf") && !name.starts_with('.') {
                let content = std::fs::read(&path).map_err(unreadable)?;
                found.insert(
                    format!("{kind}/{name}"),
                    String::from_utf8_lossy(&content).into_owned(),
                );
            }
        }
    }
    Ok(found)
}

pub(super) fn run(
    machine: &Machine,
    arguments: Render,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let rendered = of(machine)?;
    rendered.notes.iter().for_each(|text| note(text));
    let generations = Generations::of(&machine.settings);
    if arguments.diff {
        let live = generations
            .live()?
            .map(|(_, tree)| tree)
            .unwrap_or_default();
        let difference = diff(&live, &rendered.files);
        write!(out, "{difference}")?;
        return Ok(if difference.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if arguments.check {
        let warnings = generations.check(&rendered)?;
        write!(out, "nginx accepts it\n{warnings}")?;
        return Ok(ExitCode::SUCCESS);
    }
    match generations.put(&rendered)? {
        Outcome::Unchanged { generation } => {
            writeln!(out, "nothing changed: generation {generation} is in force")?
        }
        Outcome::Switched {
            generation,
            changed,
            warnings,
        } => {
            write!(out, "{warnings}")?;
            writeln!(
                out,
                "wrote generation {generation}, and nginx accepts it; {} names it now:",
                machine.settings.paths().current().display()
            )?;
            changed
                .iter()
                .try_for_each(|name| writeln!(out, "  {name}"))?;
        }
    }
    let word = if nginx::running(&machine.settings) {
        "reload"
    } else {
        "start"
    };
    writeln!(
        out,
        "to {word} nginx with it:\n  {}",
        nginx::command(&machine.settings)
    )?;
    Ok(ExitCode::SUCCESS)
}
