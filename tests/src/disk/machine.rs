//! One store on one disk, and what is true of it at every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vine_core::identity::Identity;
use vine_core::log::disk::{DiskOp, DiskResult, Token};
use vine_core::log::import::Verdicts;
use vine_core::log::op::Op;
use vine_core::log::reader::Cursor;
use vine_core::log::report::Damage;
use vine_core::log::segment::{HeaderBlock, SegmentHeader};
use vine_core::log::store::{AppendError, Effect, MAX_IMPORT, Store, StoreConfig, StoreEvent, Ticket};
use vine_core::log::{Commit, LogId, Record};
use vine_core::{Instant, PeerId};

use super::content::SECTOR;
use super::device::{SimDisk, Unsynced};
use super::dice::Dice;
use super::ledger::{Ledger, Slot, Timeline};
use super::model::Model;
use super::twin::Twin;
use crate::sim::{Coverage, Trace, wall_clock};

/// The first ticket of readings that are nobody's in particular.
const SIDE_READS: u64 = 1 << 32;
/// The ticket of the one who follows from the beginning.
pub(super) const FOLLOWER: Ticket = Ticket(u64::MAX);
/// Every so many acknowledgements it is tried out what a crash would leave of them.
const PROVEN: u64 = 8;
/// So many rounds without time passing are no progress.
const BUSY: u32 = 100_000;

/// What a writer hands in: the store adds a stamp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Opaque bytes.
    Plain(Bytes),
    /// A key and its value.
    Put(Bytes, Bytes),
    /// A key.
    Delete(Bytes),
}

impl Content {
    fn is(&self, op: &Op) -> bool {
        match (self, op) {
            (Content::Plain(bytes), Op::Plain(data)) => bytes == data,
            (Content::Put(key, value), Op::Put { key: k, value: v, .. }) => key == k && value == v,
            (Content::Delete(key), Op::Delete { key: k, .. }) => key == k,
            _ => false,
        }
    }
}

/// What all machines of a world share.
#[derive(Default)]
pub struct Shared {
    /// What was ever written.
    pub ledger: Ledger,
    /// What was reached.
    pub coverage: Coverage,
    /// Everything that went in and came out.
    pub trace: Trace,
    /// Every effect is shown.
    pub is_shown: bool,
    /// The time, as whoever drives the machines tells it.
    pub now: Instant,
}

/// What is known of an append.
pub(super) struct Submitted {
    contents: Vec<Content>,
    is_import: bool,
}

/// One opening of the store.
pub(super) struct Life {
    pub(super) store: Store,
    pub(super) opened: bool,
    pub(super) closed: bool,
    stopped: bool,
    refused: bool,
    pub(super) read_only: bool,
    /// Accepted, and not yet answered.
    pub(super) waiting: BTreeMap<Ticket, Submitted>,
    /// Accepted and not yet in a commit, in order.
    queue: VecDeque<(Ticket, Content)>,
    /// Commits of this life, by their first positions, with the tickets of their ops.
    drafted: BTreeMap<(LogId, u64), Ticket>,
    /// The commits that imports brought, by their first positions, with those of the imports that were not given up.
    brought: BTreeMap<(LogId, u64), BTreeSet<Ticket>>,
    /// Those of them that were on their way to the disk since.
    brought_and_written: BTreeSet<(LogId, u64)>,
    /// Where the follower is, whether it waits for an answer, and what it has seen.
    pub(super) follows: Cursor,
    pub(super) following: bool,
    pub(super) model: Model,
    pub(super) side_reads: BTreeMap<Ticket, Cursor>,
    /// The next ordinal and the state when the follower had last read everything.
    pub(super) state: Option<(u64, [u8; 32])>,
    /// Something cannot be read: the follower does not know all that the view is made of.
    pub(super) blind: bool,
    /// The highest stamp of each key that was seen or given.
    stamps: BTreeMap<Bytes, u64>,
    /// Faults that the disk had admitted when it was opened.
    pub(super) faults_before: usize,
    /// The disk did not work for a while since.
    was_broken: bool,
    /// Operations that the disk has not come to, each with the time when it is done.
    operations: VecDeque<(Instant, Token, DiskOp)>,
    signed: VecDeque<(Instant, Token, Commit)>,
    /// What was said of an import, until the store is told.
    verified: Option<(Instant, Token, Verdicts)>,
}

