//! An operator's own program in a sandbox like the site's, with the site's user, environment and limits: `paas-launch visit
//! NUMBER [terminal]`, where NUMBER is an open file with the order. The operator's terminal or pipes are descriptors 0 to 2.

use std::env;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::order::{Order, Program};
use crate::sandbox::Sandbox;
use crate::{UMASK, all, c, environment, sys, user};

/// The pipe of an Emperor that is not there.
const NONE: i32 = -1;
/// That the program gets descriptor 0 as its terminal.
const TERMINAL: &str = "terminal";

/// Comes back only with what went wrong.
pub fn visit(mut words: impl Iterator<Item = String>) -> String {
    let number = words.next().and_then(|word| word.parse().ok());
    let terminal = words.next().as_deref() == Some(TERMINAL);
    let Some(number) = number else {
        return "visit is for `paasctl shell` and `paasctl exec`, not for a person".to_owned();
    };
    run(number, terminal).unwrap_or_else(|problem| problem)
}

fn run(number: i32, terminal: bool) -> Result<String, String> {
    sys::umask(UMASK);
    let order = read_order(number)?;
    let Program::Command { arguments, .. } = &order.program else {
        return Err("a visit needs a command".to_owned());
    };
    user::check(&order)?;
    order.confinement.enter()?;
    let sandbox = order.confinement.sandbox.as_ref();
    let opened = sandbox.map(Sandbox::open).transpose()?;
    sys::close_on_exec_above(2)?;
    env::set_current_dir("/").map_err(|error| format!("cannot go to /: {error}"))?;
    if terminal {
        sys::take_terminal()?;
    }
    user::become_user(&order)?;
    let variables = environment::of(&order, NONE);
    let Some((sandbox, opened)) = sandbox.zip(opened.as_ref()) else {
        return outside(arguments, &order.home, variables);
    };
    let mut command = sandbox.command(opened, &order.home, None, terminal)?;
    command.arguments.extend(arguments.iter().cloned());
    let variables: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let error = sys::exec(
        &c(&command.program)?,
        &all(&command.arguments)?,
        &all(&variables)?,
    );
    Err(format!("cannot run {}: {error}", command.program))
}

/// Where there is no sandbox.
fn outside(
    arguments: &[String],
    home: &str,
    variables: Vec<(String, String)>,
) -> Result<String, String> {
    let Some((program, rest)) = arguments.split_first() else {
        return Err("there is no command".to_owned());
    };
    if !Path::new(home).is_dir() {
        return Err(format!("the site's directory {home} is not there"));
    }
    let error = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(variables)
        .current_dir(home)
        .exec();
    Err(format!("cannot run {program}: {error}"))
}

fn read_order(number: i32) -> Result<Order, String> {
    let mut file = File::from(open(number)?);
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(|error| format!("cannot read the order: {error}"))?;
    Order::parse(&text)
}

/// Opened anew: its descriptor closes with all others.
fn open(number: i32) -> Result<OwnedFd, String> {
    let path = format!("/proc/self/fd/{number}");
    File::open(&path)
        .map(OwnedFd::from)
        .map_err(|error| format!("cannot open the order: {error}"))
}
