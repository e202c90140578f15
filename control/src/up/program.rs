//! The programs of a machine: how each is started and stopped, how it shows that it is ready, and what is held for it.
use super::UpError;
use super::machine::Machine;
use crate::daemon::CONTROL_MODE;
use crate::initialize::prepare::group_of;
use crate::listening;
use rustix::process::{Signal, geteuid};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// What `up` starts on a machine, in the order of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Emperor,
    Daemon,
    Nginx,
}

impl Program {
    /// For messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Emperor => "the Emperor",
            Self::Daemon => "the daemon",
            Self::Nginx => "nginx",
        }
    }

    /// The signal that asks it to finish its work and end.
    pub(super) fn stop(self) -> Signal {
        match self {
            Self::Emperor => Signal::INT,
            Self::Daemon => Signal::TERM,
            Self::Nginx => Signal::QUIT,
        }
    }

    /// How it is started.
    pub(super) fn command(self, machine: &Machine) -> Result<std::process::Command, UpError> {
        let settings = &machine.settings;
        let current = settings.paths().current();
        let mut command = std::process::Command::new("setpriv");
        // If `up` itself is killed, nothing of it stays.
        command.args([
            "--pdeathsig",
            if self == Self::Emperor {
                "KILL"
            } else {
                "TERM"
            },
        ]);
        if geteuid().is_root() {
            // Whatever it becomes and starts: what is not among these it can never have again.
            let few = format!("--bounding-set=-all,+{}", self.privileges().join(",+"));
            command.arg(few);
        }
        command.arg("--");
        match self {
            Self::Emperor => command
                .arg(settings.backend.uwsgi.as_path())
                .arg("--ini")
                .arg(current.join("emperor.ini")),
            Self::Daemon => {
                let program = std::env::current_exe().map_err(|source| UpError::System {
                    what: "the path of this program",
                    source,
                })?;
                command
                    .arg(program)
                    .arg("--root")
                    .arg(&machine.root)
                    .arg("serve")
            }
            Self::Nginx => command
                .arg(settings.nginx.binary.as_path())
                .arg("-c")
                .arg(current.join("nginx.conf"))
                .args(["-g", "daemon off;"]),
        };
        Ok(command)
    }

    /// The capabilities that it needs as root; see SECURITY.md.
    fn privileges(self) -> &'static [&'static str] {
        match self {
            // paas-launch, which it starts, becomes others, enters networks and control groups, and opens others' logs.
            Self::Emperor => &[
                "setuid",
                "setgid",
                "kill",
                "chown",
                "dac_override",
                "sys_admin",
                "net_admin",
                "sys_resource",
            ],
            // It makes what belongs to others, finds the sockets that running sites have, tries a sandbox as nobody, and loads the
            // packet filter's rules.
            Self::Daemon => &[
                "setuid",
                "setgid",
                "kill",
                "chown",
                "fowner",
                "dac_override",
                "sys_ptrace",
                "net_admin",
                "sys_resource",
            ],
            // Its workers, which serve, are another user's and have none of them.
            Self::Nginx => &[
                "setuid",
                "setgid",
                "kill",
                "chown",
                "dac_override",
                "net_bind_service",
                "sys_resource",
            ],
        }
    }

    /// The file that appears when it is ready; the daemon answers on its socket instead.
    pub(super) fn ready(self, machine: &Machine) -> Option<PathBuf> {
        let paths = machine.settings.paths();
        match self {
            Self::Emperor => Some(paths.emperor_stats()),
            Self::Daemon => None,
            Self::Nginx => Some(paths.nginx_pid()),
        }
    }

    /// Where its output goes.
    pub(super) fn log(self, machine: &Machine) -> PathBuf {
        machine.settings.paths().logs().join(match self {
            Self::Emperor => "emperor.log",
            Self::Daemon => "paasctl.log",
            Self::Nginx => "nginx.log",
        })
    }

    /// Opens the socket that is held for it while it is restarted.
    pub(super) fn door(self, machine: &Machine) -> Result<Option<UnixListener>, UpError> {
        if self != Self::Daemon {
            return Ok(None);
        }
        let path = machine.settings.paths().control_socket();
        let open = || {
            let group = match geteuid().is_root() {
                true => Some(group_of(&machine.settings.nginx.user)?),
                false => None,
            };
            listening::bind(&path, CONTROL_MODE, group)
        };
        open().map(Some).map_err(|source| UpError::Write {
            path: path.clone(),
            source,
        })
    }
}
