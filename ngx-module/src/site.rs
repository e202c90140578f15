//! Which site a request is for. The table is read once for a request.

use table::SiteRecord;

use crate::ffi::request::Request;
use crate::worker;

/// What the table says of a host.
// It lies in the request's context: boxing the site would be an allocation for every request.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Lookup {
    /// The site it leads to.
    Site(SiteRecord),
    /// No site has it, or it is no host name at all.
    Unknown,
    /// The table cannot be read; the log says why.
    Unavailable,
}

/// What the table says of the request's host. None: out of memory, or there is no `paas_table`.
pub(crate) fn lookup(request: Request<'_>) -> Option<&Lookup> {
    let main = request.main();
    let context = main.context_or_new()?;
    if let Some(known) = context.lookup.get() {
        return Some(known);
    }
    let http = main.http_conf()?;
    let table = http.table.as_deref()?;
    let lookup = match main.host().and_then(domain) {
        Some(domain) => worker::lookup(table, &domain, http.places_by_table),
        None => Lookup::Unknown,
    };
    Some(context.lookup.get_or_init(|| lookup))
}

/// The request's site, if it has one.
pub(crate) fn of(request: Request<'_>) -> Option<&SiteRecord> {
    match lookup(request)? {
        Lookup::Site(site) => Some(site),
        Lookup::Unknown | Lookup::Unavailable => None,
    }
}

/// The domain a host is. An address is the host of no site.
fn domain(host: &[u8]) -> Option<routing::Domain> {
    match routing::host::parse(host) {
        Ok(routing::Host::Domain(domain)) => Some(domain),
        Ok(routing::Host::Ip(_)) | Err(_) => None,
    }
}
