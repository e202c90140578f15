//! Handlers of request phases.

use std::ptr::NonNull;

use ngx::ffi::{
    NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_OK, ngx_array_push, ngx_http_core_main_conf_t,
    ngx_http_core_module, ngx_http_handler_pt, ngx_http_request_t, ngx_int_t,
};

use super::conf::Conf;
use super::guard::{Entry, guard};
use super::module::main_part;
use super::request::{Outcome, Request};

/// A handler of a phase.
pub(crate) trait Handler {
    /// For the log.
    const NAME: &'static str;
    /// One of nginx's `ngx_http_phases_NGX_HTTP_*_PHASE`.
    const PHASE: u32;
    /// Called for every request that comes through the phase, and again after [`Outcome::Again`].
    fn handle(request: Request<'_>) -> Outcome;
}

/// Puts the handler into its phase. None: out of memory.
pub(super) fn register<H: Handler>(conf: Conf<'_>) -> Option<()> {
    // SAFETY: this is the core module's type for its main configuration, and nginx created it before.
    unsafe {
        let core = main_part::<ngx_http_core_main_conf_t>(conf, ngx_http_core_module.ctx_index)?;
        let phase = (*core.as_ptr()).phases.get_mut(H::PHASE as usize)?;
        let place = NonNull::new(ngx_array_push(&raw mut phase.handlers))?;
        place.cast::<ngx_http_handler_pt>().write(Some(run::<H>));
    }
    Some(())
}

unsafe extern "C" fn run<H: Handler>(request: *mut ngx_http_request_t) -> ngx_int_t {
    guard!(
        Entry::Request(H::NAME),
        NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over a living request.
            match NonNull::new(request).map(|request| unsafe { Request::from_raw(request) }) {
                Some(request) => H::handle(request).code(),
                None => NGX_OK as ngx_int_t,
            }
        }
    )
}
