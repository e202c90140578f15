//! `[balancer.eject]`: when a backend that fails is left out, and how it comes back.
use super::{SettingsError, toml_file::Checked};
use crate::model::Span;
use serde::Deserialize;

/// `[balancer.eject]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// After so many failures in a row; 0: never.
    pub failures: u8,
    /// For how long at first.
    pub time: Span,
    /// For how long at most.
    pub max_time: Span,
    /// Over how long it takes its sites back.
    pub return_time: Span,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EjectFile {
    failures: Option<u8>,
    time: Option<String>,
    max_time: Option<String>,
    #[serde(rename = "return")]
    return_time: Option<String>,
}

impl Checked<'_> {
    pub(super) fn eject(&self, raw: EjectFile) -> Result<Eject, SettingsError> {
        Ok(Eject {
            failures: raw.failures.unwrap_or(3),
            time: self.span("balancer.eject.time", raw.time, "1s")?,
            max_time: self.span("balancer.eject.max_time", raw.max_time, "30s")?,
            return_time: self.span("balancer.eject.return", raw.return_time, "30s")?,
        })
    }
}
