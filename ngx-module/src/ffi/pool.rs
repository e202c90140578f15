//! nginx's memory pools.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use ngx::ffi::{ngx_palloc, ngx_pnalloc, ngx_pool_cleanup_add, ngx_pool_t, ngx_str_t};

use super::guard::{Entry, guard};

/// A pool that lives for `'p`, and so does all it hands out. `None` always means: out of memory.
#[derive(Clone, Copy)]
pub(crate) struct Pool<'p> {
    raw: NonNull<ngx_pool_t>,
    lives: PhantomData<&'p ngx_pool_t>,
}

impl<'p> Pool<'p> {
    /// # Safety
    /// `raw` is a pool that is not destroyed before `'p` ends.
    pub(super) unsafe fn from_raw(raw: NonNull<ngx_pool_t>) -> Self {
        Self {
            raw,
            lives: PhantomData,
        }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_pool_t {
        self.raw.as_ptr()
    }

    /// Puts a plain value into the pool.
    pub(crate) fn put<T: Copy>(self, value: T) -> Option<&'p mut T> {
        const { assert!(align_of::<T>() <= align_of::<usize>()) };
        // SAFETY: the pool lives; ngx_palloc aligns to a word, which the line above says is enough.
        let place = NonNull::new(unsafe { ngx_palloc(self.as_ptr(), size_of::<T>()) })?.cast::<T>();
        // SAFETY: the place is new, aligned, large enough and lives for 'p.
        unsafe {
            place.write(value);
            Some(&mut *place.as_ptr())
        }
    }

    /// Copies bytes into the pool, aligned to a word.
    pub(crate) fn copy(self, bytes: &[u8]) -> Option<&'p mut [u8]> {
        if bytes.is_empty() {
            return Some(&mut []);
        }
        // SAFETY: the pool lives.
        let place = NonNull::new(unsafe { ngx_palloc(self.as_ptr(), bytes.len()) })?.cast::<u8>();
        // SAFETY: the place is new, so it does not overlap, and has bytes.len() bytes.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len());
            Some(std::slice::from_raw_parts_mut(place.as_ptr(), bytes.len()))
        }
    }

    /// Writes text into the pool.
    pub(crate) fn format(self, text: fmt::Arguments<'_>) -> Option<&'p [u8]> {
        let mut length = Length(0);
        length.write_fmt(text).ok()?;
        // SAFETY: the pool lives.
        let place =
            NonNull::new(unsafe { ngx_pnalloc(self.as_ptr(), length.0.max(1)) })?.cast::<u8>();
        // SAFETY: the place is new, has this many bytes and lives for 'p; zeroes are written before they are bytes.
        let bytes = unsafe {
            place.write_bytes(0, length.0);
            std::slice::from_raw_parts_mut(place.as_ptr(), length.0)
        };
        io::Write::write_fmt(&mut &mut *bytes, text).ok()?;
        Some(bytes)
    }

    /// Copies text into the pool as one of nginx's strings, with a NUL behind it.
    pub(crate) fn string(self, bytes: &[u8]) -> Option<ngx_str_t> {
        // SAFETY: the pool lives.
        let place =
            NonNull::new(unsafe { ngx_pnalloc(self.as_ptr(), bytes.len() + 1) })?.cast::<u8>();
        // SAFETY: the place is new, so it does not overlap, and has one byte more than `bytes`.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len());
            place.add(bytes.len()).write(0);
        }
        Some(ngx_str_t {
            len: bytes.len(),
            data: place.as_ptr(),
        })
    }

    /// Makes a value and keeps it until the pool is destroyed. It lies beside the pool: a request's pool has a few hundred bytes
    /// left when nginx has done its part, and another block of it would cost more than this.
    #[inline]
    pub(crate) fn keep<T: 'p>(self, value: impl FnOnce() -> T) -> Option<NonNull<T>> {
        self.keep_as(None, value)
    }

    /// As [`Pool::keep`], to be found again by [`Pool::find`] under its kind.
    #[inline]
    pub(super) fn keep_as<T: 'p>(
        self,
        kind: Option<Kind>,
        value: impl FnOnce() -> T,
    ) -> Option<NonNull<T>> {
        // SAFETY: the pool lives.
        let cleanup = NonNull::new(unsafe { ngx_pool_cleanup_add(self.as_ptr(), 0) })?;
        let place = Room::of::<Kept<T>>().take()?.cast::<Kept<T>>();
        // SAFETY: the cleanup and the place are new; the handler is set after the value is there.
        unsafe {
            // Made where it stays: it is large.
            (&raw mut (*place.as_ptr()).value).write(value());
            (&raw mut (*place.as_ptr()).header).write(Header {
                kind,
                drop: drop_value::<T>,
            });
            (*cleanup.as_ptr()).data = place.as_ptr().cast();
            (*cleanup.as_ptr()).handler = Some(drop_kept);
            NonNull::new(&raw mut (*place.as_ptr()).value)
        }
    }

    /// The newest value that was kept under `kind` and that `wanted` accepts.
    ///
    /// # Safety
    /// `T` is the type of all that is kept under this kind.
    pub(super) unsafe fn find<T: 'p>(
        self,
        kind: Kind,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<NonNull<T>> {
        let ours: unsafe extern "C" fn(*mut c_void) = drop_kept;
        // SAFETY: the pool lives.
        let mut next = unsafe { self.raw.as_ref() }.cleanup;
        while let Some(cleanup) = NonNull::new(next) {
            // SAFETY: the cleanups of a living pool form a list of living entries.
            let cleanup = unsafe { cleanup.as_ref() };
            if cleanup
                .handler
                .is_some_and(|handler| ptr::fn_addr_eq(handler, ours))
            {
                // SAFETY: an entry with this handler was made by `keep_as`, so a header is there.
                if unsafe { (*cleanup.data.cast::<Header>()).kind } == Some(kind) {
                    // SAFETY: the caller says what type this kind has; the value is part of a living entry.
                    let value = unsafe { &raw mut (*cleanup.data.cast::<Kept<T>>()).value };
                    // SAFETY: as above; nobody holds an exclusive reference to a kept value that can be found.
                    if wanted(unsafe { &*value }) {
                        return NonNull::new(value);
                    }
                }
            }
            next = cleanup.next;
        }
        None
    }
}

