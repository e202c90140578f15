//! Idle connections to peers, kept by this worker for the requests that come: `paas_keepalive`.
//!
//! nginx's own `keepalive` searches one list of all idle connections; here every peer has its own, so that the cost does not grow
//! with the number of peers. One timer for all of them closes what has been idle for too long.

use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::collections::HashSet;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::{self, NonNull};

use arguments::{Keepalive as Settings, Reuse};
use ngx::ffi::{
    NGX_OK, NGX_PEER_FAILED, NGX_TIMER_LAZY_DELAY, ngx_add_timer, ngx_close_connection,
    ngx_connection_t, ngx_current_msec, ngx_cycle, ngx_del_timer, ngx_destroy_pool, ngx_event_t,
    ngx_exiting, ngx_handle_read_event, ngx_http_upstream_t, ngx_int_t, ngx_log_t,
    ngx_peer_connection_t, ngx_terminate, ngx_uint_t,
};
use routing::idle::{Idle, PeerId, Ticket};

use super::guard::{Entry, guard};
use super::peer::Address;
use super::prefetch;
use super::request::Request;

/// The idle connections of one upstream block in this worker.
pub(crate) struct Keepalive {
    settings: Settings,
    /// Where it was said, for messages.
    place: String,
    idle: RefCell<Idle<NonNull<ngx_connection_t>>>,
    /// What idle connections lead back here by, by ticket. A worker makes them when it keeps its first connection.
    handles: OnceCell<Box<[Handle]>>,
    /// The last state of the backends that the idle connections were compared with.
    agreed: Cell<Option<u64>>,
    /// Closes what has been idle for too long; on nginx's clock while anything is kept.
    sweep: UnsafeCell<ngx_event_t>,
}

struct Handle {
    owner: *const Keepalive,
    ticket: Ticket,
}

/// What makes connections alike: the address, and who speaks on them. Over TLS the location counts, too: its settings decided what
/// was checked when the connection was made.
pub(super) struct PeerKey {
    bytes: [u8; Self::SPEAKER + size_of::<libc::sockaddr_storage>()],
    length: usize,
}

impl PeerKey {
    const SPEAKER: usize = size_of::<usize>();

    /// None: there is no address.
    ///
    /// # Safety
    /// The connection has an address of the length it says, and the upstream is one that nginx has made.
    pub(super) unsafe fn of(
        connection: &ngx_peer_connection_t,
        upstream: &ngx_http_upstream_t,
    ) -> Option<Self> {
        // SAFETY: as the caller says.
        let address = unsafe {
            NonNull::new(connection.sockaddr)?;
            std::slice::from_raw_parts(
                connection.sockaddr.cast::<u8>(),
                connection.socklen as usize,
            )
        };
        Self::new(speaker(upstream), address)
    }

