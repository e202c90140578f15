//! Header lists of requests and answers.

use std::ptr::NonNull;

use ngx::ffi::{ngx_list_part_t, ngx_list_push, ngx_list_t, ngx_str_t, ngx_table_elt_t};

use super::request::{Request, bytes};

impl<'r> Request<'r> {
    /// Takes headers away from the request the client sent. None: out of memory.
    ///
    /// The elements stay where they are (`r->headers_in.host` and its like point at them): the list's
    /// parts are cut around what goes.
    pub(crate) fn remove_request_headers(self, unwanted: impl Fn(&[u8]) -> bool) -> Option<()> {
        // SAFETY: the list is part of the living request; nobody else holds a reference into it.
        let list = unsafe { &mut (*self.as_ptr()).headers_in.headers };
        let mut part: *mut ngx_list_part_t = &raw mut list.part;
        let mut before: *mut ngx_list_part_t = std::ptr::null_mut();
        while !part.is_null() {
            // SAFETY: `part` is a part of this list, whose elements are headers.
            match unsafe { position(part, &unwanted) } {
                Some(index) => {
                    // SAFETY: as above; the element at `index` exists.
                    unsafe { cut(self, list, part, index)? };
                    // SAFETY: as above.
                    if unsafe { (*part).nelts } == 0 {
                        // SAFETY: `before` is the part in front of this one, or null for the first.
                        part = unsafe { drop_empty(list, before, part) };
                    }
                }
                None => {
                    before = part;
                    // SAFETY: as above.
                    part = unsafe { (*part).next };
                }
            }
        }
        Some(())
    }

    /// Keeps headers of the answer from being sent.
    pub(crate) fn hide_answer_headers(self, unwanted: impl Fn(&[u8]) -> bool) {
        // SAFETY: the list is part of the living request; the elements are headers, only their hash changes.
        unsafe {
            for_each(&raw mut (*self.as_ptr()).headers_out.headers, |element| {
                if unwanted(bytes(&(*element).key)) {
                    (*element).hash = 0;
                }
            });
        }
    }

    /// Adds a header to the answer. None: out of memory.
    pub(crate) fn add_answer_header(self, name: &'static str, value: &[u8]) -> Option<()> {
        let pool = self.pool()?;
        let (key, value) = (pool.string(name.as_bytes())?, pool.string(value)?);
        let lowcase = pool.copy(name.to_ascii_lowercase().as_bytes())?;
        // SAFETY: the list belongs to the living request; a pushed element is new memory for one header.
        unsafe {
            let element =
                NonNull::new(ngx_list_push(&raw mut (*self.as_ptr()).headers_out.headers))?;
            let element = element.cast::<ngx_table_elt_t>().as_ptr();
            element.write_bytes(0, 1);
            (*element).hash = 1;
            (*element).key = key;
            (*element).value = value;
            (*element).lowcase_key = lowcase.as_mut_ptr();
        }
        Some(())
    }

    /// A header of the answer this request's upstream has just given.
    pub(crate) fn upstream_header(self, name: &str) -> Option<&'r [u8]> {
        let upstream = NonNull::new(self.fields().upstream)?;
        let mut found = None;
        // SAFETY: the list is part of the living upstream; names and values live as long.
        unsafe {
            for_each(
                &raw mut (*upstream.as_ptr()).headers_in.headers,
                |element| {
                    if (*element).hash != 0
                        && bytes(&(*element).key).eq_ignore_ascii_case(name.as_bytes())
                    {
                        found = Some(outlive(&(*element).value));
                    }
                },
            );
        }
        found
    }

    /// A header of the answer this request got from its upstream, or else of the one nginx made.
    pub(crate) fn answer_header(self, name: &str) -> Option<&'r [u8]> {
        // SAFETY: both lists are parts of the living request or of its upstream; names and values live as long.
        unsafe {
            let upstream = NonNull::new(self.fields().upstream);
            let lists = [
                upstream.map(|upstream| &raw mut (*upstream.as_ptr()).headers_in.headers),
                Some(&raw mut (*self.as_ptr()).headers_out.headers),
            ];
            lists.into_iter().flatten().find_map(|list| {
                let mut found = None;
                for_each(list, |element| {
                    if (*element).hash != 0
                        && bytes(&(*element).key).eq_ignore_ascii_case(name.as_bytes())
                    {
                        found = Some(outlive(&(*element).value));
                    }
                });
                found
            })
        }
    }
}

