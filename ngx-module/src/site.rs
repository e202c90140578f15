//! Which site a request is for. The table is asked once for a request.

use crate::ffi::request::Request;
use crate::worker::Site;

/// What the table says of a host.
pub(crate) enum Lookup {
    /// The site it leads to.
    Site(Site),
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
    let table = http.table.as_ref()?;
    let lookup = match main.host() {
        Some(host) => table.lookup(host, http.places_by_table),
        None => Lookup::Unknown,
    };
    Some(context.lookup.get_or_init(|| lookup))
}

/// The request's site, if it has one.
pub(crate) fn of(request: Request<'_>) -> Option<&Site> {
    match lookup(request)? {
        Lookup::Site(site) => Some(site),
        Lookup::Unknown | Lookup::Unavailable => None,
    }
}