/// What kept values can be found again by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The context of a request.
    Context,
}

/// Counts what is written.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[repr(C)]
struct Kept<T> {
    header: Header,
    value: T,
}

struct Header {
    kind: Option<Kind>,
    drop: unsafe fn(*mut c_void),
}

/// The one handler of all kept values: comparing with a generic function's address would prove nothing,
/// as equal functions may be merged.
unsafe extern "C" fn drop_kept(data: *mut c_void) {
    guard!(Entry::Cleanup, (), {
        // SAFETY: `keep_as` set this handler for a `Kept` at `data`; nginx runs a cleanup once.
        unsafe { ((*data.cast::<Header>()).drop)(data) }
    });
}

unsafe fn drop_value<T>(data: *mut c_void) {
    let room = Room::of::<Kept<T>>();
    // SAFETY: `keep_as` stored this function beside a value of this very type, in room for it; a cleanup runs once.
    unsafe {
        ptr::drop_in_place(&raw mut (*data.cast::<Kept<T>>()).value);
        room.give_back(data.cast());
    }
}

/// Memory for one kept value. What was given back last is given out first: it is still in the caches.
#[derive(Clone, Copy)]
enum Room {
    /// One of the blocks that are used again.
    Block,
    /// A larger one.
    Own(Layout),
}

/// As large as what a request keeps; whole cache lines.
#[repr(C, align(64))]
struct Block {
    /// Of a spare block: the next one.
    next: *mut Block,
    _rest: MaybeUninit<[u8; 184]>,
}

/// Spare blocks, and how many.
#[derive(Clone, Copy)]
struct Spare {
    first: *mut Block,
    count: usize,
}

thread_local! {
    static SPARE: Cell<Spare> = const {
        Cell::new(Spare {
            first: ptr::null_mut(),
            count: 0,
        })
    };
}

/// More blocks than this are not kept: as many as 500 requests at once need.
const MOST_SPARE: usize = 1024;

/// Whether a kept value of this type takes one of the blocks.
pub(super) const fn is_block<T>() -> bool {
    matches!(Room::of::<Kept<T>>(), Room::Block)
}

impl Room {
    const fn of<T>() -> Self {
        let (wanted, block) = (Layout::new::<T>(), Layout::new::<Block>());
        match wanted.size() <= block.size() && wanted.align() <= block.align() {
            true => Self::Block,
            false => Self::Own(wanted),
        }
    }

    const fn layout(self) -> Layout {
        match self {
            Self::Block => Layout::new::<Block>(),
            Self::Own(layout) => layout,
        }
    }

    /// None: out of memory.
    #[inline]
    fn take(self) -> Option<NonNull<u8>> {
        if let Self::Block = self {
            let Spare { first, count } = SPARE.get();
            // SAFETY: a spare block is nobody's and says which is the next.
            if let Some(block) = unsafe { first.as_ref() } {
                SPARE.set(Spare {
                    first: block.next,
                    count: count - 1,
                });
                return NonNull::new(first.cast());
            }
        }
        // SAFETY: no layout is empty: a header is part of each.
        NonNull::new(unsafe { alloc(self.layout()) })
    }

    /// # Safety
    /// The place was taken as this kind of room, and nobody uses it any more.
    #[inline]
    unsafe fn give_back(self, place: *mut u8) {
        let Spare { first, count } = SPARE.get();
        if let Self::Block = self
            && count < MOST_SPARE
        {
            let block = place.cast::<Block>();
            // SAFETY: as the caller says, and a block has room for a pointer.
            unsafe { (&raw mut (*block).next).write(first) };
            SPARE.set(Spare {
                first: block,
                count: count + 1,
            });
        } else {
            // SAFETY: as the caller says: it was allocated by this layout.
            unsafe { dealloc(place, self.layout()) };
        }
    }
}