/// A machine with a disk and, while it runs, a store.
pub struct Machine {
    pub(super) number: usize,
    secret: [u8; 32],
    /// Shared, as machines are forked often.
    identity: Arc<Identity>,
    config: StoreConfig,
    /// Its disk.
    pub disk: SimDisk,
    /// The disk once more, as real files; where there are some, the store works on them.
    pub twin: Option<Twin>,
    /// What its disk holds, as it should be.
    pub line: Timeline,
    /// How far its wall clock is off, in milliseconds.
    pub clock_ms: i64,
    /// The longest that an operation of the disk takes.
    pub slow: Duration,
    /// From this effect on nothing happens any more, as if the machine were switched off before it.
    pub halt_at: Option<u64>,
    halted: bool,
    pub(super) life: Option<Life>,
    lives: u64,
    next_ticket: u64,
    /// Its process stands still: it is not called, and what the disk has done for it waits.
    pub stalled: bool,
    /// How often in a row something was due at this time.
    rounds: (Instant, u32),
    dice: Dice,
}

impl Machine {
    /// A machine that is off, with an empty disk.
    pub fn new(number: usize, secret: [u8; 32], config: StoreConfig, seed: u64) -> Machine {
        let mut dice = Dice::new(seed);
        Machine {
            number,
            secret,
            identity: Arc::new(Identity::from_seed(secret)),
            config,
            disk: SimDisk::new(dice.any()),
            twin: None,
            line: Timeline::default(),
            clock_ms: 0,
            slow: Duration::from_micros(50),
            halt_at: None,
            halted: false,
            life: None,
            lives: 0,
            next_ticket: 0,
            stalled: false,
            rounds: (Instant::ORIGIN, 0),
            dice,
        }
    }

    /// A machine with the disk and the identity of this one, and off.
    pub fn cloned(&mut self, number: usize) -> Machine {
        let mut clone = Machine::new(number, self.secret, self.config.clone(), self.dice.any());
        clone.disk = self.disk.copied();
        clone.twin = self.twin.as_ref().map(|twin| twin.beside(number));
        clone.line = self.line.clone();
        clone
    }

    /// This machine as it is between two lives, for another end of its story.
    ///
    /// # Panics
    /// Where a store runs.
    pub fn fork(&self) -> Machine {
        assert!(self.life.is_none(), "a store that runs cannot be copied");
        Machine {
            secret: self.secret,
            identity: Arc::clone(&self.identity),
            config: self.config.clone(),
            disk: self.disk.clone(),
            twin: None,
            line: self.line.clone(),
            life: None,
            ..*self
        }
    }

    /// What its store is opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Whether it was switched off by [`Machine::halt_at`].
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Whether a store runs, in whatever state.
    pub fn is_on(&self) -> bool {
        self.life.is_some()
    }

