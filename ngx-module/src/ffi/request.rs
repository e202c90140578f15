//! A request, as the safe code sees it.

use std::marker::PhantomData;
use std::ptr::NonNull;

use ngx::ffi::{
    NGX_AGAIN, NGX_DECLINED, NGX_ERROR, NGX_HTTP_LOCK, NGX_HTTP_PATCH, NGX_HTTP_POST, NGX_OK,
    ngx_http_complex_value, ngx_http_complex_value_t, ngx_http_post_request, ngx_http_request_t,
    ngx_int_t, ngx_str_t, ngx_uint_t,
};

use super::log::Log;
use super::pool::Pool;

/// A request that lives for `'r`: until the callback that got it returns control to nginx, or longer.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r> {
    raw: NonNull<ngx_http_request_t>,
    lives: PhantomData<&'r ngx_http_request_t>,
}

/// What a phase handler tells nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not ours, or done: the next handler's turn.
    Declined,
    /// Wait; the handler is called again.
    Again,
    /// Answer with this status.
    Status(u16),
    /// Something failed that has been logged: nginx ends the request.
    Failed,
}

impl Outcome {
    pub(super) fn code(self) -> ngx_int_t {
        match self {
            Self::Declined => NGX_DECLINED as ngx_int_t,
            Self::Again => NGX_AGAIN as ngx_int_t,
            Self::Status(status) => status as ngx_int_t,
            Self::Failed => NGX_ERROR as ngx_int_t,
        }
    }
}

impl<'r> Request<'r> {
    /// # Safety
    /// `raw` is a request that is not freed before `'r` ends.
    pub(super) unsafe fn from_raw(raw: NonNull<ngx_http_request_t>) -> Self {
        Self {
            raw,
            lives: PhantomData,
        }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_http_request_t {
        self.raw.as_ptr()
    }

    pub(super) fn fields(self) -> &'r ngx_http_request_t {
        // SAFETY: by construction the request lives for 'r; nginx runs nothing else meanwhile, and we only
        // change fields through raw pointers to places that are not borrowed.
        unsafe { self.raw.as_ref() }
    }

    /// The request the client made.
    pub(crate) fn main(self) -> Self {
        // SAFETY: nginx always sets `main`, and the main request outlives its subrequests.
        NonNull::new(self.fields().main).map_or(self, |main| unsafe { Self::from_raw(main) })
    }

    pub(crate) fn is_main(self) -> bool {
        self.fields().main == self.as_ptr()
    }

    /// The request that started this subrequest.
    pub(crate) fn parent(self) -> Option<Self> {
        // SAFETY: a parent outlives its subrequests.
        NonNull::new(self.fields().parent).map(|parent| unsafe { Self::from_raw(parent) })
    }

    pub(crate) fn pool(self) -> Option<Pool<'r>> {
        // SAFETY: the pool of a request lives as long as the request.
        NonNull::new(self.fields().pool).map(|pool| unsafe { Pool::from_raw(pool) })
    }

    pub(crate) fn log(self) -> Log {
        // SAFETY: the connection and its log outlive the request.
        unsafe {
            match self.fields().connection.as_ref() {
                Some(connection) => Log::from_raw(connection.log),
                None => Log::of_cycle(),
            }
        }
    }

    /// The host the client asked for, in the request line or else in the `Host` header; None if it named none.
    ///
    /// The header is taken as it came: nginx's own reading of it lets anything pass for a port.
    pub(crate) fn host(self) -> Option<&'r [u8]> {
        let fields = self.fields();
        // SAFETY: the header is null or one of this request's own.
        let header = unsafe { fields.headers_in.host.as_ref() };
        let host = match header {
            Some(header) if fields.host_start.is_null() => &header.value,
            _ => &fields.headers_in.server,
        };
        Some(bytes(host)).filter(|host| !host.is_empty())
    }

    /// Whether the client may be answered after its request was handed to two backends: nginx's own rule
    /// of `proxy_next_upstream ... non_idempotent`.
    pub(crate) fn is_idempotent(self) -> bool {
        self.main().fields().method & (NGX_HTTP_POST | NGX_HTTP_LOCK | NGX_HTTP_PATCH) as ngx_uint_t
            == 0
    }

    /// Whether the last upstream connection of this request was sent any of it.
    pub(crate) fn was_sent(self) -> bool {
        // SAFETY: `upstream` is null or the living upstream of this request.
        unsafe { self.fields().upstream.as_ref() }
            .is_some_and(|upstream| upstream.request_sent() != 0)
    }

    /// Lets nginx go on with this request as soon as the callback at hand has returned. None: out of memory.
    pub(crate) fn go_on(self) -> Option<()> {
        // SAFETY: the request lives, and nginx keeps what it posts in the request's own pool.
        let code = unsafe { ngx_http_post_request(self.as_ptr(), std::ptr::null_mut()) };
        (code == NGX_OK as ngx_int_t).then_some(())
    }

    /// The value of an expression that [`super::conf::Conf::expression`] compiled.
    pub(crate) fn evaluate(self, expression: &'r Expression) -> Option<&'r [u8]> {
        let mut value = ngx_str_t::empty();
        // SAFETY: the request lives; nginx only reads the compiled expression, despite the pointer's type.
        let code = unsafe {
            ngx_http_complex_value(
                self.as_ptr(),
                (&raw const expression.0).cast_mut(),
                &raw mut value,
            )
        };
        if code != NGX_OK as ngx_int_t || value.data.is_null() && value.len > 0 {
            return None;
        }
        if value.len == 0 {
            return Some(&[]);
        }
        // SAFETY: the value lies in the request's pool or in the configuration, both live for 'r.
        Some(unsafe { std::slice::from_raw_parts(value.data, value.len) })
    }
}

/// A string with variables, compiled when the configuration was read.
pub(crate) struct Expression(pub(super) ngx_http_complex_value_t);

/// The bytes of one of nginx's strings.
pub(super) fn bytes(string: &ngx_str_t) -> &[u8] {
    if string.data.is_null() {
        &[]
    } else {
        string.as_bytes()
    }
}
