//! `check-takeover FILE`: whether one of our methods gives every host the backend that it has in a running deployment.
use super::machine::Machine;
use super::output::{Table, json};
use super::{CliError, Format};
use crate::model::{Invalid, Method, Weight};
use crate::registry::View;
use crate::takeover::lines::{Form, Line, LogFormat};
use crate::takeover::{Check, Count, Difference, Server, Taken};
use clap::ValueEnum;
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `check-takeover`.
#[derive(Debug, clap::Args)]
pub struct CheckTakeover {
    /// Pairs `host,backend`, one on each line, or an access log (see --format and --regex); - for standard input.
    #[arg(value_name = "FILE")]
    file: String,
    /// FILE is an access log of this form, as nginx's `log_format` has it; the host is $host or $http_host, the backend
    /// $upstream_addr or $proxy_host.
    #[arg(long, value_name = "LOG_FORMAT", conflicts_with = "regex")]
    format: Option<String>,
    /// The variable of --format that holds the host.
    #[arg(long, value_name = "NAME", requires = "format")]
    host_variable: Option<String>,
    /// The variable of --format that holds the backend.
    #[arg(long, value_name = "NAME", requires = "format")]
    backend_variable: Option<String>,
    /// FILE is an access log whose lines this expression matches, with groups `(?<host>...)` and `(?<backend>...)`.
    #[arg(long, value_name = "EXPRESSION")]
    regex: Option<String>,
    /// The servers in the order of the old configuration, with commas between; without it the registry's backends.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    servers: Vec<String>,
    /// What is hashed: the host as nginx's $host has it, exactly what stands in FILE, or the primary domain of the
    /// host's site in the registry (as balancers with a table do).
    #[arg(long, value_enum, default_value = "host")]
    by: By,
    /// How many of the hosts that differ are named for each method.
    #[arg(long, value_name = "NUMBER", default_value = "10")]
    show: usize,
    /// Fail if this method differs in any host.
    #[arg(long, value_name = "METHOD")]
    expect: Option<Method>,
    #[command(flatten)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The host as nginx's $host has it: lower case, without port and trailing dot.
    Host,
    /// The bytes that stand in FILE.
    Exact,
    /// The primary domain of the host's site.
    Site,
}

/// Longer lines are skipped.
const LONGEST: u64 = 64 * 1024;
/// How often progress is shown.
const OFTEN: Duration = Duration::from_millis(200);

/// The answer.
#[derive(Serialize)]
struct Report {
    servers: Vec<String>,
    lines: u64,
    hosts: usize,
    /// Lines that were not compared, and why.
    skipped: Skipped,
    methods: Vec<Shown>,
}

#[derive(Default, Serialize)]
struct Skipped {
    /// They do not look as FILE's form says.
    unreadable: u64,
    first_unreadable: Option<u64>,
    /// Their backend is none of the servers.
    unknown_backend: u64,
    first_unknown_backend: Option<String>,
    /// With `--by site`: no site has their host.
    unknown_host: u64,
    first_unknown_host: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    method: String,
    hosts_agree: u64,
    lines_agree: u64,
    first_differing: Vec<Difference>,
}

