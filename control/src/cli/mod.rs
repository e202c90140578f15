//! The command line: one file for each noun. What a command prints on standard output is its answer; what it has to say
//! about it goes to standard error.
mod add_site;
mod application;
mod backend;
mod backend_list;
mod backend_plan;
mod doctor;
mod domain;
mod env;
mod life;
mod limits;
mod logs;
mod machine;
mod moves;
mod option;
mod output;
mod placement;
pub mod render;
mod route;
pub mod serve;
mod site;
mod takeover;
mod tuning;
pub mod up;
mod user;
mod visit;
mod why;

pub use machine::Machine;

use crate::generations::GenerationError;
use crate::model::{Invalid, State};
use crate::registry::RegistryError;
use crate::render::RenderError;
use crate::settings::{Settings, SettingsError};
use clap::{Parser, Subcommand};
use life::Kind;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use table::TableError;

/// A platform for very many Python sites: nginx in front, the uWSGI Emperor behind, one registry.
#[derive(Debug, Parser)]
#[command(name = "paasctl", version)]
pub struct Cli {
    /// The directory that everything lies below.
    #[arg(
        long,
        global = true,
        env = "PAAS_ROOT",
        default_value = "/",
        value_name = "DIR"
    )]
    pub root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an account that can own sites.
    AddUser(user::Add),
    /// List users.
    ListUsers(Format),
    /// Show a user and the user's sites.
    ShowUser(user::Show),
    /// Rename a user, or limit what the user's processes may have.
    SetUser(user::Set),
    /// Remove a user; the uid is never used again.
    RemoveUser(user::Remove),
    /// Add a machine that runs sites.
    AddBackend(backend::Add),
    /// List backends.
    ListBackends(Format),
    /// Say which sites would move if a backend were added or removed, and whether the others can carry them.
    PlanBackend(Box<backend_plan::Plan>),
    /// Show a backend.
    ShowBackend(backend::Show),
    /// Change a backend: address, weight, state ...
    SetBackend(backend::Set),
    /// Remove a backend; its sites go elsewhere.
    RemoveBackend(backend::Remove),
    /// Put a backend into service.
    EnableBackend(backend::Named),
    /// Empty a backend: it wakes no more sites, and serves those that are awake until they are idle.
    DrainBackend(backend::Drain),
    /// Take a backend out of service; its sites go elsewhere, and back when it is enabled.
    DisableBackend(backend::Named),
    /// Add a site, or many.
    AddSite(Box<add_site::Add>),
    /// List sites.
    ListSites(site::List),
    /// Show a site.
    ShowSite(site::Show),
    /// Change a site: its owner, directory, entry point, limits ...
    SetSite(Box<site::Set>),
    /// Let one backend serve a site, whatever placement says.
    PinSite(site::Pin),
    /// Let placement choose a site's backend again.
    UnpinSite(site::Unpin),
    /// Wake a site, and forget its earlier failures.
    StartSite(life::Order),
    /// Let a site finish what it does, and sleep; its next visit wakes it.
    StopSite(life::Order),
    /// Run the code that is there now, without a gap; if it fails, what ran before goes on.
    ReloadSite(life::Order),
    /// Take a site off: visitors get the maintenance page.
    DisableSite(life::Order),
    /// Serve a disabled site again.
    EnableSite(life::Enable),
    /// Say why a site, or a request with this id, is not served, and what to do.
    Why(why::Why),
    /// Remove a site and all its domains; its files stay.
    RemoveSite(site::Remove),
    /// Set variables of the environment of a site's processes.
    SetEnv(env::Set),
    /// Take variables away.
    UnsetEnv(env::Unset),
    /// List the variables of a site; secrets by their names only.
    ListEnv(env::List),
    /// Set options of uWSGI for a site, of those that are allowed.
    SetOption(option::Set),
    /// Take options back.
    UnsetOption(option::Unset),
    /// List the options of uWSGI that a site may set.
    ListOptions(Format),
    /// Show what a site's logs say.
    Logs(logs::Logs),
    /// Look at all that this machine needs, and say what is wrong and what to do. Fails if something does not work.
    Doctor(Format),
    /// Open a shell in a site's sandbox, as its user.
    Shell(visit::Shell),
    /// Run a command in a site's sandbox, as its user.
    Exec(visit::Exec),
    /// Let a further domain lead to a site.
    AddDomain(domain::Add),
    /// List domains and the sites they lead to.
    ListDomains(domain::List),
    /// Show where a domain leads.
    ShowDomain(domain::Show),
    /// Let a further domain lead to another site.
    SetDomain(domain::Set),
    /// Remove a further domain.
    RemoveDomain(domain::Remove),
    /// Show how sites are spread over backends.
    ShowPlacement(Format),
    /// Change how sites are spread over backends.
    SetPlacement(placement::Set),
    /// Show whether a placement method agrees with a deployment that another balancer placed.
    CheckTakeover(Box<takeover::CheckTakeover>),
    /// Show where requests for a host go, by the table that nginx reads.
    Route(route::Route),
    /// Write nginx's configuration, if nginx accepts it.
    Render(render::Render),
    /// Run the daemon: keep the table up to date, wake sites.
    Serve(serve::Serve),
    /// Run a whole platform on this machine in the foreground; or one machine, if the root is that of one.
    Up(up::Up),
}

