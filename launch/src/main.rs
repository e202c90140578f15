//! `paas-launch`, the Emperor's wrapper: it stands between the Emperor (root) and a site's uWSGI (the site's user).
//!
//! The Emperor runs it, in the directory of the vassal files, with the vassal file's name as last argument. In this order it
//! 1. reads the vassal file, which only root can read, and asks the daemon (`$PAAS_LAUNCH_SOCKET`) about that name;
//! 2. gets the site's listening socket and a few `key=value` lines, or nothing: then the vassal is not wanted, and it ends;
//! 3. opens the site's log and notice pipe, enters what only root can enter (see `confinement`), and puts every descriptor in its
//!    place (see `descriptors`);
//! 4. becomes the site's user for good, and asks again to be killed with the Emperor, which becoming another user undid;
//! 5. becomes uWSGI, through bubblewrap (see `sandbox`), with an environment of its own making.
//!
//! Run as `paas-launch run DESCRIPTOR` by `paasctl`, it runs another program in the same way (see `visit`).
//!
//! It must never pass anything of the Emperor's on (environment, descriptors, groups, directory), and never run a site as root.

mod confinement;
mod descriptors;
mod netlink;
mod network;
mod order;
mod question;
mod sandbox;
mod sys;
mod user;

use std::env;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::exit;

use descriptors::Places;
use order::Order;
use question::Question;
use sandbox::Sandbox;

/// uWSGI's `UWSGI_EXILE_CODE`: the Emperor does not start this vassal again by itself.
const EXILE: i32 = 26;

fn main() {
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
        sys::umask(0o027);
        let places = Places {
            listener,
            log: open_log(&order.log)?,
            pipe,
            config: sys::sealed(config)?,
            notice: open_notice(&order.notice)?,
        };
        // bubblewrap closes its own before uWSGI runs.
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
        let uwsgi = ["uwsgi", "--ini", descriptors::CONFIG_PATH].map(str::to_owned);
        let environment = [
            format!("UWSGI_EMPEROR_FD={}", descriptors::PIPE),
            "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
            format!("HOME={}", order.home),
        ];
        let (program, arguments) = match sandbox.zip(opened.as_ref()) {
            Some((sandbox, opened)) => {
                let mut command = sandbox.command(opened, &order.home, Some(&status), false)?;
                command.arguments.push(order.uwsgi.clone());
                command.arguments.extend(uwsgi.into_iter().skip(1));
                (command.program, command.arguments)
            }
            None => (order.uwsgi.clone(), uwsgi.to_vec()),
        };
        let error = sys::exec(&c(&program)?, &all(&arguments)?, &all(&environment)?);
        Ok(format!("cannot run {program}: {error}"))
    };
    launch().unwrap_or_else(|problem| problem)
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
    CString::new(text).map_err(|_| format!("a zero byte in {text:?}"))
}

fn all(texts: &[impl AsRef<str>]) -> Result<Vec<CString>, String> {
    texts.iter().map(|text| c(text.as_ref())).collect()
}
