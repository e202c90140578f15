//! `[waking]`: how many starts and how many waiting requests a backend bears.
use super::{Invalid, SettingsError, toml_file::Checked};
use serde::Deserialize;

/// The most that can be asked for of anything here.
const MOST: usize = 1 << 20;

/// `[waking]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waking {
    /// How many sites may be starting at once; none: two for each core.
    pub starts: Option<usize>,
    /// Memory in bytes that starts leave free: below it, idle sites are put to sleep early and starts come one by one.
    pub memory_reserve: u64,
    /// How many requests may wait for one site.
    pub parked_per_site: usize,
    /// How many requests may wait for all sites together.
    pub parked: usize,
    /// For how many sites each worker of nginx can count requests at once.
    pub counted_sites: usize,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WakingFile {
    starts: Option<usize>,
    memory_reserve: Option<String>,
    parked_per_site: Option<usize>,
    parked: Option<usize>,
    counted_sites: Option<usize>,
}

impl Checked<'_> {
    pub(super) fn waking(&self, raw: WakingFile) -> Result<Waking, SettingsError> {
        let number = |key, given: Option<usize>, default| match given.unwrap_or(default) {
            number @ 1..=MOST => Ok(number),
            number => Err(self.invalid(
                key,
                Invalid::new("a number", &number.to_string(), "it must be 1 to 1048576"),
            )),
        };
        let reserve = raw.memory_reserve.as_deref().unwrap_or("256m");
        Ok(Waking {
            starts: raw
                .starts
                .map(|starts| number("waking.starts", Some(starts), 1))
                .transpose()?,
            memory_reserve: self
                .check("waking.memory_reserve", super::Size::parse(reserve))?
                .bytes(),
            parked_per_site: number("waking.parked_per_site", raw.parked_per_site, 1024)?,
            parked: number("waking.parked", raw.parked, 2048)?,
            counted_sites: number("waking.counted_sites", raw.counted_sites, 8192)?,
        })
    }
}
