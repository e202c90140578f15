//! Variables.

use std::ffi::CStr;
use std::ptr::NonNull;

use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_VAR_NOCACHEABLE, NGX_OK, ngx_http_add_variable, ngx_http_request_t,
    ngx_int_t, ngx_str_t, ngx_uint_t, ngx_variable_value_t,
};

use super::conf::Conf;
use super::guard::{Entry, guard};
use super::request::Request;

/// A variable of this module.
pub(crate) trait Variable {
    /// Its name, without `$`.
    const NAME: &'static CStr;
    /// Whether one answer holds for the whole request.
    const CONSTANT: bool;
    /// Its value; None: it has none.
    fn value(request: Request<'_>) -> Option<&[u8]>;
}

/// Makes the variable known. None: out of memory or a name taken by somebody else, which nginx has logged.
pub(super) fn register<V: Variable>(conf: Conf<'_>) -> Option<()> {
    let mut name = ngx_str_t {
        len: V::NAME.count_bytes(),
        data: V::NAME.as_ptr().cast_mut().cast(),
    };
    let flags = if V::CONSTANT {
        0
    } else {
        NGX_HTTP_VAR_NOCACHEABLE
    };
    // SAFETY: the name is static; nginx copies it in lower case.
    let variable =
        unsafe { ngx_http_add_variable(conf.as_ptr(), &raw mut name, flags as ngx_uint_t) };
    // SAFETY: a variable that nginx gives lives as long as the configuration.
    unsafe { variable.as_mut() }?.get_handler = Some(get::<V>);
    Some(())
}

unsafe extern "C" fn get<V: Variable>(
    request: *mut ngx_http_request_t,
    value: *mut ngx_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    let name = V::NAME.to_str().unwrap_or("variable");
    guard!(Entry::Variable(name), NGX_ERROR as ngx_int_t, {
        // SAFETY: nginx hands over a living request and a place for the value.
        let parts = unsafe {
            (
                NonNull::new(request).map(|request| Request::from_raw(request)),
                value.as_mut(),
            )
        };
        let (Some(request), Some(value)) = parts else {
            return NGX_ERROR as ngx_int_t;
        };
        match V::value(request) {
            Some(bytes) => {
                value.set_len(bytes.len() as u32);
                value.set_valid(1);
                value.set_no_cacheable(u32::from(!V::CONSTANT));
                value.set_not_found(0);
                value.data = bytes.as_ptr().cast_mut();
            }
            None => value.set_not_found(1),
        }
        NGX_OK as ngx_int_t
    })
}
