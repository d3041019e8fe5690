//! The store as one state machine: what a driver calls, and what it is asked to do.
//!
//! ```text
//!   append, put, delete, import --> queue --> commit --> [Effect::Sign] --> frames --> [Effect::Disk: write, sync]
//!                                                                                            |
//!   StoreEvent::Durable, the view, read <--------------------------------- chains <----- it came back
//! ```
//!
//! A commit is formed of all that waits whenever the disk is idle, so that one sync covers every writer. Nothing is
//! acknowledged, delivered or shown in the view before the sync that covers it came back.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::chain::{Chains, Refusal};
use super::commit::{Commit, Draft, LogId, Record, hash};
use super::committer::{Committer, Outbox};
use super::disk::{DiskOp, DiskResult, Token};
use super::import::{Unverified, Verdicts};
use super::op::{LimitError, MAX_COMMIT, MAX_COMMIT_OPS, Op};
use super::reader::{Cursor, Damaged, Reading, Taken};
use super::recover::{RecoverStep, Recovered, Recovery, SegmentInfo};
use super::replay::{Depth, Replay};
use super::report::{OpenError, Report};
use super::view::{ReserveError, View};
use super::writer::{NoRoom, Stopped, Writer, WriterConfig};
use crate::config::NetworkId;
use crate::identity::PeerId;
use crate::rng::Rng;
use crate::time::{Instant, UnixTime};

/// Bytes of ops that may wait for the disk. Beyond that appends are refused as [`AppendError::Busy`].
pub const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Appends that may wait for the disk.
pub const MAX_QUEUED: usize = 65_536;
/// Readings that may wait for each other.
pub const MAX_READS: usize = 256;
/// Records of one import.
pub const MAX_IMPORT: usize = 256;
/// Bytes of the records of one import, and of all imports that wait for the disk.
pub const MAX_IMPORT_BYTES: usize = 16 * 1024 * 1024;
/// Imports that may wait for the disk.
pub const MAX_IMPORTS: usize = 16;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The network.
    pub network_id: NetworkId,
    /// Whose store it is. Its identity signs what [`Effect::Sign`] hands out.
    pub owner: PeerId,
    /// Whose logs may be imported, besides the owner's.
    pub members: Vec<PeerId>,
    /// The length of a segment in the long run, in bytes.
    pub segment_bytes: u64,
    /// What all files may take together, in bytes.
    pub max_bytes: u64,
    /// What the commits of one other author may take, in bytes.
    pub author_bytes: u64,
    /// What keys and values may take in memory, in bytes.
    pub view_bytes: usize,
    /// Whether nothing is ever written.
    pub read_only: bool,
    /// How much is looked at again when the store is opened.
    pub depth: Depth,
}

/// The caller's name for a request; its answer carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Effect {
    /// An operation on the disk; its result goes to [`Store::handle_disk`].
    Disk(Token, DiskOp),
    /// [`Draft::sign`] with the owner's identity, on any thread; the commit goes to [`Store::handle_signed`].
    Sign(Token, Draft),
    /// [`Commit::verify_ops`], on any thread; what comes of it goes to [`Store::handle_hashed`]. Only with
    /// [`Depth::HashJobs`]. Other effects may be polled and carried out meanwhile.
    Hash(Token, Commit),
    /// [`Unverified::verify`], on any thread; what it says goes to [`Store::handle_verified`]. Appends go on meanwhile.
    Verify(Token, Unverified),
}

