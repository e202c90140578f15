//! What the registry says of the backend that this machine is: one that is drained or disabled wakes no sites. Those that are
//! awake go on.

use std::net::SocketAddr;
use std::sync::PoisonError;

use tokio::sync::mpsc;

use crate::follow::Follower;
use crate::initialize::driver::Message;
use crate::initialize::prepare::SharedRegistry;
use crate::model::{Backend, BackendName, State};
use crate::registry::{RegistryError, View};
use crate::settings::Settings;

/// What is asked of this machine as a backend.
#[derive(Debug, Clone)]
pub struct Standing {
    name: Option<BackendName>,
    address: SocketAddr,
    state: State,
}

impl Standing {
    /// As the registry says now.
    pub fn of(settings: &Settings, registry: &SharedRegistry) -> Result<Self, RegistryError> {
        let mut standing = Self {
            name: BackendName::parse(&settings.name).ok(),
            address: settings.backend.listen,
            state: State::Active,
        };
        standing.read(registry)?;
        Ok(standing)
    }

    fn read(&mut self, registry: &SharedRegistry) -> Result<(), RegistryError> {
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own(&*registry.view()?)?;
        // A machine that is not registered gets requests from balancers that know it otherwise.
        self.state = own.map_or(State::Active, |backend| backend.state);
        Ok(())
    }

    /// The backend with this machine's name, or else the one where this machine listens.
    fn own(&self, view: &dyn View) -> Result<Option<Backend>, RegistryError> {
        if let Some(name) = &self.name
            && let Some(own) = view.backend(name)?
        {
            return Ok(Some(own));
        }
        let backends = view.backends()?.into_iter();
        Ok(backends.into_iter().find(|one| one.address == self.address))
    }

    /// Tells the driver.
    pub async fn tell(&self, driver: &mpsc::Sender<Message>) {
        let emptied = self.state != State::Active;
        // Whoever does not listen has ended.
        let _ = driver.send(Message::Emptied(emptied)).await;
    }

    /// Tells the driver of every change, until the daemon ends.
    pub async fn follow(
        mut self,
        registry: SharedRegistry,
        follower: Follower,
        driver: mpsc::Sender<Message>,
    ) {
        let mut revision = follower.revision();
        while revision.changed().await.is_ok() {
            let (registry, before) = (registry.clone(), self.clone());
            let read = move || {
                let mut standing = before;
                standing.read(&registry).map(|()| standing)
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(standing)) => self = standing,
                Ok(Err(problem)) => {
                    tracing::error!(%problem, "cannot look whether this backend is being drained");
                }
                Err(problem) => {
                    tracing::error!(%problem, "cannot look whether this backend is being drained");
                }
            }
            self.tell(&driver).await;
        }
    }
}
