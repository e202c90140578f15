//! Buckets: what many hosts lead to, in one value of LMDB.
//!
//! A request for a host that was not visited lately waits for memory: in a tree of a million hosts for a dozen cache lines, one
//! after the other. The tree of the buckets is so small that it stays in the caches; in a bucket one line says where a host's
//! record begins, and the next one or two are the record.
//!
//! | part | layout |
//! |---|---|
//! | head | number of records u16, 0 u16 |
//! | slots | of each: tag u16, where the record begins u16, in units of 8 bytes from the beginning of the bucket; 0: empty |
//! | records | of each: the host's length u8, the record's length u16, host, record, zeroes to a multiple of 8 |
//!
//! A host's record is in the slot that its hash names, or in the next one that is not another's. How many slots there are follows
//! from the length of the bucket, which LMDB knows: reading it would be one more wait for memory.

use crate::codec::{Bytes, DecodeError};

const HEAD: usize = 4;
const SLOT: usize = 4;
/// A bucket has a slot for each so many bytes, rounded up to a power of two. No host's entry is shorter, so there are more slots
/// than entries.
const BYTES_PER_SLOT: usize = 24;
/// What the beginnings of records are multiples of.
const UNIT: usize = 8;

/// Why records are not a bucket: they are too long, or too many for their length. By far: [`crate::hosts`] splits buckets long before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// A record with its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The host.
    pub host: &'a [u8],
    /// What it leads to.
    pub record: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The one that begins here.
    fn at(bucket: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        let mut bytes = Bytes(bucket.get(offset..).ok_or(DecodeError::Short)?);
        let host = bytes.u8()?;
        let record = bytes.u16()?;
        Ok(Self {
            host: bytes.slice(host.into())?,
            record: bytes.slice(record.into())?,
        })
    }

    fn length(&self) -> usize {
        (3 + self.host.len() + self.record.len()).next_multiple_of(UNIT)
    }
}

/// What of a hash is left when it has chosen the bucket.
#[derive(Clone, Copy)]
struct Place {
    tag: u16,
    first: usize,
}

impl Place {
    fn of(hash: u64) -> Self {
        Self {
            tag: (hash >> 48) as u16,
            first: (hash >> 32) as u16 as usize,
        }
    }
}

/// How many slots a bucket of this length has.
fn slots(length: usize) -> usize {
    length.div_ceil(BYTES_PER_SLOT).next_power_of_two()
}

/// Where the entries begin behind so many slots.
fn begin(slots: usize) -> usize {
    (HEAD + SLOT * slots).next_multiple_of(UNIT)
}

/// What a host with this hash leads to.
///
/// # Errors
/// The bytes are no bucket; not everything of it is looked at.
#[inline]
pub fn find<'a>(bucket: &'a [u8], hash: u64, host: &[u8]) -> Result<Option<&'a [u8]>, DecodeError> {
    let slots = slots(bucket.len());
    let place = Place::of(hash);
    for step in 0..slots {
        let at = HEAD + SLOT * ((place.first + step) & (slots - 1));
        let mut slot = Bytes(bucket.get(at..).ok_or(DecodeError::Short)?);
        let (tag, begins) = (slot.u16()?, slot.u16()?);
        if begins == 0 {
            return Ok(None);
        }
        if tag == place.tag {
            let entry = Entry::at(bucket, usize::from(begins) * UNIT)?;
            if entry.host == host {
                return Ok(Some(entry.record));
            }
        }
    }
    Ok(None)
}

/// All records of a bucket.
///
/// # Errors
/// The bytes are no bucket.
pub fn entries(bucket: &[u8]) -> Result<Vec<Entry<'_>>, DecodeError> {
    let mut head = Bytes(bucket);
    let (records, zero) = (head.u16()?, head.u16()?);
    if zero != 0 {
        return Err(DecodeError::Field("head"));
    }
    let mut offset = begin(slots(bucket.len()));
    let mut entries = Vec::with_capacity(records.into());
    for _ in 0..records {
        let entry = Entry::at(bucket, offset)?;
        offset += entry.length();
        entries.push(entry);
    }
    match offset == bucket.len() {
        true => Ok(entries),
        false => Err(DecodeError::Long),
    }
}

