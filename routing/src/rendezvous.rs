//! Weighted rendezvous hashing in integers.
//!
//! Every backend draws a number for a site; the best draw wins. Adding a backend can only make sites move to it,
//! removing one only moves its own, and the second best draw says where they go.
//!
//! * A **key** (of a site or of a backend) counts as its XXH3-64 hash.
//! * Sites fall into 2^[`SLOT_BITS`] **slots** by the top bits of their hash, and draws are made per slot: that makes
//!   the [`SlotTable`](crate::SlotTable) an exact memo, not an approximation, with any number of backends.
//! * A **draw** is the slot-th output of SplitMix64 (Steele, Lea and Flood, 2014) seeded with the backend's hash.
//! * With weights, the smallest `-log2(draw / 2^64) / weight` wins, which gives every backend its weight's share of
//!   the sites (Schindelhauer and Schomaker, 2005). Quotients are compared exactly, by cross-multiplication. The
//!   logarithm never rises, so among equal weights the largest draw wins; ties go to the larger draw, then to the larger
//!   key hash, then to the one configured first.
//!
//! These definitions are a contract between machines and versions: changing any of them moves sites. Golden vectors
//! in `tests/golden.rs` hold them.

use xxhash_rust::xxh3::xxh3_64;

use crate::log2::negative_log2;
use crate::placement::Weight;

/// The slots' number is 2 to this.
pub const SLOT_BITS: u32 = 22;
/// The number of slots.
pub const SLOTS: usize = 1 << SLOT_BITS;

/// The hash of a site's or a backend's key.
#[inline]
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The slot of a site, below [`SLOTS`], from its key's hash.
#[inline]
#[must_use]
pub fn slot(site_hash: u64) -> u32 {
    // The top bits of a u64: fewer than 32 of them.
    (site_hash >> (u64::BITS - SLOT_BITS)) as u32
}

/// What the backend with this key hash draws for a slot.
#[inline]
#[must_use]
pub fn draw(slot: u32, backend_hash: u64) -> u64 {
    let step = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = backend_hash.wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One backend's bid for a slot.
#[derive(Clone, Copy)]
pub(crate) struct Bid {
    draw: u64,
    key_hash: u64,
}

impl Bid {
    #[inline]
    pub(crate) fn new(slot: u32, key_hash: u64) -> Self {
        Self {
            draw: draw(slot, key_hash),
            key_hash,
        }
    }

    /// Whether this bid wins over `other` if their backends weigh the same.
    #[inline]
    pub(crate) fn beats(self, other: Self) -> bool {
        (self.draw, self.key_hash) > (other.draw, other.key_hash)
    }
}

/// A bid with its backend's weight.
#[derive(Clone, Copy)]
pub(crate) struct WeightedBid {
    bid: Bid,
    score: u64,
    weight: u64,
}

impl WeightedBid {
    #[inline]
    pub(crate) fn new(slot: u32, key_hash: u64, weight: Weight) -> Self {
        let bid = Bid::new(slot, key_hash);
        Self {
            bid,
            score: negative_log2(bid.draw),
            weight: weight.get().into(),
        }
    }

    /// Whether this bid wins over `other`.
    #[inline]
    pub(crate) fn beats(self, other: Self) -> bool {
        let ours = u128::from(self.score) * u128::from(other.weight);
        let theirs = u128::from(other.score) * u128::from(self.weight);
        ours < theirs || ours == theirs && self.bid.beats(other.bid)
    }
}
