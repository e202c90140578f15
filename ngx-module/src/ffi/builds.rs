//! Other builds of this module in the same process: an operator who installs a new one under a name of its own and reloads has
//! the old one's workers, the old one's memory and, if the new configuration is refused, the old configuration.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use ngx::ffi::{ngx_cycle, ngx_cycle_t, ngx_http_request_t, ngx_int_t, ngx_module_t};

use super::module::ngx_http_paas_module;

type HeaderFilter = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

/// Shows other builds this one's header filter.
///
/// # Safety
/// Called by nginx's one thread while a configuration is read.
pub(super) unsafe fn offer(filter: HeaderFilter) {
    // SAFETY: as the caller says.
    unsafe { ngx_http_paas_module.spare_hook0 = filter as *const () as usize };
}

/// The header filter of the build that the running configuration was read by, if that is not this one: filters are chained
/// while a configuration is read, and stay so if it is refused. A worker that is started then runs the old configuration, and
/// what belongs to that only its own build can read.
#[inline]
pub(super) fn filter_of_another() -> Option<HeaderFilter> {
    /// The cycle that was found to run this build.
    static OURS: AtomicPtr<ngx_cycle_t> = AtomicPtr::new(ptr::null_mut());
    // SAFETY: nginx sets it, in its one thread.
    let cycle = unsafe { ngx_cycle };
    if ptr::eq(OURS.load(Ordering::Relaxed), cycle) {
        return None;
    }
    // SAFETY: a process that handles requests has a cycle, which lives while they do.
    let running = of(unsafe { cycle.as_ref() }?)?;
    if ptr::eq(running, &raw const ngx_http_paas_module) {
        OURS.store(cycle, Ordering::Relaxed);
        return None;
    }
    // SAFETY: every build puts its header filter, or nothing, there.
    unsafe { std::mem::transmute::<usize, Option<HeaderFilter>>(running.spare_hook0) }
}

/// The build of this module that a cycle has loaded.
#[cold]
pub(super) fn of(cycle: &ngx_cycle_t) -> Option<&ngx_module_t> {
    modules(cycle).iter().find_map(|module| {
        // SAFETY: a cycle's modules, and their names, stay mapped as long as it lives.
        let module = unsafe { module.as_ref() }?;
        // SAFETY: nginx gives every module a name when it loads it.
        let is_ours = !module.name.is_null()
            && unsafe { CStr::from_ptr(module.name) } == c"ngx_http_paas_module";
        is_ours.then_some(module)
    })
}

fn modules(cycle: &ngx_cycle_t) -> &[*mut ngx_module_t] {
    match cycle.modules.is_null() {
        true => &[],
        // SAFETY: nginx's array of so many.
        false => unsafe { std::slice::from_raw_parts(cycle.modules, cycle.modules_n) },
    }
}
