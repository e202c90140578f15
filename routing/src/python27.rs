//! CPython 2.7's hash of a byte string, without `-R`, and Python's modulo.
//!
//! The source of the algorithm is `string_hash` in CPython 2.7's Objects/stringobject.c. Deployments placed sites by
//! `hash(host) % n`, some of them by a port to LuaJIT's 32-bit `bit` operations: both widths are here, to take such a
//! deployment over without moving a site.

use std::num::NonZeroU32;

const MULTIPLIER: i32 = 1_000_003;

/// `hash(key)` as a 64-bit CPython 2.7 computes it. Never -1, which CPython keeps for errors.
#[must_use]
pub fn hash64(key: &[u8]) -> i64 {
    let Some(&first) = key.first() else { return 0 };
    let start = i64::from(first) << 7;
    let hash = key.iter().fold(start, |hash, &byte| {
        hash.wrapping_mul(MULTIPLIER.into()) ^ i64::from(byte)
    });
    // The length wraps as C's conversion from Py_ssize_t would; no key is that long.
    match hash ^ key.len() as i64 {
        -1 => -2,
        hash => hash,
    }
}

/// `hash(key)` as a 32-bit CPython 2.7 computes it. Never -1, which CPython keeps for errors.
#[must_use]
pub fn hash32(key: &[u8]) -> i32 {
    let Some(&first) = key.first() else { return 0 };
    let start = i32::from(first) << 7;
    let hash = key.iter().fold(start, |hash, &byte| {
        hash.wrapping_mul(MULTIPLIER) ^ i32::from(byte)
    });
    match hash ^ key.len() as i32 {
        -1 => -2,
        hash => hash,
    }
}

/// Python's `hash % n`: the sign of the result is the divisor's, so it is an index below `n`.
#[must_use]
pub fn floor_mod(hash: i64, n: NonZeroU32) -> u32 {
    // A remainder of a division by a u32 fits into one.
    hash.rem_euclid(n.get().into()) as u32
}
