//! A worker's slot: it counts here, and nobody else writes to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::layout::{ENTRY, HEAD, entry, head};

/// Milliseconds for which an entry without requests is kept: by then the daemon has seen its time.
const KEPT: u64 = 60_000;
/// After a search for a free entry found none, milliseconds until the next.
const PAUSE: u64 = 1000;

/// A slot in use.
#[derive(Debug)]
pub struct Slot {
    sites: RefCell<Index>,
    /// Where the next search for an entry to give away begins.
    hand: Cell<usize>,
    full_until: Cell<u64>,
}

type Index = HashMap<u64, usize, BuildHasherDefault<Scatter>>;

/// Where a request was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Option<usize>);

impl Slot {
    /// Takes over the words of a slot whose worker is gone, or was never there. What that had in flight is void; when its
    /// sites were last visited is not.
    pub fn claim(words: &[AtomicU64]) -> Slot {
        let mut sites = Index::default();
        let used = load(words, head::USED).min(capacity(words) as u64) as usize;
        change(words, || {
            store(words, head::USED, used as u64);
            store(words, head::UNLISTED, 0);
            for number in 0..used {
                store(words, at(number, entry::IN_FLIGHT), 0);
                sites.insert(load(words, at(number, entry::SITE)), number);
            }
        });
        Slot {
            sites: RefCell::new(sites),
            hand: Cell::new(0),
            full_until: Cell::new(0),
        }
    }

    /// Counts a request that begins. When it returns, whoever takes the site's name away sees the count.
    pub fn begin(&self, words: &[AtomicU64], site: u64, now: u64) -> Place {
        let place = self.place(words, site, now);
        let (in_flight, last) = place.words();
        store(words, in_flight, load(words, in_flight).saturating_add(1));
        store(words, last, now);
        fence(Ordering::SeqCst);
        place
    }

    /// Counts its end.
    pub fn end(&self, words: &[AtomicU64], place: Place, now: u64) {
        let (in_flight, last) = place.words();
        store(words, last, now);
        store(words, in_flight, load(words, in_flight).saturating_sub(1));
    }

    fn place(&self, words: &[AtomicU64], site: u64, now: u64) -> Place {
        let Ok(mut sites) = self.sites.try_borrow_mut() else {
            return Place(None);
        };
        if let Some(number) = sites.get(&site) {
            return Place(Some(*number));
        }
        let used = load(words, head::USED) as usize;
        let number = match used < capacity(words) {
            true => used,
            false => match self.search(words, now) {
                Some(number) => number,
                None => return Place(None),
            },
        };
        change(words, || {
            if number == used {
                store(words, head::USED, used as u64 + 1);
            } else {
                sites.remove(&load(words, at(number, entry::SITE)));
            }
            store(words, at(number, entry::SITE), site);
            store(words, at(number, entry::IN_FLIGHT), 0);
            store(words, at(number, entry::LAST), now);
        });
        sites.insert(site, number);
        Place(Some(number))
    }

    /// An entry that nobody needs any more.
    fn search(&self, words: &[AtomicU64], now: u64) -> Option<usize> {
        if now < self.full_until.get() {
            return None;
        }
        let (count, hand) = (capacity(words), self.hand.get());
        let found = (hand..count).chain(0..hand).find(|number| {
            load(words, at(*number, entry::IN_FLIGHT)) == 0
                && now.saturating_sub(load(words, at(*number, entry::LAST))) >= KEPT
        });
        match found {
            Some(number) => self.hand.set(number + 1),
            None => self.full_until.set(now + PAUSE),
        }
        found
    }
}

impl Place {
    /// The word that counts, and that of the time.
    fn words(self) -> (usize, usize) {
        match self.0 {
            Some(number) => (at(number, entry::IN_FLIGHT), at(number, entry::LAST)),
            None => (head::UNLISTED, head::UNLISTED_LAST),
        }
    }
}

fn at(number: usize, word: usize) -> usize {
    HEAD + number * ENTRY + word
}

