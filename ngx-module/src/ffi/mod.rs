//! The border to nginx: the only place of this crate where `unsafe` may stand.
//!
//! Thin files, one concern each. What crosses the border outwards is safe to use: a `Request<'r>` is a
//! request that lives for `'r`, a `Pool<'p>` hands out memory that lives for `'p`, and every function
//! that nginx calls runs inside [`guard`]. Nothing here decides anything about sites or backends.
#![allow(unsafe_code)]

mod builds;
pub(crate) mod conf;
pub(crate) mod content;
pub(crate) mod context;
pub(crate) mod elsewhere;
pub(crate) mod guard;
pub(crate) mod headers;
pub(crate) mod keepalive;
pub(crate) mod log;
pub(crate) mod mapping;
pub(crate) mod module;
pub(crate) mod peer;
pub(crate) mod phase;
pub(crate) mod pool;
pub(crate) mod request;
// Its first user comes with the servers of an upstream block.
#[allow(dead_code)]
pub(crate) mod shm;
pub(crate) mod subrequest;
pub(crate) mod timer;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod variable;

/// nginx's clock, in milliseconds: it never goes back, and all processes have the same.
pub(crate) fn milliseconds() -> u64 {
    // SAFETY: nginx sets it, in its one thread.
    unsafe { ngx::ffi::ngx_current_msec as u64 }
}

/// The number of this worker: from 0, and that of a dead one is given to the one that replaces it.
pub(crate) fn worker_number() -> usize {
    // SAFETY: nginx sets it before the worker begins.
    unsafe { ngx::ffi::ngx_worker }
}

/// Has the processor fetch what will be read soon, where it can be told.
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it changes nothing but what is in the caches.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
