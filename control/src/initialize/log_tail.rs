//! The end of a site's log, for people: what it wrote since a start began, bounded and printable.
//!
//! A site writes whatever it likes into its log, and while it is read. Nothing here depends on what it says.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// No more of the log is read.
const BYTES: u64 = 16 * 1024;
/// No more of it is shown.
const LINES: usize = 40;
const COLUMNS: usize = 300;

/// How long the log is now; 0 if there is none.
pub fn length(log: &Path) -> u64 {
    std::fs::symlink_metadata(log).map_or(0, |found| found.len())
}

/// The last lines written after the first `from` bytes. A log that is shorter than that was rotated: then all of it counts.
pub fn since(log: &Path, from: u64) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(log)?;
    let length = file.metadata()?.len();
    let from = if from > length { 0 } else { from };
    let start = from.max(length.saturating_sub(BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(BYTES).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // The first line is half a line when more was cut off before it.
    let skipped = usize::from(start > from);
    let lines: Vec<&str> = text.lines().skip(skipped).collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(LINES));
    Ok(shown
        .map(|line| printable(line))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Of a bounded length, with nothing in it that a terminal obeys.
fn printable(line: &str) -> String {
    let plain = |letter: char| match letter {
        '\t' => ' ',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    line.chars().take(COLUMNS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_bounded_and_printable() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("server.log");
        std::fs::write(&log, "old\n").unwrap();
        let from = length(&log);
        std::fs::write(&log, "old\nnew \x1b[31m\nlast\n").unwrap();
        assert_eq!(since(&log, from).unwrap(), "new \u{fffd}[31m\nlast");
        assert_eq!(since(&log, 9999).unwrap().lines().count(), 3, "rotated");
        std::fs::write(&log, format!("{}\nend\n", "x".repeat(99_999))).unwrap();
        assert_eq!(since(&log, 0).unwrap(), "end");
        let long = "y".repeat(2000);
        std::fs::write(&log, format!("{long}\n")).unwrap();
        assert_eq!(since(&log, 0).unwrap().len(), COLUMNS);
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        assert!(since(&directory.path().join("link"), 0).is_err());
        assert_eq!(length(&directory.path().join("none")), 0);
    }
}
