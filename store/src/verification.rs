//! Reading every byte of a store, with its hashes and signatures.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

use vine_core::log::Commit;
use vine_core::log::disk::{DiskDone, DiskError, DiskErrorKind, DiskOp, DiskResult, FileId, Token};
use vine_core::log::replay::Depth;
use vine_core::log::report::Report;
use vine_core::log::store::{Effect, Store, StoreEvent};
use vine_core::{Instant, PeerId};

use crate::error::{OpenError, StoreError};
use crate::files::{FileSystemError, Files};
use crate::handle::{Handle, Options, message};
use crate::lock::Lock;
use crate::worker::unix_time;

/// Commits that wait for the thread that hashes. What is more the reading thread hashes itself.
const WAITING: usize = 16;

/// One reading of all of a store. It writes nothing.
#[derive(Debug)]
pub struct Verification {
    files: Files,
    store: Store,
    dir: String,
    /// Held until the files are listed: what is listed then is not written to any more.
    lock: Option<Lock>,
    /// What is read of a store that is written to.
    durable: Option<Durable>,
}

impl Verification {
    /// Of a store that nobody has open.
    ///
    /// # Errors
    /// The directory cannot be read, or somebody writes to it.
    pub fn alone(dir: &Path, owner: PeerId, options: Options) -> Result<Verification, OpenError> {
        let files = Files::open_read_only(dir)?;
        let lock = Lock::shared(dir)?;
        Ok(Verification { lock: Some(lock), ..Verification::new(files, dir, owner, options) })
    }

    /// Of `store`, which this process has open in `dir`: all that is durable at this moment, whatever is written meanwhile.
    /// Its keys and values are in memory a second time while it lasts. Blocks for a moment: not for tasks.
    ///
    /// # Errors
    /// The directory cannot be read, or the store is closed.
    pub fn beside(store: &Handle, dir: &Path, owner: PeerId, options: Options) -> Result<Verification, OpenError> {
        let files = Files::open_read_only(dir)?;
        let listing = Files::open_read_only(dir)?;
        // On the store's thread: nothing is under way there while it answers.
        let durable = store.query(move |store| Ok::<_, std::io::Error>(Durable::of(store, listing.list()?)));
        let failed = |error| FileSystemError { what: "list", path: dir.to_owned(), error };
        let durable = durable.wait().map_err(OpenError::Ended)?.map_err(failed)?;
        Ok(Verification { durable: Some(durable), ..Verification::new(files, dir, owner, options) })
    }

    fn new(files: Files, dir: &Path, owner: PeerId, options: Options) -> Verification {
        let config = Options { depth: Depth::HashJobs, ..options }.config(owner, true);
        // A store that writes nothing makes no use of its seed.
        let store = Store::open(config, [0; 32], unix_time());
        Verification { files, store, dir: dir.display().to_string(), lock: None, durable: None }
    }

    /// Reads all, and tells now and then how many bytes of how many are read; `false` from there ends it. Hashes are
    /// computed on a second thread.
    ///
    /// # Errors
    /// The store cannot be opened. `None` when it was ended.
    pub fn run(&mut self, progress: impl FnMut(u64, u64) -> bool) -> Result<Option<Report>, OpenError> {
        self.run_with(|commit| commit.verify_ops().is_ok(), progress)
    }

