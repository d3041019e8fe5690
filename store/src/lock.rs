//! One writer a directory.
//!
//! The file `lock` in the directory is locked exclusively for as long as a process writes there, and holds its number. A
//! read-only opening takes the lock shared, and only while it lists the segments: a process that writes keeps it out with
//! [`LockError::InUse`], because what that process has not synced yet is nobody else's to show. A writer that comes later
//! does not disturb the reader: it begins segments of its own, which the reader has not listed, and what it does to the
//! older ones is to write the same bytes again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

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
    /// The lock file cannot be made, opened or locked.
    #[error("cannot lock the store with {}: {error}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A held lock; let go of when dropped, and by the system when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `dir` for the one process that writes there.
    ///
    /// # Errors
    ///
    /// [`LockError::InUse`] when another process, or this one, has it locked already.
    pub fn exclusive(dir: &Path) -> Result<Lock, LockError> {
        let path = dir.join(LOCK_NAME);
        let failed = |error| LockError::Io { path: path.clone(), error };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(failed)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        // The number is for whoever reads the error of the next process: that it cannot be written is no reason to fail.
        _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Lock { _file: file })
    }

    /// Locks `dir` against a process that writes there, as one of any number of readers. Makes no file: where there is no
    /// lock file nobody has written yet, and there is nothing to hold.
    ///
    /// # Errors
    ///
    /// [`LockError::InUse`] when a process writes there.
    pub fn shared(dir: &Path) -> Result<Option<Lock>, LockError> {
        let path = dir.join(LOCK_NAME);
        let failed = |error| LockError::Io { path: path.clone(), error };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(in_use(dir, &mut file)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn in_use(dir: &Path, file: &mut File) -> LockError {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| Read::take(&*file, 16).read_to_string(&mut text));
    let pid = read.ok().and_then(|_| text.trim().parse().ok());
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
        assert!(Lock::shared(dir.path()).unwrap().is_none(), "nobody ever wrote here");
        let writer = Lock::exclusive(dir.path()).unwrap();
        let refused = Lock::exclusive(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(dir.path().to_str().unwrap()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(matches!(Lock::shared(dir.path()), Err(LockError::InUse { .. })));
        drop(writer);
        let readers = [Lock::shared(dir.path()).unwrap(), Lock::shared(dir.path()).unwrap()];
        assert!(readers.iter().all(Option::is_some));
        drop(readers);
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
