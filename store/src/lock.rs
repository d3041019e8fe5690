//! One writer a directory.
//!
//! The directory itself is locked exclusively for as long as a process writes there, and so is the file `lock` in it, which
//! holds the number of that process. The directory is what counts: nobody can take it away and put another one in its place,
//! and a reader can lock it where nothing may be made. The file is for file systems that lock no directories (NFS).
//!
//! A read-only opening takes the lock shared, and only while it lists the segments: a process that writes keeps it out with
//! [`LockError::InUse`], because what that process has not synced yet is nobody else's to show. A writer that comes later
//! does not disturb the reader: it begins segments of its own, which the reader has not listed, and what it does to the
//! older ones is to write the same bytes again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The name of the lock in the directory of a store.
const LOCK_NAME: &str = "lock";

/// Readers hold the lock for as long as it takes to list a directory: a writer waits that out.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a store could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has the store open and writes to it.
    #[error("the store in {} is in use by {}: two processes cannot share it", dir.display(), Holder(*.pid))]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
        /// The number of that process, where the lock file tells.
        pid: Option<u32>,
    },
    /// The directory or the lock file cannot be opened, made or locked.
    #[error("cannot lock the store with {}: {error}", path.display())]
    Io {
        /// Which of them.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A held lock; let go of when dropped, and by the system when the process dies.
#[derive(Debug)]
pub struct Lock {
    _dir: Option<File>,
    _file: Option<File>,
}

impl Lock {
    /// Locks `dir` for the one process that writes there.
    ///
    /// # Errors
    ///
    /// [`LockError::InUse`] when another process, or this one, has it locked already.
    pub fn exclusive(dir: &Path) -> Result<Lock, LockError> {
        let began = Instant::now();
        let handle = File::open(dir).map_err(failed(dir))?;
        let of_dir = lock(dir, &handle, || handle.try_lock(), began)?;
        let path = dir.join(LOCK_NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(failed(&path))?;
        lock(dir, &file, || file.try_lock(), began)?;
        // The number is for whoever reads the error of the next process: that it cannot be written is no reason to fail.
        _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Lock { _dir: of_dir.then_some(handle), _file: Some(file) })
    }

    /// Locks `dir` against a process that writes there, as one of any number of readers. Makes no file.
    ///
    /// # Errors
    ///
    /// [`LockError::InUse`] when a process writes there.
    pub fn shared(dir: &Path) -> Result<Lock, LockError> {
        let handle = File::open(dir).map_err(failed(dir))?;
        // Nobody waits: a writer stays.
        let long_ago = Instant::now().checked_sub(PATIENCE).unwrap_or_else(Instant::now);
        let of_dir = lock(dir, &handle, || handle.try_lock_shared(), long_ago)?;
        let path = dir.join(LOCK_NAME);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path)(error)),
        };
        if let Some(file) = &file {
            lock(dir, file, || file.try_lock_shared(), long_ago)?;
        }
        Ok(Lock { _dir: of_dir.then_some(handle), _file: file })
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> LockError {
    let path = path.to_owned();
    move |error| LockError::Io { path: path.clone(), error }
}

/// Takes a lock, waiting from `began` on for as long as readers hold theirs. Returns whether `file` can be locked at all: a
/// directory of some file systems cannot.
fn lock(
    dir: &Path,
    file: &File,
    attempt: impl Fn() -> Result<(), TryLockError>,
    began: Instant,
) -> Result<bool, LockError> {
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, file)),
            Err(TryLockError::Error(error)) => {
                let errno = Errno::from_io_error(&error);
                let is_dir = file.metadata().is_ok_and(|metadata| metadata.is_dir());
                let cannot = matches!(errno, Some(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL));
                return if is_dir && cannot { Ok(false) } else { Err(failed(dir)(error)) };
            }
        }
    }
}

fn in_use(dir: &Path, file: &File) -> LockError {
    // Readers leave no number; the one that is there is that of a writer that is gone.
    let by_readers = file.try_lock_shared().is_ok();
    let text = fs::read_to_string(dir.join(LOCK_NAME)).unwrap_or_default();
    let pid = text.trim().parse().ok().filter(|_| !by_readers);
    LockError::InUse { dir: fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()), pid }
}

/// Who holds a lock, in words.
struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_any_number_of_readers() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::shared(dir.path()).unwrap());
        assert!(!dir.path().join(LOCK_NAME).exists(), "a reader makes nothing");
        let writer = Lock::exclusive(dir.path()).unwrap();
        let refused = Lock::exclusive(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(dir.path().to_str().unwrap()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(matches!(Lock::shared(dir.path()), Err(LockError::InUse { .. })));
        drop(writer);
        let readers = [Lock::shared(dir.path()).unwrap(), Lock::shared(dir.path()).unwrap()];
        let by_readers = Lock::exclusive(dir.path()).unwrap_err().to_string();
        assert!(by_readers.contains("another process"), "the number is that of a writer that is gone: {by_readers}");
        drop(readers);
        Lock::exclusive(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_file_that_is_taken_away_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let reader = Lock::shared(dir.path()).unwrap();
        assert!(matches!(Lock::exclusive(dir.path()), Err(LockError::InUse { .. })), "held without a lock file too");
        drop(reader);
        let writer = Lock::exclusive(dir.path()).unwrap();
        for put_back in [false, true] {
            if put_back {
                fs::write(dir.path().join(LOCK_NAME), "").unwrap();
            } else {
                fs::remove_file(dir.path().join(LOCK_NAME)).unwrap();
            }
            assert!(matches!(Lock::exclusive(dir.path()), Err(LockError::InUse { .. })));
            assert!(matches!(Lock::shared(dir.path()), Err(LockError::InUse { .. })));
        }
        drop(writer);
        Lock::exclusive(dir.path()).unwrap();
    }

    #[test]
    fn a_writer_waits_for_a_reader_to_list() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::exclusive(dir.path()).unwrap());
        let reader = Lock::shared(dir.path()).unwrap();
        let later = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(reader);
        });
        Lock::exclusive(dir.path()).unwrap();
        later.join().unwrap();
    }
}