    /// Whether the store takes writes.
    pub fn is_writing(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.opened && !life.closed && !life.stopped && !life.read_only)
    }

    /// Whether the store is open and everybody has what they asked for.
    pub fn is_idle(&self) -> bool {
        let Some(life) = &self.life else { return true };
        let caught_up = life.stopped || life.follows.ordinal >= life.store.next_ordinal();
        life.waiting.is_empty() && (life.opened && caught_up || life.refused) && life.side_reads.is_empty()
    }

    /// Whether its store may not grow as it likes.
    pub fn is_limited(&self) -> bool {
        self.config.max_bytes < u64::MAX / 2
    }

    /// Whether the opening was refused.
    pub fn is_refused(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.refused)
    }

    /// Nothing can be written any more, or it can again.
    pub fn protect(&mut self, on: bool) {
        self.disk.read_only = on;
        if let Some(life) = &mut self.life {
            life.was_broken |= on;
        }
    }

    /// The disk stops working altogether, or works again.
    pub fn break_disk(&mut self, on: bool) {
        self.disk.broken = on;
        if let Some(life) = &mut self.life {
            life.was_broken |= on;
        }
    }

    /// A bit of what the disk holds turns over: this one of this sector, of all that hold something.
    pub fn rot(&mut self, shared: &mut Shared, sector: u16, bit: u16) {
        let files = self.disk.list().into_iter().map(|(file, _)| file);
        let sectors: Vec<_> = files.flat_map(|f| self.disk.written(f).into_iter().map(move |n| (f, n))).collect();
        let Some(at) = usize::from(sector).checked_rem(sectors.len()) else { return };
        let (file, number) = sectors[at];
        let bit = u64::from(bit) % (SECTOR * 8);
        self.disk.rot(file, number * SECTOR + bit / 8, (bit % 8) as u8);
        self.line.rotten = true;
        shared.coverage.hit("a bit turned over");
    }

    /// All that the store holds and its reader has seen, as it would be exported.
    pub fn records(&self, ledger: &Ledger) -> Vec<Record> {
        let Some(chains) = self.life.as_ref().and_then(|life| life.store.chains()) else { return Vec::new() };
        let mut records = Vec::new();
        let mut begun = BTreeSet::new();
        for slot in &self.line.slots {
            let Slot::At((log, seq)) = *slot else { continue };
            let Some(commit) = ledger.commit((log, seq)) else { continue };
            let Some(state) = chains.get(&log) else { continue };
            if begun.insert(log) {
                records.push(Record::Genesis(state.genesis.clone()));
            }
            records.push(Record::Commit(commit.clone()));
        }
        records.truncate(MAX_IMPORT);
        records
    }

    /// The store, while it runs.
    pub fn store(&self) -> Option<&Store> {
        self.life.as_ref().map(|life| &life.store)
    }

    /// Whether the opening found a damaged copy of a header that no lie has brought about.
    pub fn has_damaged_header(&self) -> bool {
        let report = self.store().and_then(Store::report).filter(|_| !self.line.lied);
        report.is_some_and(|report| report.findings.iter().any(|finding| finding.damage == Damage::HeaderCopy))
    }

    /// The identities whose logs it takes from now on, beside its own.
    pub fn set_members(&mut self, members: Vec<PeerId>) {
        if let Some(life) = &mut self.life {
            life.store.set_members(members.clone());
        }
        self.config.members = members;
    }

    /// Whether an operation of the disk is under way.
    pub fn is_at_work(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.operations.is_empty())
    }

    /// Whether somebody waits for an append.
    pub fn is_awaited(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.waiting.is_empty())
    }

    /// Whether the store is open, be it only for reading.
    pub fn is_open(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.opened && !life.closed)
    }

    /// The process starts and opens the store.
    pub fn open(&mut self, shared: &mut Shared, read_only: bool) {
        if self.life.as_ref().is_some_and(|life| !life.closed && !life.stopped && !life.refused) {
            return;
        }
        let halt_at = self.halt_at;
        self.kill(shared);
        self.halt_at = halt_at;
        self.lives += 1;
        if let Some(twin) = &mut self.twin {
            twin.start(&mut self.disk, read_only);
        }
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.dice.any().to_le_bytes()));
        let config = StoreConfig { read_only, ..self.config.clone() };
        self.life = Some(Life {
            store: Store::open(config, seed, wall_clock(shared.now, self.clock_ms)),
            opened: false,
            closed: false,
            stopped: false,
            refused: false,
            read_only,
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            drafted: BTreeMap::new(),
            brought: BTreeMap::new(),
            brought_and_written: BTreeSet::new(),
            follows: Cursor::default(),
            following: false,
            model: Model::default(),
            side_reads: BTreeMap::new(),
            state: None,
            blind: false,
            stamps: BTreeMap::new(),
            faults_before: self.disk.admitted(),
            was_broken: self.disk.broken || self.disk.read_only,
            operations: VecDeque::new(),
            signed: VecDeque::new(),
            verified: None,
        });
        shared.trace.note("open", self.number, shared.now, &[u8::from(read_only)]);
        self.drain(shared);
    }

    /// The process ends; the disk, with its cache, stays.
    pub fn kill(&mut self, shared: &mut Shared) {
        (self.halted, self.halt_at, self.stalled) = (false, None, false);
        if let Some(life) = self.life.take() {
            shared.trace.note("kill", self.number, shared.now, &[]);
            shared.coverage.add("killed with appends waiting", u64::from(!life.waiting.is_empty()));
        }
    }

    /// The power goes, and leaves on the disk what `choose` says.
    pub fn crash(&mut self, shared: &mut Shared, choose: impl FnMut(Unsynced, usize) -> usize) {
        self.kill(shared);
        self.disk.crash(choose);
        self.line.closed_at = None;
    }

    /// The power goes, and chance says what is left on the disk.
    pub fn crash_by_chance(&mut self, shared: &mut Shared) {
        self.kill(shared);
        self.disk.crash_by_chance();
        self.line.closed_at = None;
    }

    /// Closes the store in order.
    pub fn close(&mut self, shared: &mut Shared) {
        let Some(life) = self.life.as_mut().filter(|life| life.opened && !life.closed) else { return };
        life.store.close(shared.now);
        self.drain(shared);
    }

    /// Somebody imports records.
    pub fn import(&mut self, shared: &mut Shared, records: Vec<Record>) {
        let Some(life) = &mut self.life else { return };
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let commits: Vec<_> = records.iter().filter_map(first_position).collect();
        match life.store.import(shared.now, ticket, records) {
            Ok(()) => {
                commits.into_iter().for_each(|first| _ = life.brought.entry(first).or_default().insert(ticket));
                life.waiting.insert(ticket, Submitted { contents: Vec::new(), is_import: true });
            }
            Err(error) => shared.coverage.hit(format!("import not taken: {}", word(&error))),
        }
        self.drain(shared);
    }

    /// A writer appends, if there is a store that takes it.
    pub fn append(&mut self, shared: &mut Shared, contents: Vec<Content>) {
        let (now, unix) = (shared.now, wall_clock(shared.now, self.clock_ms));
        let Some(life) = &mut self.life else { return };
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        life.store.set_unix_time(unix);
        let outcome = match &contents[..] {
            [Content::Put(key, value)] => life.store.put(now, ticket, key.clone(), value.clone()),
            [Content::Delete(key)] => life.store.delete(now, ticket, key.clone()),
            plain => {
                let bytes = plain.iter().filter_map(|c| if let Content::Plain(b) = c { Some(b.clone()) } else { None });
                life.store.append(now, ticket, bytes.collect())
            }
        };
        match outcome {
            Ok(()) => {
                assert!(
                    life.opened && !life.closed && !life.stopped && !life.read_only,
                    "an append is taken by nobody"
                );
                life.queue.extend(contents.iter().map(|content| (ticket, content.clone())));
                life.waiting.insert(ticket, Submitted { contents, is_import: false });
            }
            Err(error) => shared.coverage.hit(format!("append refused: {}", word(&error))),
        }
        shared.trace.note("append", self.number, now, &ticket.0.to_le_bytes());
        self.drain(shared);
    }

    /// Somebody reads, from an ordinal on.
    pub fn read(&mut self, shared: &mut Shared, from: u64, bytes: usize) {
        let Some(life) = self.life.as_mut().filter(|life| life.opened && !life.closed) else { return };
        self.next_ticket += 1;
        let (ticket, cursor) = (Ticket(SIDE_READS + self.next_ticket), Cursor::at(from));
        if life.store.read(ticket, cursor, bytes).is_ok() {
            life.side_reads.insert(ticket, cursor);
        }
        self.drain(shared);
    }

    /// When it wants to be woken. Never, while its process stands still.
    pub fn deadline(&self) -> Instant {
        let Some(life) = self.life.as_ref().filter(|_| !self.halted && !self.stalled) else {
            return Instant::FAR_FUTURE;
        };
        let operation = life.operations.front().map(|(due, ..)| *due);
        let signed = life.signed.front().map(|(due, ..)| *due);
        let verified = life.verified.as_ref().map(|(due, ..)| *due);
        let timeout = life.store.poll_timeout();
        [operation, signed, verified, timeout].into_iter().flatten().min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Its deadline has come: one operation is done, one signature made, one import verified, or time has passed.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn wake(&mut self, shared: &mut Shared) {
        let (now, unix) = (shared.now, wall_clock(shared.now, self.clock_ms));
        self.rounds = if self.rounds.0 < now { (now, 0) } else { (now, self.rounds.1 + 1) };
        assert!(self.rounds.1 < BUSY, "the store asks to be called again and again");
        let Some(life) = &mut self.life else { return };
        life.store.set_unix_time(unix);
        if life.operations.front().is_some_and(|(due, ..)| *due <= now)
            && let Some((_, token, op)) = life.operations.pop_front()
        {
            self.perform(shared, token, &op);
        } else if let Some((_, token, verdicts)) = life.verified.take_if(|(due, ..)| *due <= now) {
            life.store.handle_verified(now, token, verdicts);
        } else if life.signed.front().is_some_and(|(due, ..)| *due <= now)
            && let Some((_, token, commit)) = life.signed.pop_front()
        {
            life.store.handle_signed(now, token, commit);
        } else {
            life.store.handle_timeout(now);
        }
        self.drain(shared);
    }

    /// The disk does an operation, unless the machine is switched off before it.
    fn perform(&mut self, shared: &mut Shared, token: Token, op: &DiskOp) {
        if self.halt_at.is_some_and(|at| self.disk.effects() >= at) {
            self.halted = true;
            return;
        }
        for placed in shared.ledger.commits_in(op, self.disk.effects()) {
            let mut positions = (0..u64::from(placed.count)).map(|index| (placed.log, placed.first_seq + index));
            let refused = positions.find(|position| shared.ledger.is_refused(*position));
            assert!(refused.is_none(), "{refused:?} is written, and its writer was told that it never is");
            let first = (placed.log, placed.first_seq);
            if let Some(life) = &mut self.life
                && let Some(tickets) = life.brought.get(&first)
            {
                assert!(!tickets.is_empty(), "a commit is written, and who brought it was told that it never is");
                life.brought_and_written.insert(first);
            }
            self.line.place(placed);
        }
        let result = match &mut self.twin {
            Some(twin) => twin.perform(&mut self.disk, op),
            None => self.disk.perform(op),
        };
        if let DiskOp::Create { file, size } = op {
            // The zeros at the end of the segment before are cut off when this one is in use.
            if self.line.is_honest() && self.config.max_bytes < u64::MAX / 2 {
                let used = size + self.disk.held_beside(*file);
                assert!(used <= self.config.max_bytes, "the store is larger than it may be: {used} bytes");
            }
        }
        self.line.lied |= self.disk.happened().iter().any(|(_, fault)| fault.is_lie());
        if shared.is_shown {
            println!(
                "{:?} machine {} effect {}: {}",
                shared.now,
                self.number,
                self.disk.effects() - 1,
                shown(op, &result)
            );
        }
        note_op(&mut shared.trace, self.number, shared.now, op, &result);
        if let Some(life) = &mut self.life {
            life.store.handle_disk(shared.now, token, result);
        }
    }

    /// Does what the store asks for, and looks at what it says.
    fn drain(&mut self, shared: &mut Shared) {
        loop {
            let Some(life) = self.life.as_mut().filter(|_| !self.halted && !self.stalled) else { return };
            if let Some(effect) = life.store.poll_effect() {
                match effect {
                    Effect::Disk(token, op) => self.disk_effect(shared.now, token, op),
                    Effect::Hash(token, commit) => life.store.handle_hashed(token, commit.verify_ops().is_ok()),
                    Effect::Verify(token, unverified) => {
                        let due = shared.now + self.latency();
                        let Some(life) = &mut self.life else { return };
                        life.verified = Some((due, token, unverified.verify()));
                    }
                    Effect::Sign(token, draft) => {
                        let commit = draft.sign(&self.identity);
                        self.sign_effect(shared, token, commit);
                    }
                }
            } else if let Some(event) = life.store.poll_event() {
                self.event(shared, event);
            } else if !self.follow() {
                let forgotten = self.life.as_ref().is_some_and(|life| life.stopped && !life.waiting.is_empty());
                assert!(!forgotten, "a store has stopped, and somebody waits for it");
                return;
            }
        }
    }

    fn disk_effect(&mut self, now: Instant, token: Token, op: DiskOp) {
        let due = now + self.latency();
        let Some(life) = &mut self.life else { return };
        if !matches!(op, DiskOp::List | DiskOp::Read { .. }) {
            assert!(!life.read_only, "a store that is open for reading writes: {op:?}");
            assert!(!life.stopped, "a stopped store writes: {op:?}");
            assert!(!life.closed, "a closed store writes: {op:?}");
        }
        if let DiskOp::Write { file, offset: 0, bytes } = &op
            && let HeaderBlock::Valid { header, .. } = SegmentHeader::decode(bytes, *file)
        {
            let before = header.previous.filter(|_| self.line.is_honest());
            let is_durable = before.is_none_or(|before| {
                let is_awaited = life.operations.iter().any(
                    |(.., op)| matches!(op, DiskOp::Write { file, .. } | DiskOp::Sync { file } if *file == before.file),
                );
                !is_awaited && self.disk.is_durable_up_to(before.file, before.end)
            });
            assert!(is_durable, "the header of {file} is written, and the segment before it is not on the disk");
        }
        let due = life.operations.back().map_or(due, |(last, ..)| due.max(*last));
        life.operations.push_back((due, token, op));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_nanos(self.dice.below(self.slow.as_nanos() as u64 + 1))
    }

    /// A commit is formed: its positions are taken from now on, and its ops are the next ones that were submitted.
    fn sign_effect(&mut self, shared: &mut Shared, token: Token, commit: Commit) {
        shared.trace.note("sign", self.number, shared.now, commit.bytes());
        shared.ledger.claim(&commit);
        let due = shared.now + self.latency();
        let Some(life) = &mut self.life else { return };
        let mut tickets = BTreeSet::new();
        for (seq, op) in (commit.header().first_seq..).zip(commit.ops()) {
            let next = life.queue.pop_front();
            let (ticket, content) = next.expect("a commit holds no more than what was submitted");
            assert!(content.is(&op), "a commit holds {op:?} where {content:?} is next");
            if let Op::Put { stamp, key, .. } | Op::Delete { stamp, key } = &op {
                let before = life.stamps.insert(key.clone(), stamp.0).unwrap_or(0).max(life.model.stamp(key));
                assert!(stamp.0 > before, "a stamp is not above the one seen before");
            }
            life.drafted.insert((commit.header().log, seq), ticket);
            tickets.insert(ticket);
        }
        let split = life.queue.front().is_some_and(|(next, _)| tickets.contains(next));
        assert!(!split, "the ops of one append are in two commits");
        shared.coverage.add("commit of several writers", u64::from(tickets.len() > 1));
        life.signed.push_back((due, token, commit));
    }

    fn event(&mut self, shared: &mut Shared, event: StoreEvent) {
        shared.coverage.hit(format!("event: {}", word(&event)));
        if shared.is_shown {
            println!(
                "{:?} machine {}: {}",
                shared.now,
                self.number,
                format!("{event:?}").chars().take(300).collect::<String>()
            );
        }
        shared.trace.note(&word(&event), self.number, shared.now, &[]);
        match event {
            StoreEvent::Opened => self.opened(shared),
            StoreEvent::Refused(error) => {
                let trouble = self.is_troubled() || !self.line.is_honest();
                assert!(trouble, "an undamaged store is refused: {error}");
                if let Some(life) = &mut self.life {
                    life.refused = true;
                }
            }
            StoreEvent::Durable { ticket, log, first_seq, first_ordinal, count } => {
                self.durable(shared, ticket, (log, first_seq), first_ordinal, u64::from(count));
            }
            StoreEvent::Failed { ticket, error } => {
                let Some(life) = &mut self.life else { return };
                assert!(life.waiting.remove(&ticket).is_some(), "an append that nobody waits for fails: {error}");
                life.queue.retain(|(queued, _)| *queued != ticket);
                if !matches!(error, AppendError::Unknown(_)) {
                    let drafted = life.drafted.iter().filter(|(_, drafted)| **drafted == ticket);
                    drafted.for_each(|(position, _)| shared.ledger.refuse(*position));
                    for (first, tickets) in &mut life.brought {
                        let is_last = tickets.remove(&ticket) && tickets.is_empty();
                        let is_written = is_last && life.brought_and_written.contains(first);
                        assert!(!is_written, "a commit was written, and who brought it is told that it never was");
                    }
                }
                shared.coverage.hit(format!("append failed: {}", word(&error)));
            }
            StoreEvent::Imported { ticket, new, known, uncompared } => {
                let Some(life) = &mut self.life else { return };
                assert!(life.waiting.remove(&ticket).is_some(), "an import that nobody waits for is acknowledged");
                shared.coverage.add("imported", u64::from(new));
                shared.coverage.add("imported again", u64::from(known) + u64::from(uncompared));
                self.imported();
            }
            StoreEvent::ImportRefused { ticket, refusal, .. } => {
                let Some(life) = &mut self.life else { return };
                assert!(life.waiting.remove(&ticket).is_some(), "an import that nobody waits for is refused");
                shared.coverage.hit(format!("import refused: {}", word(&refusal)));
            }
            StoreEvent::Read { ticket, taken, next, damaged } => self.was_read(shared, ticket, &taken, next, damaged),
            StoreEvent::Stopped(why) => {
                let Some(life) = &mut self.life else { return };
                life.stopped = true;
                assert!(self.is_troubled() || !self.line.is_honest(), "a store stops for nothing: {why}");
            }
            StoreEvent::Closed => self.closed(),
        }
    }

    /// Whether the disk has failed in a way that it admits since the store was opened.
    pub fn is_troubled(&self) -> bool {
        let life = self.life.as_ref();
        let before = life.map_or(0, |life| life.faults_before);
        let was_broken = life.is_some_and(|life| life.was_broken);
        self.disk.admitted() > before || was_broken
    }

    fn opened(&mut self, shared: &mut Shared) {
        let troubled = self.is_troubled();
        let Some(life) = &mut self.life else { return };
        life.opened = true;
        let (found, certain) = (life.store.next_ordinal(), self.line.slots.len() as u64);
        let report = life.store.report().expect("it is open").clone();
        for finding in &report.findings {
            shared.coverage.hit(format!("finding: {}", word(&finding.damage)));
        }
        if self.line.is_honest() && !troubled {
            assert!(report.is_sound(), "a disk that kept its promises has lost something: {:?}", report.findings);
            assert!(found >= certain, "{certain} ordinals were there for certain, {found} are");
            if let Some((next, hash)) = self.line.closed_at {
                assert_eq!(
                    (found, life.store.state_hash()),
                    (next, Some(hash)),
                    "closed in one state, opened in another one"
                );
                shared.coverage.hit("the same state after reopening");
            }
        }
        if found < certain {
            let reported = report
                .findings
                .iter()
                .any(|finding| finding.ordinals.as_ref().is_none_or(|lost| lost.start <= found && found < lost.end));
            let vouched = if self.line.lied || troubled { None } else { self.line.vouched_by(found, &self.disk) };
            assert!(vouched.is_none(), "cut at ordinal {found}, which ordinal {vouched:?} vouches for");
            assert!(
                reported || self.line.lied,
                "ordinals from {found} to {certain} are missing and nobody says so: {:?}",
                report.findings
            );
            shared.coverage.hit(if reported { "the end is lost and reported" } else { "the end is lost by a lie" });
        }
        shared.coverage.add("found more than was acknowledged", u64::from(found > certain));
        // What an opening has found is relied upon by whoever reads it. One that may not write cannot make it certain, and one
        // that could not read everything has not seen what there is.
        if found < certain && !(troubled && self.line.is_honest()) || found > certain && !life.read_only {
            self.line.slots.resize(found as usize, Slot::Unread);
        }
        if !life.read_only {
            self.line.closed_at = None;
        }
    }

    fn closed(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.closed = true;
        assert!(life.waiting.is_empty() || life.stopped, "a store is closed and appends are unanswered");
        // One that stopped may find more in its next life than it acknowledged.
        let state = life.state.filter(|_| !life.stopped);
        self.line.closed_at = state.filter(|(next, _)| *next == self.line.slots.len() as u64);
    }

    fn durable(&mut self, shared: &mut Shared, ticket: Ticket, first: (LogId, u64), first_ordinal: u64, count: u64) {
        let Some(life) = &mut self.life else { return };
        let submitted = life.waiting.remove(&ticket).expect("what nobody waits for is acknowledged");
        if !submitted.is_import {
            assert_eq!(submitted.contents.len() as u64, count, "all of an append is acknowledged at once");
        }
        for (index, content) in (0..).zip(&submitted.contents) {
            let known = shared.ledger.get((first.0, first.1 + index)).expect("a position that was signed");
            assert!(content.is(&known.op), "an append is acknowledged at the position of another one");
        }
        if self.line.is_honest() && self.dice.chance(1, PROVEN) {
            let recovered = self.recovered_ordinals(shared.now);
            assert!(
                first_ordinal + count <= recovered,
                "acknowledged, and a crash now would leave {recovered} ordinals"
            );
        }
        for index in 0..count {
            let (ordinal, position) = (first_ordinal + index, (first.0, first.1 + index));
            self.acknowledged(shared, ordinal, position);
        }
    }

    /// How many ordinals an opening would find if the power went now, and nothing were left that is not durable.
    fn recovered_ordinals(&self, now: Instant) -> u64 {
        let mut disk = self.disk.durable();
        (disk.read_only, disk.broken) = (true, false);
        let config = StoreConfig { read_only: true, ..self.config.clone() };
        let mut store = Store::open(config, [0; 32], wall_clock(now, self.clock_ms));
        while let Some(Effect::Disk(token, op)) = store.poll_effect() {
            store.handle_disk(now, token, disk.perform(&op));
        }
        store.next_ordinal()
    }

    /// What an import brought is there from now on.
    fn imported(&mut self) {
        let Some(life) = &self.life else { return };
        for ordinal in self.line.slots.len() as u64..life.store.next_ordinal() {
            let placed = self.line.placed(ordinal).expect("a commit that was imported was written");
            assert!(
                self.line.lied || placed.is_durable(&self.disk),
                "ordinal {ordinal} is imported and not on the disk"
            );
            self.line.slots.push(Slot::Unread);
        }
    }

    /// An ordinal is there from now on.
    fn acknowledged(&mut self, shared: &mut Shared, ordinal: u64, position: (LogId, u64)) {
        let next = self.line.slots.len() as u64;
        assert!(ordinal <= next, "ordinal {ordinal} is acknowledged where {next} is next");
        let placed = self.line.placed(ordinal).expect("a commit that was acknowledged was written");
        assert_eq!(self.line.expected(ordinal), Some(position), "ordinal {ordinal} was written with something else");
        assert!(
            self.line.lied || placed.is_durable(&self.disk),
            "ordinal {ordinal} is acknowledged and not on the disk"
        );
        self.line.slots.resize(next.max(ordinal + 1) as usize, Slot::At(position));
        shared.trace.note("durable", self.number, shared.now, &ordinal.to_le_bytes());
    }
}

