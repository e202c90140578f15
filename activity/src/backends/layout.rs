//! Where what is in the file. All of it is 64-bit words in the machine's own order; all zeroes is a file in which nothing happened yet.

use std::io;
use std::ops::Range;

use crate::layout::boot;

/// The number of what is described here; another layout needs another number.
const FORMAT: u32 = 1;
/// So many backends have an entry; were there more, the rest would count as healthy and not be counted.
pub const BACKENDS: usize = 2048;
/// How many workers can count at once, those of earlier configurations that still finish their requests included. The byte that a
/// worker locks is its slot's number.
pub const SLOTS: usize = 256;

/// Words of an entry about a backend's health. The first entry is about all of them.
pub const HEALTH: usize = 8;
/// The words of such an entry: numbers that were read, or the atomics that workers share.
#[derive(Debug)]
pub struct Known<'a, T> {
    /// The backend's number; 0: the entry is nobody's.
    pub id: &'a T,
    /// Its health; see `routing::health`.
    pub health: &'a T,
    /// When it last answered a request, in milliseconds of `CLOCK_MONOTONIC`; 0: never.
    pub last_answer: &'a T,
    /// When a request to it last failed.
    pub last_failure: &'a T,
    /// Failures for which it was to blame.
    pub failures: &'a T,
    /// How often it was left out because of them.
    pub ejections: &'a T,
    /// The hash of its address.
    pub address: &'a T,
    /// 1 while it is out of service.
    pub out: &'a T,
}

impl<'a, T> Known<'a, T> {
    /// Where what is in an entry.
    pub const fn of(entry: &'a [T; HEALTH]) -> Self {
        let [
            id,
            health,
            last_answer,
            last_failure,
            failures,
            ejections,
            address,
            out,
        ] = entry;
        Self {
            id,
            health,
            last_answer,
            last_failure,
            failures,
            ejections,
            address,
            out,
        }
    }
}

/// The word of the first entry that the daemon raises when it has written verdicts.
pub const NEWS: usize = 2;
/// Words of a verdict: the backend's number, and what is said.
const VERDICT: usize = 2;

/// Words of a slot before its entries.
pub(crate) const HEAD: usize = 8;
/// Words of a slot's head.
pub(crate) mod head {
    /// The process.
    pub(crate) const PID: usize = 0;
    /// The table's generation that it used last.
    pub(crate) const GENERATION: usize = 1;
    /// Requests that it holds until their site is awake.
    pub(crate) const PARKED: usize = 2;
}

/// The upper bounds of the classes of times to an answer's head, in milliseconds; there is one more, for all that took longer.
pub const BOUNDS: [u64; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000,
];

/// Words of an entry in a slot: three cache lines.
pub(crate) const ENTRY: usize = 24;
/// Words of such an entry.
pub(crate) mod entry {
    use super::BOUNDS;

    /// The backend's number.
    pub(crate) const ID: usize = 0;
    /// Requests that were sent to it.
    pub(crate) const REQUESTS: usize = 1;
    /// Of those, the ones that are not answered yet.
    pub(crate) const IN_FLIGHT: usize = 2;
    /// Of those, the ones that failed.
    pub(crate) const FAILURES: usize = 3;
    /// Milliseconds until the heads of all answers, added up.
    pub(crate) const TIME: usize = 4;
    /// Answers by the class of their time.
    pub(crate) const TIMES: usize = 5;
    /// How many classes there are.
    pub(crate) const CLASSES: usize = BOUNDS.len() + 1;
    const _: () = assert!(TIMES + CLASSES <= super::ENTRY);
}

/// The words about health, the first entry included.
pub const fn health() -> Range<usize> {
    0..(1 + BACKENDS) * HEALTH
}

/// The words of the daemon's verdicts.
pub const fn verdicts() -> Range<usize> {
    let start = health().end;
    start..start + BACKENDS * VERDICT
}

/// The words of a slot. Slots and their entries begin on cache lines of their own.
pub const fn slot(number: usize) -> Range<usize> {
    let words = HEAD + BACKENDS * ENTRY;
    let start = verdicts().end + number * words;
    start..start + words
}

/// The words of a slot's head.
pub const fn head_of(number: usize) -> Range<usize> {
    let start = slot(number).start;
    start..start + HEAD
}

/// The words of some entries of a slot.
pub const fn entries(slot: Range<usize>, places: Range<usize>) -> Range<usize> {
    let start = slot.start + HEAD;
    start + places.start * ENTRY..start + places.end * ENTRY
}

/// Words of the whole file, most of which are never touched and take no memory.
pub const fn words() -> usize {
    slot(SLOTS).start
}

/// The name of the file in this boot of the machine.
pub fn file_name() -> io::Result<String> {
    Ok(format!("{}.{FORMAT}", boot()?))
}
