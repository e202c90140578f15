//! A timer on a request.

use std::mem::zeroed;
use std::ptr::NonNull;

use ngx::ffi::{
    ngx_add_timer, ngx_del_timer, ngx_event_t, ngx_http_request_t, ngx_http_run_posted_requests,
};

use super::guard::{Entry, guard};
use super::request::Request;

#[repr(C)]
struct Event {
    nginx: ngx_event_t,
    then: fn(Request<'_>),
}

/// A running timer of a request. It lives in the request's context, and so not longer than the request.
pub(crate) struct Timer(NonNull<Event>);

impl Timer {
    /// Calls `then` after this many milliseconds; what it has posted runs afterwards. None: the request has no connection.
    pub(crate) fn start(
        request: Request<'_>,
        milliseconds: usize,
        then: fn(Request<'_>),
    ) -> Option<Self> {
        // SAFETY: for nginx's event all zeroes is a value.
        let mut nginx: ngx_event_t = unsafe { zeroed() };
        nginx.data = request.as_ptr().cast();
        nginx.handler = Some(expired);
        // SAFETY: a request has a connection, which outlives it.
        nginx.log = unsafe { request.fields().connection.as_ref() }?.log;
        let event = NonNull::from(Box::leak(Box::new(Event { nginx, then })));
        // SAFETY: the event stays in its place until Drop takes it off the clock.
        unsafe { ngx_add_timer(&raw mut (*event.as_ptr()).nginx, milliseconds) };
        Some(Self(event))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: `start` has made the event, and only this frees it; while it is handled nginx and `expired` look at it no more
        // once they have called what may drop its timer.
        unsafe {
            let event = &raw mut (*self.0.as_ptr()).nginx;
            if (*event).timer_set() != 0 {
                ngx_del_timer(event);
            }
            drop(Box::from_raw(self.0.as_ptr()));
        }
    }
}

unsafe extern "C" fn expired(event: *mut ngx_event_t) {
    guard!(Entry::Request("paas_fallback timeout"), (), {
        // SAFETY: nginx calls this for the event that `start` made; while it is on the clock its request lives.
        let request = unsafe { NonNull::new((*event).data.cast::<ngx_http_request_t>()) };
        let Some(raw) = request else { return };
        // SAFETY: as above.
        let (request, connection) = unsafe { (Request::from_raw(raw), raw.as_ref().connection) };
        // SAFETY: the event is the first field of the one that `start` made.
        let then = unsafe { (*event.cast::<Event>()).then };
        then(request);
        // SAFETY: the connection is not closed before its posted requests have run.
        unsafe { ngx_http_run_posted_requests(connection) };
    });
}
