//! All hosts of a table, spread over buckets by a hash: linear hashing.
//!
//! Buckets are numbered from 0, and one more is added, and filled with a part of another one, whenever they hold more than
//! [`FILL`] hosts on average: the table grows with what is in it, a bucket at a time. It does not shrink before it is rebuilt.
//! The hash is keyed by a secret that every table has for itself, so that nobody can register names that all end in one bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;

use heed::{RoTxn, RwTxn};
use routing::Domain;
use siphasher::sip::SipHasher13;

use crate::bucket::{self, Entry};
use crate::codec::{self, DecodeError};
use crate::env::Environment;
use crate::error::TableError;
use crate::record::SiteRecord;

/// So many hosts are in a bucket on average: with names of usual length a bucket takes two or three pages; one that is soon split, up
/// to five.
const FILL: u64 = 160;
/// At most so many changes of a table that has hosts are held before they are made.
const MOST_PENDING: u64 = 65_536;

/// How the hosts of a table are spread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// The key of the hash.
    pub key: [u64; 2],
    /// How many buckets there are; at least one.
    pub buckets: u32,
    /// How many hosts are in them.
    pub hosts: u64,
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread")
            .field("buckets", &self.buckets)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl Spread {
    /// That of an empty table.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut key = [[0; 8]; 2];
        for half in &mut key {
            rustix::rand::getrandom(half, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self {
            key: key.map(u64::from_ne_bytes),
            buckets: 1,
            hosts: 0,
        })
    }

    /// Whether there are as many buckets as so many hosts take.
    pub(crate) fn is_possible(&self) -> bool {
        self.buckets > 0 && self.hosts <= FILL * u64::from(self.buckets)
    }

    fn hash(&self, host: &[u8]) -> u64 {
        let [a, b] = self.key;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write(host);
        hasher.finish()
    }

    /// In which bucket a host with this hash is.
    fn bucket(&self, hash: u64) -> u32 {
        let all = u64::from(self.buckets).next_power_of_two();
        // The buckets of the second half come into being one after the other: what belongs into one that is not there yet is where
        // it will be split off.
        let number = match hash & (all - 1) {
            there if there < self.buckets.into() => there,
            later => later & (all / 2 - 1),
        };
        number as u32
    }

    /// The bucket that is split when the next one is added.
    fn parent_of_next(&self) -> u32 {
        self.buckets ^ (1 << self.buckets.ilog2())
    }
}

/// What a bucket is found by. LMDB compares the machine's own numbers where they lie.
#[repr(align(4))]
struct Key([u8; 4]);

fn key(bucket: u32) -> Key {
    Key(bucket.to_ne_bytes())
}

/// What a host leads to.
pub(crate) fn find(
    environment: &Environment,
    txn: &RoTxn<'_>,
    spread: &Spread,
    host: &Domain,
) -> Result<Option<SiteRecord>, TableError> {
    let hash = spread.hash(host.as_bytes());
    let bucket = environment
        .hosts
        .get(txn, &key(spread.bucket(hash)).0)
        .map_err(|error| TableError::heed("read", &environment.path, error))?;
    let Some(bucket) = bucket else {
        return Ok(None);
    };
    // A record is large: it is made where it stays.
    let damaged = match bucket::find(bucket, hash, host.as_bytes()) {
        Ok(None) => return Ok(None),
        Ok(Some(record)) => match codec::decode_site(record, host) {
            Ok(site) => return Ok(Some(site)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    Err(environment.corrupt(format!("the record of host {host}"), damaged))
}

/// All hosts and what they lead to, in no order; each is where it is looked for.
pub(crate) fn all<'t>(
    environment: &'t Environment,
    txn: &'t RoTxn<'_>,
    spread: Spread,
) -> Result<impl Iterator<Item = Result<(Domain, SiteRecord), TableError>> + 't, TableError> {
    let failed = |error| TableError::heed("read", &environment.path, error);
    let buckets = environment.hosts.iter(txn).map_err(failed)?;
    let whole = move |bucket: heed::Result<(&'t [u8], &'t [u8])>| {
        let (key, bytes) = bucket.map_err(failed)?;
        let is_found = |entry: &Entry<'_>| {
            let hash = spread.hash(entry.host);
            key == self::key(spread.bucket(hash)).0
                && bucket::find(bytes, hash, entry.host) == Ok(Some(entry.record))
        };
        bucket::entries(bytes)
            .and_then(|entries| match entries.iter().all(is_found) {
                true => Ok(entries),
                false => Err(DecodeError::Field("place of a host")),
            })
            .map_err(|error| environment.corrupt(format!("the bucket {key:02x?}"), error))
    };
    let one = move |entry: Entry<'_>| {
        let corrupt = |error| {
            let host = entry.host.escape_ascii();
            environment.corrupt(format!("the record of host {host}"), error)
        };
        let host = Domain::from_normalised(entry.host)
            .ok_or_else(|| corrupt(DecodeError::Field("name")))?;
        let site = codec::decode_site(entry.record, &host).map_err(corrupt)?;
        Ok((host, site))
    };
    Ok(buckets.flat_map(move |bucket| {
        let (entries, failed) = match whole(bucket) {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        failed.into_iter().chain(entries.into_iter().map(one))
    }))
}

