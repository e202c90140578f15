//! What every command about the registry needs: the machine's settings, its registry, and the daemon told of changes.
use super::CliError;
use crate::client::{self, Refreshed};
use crate::registry::{self, Edit, Registry};
use crate::settings::{BackendsFrom, Role, Settings};
use std::path::Path;

/// What a change of the registry is for, on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concerns {
    /// Nothing that nginx reads.
    Registry,
    /// The table.
    Table,
    /// The table, and what is rendered in static mode.
    Backends,
}

/// The machine a command is about.
pub struct Machine {
    /// Its settings.
    pub settings: Settings,
}

impl Machine {
    /// The one whose files lie below `root`.
    pub fn load(root: &Path) -> Result<Self, CliError> {
        Ok(Self {
            settings: Settings::load(root)?,
        })
    }

    /// Its registry.
    pub fn registry(&self) -> Result<Box<dyn Registry>, CliError> {
        Ok(registry::open(&self.settings)?)
    }

    /// Changes the registry in one transaction, and returns when it is in force on this machine (or says why not).
    pub fn edit<T>(
        &self,
        concerns: Concerns,
        change: impl FnOnce(&mut dyn Edit) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let mut registry = self.registry()?;
        let mut edit = registry.edit()?;
        let answer = change(&mut *edit)?;
        edit.commit()?;
        self.announce(concerns);
        Ok(answer)
    }

    fn announce(&self, concerns: Concerns) {
        let balancer = self.settings.has(Role::Balancer);
        let is_static = self.settings.balancer.backends == BackendsFrom::Static;
        // A balancer in static mode needs no daemon.
        let reads_table = self.settings.has(Role::Backend) || (balancer && !is_static);
        match client::refresh(&self.settings) {
            Refreshed::Held => {}
            Refreshed::NoDaemon if reads_table && concerns != Concerns::Registry => {
                note(
                    "it is in the registry; no daemon runs on this machine, so nginx here learns of it when `paasctl serve` is started",
                );
            }
            Refreshed::NoDaemon => {}
            Refreshed::Failed(why) => note(&format!(
                "it is in the registry, but the daemon on this machine did not take it up: {why}"
            )),
        }
        if balancer && is_static && concerns == Concerns::Backends {
            let reload = crate::nginx::command(&self.settings);
            note(&format!(
                "backends are static here: `paasctl render`, then `{reload}`, puts it in force"
            ));
        }
    }
}

/// Something the operator should know that is not the answer.
pub fn note(text: &str) {
    eprintln!("paasctl: note: {text}");
}
