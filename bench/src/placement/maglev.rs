//! Maglev's look-up table (Eisenbud et al., NSDI 2016, section 3.4) with 65,537 entries; a backend of weight 2 takes two turns
//! where one of weight 1 takes one.

use routing::rendezvous::key_hash;

use super::Backend;

const ENTRIES: usize = 65_537;

/// The backend of each entry.
pub struct Lookup(Vec<usize>);

impl Lookup {
    pub fn new(backends: &[Backend]) -> Lookup {
        let mut wanted: Vec<(usize, usize)> = backends
            .iter()
            .map(|backend| {
                let hash = key_hash(backend.address.as_bytes());
                let offset = hash as usize % ENTRIES;
                let skip = (hash >> 32) as usize % (ENTRIES - 1) + 1;
                (offset, skip)
            })
            .collect();
        let mut entries = vec![usize::MAX; ENTRIES];
        let mut filled = 0;
        loop {
            for (number, backend) in backends.iter().enumerate() {
                for _ in 0..backend.weight {
                    let (next, skip) = &mut wanted[number];
                    while entries[*next] != usize::MAX {
                        *next = (*next + *skip) % ENTRIES;
                    }
                    entries[*next] = number;
                    filled += 1;
                    if filled == ENTRIES {
                        return Lookup(entries);
                    }
                }
            }
        }
    }

    pub fn find(&self, site: &[u8]) -> usize {
        self.0[(key_hash(site) % ENTRIES as u64) as usize]
    }
}
