//! What the registry says of the backend that this machine is: one that is drained or disabled wakes no sites. Those that are
//! awake go on.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::change::unix_millis;
use crate::follow::Follower;
use crate::initialize::driver::{Message, sites_now};
use crate::initialize::prepare::{SharedRegistry, with_registry};
use crate::initialize::words::Order;
use crate::model::{Backend, BackendName, State};
use crate::registry::{Registry, RegistryError, View};
use crate::settings::Settings;

/// What is asked of this machine as a backend.
#[derive(Debug, Clone)]
pub struct Standing {
    name: Option<BackendName>,
    address: SocketAddr,
    state: State,
    /// When what is still awake is put to sleep, in milliseconds since 1970.
    deadline: Option<u64>,
}

impl Standing {
    /// As the registry says now.
    pub fn of(settings: &Settings, registry: &SharedRegistry) -> Result<Self, RegistryError> {
        let mut standing = Self {
            name: BackendName::parse(&settings.name).ok(),
            address: settings.backend.listen,
            state: State::Active,
            deadline: None,
        };
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        standing.read(&mut **registry)?;
        Ok(standing)
    }

    fn read(&mut self, registry: &mut dyn Registry) -> Result<(), RegistryError> {
        let view = registry.view()?;
        let own = self.own(&*view)?;
        let draining = own.as_ref().filter(|own| own.state == State::Draining);
        self.deadline = match draining {
            Some(own) => view.drain_deadline(own.id)?,
            None => None,
        };
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
        // The deadline that has been kept.
        let mut kept = None;
        loop {
            let due = self.deadline.filter(|_| self.deadline != kept);
            tokio::select! {
                changed = revision.changed() => if changed.is_err() { return },
                () = until(due) => {
                    kept = self.deadline;
                    put_to_sleep(&driver).await;
                    continue;
                }
            }
            let mut standing = self.clone();
            let read = with_registry(&registry, move |registry| {
                standing.read(registry).map(|()| standing)
            });
            match read.await {
                Ok(standing) => self = standing,
                Err(problem) => {
                    tracing::error!(%problem, "cannot look whether this backend is being drained");
                }
            }
            self.tell(&driver).await;
        }
    }
}

/// Waits for a time, in milliseconds since 1970; for ever, if there is none. The clock may be set meanwhile.
async fn until(at: Option<u64>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    loop {
        let left = at.saturating_sub(unix_millis());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left.min(60_000))).await;
    }
}

/// Lets every site that is awake finish what it does, and sleep.
async fn put_to_sleep(driver: &mpsc::Sender<Message>) {
    let awake = sites_now(driver).await.unwrap_or_default();
    tracing::info!(
        sites = awake.len(),
        "this backend was to be empty by now: what is awake is put to sleep"
    );
    for now in awake {
        let (answer, _) = oneshot::channel();
        // Whoever does not listen has ended.
        let _ = driver
            .send(Message::Ordered(now.site, Order::Stop, answer))
            .await;
    }
}
