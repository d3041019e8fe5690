//! The store, as a program uses it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use vine_core::log::reader::Cursor;
use vine_core::log::replay::Depth;
use vine_core::log::report::Report;
use vine_core::log::store::{self, AppendError, Store, StoreConfig};
use vine_core::log::view::{Entry, ReserveError, ViewFull};
use vine_core::log::{Chains, LogId, LogState, Record};
use vine_core::{Identity, NetworkId, PeerId};

use crate::error::{OpenError, StoreError};
use crate::files::Files;
use crate::inbox::{Inbox, Pending};
use crate::lock::Lock;
use crate::reply::{Answer, pair};
use crate::request::{Batch, Read, Request};
use crate::subscription::{Subscription, Watch};
use crate::worker::{Parts, Worker, unix_time};

/// The most keys that one scan gives.
pub const MAX_SCAN: usize = 4096;

/// What a store is opened with, beside its directory and its identity.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network; a store belongs to one.
    pub network_id: NetworkId,
    /// Whose commits are taken, the own identity included or not; see [`Handle::set_members`].
    pub members: Vec<PeerId>,
    /// The length of one file in bytes, in the long run.
    pub segment_bytes: u64,
    /// The most bytes that all files take together.
    pub max_bytes: u64,
    /// The most bytes that the commits of one other author take.
    pub author_bytes: u64,
    /// The most bytes of memory that the key-value view takes.
    pub view_bytes: usize,
    /// Bytes of the file system that stay free. `None` stands for the smaller of 1/64 of it and 256 MiB.
    pub reserve: Option<u64>,
    /// How much is looked at again when the store is opened.
    pub depth: Depth,
}

impl Options {
    /// The usual limits: segments of 64 MiB, 4 GiB together, 1 GiB of another author's, 256 MiB for the key-value view.
    pub fn new(network_id: NetworkId) -> Options {
        Options {
            network_id,
            members: Vec::new(),
            segment_bytes: 64 << 20,
            max_bytes: 4 << 30,
            author_bytes: 1 << 30,
            view_bytes: 256 << 20,
            reserve: None,
            depth: Depth::Checksums,
        }
    }

    pub(crate) fn config(self, owner: PeerId, read_only: bool) -> StoreConfig {
        let Options { network_id, mut members, segment_bytes, max_bytes, author_bytes, view_bytes, depth, .. } = self;
        if !members.contains(&owner) {
            members.push(owner);
        }
        StoreConfig { network_id, owner, members, segment_bytes, max_bytes, author_bytes, view_bytes, read_only, depth }
    }
}

/// Where ops lie that have become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The log.
    pub log: LogId,
    /// The number in it of the first op; the others follow.
    pub first_seq: u64,
    /// The number of the first op among all that this store took.
    pub first_ordinal: u64,
    /// How many ops.
    pub count: u32,
}

/// What an import did.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    /// How many of its records are new.
    pub new: u32,
    /// How many were here already.
    pub known: u32,
    /// How many lie so far back that they were not compared with what is here. Nothing of them was taken.
    pub uncompared: u32,
}

/// What a scan of the key-value view found.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Keys with their values, in order.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// The view is what it is after all ops below this ordinal.
    pub next_ordinal: u64,
}

/// How a store is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the core knows.
    pub store: store::Status,
    /// Bytes that the key-value view takes.
    pub view_bytes: usize,
    /// The view has reached its limit and does not change any more.
    pub view_is_full: bool,
    /// What the thread measured.
    pub figures: Figures,
}

/// What the store's thread did, and how long that took.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    /// How often a file was synced.
    pub syncs: u64,
    /// How long all of that took.
    pub sync_time: Duration,
    /// How long the last one took.
    pub last_sync: Duration,
    /// When the last one ended.
    pub last_sync_at: Option<Clock>,
    /// How many commits were hashed and signed.
    pub commits: u64,
    /// How long that took.
    pub sign_time: Duration,
}

impl Figures {
    pub(crate) fn synced(&mut self, took: Duration) {
        self.syncs += 1;
        self.sync_time += took;
        self.last_sync = took;
        self.last_sync_at = Some(Clock::now());
    }

