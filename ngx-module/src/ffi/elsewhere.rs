//! An answer that means "not here, ask another backend": looked for in the head of every answer that a balancing
//! method of ours sent for, before nginx does anything with it.
//!
//! nginx itself goes on only for statuses that applications give, too, and never with a `POST` that was sent. Here the
//! backend has said that no application saw the request, so it goes on whatever `proxy_next_upstream` says, and without
//! using up one of its tries. It is nginx's own step to the next peer: the body is sent again from where nginx keeps it.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_UPSTREAM_FT_HTTP_503, NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT, NGX_OK,
    ngx_http_request_t, ngx_http_upstream_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_uint_t,
};

use super::guard::{Entry, guard};
use super::request::Request;
use crate::balancer::Selection;
use crate::role::{ELSEWHERE, REASON};

type Callback = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

/// What nginx called for a request's upstream before this module put itself in front.
pub(crate) struct Detour {
    process_header: Cell<Option<Callback>>,
    reinit_request: Cell<Option<Callback>>,
    /// The `Selection` of the upstream; null if there is none.
    selection: Cell<*mut c_void>,
    /// While the request goes on: the configuration that `forced` stands in for.
    conf: Cell<*mut ngx_http_upstream_conf_t>,
}

impl Default for Detour {
    fn default() -> Self {
        Self {
            process_header: Cell::new(None),
            reinit_request: Cell::new(None),
            selection: Cell::new(ptr::null_mut()),
            conf: Cell::new(ptr::null_mut()),
        }
    }
}

impl Detour {
    /// Puts this module in front of an upstream whose peers are about to be asked for.
    ///
    /// # Safety
    /// The detour is that of the upstream's request, and the selection lives as long as the upstream.
    pub(super) unsafe fn begin(
        &self,
        upstream: &mut ngx_http_upstream_t,
        selection: NonNull<Selection<'_>>,
    ) {
        self.selection.set(selection.as_ptr().cast());
        self.conf.set(ptr::null_mut());
        self.read_first(upstream);
        if !is(upstream.reinit_request, reinit_request) {
            self.reinit_request.set(upstream.reinit_request);
            upstream.reinit_request = Some(reinit_request);
        }
    }

    /// Puts this module in front of whoever reads the head of the answer now.
    fn read_first(&self, upstream: &mut ngx_http_upstream_t) {
        if !is(upstream.process_header, process_header) {
            self.process_header.set(upstream.process_header);
            upstream.process_header = Some(process_header);
        }
    }

    /// There is an answer to read.
    fn expect_done(&self) {
        // SAFETY: `begin` was given a selection that lives as long as the upstream; nothing else borrows it now.
        if let Some(selection) = unsafe { self.selection.get().cast::<Selection<'_>>().as_ref() } {
            selection.expect_done();
        }
    }

    /// Whether the request goes on because the backend has sent it elsewhere.
    pub(super) fn is_forced(&self) -> bool {
        !self.conf.get().is_null()
    }

    /// The next peer is asked for: from here on nginx's own rules hold again.
    pub(super) fn end(&self, upstream: &mut ngx_http_upstream_t) {
        let conf = self.conf.replace(ptr::null_mut());
        if !conf.is_null() {
            upstream.conf = conf;
        }
    }

    /// Makes nginx go on, if there is where to. None: out of memory.
    ///
    /// # Safety
    /// nginx is reading the head of the answer that this request's upstream got.
    unsafe fn force(&self, request: Request<'_>, upstream: &mut ngx_http_upstream_t) -> Option<()> {
        // nginx has kept no body that could be sent again.
        if request.fields().request_body_no_buffering() != 0 {
            return Some(());
        }
        // SAFETY: `begin` was given a selection that lives as long as the upstream; nothing else borrows it now.
        let selection = unsafe { self.selection.get().cast::<Selection<'_>>().as_mut() }?;
        if !selection.may_go_on() {
            return Some(());
        }
        // SAFETY: an upstream has a configuration; it is a plain C structure, of which nginx only reads the copy.
        let mut forced = unsafe { ptr::read(upstream.conf) };
        forced.next_upstream |=
            (NGX_HTTP_UPSTREAM_FT_HTTP_503 | NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT) as ngx_uint_t;
        forced.next_upstream_timeout = 0;
        let forced = request.pool()?.put(forced)?;
        self.conf.set(upstream.conf);
        upstream.conf = forced;
        upstream.peer.tries += 1;
        Some(())
    }
}

fn is(found: Option<Callback>, ours: Callback) -> bool {
    found.is_some_and(|found| ptr::fn_addr_eq(found, ours))
}

/// nginx reads what has come of the answer's head.
unsafe extern "C" fn process_header(raw: *mut ngx_http_request_t) -> ngx_int_t {
    guard!(
        Entry::Request("paas_hash process_header"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over a living request whose upstream `begin` has changed.
            let parts = unsafe { parts(raw) };
            let Some((request, detour, upstream)) = parts else {
                return NGX_ERROR as ngx_int_t;
            };
            let Some(theirs) = detour.process_header.get() else {
                return NGX_ERROR as ngx_int_t;
            };
            detour.expect_done();
            // SAFETY: what nginx would have called.
            let code = unsafe { theirs(raw) };
            // SAFETY: the upstream still lives: nginx goes on with it as the code says.
            let upstream = unsafe { &mut *upstream };
            // It works in steps, each of which sets the next.
            detour.read_first(upstream);
            if code == NGX_OK as ngx_int_t
                && upstream.headers_in.status_n == 503
                && request.upstream_header(REASON) == Some(ELSEWHERE.as_bytes())
                // SAFETY: nginx is reading that head.
                && unsafe { detour.force(request, upstream) }.is_none()
            {
                return NGX_ERROR as ngx_int_t;
            }
            code
        }
    )
}

/// nginx is about to send the request once more.
unsafe extern "C" fn reinit_request(raw: *mut ngx_http_request_t) -> ngx_int_t {
    guard!(
        Entry::Request("paas_hash reinit_request"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: as above.
            let parts = unsafe { parts(raw) };
            let Some((_, detour, upstream)) = parts else {
                return NGX_ERROR as ngx_int_t;
            };
            let Some(theirs) = detour.reinit_request.get() else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: what nginx would have called.
            let code = unsafe { theirs(raw) };
            // SAFETY: the upstream still lives.
            let upstream = unsafe { &mut *upstream };
            // The reading of the answer begins anew.
            detour.read_first(upstream);
            code
        }
    )
}

/// # Safety
/// `raw` is null or a request that lives for `'r`.
unsafe fn parts<'r>(
    raw: *mut ngx_http_request_t,
) -> Option<(Request<'r>, &'r Detour, *mut ngx_http_upstream_t)> {
    // SAFETY: as the caller says.
    let request = unsafe { Request::from_raw(NonNull::new(raw)?) };
    let upstream = NonNull::new(request.fields().upstream)?;
    Some((request, &request.context()?.detour, upstream.as_ptr()))
}
