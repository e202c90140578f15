//! Memory that all workers share: a zone with an array of entries, each some words of atomics.
//!
//! Nothing in it is ever locked, so a worker that is killed leaves nothing held: nginx's slab allocator is asked once,
//! by the master, before there are workers. Each configuration gets a zone of its own, shaped as it needs it; what the zone
//! before it knew is handed to its `begin`, which takes over what still means something. Workers of the configuration
//! before go on with theirs.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use ngx::ffi::{
    NGX_ERROR, NGX_OK, ngx_cycle, ngx_int_t, ngx_pagesize, ngx_shared_memory_add, ngx_shm_zone_t,
    ngx_slab_alloc, ngx_slab_pool_t,
};

use super::builds;
use super::conf::{Conf, Refusal};
use super::guard::{Entry as Guarded, guard};
use super::module::ngx_http_paas_module;
use super::request::bytes;

/// One entry: `WORDS` atomics. All of them are 0 in a new zone.
pub(crate) type Entry<const WORDS: usize> = [AtomicU64; WORDS];

/// An array of entries that all workers of a configuration share.
pub(crate) struct Zone<const WORDS: usize>(Rc<Shape<WORDS>>);

/// What fills a new zone: called with the entries of the zone before it (none at nginx's start) and its own.
type Begin<const WORDS: usize> = Box<dyn Fn(&[Entry<WORDS>], &[Entry<WORDS>])>;

struct Shape<const WORDS: usize> {
    count: usize,
    begin: Begin<WORDS>,
    /// Null until nginx has made the memory.
    first: Cell<*const Entry<WORDS>>,
}

/// What stands in front of the entries, for the zone that comes after, perhaps in another build of the module.
#[repr(C)]
struct Header {
    layout: u64,
    words: usize,
    count: usize,
}

/// Differs from that of every build whose header or whose entries mean something else.
const LAYOUT: u64 = u64::from_be_bytes(*b"paas\0\0\0\x01");

impl<const WORDS: usize> Zone<WORDS> {
    /// Asks nginx for a zone of this name, which nobody else may use.
    pub(crate) fn add(
        conf: Conf<'_>,
        name: &str,
        count: usize,
        begin: impl Fn(&[Entry<WORDS>], &[Entry<WORDS>]) + 'static,
    ) -> Result<Self, Refusal> {
        let memory = || format!("out of memory for the zone \"{name}\"");
        let shape = Rc::new(Shape {
            count,
            begin: Box::new(begin),
            first: Cell::new(ptr::null()),
        });
        let size = Self::size(count).ok_or_else(memory)?;
        let pool = conf.pool().ok_or_else(memory)?;
        let mut name_in_pool = pool.string(name.as_bytes()).ok_or_else(memory)?;
        let kept = pool.keep(|| Rc::clone(&shape)).ok_or_else(memory)?;
        // SAFETY: nginx copies the name's pointer, which lives in the cycle's pool as long as the zone's description.
        let zone = NonNull::new(unsafe {
            ngx_shared_memory_add(conf.as_ptr(), &raw mut name_in_pool, size, tag())
        })
        .ok_or_else(|| format!("nginx refuses the shared memory zone \"{name}\""))?;
        // SAFETY: the zone is nginx's and lives while the configuration is read and used; `kept` lives in the cycle's
        // pool and is not dropped before that pool goes.
        unsafe {
            if !(*zone.as_ptr()).data.is_null() {
                return Err(format!("there are two shared memory zones \"{name}\""));
            }
            (*zone.as_ptr()).data = Rc::as_ptr(kept.as_ref()).cast_mut().cast();
            (*zone.as_ptr()).init = Some(init::<WORDS>);
            (*zone.as_ptr()).noreuse = 1;
        }
        Ok(Self(shape))
    }

    /// The entries; none while the configuration is still being read.
    pub(crate) fn entries(&self) -> &[Entry<WORDS>] {
        let first = self.0.first.get();
        if first.is_null() {
            return &[];
        }
        // SAFETY: `init` has put `count` entries there. The memory is mapped as long as a request can use this
        // configuration: a worker never unmaps a zone, and the master, which does, handles no requests.
        unsafe { std::slice::from_raw_parts(first, self.0.count) }
    }