/// The first word of a value's debug form: the name of its variant.
pub(super) fn word(value: &impl fmt::Debug) -> String {
    /// Takes what comes up to the end of the first word, and no more: the rest may be long.
    struct FirstWord(String);

    impl fmt::Write for FirstWord {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = text.find(|c: char| !c.is_alphanumeric());
            self.0.push_str(&text[..end.unwrap_or(text.len())]);
            if end.is_some() { Err(fmt::Error) } else { Ok(()) }
        }
    }

    let mut word = FirstWord(String::new());
    // It ends with an error where there is more than a word.
    _ = write!(word, "{value:?}");
    word.0
}

/// The place of a commit in its log.
fn first_position(record: &Record) -> Option<(LogId, u64)> {
    match record {
        Record::Commit(commit) => Some((commit.header().log, commit.header().first_seq)),
        Record::Genesis(_) => None,
    }
}

fn shown(op: &DiskOp, result: &DiskResult) -> String {
    let file = op.file().map_or(String::new(), |file| format!(" {file}"));
    let range = match op {
        DiskOp::Write { offset, bytes, .. } => format!(" {offset}+{}", bytes.len()),
        DiskOp::Read { offset, len, .. } => format!(" {offset}+{len}"),
        DiskOp::Create { size, .. } | DiskOp::Truncate { size, .. } => format!(" {size}"),
        DiskOp::List | DiskOp::Sync { .. } | DiskOp::SyncDir | DiskOp::Remove { .. } => String::new(),
    };
    let result = result.as_ref().map_or_else(|error| format!(": {error}"), |_| String::new());
    format!("{}{file}{range}{result}", op.name())
}

fn note_op(trace: &mut Trace, number: usize, now: Instant, op: &DiskOp, result: &DiskResult) {
    let (offset, bytes): (u64, &[u8]) = match op {
        DiskOp::Write { offset, bytes, .. } => (*offset, bytes),
        DiskOp::Read { offset, .. } => (*offset, &[]),
        DiskOp::Create { size, .. } | DiskOp::Truncate { size, .. } => (*size, &[]),
        DiskOp::List | DiskOp::Sync { .. } | DiskOp::SyncDir | DiskOp::Remove { .. } => (0, &[]),
    };
    let file = op.file().map_or(u64::MAX, |file| file.0);
    trace.note(op.name(), number, now, &[file.to_le_bytes(), offset.to_le_bytes()].concat());
    trace.note(if result.is_ok() { "done" } else { "failed" }, number, now, bytes);
}
