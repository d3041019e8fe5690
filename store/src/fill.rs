//! Writing zeros ahead of the log.
//!
//! A reserved block that was never written costs a transaction of the file system's journal at the first sync behind it:
//! several times the price of the sync itself. So a new file is filled with real zeros before the log gets to it, by a
//! thread of its own, because the log writes to the file before it meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// What is written and synced at once; the log's own syncs wait for no more than this.
const CHUNK: usize = 1024 * 1024;

/// Takes turns with the log's writes.
const GENTLY: u8 = 0;
/// The log waits for it.
const AT_ONCE: u8 = 1;
/// The file is not needed any more.
const NOT_AT_ALL: u8 = 2;

/// A file that is being filled.
#[derive(Debug)]
pub(crate) struct Fill {
    pace: Arc<AtomicU8>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Fill {
    /// Fills the first `size` bytes of `file`, which are allocated already. Small files are filled before this returns.
    pub(crate) fn start(file: &Arc<File>, size: u64) -> io::Result<Option<Fill>> {
        if size <= CHUNK as u64 {
            return fill_at_once(file, size).map(|()| None);
        }
        let pace = Arc::new(AtomicU8::new(GENTLY));
        let (of_thread, its_file) = (pace.clone(), file.clone());
        let run = move || fill(&its_file, size, &of_thread);
        match thread::Builder::new().name("vine-store-fill".into()).spawn(run) {
            Ok(thread) => Ok(Some(Fill { pace, thread: Some(thread) })),
            Err(_) => fill_at_once(file, size).map(|()| None),
        }
    }

    /// Waits until the file is filled.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.join(AT_ONCE)
    }

    fn join(&mut self, pace: u8) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.pace.store(pace, Ordering::Relaxed);
        thread.thread().unpark();
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that fills files panicked")))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Whoever drops it wants nothing more of the file.
        _ = self.join(NOT_AT_ALL);
    }
}

/// Writes zeros over the first `size` bytes of `file` and syncs them.
pub(crate) fn fill_at_once(file: &File, size: u64) -> io::Result<()> {
    fill(file, size, &AtomicU8::new(AT_ONCE))
}

fn fill(file: &File, size: u64, pace: &AtomicU8) -> io::Result<()> {
    let zeros = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let mut at = 0;
    while at < size {
        let began = Instant::now();
        let len = zeros.len().min(usize::try_from(size - at).unwrap_or(CHUNK));
        file.write_all_at(zeros.get(..len).unwrap_or_default(), at)?;
        file.sync_data()?;
        at += len as u64;
        match pace.load(Ordering::Relaxed) {
            GENTLY => thread::park_timeout(began.elapsed()),
            NOT_AT_ALL => break,
            _ => {}
        }
    }
    Ok(())
}
