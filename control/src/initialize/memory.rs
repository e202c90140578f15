//! How much memory the machine has left.

use std::fs;

/// Bytes that could be used without swapping, as the kernel estimates them (`MemAvailable`); None if it does not say.
pub fn available() -> Option<u64> {
    parse(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_it_in_kibibytes() {
        let text =
            "MemTotal:       24602204 kB\nMemFree:        11 kB\nMemAvailable:   23018496 kB\n";
        assert_eq!(parse(text), Some(23_018_496 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert_eq!(parse("MemAvailable: much kB\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
