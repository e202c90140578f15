//! [`View`]: the table as it was when a look at it began.

use std::sync::Arc;

use heed::{RoTxn, WithoutTls};
use routing::Domain;

use crate::codec::{self, DecodeError, HeaderError};
use crate::env::{Environment, Stamp};
use crate::error::TableError;
use crate::hosts;
use crate::record::{BackendRecord, Header, SiteRecord};

pub(crate) const HEADER: &[u8] = b"header";

/// The table at one moment: nothing in it changes while it is looked at, and nothing read from it is borrowed.
pub struct View {
    // Ends before its environment can.
    txn: RoTxn<'static, WithoutTls>,
    environment: Arc<Environment>,
    header: Header,
}

impl View {
    pub(crate) fn new(
        txn: RoTxn<'static, WithoutTls>,
        environment: Arc<Environment>,
        header: Header,
    ) -> Self {
        Self {
            txn,
            environment,
            header,
        }
    }

    /// What holds for the table as a whole.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What [`Reader::stamp`](crate::Reader::stamp) says as long as the table is as it is seen here.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.environment.stamp(self.txn.id())
    }

    /// The site a host name leads to. Allocates nothing.
    ///
    /// # Errors
    /// [`TableError::Corrupt`] for a record that cannot be one, and as LMDB fails.
    pub fn site(&self, host: &Domain) -> Result<Option<SiteRecord>, TableError> {
        hosts::find(&self.environment, &self.txn, &self.header.spread, host)
    }

    /// All backends in their configured order, which is that of their numbers.
    ///
    /// # Errors
    /// As [`View::site`].
    pub fn backends(&self) -> Result<Vec<BackendRecord>, TableError> {
        let mut backends = Vec::new();
        for entry in self
            .environment
            .backends
            .iter(&self.txn)
            .map_err(|error| self.failed(error))?
        {
            let (key, bytes) = entry.map_err(|error| self.failed(error))?;
            let backend =
                codec::decode_backend_key(key).and_then(|id| codec::decode_backend(id, bytes));
            backends.push(backend.map_err(|error| {
                self.environment
                    .corrupt(format!("the backend with the key {key:02x?}"), error)
            })?);
        }
        Ok(backends)
    }

    /// All host names and the sites they lead to, in no order: for checks and listings, not for requests.
    ///
    /// # Errors
    /// As [`View::site`], here and for every record.
    pub fn hosts(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Domain, SiteRecord), TableError>>, TableError> {
        hosts::all(&self.environment, &self.txn, self.header.spread)
    }

    fn failed(&self, error: heed::Error) -> TableError {
        TableError::heed("read", &self.environment.path, error)
    }
}

/// Reads the header of an environment.
pub(crate) fn read_header(
    environment: &Environment,
    txn: &RoTxn<'_>,
) -> Result<Header, TableError> {
    let corrupt = |source| environment.corrupt("the header".to_owned(), source);
    let bytes = environment
        .meta
        .get(txn, HEADER)
        .map_err(|error| TableError::heed("read", &environment.path, error))?;
    codec::decode_header(bytes.ok_or_else(|| corrupt(DecodeError::Missing))?).map_err(|error| {
        match error {
            HeaderError::Version(found) => TableError::Version {
                path: Arc::clone(&environment.path),
                found,
            },
            HeaderError::Decode(error) => corrupt(error),
        }
    })
}
