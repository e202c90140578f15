//! A subrequest that asks somebody while its parent waits, in the manner of nginx's `auth_request`.

use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{self, NonNull};

use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_GATEWAY_TIME_OUT, NGX_HTTP_SUBREQUEST_WAITED, NGX_OK,
    ngx_http_finalize_request, ngx_http_post_subrequest_t, ngx_http_request_body_t,
    ngx_http_request_t, ngx_http_subrequest, ngx_int_t, ngx_uint_t,
};

use super::guard::{Entry, guard};
use super::request::Request;

/// A subrequest under way. It lives in the parent's context: all requests of a client's request share one pool.
pub(crate) struct Subrequest(NonNull<ngx_http_request_t>);

/// How a subrequest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status.
    Answered(u16),
    /// Whom it was sent to did not answer in the time its location gives.
    Late,
    /// There was nobody, or the connection broke.
    Unreachable,
}

impl<'r> Request<'r> {
    /// Sends `GET uri?args` without a body to the location of that name; `fallback::answered` hears the answer.
    /// None: nginx has logged why not.
    pub(crate) fn ask(self, uri: &[u8], args: &[u8]) -> Option<Subrequest> {
        let pool = self.pool()?;
        let mut uri = pool.string(uri)?;
        let mut args = pool.string(args)?;
        let after = ngx_http_post_subrequest_t {
            handler: Some(finished),
            data: ptr::null_mut(),
        };
        let after: *mut ngx_http_post_subrequest_t = pool.put(after)?;
        // SAFETY: for nginx's request body all zeroes is a value: an empty body that has been read.
        let body: *mut ngx_http_request_body_t = pool.put(unsafe { zeroed() })?;
        let mut subrequest = ptr::null_mut();
        // SAFETY: the request lives and all that nginx keeps lies in its pool; the result is looked at before
        // the subrequest is.
        unsafe {
            let code = ngx_http_subrequest(
                self.as_ptr(),
                &raw mut uri,
                &raw mut args,
                &raw mut subrequest,
                after,
                NGX_HTTP_SUBREQUEST_WAITED as ngx_uint_t,
            );
            let subrequest = NonNull::new(subrequest)?;
            if code != NGX_OK as ngx_int_t {
                return None;
            }
            let fields = subrequest.as_ptr();
            // The body stays with the parent, which sends it when it is replayed.
            (*fields).request_body = body;
            (*fields).headers_in.content_length = ptr::null_mut();
            (*fields).headers_in.transfer_encoding = ptr::null_mut();
            (*fields).headers_in.content_length_n = -1;
            (*fields).headers_in.set_chunked(0);
            (*fields).set_header_only(1);
            // No error_page: the parent decides what an error means.
            (*fields).set_error_page(1);
            Some(Subrequest(subrequest))
        }
    }

    /// How this subrequest ended.
    fn end(self, code: ngx_int_t) -> End {
        // SAFETY: `upstream` is null or the living upstream of this request.
        let status = match unsafe { self.fields().upstream.as_ref() } {
            Some(upstream) => upstream.headers_in.status_n,
            None if self.fields().headers_out.status != 0 => self.fields().headers_out.status,
            None => usize::try_from(code).unwrap_or(0),
        };
        match u16::try_from(status) {
            Ok(0) | Err(_) if code == NGX_HTTP_GATEWAY_TIME_OUT as ngx_int_t => End::Late,
            Ok(0) | Err(_) => End::Unreachable,
            Ok(status) => End::Answered(status),
        }
    }
}

impl Subrequest {
    /// Whether it has ended, answered or not.
    pub(crate) fn is_done(&self) -> bool {
        // SAFETY: the subrequest lives as long as its parent, in whose context this value is.
        unsafe { self.0.as_ref() }.done() != 0
    }

    /// Ends the subrequest now and lets its parent go on; `fallback::answered` is called as for any other end.
    pub(crate) fn abort(self) {
        if self.is_done() {
            return;
        }
        let subrequest = self.0.as_ptr();
        // SAFETY: the subrequest lives as long as its parent, in whose context this value was. Its upstream's
        // cleanup closes the connection and gives a reference of the main request back, so one is taken
        // before; then the subrequest ends as one that was answered, which wakes the parent.
        unsafe {
            if let Some(upstream) = (*subrequest).upstream.as_ref()
                && let Some(Some(cleanup)) = upstream.cleanup.as_ref().copied()
            {
                let main = (*subrequest).main;
                (*main).set_count((*main).count() + 1);
                cleanup(subrequest.cast());
            }
            ngx_http_finalize_request(subrequest, NGX_OK as ngx_int_t);
        }
    }
}

unsafe extern "C" fn finished(
    subrequest: *mut ngx_http_request_t,
    _data: *mut c_void,
    code: ngx_int_t,
) -> ngx_int_t {
    // After a panic the parent goes on and finds that nobody has noted an answer.
    guard!(
        Entry::Request("paas_fallback answer"),
        NGX_OK as ngx_int_t,
        {
            // SAFETY: nginx hands over the living subrequest.
            let subrequest =
                NonNull::new(subrequest).map(|subrequest| unsafe { Request::from_raw(subrequest) });
            if let Some(subrequest) = subrequest
                && let Some(parent) = subrequest.parent()
            {
                crate::fallback::answered(parent, subrequest, subrequest.end(code));
                // SAFETY: a request has a connection, which outlives it.
                let client_is_gone = unsafe { subrequest.fields().connection.as_ref() }
                    .is_none_or(|c| c.error() != 0);
                // An error would end the parent without an answer.
                if code == NGX_ERROR as ngx_int_t && !client_is_gone {
                    return NGX_OK as ngx_int_t;
                }
            }
            code
        }
    )
}