fn capacity(words: &[AtomicU64]) -> usize {
    words.len().saturating_sub(HEAD) / ENTRY
}

/// Changes which site an entry is for; a reader that comes meanwhile reads again.
fn change(words: &[AtomicU64], work: impl FnOnce()) {
    // Odd already: the worker before was killed right here.
    let before = load(words, head::SEQUENCE) & !1;
    store(words, head::SEQUENCE, before + 1);
    fence(Ordering::SeqCst);
    work();
    fence(Ordering::SeqCst);
    store(words, head::SEQUENCE, before.wrapping_add(2));
}

fn load(words: &[AtomicU64], index: usize) -> u64 {
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

fn store(words: &[AtomicU64], index: usize, value: u64) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::Release);
    }
}

/// Ids are small numbers that nobody can choose: a multiplication spreads them well enough.
#[derive(Default, Debug)]
struct Scatter(u64);

impl Hasher for Scatter {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(sites: usize) -> Vec<AtomicU64> {
        (0..HEAD + sites * ENTRY)
            .map(|_| AtomicU64::new(0))
            .collect()
    }

    fn in_flight(words: &[AtomicU64], place: Place) -> u64 {
        load(words, place.words().0)
    }

    #[test]
    fn requests_are_counted_where_they_began() {
        let words = memory(4);
        let slot = Slot::claim(&words);
        let first = slot.begin(&words, 7, 100);
        let second = slot.begin(&words, 7, 120);
        assert_eq!((first, in_flight(&words, first)), (second, 2));
        slot.end(&words, first, 150);
        slot.end(&words, second, 170);
        assert_eq!(in_flight(&words, first), 0);
        assert_eq!(load(&words, first.words().1), 170);
        // More ends than begins cannot be; if they were, the count would not turn over.
        slot.end(&words, second, 180);
        assert_eq!(in_flight(&words, first), 0);
    }

    #[test]
    fn a_full_slot_gives_away_what_is_idle_for_long_and_counts_the_rest_together() {
        let words = memory(2);
        let slot = Slot::claim(&words);
        let busy = slot.begin(&words, 1, 0);
        let idle = slot.begin(&words, 2, 0);
        slot.end(&words, idle, 10);
        let early = slot.begin(&words, 3, KEPT);
        assert_eq!(early, Place(None), "site 2 may not have been seen yet");
        assert_eq!(load(&words, head::UNLISTED), 1);
        let late = slot.begin(&words, 4, KEPT + PAUSE);
        assert_eq!(late, idle, "the entry of site 2 is site 4's now");
        assert_eq!(load(&words, at(1, entry::SITE)), 4);
        slot.end(&words, early, KEPT + PAUSE);
        assert_eq!(load(&words, head::UNLISTED), 0);
        assert_eq!(in_flight(&words, busy), 1);
        let again = slot.begin(&words, 2, KEPT + PAUSE);
        assert_eq!(
            again,
            Place(None),
            "it was forgotten, and there is no room now"
        );
    }

    #[test]
    fn the_next_worker_forgets_what_was_in_flight_but_not_when() {
        let words = memory(2);
        let slot = Slot::claim(&words);
        let place = slot.begin(&words, 9, 500);
        store(&words, head::SEQUENCE, 7);
        store(&words, head::UNLISTED, 3);
        let next = Slot::claim(&words);
        assert_eq!(in_flight(&words, place), 0);
        assert_eq!(load(&words, head::UNLISTED), 0);
        assert_eq!(load(&words, at(0, entry::LAST)), 500);
        assert_eq!(load(&words, head::SEQUENCE) % 2, 0);
        assert_eq!(next.begin(&words, 9, 600), place);
    }

    #[test]
    fn words_that_are_nonsense_hurt_nobody() {
        let words = memory(2);
        for word in &words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        let slot = Slot::claim(&words);
        let place = slot.begin(&words, 5, 1);
        slot.end(&words, place, 2);
        let nothing = Slot::claim(&[]);
        let place = nothing.begin(&[], 5, 1);
        nothing.end(&[], place, 2);
    }
}
