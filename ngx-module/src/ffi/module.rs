//! What nginx looks for in the shared object: the module, its callbacks while a configuration is read, and
//! the header filter.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF_OFFSET,
    NGX_HTTP_MODULE, NGX_HTTP_SRV_CONF_OFFSET, NGX_OK, NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER,
    ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_http_conf_ctx_t, ngx_http_filter_finalize_request,
    ngx_http_module, ngx_http_module_t, ngx_http_output_header_filter_pt, ngx_http_request_t,
    ngx_http_top_header_filter, ngx_int_t, ngx_module_t, ngx_process, ngx_uint_t,
};

use super::conf::{Conf, Part, command};
use super::guard::{Entry, guard};
use super::request::Request;
use super::{builds, phase, upstream, variable};
use crate::directives::{HttpConf, LocationConf, ServerConf};
use crate::{activity, directives, fallback, monitor, role, variables};

/// nginx's description of this module. nginx numbers it when it loads it.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static mut ngx_http_paas_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CALLBACKS).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_process: Some(init_process),
    ..ngx_module_t::default()
};

static mut COMMANDS: [ngx_command_t; 12] = [
    command::<directives::PaasTable>(),
    command::<directives::PaasActivity>(),
    command::<directives::PaasSocket>(),
    command::<directives::PaasRole>(),
    command::<directives::PaasHash>(),
    command::<directives::PaasKeepalive>(),
    command::<directives::PaasEject>(),
    command::<directives::PaasFallback>(),
    command::<directives::PaasMonitor>(),
    command::<directives::PaasHealth>(),
    command::<directives::PaasStatus>(),
    ngx_command_t::empty(),
];

static CALLBACKS: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(create::<HttpConf>),
    init_main_conf: None,
    create_srv_conf: Some(create::<ServerConf>),
    merge_srv_conf: Some(merge::<ServerConf>),
    create_loc_conf: Some(create::<LocationConf>),
    merge_loc_conf: Some(merge::<LocationConf>),
};

/// A list of pointers that nginx reads when it loads the module.
#[repr(transparent)]
pub struct Pointers<T, const N: usize>([*const T; N]);

// SAFETY: the pointers lead to statics and are only read, by nginx's one thread.
unsafe impl<T, const N: usize> Sync for Pointers<T, N> {}

/// The modules in this shared object.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static ngx_modules: Pointers<ngx_module_t, 2> =
    Pointers([&raw const ngx_http_paas_module, ptr::null()]);

/// Their names.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static ngx_module_names: Pointers<c_char, 2> =
    Pointers([c"ngx_http_paas_module".as_ptr(), ptr::null()]);

/// Where the module belongs: where nginx's build puts a module of the type HTTP_AUX_FILTER.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static ngx_module_order: Pointers<c_char, 3> = Pointers([
    c"ngx_http_paas_module".as_ptr(),
    c"ngx_http_copy_filter_module".as_ptr(),
    ptr::null(),
]);

impl Part for HttpConf {
    const OFFSET: usize = NGX_HTTP_MAIN_CONF_OFFSET;

    fn merge(&mut self, _outer: &Self) {}
}

impl Part for ServerConf {
    const OFFSET: usize = NGX_HTTP_SRV_CONF_OFFSET;

    fn merge(&mut self, outer: &Self) {
        self.inherit(outer);
    }
}

impl Part for LocationConf {
    const OFFSET: usize = NGX_HTTP_LOC_CONF_OFFSET;

    fn merge(&mut self, outer: &Self) {
        self.inherit(outer);
    }
}

