//! `paas_activity DIRECTORY [sites=NUMBER];`

use std::path::PathBuf;

use activity::Layout;

use crate::{Named, Refusal, directory, number};

/// For how many sites a worker can count at once unless it is said.
const DEFAULT_SITES: usize = 8192;

/// Where the requests of sites are counted.
#[derive(Debug)]
pub struct Activity {
    /// The directory of the counters.
    pub directory: PathBuf,
    /// For how many sites there is room.
    pub layout: Layout,
}

impl Activity {
    /// Reads the words.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let directory = directory(words.next().unwrap_or_default())?;
        let mut layout = None;
        for argument in words.map(Named::from) {
            match argument.name {
                b"sites" => {
                    let expected = format!("a number from 1 to {}", Layout::MOST);
                    let read = |value: &[u8]| number(value).and_then(Layout::new);
                    argument.once(&mut layout, &expected, read)?;
                }
                _ => return Err(argument.unknown()),
            }
        }
        let layout = layout
            .or_else(|| Layout::new(DEFAULT_SITES))
            .ok_or("has no layout")?;
        Ok(Self { directory, layout })
    }
}
