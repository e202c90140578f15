//! `$paas_*`.

use std::ffi::CStr;

use crate::ffi::request::Request;
use crate::ffi::variable::Variable;
use crate::{activity, fallback, site};

/// `$paas_site`: the primary domain of the request's site.
pub(crate) struct Site;

impl Variable for Site {
    const NAME: &'static CStr = c"paas_site";
    const CONSTANT: bool = true;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        site::of(request).map(|site| site.primary())
    }
}

/// `$paas_site_id`: its number.
pub(crate) struct SiteId;

impl Variable for SiteId {
    const NAME: &'static CStr = c"paas_site_id";
    const CONSTANT: bool = true;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        request
            .pool()?
            .format(format_args!("{}", site::of(request)?.id))
    }
}

/// `$paas_socket`: where its processes listen.
pub(crate) struct Socket;

impl Variable for Socket {
    const NAME: &'static CStr = c"paas_socket";
    const CONSTANT: bool = true;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        // Whoever asks where a site listens is about to go there, also in a location of the operator's own.
        activity::count(request);
        request.pool()?.format(format_args!(
            "{}",
            request.server_conf()?.socket_of(site::of(request)?)
        ))
    }
}

/// `$paas_protocol`: what its processes speak there, `uwsgi` or `http`.
pub(crate) struct Protocol;

impl Variable for Protocol {
    const NAME: &'static CStr = c"paas_protocol";
    const CONSTANT: bool = true;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        site::of(request).map(|site| site.protocol.as_str().as_bytes())
    }
}

/// `$paas_backend`: the name of the backend chosen last.
pub(crate) struct Backend;

impl Variable for Backend {
    const NAME: &'static CStr = c"paas_backend";
    const CONSTANT: bool = false;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        let backend = request.main().context()?.backend.borrow();
        copy(request, backend.as_ref()?.name().as_bytes())
    }
}

/// `$paas_sent`: whether the attempt that failed was sent.
pub(crate) struct Sent;

impl Variable for Sent {
    const NAME: &'static CStr = c"paas_sent";
    const CONSTANT: bool = false;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        Some(flag(fallback::was_sent(request)))
    }
}

/// `$paas_idempotent`: whether the client's request may be run twice.
pub(crate) struct Idempotent;

impl Variable for Idempotent {
    const NAME: &'static CStr = c"paas_idempotent";
    const CONSTANT: bool = true;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        Some(flag(request.is_idempotent()))
    }
}

/// `$paas_reason`: why the request was refused, in a word.
pub(crate) struct Reason;

impl Variable for Reason {
    const NAME: &'static CStr = c"paas_reason";
    const CONSTANT: bool = false;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        copy(request, fallback::reason(request)?.word.as_bytes())
    }
}

/// `$paas_id`: what that refusal is found by in the logs.
pub(crate) struct Id;

impl Variable for Id {
    const NAME: &'static CStr = c"paas_id";
    const CONSTANT: bool = false;

    fn value(request: Request<'_>) -> Option<&[u8]> {
        copy(request, fallback::reason(request)?.id.as_ref()?.as_bytes())
    }
}

fn flag(value: bool) -> &'static [u8] {
    if value { b"1" } else { b"0" }
}

fn copy<'r>(request: Request<'r>, value: &[u8]) -> Option<&'r [u8]> {
    request.pool()?.copy(value).map(|copy| &*copy)
}
