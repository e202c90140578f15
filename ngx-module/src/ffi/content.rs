//! Locations that this module answers itself.

use std::mem::zeroed;
use std::ptr::{self, NonNull};

use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_NOT_ALLOWED,
    NGX_OK, ngx_buf_t, ngx_chain_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t,
    ngx_http_core_module, ngx_http_discard_request_body, ngx_http_output_filter,
    ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_uint_t,
};

use super::conf::Conf;
use super::guard::{Entry, guard};
use super::request::Request;

/// What a location answers.
pub(crate) trait Content {
    /// For the log.
    const NAME: &'static str;
    /// The answer to a GET or HEAD. None: out of memory.
    fn answer(request: Request<'_>) -> Option<Page>;
}

/// An answer.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

/// Makes the location that is being read answer so. None: it is no location.
pub(crate) fn install<C: Content>(conf: Conf<'_>) -> Option<()> {
    // SAFETY: while a location is read, `ctx` is that of http configurations, and the core module has a part in it.
    unsafe {
        let context = conf.fields().ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
        let parts = NonNull::new(context.loc_conf)?;
        let core = *parts.as_ptr().add(ngx_http_core_module.ctx_index);
        let core = NonNull::new(core.cast::<ngx_http_core_loc_conf_t>())?;
        (*core.as_ptr()).handler = Some(run::<C>);
    }
    Some(())
}

unsafe extern "C" fn run<C: Content>(request: *mut ngx_http_request_t) -> ngx_int_t {
    guard!(
        Entry::Request(C::NAME),
        NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        {
            let Some(raw) = NonNull::new(request) else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: nginx hands over a living request.
            let request = unsafe { Request::from_raw(raw) };
            let allowed = (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t;
            if request.fields().method & allowed == 0 {
                return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
            }
            // SAFETY: the request lives and nobody else reads its body.
            let discarded = unsafe { ngx_http_discard_request_body(raw.as_ptr()) };
            if discarded != NGX_OK as ngx_int_t {
                return discarded;
            }
            match C::answer(request).and_then(|page| send(request, &page)) {
                Some(code) => code,
                None => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
            }
        }
    )
}

/// Sends it. None: out of memory, and nothing was sent.
fn send(request: Request<'_>, page: &Page) -> Option<ngx_int_t> {
    let pool = request.pool()?;
    let content_type = pool.string(page.content_type.as_bytes())?;
    let body = pool.copy(&page.body)?.as_mut_ptr_range();
    // SAFETY: for nginx's buffer all zeroes is a value.
    let mut buffer: ngx_buf_t = unsafe { zeroed() };
    (buffer.pos, buffer.last) = (body.start, body.end);
    (buffer.start, buffer.end) = (body.start, body.end);
    buffer.set_memory(1);
    buffer.set_last_buf(request.is_main().into());
    buffer.set_last_in_chain(1);
    let buffer: *mut ngx_buf_t = pool.put(buffer)?;
    let chain = pool.put(ngx_chain_t {
        buf: buffer,
        next: ptr::null_mut(),
    })?;
    request.add_answer_header("Cache-Control", b"no-store")?;
    // SAFETY: the request lives; its headers were not sent; what they and the chain point at lies in its pool.
    unsafe {
        let raw = request.as_ptr();
        (*raw).headers_out.status = page.status.into();
        (*raw).headers_out.content_length_n = page.body.len() as _;
        (*raw).headers_out.content_type = content_type;
        (*raw).headers_out.content_type_len = content_type.len;
        let code = ngx_http_send_header(raw);
        if code == NGX_ERROR as ngx_int_t || code > NGX_OK as ngx_int_t || (*raw).header_only() != 0
        {
            return Some(code);
        }
        Some(ngx_http_output_filter(raw, chain))
    }
}
