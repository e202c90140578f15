//! Configuration while it is read: arguments of directives, messages with file and line, expressions.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::NonNull;

pub(crate) use arguments::Refusal;
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::ffi::{
    NGX_LOG_EMERG, NGX_OK, ngx_command_t, ngx_conf_log_error, ngx_conf_t,
    ngx_http_compile_complex_value, ngx_http_compile_complex_value_t, ngx_http_complex_value_t,
    ngx_int_t, ngx_parse_time, ngx_str_t, ngx_uint_t,
};
use ngx::log::{LOG_BUFFER_SIZE, write_fmt};

use super::guard::{Entry, guard};
use super::pool::Pool;
use super::request::{Expression, bytes};

/// A configuration that is being read.
#[derive(Clone, Copy)]
pub(crate) struct Conf<'c> {
    raw: NonNull<ngx_conf_t>,
    lives: PhantomData<&'c ngx_conf_t>,
}

impl<'c> Conf<'c> {
    /// # Safety
    /// `raw` is a configuration that is read until `'c` ends.
    pub(super) unsafe fn from_raw(raw: NonNull<ngx_conf_t>) -> Self {
        Self {
            raw,
            lives: PhantomData,
        }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_conf_t {
        self.raw.as_ptr()
    }

    pub(super) fn fields(self) -> &'c ngx_conf_t {
        // SAFETY: by construction.
        unsafe { self.raw.as_ref() }
    }

    /// The pool of the cycle this configuration is for.
    pub(crate) fn pool(self) -> Option<Pool<'c>> {
        // SAFETY: the pool of a configuration lives while it is read.
        NonNull::new(self.fields().pool).map(|pool| unsafe { Pool::from_raw(pool) })
    }

    /// The words behind the directive's name.
    pub(crate) fn arguments(self) -> impl Iterator<Item = &'c [u8]> + Clone {
        // SAFETY: nginx hands an array of strings over with every directive; it lives while that is read.
        let words: &[ngx_str_t] = unsafe {
            match self.fields().args.as_ref() {
                Some(args) if !args.elts.is_null() => {
                    std::slice::from_raw_parts(args.elts.cast(), args.nelts)
                }
                _ => &[],
            }
        };
        words.iter().skip(1).map(bytes)
    }

    /// Where nginx is reading, for messages that come later: `in FILE:LINE`.
    pub(crate) fn place(self) -> String {
        // SAFETY: the file, if any, lives while the directive is read.
        unsafe { self.fields().conf_file.as_ref() }.map_or_else(String::new, |file| {
            format!(
                " in {}:{}",
                String::from_utf8_lossy(bytes(&file.file.name)),
                file.line
            )
        })
    }

    /// Logs why the configuration is refused; nginx adds file and line if it is reading a file.
    pub(crate) fn refuse(self, why: fmt::Arguments<'_>) {
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; LOG_BUFFER_SIZE];
        let line = write_fmt(&mut buffer, why);
        // SAFETY: the configuration lives; the format takes a length and a pointer, which are given.
        unsafe {
            ngx_conf_log_error(
                NGX_LOG_EMERG as ngx_uint_t,
                self.as_ptr(),
                0,
                c"%*s".as_ptr(),
                line.len(),
                line.as_ptr(),
            );
        }
    }

    /// Compiles a string with variables. Err: nginx has logged why not.
    pub(crate) fn expression(self, text: &[u8]) -> Result<Expression, Refusal> {
        let refusal = || format!("cannot read \"{}\"", String::from_utf8_lossy(text));
        let mut text_in_pool = self
            .pool()
            .and_then(|pool| pool.string(text))
            .ok_or_else(refusal)?;
        // SAFETY: both are plain C structures for which all zeroes is a value.
        let (mut compile, mut value) = unsafe {
            (
                zeroed::<ngx_http_compile_complex_value_t>(),
                zeroed::<ngx_http_complex_value_t>(),
            )
        };
        compile.cf = self.as_ptr();
        compile.value = &raw mut text_in_pool;
        compile.complex_value = &raw mut value;
        // SAFETY: all pointers are valid for the call; what the value keeps lies in the cycle's pool.
        match unsafe { ngx_http_compile_complex_value(&raw mut compile) } == NGX_OK as ngx_int_t {
            true => Ok(Expression(value)),
            false => Err(refusal()),
        }
    }
}

/// A time as nginx writes it (`500ms`, `30s`, `5m`), in milliseconds.
pub(crate) fn milliseconds(text: &[u8]) -> Option<usize> {
    let mut text = ngx_str_t {
        len: text.len(),
        data: text.as_ptr().cast_mut(),
    };
    // SAFETY: nginx only reads the bytes, which live during the call.
    let time = unsafe { ngx_parse_time(&raw mut text, 0) };
    usize::try_from(time).ok()
}

/// A directive of this module.
pub(crate) trait Directive {
    /// The part of the configuration it writes to.
    type Target: Part;
    /// Its name.
    const NAME: &'static CStr;
    /// Where it may stand, and how many arguments it takes, in nginx's `NGX_HTTP_*_CONF` and `NGX_CONF_*`.
    const USE: u32;
    /// Reads the arguments.
    fn read(conf: Conf<'_>, target: &mut Self::Target) -> Result<(), Refusal>;
}

/// A part of the module's configuration: one value for each http, server or location block.
pub(crate) trait Part: Default {
    /// Where nginx keeps it: one of `NGX_HTTP_{MAIN,SRV,LOC}_CONF_OFFSET`.
    const OFFSET: usize;
    /// Takes over from the outer block what was not said.
    fn merge(&mut self, outer: &Self);
}

/// nginx's description of a directive.
pub(super) const fn command<D: Directive>() -> ngx_command_t {
    ngx_command_t {
        name: ngx_str_t {
            len: D::NAME.count_bytes(),
            data: D::NAME.as_ptr().cast_mut().cast(),
        },
        type_: D::USE as ngx_uint_t,
        set: Some(set::<D>),
        conf: D::Target::OFFSET,
        offset: 0,
        post: std::ptr::null_mut(),
    }
}

unsafe extern "C" fn set<D: Directive>(
    cf: *mut ngx_conf_t,
    _command: *mut ngx_command_t,
    target: *mut std::ffi::c_void,
) -> *mut std::ffi::c_char {
    let name = D::NAME.to_str().unwrap_or("directive");
    guard!(Entry::Configuration(name), NGX_CONF_ERROR, {
        // SAFETY: nginx hands over the configuration it reads and the part that `create` made for D's offset.
        let parts = unsafe {
            (
                NonNull::new(cf).map(|cf| Conf::from_raw(cf)),
                target.cast::<D::Target>().as_mut(),
            )
        };
        let (Some(conf), Some(target)) = parts else {
            return NGX_CONF_ERROR;
        };
        match D::read(conf, target) {
            Ok(()) => NGX_CONF_OK,
            Err(why) => {
                conf.refuse(format_args!("\"{name}\" directive: {why}"));
                NGX_CONF_ERROR
            }
        }
    })
}