/// Changes of hosts within a transaction, gathered so that a bucket is written once for many of them.
pub(crate) struct Changes<'e> {
    environment: &'e Environment,
    spread: Spread,
    pending: Vec<Pending>,
}

/// A change of one host. A new table is made of as many as it will have hosts.
struct Pending {
    hash: u64,
    /// The host, and behind it its record.
    bytes: Box<[u8]>,
    host_length: usize,
    /// Otherwise it shall lead nowhere.
    has_record: bool,
}

impl Pending {
    fn host(&self) -> &[u8] {
        self.bytes.get(..self.host_length).unwrap_or_default()
    }

    fn record(&self) -> Option<&[u8]> {
        self.bytes
            .get(self.host_length..)
            .filter(|_| self.has_record)
    }
}

impl<'e> Changes<'e> {
    pub(crate) fn new(environment: &'e Environment, spread: Spread) -> Self {
        Self {
            environment,
            spread,
            pending: Vec::new(),
        }
    }

    /// Makes a host lead to a site, or nowhere. Changes of one host take effect in their order.
    pub(crate) fn put(
        &mut self,
        txn: &mut RwTxn<'_>,
        host: &Domain,
        site: Option<&SiteRecord>,
    ) -> Result<(), TableError> {
        let host = host.as_bytes();
        let mut bytes = host.to_vec();
        if let Some(site) = site {
            codec::encode_site(site, host, &mut bytes);
        }
        self.pending.push(Pending {
            hash: self.spread.hash(host),
            bytes: bytes.into(),
            host_length: host.len(),
            has_record: site.is_some(),
        });
        let most = match self.spread.hosts {
            // Each bucket of a new table is written once: its space could not be used again within the transaction.
            0 => u64::MAX,
            // As many as there are at most double what is in a bucket before it is split.
            hosts => hosts.clamp(FILL, MOST_PENDING),
        };
        match self.pending.len() as u64 >= most {
            true => self.make(txn),
            false => Ok(()),
        }
    }

    /// Makes all that are pending; gives how the hosts are spread then.
    pub(crate) fn finish(mut self, txn: &mut RwTxn<'_>) -> Result<Spread, TableError> {
        self.make(txn)?;
        Ok(self.spread)
    }

