//! The words and numbers that tell an operator why a request was refused.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A header's value as a word that can stand in a page, a log or a header, if it is one.
pub(crate) fn word(value: &[u8]) -> Option<Box<str>> {
    const LONGEST: usize = 64;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || value.len() > LONGEST || !value.iter().all(is_plain) {
        return None;
    }
    std::str::from_utf8(value).ok().map(Box::from)
}

/// A new id: enough to find one line in the logs of all machines.
pub(crate) fn new_id() -> Box<str> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Workers forked from one master share what RandomState began with.
    let seed = (std::process::id(), count, SystemTime::now());
    format!("{:016x}", RandomState::new().hash_one(seed)).into()
}
