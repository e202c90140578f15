//! The peers of a request's upstream: nginx asks here for the address to connect to.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;

use ngx::ffi::{
    NGX_BUSY, NGX_DONE, NGX_ERROR, NGX_OK, NGX_PEER_FAILED, NGX_PEER_NEXT, ngx_http_request_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t, ngx_str_t,
    ngx_uint_t,
};

use super::guard::{Entry, guard};
use super::keepalive::{IdleOf, PeerKey};
use super::pool::is_block;
use super::prefetch;
use super::request::Request;
use super::upstream::Upstream;
use crate::balancer::{Attempt, Failure, Outcome, Selection};
use crate::role;

/// Where a peer listens: a socket address as the kernel takes it, and how nginx prints it.
// What every request looks at comes first.
#[repr(C)]
pub(crate) struct Address {
    /// Where its idle connections are.
    pub(super) idle: Cell<Option<IdleOf>>,
    length: usize,
    /// The name as nginx's string.
    string: ngx_str_t,
    sockaddr: libc::sockaddr_storage,
    /// With a NUL behind it.
    name: Box<[u8]>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.split_last().map_or(&[][..], |(_, name)| name);
        f.write_str(&String::from_utf8_lossy(name))
    }
}

impl Address {
    /// So many bytes of it come before the socket address.
    pub(crate) const HEAD: usize = std::mem::offset_of!(Self, sockaddr);

    /// Fetches the socket address.
    pub(crate) fn fetch(&self) {
        prefetch(&self.sockaddr);
    }

    /// # Panics
    /// The kernel has no address that is so long.
    pub(super) fn new(sockaddr: &[u8], name: &[u8]) -> Self {
        let mut name: Box<[u8]> = [name, b"\0"].concat().into();
        let string = ngx_str_t {
            len: name.len() - 1,
            data: name.as_mut_ptr(),
        };
        // SAFETY: for this C structure all zeroes is a value.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let length = sockaddr.len();
        assert!(
            length <= size_of_val(&storage),
            "an address of {length} bytes"
        );
        // SAFETY: it has room for so many bytes, and any bytes are a value of it.
        unsafe {
            std::ptr::copy_nonoverlapping(
                sockaddr.as_ptr(),
                (&raw mut storage).cast::<u8>(),
                length,
            );
        }
        Self {
            sockaddr: storage,
            length,
            name,
            string,
            idle: Cell::new(None),
        }
    }

    /// The address of a backend of the table.
    pub(crate) fn from_socket(address: std::net::SocketAddr) -> Self {
        let name = address.to_string();
        // SAFETY: for both C structures all zeroes is a value, and their bytes, padding included, are then
        // initialised; they are only read.
        unsafe {
            match address {
                std::net::SocketAddr::V4(v4) => {
                    let mut raw: libc::sockaddr_in = std::mem::zeroed();
                    raw.sin_family = libc::AF_INET as libc::sa_family_t;
                    raw.sin_port = v4.port().to_be();
                    raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                    Self::new(as_bytes(&raw), name.as_bytes())
                }
                std::net::SocketAddr::V6(v6) => {
                    let mut raw: libc::sockaddr_in6 = std::mem::zeroed();
                    raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                    raw.sin6_port = v6.port().to_be();
                    raw.sin6_addr.s6_addr = v6.ip().octets();
                    raw.sin6_scope_id = v6.scope_id();
                    Self::new(as_bytes(&raw), name.as_bytes())
                }
            }
        }
    }

    /// The socket address as the kernel takes it.
    pub(crate) fn sockaddr(&self) -> &[u8] {
        // SAFETY: all of its bytes are initialised, and it has at least so many.
        unsafe { std::slice::from_raw_parts((&raw const self.sockaddr).cast(), self.length) }
    }

    /// Tells nginx to connect to it. nginx reads it until the end of the request, when it writes its log.
    fn give(&self, to: &mut ngx_peer_connection_t) {
        to.sockaddr = (&raw const self.sockaddr).cast_mut().cast();
        to.socklen = self.length as _;
        to.name = (&raw const self.string).cast_mut();
    }
}