    fn run_with(
        &mut self,
        is_good: impl Fn(&Commit) -> bool + Send,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Option<Report>, OpenError> {
        thread::scope(|scope| {
            let (jobs, inbox) = sync_channel::<(Token, Commit)>(WAITING);
            let (done, results) = channel();
            let hasher = scope.spawn(move || {
                for (token, commit) in inbox {
                    if done.send((token, is_good(&commit))).is_err() {
                        return;
                    }
                }
            });
            let read = self.read(&jobs, &results, progress);
            drop((jobs, results));
            match hasher.join() {
                Ok(()) => read,
                Err(panic) => Err(OpenError::Ended(StoreError::Panicked(message(&*panic)))),
            }
        })
    }

    /// The hash of all that was read, once it was: that of the store, if nothing was written meanwhile.
    pub fn state_hash(&self) -> Option<[u8; 32]> {
        self.store.state_hash()
    }

    fn read(
        &mut self,
        jobs: &SyncSender<(Token, Commit)>,
        results: &Receiver<(Token, bool)>,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Option<Report>, OpenError> {
        loop {
            results.try_iter().for_each(|(token, is_good)| self.store.handle_hashed(token, is_good));
            match self.store.poll_event() {
                Some(StoreEvent::Opened) => return Ok(Some(self.store.report().cloned().unwrap_or_default())),
                Some(StoreEvent::Refused(error)) => return Err(OpenError::Refused { dir: self.dir.clone(), error }),
                _ => {}
            }
            match self.store.poll_effect() {
                Some(Effect::Disk(token, op)) => {
                    let result = self.perform(&op);
                    self.store.handle_disk(Instant::ORIGIN, token, result);
                }
                Some(Effect::Hash(token, commit)) => {
                    if let Err(TrySendError::Full((token, commit)) | TrySendError::Disconnected((token, commit))) =
                        jobs.try_send((token, commit))
                    {
                        self.store.handle_hashed(token, commit.verify_ops().is_ok());
                    }
                }
                // Only a store that is written to asks for these.
                Some(Effect::Sign(..) | Effect::Verify(..)) => {}
                None if self.store.progress().is_some() => match results.recv() {
                    Ok((token, is_good)) => self.store.handle_hashed(token, is_good),
                    // The thread is gone, and what it had with it. Why is for the caller to say.
                    Err(_) => return Ok(None),
                },
                None => {} // An event waits.
            }
            if let Some((bytes, total)) = self.store.progress()
                && !progress(bytes, total)
            {
                return Ok(None);
            }
        }
    }

    fn perform(&mut self, op: &DiskOp) -> DiskResult {
        if let Some(durable) = &self.durable {
            return durable.perform(&mut self.files, op);
        }
        let result = self.files.perform(op);
        if *op == DiskOp::List {
            self.lock = None;
        }
        result
    }
}

/// What is durable of a store at one moment, as its files show it then.
#[derive(Debug)]
struct Durable {
    files: Vec<(FileId, u64)>,
    /// The files that hold something, as far as the store can read them.
    segments: Vec<FileId>,
    /// The one that is written to, and where in it the durable ends.
    open: Option<(FileId, u64)>,
}

impl Durable {
    fn of(store: &Store, mut files: Vec<(FileId, u64)>) -> Durable {
        let open = store.open_segment().map(|segment| (segment.file, segment.end));
        // What is made ready to be written to next is nothing yet.
        files.retain(|(file, _)| open.is_none_or(|(open, _)| *file <= open));
        Durable { files, segments: store.segments().iter().map(|segment| segment.file).collect(), open }
    }

    fn perform(&self, files: &mut Files, op: &DiskOp) -> DiskResult {
        let DiskOp::Read { file, offset, len } = op else {
            return match op {
                DiskOp::List => Ok(DiskDone::Listed(self.files.clone())),
                _ => Err(DiskError { kind: DiskErrorKind::ReadOnly, code: 0 }),
            };
        };
        let mut bytes = match files.perform(op) {
            Ok(DiskDone::Read(bytes)) => bytes,
            // It was made ready by an opening before and not used; this one has removed it since.
            Err(error) if error.kind == DiskErrorKind::NotFound && !self.segments.contains(file) => Vec::new(),
            result => return result,
        };
        // The zeros at the end of a segment are cut off when another one continues it.
        let listed = self.files.iter().find(|(listed, _)| listed == file).map_or(0, |(_, len)| *len);
        let whole = listed.saturating_sub(*offset).min(u64::from(*len));
        bytes.resize(usize::try_from(whole).unwrap_or_default(), 0);
        if let Some((_, end)) = self.open.filter(|(open, _)| open == file) {
            let durable = usize::try_from(end.saturating_sub(*offset)).unwrap_or(usize::MAX);
            bytes.iter_mut().skip(durable).for_each(|byte| *byte = 0);
        }
        Ok(DiskDone::Read(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use vine_core::{Identity, NetworkId};

    use super::*;

    #[test]
    fn a_thread_that_is_gone_ends_the_reading() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { reserve: Some(0), ..Options::new(NetworkId::new("test").unwrap()) };
        let identity = Arc::new(Identity::from_seed([7; 32]));
        let store = Handle::open(dir.path(), identity.clone(), options.clone()).unwrap();
        for _ in 0..50 {
            store.append(vec![Bytes::from_static(b"op")]).wait().unwrap();
        }
        store.close().wait().unwrap();
        let mut reading = Verification::alone(dir.path(), identity.peer_id(), options).unwrap();
        let ended = reading.run_with(|_| panic!("at the disco"), |_, _| true).unwrap_err();
        assert!(ended.to_string().contains("at the disco"), "{ended}");
    }
}