    fn make(&mut self, txn: &mut RwTxn<'_>) -> Result<(), TableError> {
        let mut pending = std::mem::take(&mut self.pending);
        if self.spread.hosts == 0 {
            // There is no bucket yet.
            let buckets = (pending.len() as u64).div_ceil(FILL).max(1);
            self.spread.buckets = u32::try_from(buckets).unwrap_or(u32::MAX);
        }
        let spread = self.spread;
        let bucket_of = |change: &Pending| spread.bucket(change.hash);
        pending.sort_by_key(bucket_of);
        for changes in pending.chunk_by(|one, other| bucket_of(one) == bucket_of(other)) {
            if let Some(first) = changes.first() {
                self.change(txn, bucket_of(first), changes)?;
            }
        }
        while self.spread.hosts > FILL * u64::from(self.spread.buckets) {
            self.split(txn)?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        txn: &mut RwTxn<'_>,
        number: u32,
        changes: &[Pending],
    ) -> Result<(), TableError> {
        let before = self.read(txn, number)?;
        let mut records = self.records(number, &before)?;
        let others = self.spread.hosts.checked_sub(records.len() as u64);
        let others = others.ok_or_else(|| {
            let error = DecodeError::Field("number of hosts");
            self.environment.corrupt("the header".to_owned(), error)
        })?;
        let mut differs = false;
        for change in changes {
            let key = (change.hash, change.host());
            let record = change.record();
            let before = match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
            differs |= before != record;
        }
        self.spread.hosts = others + records.len() as u64;
        match differs {
            true => self.write(txn, number, &records),
            false => Ok(()),
        }
    }

    /// Adds a bucket.
    fn split(&mut self, txn: &mut RwTxn<'_>) -> Result<(), TableError> {
        let (old, new) = (self.spread.parent_of_next(), self.spread.buckets);
        let before = self.read(txn, old)?;
        let mut stay = self.records(old, &before)?;
        self.spread.buckets = new.saturating_add(1);
        let mut go = Records::new();
        stay.retain(|(hash, host), record| {
            let stays = self.spread.bucket(*hash) == old;
            if !stays {
                go.insert((*hash, *host), *record);
            }
            stays
        });
        self.write(txn, old, &stay)?;
        self.write(txn, new, &go)
    }

    /// A copy of a bucket; LMDB's own bytes hold until something is written.
    fn read(&self, txn: &RwTxn<'_>, number: u32) -> Result<Vec<u8>, TableError> {
        let bytes = self
            .environment
            .hosts
            .get(txn, &key(number).0)
            .map_err(|error| TableError::heed("read", &self.environment.path, error))?;
        Ok(bytes.unwrap_or_default().to_vec())
    }

    fn records<'b>(&self, number: u32, bucket: &'b [u8]) -> Result<Records<'b>, TableError> {
        if bucket.is_empty() {
            return Ok(Records::new());
        }
        let entries = bucket::entries(bucket).map_err(|error| {
            self.environment
                .corrupt(format!("the bucket {number}"), error)
        })?;
        let with_hash =
            |entry: Entry<'b>| ((self.spread.hash(entry.host), entry.host), entry.record);
        Ok(entries.into_iter().map(with_hash).collect())
    }

    fn write(
        &self,
        txn: &mut RwTxn<'_>,
        number: u32,
        records: &Records<'_>,
    ) -> Result<(), TableError> {
        let failed = |error| TableError::heed("write", &self.environment.path, error);
        let hosts = self.environment.hosts;
        if records.is_empty() {
            hosts.delete(txn, &key(number).0).map_err(failed)?;
            return Ok(());
        }
        let entries = records
            .iter()
            .map(|((hash, host), record)| (*hash, Entry { host, record }));
        let bucket = bucket::encode(entries).map_err(|_| TableError::Unstorable {
            record: format!("the bucket {number} of {} hosts", records.len()),
            what: "it takes more than 512 KiB",
        })?;
        hosts.put(txn, &key(number).0, &bucket).map_err(failed)
    }
}

/// The records of a bucket, by hash and host.
type Records<'b> = BTreeMap<(u64, &'b [u8]), &'b [u8]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_bucket_takes_hosts_from_its_parent_only() {
        let mut spread = Spread {
            key: [1, 2],
            buckets: 1,
            hosts: 0,
        };
        let hashes: Vec<u64> = (0_u32..2000)
            .map(|number| spread.hash(&number.to_le_bytes()))
            .collect();
        while spread.buckets < 300 {
            let (parent, new, before) = (spread.parent_of_next(), spread.buckets, spread);
            spread.buckets += 1;
            for hash in &hashes {
                let (was, is) = (before.bucket(*hash), spread.bucket(*hash));
                assert!(is < spread.buckets);
                assert!(was == is || (was == parent && is == new), "{was} {is}");
            }
        }
    }

    #[test]
    fn no_two_tables_have_the_same_hash() {
        assert_ne!(Spread::new().unwrap().key, Spread::new().unwrap().key);
    }
}
