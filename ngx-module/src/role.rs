//! `paas_role`: what a balancer or a backend refuses before anything else is done for a request, and which
//! headers may not pass between sites and the platform.

use arguments::Role;
use ngx::ffi::{
    ngx_http_phases_NGX_HTTP_POST_READ_PHASE as POST_READ,
    ngx_http_phases_NGX_HTTP_PREACCESS_PHASE as PREACCESS,
};

use crate::activity;
use crate::context::{Context, Reason};
use crate::ffi::phase::Handler;
use crate::ffi::request::{Outcome, Request};
use crate::site::{self, Lookup};

/// Seconds after which a visitor may try again when the table cannot be read.
const RETRY_AFTER: &[u8] = b"5";

/// The header in which a backend's nginx says why it answers an error by itself. No site can send it: see [`filter_answer`].
pub(crate) const REASON: &str = "X-Paas-Reason";
/// A site does not run there, and it does not wake it.
pub(crate) const ELSEWHERE: &str = "elsewhere";
/// It cannot read its table, and so serves nobody.
const NO_TABLE: &str = "no-table";

/// Whether a reason that a backend gave is one that holds for all of its sites.
pub(crate) fn is_backend_s_fault(reason: &[u8]) -> bool {
    reason == NO_TABLE.as_bytes()
}

/// The handler of the PREACCESS phase.
pub(crate) struct Gate;

impl Handler for Gate {
    const NAME: &'static str = "paas_role handler";
    const PHASE: u32 = PREACCESS;

    fn handle(request: Request<'_>) -> Outcome {
        let role = request
            .location_conf()
            .and_then(|location| location.role)
            .unwrap_or(Role::Off);
        if role == Role::Off || !request.is_main() {
            return Outcome::Declined;
        }
        let Some(context) = request.context_or_new() else {
            return Outcome::Status(500);
        };
        // The page of a refusal may come from a location that has the role, too.
        if context.is_refused.get() {
            return Outcome::Declined;
        }
        match site::lookup(request) {
            Some(Lookup::Site(_)) if role == Role::Balancer => {
                match request.remove_request_headers(is_ours) {
                    Some(()) => Outcome::Declined,
                    None => Outcome::Status(500),
                }
            }
            Some(Lookup::Site(_)) => {
                activity::count(request);
                Outcome::Declined
            }
            Some(Lookup::Unknown) => refuse(context, 404, "no-site"),
            Some(Lookup::Unavailable) => {
                match request.add_answer_header("Retry-After", RETRY_AFTER) {
                    Some(()) => refuse(context, 503, NO_TABLE),
                    None => Outcome::Status(500),
                }
            }
            None => Outcome::Status(500),
        }
    }
}

/// The handler of the POST_READ phase: what comes before the look-up goes on while the memory for it is fetched.
pub(crate) struct Foresight;

impl Handler for Foresight {
    const NAME: &'static str = "paas_table handler";
    const PHASE: u32 = POST_READ;

    fn handle(request: Request<'_>) -> Outcome {
        if let Some(table) = request.http_conf().and_then(|http| http.table.as_ref())
            && let Some(host) = request.host()
        {
            table.expect(host);
        }
        Outcome::Declined
    }
}

fn refuse(context: &Context, status: u16, word: &str) -> Outcome {
    context.is_refused.set(true);
    *context.trouble().reason.borrow_mut() = Some(Reason {
        word: word.into(),
        id: None,
    });
    Outcome::Status(status)
}

/// Takes our headers from what a site answered: a site must not speak for the platform.
pub(crate) fn filter_answer(request: Request<'_>) {
    let role = request.location_conf().and_then(|location| location.role);
    if role == Some(Role::Backend) && request.is_main() {
        request.hide_answer_headers(is_ours);
    }
}

/// Whether a header's name is `X-Paas-...`. Where `underscores_in_headers` lets `X_Paas_...` through, an
/// application could not tell it from the other.
fn is_ours(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-paas-";
    name.get(..PREFIX.len()).is_some_and(|start| {
        start.iter().zip(PREFIX).all(|(have, want)| match have {
            b'_' => *want == b'-',
            byte => byte.to_ascii_lowercase() == *want,
        })
    })
}