    /// How many bytes to ask nginx for: the array, and what its allocator needs for itself.
    fn size(count: usize) -> Option<usize> {
        // SAFETY: nginx sets it before it reads a configuration.
        let page = unsafe { ngx_pagesize };
        let array = count
            .checked_mul(size_of::<Entry<WORDS>>())?
            .checked_add(size_of::<Header>())?;
        let pages = array.div_ceil(page).checked_add(8)?;
        // A description of a page has three words.
        pages.checked_mul(page.checked_add(3 * size_of::<usize>())?)
    }
}

/// What tells this module's zones from those of others: any address that is its own.
fn tag() -> *mut c_void {
    (&raw mut ngx_http_paas_module).cast()
}

unsafe extern "C" fn init<const WORDS: usize>(
    zone: *mut ngx_shm_zone_t,
    _old: *mut c_void,
) -> ngx_int_t {
    guard!(
        Guarded::Configuration("shared memory"),
        NGX_ERROR as ngx_int_t,
        {
            // SAFETY: nginx calls this for the zone that `add` set it for, whose data is the shape it put there.
            let Some(zone) = (unsafe { zone.as_ref() }) else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: as above.
            let Some(shape) = (unsafe { zone.data.cast::<Shape<WORDS>>().as_ref() }) else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: nginx has just mapped this zone and put its allocator there.
            let Some(new) = (unsafe { allocate::<WORDS>(zone, shape.count) }) else {
                return NGX_ERROR as ngx_int_t;
            };
            // SAFETY: the configuration before is still in force and its zones are mapped.
            (shape.begin)(unsafe { before::<WORDS>(zone) }, new);
            shape.first.set(new.as_ptr());
            NGX_OK as ngx_int_t
        }
    )
}

/// # Safety
/// The zone is mapped and has nginx's allocator in it.
unsafe fn allocate<const WORDS: usize>(
    zone: &ngx_shm_zone_t,
    count: usize,
) -> Option<&'static [Entry<WORDS>]> {
    const { assert!(align_of::<Entry<WORDS>>() <= align_of::<Header>()) };
    let size = size_of::<Header>() + count * size_of::<Entry<WORDS>>();
    // SAFETY: as the caller says. What is allocated is new, aligned to a page or to a power of two above a word, and large
    // enough; zeroes are a value of atomics.
    unsafe {
        let pool = zone.shm.addr.cast::<ngx_slab_pool_t>();
        let header = NonNull::new(ngx_slab_alloc(pool, size))?.cast::<Header>();
        header.cast::<u8>().write_bytes(0, size);
        header.write(Header {
            layout: LAYOUT,
            words: WORDS,
            count,
        });
        (*pool).data = header.as_ptr().cast();
        Some(std::slice::from_raw_parts(
            header.add(1).cast().as_ptr(),
            count,
        ))
    }
}

/// The entries of the zone with the same name in the configuration that is still in force.
///
/// # Safety
/// nginx is initialising the zones of a configuration: the one before is still there.
unsafe fn before<const WORDS: usize>(zone: &ngx_shm_zone_t) -> &'static [Entry<WORDS>] {
    // SAFETY: as the caller says: the list and the memory of its zones live; a zone with the tag of a build of this module was
    // filled by its `allocate`, so its header tells its shape.
    unsafe {
        let Some(cycle) = ngx_cycle.as_ref() else {
            return &[];
        };
        let mut part = &raw const cycle.shared_memory.part;
        let tag = builds::of(cycle).map(|build| ptr::from_ref(build).cast::<c_void>());
        while let Some(list) = part.as_ref() {
            let zones: &[ngx_shm_zone_t] = match list.elts.is_null() {
                true => &[],
                false => std::slice::from_raw_parts(list.elts.cast(), list.nelts),
            };
            for old in zones {
                let ours = Some(old.tag.cast_const()) == tag
                    && !ptr::eq(old, zone)
                    && bytes(&old.shm.name) == bytes(&zone.shm.name);
                if !ours || old.shm.addr.is_null() {
                    continue;
                }
                let header = (*old.shm.addr.cast::<ngx_slab_pool_t>())
                    .data
                    .cast::<Header>();
                match header.as_ref() {
                    Some(found) if found.layout == LAYOUT && found.words == WORDS => {
                        return std::slice::from_raw_parts(header.add(1).cast(), found.count);
                    }
                    _ => return &[],
                }
            }
            part = list.next;
        }
    }
    &[]
}
