//! The processes of a platform: starts them, waits until each is ready, starts again what ends, stops all of it.
use super::UpError;
use super::machine::Machine;
use super::program::Program;
use crate::cgroup::Groups;
use crate::client;
use crate::initialize::confine::{CGROUPS, group_name, interface};
use crate::outbound;
use crate::settings::Role;
use crate::watch::Directory;
use rustix::fs::inotify::WatchFlags;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long a program may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a program may take to end before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// A program that ran for this long did start; its next end is a new story.
const STEADY: Duration = Duration::from_secs(10);
/// After so many ends in a row a daemon does not seem to come back: its visitors are told, instead of waiting.
const HELD_FOR: u32 = 3;

struct Running<'a> {
    machine: &'a Machine,
    program: Program,
    child: Child,
    /// The daemon's control socket: who connects while it is restarted waits for the next one.
    door: Option<UnixListener>,
    since: Instant,
    failures: u32,
}

impl Running<'_> {
    /// The process group that it leads, while it runs.
    fn group(&self) -> Option<Pid> {
        let id = self.child.id()?;
        i32::try_from(id).ok().and_then(Pid::from_raw)
    }
}

/// Starts everything, calls `ready`, and goes on until SIGINT or SIGTERM.
pub async fn run(machines: &[Machine], ready: impl FnOnce()) -> Result<(), UpError> {
    let system = |what| move |source| UpError::System { what, source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM"))?;
    let mut running = Vec::new();
    let outcome = {
        let told = async {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        };
        tokio::pin!(told);
        tokio::select! {
            () = &mut told => Ok(()),
            outcome = start_and_watch(machines, &mut running, ready) => outcome,
        }
    };
    stop(running).await;
    for machine in machines {
        let name = group_name(machine.settings.paths());
        if let Ok(groups) = Groups::find(Path::new(CGROUPS), &name) {
            // Without root there are none, and an empty directory does no harm.
            let _ = groups.remove();
        }
        outbound::remove(&interface(machine.settings.paths()));
    }
    outcome
}

async fn start_and_watch<'a>(
    machines: &'a [Machine],
    running: &mut Vec<Running<'a>>,
    ready: impl FnOnce(),
) -> Result<(), UpError> {
    // The backends first, so that the balancer finds them; on each machine the Emperor before the daemon that talks to it.
    let order = machines.iter().skip(1).chain(machines.first());
    for machine in order {
        let mut programs = vec![Program::Daemon, Program::Nginx];
        if machine.settings.has(Role::Backend) {
            programs.insert(0, Program::Emperor);
        }
        for program in programs {
            let door = program.door(machine)?;
            let child = start(machine, program, door.as_ref())?;
            running.push(Running {
                machine,
                program,
                child,
                door,
                since: Instant::now(),
                failures: 0,
            });
            if let Some(last) = running.last_mut() {
                until_ready(last).await?;
            }
        }
    }
    ready();
    watch(running).await
}

