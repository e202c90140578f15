//! `logs`: what a site's logs say.
use super::CliError;
use super::domain::site_of;
use super::machine::Machine;
use crate::client;
use crate::logs::Kind;
use crate::logs::tail::{Follower, last};
use crate::model::{Domain, parse_domain};
use rustix::fs::inotify;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Any domain of the site.
    #[arg(value_parser = parse_domain)]
    site: Domain,
    /// Which of them.
    #[arg(long, value_enum, default_value = "server")]
    kind: Kind,
    /// How many lines.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Go on with what is added, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Each line as a JSON object of its own, with the log that it is from.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(machine: &Machine, arguments: Logs, out: &mut dyn Write) -> Result<(), CliError> {
    let domain = {
        let mut registry = machine.registry()?;
        let view = registry.view()?;
        site_of(&*view, &arguments.site)?.domain
    };
    let kind = arguments.kind;
    // In a platform of `paasctl up`, the machines beside this one too.
    let own = machine.settings.paths().root().to_owned();
    let roots = [own]
        .into_iter()
        .chain(client::neighbours(&machine.settings));
    let relative = format!("var/log/paas/{domain}");
    let found: Vec<PathBuf> = roots
        .map(|root| root.join(&relative))
        .filter(|directory| directory.join(kind.file_name()).exists())
        .collect();
    if found.is_empty() {
        return Err(CliError::Other(format!(
            "{domain} has no {} on this machine: it has not run here, or nobody has visited it",
            kind.file_name()
        )));
    }
    let mut followers = Vec::new();
    for directory in &found {
        let unreadable = |error| unreadable(directory, kind, error);
        // Before the lines are shown, so that none falls between.
        followers.push(Follower::new(directory, kind).map_err(unreadable)?);
        if found.len() > 1 && !arguments.json {
            writeln!(
                out,
                "==> {} <==",
                directory.join(kind.file_name()).display()
            )?;
        }
        for line in last(directory, kind, arguments.lines).map_err(unreadable)? {
            show(out, directory, kind, arguments.json, &line)?;
        }
    }
    out.flush()?;
    match arguments.follow {
        true => follow(&found, followers, kind, arguments.json, out),
        false => Ok(()),
    }
}

fn follow(
    directories: &[PathBuf],
    mut followers: Vec<Follower>,
    kind: Kind,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
    for directory in directories {
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&changes, directory, what).map_err(std::io::Error::from)?;
    }
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut changes = inotify::Reader::new(&changes, &mut space);
    loop {
        for (follower, directory) in followers.iter_mut().zip(directories) {
            for line in follower
                .more()
                .map_err(|error| unreadable(directory, kind, error))?
            {
                show(out, directory, kind, json, &line)?;
            }
        }
        out.flush()?;
        changes.next().map_err(std::io::Error::from)?;
    }
}

fn unreadable(directory: &Path, kind: Kind, error: std::io::Error) -> CliError {
    let log = directory.join(kind.file_name());
    CliError::Other(format!("cannot read {}: {error}", log.display()))
}

/// A line of a log for programs.
#[derive(Serialize)]
struct Line<'a> {
    log: &'a Path,
    kind: Kind,
    line: &'a str,
}

/// A site may write what it likes: to a terminal its control characters would be orders.
fn show(
    out: &mut dyn Write,
    directory: &Path,
    kind: Kind,
    json: bool,
    line: &str,
) -> Result<(), CliError> {
    if json {
        let log = &directory.join(kind.file_name());
        let object = serde_json::to_string(&Line { log, kind, line });
        let object = object.map_err(|error| CliError::Other(error.to_string()))?;
        return Ok(writeln!(out, "{object}")?);
    }
    if !std::io::stdout().is_terminal() {
        return Ok(writeln!(out, "{line}")?);
    }
    let mut shown = String::with_capacity(line.len());
    for character in line.chars() {
        match character {
            '\t' => shown.push('\t'),
            control if control.is_control() => shown.extend(control.escape_default()),
            plain => shown.push(plain),
        }
    }
    Ok(writeln!(out, "{shown}")?)
}
