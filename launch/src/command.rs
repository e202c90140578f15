//! A site that brings its own server: this program stays between it and the Emperor, as the site's user, and speaks the
//! Emperor's protocol in uWSGI's place. The server finds the listening socket at descriptor 0, the log at 1 and 2, and no other.
//!
//! On the Emperor's pipe one byte is one word. From here: 1 the processes are there, 5 they accept, 17 they are to be kept; from
//! the Emperor: 0 or 2 end, 1 begin anew (the next generation does), and its end means the same.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, exit};
use std::time::{Duration, Instant};

use crate::sys::{self, Wake};

/// How long the server may take to end; as long as uWSGI may.
const MERCY: Duration = Duration::from_secs(30);
/// uWSGI's codes mean something to the Emperor; a server's own do not.
const FAILED: i32 = 1;

/// Runs the server until it ends or the Emperor says so; comes back only if it cannot be run.
pub fn supervise(
    arguments: &[String],
    home: &str,
    environment: &[(String, String)],
    pipe: i32,
) -> String {
    let Some((program, rest)) = arguments.split_first() else {
        return "there is no command".to_owned();
    };
    match spawn(program, rest, home, environment) {
        Ok((child, end)) => serve(child, &end, pipe),
        Err(problem) => format!("cannot run {program}: {problem}"),
    }
}

fn spawn(
    program: &str,
    arguments: &[String],
    home: &str,
    environment: &[(String, String)],
) -> Result<(Child, OwnedFd), String> {
    sys::close_on_exec_above(2)?;
    if !Path::new(home).is_dir() {
        return Err(format!("its directory {home} is not there"));
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(home)
        .process_group(0);
    let child = sys::spawn_dying_with_us(&mut command).map_err(|error| error.to_string())?;
    let end = sys::process_handle(child.id())?;
    Ok((child, end))
}

/// Never comes back.
fn serve(mut child: Child, end: &OwnedFd, pipe: i32) -> String {
    // The Emperor may have gone; the next look at the pipe tells.
    let _ = sys::write_bytes(pipe, &[1, 5, 17]);
    loop {
        match sys::wait_for(pipe, end, None) {
            Ok(Wake::Ended) => leave(&mut child, None),
            Ok(Wake::Told(Some(0..=2)) | Wake::Told(None)) => stop(&mut child, end, pipe),
            Ok(Wake::Told(Some(_)) | Wake::Late) => {}
            Err(problem) => {
                eprintln!("paas-launch: {problem}");
                stop(&mut child, end, pipe);
            }
        }
    }
}

/// Asks the server to end, and ends it if it does not.
fn stop(child: &mut Child, end: &OwnedFd, pipe: i32) -> ! {
    sys::terminate(child.id());
    let deadline = Instant::now() + MERCY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // What the Emperor says from now on, and its end, change nothing.
        match sys::wait_for(-1, end, Some(left)) {
            Ok(Wake::Ended) => leave(child, Some(pipe)),
            Ok(Wake::Told(_)) => {}
            Ok(Wake::Late) | Err(_) => {
                eprintln!("paas-launch: the command did not end within 30 s; it is killed");
                leave(child, Some(pipe));
            }
        }
    }
}

/// Ends with the server and everything it has started in its process group.
fn leave(child: &mut Child, told: Option<i32>) -> ! {
    sys::kill_group(child.id());
    match child.wait() {
        Ok(_) if told.is_some() => exit(0),
        Ok(status) => {
            eprintln!("paas-launch: the command ended by itself: {}", said(status));
            exit(if status.success() { 0 } else { FAILED });
        }
        Err(error) => {
            eprintln!("paas-launch: cannot tell how the command ended: {error}");
            exit(FAILED);
        }
    }
}

fn said(status: ExitStatus) -> String {
    // "exit status: 3", "signal: 9 (SIGKILL)"
    status.to_string()
}
