//! Files of the system's `/etc` in a sandbox. Whatever lies there was put there by root.
//!
//! Showing one where it is takes bubblewrap some 0.15 ms, each time a site wakes; a copy of a small file, or a link like the
//! system's, half of that or less. So directories and large files are shown, and the rest is made anew.

use std::fs::{self, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// The largest file that is copied, in bytes: its copy counts among the site's memory.
const SMALL: u64 = 16 << 10;
/// Whom a file must allow to read it to be copied: the copy may be read by everybody.
const EVERYBODY: u32 = 0o004;
/// Where a sandbox finds what the system has there: a link to it leads to the same file inside as outside.
const SYSTEM: &str = "/usr";
/// The same from `/etc`.
const UP_TO_SYSTEM: &str = "../usr";

/// How a path comes into the sandbox.
#[derive(Debug)]
pub enum Way {
    /// A link with this target.
    Link(String),
    /// A copy of this open file.
    Copy(OwnedFd),
    /// The very same file or directory, if there is one.
    Show,
}

/// How this path does.
pub fn way(path: &str) -> Way {
    link(path)
        .map(Way::Link)
        .or_else(|| small(path).map(Way::Copy))
        .unwrap_or(Way::Show)
}

fn link(path: &str) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    // One that leads there by way of another directory may lead elsewhere in a sandbox, which does not have them all.
    let straight = target.starts_with(SYSTEM) || target.starts_with(UP_TO_SYSTEM);
    let there = fs::canonicalize(path).is_ok_and(|place| place.starts_with(SYSTEM));
    (straight && there)
        .then_some(target)?
        .into_os_string()
        .into_string()
        .ok()
}

fn small(path: &str) -> Option<OwnedFd> {
    let fits = |data: Metadata| {
        data.is_file() && data.len() <= SMALL && data.mode() & EVERYBODY == EVERYBODY
    };
    // Looked at before it is opened: opening a pipe would wait.
    if !fs::metadata(path).is_ok_and(fits) {
        return None;
    }
    File::open(path).ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_what_is_the_same_to_a_site_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let file = |name, length, mode| {
            fs::write(at(name), vec![b'x'; length]).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
            way(&at(name))
        };
        assert!(matches!(file("small", SMALL as usize, 0o644), Way::Copy(_)));
        assert!(matches!(
            file("large", SMALL as usize + 1, 0o644),
            Way::Show
        ));
        assert!(matches!(file("closed", 1, 0o640), Way::Show));
        fs::create_dir(at("directory")).unwrap();
        assert!(matches!(way(&at("directory")), Way::Show));
        assert!(matches!(way(&at("missing")), Way::Show));

        let linked = |name, target: &str| {
            symlink(target, at(name)).unwrap();
            way(&at(name))
        };
        assert!(
            matches!(linked("program", "/usr/bin/env"), Way::Link(target) if target == "/usr/bin/env")
        );
        // To nothing, by a way that is not there inside, and to a file that is not there inside.
        assert!(matches!(linked("dangling", "/usr/no/such"), Way::Show));
        symlink("/usr/bin", at("bin")).unwrap();
        assert!(matches!(
            linked("roundabout", &at("bin/env")),
            Way::Copy(_) | Way::Show
        ));
        assert!(matches!(linked("other", &at("small")), Way::Copy(_)));
    }
}