pub(super) fn run(
    machine: &Machine,
    arguments: CheckTakeover,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let form = form(&arguments)?;
    let mut registry = match arguments.servers.is_empty() || arguments.by == By::Site {
        true => Some(machine.registry()?),
        false => None,
    };
    let view = registry.as_mut().map(|one| one.view()).transpose()?;
    let servers = servers(&arguments, view.as_deref())?;
    let mut report = Report {
        servers: servers.iter().map(|server| server.key.clone()).collect(),
        lines: 0,
        hosts: 0,
        skipped: Skipped::default(),
        methods: Vec::new(),
    };
    let mut check = Check::new(servers, arguments.show);
    let mut failed = None;
    each_line(&arguments.file, |number, line| {
        let (host, backend) = match form.read(line) {
            Line::Pair { host, backend } => (host, backend),
            Line::Nothing => return,
            Line::Other => return report.skipped.unreadable(number),
        };
        let key = || {
            key(arguments.by, &host, view.as_deref()).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        };
        match check.take(number, &host, &backend, key) {
            Taken::Compared => {}
            Taken::UnknownBackend => report.skipped.unknown_backend(&backend),
            Taken::UnknownHost => report.skipped.unknown_host(&host),
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    report.lines = check.lines();
    report.hosts = check.hosts();
    report.methods = check.counts().iter().map(Shown::from).collect();
    print(&report, &arguments, out)?;
    if report.lines == 0 {
        return Err(CliError::Other(format!(
            "nothing in {} could be compared: it must hold lines like \"shop.example,10.0.0.1:8080\", or be an access log with --format or --regex",
            arguments.file
        )));
    }
    let expected = arguments.expect.map(|method| method.to_string());
    let differs = report
        .methods
        .iter()
        .any(|shown| Some(&shown.method) == expected.as_ref() && shown.lines_agree < report.lines);
    Ok(ExitCode::from(u8::from(differs)))
}

fn form(arguments: &CheckTakeover) -> Result<Form, CliError> {
    Ok(match (&arguments.format, &arguments.regex) {
        (Some(format), _) => Form::Log(LogFormat::parse(
            format,
            arguments.host_variable.as_deref(),
            arguments.backend_variable.as_deref(),
        )?),
        (None, Some(pattern)) => Form::pattern(pattern)?,
        (None, None) => Form::Pairs,
    })
}

fn servers(arguments: &CheckTakeover, view: Option<&dyn View>) -> Result<Vec<Server>, CliError> {
    let mut servers = Vec::new();
    for address in &arguments.servers {
        if servers.iter().any(|server: &Server| server.key == *address) {
            let why = "it stands there twice";
            return Err(Invalid::new("a list of servers", address, why).into());
        }
        servers.push(Server {
            key: address.clone(),
            weight: Weight::ONE,
            names: vec![address.clone()],
        });
    }
    if let (Some(view), true) = (view, servers.is_empty()) {
        let backends = view.backends()?.into_iter().map(|backend| Server {
            key: backend.key.to_string(),
            weight: backend.weight,
            names: vec![
                backend.key.to_string(),
                backend.address.to_string(),
                backend.name.to_string(),
            ],
        });
        servers.extend(backends);
    }
    if servers.is_empty() {
        return Err(CliError::Other(
            "there is no backend to compare with: name the old configuration's with --servers, or add them to the registry in its order".to_owned(),
        ));
    }
    Ok(servers)
}

/// What is hashed for a host; none if no site has it.
fn key(by: By, host: &[u8], view: Option<&dyn View>) -> Result<Option<Vec<u8>>, CliError> {
    if by == By::Exact {
        return Ok(Some(host.to_vec()));
    }
    let Ok(parsed) = routing::host::parse(host) else {
        // nginx refuses what is no host, or, for an address, has it as it is.
        return Ok((by == By::Host).then(|| host.to_ascii_lowercase()));
    };
    match (parsed, by, view) {
        (routing::Host::Domain(domain), By::Site, Some(view)) => {
            let site = view.site_of(&domain)?;
            Ok(site.map(|site| site.domain.as_bytes().to_vec()))
        }
        (_, By::Site, _) => Ok(None),
        (routing::Host::Domain(domain), ..) => Ok(Some(domain.as_bytes().to_vec())),
        (routing::Host::Ip(address), ..) => Ok(Some(address.to_string().into_bytes())),
    }
}

/// Hands out the lines of a file one after the other, with their numbers; shows on a terminal how far it is.
fn each_line(file: &str, mut see: impl FnMut(u64, &[u8])) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Other(format!("cannot read {file}: {error}"));
    let (input, size): (Box<dyn Read>, Option<u64>) = if file == "-" {
        (Box::new(std::io::stdin().lock()), None)
    } else {
        let opened = File::open(file).map_err(failed)?;
        let size = opened.metadata().map_err(failed)?.len();
        (Box::new(opened), Some(size).filter(|size| *size > 0))
    };
    let mut input = BufReader::with_capacity(1 << 18, input);
    let mut progress = Progress::new(size);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = input
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if read == 0 {
            progress.end();
            return Ok(());
        }
        number += 1;
        progress.step(read as u64, number);
        let is_whole = line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        see(number, text);
        if !is_whole && read as u64 == LONGEST {
            // What is left of it is no line of its own.
            let rest = input.skip_until(b'\n').map_err(failed)?;
            progress.step(rest as u64, number);
        }
    }
}

/// How far the file has been read, on standard error if that is a terminal.
struct Progress {
    size: Option<u64>,
    read: u64,
    shown: Option<Instant>,
}

impl Progress {
    fn new(size: Option<u64>) -> Self {
        let shown = std::io::stderr().is_terminal().then(Instant::now);
        Self {
            size,
            read: 0,
            shown,
        }
    }

    fn step(&mut self, bytes: u64, lines: u64) {
        self.read += bytes;
        // The clock is not asked for every line.
        let Some(shown) = self.shown.filter(|_| lines.is_multiple_of(1024)) else {
            return;
        };
        if shown.elapsed() < OFTEN {
            return;
        }
        self.shown = Some(Instant::now());
        match self.size {
            Some(size) => {
                let percent = self.read.min(size) * 100 / size;
                eprint!("\r{percent:3} %, {lines} lines ");
            }
            None => eprint!("\r{lines} lines "),
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Skipped {
    fn unreadable(&mut self, line: u64) {
        self.unreadable += 1;
        self.first_unreadable.get_or_insert(line);
    }

    fn unknown_backend(&mut self, name: &str) {
        self.unknown_backend += 1;
        self.first_unknown_backend
            .get_or_insert_with(|| name.to_owned());
    }

    fn unknown_host(&mut self, host: &[u8]) {
        self.unknown_host += 1;
        self.first_unknown_host
            .get_or_insert_with(|| String::from_utf8_lossy(host).into_owned());
    }
}

impl From<&Count> for Shown {
    fn from(count: &Count) -> Self {
        Self {
            method: count.method.to_string(),
            hosts_agree: count.hosts,
            lines_agree: count.lines,
            first_differing: count.first.clone(),
        }
    }
}

fn print(report: &Report, arguments: &CheckTakeover, out: &mut dyn Write) -> Result<(), CliError> {
    if arguments.output.json {
        return json(out, report);
    }
    let Report {
        lines,
        hosts,
        skipped,
        ..
    } = report;
    let servers = report.servers.len();
    writeln!(out, "lines: {lines}, hosts: {hosts}, servers: {servers}")?;
    let mut table = Table::new(&["METHOD", "HOSTS THAT AGREE", "LINES THAT AGREE"]);
    for shown in &report.methods {
        table.row([
            shown.method.clone(),
            of(shown.hosts_agree, *hosts as u64),
            of(shown.lines_agree, *lines),
        ]);
    }
    table.print(out)?;
    for shown in &report.methods {
        if shown.first_differing.is_empty() {
            continue;
        }
        writeln!(out, "{} differs first in", shown.method)?;
        let mut table = Table::new(&["LINE", "HOST", "WAS ON", "WOULD BE ON"]);
        for difference in &shown.first_differing {
            let Difference {
                line,
                host,
                was,
                would_be,
            } = difference.clone();
            // A log holds what strangers wrote.
            table.row([
                line.to_string(),
                host.escape_default().to_string(),
                was,
                would_be,
            ]);
        }
        table.print(out)?;
    }
    let mut skipped_lines = |number: u64, why: String| match number {
        0 => Ok(()),
        _ => writeln!(out, "skipped {number} lines: {why}"),
    };
    let first = |one: &Option<String>| one.as_deref().unwrap_or("-").escape_default().to_string();
    let line = skipped.first_unreadable.unwrap_or(0);
    skipped_lines(
        skipped.unreadable,
        format!("not of the form that was given, first line {line}"),
    )?;
    let name = first(&skipped.first_unknown_backend);
    skipped_lines(
        skipped.unknown_backend,
        format!("their backend is none of the servers, first {name}"),
    )?;
    let host = first(&skipped.first_unknown_host);
    Ok(skipped_lines(
        skipped.unknown_host,
        format!("no site has their host, first {host}"),
    )?)
}

fn of(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        // Rounded down: 100 % is said of all of them only.
        _ => format!(
            "{part} ({}.{} %)",
            part * 100 / whole,
            part * 1000 / whole % 10
        ),
    }
}