/// # Safety
/// The string's bytes live for `'r`.
unsafe fn outlive<'r>(string: &ngx_str_t) -> &'r [u8] {
    let bytes = bytes(string);
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}

/// # Safety
/// `list` is a living list of headers, which `visit` neither lengthens nor shortens.
unsafe fn for_each(list: *mut ngx_list_t, mut visit: impl FnMut(*mut ngx_table_elt_t)) {
    // SAFETY: as the caller says; a part holds `nelts` elements.
    unsafe {
        let mut part: *mut ngx_list_part_t = &raw mut (*list).part;
        while !part.is_null() {
            for index in 0..(*part).nelts {
                visit((*part).elts.cast::<ngx_table_elt_t>().add(index));
            }
            part = (*part).next;
        }
    }
}

/// # Safety
/// `part` is a part of a living list of headers.
unsafe fn position(
    part: *const ngx_list_part_t,
    unwanted: &impl Fn(&[u8]) -> bool,
) -> Option<usize> {
    // SAFETY: as the caller says; a part holds `nelts` elements.
    unsafe {
        let elements = (*part).elts.cast::<ngx_table_elt_t>();
        (0..(*part).nelts).find(|&index| unwanted(bytes(&(*elements.add(index)).key)))
    }
}

/// Cuts one element out: what is behind it becomes a part of its own, which may leave `part` empty.
///
/// # Safety
/// `part` is a part of `list`, a list of headers of this request, and has an element at `index`.
unsafe fn cut(
    request: Request<'_>,
    list: &mut ngx_list_t,
    part: *mut ngx_list_part_t,
    index: usize,
) -> Option<()> {
    // SAFETY: as the caller says.
    unsafe {
        let behind = (*part).nelts - index - 1;
        let rest = (*part).elts.cast::<ngx_table_elt_t>().add(index + 1);
        let is_last = std::ptr::eq(list.last, part);
        if behind > 0 && index == 0 {
            (*part).elts = rest.cast();
            (*part).nelts = behind;
        } else if behind > 0 {
            let new = ngx_list_part_t {
                elts: rest.cast(),
                nelts: behind,
                next: (*part).next,
            };
            let new: *mut ngx_list_part_t = request.pool()?.put(new)?;
            (*part).nelts = index;
            (*part).next = new;
            if is_last {
                list.last = new;
            }
        } else {
            (*part).nelts = index;
        }
        // A push fills the last part up to `nalloc` elements, which a part that begins later does not have
        // room for: make it begin a new part instead.
        if is_last && (*list.last).nelts > 0 {
            list.nalloc = (*list.last).nelts;
        }
    }
    Some(())
}

/// Takes an empty part out of the list: nginx's loops read the first element of every part but the first
/// without asking. Gives the part to go on with.
///
/// # Safety
/// `part` is an empty part of `list`, and `before` the one in front of it, null if it is the first.
unsafe fn drop_empty(
    list: &mut ngx_list_t,
    before: *mut ngx_list_part_t,
    part: *mut ngx_list_part_t,
) -> *mut ngx_list_part_t {
    // SAFETY: as the caller says.
    unsafe {
        let next = (*part).next;
        if before.is_null() {
            // The first part lies inside the list: the second one, if any, moves into it.
            let Some(second) = next.as_ref() else {
                return std::ptr::null_mut();
            };
            if std::ptr::eq(list.last, next) {
                list.last = part;
            }
            *part = *second;
            return part;
        }
        (*before).next = next;
        if std::ptr::eq(list.last, part) {
            list.last = before;
            list.nalloc = (*before).nelts;
        }
        next
    }
}
