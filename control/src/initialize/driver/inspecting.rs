//! Whether a site that failed is worth another try before its time: somebody looks at what its last start went by. At most one
//! at a time for each site, and in a task of its own: its storage may not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::premises::Premises;
use super::super::prepare::{is_different, premises};
use super::super::words::{Event, Visitor};
use super::{Driver, Life, Message, report};
use crate::model::SiteId;

/// A visitor waits no longer than this for the look; the page is due.
const PATIENCE: Duration = Duration::from_millis(500);

impl Driver {
    /// Finds out whether anything has changed, unless somebody is about it already.
    pub(super) fn inspect(&mut self, site: SiteId, visitor: Visitor) -> Option<Event> {
        let unchanged = Some(Event::Inspected(visitor, false));
        let entry = self.entry(site);
        let Some(premises) = entry.premises.clone() else {
            return unchanged;
        };
        if Arc::strong_count(&entry.inspection) > 1 {
            return unchanged;
        }
        let inspection = entry.inspection.clone();
        let (place, registry, reports) = (
            self.place.clone(),
            self.registry.clone(),
            self.reports.clone(),
        );
        tokio::spawn(async move {
            let look = spawn_blocking(move || {
                let changed = is_different(&place, &registry, site, &premises);
                drop(inspection);
                changed
            });
            // A look that takes longer goes on, and keeps others from beginning.
            let changed = matches!(timeout(PATIENCE, look).await, Ok(Ok(true)));
            report(&reports, Message::Inspected(site, visitor, changed)).await;
        });
        None
    }

    /// Looks at what a start went by that has just failed.
    pub(super) fn recall_premises(&mut self, site: SiteId, life: &mut Life) {
        let before = life.prepared.take().map(|prepared| prepared.premises);
        let log = life.record.start.end.as_ref().map(|end| end.log.clone());
        let (place, registry, reports) = (
            self.place.clone(),
            self.registry.clone(),
            self.reports.clone(),
        );
        let inspection = self.entry(site).inspection.clone();
        spawn_blocking(move || {
            let log = log.unwrap_or_default();
            let premises = premises(&place, &registry, site, before, &log);
            drop(inspection);
            if let Some(premises) = premises {
                // Only a driver that has ended does not listen.
                let _ = reports.blocking_send(Message::Premised(site, premises));
            }
        });
    }

    /// They are known: from now on a change is noticed.
    pub(super) fn premised(&mut self, site: SiteId, premises: Premises) {
        if let Some(entry) = self.sites.get_mut(&site) {
            entry.premises = Some(Arc::new(premises));
        }
    }
}