impl<'r> Request<'r> {
    pub(crate) fn http_conf(self) -> Option<&'r HttpConf> {
        // SAFETY: this module's slot holds what `create` made; it outlives the request.
        unsafe { slot(self.fields().main_conf)?.cast::<HttpConf>().as_ref() }
    }

    pub(crate) fn server_conf(self) -> Option<&'r ServerConf> {
        // SAFETY: as above.
        unsafe { slot(self.fields().srv_conf)?.cast::<ServerConf>().as_ref() }
    }

    pub(crate) fn location_conf(self) -> Option<&'r LocationConf> {
        // SAFETY: as above.
        unsafe {
            slot(self.fields().loc_conf)?
                .cast::<LocationConf>()
                .as_ref()
        }
    }
}

impl Conf<'_> {
    /// Works on what belongs to the http block as a whole while another part of the configuration is read.
    pub(crate) fn with_http<R>(self, work: impl FnOnce(&mut HttpConf) -> R) -> Option<R> {
        // SAFETY: this module's slot holds what `create` made, and no directive that calls this targets it.
        unsafe {
            let mut http = main_part::<HttpConf>(self, ngx_http_paas_module.ctx_index)?;
            Some(work(http.as_mut()))
        }
    }
}

/// # Safety
/// `parts` is null or nginx's array with a slot for every http module.
unsafe fn slot(parts: *mut *mut c_void) -> Option<*mut c_void> {
    // SAFETY: as the caller says; nginx has numbered the module.
    unsafe {
        let index = ngx_http_paas_module.ctx_index;
        NonNull::new(parts).map(|parts| *parts.as_ptr().add(index))
    }
}

/// A module's part of the http block.
///
/// # Safety
/// `T` is what the http module with this index keeps for the http block.
pub(super) unsafe fn main_part<T>(conf: Conf<'_>, index: usize) -> Option<NonNull<T>> {
    // SAFETY: while an http block is read, `ctx` is that of http configurations.
    unsafe {
        let context = conf.fields().ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
        let parts = NonNull::new(context.main_conf)?;
        NonNull::new((*parts.as_ptr().add(index)).cast())
    }
}

unsafe extern "C" fn create<P: Part>(cf: *mut ngx_conf_t) -> *mut c_void {
    guard!(
        Entry::Configuration("create configuration"),
        ptr::null_mut(),
        {
            // SAFETY: nginx hands over the configuration it reads.
            let conf = NonNull::new(cf).map(|cf| unsafe { Conf::from_raw(cf) });
            let part = conf
                .and_then(Conf::pool)
                .and_then(|pool| pool.keep(P::default));
            part.map_or(ptr::null_mut(), |part| part.as_ptr().cast())
        }
    )
}

unsafe extern "C" fn merge<P: Part>(
    _cf: *mut ngx_conf_t,
    outer: *mut c_void,
    inner: *mut c_void,
) -> *mut c_char {
    guard!(
        Entry::Configuration("merge configuration"),
        NGX_CONF_ERROR,
        {
            // SAFETY: both were made by `create::<P>` and are different.
            let parts = unsafe { (outer.cast::<P>().as_ref(), inner.cast::<P>().as_mut()) };
            let (Some(outer), Some(inner)) = parts else {
                return NGX_CONF_ERROR;
            };
            inner.merge(outer);
            NGX_CONF_OK
        }
    )
}

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard!(
        Entry::Configuration("preconfiguration"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over the configuration it reads.
            let conf = NonNull::new(cf).map(|cf| unsafe { Conf::from_raw(cf) });
            match conf.and_then(register_variables) {
                Some(()) => NGX_OK as ngx_int_t,
                None => NGX_ERROR as ngx_int_t,
            }
        }
    )
}

