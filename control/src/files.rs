//! The one place that writes files others rely on: under a temporary name, synced, then renamed. Whoever reads, and
//! whatever crashes, sees the old content or the new.
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// Writes `content` to `path` with the permissions `mode`; makes the directory above it if it is not there.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = parent(path)?;
    fs::create_dir_all(directory)?;
    let mut file = draft(directory, mode)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// As [`write_atomically`], but not synced: for what a crash of the machine takes away anyway. The directory is there already.
pub fn write_briefly(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = draft(parent(path)?, mode)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Makes `link` a symbolic link to `target`, whatever link stood there before.
pub fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let directory = parent(link)?;
    let draft = tempfile::Builder::new()
        .prefix(".new-")
        .suffix(".tmp")
        .make_in(directory, |path| symlink(target, path))?;
    fs::rename(draft.path(), link)?;
    // It has its new name; nothing is left to remove under the old one.
    let _ = draft.into_temp_path().keep();
    sync_directory(directory)
}

/// Makes what was created, renamed or removed in `directory` durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Hidden, and with an ending that neither nginx's includes nor the Emperor take for theirs.
fn draft(directory: &Path, mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(".new-")
        .suffix(".tmp")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path without a directory",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/file");
        write_atomically(&path, b"old", 0o600).unwrap();
        write_atomically(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("current");
        replace_link(Path::new("1"), &link).unwrap();
        replace_link(Path::new("2"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("2"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