    pub(crate) fn signed(&mut self, took: Duration) {
        self.commits += 1;
        self.sign_time += took;
    }
}

/// An open store. Clones share it; the last one to go has it closed.
///
/// Every method may be called from any thread and inside any runtime: none of them blocks, unless it says so, and neither does
/// dropping a handle. Closing then goes on in the store's thread: who wants to open the store again, or ends the process and
/// has writes under way, waits for [`Handle::close`]. What they return is a future that can also be waited for
/// ([`Pending::wait`]).
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    inbox: Arc<Inbox>,
    network_id: NetworkId,
}

impl Handle {
    /// Opens the store in `dir` to read and write, and makes it where there is none. Blocks until recovery is over.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; whatever it is, what the store holds is as it was.
    pub fn open(dir: &Path, identity: Arc<Identity>, options: Options) -> Result<Handle, OpenError> {
        let files = Files::open(dir, options.reserve)?;
        let lock = Lock::exclusive(dir)?;
        let config = options.config(identity.peer_id(), false);
        Handle::start(files, Some(lock), Some(identity), config)
    }

    /// Opens the store of `owner` in `dir` to be read. Nothing is made or changed, and no writer is kept out; one that is
    /// there already keeps this out ([`crate::LockError::InUse`]).
    ///
    /// What is read is what lay there at the opening. The end of it may not have been acknowledged to whoever wrote it, if
    /// that process was killed.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_read_only(dir: &Path, owner: PeerId, options: Options) -> Result<Handle, OpenError> {
        let files = Files::open_read_only(dir)?;
        let lock = Lock::shared(dir)?;
        let config = options.config(owner, true);
        Handle::start(files, Some(lock), None, config)
    }

    fn start(
        files: Files,
        lock: Option<Lock>,
        identity: Option<Arc<Identity>>,
        config: StoreConfig,
    ) -> Result<Handle, OpenError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| OpenError::System(error.into()))?;
        let (dir, network_id) = (files.dir().display().to_string(), config.network_id.clone());
        let inbox = Arc::new(Inbox::new());
        let (opened, is_open) = pair(inbox.end());
        let (refused, why_refused) = pair(inbox.end());
        let of_thread = inbox.clone();
        let run = move || {
            let origin = Clock::now();
            let store = Store::open(config, seed, unix_time());
            let inbox = of_thread.clone();
            let mut worker = Worker::new(Parts { inbox, store, files, identity, lock, origin, opened });
            let ran = catch_unwind(AssertUnwindSafe(|| worker.run()));
            let is_orderly = ran.is_ok();
            of_thread.close(ran.map_or_else(|panic| StoreError::Panicked(message(&*panic)), |()| StoreError::Closed));
            let ended = worker.end();
            drop(worker); // Files and lock are let go of before anybody hears that the store is closed.
            if let Some(error) = ended.refused {
                refused.send(Ok(error));
            }
            // Else they are dropped, and hear why it ended.
            ended.closers.into_iter().filter(|_| is_orderly).for_each(|closer| closer.send(Ok(())));
        };
        let thread = thread::Builder::new().name("vine-store".into()).spawn(run).map_err(OpenError::System)?;
        inbox.served_by(thread.thread().clone());
        let inner = Inner { inbox, network_id };
        match is_open.wait() {
            Ok(()) => Ok(Handle { inner: Arc::new(inner) }),
            Err(ended) => Err(match why_refused.wait() {
                Ok(error) => OpenError::Refused { dir, error },
                Err(_) => OpenError::Ended(ended),
            }),
        }
    }

    /// Writes plain ops that stay together and in this order, and answers when they are durable here.
    pub fn append(&self, ops: Vec<Bytes>) -> Pending<Position> {
        self.inner.inbox.ask(|reply| Request::Append { ops, reply })
    }

    /// [`Handle::append`] that does not wait for room in the queue.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] when there is none; nothing was queued.
    pub fn try_append(&self, ops: Vec<Bytes>) -> Result<Pending<Position>, StoreError> {
        self.inner.inbox.try_ask(|reply| Request::Append { ops, reply })
    }

    /// Gives `key` a value, and answers when that is durable here.
    pub fn put(&self, key: Bytes, value: Bytes) -> Pending<Position> {
        self.inner.inbox.ask(|reply| Request::Put { key, value, reply })
    }

    /// Takes the value of `key` away, and answers when that is durable here.
    pub fn delete(&self, key: Bytes) -> Pending<Position> {
        self.inner.inbox.ask(|reply| Request::Delete { key, reply })
    }

    /// Ops from `from` on, about `max_bytes` of them, in the order in which this store took them; none at the end of the log.
    pub fn read(&self, from: Cursor, max_bytes: usize) -> Pending<Batch> {
        let read = Read { from, max_bytes, follow: false };
        self.inner.inbox.ask(|reply| Request::Read { read, reply })
    }

    /// Every op from the ordinal `from` on, those that are written later too, each once and in order.
    pub fn subscribe(&self, from: u64) -> Subscription {
        Subscription::new(self.inner.inbox.clone(), Cursor::at(from))
    }

    /// How the store is doing.
    pub fn status(&self) -> Pending<Status> {
        self.inner.inbox.ask(|reply| Request::Status { reply })
    }

    /// What recovery found when the store was opened.
    pub fn report(&self) -> Pending<Report> {
        self.query(|store| store.report().cloned().unwrap_or_default())
    }

    /// The network of the store.
    pub fn network_id(&self) -> &NetworkId {
        &self.inner.network_id
    }

    /// The ordinal of the next op: how many ops this store took.
    pub fn next_ordinal(&self) -> Pending<u64> {
        self.query(|store| store.next_ordinal())
    }

    /// The hash of all that the store holds: equal on two nodes that hold the same logs.
    pub fn state_hash(&self) -> Pending<[u8; 32]> {
        self.query(|store| store.state_hash().unwrap_or_default())
    }

    /// Every log that the store holds, and how far it reaches.
    pub fn logs(&self) -> Pending<Vec<LogState>> {
        self.query(|store| {
            let logs = store.chains().into_iter().flat_map(Chains::iter);
            logs.map(|(_, state)| state.clone()).collect()
        })
    }

    /// The value of `key` in the key-value view. An error ([`ReserveError::Full`]) where the view has reached its limit: it
    /// does not say any more what the log does.
    pub fn get(&self, key: Bytes) -> Pending<Option<Bytes>> {
        self.query_view(move |store| store.view().get(&key).cloned())
    }

    /// The last write of each of `keys`, deletes too.
    pub(crate) fn entries(&self, keys: Vec<Bytes>) -> Pending<Vec<Option<Entry>>> {
        self.query_view(move |store| keys.iter().map(|key| store.view().entry(key).cloned()).collect())
    }

    /// Keys that begin with `prefix` and come behind `after`, at most `limit` of them, with their values. An error as for
    /// [`Handle::get`].
    pub fn scan(&self, prefix: Bytes, after: Option<Bytes>, limit: usize) -> Pending<Scanned> {
        self.query_view(move |store| {
            let found = store.view().scan(&prefix, after.as_deref(), limit.min(MAX_SCAN));
            let pairs = found.map(|(key, value)| (key.clone(), value.clone())).collect();
            Scanned { pairs, next_ordinal: store.next_ordinal() }
        })
    }

    /// Every write of a key that begins with `prefix`, from the ordinal `from` on and as they come, that has not been
    /// overtaken when it is looked at. What [`Handle::scan`] showed is followed from its `next_ordinal` on.
    pub fn watch(&self, prefix: Bytes, from: u64) -> Watch {
        Watch::new(self.clone(), prefix, from)
    }

    /// Takes records of other logs: all of them or none, at most [`store::MAX_IMPORT`] of [`store::MAX_IMPORT_BYTES`]. They are
    /// verified beside, and writes do not wait for that. Answers when they are durable here.
    pub fn import(&self, records: Vec<Record>) -> Pending<Imported> {
        self.inner.inbox.ask(|reply| Request::Import { records, reply })
    }

    /// Says whose logs may be imported from now on, the own identity included or not: it counts for every import that is asked
    /// for behind this call.
    pub fn set_members(&self, members: Vec<PeerId>) -> Pending<()> {
        Pending::sent(self.inner.inbox.force(|reply| Request::Members { members, reply }))
    }

    /// Asks the state of the store.
    pub(crate) fn query<T: Send + 'static>(&self, ask: impl FnOnce(&Store) -> T + Send + 'static) -> Pending<T> {
        self.inner.inbox.ask(|reply| Request::Query(Box::new(move |store| reply.send(Ok(ask(store))))))
    }

    /// Asks the key-value view, unless it has stopped.
    fn query_view<T: Send + 'static>(&self, ask: impl FnOnce(&Store) -> T + Send + 'static) -> Pending<T> {
        self.inner.inbox.ask(|reply| {
            Request::Query(Box::new(move |store| {
                let view = store.view();
                let full = ReserveError::Full(ViewFull { limit: view.limit() });
                reply.send(if view.is_full() { Err(AppendError::Key(full).into()) } else { Ok(ask(store)) });
            }))
        })
    }

    /// Finishes what is queued, writes the marker and closes; every later call answers [`StoreError::Closed`]. When this
    /// answers, the store can be opened again.
    pub fn close(&self) -> Pending<()> {
        Pending::sent(self.inner.close())
    }
}

