//! TLS sessions with peers, so that a new connection to one that is known needs no full handshake.
#![cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;

use ngx::ffi::{
    NGX_OK, SSL_SESSION, SSL_SESSION_free, ngx_connection_t, ngx_int_t, ngx_ssl_get_session,
    ngx_ssl_set_session,
};

/// Of more peers than this nothing is remembered: then all is forgotten, and learned again.
const MOST: usize = 4096;

/// The last session with each peer of an upstream block, in this worker.
#[derive(Default)]
pub(crate) struct Sessions(RefCell<HashMap<Box<[u8]>, Session>>);

struct Session(NonNull<SSL_SESSION>);

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session was given to us with a reference of our own.
        unsafe { SSL_SESSION_free(self.0.as_ptr()) };
    }
}

impl Sessions {
    /// Offers the peer of a new connection the session it had last. None: nginx has logged why that failed.
    ///
    /// # Safety
    /// The connection lives and TLS has begun on it.
    pub(super) unsafe fn offer(
        &self,
        peer: &[u8],
        connection: *mut ngx_connection_t,
    ) -> Option<()> {
        let known = self.0.try_borrow().ok()?;
        let Some(session) = known.get(peer) else {
            return Some(());
        };
        // SAFETY: as the caller says; the session lives, and nginx takes a reference of its own.
        let code = unsafe { ngx_ssl_set_session(connection, session.0.as_ptr()) };
        (code == NGX_OK as ngx_int_t).then_some(())
    }

    /// Remembers the session of a connection.
    ///
    /// # Safety
    /// As [`Sessions::offer`].
    pub(super) unsafe fn remember(&self, peer: &[u8], connection: *mut ngx_connection_t) {
        // SAFETY: as the caller says; what comes back is a reference for us to give back.
        let Some(session) = NonNull::new(unsafe { ngx_ssl_get_session(connection) }) else {
            return;
        };
        let session = Session(session);
        let Ok(mut known) = self.0.try_borrow_mut() else {
            return;
        };
        if let Some(place) = known.get_mut(peer) {
            *place = session;
        } else {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(peer.into(), session);
        }
    }
}
