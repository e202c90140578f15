//! Where a path leads, if only root has had a hand in it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// The path without symbolic links. Links that are root's are followed; others are refused: whoever made one could have meant
/// it to lead to what is not his.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    resolve_for(path, 0)
}

fn resolve_for(path: &Path, owner: u32) -> io::Result<PathBuf> {
    let mut place = PathBuf::from("/");
    let mut left: VecDeque<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&part);
        let about = |why: String| io::Error::other(format!("{}: {why}", next.display()));
        let found = fs::symlink_metadata(&next).map_err(|error| about(error.to_string()))?;
        if !found.file_type().is_symlink() {
            place = next;
            continue;
        }
        if found.uid() != owner {
            return Err(about("it is a symbolic link that is not root's".to_owned()));
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(about("too many symbolic links".to_owned()));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            place = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(place)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_of_the_right_owner_is_followed_and_another_is_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let me = fs::metadata(&root).unwrap().uid();
        fs::create_dir_all(root.join("data/site")).unwrap();
        symlink("data", root.join("relative")).unwrap();
        symlink(root.join("relative/../data"), root.join("absolute")).unwrap();
        for name in ["relative/site", "absolute/site", "data/site"] {
            assert_eq!(
                resolve_for(&root.join(name), me).unwrap(),
                root.join("data/site"),
                "{name}"
            );
        }
        let said = resolve_for(&root.join("relative/site"), me + 1)
            .unwrap_err()
            .to_string();
        assert!(said.contains("relative: it is a symbolic link"), "{said}");
        assert!(resolve_for(&root.join("data/none"), me).is_err());
        symlink("loop", root.join("loop")).unwrap();
        assert!(resolve_for(&root.join("loop"), me).is_err());
    }
}