fn register_variables(conf: Conf<'_>) -> Option<()> {
    variable::register::<variables::Site>(conf)?;
    variable::register::<variables::SiteId>(conf)?;
    variable::register::<variables::Socket>(conf)?;
    variable::register::<variables::Protocol>(conf)?;
    variable::register::<variables::Backend>(conf)?;
    variable::register::<variables::Sent>(conf)?;
    variable::register::<variables::Idempotent>(conf)?;
    variable::register::<variables::Reason>(conf)?;
    variable::register::<variables::Id>(conf)
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard!(
        Entry::Configuration("postconfiguration"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over the configuration it reads.
            let Some(conf) = NonNull::new(cf).map(|cf| unsafe { Conf::from_raw(cf) }) else {
                return NGX_ERROR as ngx_int_t;
            };
            let checked = conf.with_http(|http| directives::check(http, upstream::all(conf)));
            if let Some(Err(why)) = checked {
                conf.refuse(format_args!("{why}"));
                return NGX_ERROR as ngx_int_t;
            }
            let gate = phase::register::<role::Foresight>(conf)
                .and_then(|()| phase::register::<role::Gate>(conf));
            let fallback = match conf.with_http(|http| http.has_fallback) {
                Some(true) => phase::register::<fallback::Fallback>(conf),
                _ => Some(()),
            };
            if gate.and(fallback).is_none() {
                return NGX_ERROR as ngx_int_t;
            }
            // SAFETY: filters are chained by nginx's one thread while a configuration is read.
            unsafe {
                let next =
                    ngx_http_top_header_filter.map_or(ptr::null_mut(), |filter| filter as *mut ());
                NEXT_HEADER_FILTER.store(next, Ordering::Relaxed);
                ngx_http_top_header_filter = Some(header_filter);
                builds::offer(header_filter);
            }
            NGX_OK as ngx_int_t
        }
    )
}

/// A process begins to serve. Whatever goes wrong here must not keep it from that.
unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    guard!(Entry::Process, (), {
        // SAFETY: nginx sets it before; helpers of nginx's cache come here, too.
        let process = unsafe { ngx_process };
        if ![NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER].contains(&(process as u32)) {
            return;
        }
        // SAFETY: the cycle is complete: it has a slot for every module, and if it has an http block, this module's part
        // of it is what `create` made.
        let http = unsafe {
            NonNull::new(*(*cycle).conf_ctx.add(ngx_http_module.index))
                .map(|context| context.cast::<ngx_http_conf_ctx_t>())
                .and_then(|context| slot((*context.as_ptr()).main_conf))
                .and_then(|part| part.cast::<HttpConf>().as_ref())
        };
        if let Some(counters) = http.and_then(|http| http.activity.as_ref()?.as_ref()) {
            activity::start(counters);
        }
        if let Some(monitor) = http.and_then(|http| http.monitor.as_ref()?.as_ref()) {
            monitor::start(monitor);
        }
    });
    NGX_OK as ngx_int_t
}

static NEXT_HEADER_FILTER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" fn header_filter(request: *mut ngx_http_request_t) -> ngx_int_t {
    if let Some(filter) = builds::filter_of_another() {
        // SAFETY: it takes the request on as this one would.
        return unsafe { filter(request) };
    }
    let Some(raw) = NonNull::new(request) else {
        return NGX_ERROR as ngx_int_t;
    };
    // SAFETY: nginx hands over a living request.
    let request_here = unsafe { Request::from_raw(raw) };
    // What nginx answers by itself after a filter failed is nobody's answer, and must not fail again.
    let is_failing = request_here.fields().filter_finalize() != 0;
    let failed = guard!(Entry::Request("header filter"), true, {
        role::filter_answer(request_here);
        false
    });
    if failed && !is_failing {
        let status = NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
        // SAFETY: this is how a header filter answers with an error page; it ends with another run of the filters.
        return unsafe {
            ngx_http_filter_finalize_request(request, &raw mut ngx_http_paas_module, status)
        };
    }
    let next = NEXT_HEADER_FILTER.load(Ordering::Relaxed);
    // SAFETY: it is null or the filter that `postconfiguration` stored; None is represented as null.
    match unsafe { std::mem::transmute::<*mut (), ngx_http_output_header_filter_pt>(next) } {
        // SAFETY: every filter takes the request on.
        Some(next) => unsafe { next(request) },
        None => NGX_OK as ngx_int_t,
    }
}
