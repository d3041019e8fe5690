//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// What to do about a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    /// Leave it, and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Writes a file through a temporary one in the same directory, so that a crash at any moment leaves the old file, the
/// new file or none, and durable when this returns.
pub(crate) fn write_atomically(
    path: &Path,
    mode: u32,
    existing: Existing,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // Not the last word (the rename is), but it spares the work, and the message where the directory is read-only.
    if existing == Existing::Keep && path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let temporary = Temporary::create(directory, path, mode)?;
    let mut file = temporary.file.try_clone()?;
    write(&mut file)?;
    file.sync_all()?;
    match existing {
        Existing::Keep => rename_without_replacing(&temporary.path, path)?,
        Existing::Replace => fs::rename(&temporary.path, path)?,
    }
    File::open(directory)?.sync_all()
}

fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Not every file system knows the flag; a hard link refuses an existing name everywhere.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(from, to),
        Err(error) => Err(error.into()),
    }
}

/// A file that goes away unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(directory: &Path, path: &Path, mode: u32) -> io::Result<Temporary> {
        let name =
            path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        // A name that no earlier, killed attempt can have left behind.
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(io::Error::other)?;
        let suffix = u64::from_le_bytes(suffix);
        let temporary = directory.join(format!(".{}.{suffix:016x}.tmp", name.to_string_lossy()));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let message = format!("directory {} does not exist; create it first", directory.display());
                return io::Error::new(io::ErrorKind::NotFound, message);
            }
            error
        })?;
        Ok(Temporary { path: temporary, file })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails when it was renamed, as it should have been.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let failed = write_atomically(&path, 0o600, Existing::Replace, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dangling_link_is_not_followed_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let kept = write_atomically(&path, 0o600, Existing::Keep, |file| file.write_all(b"new"));
        assert_eq!(kept.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!dir.path().join("elsewhere").exists());
    }
}