/// Any error a command can end in.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Rendering.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Writing what was rendered.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A site's entry point.
    #[error(transparent)]
    Guess(#[from] crate::guess::GuessError),
    /// A site's virtualenv.
    #[error(transparent)]
    Venv(#[from] crate::guess::VenvError),
    /// Something typed at the command line.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Standard input or output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Anything that says itself what happened, to what, and what to do.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// There is no such thing.
    fn missing(what: &'static str, name: impl ToString) -> Self {
        Self::Registry(RegistryError::Missing {
            what,
            name: name.to_string(),
        })
    }
}

/// Runs a command to its exit code, printing on standard output and standard error.
pub fn run(cli: Cli) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let done =
        dispatch(cli, &mut out).and_then(|code| out.flush().map(|()| code).map_err(CliError::Io));
    match done {
        Ok(code) => code,
        // Whoever read the answer (`| head`) has seen enough.
        Err(CliError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // What was answered before it comes first.
            let _ = out.flush();
            eprintln!("paasctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, CliError> {
    let root = &cli.root;
    match cli.command {
        // `up` composes machines, each with its own settings below the root.
        Command::Up(up) => up::run(root, up),
        Command::Serve(serve) => serve::run(Settings::load(root)?, serve),
        Command::Render(arguments) => render::run(&Machine::load(root)?, arguments, out),
        Command::Route(arguments) => route::run(&Machine::load(root)?, arguments, out),
        Command::StartSite(order) => life::order(&Machine::load(root)?, Kind::Start, &order, out),
        Command::StopSite(order) => life::order(&Machine::load(root)?, Kind::Stop, &order, out),
        Command::ReloadSite(order) => life::order(&Machine::load(root)?, Kind::Reload, &order, out),
        Command::DisableSite(order) => life::disable(&Machine::load(root)?, &order, out),
        Command::EnableSite(order) => life::enable(&Machine::load(root)?, &order, out),
        Command::Doctor(format) => doctor::run(&Machine::load(root)?, format, out),
        Command::Shell(arguments) => visit::shell(&Machine::load(root)?, &arguments),
        Command::Exec(arguments) => visit::exec(&Machine::load(root)?, &arguments),
        Command::CheckTakeover(arguments) => takeover::run(&Machine::load(root)?, *arguments, out),
        command => registry(&Machine::load(root)?, command, out).map(|()| ExitCode::SUCCESS),
    }
}

/// The commands that read or change the registry.
fn registry(machine: &Machine, command: Command, out: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Command::AddUser(arguments) => user::add(machine, arguments, out),
        Command::ListUsers(format) => user::list(machine, format, out),
        Command::ShowUser(arguments) => user::show(machine, arguments, out),
        Command::SetUser(arguments) => user::set(machine, arguments, out),
        Command::RemoveUser(arguments) => user::remove(machine, arguments, out),
        Command::AddBackend(arguments) => backend::add(machine, arguments, out),
        Command::ListBackends(format) => backend_list::list(machine, format, out),
        Command::PlanBackend(arguments) => backend_plan::run(machine, *arguments, out),
        Command::ShowBackend(arguments) => backend::show(machine, arguments, out),
        Command::SetBackend(arguments) => backend::set(machine, arguments, out),
        Command::RemoveBackend(arguments) => backend::remove(machine, arguments, out),
        Command::EnableBackend(arguments) => {
            backend::set_state(machine, arguments, State::Active, out)
        }
        Command::DrainBackend(arguments) => backend::drain(machine, arguments, out),
        Command::DisableBackend(arguments) => {
            backend::set_state(machine, arguments, State::Disabled, out)
        }
        Command::AddSite(arguments) => add_site::add(machine, *arguments, out),
        Command::ListSites(arguments) => site::list(machine, arguments, out),
        Command::ShowSite(arguments) => site::show(machine, arguments, out),
        Command::SetSite(arguments) => site::set(machine, *arguments, out),
        Command::PinSite(arguments) => site::pin_to(machine, arguments, out),
        Command::UnpinSite(arguments) => site::unpin(machine, arguments, out),
        Command::RemoveSite(arguments) => site::remove(machine, arguments, out),
        Command::SetEnv(arguments) => env::set(machine, arguments, out),
        Command::UnsetEnv(arguments) => env::unset(machine, arguments, out),
        Command::ListEnv(arguments) => env::list(machine, arguments, out),
        Command::SetOption(arguments) => option::set(machine, arguments, out),
        Command::UnsetOption(arguments) => option::unset(machine, arguments, out),
        Command::ListOptions(format) => option::list(format, out),
        Command::Logs(arguments) => logs::run(machine, arguments, out),
        Command::AddDomain(arguments) => domain::add(machine, arguments, out),
        Command::ListDomains(arguments) => domain::list(machine, arguments, out),
        Command::ShowDomain(arguments) => domain::show(machine, arguments, out),
        Command::SetDomain(arguments) => domain::set(machine, arguments, out),
        Command::RemoveDomain(arguments) => domain::remove(machine, arguments, out),
        Command::ShowPlacement(format) => placement::show(machine, format, out),
        Command::SetPlacement(arguments) => placement::set(machine, arguments, out),
        Command::Why(arguments) => why::why(machine, &arguments, out),
        Command::StartSite(_)
        | Command::StopSite(_)
        | Command::ReloadSite(_)
        | Command::DisableSite(_)
        | Command::EnableSite(_)
        | Command::CheckTakeover(_)
        | Command::Doctor(_)
        | Command::Shell(_)
        | Command::Exec(_)
        | Command::Route(_)
        | Command::Render(_)
        | Command::Serve(_)
        | Command::Up(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn every_command_is_in_the_document() {
        let document = include_str!("../../../docs/commands.md");
        let words = |text: &str| -> Vec<String> {
            let word = |c: char| !c.is_ascii_lowercase() && c != '-';
            text.split(word).map(str::to_owned).collect()
        };
        let said = words(document);
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(said.iter().any(|word| word == name), "{name}");
        }
    }
}
