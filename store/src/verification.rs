//! Reading every byte of a store, with its hashes and signatures.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread;

use vine_core::log::Commit;
use vine_core::log::disk::{DiskOp, Token};
use vine_core::log::replay::Depth;
use vine_core::log::report::Report;
use vine_core::log::store::{Effect, Store, StoreEvent};
use vine_core::{Instant, PeerId};

use crate::error::OpenError;
use crate::files::Files;
use crate::handle::Options;
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
}

impl Verification {
    /// Of a store that nobody has open.
    ///
    /// # Errors
    /// The directory cannot be read, or somebody writes to it.
    pub fn alone(dir: &Path, owner: PeerId, options: Options) -> Result<Verification, OpenError> {
        let files = Files::open_read_only(dir)?;
        let lock = Lock::shared(dir)?;
        Ok(Verification::new(files, lock, dir, owner, options))
    }

    /// Of a store that this process has open and writes to. What it finds at the end may be a write on its way: a second
    /// look tells.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn beside(dir: &Path, owner: PeerId, options: Options) -> Result<Verification, OpenError> {
        // The view is there already, and is not needed a second time.
        let options = Options { view_bytes: 0, ..options };
        Ok(Verification::new(Files::open_read_only(dir)?, None, dir, owner, options))
    }

    fn new(files: Files, lock: Option<Lock>, dir: &Path, owner: PeerId, options: Options) -> Verification {
        let config = Options { depth: Depth::HashJobs, ..options }.config(owner, true);
        // A store that writes nothing makes no use of its seed.
        let store = Store::open(config, [0; 32], unix_time());
        Verification { files, store, dir: dir.display().to_string(), lock }
    }

    /// Reads all, and tells now and then how many bytes of how many are read; `false` from there ends it. Hashes are
    /// computed on a second thread.
    ///
    /// # Errors
    /// The store cannot be opened. `None` when it was ended.
    pub fn run(&mut self, progress: impl FnMut(u64, u64) -> bool) -> Result<Option<Report>, OpenError> {
        thread::scope(|scope| {
            let (jobs, inbox) = sync_channel::<(Token, Commit)>(WAITING);
            let (done, results) = channel();
            scope.spawn(move || {
                for (token, commit) in inbox {
                    if done.send((token, commit.verify_ops().is_ok())).is_err() {
                        return;
                    }
                }
            });
            self.read(&jobs, &results, progress)
        })
    }

    /// The hash of all that the store holds, once it was read; without its keys and values where they were left out.
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
                    let result = self.files.perform(&op);
                    if op == DiskOp::List {
                        self.lock = None;
                    }
                    self.store.handle_disk(Instant::ORIGIN, token, result);
                }
                Some(Effect::Hash(token, commit)) => {
                    if let Err(TrySendError::Full((token, commit)) | TrySendError::Disconnected((token, commit))) =
                        jobs.try_send((token, commit))
                    {
                        self.store.handle_hashed(token, commit.verify_ops().is_ok());
                    }
                }
                Some(Effect::Sign(..)) => {}
                None => {
                    // Either an event waits, or the answer of the other thread is what is missing.
                    if self.store.progress().is_some()
                        && let Ok((token, is_good)) = results.recv()
                    {
                        self.store.handle_hashed(token, is_good);
                    }
                }
            }
            if let Some((bytes, total)) = self.store.progress()
                && !progress(bytes, total)
            {
                return Ok(None);
            }
        }
    }
}