    fn new(speaker: usize, address: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::SPEAKER + size_of::<libc::sockaddr_storage>()];
        let length = Self::SPEAKER + address.len();
        let (head, tail) = bytes.split_at_mut_checked(Self::SPEAKER)?;
        head.copy_from_slice(&speaker.to_ne_bytes());
        tail.get_mut(..address.len())?.copy_from_slice(address);
        Some(Self { bytes, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The address in a key.
    fn address(key: &[u8]) -> &[u8] {
        key.get(Self::SPEAKER..).unwrap_or_default()
    }
}

/// Who speaks on the connections of an upstream.
fn speaker(upstream: &ngx_http_upstream_t) -> usize {
    match is_tls(upstream) {
        true => upstream.conf.addr(),
        false => upstream.output.tag.addr(),
    }
}

/// The peer that an address was for the block that has asked last. Both are of one configuration, and end with it.
#[derive(Clone, Copy)]
pub(super) struct IdleOf {
    keepalive: NonNull<Keepalive>,
    speaker: usize,
    peer: PeerId,
}

#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl", ngx_feature = "compat"))]
fn is_tls(upstream: &ngx_http_upstream_t) -> bool {
    upstream.ssl() != 0
}

#[cfg(not(any(ngx_feature = "ssl", ngx_feature = "http_ssl", ngx_feature = "compat")))]
fn is_tls(_upstream: &ngx_http_upstream_t) -> bool {
    false
}

impl Keepalive {
    pub(crate) fn new(settings: Settings, place: String) -> Self {
        Self {
            settings,
            place,
            idle: RefCell::new(Idle::new(settings.limits)),
            handles: OnceCell::new(),
            agreed: Cell::new(None),
            // SAFETY: for nginx's event all zeroes is a value.
            sweep: UnsafeCell::new(unsafe { zeroed() }),
        }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The peer at an address.
    pub(super) fn peer(&self, address: &Address, upstream: &ngx_http_upstream_t) -> Option<PeerId> {
        let mut idle = self.idle.try_borrow_mut().ok()?;
        let speaker = speaker(upstream);
        if let Some(known) = address.idle.get()
            && ptr::eq(known.keepalive.as_ptr(), self)
            && known.speaker == speaker
            && idle.knows(known.peer)
        {
            return Some(known.peer);
        }
        let peer = idle.peer(PeerKey::new(speaker, address.sockaddr())?.bytes());
        address.idle.set(Some(IdleOf {
            keepalive: NonNull::from(self),
            speaker,
            peer,
        }));
        Some(peer)
    }

    /// A connection to this address will be asked for soon: fetches the memory of the idle one that there is.
    pub(crate) fn expect(&self, address: &Address) {
        if let Some(known) = address.idle.get()
            && ptr::eq(known.keepalive.as_ptr(), self)
            && let Ok(idle) = self.idle.try_borrow()
            && let Some(connection) = idle.newest(known.peer)
        {
            fetch(*connection);
        }
    }

    /// Gives the request an idle connection to this peer, if there is one.
    ///
    /// # Safety
    /// The upstream is the request's, and asks for a peer.
    pub(super) unsafe fn reuse(
        &self,
        peer: PeerId,
        to: &mut ngx_peer_connection_t,
        request: Request<'_>,
        upstream: &ngx_http_upstream_t,
    ) -> bool {
        // Whether it can be repeated if the other side has closed the connection.
        let repeatable = request.is_idempotent();
        if !repeatable && self.settings.reuse == Reuse::Repeatable {
            return false;
        }
        while let Some(mut kept) = self.take(peer) {
            // SAFETY: what is kept is a living connection with its two events and its pool.
            unsafe {
                if !repeatable && !is_silent(kept.as_ref()) {
                    close(kept.as_ptr());
                    continue;
                }
                let connection = kept.as_mut();
                connection.set_idle(0);
                connection.sent = 0;
                connection.data = ptr::null_mut();
                set_log(connection, to.log);
                let read = connection.read;
                if (*read).timer_set() != 0
                    && !(is_sent_at_once(request, upstream) && is_as_good_as_new(&*read, upstream))
                {
                    ngx_del_timer(read);
                }
            }
            to.connection = kept.as_ptr();
            to.set_cached(1);
            return true;
        }
        false
    }

    /// Keeps the connection a request is done with, if it may serve another.
    ///
    /// # Safety
    /// The upstream is the one whose peer this connection is.
    pub(super) unsafe fn keep(
        &self,
        peer: PeerId,
        from: &mut ngx_peer_connection_t,
        upstream: &ngx_http_upstream_t,
        state: ngx_uint_t,
    ) {
        let Some(mut kept) = NonNull::new(from.connection) else {
            return;
        };
        if state & NGX_PEER_FAILED as ngx_uint_t != 0
            || upstream.keepalive() == 0
            || upstream.request_body_sent() == 0
        {
            return;
        }
        // SAFETY: the connection lives, and is nobody else's after its request.
        let connection = unsafe { kept.as_mut() };
        // SAFETY: as above; an open connection has its two events. The globals are nginx's, and it has one thread.
        unsafe {
            let now = ngx_current_msec;
            if ngx_terminate != 0
                || ngx_exiting != 0
                || connection.requests >= self.settings.requests
                || now.wrapping_sub(connection.start_time) > self.settings.time
                || !is_open(connection)
                || ngx_handle_read_event(connection.read, 0) != NGX_OK as ngx_int_t
                || (*connection.read).ready() != 0 && !is_silent(connection)
            {
                return;
            }
            // The timer of the read time-out stays: most often the next request would set it to nearly the same time.
            if (*connection.write).timer_set() != 0 {
                ngx_del_timer(connection.write);
            }
            if (*connection.read).delayed() != 0 {
                (*connection.read).set_delayed(0);
                if (*connection.read).timer_set() != 0 {
                    ngx_del_timer(connection.read);
                }
            }
            (*connection.read).handler = Some(readable);
            (*connection.write).handler = Some(writable);
            set_log(connection, cycle_log());
        }
        connection.set_idle(1);
        if self.put(peer, kept, from, upstream) {
            from.connection = ptr::null_mut();
        } else {
            connection.set_idle(0);
        }
    }

    /// Closes the idle connections to addresses that are not `wanted` any more, once for every `state` of them.
    pub(crate) fn agree_with<'a>(&self, state: u64, wanted: impl FnOnce() -> HashSet<&'a [u8]>) {
        if self.agreed.replace(Some(state)) != Some(state) {
            let wanted = wanted();
            self.close_to(|address| !wanted.contains(address));
        }
    }

    /// Closes the idle connections to the addresses that are `unwanted`.
    pub(crate) fn close_to(&self, unwanted: impl Fn(&[u8]) -> bool) {
        let Ok(mut idle) = self.idle.try_borrow_mut() else {
            return;
        };
        let gone = idle.take_of(|key| unwanted(PeerKey::address(key)));
        drop(idle);
        for connection in gone {
            // SAFETY: what was kept is a living connection, and nobody else's.
            unsafe { close(connection.as_ptr()) };
        }
    }

    fn take(&self, peer: PeerId) -> Option<NonNull<ngx_connection_t>> {
        self.idle.try_borrow_mut().ok()?.take(peer)
    }

    /// Whether it was kept.
    fn put(
        &self,
        peer: PeerId,
        mut connection: NonNull<ngx_connection_t>,
        from: &ngx_peer_connection_t,
        upstream: &ngx_http_upstream_t,
    ) -> bool {
        let Ok(mut idle) = self.idle.try_borrow_mut() else {
            return false;
        };
        let peer = match idle.knows(peer) {
            true => peer,
            // SAFETY: the upstream is the one whose peer this was, which has its address.
            false => match unsafe { PeerKey::of(from, upstream) } {
                Some(key) => idle.peer(key.bytes()),
                None => return false,
            },
        };
        // SAFETY: nginx's clock, in its one thread.
        let now = unsafe { ngx_current_msec };
        let Ok((ticket, displaced)) = idle.put(peer, now as u64, connection) else {
            return false;
        };
        drop(idle);
        let handles = self.handles.get_or_init(|| {
            let owner = ptr::from_ref(self);
            Ticket::all(self.settings.limits.total)
                .map(|ticket| Handle { owner, ticket })
                .collect()
        });
        if let Some(handle) = handles.get(ticket.index()) {
            // SAFETY: the connection lives and is ours now; the handle lives as long as this.
            unsafe { connection.as_mut().data = ptr::from_ref::<Handle>(handle).cast_mut().cast() };
        }
        if let Some(displaced) = displaced {
            // SAFETY: what was kept is a living connection, and nobody else's.
            unsafe { close(displaced.as_ptr()) };
        }
        self.wind_up();
        true
    }

    /// Sets the timer for the connection that will be idle for too long first.
    fn wind_up(&self) {
        let sweep = self.sweep.get();
        let Some(oldest) = self.idle.try_borrow().ok().and_then(|idle| idle.oldest()) else {
            return;
        };
        // SAFETY: the event lies in a box that outlives its timer, see Drop; nginx has one thread.
        unsafe {
            if (*sweep).timer_set() != 0 {
                return;
            }
            let idle_for = ngx_current_msec.saturating_sub(oldest as usize);
            (*sweep).data = ptr::from_ref(self).cast_mut().cast();
            (*sweep).handler = Some(sweep_out);
            (*sweep).log = cycle_log();
            // A worker that is told to end does not wait for it.
            (*sweep).set_cancelable(1);
            ngx_add_timer(sweep, self.settings.timeout.saturating_sub(idle_for).max(1));
        }
    }

    fn close_expired(&self) {
        // SAFETY: nginx's clock, in its one thread.
        let now = unsafe { ngx_current_msec };
        let Some(since) = now.checked_sub(self.settings.timeout) else {
            return self.wind_up();
        };
        loop {
            let Ok(mut idle) = self.idle.try_borrow_mut() else {
                return;
            };
            let Some(connection) = idle.take_idle_since(since as u64) else {
                break;
            };
            drop(idle);
            // SAFETY: what was kept is a living connection, and nobody else's.
            unsafe { close(connection.as_ptr()) };
        }
        self.wind_up();
    }
}

impl Drop for Keepalive {
    fn drop(&mut self) {
        let sweep = self.sweep.get_mut();
        if sweep.timer_set() != 0 {
            // SAFETY: the event is on nginx's clock.
            unsafe { ngx_del_timer(sweep) };
        }
    }
}

/// Fetches what is looked at when a connection is used again.
fn fetch(connection: NonNull<ngx_connection_t>) {
    // SAFETY: what is kept is a living connection; the cycle is null or nginx's, with as many events as connections.
    unsafe {
        prefetch(&connection.as_ref().read);
        prefetch(&connection.as_ref().log);
        prefetch(&connection.as_ref().requests);
        // Its event has the same number. The pointer to it is not here yet.
        if let Some(cycle) = ngx_cycle.as_ref()
            && let Some(distance) = connection
                .addr()
                .get()
                .checked_sub(cycle.connections.addr())
            && let number = distance / size_of::<ngx_connection_t>()
            && number < cycle.connection_n
        {
            let read = cycle.read_events.add(number);
            prefetch(&(*read).handler);
            prefetch(&(*read).timer);
        }
    }
}

fn cycle_log() -> *mut ngx_log_t {
    // SAFETY: nginx sets it before it loads modules, and replaces it by another valid one.
    unsafe { ngx_cycle.as_ref() }.map_or(ptr::null_mut(), |cycle| cycle.log)
}

/// # Safety
/// The connection lives and has its two events.
unsafe fn set_log(connection: &mut ngx_connection_t, log: *mut ngx_log_t) {
    connection.log = log;
    // SAFETY: as the caller says.
    unsafe {
        (*connection.read).log = log;
        (*connection.write).log = log;
        if let Some(pool) = connection.pool.as_mut() {
            pool.log = log;
        }
    }
}

/// # Safety
/// As [`set_log`].
unsafe fn is_open(connection: &ngx_connection_t) -> bool {
    // SAFETY: as the caller says.
    let (read, write) = unsafe { (&*connection.read, &*connection.write) };
    read.eof() == 0
        && read.error() == 0
        && read.timedout() == 0
        && write.error() == 0
        && write.timedout() == 0
}

/// Whether the other side has neither closed the connection nor sent what nobody asked for.
///
/// # Safety
/// As [`set_log`].
unsafe fn is_silent(connection: &ngx_connection_t) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the descriptor is open and the buffer has one byte; sockets of nginx do not block.
    let received = unsafe {
        libc::recv(
            connection.fd,
            (&raw mut byte).cast::<c_void>(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    let nothing =
        received == -1 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock;
    if nothing {
        // SAFETY: as the caller says.
        unsafe { (*connection.read).set_ready(0) };
    }
    nothing
}

/// Whether a request is sent as soon as it has a connection, so that waiting for the answer begins at once: it has no body, and an
/// idle connection has room for its head.
///
/// # Safety
/// The upstream is the request's, and asks for a peer.
unsafe fn is_sent_at_once(request: Request<'_>, upstream: &ngx_http_upstream_t) -> bool {
    const ROOM: usize = 16 << 10;
    // Its body may still be on its way.
    if request.fields().request_body_no_buffering() != 0 {
        return false;
    }
    // SAFETY: what is to be sent is complete when nginx asks for a peer: a chain of buffers.
    unsafe {
        upstream.request_bufs.as_ref().is_some_and(|link| {
            let buffer = &*link.buf;
            let length = (buffer.last as usize).saturating_sub(buffer.pos as usize);
            link.next.is_null() && buffer.in_file() == 0 && length <= ROOM
        })
    }
}

/// Whether the timer that the request before has left does for this one: it is due at nearly the time that nginx would set, so
/// that nginx lets it be, too; and what it is early is little of the whole.
///
/// # Safety
/// The upstream is one that nginx has made.
unsafe fn is_as_good_as_new(read: &ngx_event_t, upstream: &ngx_http_upstream_t) -> bool {
    const EARLY: usize = NGX_TIMER_LAZY_DELAY as usize;
    // SAFETY: as the caller says, so it has a configuration; the clock is nginx's, and it has one thread.
    let (timeout, now) = unsafe { ((*upstream.conf).read_timeout, ngx_current_msec) };
    timeout >= 30 * EARLY && now.wrapping_add(timeout).abs_diff(read.timer.key) < EARLY
}

/// # Safety
/// The connection lives, nobody else uses it, and it is not in any [`Idle`].
unsafe fn close(connection: *mut ngx_connection_t) {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
        if let Some(tls) = (*connection).ssl.as_mut() {
            tls.set_no_wait_shutdown(1);
            tls.set_no_send_shutdown(1);
            if ngx::ffi::ngx_ssl_shutdown(connection) == ngx::ffi::NGX_AGAIN as ngx_int_t {
                tls.handler = Some(close_later);
                return;
            }
        }
        if !(*connection).pool.is_null() {
            ngx_destroy_pool((*connection).pool);
        }
        ngx_close_connection(connection);
    }
}

#[cfg(any(ngx_feature = "ssl", ngx_feature = "http_ssl"))]
unsafe extern "C" fn close_later(connection: *mut ngx_connection_t) {
    // SAFETY: nginx calls this for the connection that `close` began to close.
    guard!(Entry::Cleanup, (), unsafe { close(connection) });
}

/// Nothing is written to an idle connection.
unsafe extern "C" fn writable(_event: *mut ngx_event_t) {
    guard!(Entry::Cleanup, (), ());
}

/// An idle connection was closed by the other side, or has something to read; or this worker is told to end.
unsafe extern "C" fn readable(event: *mut ngx_event_t) {
    guard!(Entry::Cleanup, (), {
        // SAFETY: nginx calls this for the read event of a connection that `put` has set the data of.
        unsafe {
            let connection = (*event).data.cast::<ngx_connection_t>();
            if (*connection).close() == 0 && (*event).timedout() != 0 {
                // The read time-out of the request before has nothing to say here.
                (*event).set_timedout(0);
                return;
            }
            if (*connection).close() == 0
                && is_silent(&*connection)
                && ngx_handle_read_event(event, 0) == NGX_OK as ngx_int_t
            {
                return;
            }
            let handle = (*connection).data.cast::<Handle>();
            let (owner, ticket) = (&*(*handle).owner, (*handle).ticket);
            let found = owner
                .idle
                .try_borrow_mut()
                .ok()
                .and_then(|mut idle| idle.remove(ticket));
            if found.is_some_and(|found| found.as_ptr() == connection) {
                close(connection);
            }
        }
    });
}

unsafe extern "C" fn sweep_out(event: *mut ngx_event_t) {
    guard!(Entry::Cleanup, (), {
        // SAFETY: nginx calls this for the event that `wind_up` set the data of; its owner lives, see Drop.
        unsafe { (*(*event).data.cast::<Keepalive>()).close_expired() };
    });
}
