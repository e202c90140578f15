//! How much memory the machine has, and how much is left.

use std::fs;

use serde::Serialize;

/// In bytes; none where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it.
    pub total: Option<u64>,
    /// What could be used without swapping, as the kernel estimates it (`MemAvailable`).
    pub available: Option<u64>,
}

/// How it is now.
pub fn look() -> Memory {
    fs::read_to_string("/proc/meminfo").map_or_else(|_| Memory::default(), |text| parse(&text))
}

/// Bytes that could be used without swapping; None if the kernel does not say.
pub fn available() -> Option<u64> {
    look().available
}

fn parse(meminfo: &str) -> Memory {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        kibibytes.checked_mul(1024)
    };
    Memory {
        total: field("MemTotal:"),
        available: field("MemAvailable:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_it_in_kibibytes() {
        let text =
            "MemTotal:       24602204 kB\nMemFree:        11 kB\nMemAvailable:   23018496 kB\n";
        let memory = Memory {
            total: Some(24_602_204 * 1024),
            available: Some(23_018_496 * 1024),
        };
        assert_eq!(parse(text), memory);
        assert_eq!(parse("MemTotal: 1 kB\n").available, None);
        assert_eq!(parse("MemAvailable: much kB\n"), Memory::default());
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
