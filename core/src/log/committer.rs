//! Forms commits of what waits, and takes them up when they are durable.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::chain::{Accept, Chains, MAX_LOGS, Refusal};
use super::clock::{Hlc, HybridClock, KV_HORIZON};
use super::commit::{Commit, CommitHash, Draft, Genesis, HEAD_LEN, LogId, Record, VerifyError};
use super::disk::{DiskResult, Token};
use super::import::{Unverified, Verdicts};
use super::op::{MAX_COMMIT, MAX_COMMIT_OPS, Op, OpsBuilder};
use super::recover::SegmentInfo;
use super::replay::Replay;
use super::segment::{FrameKind, frame_len};
use super::store::{
    AppendError, Effect, MAX_IMPORT, MAX_IMPORT_BYTES, MAX_IMPORTS, MAX_QUEUED, MAX_QUEUED_BYTES, StoreConfig,
    StoreEvent, Ticket,
};
use super::view::{Reservation, View};
use super::writer::{Room, Stopped, Writer, WriterEvent};
use crate::config::NetworkId;
use crate::identity::PeerId;
use crate::time::{Instant, UnixTime};

/// Imported beginnings of logs that wait for the first commit: unsigned, anybody may have made them up.
const MAX_PENDING: usize = 1024;
/// How many logs are kept free for those of the owner.
const OWN_LOGS: usize = 4096;
/// Bytes of commits that are signed and wait for the disk.
const MAX_FORMED_BYTES: u64 = 4 * MAX_COMMIT as u64;
/// Bit of the tokens of drafts, and of those of imports that are verified; the writer's have neither.
const SIGNING: u64 = 1 << 62;
const VERIFYING: u64 = 1 << 61;

/// What waits for the driver.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) effects: VecDeque<Effect>,
    pub(super) events: VecDeque<StoreEvent>,
}

/// An append that waits.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    ops: Vec<Op>,
    bytes: usize,
    reservation: Option<Reservation>,
}

/// Who is told that a part of a commit is durable.
#[derive(Debug)]
struct Answer {
    ticket: Ticket,
    count: u32,
    reservation: Option<Reservation>,
}

/// A draft that is being signed.
#[derive(Debug)]
struct Signing {
    token: Token,
    answers: Vec<Answer>,
    reserved: u64,
}

/// An import that waits.
#[derive(Debug)]
struct Importing {
    ticket: Ticket,
    records: Vec<Record>,
    bytes: usize,
    verified: Verified,
}

/// How far the verification of an import is.
#[derive(Debug)]
enum Verified {
    No,
    UnderWay(Token),
    Yes(Verdicts),
}

/// What goes to the disk at once.
#[derive(Debug)]
enum Batch {
    /// A commit of the owner's, with the appends that it is made of; the first one of its log with that log's beginning.
    Own { genesis: Option<Box<Genesis>>, commit: Commit, answers: Vec<Answer>, reserved: u64 },
    /// Records of others, and the chains as they are with them.
    Import { ticket: Ticket, records: Vec<Record>, chains: Box<Chains>, new: u32, known: u32, uncompared: u32 },
}

impl Batch {
    fn tickets(self) -> Vec<Ticket> {
        match self {
            Batch::Own { answers, .. } => answers.into_iter().map(|answer| answer.ticket).collect(),
            Batch::Import { ticket, .. } => Vec::from([ticket]),
        }
    }
}

/// What an import makes of the store.
#[derive(Debug)]
struct Taken {
    chains: Chains,
    pending: VecDeque<(LogId, Genesis)>,
    /// What is written.
    records: Vec<Record>,
    new: u32,
    known: u32,
    uncompared: u32,
}

impl Taken {
    /// Keeps the beginning of a log until its first commit proves it; the oldest one that waits is forgotten for it.
    fn genesis(&mut self, genesis: Genesis) -> Result<(), Refusal> {
        let log = genesis.log_id();
        if self.chains.check_genesis(&genesis)? == Accept::Known {
            self.known += 1;
        } else if self.pending.iter().all(|(other, _)| *other != log) {
            if self.pending.len() >= MAX_PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back((log, genesis));
        }
        Ok(())
    }
}

/// The log that this opening writes: how far it reaches with all that is formed.
#[derive(Debug)]
struct OwnLog {
    id: LogId,
    next: u64,
    head: CommitHash,
}

