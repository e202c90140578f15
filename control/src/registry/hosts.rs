//! Every host name with what the table says of it, a page at a time: a million of them need not be in memory at once.
use super::{Result, View};
use crate::model::Domain;
use table::SiteRecord;

/// Read at a time.
pub(crate) const PAGE: u32 = 4096;

/// All host names, in their order.
pub fn hosts(view: &dyn View) -> Hosts<'_> {
    Hosts {
        view,
        page: Vec::new().into_iter(),
        last: None,
    }
}

/// All sites, in the order of their primary domains: further domains of a site are none of their own.
pub fn sites(view: &dyn View) -> impl Iterator<Item = Result<SiteRecord>> {
    hosts(view).filter_map(|host| match host {
        Ok((name, site)) => (name == site.primary).then_some(Ok(site)),
        Err(error) => Some(Err(error)),
    })
}

/// See [`hosts`].
pub struct Hosts<'a> {
    view: &'a dyn View,
    page: std::vec::IntoIter<(Domain, SiteRecord)>,
    last: Option<Domain>,
}

impl Iterator for Hosts<'_> {
    type Item = Result<(Domain, SiteRecord)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.page.next() {
            Some(next) => next,
            None => match self.view.hosts_after(self.last.as_ref(), PAGE) {
                Err(error) => return Some(Err(error)),
                Ok(page) => {
                    self.page = page.into_iter();
                    self.page.next()?
                }
            },
        };
        if self.page.len() == 0 {
            self.last = Some(next.0.clone());
        }
        Some(Ok(next))
    }
}