/// What happened.
#[derive(Debug)]
pub enum StoreEvent {
    /// The store is open. [`Store::report`] tells what was found.
    Opened,
    /// The store cannot be opened. What it holds is as it was: at most a part of it was written again.
    Refused(OpenError),
    /// An append is durable.
    Durable {
        /// The append.
        ticket: Ticket,
        /// The log of its ops.
        log: LogId,
        /// The position of its first op.
        first_seq: u64,
        /// The ordinal of its first op.
        first_ordinal: u64,
        /// How many ops it has.
        count: u32,
    },
    /// An import is durable.
    Imported {
        /// The import.
        ticket: Ticket,
        /// How many of its records are new. The beginning of a log is one of them when its first commit is.
        new: u32,
        /// How many were here already.
        known: u32,
        /// How many lie so far back that they were not compared with what is here. Nothing of them was taken.
        uncompared: u32,
    },
    /// A record of an import was refused, and all records of that import with it.
    ImportRefused {
        /// The import.
        ticket: Ticket,
        /// The number of the record in it.
        record: usize,
        /// Why.
        refusal: Refusal,
    },
    /// An append or an import is not acknowledged. Only with [`AppendError::Unknown`] it may be there all the same when the
    /// store is opened again; with any other error nothing of it was written.
    Failed {
        /// The append or the import.
        ticket: Ticket,
        /// Why.
        error: AppendError,
    },
    /// What a reading brought.
    Read {
        /// The reading.
        ticket: Ticket,
        /// Commits in the order of their ordinals. The first one may begin before the cursor.
        taken: Vec<Taken>,
        /// Where to go on: behind what was read, and behind what is damaged.
        next: Cursor,
        /// What comes behind the commits is damaged.
        damaged: Option<Damaged>,
    },
    /// The disk failed: nothing is written any more. What was acknowledged is durable.
    Stopped(Stopped),
    /// The store is closed.
    Closed,
}

/// Why an append is not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// An op is over its limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The ops of one append do not fit into one commit.
    #[error("{ops} ops of {bytes} bytes; one append may have {MAX_COMMIT_OPS} ops and {MAX_COMMIT} bytes")]
    TooLarge {
        /// The ops.
        ops: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The records of one import are too many.
    #[error(
        "{records} records of {bytes} bytes; one import may have {MAX_IMPORT} records and {MAX_IMPORT_BYTES} bytes"
    )]
    ImportTooLarge {
        /// The records.
        records: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// There is no op.
    #[error("there is nothing to append")]
    Empty,
    /// Too much waits for the disk.
    #[error("too many writes wait for the disk")]
    Busy,
    /// The write of a key gets no stamp.
    #[error(transparent)]
    Key(#[from] ReserveError),
    /// No log can be added to those that the store holds.
    #[error("the store holds {} logs, and every opening that writes begins another one", super::chain::MAX_LOGS)]
    TooManyLogs,
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The disk failed, now or before. Nothing of this append was handed to it: it is not there, and never will be.
    #[error("the log has stopped: {0}; nothing of this was written")]
    Stopped(Stopped),
    /// The disk failed with this append on its way to it. Whether it is there shows when the store is opened again: to append
    /// it once more before that may have it twice.
    #[error("the log has stopped: {0}; whether this was written is not known before the log is opened again")]
    Unknown(Stopped),
    /// The store is opened to be read only, is not open yet, or is being closed.
    #[error("the log is not open for writing")]
    NotOpen,
}

/// What a store holds and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes of all files.
    pub bytes: u64,
    /// Logs, the owner's and others'.
    pub logs: usize,
    /// The ordinal of the next op: how many ops were taken.
    pub next_ordinal: u64,
    /// Appends and imports that wait for the disk.
    pub waiting: usize,
    /// Why nothing is written any more.
    pub stopped: Option<Stopped>,
}

#[derive(Debug)]
struct Open {
    replay: Replay,
    segments: Vec<SegmentInfo>,
    /// Unless the store is read only.
    committer: Option<Committer>,
}

#[derive(Debug)]
enum State {
    Recovering(Box<Recovery>),
    Open(Box<Open>),
    /// Refused, or closed.
    Over,
}

/// The state machine of one store.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    rng: Rng,
    /// The time of the last input.
    now: Instant,
    unix: UnixTime,
    state: State,
    reading: Option<(Ticket, Reading)>,
    reads: VecDeque<(Ticket, Cursor, usize)>,
    /// The operation of the recovery or of the reading that is under way.
    awaited: Option<Token>,
    next_token: u64,
    out: Outbox,
    empty: View,
}

/// Bit of the tokens of readings and of the recovery; the others are the committer's.
const READING: u64 = 1 << 63;

