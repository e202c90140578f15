//! The registry's part about what users and sites may have of a machine, and have used.
use super::Result;
use crate::model::{Limits, SiteId, Uid, User, UserName};
use std::time::Duration;

/// CPU time to be added to what a user has used.
#[derive(Debug, Clone, Copy)]
pub struct CpuUsed<'a> {
    /// Whose.
    pub uid: Uid,
    /// On which machine.
    pub backend: &'a str,
    /// On which day: of UTC, counted from 1970.
    pub day: u64,
    /// How much more.
    pub more: Duration,
    /// What the kernel's counter shows now.
    pub counter: Duration,
}

/// Reading.
pub trait LimitsView {
    /// What is said of a user.
    fn user_limits(&self, user: &UserName) -> Result<Limits>;
    /// What is said of a site.
    fn site_limits(&self, site: SiteId) -> Result<Limits>;
    /// Whose uid that is.
    fn user_by_uid(&self, uid: Uid) -> Result<Option<User>>;
    /// The CPU time that a user has used on a day, on all machines.
    fn cpu_used(&self, uid: Uid, day: u64) -> Result<Duration>;
    /// What the kernel's counter showed when CPU time was added last for a user on this machine.
    fn cpu_counter(&self, uid: Uid, backend: &str) -> Result<Duration>;
}

/// Writing.
pub trait LimitsEdit {
    /// Replaces what is said of a user, who is there.
    fn set_user_limits(&mut self, user: &UserName, limits: &Limits) -> Result<()>;
    /// Replaces what is said of a site, which is there.
    fn set_site_limits(&mut self, site: SiteId, limits: &Limits) -> Result<()>;
    /// Adds used CPU time, and forgets that of long ago.
    fn add_cpu(&mut self, used: &CpuUsed<'_>) -> Result<()>;
}
