//! An `upstream` block while the configuration is read.

use std::marker::PhantomData;
use std::ptr::NonNull;

use ngx::ffi::{
    NGX_ERROR, NGX_HTTP_UPSTREAM_BACKUP, NGX_HTTP_UPSTREAM_CREATE, NGX_HTTP_UPSTREAM_DOWN,
    NGX_HTTP_UPSTREAM_FAIL_TIMEOUT, NGX_HTTP_UPSTREAM_MAX_CONNS, NGX_HTTP_UPSTREAM_MAX_FAILS,
    NGX_HTTP_UPSTREAM_WEIGHT, NGX_OK, ngx_addr_t, ngx_array_push, ngx_conf_t, ngx_http_conf_ctx_t,
    ngx_http_upstream_init_round_robin, ngx_http_upstream_main_conf_t, ngx_http_upstream_module,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_parse_url,
    ngx_shm_zone_t, ngx_uint_t, ngx_url_t,
};

use super::conf::{Conf, Refusal};
use super::guard::{Entry, guard};
use super::module::{main_part, ngx_http_paas_module};
use super::peer;
use super::request::bytes;
use crate::directives::{HttpConf, ServerConf};

/// An `upstream` block that lives for `'c`.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'c> {
    raw: NonNull<ngx_http_upstream_srv_conf_t>,
    lives: PhantomData<&'c ngx_http_upstream_srv_conf_t>,
}

/// A `server` line.
pub(crate) struct Server<'c> {
    /// As written.
    pub(crate) name: &'c [u8],
    pub(crate) addresses: Vec<peer::Address>,
    pub(crate) weight: usize,
    pub(crate) down: bool,
    pub(crate) backup: bool,
    pub(crate) max_conns: usize,
    pub(crate) max_fails: usize,
    pub(crate) fail_timeout: i64,
    /// nginx would ask for its addresses while it is used (`resolve`).
    pub(crate) is_resolved_later: bool,
}

impl<'c> Upstream<'c> {
    /// # Safety
    /// `raw` is an upstream block that lives until `'c` ends.
    pub(super) unsafe fn from_raw(raw: NonNull<ngx_http_upstream_srv_conf_t>) -> Self {
        Self {
            raw,
            lives: PhantomData,
        }
    }

    /// The block that a directive is being read in.
    pub(crate) fn current(conf: Conf<'c>) -> Option<Self> {
        // SAFETY: in an upstream block `ctx` is that of http configurations, and nginx's upstream module keeps
        // the block in its slot for servers; it lives as long as the configuration.
        unsafe {
            let index = ngx_http_upstream_module.ctx_index;
            let context = conf.fields().ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
            NonNull::new(*context.srv_conf.add(index)).map(|block| Self::from_raw(block.cast()))
        }
    }

    fn fields(self) -> &'c ngx_http_upstream_srv_conf_t {
        // SAFETY: by construction.
        unsafe { self.raw.as_ref() }
    }

    pub(crate) fn name(self) -> &'c [u8] {
        bytes(&self.fields().host)
    }

    /// Whether a balancing method, or `keepalive`, came before.
    pub(crate) fn has_method(self) -> bool {
        self.fields().peer.init_upstream.is_some()
    }

    /// Whether something else was put around this module after [`Upstream::claim`]: `keepalive`, most likely.
    pub(crate) fn is_wrapped(self) -> bool {
        let ours: unsafe extern "C" fn(_, _) -> _ = init;
        self.fields()
            .peer
            .init_upstream
            .is_none_or(|found| !std::ptr::fn_addr_eq(found, ours))
    }

    /// The name of the block's `zone`, if it has one.
    pub(crate) fn zone(self) -> Option<&'c [u8]> {
        // SAFETY: a zone's description lives as long as the configuration.
        let zone: &'c ngx_shm_zone_t = unsafe { self.fields().shm_zone.as_ref() }?;
        Some(bytes(&zone.shm.name))
    }

    /// The block's `server` lines, in their order.
    pub(crate) fn servers(self) -> impl Iterator<Item = Server<'c>> {
        // SAFETY: `servers` is null or an array of servers, which lives with the block.
        let servers: &[ngx_http_upstream_server_t] = unsafe {
            match self.fields().servers.as_ref() {
                Some(servers) if !servers.elts.is_null() => {
                    std::slice::from_raw_parts(servers.elts.cast(), servers.nelts)
                }
                _ => &[],
            }
        };
        servers.iter().map(|server| Server {
            name: bytes(&server.name),
            // SAFETY: a server has `naddrs` addresses, which live with the block.
            addresses: unsafe { addresses(server.addrs, server.naddrs) },
            weight: server.weight,
            down: server.down != 0,
            backup: server.backup() != 0,
            max_conns: server.max_conns,
            max_fails: server.max_fails,
            fail_timeout: server.fail_timeout,
            is_resolved_later: is_resolved_later(server),
        })
    }

    /// Makes this module the block's balancing method.
    pub(crate) fn claim(self) {
        // SAFETY: the block lives and nobody else changes it while a directive in it is read.
        let fields = unsafe { &mut *self.raw.as_ptr() };
        fields.peer.init_upstream = Some(init);
        fields.flags = (NGX_HTTP_UPSTREAM_CREATE
            | NGX_HTTP_UPSTREAM_WEIGHT
            | NGX_HTTP_UPSTREAM_MAX_CONNS
            | NGX_HTTP_UPSTREAM_MAX_FAILS
            | NGX_HTTP_UPSTREAM_FAIL_TIMEOUT
            | NGX_HTTP_UPSTREAM_DOWN
            | NGX_HTTP_UPSTREAM_BACKUP) as ngx_uint_t;
    }

    /// Adds a server that is never used: nginx refuses an upstream block without one. None: out of memory.
    pub(crate) fn add_placeholder(self, conf: Conf<'_>) -> Option<()> {
        let pool = conf.pool()?;
        // SAFETY: for nginx's URL all zeroes is a value; the address is parsed without asking anybody, and what
        // is pushed is new memory for one server.
        unsafe {
            let mut url: ngx_url_t = std::mem::zeroed();
            url.url = pool.string(b"127.0.0.1:9")?;
            if ngx_parse_url(pool.as_ptr(), &raw mut url) != NGX_OK as ngx_int_t {
                return None;
            }
            let server = NonNull::new(ngx_array_push(self.fields().servers))?;
            let server = server.cast::<ngx_http_upstream_server_t>().as_ptr();
            server.write_bytes(0, 1);
            (*server).name = url.url;
            (*server).addrs = url.addrs;
            (*server).naddrs = url.naddrs;
            (*server).weight = 1;
            (*server).down = 1;
        }
        Some(())
    }

    /// This module's part of the block.
    pub(super) fn part(self) -> Option<NonNull<ServerConf>> {
        // SAFETY: this module's slot holds a ServerConf, see `module::create`.
        unsafe {
            let index = ngx_http_paas_module.ctx_index;
            let parts = NonNull::new(self.fields().srv_conf)?;
            NonNull::new((*parts.as_ptr().add(index)).cast())
        }
    }
}