impl Store {
    /// Opens a store. Its recovery is what the first effects are about; [`StoreEvent::Opened`] ends it.
    ///
    /// `seed` is 32 fresh random bytes: a log's name and a segment's checksums are made of them.
    pub fn open(config: StoreConfig, seed: [u8; 32], unix: UnixTime) -> Store {
        let chains = Chains::new(config.network_id.clone(), members(&config));
        let replay = Replay::new(config.owner, chains, View::new(config.view_bytes), config.depth);
        let (owner, network) = (*config.owner.as_bytes(), hash(&[config.network_id.as_str().as_bytes()]));
        let recovery = Recovery::new(owner, network, config.read_only, replay);
        Store {
            config,
            rng: Rng::from_seed(seed),
            now: Instant::ORIGIN,
            unix,
            state: State::Recovering(Box::new(recovery)),
            reading: None,
            reads: VecDeque::new(),
            awaited: None,
            next_token: 0,
            out: Outbox::default(),
            empty: View::new(0),
        }
    }

    /// The next thing to do.
    ///
    /// All that was handed in before becomes one commit here: who has more at hand hands that in first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if let State::Open(open) = &mut self.state
            && let Some(committer) = &mut open.committer
        {
            committer.pump(self.now, self.unix, &mut open.replay, &mut self.out);
        }
        if let Some(effect) = self.out.effects.pop_front() {
            return Some(effect);
        }
        if self.awaited.is_some() {
            return None;
        }
        match &mut self.state {
            State::Recovering(_) => self.recover(),
            State::Open(_) => self.read_on().map(|op| self.disk_effect(op)),
            State::Over => None,
        }
    }

    fn disk_effect(&mut self, op: DiskOp) -> Effect {
        let token = Token(READING | self.next_token);
        self.next_token += 1;
        self.awaited = Some(token);
        Effect::Disk(token, op)
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<StoreEvent> {
        self.out.events.pop_front()
    }

    /// When [`Store::handle_timeout`] is due; `None` while nothing is.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.committer()?.poll_timeout()
    }

    /// Takes the result of an operation. A token that is not awaited is ignored.
    pub fn handle_disk(&mut self, now: Instant, token: Token, result: DiskResult) {
        if self.awaited == Some(token) {
            self.awaited = None;
            match (&mut self.state, &mut self.reading) {
                (State::Recovering(recovery), _) => recovery.handle(result),
                (_, Some((_, reading))) => reading.handle(result),
                _ => {}
            }
        } else if let State::Open(open) = &mut self.state
            && let Some(committer) = &mut open.committer
        {
            self.now = now;
            committer.handle_disk(now, token, result, &mut open.replay, &mut self.out);
            committer.note_segments(&mut open.segments);
        }
        self.is_closed();
    }

    /// Takes what [`Commit::verify_ops`] said of the commit of an [`Effect::Hash`].
    pub fn handle_hashed(&mut self, token: Token, is_good: bool) {
        if let State::Recovering(recovery) = &mut self.state {
            recovery.hashed(token.0, is_good);
        }
    }

    /// Takes what [`Unverified::verify`] said of an [`Effect::Verify`].
    pub fn handle_verified(&mut self, now: Instant, token: Token, verdicts: Verdicts) {
        self.with_committer(now, |committer, _| committer.handle_verified(token, verdicts));
    }

    /// Takes a signed commit.
    pub fn handle_signed(&mut self, now: Instant, token: Token, commit: Commit) {
        self.with_committer(now, |committer, _| committer.handle_signed(token, commit));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.with_committer(now, |committer, _| committer.handle_timeout(now));
    }

    /// Tells the wall clock's time: commits and key-value writes are stamped with it.
    pub fn set_unix_time(&mut self, unix: UnixTime) {
        self.unix = unix;
    }

    /// Tells whose logs may be imported from now on, besides the owner's.
    pub fn set_members(&mut self, of: Vec<PeerId>) {
        self.config.members = of;
        if let State::Open(open) = &mut self.state {
            open.replay.chains.set_members(members(&self.config));
        }
    }

    /// Appends ops of the application. They stay together, in their order; [`StoreEvent::Durable`] acknowledges them.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    pub fn append(&mut self, now: Instant, ticket: Ticket, ops: Vec<Bytes>) -> Result<(), AppendError> {
        self.write(now, |committer, _, _| committer.append(ticket, ops.into_iter().map(Op::Plain).collect()))
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn put(&mut self, now: Instant, ticket: Ticket, key: Bytes, value: Bytes) -> Result<(), AppendError> {
        self.write(now, |committer, unix, view| committer.write_key(unix, view, ticket, key, Some(value)))
    }

    /// Takes a key's value away.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn delete(&mut self, now: Instant, ticket: Ticket, key: Bytes) -> Result<(), AppendError> {
        self.write(now, |committer, unix, view| committer.write_key(unix, view, ticket, key, None))
    }

    /// Takes records of other logs: all of them, or none. At most [`MAX_IMPORT`] of [`MAX_IMPORT_BYTES`]; commits come after
    /// their log's genesis and in its order. Hashes, chains and the signature of each of them are verified, hashes and
    /// signatures by [`Effect::Verify`].
    ///
    /// # Errors
    /// [`AppendError::Busy`] if [`MAX_IMPORTS`] wait, or [`MAX_IMPORT_BYTES`] of them would; [`AppendError::ImportTooLarge`],
    /// [`AppendError::NotOpen`], [`AppendError::Stopped`]. That a record is refused is told by [`StoreEvent::ImportRefused`].
    pub fn import(&mut self, now: Instant, ticket: Ticket, records: Vec<Record>) -> Result<(), AppendError> {
        self.write(now, |committer, _, _| committer.import(ticket, records))
    }

    /// Reads commits from a cursor on: at least one if there is one, then up to `max_bytes`. [`StoreEvent::Read`] answers.
    ///
    /// # Errors
    /// [`AppendError::Busy`] if [`MAX_READS`] are waiting, [`AppendError::NotOpen`].
    pub fn read(&mut self, ticket: Ticket, cursor: Cursor, max_bytes: usize) -> Result<(), AppendError> {
        if !matches!(self.state, State::Open(_)) {
            return Err(AppendError::NotOpen);
        }
        if self.reads.len() >= MAX_READS {
            return Err(AppendError::Busy);
        }
        self.reads.push_back((ticket, cursor, max_bytes));
        Ok(())
    }

    /// Finishes what waits, says on the disk that all is durable, and ends with [`StoreEvent::Closed`].
    pub fn close(&mut self, now: Instant) {
        // One that stopped has nothing to finish, and may not write.
        if self.committer().is_none_or(|committer| committer.stopped().is_some()) {
            self.state = State::Over;
            self.out.events.push_back(StoreEvent::Closed);
            return;
        }
        self.with_committer(now, |committer, _| committer.close());
        self.is_closed();
    }

    /// The key-value view. It is empty until the store is open.
    pub fn view(&self) -> &View {
        self.replay().map_or(&self.empty, |replay| &replay.view)
    }

    /// All logs; `None` until the store is open.
    pub fn chains(&self) -> Option<&Chains> {
        Some(&self.replay()?.chains)
    }

    /// The segments that hold something, in order; none until the store is open.
    pub fn segments(&self) -> &[SegmentInfo] {
        match &self.state {
            State::Open(open) => &open.segments,
            _ => &[],
        }
    }

    /// The segment that this opening writes, as far as it is durable: what lies behind its end may change at any time.
    pub fn open_segment(&self) -> Option<SegmentInfo> {
        self.committer()?.open_segment()
    }

    /// What the recovery found; `None` until the store is open.
    pub fn report(&self) -> Option<&Report> {
        Some(&self.replay()?.report)
    }

    /// The ordinal of the next op. Everything below it is durable.
    pub fn next_ordinal(&self) -> u64 {
        self.replay().map_or(0, |replay| replay.next_ordinal)
    }

    /// The hash of all that the store holds; equal on two nodes that hold the same logs. `None` until the store is open.
    pub fn state_hash(&self) -> Option<[u8; 32]> {
        let replay = self.replay()?;
        Some(replay.chains.state_hash(&replay.view.digest()))
    }

    /// Bytes that the recovery has read, of how many.
    pub fn progress(&self) -> Option<(u64, u64)> {
        match &self.state {
            State::Recovering(recovery) => Some(recovery.progress()),
            _ => None,
        }
    }

    /// What there is and how it is doing; `None` until the store is open.
    pub fn status(&self) -> Option<Status> {
        let (replay, committer) = (self.replay()?, self.committer());
        Some(Status {
            bytes: committer.map_or(replay.report.bytes, Committer::bytes),
            logs: replay.chains.iter().len(),
            next_ordinal: replay.next_ordinal,
            waiting: committer.map_or(0, Committer::waiting),
            stopped: committer.and_then(Committer::stopped),
        })
    }

    fn replay(&self) -> Option<&Replay> {
        match &self.state {
            State::Open(open) => Some(&open.replay),
            _ => None,
        }
    }

    fn committer(&self) -> Option<&Committer> {
        match &self.state {
            State::Open(open) => open.committer.as_ref(),
            _ => None,
        }
    }

    fn write(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut Committer, UnixTime, &mut View) -> Result<(), AppendError>,
    ) -> Result<(), AppendError> {
        let unix = self.unix;
        self.with_committer(now, |committer, replay| write(committer, unix, &mut replay.view))
            .ok_or(AppendError::NotOpen)?
    }

    /// Lets the committer do something, and what follows from it.
    fn with_committer<T>(&mut self, now: Instant, act: impl FnOnce(&mut Committer, &mut Replay) -> T) -> Option<T> {
        let State::Open(open) = &mut self.state else { return None };
        let committer = open.committer.as_mut()?;
        self.now = now;
        Some(act(committer, &mut open.replay))
    }

    fn is_closed(&mut self) {
        if self.committer().is_some_and(Committer::is_closed) {
            self.state = State::Over;
        }
    }

    fn recover(&mut self) -> Option<Effect> {
        let State::Recovering(recovery) = &mut self.state else { return None };
        match recovery.poll() {
            RecoverStep::Disk(op) => return Some(self.disk_effect(op)),
            RecoverStep::Hash(number, commit) => return Some(Effect::Hash(Token(number), commit)),
            RecoverStep::Wait => {}
            RecoverStep::Refused(error) => {
                self.state = State::Over;
                self.out.events.push_back(StoreEvent::Refused(error));
            }
            RecoverStep::Done(recovered) => {
                let Recovered { mut replay, segments, tail } = *recovered;
                replay.chains.set_members(members(&self.config));
                let config = WriterConfig {
                    segment_bytes: self.config.segment_bytes,
                    max_bytes: self.config.max_bytes,
                    owner: *self.config.owner.as_bytes(),
                    network: hash(&[self.config.network_id.as_str().as_bytes()]),
                };
                let nonce = self.rng.array();
                let writer = Writer::new(config, tail, Rng::from_seed(self.rng.array()));
                let committer = (!self.config.read_only).then(|| Committer::new(writer, &self.config, nonce, &replay));
                self.state = State::Open(Box::new(Open { replay, segments, committer }));
                self.out.events.push_back(StoreEvent::Opened);
            }
        }
        None
    }

    /// Goes on with the reading, or begins with the next one.
    fn read_on(&mut self) -> Option<DiskOp> {
        let State::Open(open) = &mut self.state else { return None };
        loop {
            if self.reading.is_none() {
                let (ticket, cursor, max_bytes) = self.reads.pop_front()?;
                let until = open.replay.next_ordinal;
                self.reading = Some((ticket, Reading::new(&open.segments, cursor, until, max_bytes)));
            }
            let (_, reading) = self.reading.as_mut()?;
            if let Some(op) = reading.poll(&open.segments) {
                return Some(op);
            }
            let (ticket, reading) = self.reading.take()?;
            let author = |log: &LogId| open.replay.chains.get(log).map(|state| state.genesis.peer_id);
            let (taken, next, damaged) = reading.finish(author);
            self.out.events.push_back(StoreEvent::Read { ticket, taken, next, damaged });
        }
    }
}

/// Whose commits are taken.
fn members(config: &StoreConfig) -> BTreeSet<PeerId> {
    config.members.iter().copied().chain([config.owner]).collect()
}