fn start(
    machine: &Machine,
    program: Program,
    door: Option<&UnixListener>,
) -> Result<Child, UpError> {
    let not_ready = |why: String| UpError::NotReady {
        machine: machine.name.clone(),
        program: program.name(),
        why,
        log: program.log(machine),
    };
    if let Some(file) = program.ready(machine) {
        let _ = fs::remove_file(file);
    }
    if program == Program::Emperor {
        // Nothing runs, so nothing may be described: whatever is visited wakes again.
        clear(&machine.settings.paths().vassals()).map_err(|source| UpError::Write {
            path: machine.settings.paths().vassals(),
            source,
        })?;
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(program.log(machine));
    let log = log.map_err(|source| UpError::Write {
        path: program.log(machine),
        source,
    })?;
    let errors = log.try_clone().map_err(|source| UpError::Write {
        path: program.log(machine),
        source,
    })?;
    let mut command = program.command(machine)?;
    let door = door.map(UnixListener::try_clone).transpose();
    let stdin = door
        .map_err(|error| not_ready(error.to_string()))?
        .map_or_else(Stdio::null, |door| OwnedFd::from(door).into());
    command.stdin(stdin).stdout(log).stderr(errors);
    // A process group of its own: Ctrl-C at the terminal is for `up`, which stops the others in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Command::from(command)
        .spawn()
        .map_err(|error| not_ready(error.to_string()))
}

fn clear(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )?;
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Waits until the program's file appears, or until it answers; nothing is polled.
async fn until_ready(running: &mut Running<'_>) -> Result<(), UpError> {
    let file = running.program.ready(running.machine);
    let socket = running.machine.settings.paths().control_socket();
    let ready = async {
        match &file {
            Some(file) => appears(file).await.map_err(|error| error.to_string()),
            None => client::until_it_answers(&socket)
                .await
                .map_err(|error| error.to_string()),
        }
    };
    let outcome = tokio::time::timeout(READY_WITHIN, async {
        tokio::select! {
            ready = ready => ready,
            status = running.child.wait() => Err(ended(status)),
        }
    })
    .await
    .unwrap_or_else(|_| Err(format!("not ready within {} s", READY_WITHIN.as_secs())));
    outcome.map_err(|why| UpError::NotReady {
        machine: running.machine.name.clone(),
        program: running.program.name(),
        why,
        log: running.program.log(running.machine),
    })
}

async fn appears(file: &Path) -> std::io::Result<()> {
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    let directory = Directory::watch(directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    while !file.exists() {
        directory.changed().await?;
    }
    Ok(())
}

/// Starts again what ends, later and later if it does not hold.
async fn watch(running: &mut [Running<'_>]) -> Result<(), UpError> {
    loop {
        let groups: Vec<_> = running.iter().map(Running::group).collect();
        let (index, status) = first_end(running).await;
        let Some(ended_one) = running.get_mut(index) else {
            continue;
        };
        let machine = ended_one.machine;
        ended_one.failures = if ended_one.since.elapsed() > STEADY {
            0
        } else {
            ended_one.failures + 1
        };
        let pause = Duration::from_millis(100) * 2_u32.pow(ended_one.failures.min(6));
        eprintln!(
            "paasctl: {}: {} ended ({}); starting it again in {:.1} s; see {}",
            machine.name,
            ended_one.program.name(),
            ended(status),
            pause.as_secs_f64(),
            ended_one.program.log(machine).display()
        );
        if ended_one.failures >= HELD_FOR {
            ended_one.door = None;
        }
        // What it leaves behind would hold its sockets: nginx's workers go on without their master.
        if let Some(group) = groups.get(index).copied().flatten() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        tokio::time::sleep(pause).await;
        if ended_one.door.is_none() {
            ended_one.door = ended_one.program.door(machine)?;
        }
        ended_one.child = start(machine, ended_one.program, ended_one.door.as_ref())?;
        ended_one.since = Instant::now();
    }
}

async fn first_end(running: &mut [Running<'_>]) -> (usize, std::io::Result<ExitStatus>) {
    let mut waits: Vec<_> = running
        .iter_mut()
        .map(|one| Box::pin(one.child.wait()))
        .collect();
    std::future::poll_fn(|context| {
        for (index, wait) in waits.iter_mut().enumerate() {
            if let std::task::Poll::Ready(status) = wait.as_mut().poll(context) {
                return std::task::Poll::Ready((index, status));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// The balancer's nginx first, so that nothing new comes in; then each backend from its nginx to its Emperor.
async fn stop(mut running: Vec<Running<'_>>) {
    for program in [Program::Nginx, Program::Emperor, Program::Daemon] {
        // The balancer was started last.
        for one in running
            .iter_mut()
            .rev()
            .filter(|one| one.program == program)
        {
            ask(one, program.stop());
        }
        for one in running.iter_mut().filter(|one| one.program == program) {
            if tokio::time::timeout(STOP_WITHIN, one.child.wait())
                .await
                .is_err()
            {
                eprintln!(
                    "paasctl: {}: {} does not end; it is killed",
                    one.machine.name,
                    program.name()
                );
                // A master's workers would outlive it.
                ask(
                    one,
                    if program == Program::Nginx {
                        Signal::TERM
                    } else {
                        Signal::KILL
                    },
                );
                if tokio::time::timeout(STOP_WITHIN, one.child.wait())
                    .await
                    .is_err()
                {
                    let _ = one.child.kill().await;
                }
            }
        }
    }
}

fn ask(running: &Running<'_>, signal: Signal) {
    // The leader's own number is that of its group.
    if let Some(pid) = running.group() {
        let _ = kill_process(pid, signal);
    }
}