/// # Safety
/// All bytes of the value, padding included, are initialised.
unsafe fn as_bytes<T>(value: &T) -> &[u8] {
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// nginx calls this for every request that it is about to send to the upstream.
pub(super) unsafe extern "C" fn init(
    request: *mut ngx_http_request_t,
    block: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guard!(
        Entry::Request("paas_hash peer.init"),
        NGX_ERROR as ngx_int_t,
        {
            let (Some(raw), Some(block)) = (NonNull::new(request), NonNull::new(block)) else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: nginx hands over a living request and the block, which outlives it.
            let (request, block) = unsafe { (Request::from_raw(raw), Upstream::from_raw(block)) };
            // SAFETY: after the configuration is read, this module's parts are only borrowed shared.
            let part = block.part().map(|part| unsafe { &*part.as_ptr() });
            match part.and_then(|part| start(request, part, raw)) {
                Some(()) => NGX_OK as ngx_int_t,
                None => NGX_ERROR as ngx_int_t,
            }
        }
    )
}

const _: () = assert!(is_block::<Selection<'_>>(), "most requests have one");

fn start<'r>(
    request: Request<'r>,
    part: &'r crate::directives::ServerConf,
    raw: NonNull<ngx_http_request_t>,
) -> Option<()> {
    let data = Selection::keep(request, part)?;
    // SAFETY: it lives in the request's pool, and nobody else has it yet.
    let tries = unsafe { data.as_ref() }.tries();
    // SAFETY: nginx has made the upstream of this living request before it asks for peers.
    let upstream = unsafe { raw.as_ref().upstream.as_mut()? };
    // SAFETY: it is this request's, and the selection lives in the request's pool.
    unsafe { request.context_or_new()?.detour.begin(upstream, data) };
    let peer = &mut upstream.peer;
    peer.data = data.as_ptr().cast();
    peer.get = Some(get);
    peer.free = Some(free);
    peer.tries = tries;
    // Without them `proxy_pass https://` would call a null pointer.
    #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
    {
        peer.set_session = Some(set_session);
        peer.save_session = Some(save_session);
    }
    Some(())
}

unsafe extern "C" fn get(connection: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    guard!(
        Entry::Request("paas_hash peer.get"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over the connection it prepares and what `start` put into `peer.data`.
            let parts = unsafe { (connection.as_mut(), data.cast::<Selection<'_>>().as_mut()) };
            let (Some(connection), Some(selection)) = parts else {
                return NGX_ERROR as ngx_int_t;
            };
            connection.set_cached(0);
            connection.connection = std::ptr::null_mut();
            let request = selection.request();
            if let Some(context) = request.context()
                // SAFETY: the upstream of a request that asks for a peer lives; nothing borrows it.
                && let Some(upstream) = unsafe { request.fields().upstream.as_mut() }
            {
                context.detour.end(upstream);
            }
            let keepalive = selection.keepalive();
            // The selection lives, and with it all addresses that it has given, until the pool of the request is destroyed.
            let Some(address) = selection.next() else {
                return NGX_BUSY as ngx_int_t;
            };
            address.give(connection);
            let (Some(keepalive), Some(upstream)) = (keepalive, upstream_of(request)) else {
                return NGX_OK as ngx_int_t;
            };
            let peer = keepalive.peer(address, upstream);
            selection.keeps_as(peer);
            // SAFETY: it is the request's upstream that asks for this peer.
            let reuse = |peer| unsafe { keepalive.reuse(peer, connection, request, upstream) };
            match peer.is_some_and(reuse) {
                true => NGX_DONE as ngx_int_t,
                false => NGX_OK as ngx_int_t,
            }
        }
    )
}

unsafe extern "C" fn free(
    connection: *mut ngx_peer_connection_t,
    data: *mut c_void,
    state: ngx_uint_t,
) {
    // SAFETY: nginx hands over the connection it is done with.
    let Some(connection) = (unsafe { connection.as_mut() }) else {
        return;
    };
    let tries_left = guard!(Entry::Request("paas_hash peer.free"), 0, {
        // SAFETY: as in `get`.
        if let Some(selection) = unsafe { data.cast::<Selection<'_>>().as_mut() } {
            let request = selection.request();
            selection.done(outcome(request, connection, state), attempt(request));
            keep(selection, connection, state);
        }
        connection.tries.saturating_sub(1)
    });
    connection.tries = tries_left;
}

/// Keeps the connection for another request, if it is worth it.
fn keep(selection: &Selection<'_>, connection: &mut ngx_peer_connection_t, state: ngx_uint_t) {
    let request = selection.request();
    if let Some((keepalive, peer)) = selection.keepalive().zip(selection.kept_as())
        && let Some(upstream) = upstream_of(request)
    {
        // SAFETY: nginx frees the peer of this very upstream.
        unsafe { keepalive.keep(peer, connection, upstream, state) };
    }
}

fn upstream_of(request: Request<'_>) -> Option<&ngx_http_upstream_t> {
    // SAFETY: the upstream of a request that has a peer lives as long as the request.
    unsafe { request.fields().upstream.as_ref() }
}

fn key_of(request: Request<'_>, connection: &ngx_peer_connection_t) -> Option<PeerKey> {
    // SAFETY: the address is the one that `get` set, and the upstream is nginx's.
    unsafe { PeerKey::of(connection, upstream_of(request)?) }
}

/// How the attempt went that nginx is done with.
fn outcome(request: Request<'_>, peer: &ngx_peer_connection_t, state: ngx_uint_t) -> Outcome {
    if request
        .context()
        .is_some_and(|context| context.detour.is_forced())
    {
        return Outcome::Elsewhere;
    }
    let has = |flag: u32| state & flag as ngx_uint_t != 0;
    if has(NGX_PEER_NEXT) {
        return Outcome::Refused;
    }
    let upstream = upstream_of(request);
    // SAFETY: the state is that of this attempt, and lives as long as the request.
    let attempt = upstream.and_then(|upstream| unsafe { upstream.state.as_ref() });
    // nginx writes the time when it has the whole head of the answer; until then it is -1.
    let has_answered = attempt.is_some_and(|attempt| attempt.header_time != usize::MAX);
    if !has(NGX_PEER_FAILED) {
        return match has_answered {
            true => Outcome::Answered,
            false => Outcome::Unknown,
        };
    }
    if has_answered {
        return Outcome::Failed(Failure::Answered);
    }
    // SAFETY: the connection of a peer, if any, lives here.
    let Some(connection) = (unsafe { peer.connection.as_ref() }) else {
        return Outcome::Failed(Failure::Unreached);
    };
    // SAFETY: a connection has its two events.
    let timed_out = unsafe {
        [connection.read, connection.write]
            .iter()
            .any(|event| event.as_ref().is_some_and(|e| e.timedout() != 0))
    };
    if peer.cached() != 0 && !timed_out {
        return Outcome::StaleConnection;
    }
    Outcome::Failed(match upstream {
        Some(upstream) if upstream.request_sent() == 0 => Failure::Unreached,
        _ if timed_out => Failure::Silent,
        _ => Failure::Broken,
    })
}

/// What else there is to say of it.
fn attempt(request: Request<'_>) -> Attempt {
    let fault = |upstream: &ngx_http_upstream_t| {
        upstream.headers_in.status_n >= 500
            && request
                .upstream_header(role::REASON)
                .is_some_and(role::is_backend_s_fault)
    };
    let upstream = upstream_of(request);
    Attempt {
        sent: upstream.map_or(0, |upstream| upstream.start_time as u64),
        is_backend_s_fault: upstream.is_some_and(fault),
        // SAFETY: the state is that of this attempt, and lives as long as the request.
        time: upstream
            .and_then(|upstream| unsafe { upstream.state.as_ref() })
            .map(|state| state.header_time)
            .filter(|time| *time != usize::MAX)
            .map(|time| time as u64),
    }
}

/// TLS begins on a new connection: offers the session the peer had last.
#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
unsafe extern "C" fn set_session(
    connection: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> ngx_int_t {
    guard!(
        Entry::Request("paas_hash set_session"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: as in `get`.
            let parts = unsafe { (connection.as_ref(), data.cast::<Selection<'_>>().as_ref()) };
            let (Some(connection), Some(selection)) = parts else {
                return NGX_ERROR as ngx_int_t;
            };
            let Some(key) = key_of(selection.request(), connection) else {
                return NGX_OK as ngx_int_t;
            };
            // SAFETY: nginx calls this for a connection on which TLS has begun.
            match unsafe {
                selection
                    .sessions()
                    .offer(key.bytes(), connection.connection)
            } {
                Some(()) => NGX_OK as ngx_int_t,
                None => NGX_ERROR as ngx_int_t,
            }
        }
    )
}

#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
unsafe extern "C" fn save_session(connection: *mut ngx_peer_connection_t, data: *mut c_void) {
    guard!(Entry::Request("paas_hash save_session"), (), {
        // SAFETY: as in `get`.
        let parts = unsafe { (connection.as_ref(), data.cast::<Selection<'_>>().as_ref()) };
        if let (Some(connection), Some(selection)) = parts
            && let Some(key) = key_of(selection.request(), connection)
        {
            // SAFETY: nginx calls this for a connection on which TLS goes on.
            unsafe {
                selection
                    .sessions()
                    .remember(key.bytes(), connection.connection)
            };
        }
    });
}
