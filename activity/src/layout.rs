//! Where what is in the file. All of it is 64-bit words in the machine's own order; all zeroes is a file in which nothing was
//! counted yet.

use std::fs;
use std::io;
use std::ops::Range;

/// The number of what is described here; another layout needs another number.
const FORMAT: u32 = 1;
/// How many workers can count at once, those of earlier configurations that still finish their requests included.
pub const SLOTS: usize = 256;
/// The byte that a worker without a slot holds, shared with others. The byte of a slot is its number.
pub const BLIND: u64 = SLOTS as u64;

/// Words of a slot before its entries.
pub(crate) const HEAD: usize = 8;
/// Words of an entry.
pub(crate) const ENTRY: usize = 3;

/// Words of a slot's head.
pub(crate) mod head {
    /// Odd while entries change their site.
    pub(crate) const SEQUENCE: usize = 0;
    /// How many entries are in use: the first ones.
    pub(crate) const USED: usize = 1;
    /// Requests in flight of sites for which there was no entry.
    pub(crate) const UNLISTED: usize = 2;
    /// When the last of those began or ended.
    pub(crate) const UNLISTED_LAST: usize = 3;
}

/// Words of an entry.
pub(crate) mod entry {
    /// The site's id.
    pub(crate) const SITE: usize = 0;
    /// Its requests in flight.
    pub(crate) const IN_FLIGHT: usize = 1;
    /// When the last of them began or ended.
    pub(crate) const LAST: usize = 2;
}

/// The shape of a file: for how many sites a worker's slot has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    sites: usize,
}

impl Layout {
    /// The most sites that can be asked for.
    pub const MOST: usize = 1 << 20;

    /// A file with room for this many sites in each slot, if that is possible.
    pub fn new(sites: usize) -> Option<Layout> {
        (1..=Layout::MOST)
            .contains(&sites)
            .then_some(Layout { sites })
    }

    /// For how many sites a slot has room.
    pub fn sites(self) -> usize {
        self.sites
    }

    /// Words of the whole file.
    pub fn words(self) -> usize {
        SLOTS * self.slot_words()
    }

    /// The words of a slot. Slots begin on cache lines of their own.
    pub fn slot(self, number: usize) -> Range<usize> {
        let start = number * self.slot_words();
        start..start + HEAD + self.sites * ENTRY
    }

    fn slot_words(self) -> usize {
        (HEAD + self.sites * ENTRY).next_multiple_of(8)
    }

    /// The layout of a file with this name, if it is one of this boot and format.
    pub(crate) fn of_name(name: &str, boot: &str) -> Option<Layout> {
        let sites = name
            .strip_prefix(boot)?
            .strip_prefix(&format!(".{FORMAT}."))?;
        Layout::new(sites.parse().ok()?)
    }
}

/// The name of the file for this layout in this boot of the machine.
pub fn file_name(layout: Layout) -> io::Result<String> {
    Ok(format!("{}.{FORMAT}.{}", boot()?, layout.sites))
}

/// What is different after every boot.
pub(crate) fn boot() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}
