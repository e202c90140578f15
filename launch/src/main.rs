//! `paas-launch`, the Emperor's wrapper: it stands between the Emperor (root) and a site's uWSGI (the site's user).
//!
//! The Emperor runs it, in the directory of the vassal files, with the vassal file's name as last argument. In this order it
//! 1. reads the vassal file, which only root can read, and asks the daemon (`$PAAS_LAUNCH_SOCKET`) about that name;
//! 2. gets the site's listening socket and a few `key=value` lines, or nothing: then the vassal is not wanted, and it ends;
//! 3. opens the site's log and notice pipe, enters what only root can enter (see `confinement`), and puts every descriptor in its
//!    place (see `descriptors`);
//! 4. becomes the site's user for good, asks again to be killed with the Emperor, which becoming another user undid, and leaves a
//!    process between the site and the Emperor's pipe (see `relay`);
//! 5. becomes uWSGI, through bubblewrap (see `sandbox`), with an environment of its own making; or runs the site's own server and
//!    stays with it (see `command`).
//!
//! `paasctl` runs it, too, for an operator who wants to look around in a site's sandbox (see `visit`).
//!
//! It must never pass anything of the Emperor's on (environment, descriptors, groups, directory), and never run a site as root.

mod command;
mod configuration;
mod confinement;
mod descriptors;
mod environment;
mod netlink;
mod network;
mod order;
mod question;
mod relay;
mod sandbox;
mod sys;
mod user;
mod visit;

use std::env;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::exit;

use descriptors::Places;
use order::{Order, Program};
use question::Question;
use sandbox::Sandbox;

/// uWSGI's `UWSGI_EXILE_CODE`: the Emperor does not start this vassal again by itself.
const EXILE: i32 = 26;
/// What a site writes is its user's alone, and nginx's to read.
const UMASK: u32 = 0o027;
/// The first argument with which this program runs in a sandbox.
const SERVE: &str = "serve";
/// The first argument with which `paasctl` runs this program for a visitor of a site.
const VISIT: &str = "visit";

fn main() {
    let mut words = env::args().skip(1);
    let problem = match words.next().as_deref() {
        Some(SERVE) => Some(serve(words)),
        Some(VISIT) => Some(visit::visit(words)),
        _ => None,
    };
    if let Some(problem) = problem {
        eprintln!("paas-launch: {problem}");
        exit(1);
    }
    if let Err(problem) = run() {
        eprintln!("paas-launch: {problem}");
        exit(EXILE);
    }
}

/// Comes back only if something is wrong.
fn run() -> Result<(), String> {
    let emperor = sys::parent();
    let name = env::args().next_back().unwrap_or_default();
    if !order::is_vassal_name(&name) {
        return Err(format!(
            "'{name}' is not a vassal file's name; the Emperor runs this program, not a person"
        ));
    }
    let socket = env::var_os("PAAS_LAUNCH_SOCKET")
        .ok_or("PAAS_LAUNCH_SOCKET is not set: see emperor.ini")?;
    let pipe: i32 = env::var("UWSGI_EMPEROR_FD")
        .ok()
        .and_then(|number| number.parse().ok())
        .ok_or("UWSGI_EMPEROR_FD is not set: the Emperor runs this program, not a person")?;
    descriptors::reserve()?;
    let config = read_vassal_file(&name)?;

    let mut question = Question::ask(socket.as_ref(), &name)?;
    let Some((order, listener)) = question.answer()? else {
        return Err(format!(
            "{name}: the daemon does not want this vassal (any more)"
        ));
    };
    let problem = become_site(&order, listener, &config, pipe, emperor);
    let problem = format!("{name}: {problem}");
    question.complain(&problem);
    Err(problem)
}

/// Comes back only with what went wrong.
fn become_site(order: &Order, listener: OwnedFd, config: &[u8], pipe: i32, emperor: i32) -> String {
    let launch = || -> Result<String, String> {
        sys::umask(UMASK);
        let voice = order.voice.as_ref().ok_or("the daemon did not say log")?;
        let places = Places {
            listener,
            log: open_log(&voice.log)?,
            pipe,
            config: sys::sealed(config)?,
            notice: open_notice(&voice.notice)?,
        };
        // bubblewrap closes its own before the site's program runs.
        let status = sys::duplicate_above(places.notice.as_raw_fd(), descriptors::LAST)?;
        user::check(order)?;
        order.confinement.enter()?;
        let sandbox = order.confinement.sandbox.as_ref();
        let opened = sandbox.map(Sandbox::open).transpose()?;
        places.take(order.uid)?;
        env::set_current_dir("/")
            .map_err(|error| format!("cannot leave the vassal directory: {error}"))?;
        user::become_user(order)?;
        sys::die_with(emperor, descriptors::PIPE)?;
        if sandbox.is_some() {
            relay::put_between(descriptors::PIPE)?;
        }
        let environment = environment::of(order, descriptors::PIPE);
        let (program, words) = match (sandbox.zip(opened.as_ref()), &order.program) {
            (Some((sandbox, opened)), program) => {
                let mut command = sandbox.command(opened, &order.home, Some(&status), false)?;
                command.arguments.extend(inside(program, &order.home));
                (command.program, command.arguments)
            }
            (None, Program::Uwsgi(uwsgi)) => (uwsgi.clone(), inside(&order.program, &order.home)),
            (None, Program::Command { arguments, .. }) => {
                let (home, pipe) = (&order.home, descriptors::PIPE);
                return Ok(command::supervise(arguments, home, &environment, pipe));
            }
        };
        let environment: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let error = sys::exec(&c(&program)?, &all(&words)?, &all(&environment)?);
        Ok(format!("cannot run {program}: {error}"))
    };
    launch().unwrap_or_else(|problem| problem)
}

/// The words that run a site's program in its sandbox. What stays with a site's own server is in there with it.
fn inside(program: &Program, home: &str) -> Vec<String> {
    match program {
        Program::Uwsgi(uwsgi) => [uwsgi, "--ini", descriptors::CONFIG_PATH]
            .map(str::to_owned)
            .to_vec(),
        Program::Command { arguments, .. } => [sandbox::LAUNCHER, SERVE, home]
            .map(str::to_owned)
            .into_iter()
            .chain(arguments.iter().cloned())
            .collect(),
    }
}

/// What this program does in a sandbox: it stays with a site's own server.
fn serve(mut words: impl Iterator<Item = String>) -> String {
    let home = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    let environment: Vec<(String, String)> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    command::supervise(&arguments, &home, &environment, descriptors::PIPE)
}

fn read_vassal_file(name: &str) -> Result<Vec<u8>, String> {
    let mut config = Vec::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(name);
    file.and_then(|mut file| file.read_to_end(&mut config))
        .map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok(config)
}

/// The directory is root's: nobody else can have put something at this path.
fn open_log(path: &str) -> Result<OwnedFd, String> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY)
        .open(path);
    file.map(OwnedFd::from)
        .map_err(|error| format!("cannot open the log {path}: {error}"))
}

/// Read and write, so that what uWSGI writes while the daemon restarts waits in the pipe.
fn open_notice(path: &str) -> Result<OwnedFd, String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path);
    file.map(OwnedFd::from)
        .map_err(|error| format!("cannot open the notice pipe {path}: {error}"))
}

fn c(text: &str) -> Result<CString, String> {
    // Not the text: it may be a secret.
    CString::new(text).map_err(|_| "the daemon sent a zero byte".to_owned())
}

fn all(texts: &[impl AsRef<str>]) -> Result<Vec<CString>, String> {
    texts.iter().map(|text| c(text.as_ref())).collect()
}