/// The bucket of these records, each with the hash of its host; no host comes twice.
///
/// # Errors
/// They do not fit.
pub fn encode<'a>(
    entries: impl ExactSizeIterator<Item = (u64, Entry<'a>)> + Clone,
) -> Result<Vec<u8>, TooLarge> {
    let small = |number: usize| u16::try_from(number).map_err(|_| TooLarge);
    let records = small(entries.len())?;
    let length: usize = entries.clone().map(|(_, entry)| entry.length()).sum();
    // The first power of two that is enough for the bucket it makes is just what the length of that bucket says: were it too many,
    // half of it had been enough.
    let mut slots = 1;
    while self::slots(begin(slots) + length) > slots {
        slots *= 2;
    }
    if usize::from(records) >= slots {
        return Err(TooLarge);
    }
    let mut bucket = Vec::with_capacity(begin(slots) + length);
    bucket.extend(records.to_le_bytes());
    bucket.resize(begin(slots), 0);
    let mut taken = vec![None; slots];
    for (hash, entry) in entries {
        let begins = small(bucket.len() / UNIT)?;
        let length = u8::try_from(entry.host.len()).map_err(|_| TooLarge)?;
        bucket.push(length);
        bucket.extend(small(entry.record.len())?.to_le_bytes());
        bucket.extend(entry.host);
        bucket.extend(entry.record);
        bucket.resize(bucket.len().next_multiple_of(UNIT), 0);
        let Place { tag, first } = Place::of(hash);
        let mut ways = (0..slots).map(|step| (first + step) & (slots - 1));
        let free = ways.find(|at| taken.get(*at).is_some_and(Option::is_none));
        let slot = free.and_then(|at| taken.get_mut(at)).ok_or(TooLarge)?;
        *slot = Some((tag, begins));
    }
    for (at, slot) in taken.into_iter().enumerate() {
        let Some((tag, begins)) = slot else { continue };
        let at = HEAD + SLOT * at;
        if let Some([a, b, c, d]) = bucket.get_mut(at..at + SLOT) {
            [*a, *b] = u16::to_le_bytes(tag);
            [*c, *d] = u16::to_le_bytes(begins);
        }
    }
    Ok(bucket)
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    type Records = std::collections::BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

    fn records() -> impl Strategy<Value = Records> {
        let host = proptest::collection::vec(any::<u8>(), 1..=255);
        // As long as a site's.
        let record = proptest::collection::vec(any::<u8>(), 13..=300);
        // Few hashes, so that many hosts want the same slot and have the same tag.
        let hash = prop_oneof![any::<u64>(), (0_u64..4).prop_map(|few| few << 48)];
        btree_map(host, (hash, record), 0..200)
    }

    fn encoded(records: &Records) -> Vec<u8> {
        let entries = records.iter().map(|(host, (hash, record))| {
            let (host, record) = (host.as_slice(), record.as_slice());
            (*hash, Entry { host, record })
        });
        encode(entries).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found_and_nothing_else(records in records(), other: Vec<u8>, hash: u64) {
            let bucket = encoded(&records);
            for (host, (hash, record)) in &records {
                prop_assert_eq!(find(&bucket, *hash, host), Ok(Some(record.as_slice())));
            }
            if !records.contains_key(&other) {
                prop_assert_eq!(find(&bucket, hash, &other), Ok(None));
            }
            let all = entries(&bucket).unwrap();
            let all = all.iter().map(|entry| (entry.host, entry.record));
            let put = records.iter().map(|(host, (_, record))| (host.as_slice(), record.as_slice()));
            prop_assert!(all.eq(put));
        }

        #[test]
        fn a_bucket_with_a_piece_missing_or_too_much_is_refused(records in records(), cut in 1_usize..64) {
            let bucket = encoded(&records);
            let cut = cut.min(bucket.len());
            prop_assert!(entries(&bucket[..bucket.len() - cut]).is_err());
            let longer = [bucket, vec![0; cut]].concat();
            prop_assert!(entries(&longer).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, hash: u64, host: Vec<u8>) {
            let _ = entries(&bytes);
            let _ = find(&bytes, hash, &host);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let entry = Entry {
            host: &[b'a'; 255],
            record: &[0; 1000],
        };
        let many = std::iter::repeat_n((0, entry), 500);
        assert_eq!(encode(many), Err(TooLarge));
        let (host, record) = (&[b'a'; 1], &[]);
        let short = Entry { host, record };
        assert_eq!(encode(std::iter::repeat_n((0, short), 500)), Err(TooLarge));
        let host = &[b'a'; 256];
        let long = Entry { host, record: &[] };
        assert_eq!(encode(std::iter::once((0, long))), Err(TooLarge));
    }
}