/// The writing half of an open store.
#[derive(Debug)]
pub(super) struct Committer {
    writer: Writer,
    network_id: NetworkId,
    owner: PeerId,
    author_bytes: u64,
    nonce: [u8; 16],
    clock: HybridClock,
    log: Option<OwnLog>,
    /// The beginning of the own log, until it is written.
    genesis: Option<Genesis>,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    imports: VecDeque<Importing>,
    /// The last commit that went to the disk was the owner's: an import that waits comes before the next one.
    is_imports_turn: bool,
    /// Beginnings of logs whose first commit has not come.
    pending: VecDeque<(LogId, Genesis)>,
    signing: Option<Signing>,
    formed: VecDeque<Batch>,
    flying: Vec<Batch>,
    /// Room that is promised to what is formed and not pushed.
    reserved: u64,
    /// The ordinal of the next op that is pushed.
    next_pushed: u64,
    next_token: u64,
    closing: bool,
    closed: bool,
    stopped: Option<Stopped>,
}

impl Committer {
    pub(super) fn new(writer: Writer, config: &StoreConfig, nonce: [u8; 16], replay: &Replay) -> Committer {
        Committer {
            writer,
            network_id: config.network_id.clone(),
            owner: config.owner,
            author_bytes: config.author_bytes,
            nonce,
            clock: HybridClock::new(replay.last_stamp),
            log: None,
            genesis: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            imports: VecDeque::new(),
            is_imports_turn: false,
            pending: VecDeque::new(),
            signing: None,
            formed: VecDeque::new(),
            flying: Vec::new(),
            reserved: 0,
            next_pushed: replay.next_ordinal,
            next_token: 0,
            closing: false,
            closed: false,
            stopped: None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.writer.total()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.imports.len()
    }

    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.writer.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.writer.handle_timeout(now);
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// The clock, begun anew where a wall clock that was wrong has driven it beyond the horizon: no key could be written any
    /// more. Writes of one key rise all the same.
    fn clock_at(&self, unix: UnixTime) -> HybridClock {
        let is_lost = self.clock.last() >= KV_HORIZON && Hlc::from_unix(unix) < KV_HORIZON;
        if is_lost { HybridClock::default() } else { self.clock.clone() }
    }

    /// Writes a key: a value, or that it has none any more.
    pub(super) fn write_key(
        &mut self,
        unix: UnixTime,
        view: &mut View,
        ticket: Ticket,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<(), AppendError> {
        self.is_open()?;
        let mut clock = self.clock_at(unix);
        let reservation = view.reserve(&key, value.as_ref().map(Bytes::len), clock.tick(unix))?;
        self.clock = clock;
        let stamp = reservation.stamp();
        let op = match value {
            Some(value) => Op::Put { stamp, key, value },
            None => Op::Delete { stamp, key },
        };
        match self.check(core::slice::from_ref(&op)) {
            Ok(bytes) => self.enqueue(Waiting { ticket, ops: vec![op], bytes, reservation: Some(reservation) }),
            Err(error) => {
                view.release(reservation);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn append(&mut self, ticket: Ticket, ops: Vec<Op>) -> Result<(), AppendError> {
        self.is_open()?;
        let bytes = self.check(&ops)?;
        self.enqueue(Waiting { ticket, ops, bytes, reservation: None });
        Ok(())
    }

    /// Whether the ops of an append can be taken, and their bytes.
    fn check(&self, ops: &[Op]) -> Result<usize, AppendError> {
        ops.iter().try_for_each(Op::check)?;
        let bytes = ops.iter().map(Op::encoded_len).sum();
        match ops.len() {
            0 => Err(AppendError::Empty),
            ops if ops > MAX_COMMIT_OPS || bytes > MAX_COMMIT => Err(AppendError::TooLarge { ops, bytes }),
            _ if self.queue.len() >= MAX_QUEUED || self.queued_bytes + bytes > MAX_QUEUED_BYTES => {
                Err(AppendError::Busy)
            }
            _ => Ok(bytes),
        }
    }

    fn enqueue(&mut self, waiting: Waiting) {
        self.queued_bytes += waiting.bytes;
        self.queue.push_back(waiting);
    }

    pub(super) fn import(&mut self, ticket: Ticket, records: Vec<Record>) -> Result<(), AppendError> {
        self.is_open()?;
        let bytes = records.iter().map(encoded_len).sum();
        if records.len() > MAX_IMPORT || bytes > MAX_IMPORT_BYTES {
            return Err(AppendError::ImportTooLarge { records: records.len(), bytes });
        }
        let waiting: usize = self.imports.iter().map(|import| import.bytes).sum();
        if self.imports.len() >= MAX_IMPORTS || waiting + bytes > MAX_IMPORT_BYTES {
            return Err(AppendError::Busy);
        }
        self.imports.push_back(Importing { ticket, records, bytes, verified: Verified::No });
        Ok(())
    }

    fn is_open(&self) -> Result<(), AppendError> {
        match self.stopped {
            Some(stopped) => Err(AppendError::Stopped(stopped)),
            None if self.closing => Err(AppendError::NotOpen),
            None => Ok(()),
        }
    }

    pub(super) fn handle_signed(&mut self, token: Token, commit: Commit) {
        let Some(Signing { answers, reserved, .. }) = self.signing.take_if(|signing| signing.token == token) else {
            return;
        };
        if let Some(log) = &mut self.log {
            log.next = commit.next_seq();
            log.head = commit.hash();
        }
        let genesis = self.genesis.take().map(Box::new);
        self.formed.push_back(Batch::Own { genesis, commit, answers, reserved });
    }

    pub(super) fn handle_verified(&mut self, token: Token, verdicts: Verdicts) {
        if let Some(Importing { verified, .. }) = self.imports.front_mut()
            && matches!(verified, Verified::UnderWay(awaited) if *awaited == token)
        {
            *verified = Verified::Yes(verdicts);
        }
    }

    pub(super) fn handle_disk(
        &mut self,
        now: Instant,
        token: Token,
        result: DiskResult,
        replay: &mut Replay,
        out: &mut Outbox,
    ) {
        match self.writer.handle(now, token, result) {
            Some(WriterEvent::Durable) => self.durable(replay, out),
            Some(WriterEvent::Stopped(stopped)) => self.stop(stopped, out),
            Some(WriterEvent::Closed) => {
                self.closed = true;
                out.events.push_back(StoreEvent::Closed);
            }
            Some(WriterEvent::Room) | None => {}
        }
    }

    pub(super) fn open_segment(&self) -> Option<SegmentInfo> {
        self.writer.open_segment()
    }

    /// Tells the reader how far the segments are durable.
    pub(super) fn note_segments(&self, segments: &mut Vec<SegmentInfo>) {
        let Some(open) = self.open_segment() else { return };
        match segments.last_mut() {
            Some(last) if last.file == open.file => last.end = open.end,
            _ => segments.push(open),
        }
    }

    /// Does whatever can be done now.
    pub(super) fn pump(&mut self, now: Instant, unix: UnixTime, replay: &mut Replay, out: &mut Outbox) {
        if self.stopped.is_some() || self.closed {
            return;
        }
        self.fly(now);
        self.verify_next(replay, out);
        if self.is_imports_turn {
            self.import_next(now, replay, out);
        }
        self.form(now, unix, replay, out);
        self.import_next(now, replay, out);
        let idle = self.queue.is_empty() && self.imports.is_empty() && self.formed.is_empty();
        if self.closing && idle && self.signing.is_none() && self.flying.is_empty() {
            self.writer.close(now);
        }
        while let Some((token, op)) = self.writer.poll() {
            out.effects.push_back(Effect::Disk(token, op));
        }
    }

    /// Sends what is formed to the disk, if that is idle.
    fn fly(&mut self, now: Instant) {
        if self.writer.is_busy() || !self.flying.is_empty() {
            return;
        }
        while let Some(batch) = self.formed.pop_front() {
            if let Batch::Own { genesis, commit, reserved, .. } = &batch {
                self.reserved -= reserved;
                if let Some(genesis) = genesis {
                    self.push_genesis(genesis);
                }
                self.push_commit(commit);
                self.is_imports_turn = true;
            }
            self.flying.push(batch);
        }
        self.writer.flush(now);
    }

    fn push_genesis(&mut self, genesis: &Genesis) {
        self.writer.push(FrameKind::Genesis, 0, self.next_pushed, &[&genesis.encode()]);
    }

    fn push_commit(&mut self, commit: &Commit) {
        let count = commit.header().count;
        self.writer.push(FrameKind::Commit, count, self.next_pushed, &[commit.bytes()]);
        self.next_pushed += u64::from(count);
    }

    /// Forms a commit of what waits: all of it when the disk is idle, a full one when it is not.
    fn form(&mut self, now: Instant, unix: UnixTime, replay: &mut Replay, out: &mut Outbox) {
        let disk_idle = !self.writer.is_busy() && self.flying.is_empty() && self.formed.is_empty();
        let is_full = self.queued_bytes >= MAX_COMMIT || self.queue.len() >= MAX_COMMIT_OPS;
        // What is formed ahead goes before an import.
        let is_due = self.is_imports_turn && self.is_verified();
        let may = disk_idle || (is_full && self.reserved < MAX_FORMED_BYTES && !is_due);
        if self.queue.is_empty() || self.signing.is_some() || !may {
            return;
        }
        // What is imported may take the last place that there is for a log.
        if self.log.is_none() && self.flying.iter().any(|batch| matches!(batch, Batch::Import { .. })) {
            return;
        }
        let (appends, bytes) = self.next_commit();
        if (self.log.is_none() || self.genesis.is_some()) && replay.chains.iter().len() >= MAX_LOGS {
            self.fail_queue(AppendError::TooManyLogs, &mut replay.view, out);
            return;
        }
        let genesis_len = self.begin_log(replay);
        let needed = frame_len(HEAD_LEN + bytes) + genesis_len;
        match self.writer.reserve(now, self.reserved + needed, self.next_pushed) {
            Room::Ready => {}
            Room::Wait => return,
            Room::Refused(why) => {
                self.fail_queue(AppendError::NoRoom(why), &mut replay.view, out);
                return;
            }
        }
        let mut ops = OpsBuilder::new();
        let mut answers = Vec::with_capacity(appends);
        for Waiting { ticket, ops: of_append, bytes, reservation } in self.queue.drain(..appends) {
            self.queued_bytes -= bytes;
            answers.push(Answer { ticket, count: of_append.len() as u32, reservation });
            for op in &of_append {
                ops.push(op).expect("next_commit took as many as fit, and append checked each");
            }
        }
        let (Some(log), Some(ops)) = (&self.log, ops.finish()) else { return };
        let mut clock = self.clock_at(unix);
        let draft = Draft::new(log.id, log.next, log.head, clock.tick(unix), ops);
        self.clock = clock;
        let token = Token(SIGNING | self.next_token);
        self.next_token += 1;
        self.reserved += needed;
        self.signing = Some(Signing { token, answers, reserved: needed });
        out.effects.push_back(Effect::Sign(token, draft));
    }

    /// How many appends the next commit is made of, and their bytes.
    fn next_commit(&self) -> (usize, usize) {
        let (mut appends, mut ops, mut bytes) = (0, 0, 0);
        for waiting in &self.queue {
            if ops + waiting.ops.len() > MAX_COMMIT_OPS || bytes + waiting.bytes > MAX_COMMIT {
                break;
            }
            appends += 1;
            ops += waiting.ops.len();
            bytes += waiting.bytes;
        }
        (appends, bytes)
    }

    /// Begins the log of this opening, once. Returns the bytes of its genesis while that is not written.
    fn begin_log(&mut self, replay: &Replay) -> u64 {
        if self.log.is_none() {
            let (network_id, peer_id) = (self.network_id.clone(), self.owner);
            let genesis = Genesis { network_id, peer_id, nonce: self.nonce, predecessor: replay.predecessor() };
            let id = genesis.log_id();
            self.log = Some(OwnLog { id, next: 0, head: id.into() });
            self.genesis = Some(genesis);
        }
        self.genesis.as_ref().map_or(0, |genesis| frame_len(genesis.encode().len()))
    }

    /// Hands out the commits of the next import to be verified.
    fn verify_next(&mut self, replay: &Replay, out: &mut Outbox) {
        let Some(Importing { records, verified: verified @ Verified::No, .. }) = self.imports.front_mut() else {
            return;
        };
        // Its chains are not known before the import before it is durable.
        if self.flying.iter().any(|batch| matches!(batch, Batch::Import { .. })) {
            return;
        }
        let pending = self.pending.iter().map(|(log, genesis)| (*log, genesis.peer_id));
        let mut begun: BTreeMap<LogId, PeerId> = pending.collect();
        let unverified = Unverified::new(records, |record| match record {
            Record::Genesis(genesis) => {
                begun.insert(genesis.log_id(), genesis.peer_id);
                None
            }
            Record::Commit(commit) => {
                let log = commit.header().log;
                replay.chains.get(&log).map(|state| state.genesis.peer_id).or_else(|| begun.get(&log).copied())
            }
        });
        let token = Token(VERIFYING | self.next_token);
        self.next_token += 1;
        *verified = Verified::UnderWay(token);
        out.effects.push_back(Effect::Verify(token, unverified));
    }

    /// Whether an import waits that only has to be written.
    fn is_verified(&self) -> bool {
        self.imports.front().is_some_and(|import| matches!(import.verified, Verified::Yes(_)))
    }

    /// Writes the records of the next import, when nothing else is under way.
    fn import_next(&mut self, now: Instant, replay: &mut Replay, out: &mut Outbox) {
        let idle = !self.writer.is_busy() && self.flying.is_empty() && self.formed.is_empty() && self.signing.is_none();
        let Some(&Importing { ticket, ref records, verified: Verified::Yes(_), .. }) =
            self.imports.front().filter(|_| idle)
        else {
            return;
        };
        // Each commit may bring the beginning of its log along, which waited for it.
        let genesis = frame_len(Genesis::MAX_LEN);
        let needed = records.iter().map(|record| genesis + frame_len(encoded_len(record))).sum();
        match self.writer.reserve(now, needed, self.next_pushed) {
            Room::Ready => {}
            Room::Wait => return,
            Room::Refused(why) => {
                self.imports.pop_front();
                out.events.push_back(StoreEvent::Failed { ticket, error: AppendError::NoRoom(why) });
                return;
            }
        }
        let Some(Importing { records, verified: Verified::Yes(verdicts), .. }) = self.imports.pop_front() else {
            return;
        };
        self.is_imports_turn = false;
        match self.take_records(replay, records, &verdicts) {
            Err((record, refusal)) => out.events.push_back(StoreEvent::ImportRefused { ticket, record, refusal }),
            Ok(Taken { chains, pending, records, new, known, uncompared }) => {
                self.pending = pending;
                let batch = Batch::Import { ticket, records, chains: Box::new(chains), new, known, uncompared };
                self.fly_import(now, batch, replay, out);
            }
        }
    }

    /// What the store is with `records`; or the number of the first one that is refused, and why.
    fn take_records(
        &self,
        replay: &Replay,
        records: Vec<Record>,
        verdicts: &Verdicts,
    ) -> Result<Taken, (usize, Refusal)> {
        let mut taken = Taken {
            chains: replay.chains.clone(),
            pending: self.pending.clone(),
            records: Vec::new(),
            new: 0,
            known: 0,
            uncompared: 0,
        };
        let mut bytes = replay.foreign_bytes.clone();
        for (number, record) in records.into_iter().enumerate() {
            let taken = match record {
                Record::Genesis(genesis) => taken.genesis(genesis),
                Record::Commit(commit) => self.take_commit(&mut taken, &mut bytes, commit, verdicts.get(number)),
            };
            taken.map_err(|refusal| (number, refusal))?;
        }
        Ok(taken)
    }

    fn take_commit(
        &self,
        taken: &mut Taken,
        bytes: &mut BTreeMap<PeerId, u64>,
        commit: Commit,
        verdict: Option<Result<(), VerifyError>>,
    ) -> Result<(), Refusal> {
        let log = commit.header().log;
        let waiting = taken.pending.iter().position(|(other, _)| *other == log);
        if let Some((_, genesis)) = waiting.and_then(|at| taken.pending.remove(at)) {
            // Room for its own logs is what no other author can take from a store.
            if genesis.peer_id != self.owner && taken.chains.iter().len() + OWN_LOGS >= MAX_LOGS {
                return Err(Refusal::TooMany);
            }
            taken.chains.accept_genesis(&genesis)?;
            taken.records.push(Record::Genesis(genesis));
            taken.new += 1;
        }
        match taken.chains.accept_verified(&commit, verdict)? {
            Accept::Known => taken.known += 1,
            Accept::Past => taken.uncompared += 1,
            Accept::New => {
                taken.new += 1;
                let author = taken.chains.get(&log).map(|state| state.genesis.peer_id);
                if let Some(author) = author.filter(|author| *author != self.owner) {
                    let sum = bytes.entry(author).or_default();
                    *sum += commit.bytes().len() as u64;
                    if *sum > self.author_bytes {
                        return Err(Refusal::Quota { author, limit: self.author_bytes });
                    }
                }
                taken.records.push(Record::Commit(commit));
            }
        }
        Ok(())
    }

    fn fly_import(&mut self, now: Instant, batch: Batch, replay: &mut Replay, out: &mut Outbox) {
        let Batch::Import { records, .. } = &batch else { return };
        let is_empty = records.is_empty();
        for record in records {
            match record {
                Record::Genesis(genesis) => self.push_genesis(genesis),
                Record::Commit(commit) => self.push_commit(commit),
            }
        }
        self.flying.push(batch);
        self.writer.flush(now);
        if is_empty {
            self.durable(replay, out);
        }
    }

    /// What was flying is on the disk.
    fn durable(&mut self, replay: &mut Replay, out: &mut Outbox) {
        for batch in core::mem::take(&mut self.flying) {
            match batch {
                Batch::Own { genesis, commit, answers, .. } => {
                    own_durable(replay, genesis.as_deref(), &commit, answers, out)
                }
                Batch::Import { ticket, records, mut chains, new, known, uncompared } => {
                    // They may be others by now.
                    chains.set_members(replay.chains.members().clone());
                    replay.chains = *chains;
                    for record in &records {
                        if let Record::Commit(commit) = record {
                            replay.next_ordinal += u64::from(commit.header().count);
                            replay.apply(commit);
                        }
                    }
                    out.events.push_back(StoreEvent::Imported { ticket, new, known, uncompared });
                }
            }
        }
    }

    /// The disk failed. Everybody who waits is told: what was on its way may be there at the next opening, all else was never
    /// handed to the disk.
    fn stop(&mut self, stopped: Stopped, out: &mut Outbox) {
        self.stopped = Some(stopped);
        // Nothing that was to follow is done any more. Readings go on.
        out.effects.retain(|effect| !matches!(effect, Effect::Disk(..) | Effect::Sign(..) | Effect::Verify(..)));
        out.events.push_back(StoreEvent::Stopped(stopped));
        let flying = self.flying.drain(..).flat_map(Batch::tickets);
        let error = AppendError::Unknown(stopped);
        out.events.extend(flying.map(|ticket| StoreEvent::Failed { ticket, error }));
        let formed = self.formed.drain(..).flat_map(Batch::tickets);
        let signing = self.signing.take().into_iter().flat_map(|signing| signing.answers).map(|answer| answer.ticket);
        let queued = self.queue.drain(..).map(|waiting| waiting.ticket);
        let imports = self.imports.drain(..).map(|import| import.ticket);
        let waiting = formed.chain(signing).chain(queued).chain(imports);
        let error = AppendError::Stopped(stopped);
        out.events.extend(waiting.map(|ticket| StoreEvent::Failed { ticket, error }));
        self.queued_bytes = 0;
        if self.closing {
            self.closed = true;
            out.events.push_back(StoreEvent::Closed);
        }
    }

    fn fail_queue(&mut self, error: AppendError, view: &mut View, out: &mut Outbox) {
        self.queued_bytes = 0;
        for Waiting { ticket, reservation, .. } in self.queue.drain(..) {
            reservation.into_iter().for_each(|reservation| view.release(reservation));
            out.events.push_back(StoreEvent::Failed { ticket, error });
        }
    }
}

/// A commit of the owner's is on the disk.
fn own_durable(
    replay: &mut Replay,
    genesis: Option<&Genesis>,
    commit: &Commit,
    answers: Vec<Answer>,
    out: &mut Outbox,
) {
    let (log, mut first_seq) = (commit.header().log, commit.header().first_seq);
    let begun = genesis.map_or(Ok(Accept::Known), |genesis| replay.chains.restore_genesis(genesis));
    if let Err(refusal) = begun.and_then(|_| replay.chains.extend(commit)) {
        unreachable!("a commit that was formed here continues its log: {refusal}");
    }
    replay.apply(commit);
    let mut first_ordinal = replay.next_ordinal;
    replay.next_ordinal += u64::from(commit.header().count);
    for Answer { ticket, count, reservation } in answers {
        reservation.into_iter().for_each(|reservation| replay.view.release(reservation));
        out.events.push_back(StoreEvent::Durable { ticket, log, first_seq, first_ordinal, count });
        first_seq += u64::from(count);
        first_ordinal += u64::from(count);
    }
}

fn encoded_len(record: &Record) -> usize {
    match record {
        Record::Genesis(genesis) => genesis.encode().len(),
        Record::Commit(commit) => commit.bytes().len(),
    }
}
