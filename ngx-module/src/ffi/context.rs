//! Where a request keeps its [`Context`].
//!
//! nginx clears `r->ctx` at every internal redirect, and so at the step into a named location. The context
//! is therefore also found among the cleanups of the request's pool.

use std::ptr::NonNull;

use super::module::ngx_http_paas_module;
use super::pool::{Kind, is_block};
use super::request::Request;
use crate::context::Context;

/// A context and the request it belongs to: subrequests share the pool of their main request.
struct Owned {
    owner: usize,
    context: Context,
}

const _: () = assert!(is_block::<Owned>(), "most requests have one");

impl<'r> Request<'r> {
    /// The context of this very request, if it has one.
    pub(crate) fn context(self) -> Option<&'r Context> {
        let slot = self.context_slot()?;
        // SAFETY: the slot is null or was set below to a context that lives in the request's pool.
        if let Some(context) = unsafe { slot.read().cast::<Context>().as_ref() } {
            return Some(context);
        }
        // Only a redirected request or a subrequest can have lost it.
        if self.fields().internal() == 0 && self.fields().filter_finalize() == 0 {
            return None;
        }
        let owner = self.as_ptr().addr();
        // SAFETY: under this kind only `Owned` is kept, see `context_or_new`.
        let found = unsafe {
            self.pool()?
                .find::<Owned>(Kind::Context, |owned| owned.owner == owner)
        }?;
        // SAFETY: what is kept in the pool lives for 'r and is only ever borrowed shared.
        Some(self.set_context(slot, unsafe { &found.as_ref().context }))
    }

    /// The context of this very request. None: out of memory.
    pub(crate) fn context_or_new(self) -> Option<&'r Context> {
        if let Some(context) = self.context() {
            return Some(context);
        }
        let slot = self.context_slot()?;
        let kept = self.pool()?.keep_as(Some(Kind::Context), || Owned {
            owner: self.as_ptr().addr(),
            context: Context::default(),
        })?;
        // SAFETY: what is kept in the pool lives for 'r and is only ever borrowed shared.
        Some(self.set_context(slot, unsafe { &kept.as_ref().context }))
    }

    fn set_context(
        self,
        slot: NonNull<*mut std::ffi::c_void>,
        context: &'r Context,
    ) -> &'r Context {
        // SAFETY: the slot belongs to this module and lives with the request.
        unsafe { slot.write((&raw const *context).cast_mut().cast()) };
        context
    }

    fn context_slot(self) -> Option<NonNull<*mut std::ffi::c_void>> {
        // SAFETY: nginx numbers the module before the first request and then leaves the number alone.
        let index = unsafe { ngx_http_paas_module.ctx_index };
        // SAFETY: `ctx` has a slot for every http module.
        NonNull::new(self.fields().ctx).map(|slots| unsafe { slots.add(index) })
    }
}