impl Inner {
    fn close(&self) -> Answer<()> {
        self.inbox.force(|reply| Request::Close { reply })
    }
}

impl Drop for Inner {
    /// Has the store closed, which takes a sync or two: nobody waits for that here, as this may be in the middle of a task.
    fn drop(&mut self) {
        drop(self.close());
    }
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message").into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::subscription::Item;

    fn identity() -> Arc<Identity> {
        Arc::new(Identity::from_seed([7; 32]))
    }

    fn options() -> Options {
        Options { reserve: Some(0), ..Options::new(NetworkId::new("test").unwrap()) }
    }

    #[test]
    fn dropping_the_last_handle_does_not_wait_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Handle::open(dir.path(), identity(), options()).unwrap();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let stuck = store.query(move |_| gate.recv().ok());
        let written = store.append(vec![Bytes::from_static(b"op")]);
        drop(store);
        open.send(()).unwrap();
        assert_eq!(stuck.wait().unwrap(), Some(()));
        assert_eq!(written.wait().unwrap().first_ordinal, 0, "what was queued is finished");
    }

    #[test]
    fn who_follows_and_who_waits_is_told_when_the_disk_fails() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path(), Some(0)).unwrap();
        let is_broken = files.is_broken.clone();
        let config = options().config(identity().peer_id(), false);
        let store = Handle::start(files, None, Some(identity()), config).unwrap();
        let op = || vec![Bytes::from_static(b"op")];
        store.put(Bytes::from_static(b"key"), Bytes::from_static(b"value")).wait().unwrap();
        let (mut ops, mut watch) = (store.subscribe(0), store.watch(Bytes::new(), 1));
        assert!(matches!(ops.wait_next(), Ok(Item::Op(_))));
        let followers = [0, 1].map(|n| {
            let (mut ops, mut watch) = (store.subscribe(1), store.watch(Bytes::new(), 1));
            thread::spawn(move || if n == 0 { ops.wait_next().err() } else { watch.wait_next().err() })
        });

        is_broken.store(true, Ordering::Relaxed);
        let on_its_way = store.append(op()).wait().unwrap_err();
        assert!(matches!(on_its_way, StoreError::Append(AppendError::Unknown(_))), "{on_its_way}");
        let later = store.append(op()).wait().unwrap_err();
        assert!(matches!(later, StoreError::Append(AppendError::Stopped(_))), "{later}");
        for told in followers.map(|follower| follower.join().unwrap()) {
            assert!(matches!(told, Some(StoreError::Stopped(_))), "{told:?}");
        }
        assert!(matches!(ops.wait_next(), Err(StoreError::Stopped(_))));
        assert!(matches!(watch.wait_next(), Err(StoreError::Stopped(_))));
        // Who comes now gets all that there is first.
        let mut late = store.subscribe(0);
        assert!(matches!(late.wait_next(), Ok(Item::Op(_))));
        assert!(matches!(late.wait_next(), Err(StoreError::Stopped(_))));
        store.close().wait().unwrap();
    }
}