/// All upstream blocks of a configuration, with this module's part of each.
pub(crate) fn all<'c>(conf: Conf<'c>) -> impl Iterator<Item = (Upstream<'c>, &'c ServerConf)> {
    // SAFETY: this is the upstream module's type for its main configuration: an array of pointers to blocks.
    let blocks: &[*mut ngx_http_upstream_srv_conf_t] = unsafe {
        let index = ngx_http_upstream_module.ctx_index;
        match main_part::<ngx_http_upstream_main_conf_t>(conf, index).map(|part| part.as_ref()) {
            Some(part) if !part.upstreams.elts.is_null() => {
                std::slice::from_raw_parts(part.upstreams.elts.cast(), part.upstreams.nelts)
            }
            _ => &[],
        }
    };
    blocks.iter().filter_map(|&block| {
        // SAFETY: the blocks and their parts live as long as the configuration.
        let block = NonNull::new(block).map(|block| unsafe { Upstream::from_raw(block) })?;
        // An upstream that `proxy_pass http://host` made by itself has no parts.
        // SAFETY: as above.
        block.part().map(|part| (block, unsafe { part.as_ref() }))
    })
}

/// Whether the addresses of a server are asked for while it is used, so that it has none here.
#[cfg(all(nginx_servers_resolve, ngx_feature = "http_upstream_zone"))]
fn is_resolved_later(server: &ngx_http_upstream_server_t) -> bool {
    server.host.len > 0
}

#[cfg(not(all(nginx_servers_resolve, ngx_feature = "http_upstream_zone")))]
fn is_resolved_later(_server: &ngx_http_upstream_server_t) -> bool {
    false
}

/// # Safety
/// `first` points at `count` addresses.
unsafe fn addresses(first: *const ngx_addr_t, count: usize) -> Vec<peer::Address> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller says; a socket address has `socklen` bytes.
    unsafe {
        std::slice::from_raw_parts(first, count)
            .iter()
            .filter(|address| !address.sockaddr.is_null())
            .map(|address| {
                let sockaddr = std::slice::from_raw_parts(
                    address.sockaddr.cast::<u8>(),
                    address.socklen as usize,
                );
                peer::Address::new(sockaddr, bytes(&address.name))
            })
            .collect()
    }
}

/// nginx calls this once the whole http block is read.
unsafe extern "C" fn init(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guard!(
        Entry::Configuration("paas_hash init"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx hands over the configuration it reads and a block of it.
            let raw = unsafe {
                (
                    NonNull::new(cf).map(|cf| Conf::from_raw(cf)),
                    NonNull::new(upstream),
                )
            };
            let (Some(conf), Some(raw)) = raw else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: as above.
            let block = unsafe { Upstream::from_raw(raw) };
            match prepare(conf, block) {
                Ok(()) => {}
                Err(why) => {
                    conf.refuse(format_args!(
                        "upstream \"{}\": {why}",
                        String::from_utf8_lossy(block.name())
                    ));
                    return NGX_ERROR as ngx_int_t;
                }
            }
            // nginx's own round robin is initialised but never asked: it checks the block and keeps `peer.data`
            // what other modules expect.
            // SAFETY: this is what nginx calls for a block without a method.
            if unsafe { ngx_http_upstream_init_round_robin(cf, upstream) } != NGX_OK as ngx_int_t {
                return NGX_ERROR as ngx_int_t;
            }
            // SAFETY: the block lives and nobody else changes it now.
            unsafe { (*upstream).peer.init = Some(peer::init) };
            NGX_OK as ngx_int_t
        }
    )
}

fn prepare(conf: Conf<'_>, block: Upstream<'_>) -> Result<(), Refusal> {
    let missing = || "internal error: no configuration of ngx_http_paas_module".to_owned();
    // SAFETY: this is our own type for our main configuration; both parts are borrowed by nobody else now.
    unsafe {
        let http =
            main_part::<HttpConf>(conf, ngx_http_paas_module.ctx_index).ok_or_else(missing)?;
        let part = block.part().ok_or_else(missing)?;
        crate::balancer::prepare(conf, block, &mut *http.as_ptr(), &mut *part.as_ptr())
    }
}
