//! Opens a store: finds its segments, reads their frames, and tells damage from an interrupted write.
//!
//! The rules, and why they are safe:
//!
//! - A segment whose successor remembers it was wholly durable when the successor's header was written. What is missing or bad
//!   in it is damage.
//! - In the last segment, everything below the highest `synced_upto` of its frames was durable. What is bad there is damage;
//!   it stays where it is, and what follows stays in use.
//! - The first bad place above that is the end: an interrupted write. What an honest disk acknowledged lies before it. It is
//!   reported and never written over; the next opening's segment remembers where this one ends.
//! - Good frames above the highest `synced_upto` may be in the memory of the host and not on the disk, even after a sync, if
//!   an earlier one failed. They are written again, as they are, and synced, before anything relies on them.
//! - A copy of a header that is damaged is written again from the other one, which is not touched before that is synced. That
//!   costs nothing but the copy where it fails.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::commit::Commit;
use super::disk::{DiskDone, DiskError, DiskErrorKind, DiskOp, DiskResult, FileId, MAX_FILE, READ_MAX};
use super::replay::Replay;
use super::report::{Damage, Finding, OpenError};
use super::scan::{Scan, ScanStep};
use super::segment::{
    FRAMES_AT, FrameKind, HEADER_COPIES, HEADER_COPY, HeaderBlock, Lsn, MAX_FRAME, Previous, SegmentHeader,
};
use super::writer::{FIRST_SEGMENT, Tail};

/// Files are cut to a multiple of this: a block of the file system.
const BLOCK: u64 = 4096;

/// Bytes of commits that may wait for their hashes before reading stops.
const MAX_HASHING: u64 = 8 * 1024 * 1024;

/// A segment that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file.
    pub file: FileId,
    /// The seed of its checksums.
    pub nonce: [u8; 16],
    /// The place of its first byte.
    pub base: Lsn,
    /// The ordinal of its first op.
    pub first_ordinal: u64,
    /// Where its frames end.
    pub end: u64,
}

/// What a store was found to be.
#[derive(Debug)]
pub struct Recovered {
    /// What its frames hold.
    pub replay: Replay,
    /// Its segments, in order.
    pub segments: Vec<SegmentInfo>,
    /// Where writing goes on.
    pub tail: Tail,
}

/// What the recovery wants.
#[derive(Debug)]
pub enum RecoverStep {
    /// An operation, whose result it takes before it goes on.
    Disk(DiskOp),
    /// [`Commit::verify_ops`](super::commit::Commit::verify_ops), on any thread; what comes of it goes to
    /// [`Recovery::hashed`].
    Hash(u64, Commit),
    /// Nothing until the result of the last operation, or of a hash, is there.
    Wait,
    /// It is over.
    Done(Box<Recovered>),
    /// The store cannot be opened. What holds ops was not changed: at most what is there was written again.
    Refused(OpenError),
}

/// A file of the directory.
#[derive(Debug)]
struct File {
    id: FileId,
    len: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unread,
    Segment {
        header: SegmentHeader,
        /// Where the copy of it lies that is damaged.
        damaged: Option<u64>,
    },
    /// No header, and nothing known yet of what follows.
    Headless,
    /// Made ready and never used.
    Unused,
    /// It holds something and its header is lost.
    Lost,
}

#[derive(Debug)]
enum Phase {
    List,
    Header(usize),
    /// The header block was not read: its copies, each by itself, and why none of them is read either.
    HeaderCopies {
        index: usize,
        block: Vec<u8>,
        failed: Option<DiskError>,
        any: bool,
    },
    /// Whether a file without a header holds anything, from this offset on.
    Headless(usize, u64),
    /// How far the last segment is vouched for.
    Vouch(usize, Scan),
    /// Takes up what the segments hold.
    Apply(usize, Scan),
    /// Writes damaged copies of headers again, before it goes on so.
    Repair(Box<Phase>),
    /// Writes the end of the last segment again: from here, to there.
    Rewrite {
        file: FileId,
        at: u64,
        end: u64,
        /// What lies there, once it is read.
        bytes: Option<Bytes>,
        /// The header, if that is written again too: it begins at 0.
        header: Option<SegmentHeader>,
        /// Bytes of this block and no others are read next: more of them could not be read at once.
        is_block: bool,
    },
    Sync(FileId),
    SyncDir,
    Over,
}

/// Where the block ends that holds this byte.
fn block_end(at: u64) -> u64 {
    (at + 1).next_multiple_of(BLOCK)
}

/// One opening of a store, as far as its first write.
#[derive(Debug)]
pub struct Recovery {
    owner: [u8; 32],
    network: [u8; 32],
    read_only: bool,
    phase: Phase,
    waiting: Option<DiskOp>,
    /// The operation failed before.
    is_second_try: bool,
    refused: Option<OpenError>,
    files: Vec<File>,
    segments: Vec<SegmentInfo>,
    /// Everything below this place was durable.
    vouched: Lsn,
    /// Behind the first interrupted write: its file, and where it begins and ends.
    cut: Option<(FileId, u64, u64)>,
    /// Damage behind which no frame was found: nobody says how many ops it held, and no others may get their ordinals.
    unfollowed: Option<(FileId, u64, u64)>,
    /// The last frame of the last segment says that the store was closed.
    closed: bool,
    /// Damaged copies of headers, as they should be: each written, then synced.
    repairs: VecDeque<DiskOp>,
    replay: Option<Replay>,
    tail: Tail,
}

impl Recovery {
    /// A recovery of the store of `owner` in `network`, whose frames go to `replay`. Read-only, it writes nothing.
    pub fn new(owner: [u8; 32], network: [u8; 32], read_only: bool, replay: Replay) -> Recovery {
        Recovery {
            owner,
            network,
            read_only,
            phase: Phase::List,
            waiting: None,
            is_second_try: false,
            refused: None,
            files: Vec::new(),
            segments: Vec::new(),
            vouched: 0,
            cut: None,
            unfollowed: None,
            closed: false,
            repairs: VecDeque::new(),
            replay: Some(replay),
            tail: Tail::default(),
        }
    }

    /// Bytes read so far, and bytes of all files.
    pub fn progress(&self) -> (u64, u64) {
        let sum = |files: &[File]| files.iter().fold(0u64, |sum, file| sum.saturating_add(file.len));
        let total = sum(&self.files);
        let at = match &self.phase {
            Phase::Apply(index, scan) => sum(self.files.get(..*index).unwrap_or_default()).saturating_add(scan.at()),
            Phase::List | Phase::Header(_) | Phase::HeaderCopies { .. } | Phase::Headless(..) | Phase::Vouch(..) => 0,
            Phase::Repair(_) | Phase::Rewrite { .. } | Phase::Sync(_) | Phase::SyncDir | Phase::Over => total,
        };
        (at.min(total), total)
    }

    /// What comes next.
    pub fn poll(&mut self) -> RecoverStep {
        if self.waiting.is_some() {
            return RecoverStep::Wait;
        }
        loop {
            if let Some(error) = self.refused.take() {
                self.phase = Phase::Over;
                return RecoverStep::Refused(error);
            }
            if let Some((number, commit)) = self.replay.as_mut().and_then(Replay::hash_job) {
                return RecoverStep::Hash(number, commit);
            }
            let hashing = self.replay.as_ref().map_or(0, Replay::hashing_bytes);
            let is_over = matches!(self.phase, Phase::Over);
            if hashing > MAX_HASHING || (hashing > 0 && is_over) {
                return RecoverStep::Wait;
            }
            if is_over {
                return self.done();
            }
            if let Some(op) = self.advance() {
                self.waiting = Some(op.clone());
                return RecoverStep::Disk(op);
            }
        }
    }

    fn done(&mut self) -> RecoverStep {
        let Some(mut replay) = self.replay.take() else { return RecoverStep::Wait };
        replay.finish();
        let (segments, tail) = (core::mem::take(&mut self.segments), core::mem::take(&mut self.tail));
        RecoverStep::Done(Box::new(Recovered { replay, segments, tail }))
    }

    /// Takes what the hash of a commit was found to be.
    pub fn hashed(&mut self, number: u64, is_good: bool) {
        if let Some(replay) = &mut self.replay {
            replay.hashed(number, is_good);
        }
    }

    /// Takes the result of the operation that [`Recovery::poll`] gave last.
    pub fn handle(&mut self, result: DiskResult) {
        let Some(op) = self.waiting.take() else { return };
        match (result, &mut self.phase) {
            (Ok(DiskDone::Listed(files)), Phase::List) => self.listed(files),
            (Ok(DiskDone::Read(bytes)), &mut Phase::Header(index)) => self.header_read(index, &bytes),
            (Ok(DiskDone::Read(bytes)), Phase::HeaderCopies { .. }) => self.copy_read(Ok(bytes)),
            (Ok(DiskDone::Read(bytes)), &mut Phase::Headless(index, offset)) => {
                self.headless_read(index, offset, &bytes)
            }
            (Ok(DiskDone::Read(bytes)), Phase::Vouch(_, scan) | Phase::Apply(_, scan)) => scan.feed(&bytes),
            (Ok(DiskDone::Read(read)), Phase::Rewrite { bytes, is_block, .. }) if !read.is_empty() => {
                (*bytes, *is_block) = (Some(read.into()), false);
            }
            (Ok(DiskDone::Done), Phase::Repair(_)) => _ = self.repairs.pop_front(),
            (Ok(DiskDone::Done), Phase::Rewrite { at, bytes, .. }) => *at += bytes.take().map_or(0, |b| b.len() as u64),
            (Ok(DiskDone::Done), Phase::Sync(_)) => self.phase = Phase::SyncDir,
            (Ok(DiskDone::Done), Phase::SyncDir) => self.phase = Phase::Over,
            // An error may pass. Bytes that it leaves unread count as damaged. Whoever writes does not open the store without a
            // header that is there and cannot be read today.
            (
                Err(_),
                Phase::Header(_)
                | Phase::HeaderCopies { .. }
                | Phase::Headless(..)
                | Phase::Vouch(..)
                | Phase::Apply(..),
            ) if !self.is_second_try => {
                self.is_second_try = true;
                return;
            }
            (Err(_), &mut Phase::Header(index)) => {
                self.phase = Phase::HeaderCopies { index, block: Vec::new(), failed: None, any: false };
            }
            (Err(error), Phase::HeaderCopies { .. }) => self.copy_read(Err(error)),
            (Err(_), &mut Phase::Headless(index, _)) if self.read_only => self.headless_read(index, 0, &[0xff]),
            (Err(_), Phase::Vouch(_, scan) | Phase::Apply(_, scan)) => scan.feed_failed(),
            (Err(_), Phase::Repair(_)) => self.give_up_repair(),
            // The second copy shares a block with frames, and that may be one that cannot be read: the first one serves.
            (Err(_), Phase::Rewrite { at, bytes, .. }) if *at == HEADER_COPIES[1] => (*at, *bytes) = (FRAMES_AT, None),
            // Block by block: of one that was not read before there is nothing to write again.
            (Err(_), Phase::Rewrite { is_block: is_block @ false, bytes: None, .. }) => *is_block = true,
            (Err(error), &mut Phase::Rewrite { file, at, end, bytes: None, .. }) => {
                let behind = block_end(at).min(end);
                if self.is_told(file, at..behind) {
                    self.phase = Phase::Rewrite { file, at: behind, end, bytes: None, header: None, is_block: false };
                } else {
                    self.refused = Some(OpenError::disk(error, &op));
                }
            }
            (Err(error), _) => self.refused = Some(OpenError::disk(error, &op)),
            (Ok(_), _) => {
                let error = DiskError { kind: DiskErrorKind::Io, code: 0 };
                self.refused = Some(OpenError::disk(error, &op));
            }
        }
        self.is_second_try = false;
    }

    /// Whether these bytes were found to be damaged. All others hold what is relied upon.
    fn is_told(&self, file: FileId, range: Range<u64>) -> bool {
        let findings = self.replay.iter().flat_map(|replay| &replay.report.findings);
        findings
            .filter(|finding| finding.file == file && finding.damage == Damage::Corrupt)
            .any(|finding| finding.range.start <= range.start && range.end <= finding.range.end)
    }

    /// A copy that cannot be written costs nothing but itself.
    fn give_up_repair(&mut self) {
        if matches!(self.repairs.pop_front(), Some(DiskOp::Write { .. })) {
            self.repairs.pop_front();
        }
    }

    /// Goes on as far as that takes no operation, or returns the one that it takes.
    fn advance(&mut self) -> Option<DiskOp> {
        match &mut self.phase {
            Phase::List => Some(DiskOp::List),
            &mut Phase::Header(index) => match self.files.get(index) {
                Some(file) => Some(DiskOp::Read { file: file.id, offset: 0, len: FRAMES_AT as u32 }),
                None => self.headers_are_read(),
            },
            Phase::HeaderCopies { index, block, .. } => {
                let (file, [first, second]) = (self.files.get(*index)?.id, HEADER_COPIES);
                let offset = if block.is_empty() { first } else { second };
                Some(DiskOp::Read { file, offset, len: HEADER_COPY as u32 })
            }
            &mut Phase::Headless(index, offset) => self.next_headless(index, offset),
            Phase::Repair(next) => match self.repairs.front() {
                Some(op) => Some(op.clone()),
                None => {
                    self.phase = core::mem::replace(next, Phase::Over);
                    None
                }
            },
            Phase::Vouch(..) => self.vouch(),
            Phase::Apply(..) => self.apply(),
            Phase::Rewrite { file, at, end, .. } if *at >= *end => {
                self.phase = Phase::Sync(*file);
                None
            }
            Phase::Rewrite { file, at, end, bytes, is_block, header } => Some(match bytes {
                Some(bytes) => DiskOp::Write { file: *file, offset: *at, bytes: bytes.clone() },
                None if let Some(header) = header.filter(|_| *at < FRAMES_AT) => {
                    let copy = Bytes::from(header.encode_copy_at(*at));
                    *bytes = Some(copy.clone());
                    DiskOp::Write { file: *file, offset: *at, bytes: copy }
                }
                None => {
                    let most = if *is_block { block_end(*at) - *at } else { u64::from(READ_MAX) };
                    DiskOp::Read { file: *file, offset: *at, len: (*end - *at).min(most) as u32 }
                }
            }),
            Phase::Sync(file) => Some(DiskOp::Sync { file: *file }),
            Phase::SyncDir => Some(DiskOp::SyncDir),
            Phase::Over => None,
        }
    }

    fn listed(&mut self, mut files: Vec<(FileId, u64)>) {
        files.sort_unstable();
        if let Some((file, _)) = files.iter().find(|(file, _)| file.0 > MAX_FILE) {
            self.refused = Some(OpenError::Number { file: *file });
            return;
        }
        self.files = files.into_iter().map(|(id, len)| File { id, len, state: State::Unread }).collect();
        self.phase = Phase::Header(0);
    }

    fn header_read(&mut self, index: usize, block: &[u8]) {
        self.phase = Phase::Header(index + 1);
        let Some(file) = self.files.get_mut(index) else { return };
        let id = file.id;
        let refusal = match SegmentHeader::decode(block, id) {
            HeaderBlock::Version(version) => Some(OpenError::Version { file: id, version }),
            HeaderBlock::Valid { header, .. } if header.owner != self.owner => {
                Some(OpenError::Owner { file: id, owner: header.owner })
            }
            HeaderBlock::Valid { header, .. } if header.network != self.network => {
                Some(OpenError::Network { file: id })
            }
            HeaderBlock::Valid { header, .. } if header.file != id => {
                Some(OpenError::Misplaced { file: id, says: header.file })
            }
            HeaderBlock::Valid { header, damaged } => {
                file.state = State::Segment { header, damaged };
                None
            }
            // A file that was made has room for a header: this one was cut within it.
            HeaderBlock::Bad if file.len < FRAMES_AT => {
                file.state = State::Lost;
                None
            }
            HeaderBlock::Empty | HeaderBlock::Bad => {
                file.state = State::Headless;
                None
            }
        };
        self.refused = self.refused.or(refusal);
    }

    /// Takes one of the copies of a header that were not read together.
    fn copy_read(&mut self, copy: Result<Vec<u8>, DiskError>) {
        let Phase::HeaderCopies { index, block, failed, any } = &mut self.phase else { return };
        let [first, second] = HEADER_COPIES;
        let is_first = block.is_empty();
        let at = if is_first { first } else { second };
        block.resize(at as usize, 0);
        match copy {
            Ok(copy) => {
                *any = true;
                block.extend(copy);
            }
            Err(error) => {
                *failed = Some(error);
                block.resize((at + HEADER_COPY) as usize, 0xff);
            }
        }
        // A file that ends within the first copy has no second one.
        if is_first && block.len() as u64 == HEADER_COPY {
            return;
        }
        let (index, block, failed) = (*index, core::mem::take(block), failed.filter(|_| !*any));
        match (failed, self.files.get_mut(index)) {
            (Some(error), Some(file)) if !self.read_only => {
                let op = DiskOp::Read { file: file.id, offset: 0, len: FRAMES_AT as u32 };
                self.refused = Some(OpenError::disk(error, &op));
            }
            (Some(_), Some(file)) => {
                file.state = State::Lost;
                self.phase = Phase::Header(index + 1);
            }
            _ => self.header_read(index, &block),
        }
    }

    /// Looks into the files without a header.
    fn headers_are_read(&mut self) -> Option<DiskOp> {
        self.phase = Phase::Headless(0, FRAMES_AT);
        None
    }

    fn next_headless(&mut self, index: usize, offset: u64) -> Option<DiskOp> {
        let Some(file) = self.files.get_mut(index) else {
            self.begin_vouching();
            return None;
        };
        if file.state == State::Headless && offset < file.len {
            let len = (file.len - offset).min(u64::from(READ_MAX)) as u32;
            return Some(DiskOp::Read { file: file.id, offset, len });
        }
        if file.state == State::Headless {
            file.state = State::Unused;
        }
        self.phase = Phase::Headless(index + 1, FRAMES_AT);
        None
    }

    fn headless_read(&mut self, index: usize, offset: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut(index) else { return };
        if bytes.iter().any(|byte| *byte != 0) {
            file.state = State::Lost;
        } else if bytes.is_empty() {
            file.state = State::Unused;
        }
        self.phase = Phase::Headless(index, offset + bytes.len() as u64);
    }

    /// The index of the last segment.
    fn last(&self) -> Option<usize> {
        self.files.iter().rposition(|file| matches!(file.state, State::Segment { .. }))
    }

    fn begin_vouching(&mut self) {
        self.phase = match self.last().and_then(|last| Some((last, self.header_of(last)?, self.files.get(last)?.len))) {
            Some((last, header, len)) => {
                self.vouched = header.base;
                Phase::Vouch(last, Scan::new(header.nonce, FRAMES_AT, len, None))
            }
            None => self.begin(0),
        };
    }

    fn header_of(&self, index: usize) -> Option<SegmentHeader> {
        match self.files.get(index)?.state {
            State::Segment { header, .. } => Some(header),
            _ => None,
        }
    }

    fn vouch(&mut self) -> Option<DiskOp> {
        let Phase::Vouch(index, scan) = &mut self.phase else { return None };
        let file = self.files.get(*index)?.id;
        loop {
            match scan.step() {
                ScanStep::Read { offset, len } => return Some(DiskOp::Read { file, offset, len }),
                ScanStep::Frame { header, .. } => {
                    self.vouched = self.vouched.max(header.synced_upto);
                    self.closed = header.kind == FrameKind::Closed;
                }
                ScanStep::Bad { .. } => self.closed = false,
                ScanStep::End(_) => break,
            }
        }
        self.phase = self.begin(0);
        None
    }

    /// Begins to take up the file `index`.
    fn begin(&mut self, index: usize) -> Phase {
        let mut index = index;
        loop {
            let Some(file) = self.files.get(index) else {
                let next = self.end();
                return if self.repairs.is_empty() { next } else { Phase::Repair(Box::new(next)) };
            };
            let (id, len, state) = (file.id, file.len, file.state);
            let longest = if matches!(state, State::Segment { .. }) { 0 } else { self.longest() };
            let remembered = state == State::Unused && self.is_remembered(id);
            let Some(replay) = &mut self.replay else { return Phase::Over };
            replay.report.files += 1;
            replay.report.bytes = replay.report.bytes.saturating_add(len);
            self.tail.total = self.tail.total.saturating_add(len);
            self.tail.next_file = id.0 + 1;
            match state {
                State::Segment { header, damaged } => {
                    if let Some(phase) = self.begin_segment(index, header, damaged) {
                        return phase;
                    }
                }
                State::Unused if !remembered => self.tail.unused.push((id, len)),
                State::Lost | State::Unused | State::Headless | State::Unread => {
                    replay.report.add(Finding::new(id, 0..len, Damage::Header));
                    // If a segment follows, it tells how many ordinals this one took.
                    self.unfollowed = Some((id, 0, longest.max(len)));
                }
            }
            index += 1;
        }
    }

    /// The most bytes that a segment without a header was made with: the first one of an opening is short, and each later
    /// one at most twice as long as the one before it. One that was made for an import may be longer, but holds fewer ops than
    /// bytes are counted here.
    fn longest(&self) -> u64 {
        let sizes = self.files.iter().filter_map(|file| match file.state {
            State::Segment { header, .. } => Some(header.size),
            _ => None,
        });
        sizes.max().unwrap_or(0).max(FIRST_SEGMENT.max(FRAMES_AT + MAX_FRAME)).saturating_mul(2)
    }

    /// Whether another segment continues this file.
    fn is_remembered(&self, id: FileId) -> bool {
        self.files.iter().any(|file| match file.state {
            State::Segment { header, .. } => header.previous.is_some_and(|previous| previous.file == id),
            _ => false,
        })
    }

    /// Begins to take up a segment, unless it is not the one that its successor remembers.
    fn begin_segment(&mut self, index: usize, header: SegmentHeader, damaged: Option<u64>) -> Option<Phase> {
        let file = self.files.get(index)?;
        let (id, len) = (file.id, file.len);
        let successor = (index + 1..self.files.len()).find_map(|later| self.header_of(later));
        let remembered = successor.and_then(|successor| successor.previous).filter(|previous| previous.file == id);
        let replay = self.replay.as_mut()?;
        if let Some(at) = damaged {
            replay.report.add(Finding::new(id, at..at + HEADER_COPY, Damage::HeaderCopy));
        }
        if remembered.is_some_and(|previous| previous.nonce != header.nonce) {
            replay.report.add(Finding::new(id, 0..len, Damage::Replaced));
            return None;
        }
        // A file that was cut is not made longer.
        if let Some(offset) = damaged.filter(|_| !self.read_only && len >= FRAMES_AT) {
            let bytes = Bytes::from(header.encode_copy_at(offset));
            self.repairs.extend([DiskOp::Write { file: id, offset, bytes }, DiskOp::Sync { file: id }]);
        }
        let before = self.segments.last().map(|segment| (segment.file, segment.nonce));
        if let Some(previous) = header.previous
            && before != Some((previous.file, previous.nonce))
            && !self.files.iter().any(|file| file.id == previous.file)
        {
            replay.report.add(Finding::new(previous.file, 0..previous.end, Damage::Missing));
        }
        replay.begin_segment(id, header.first_ordinal);
        self.unfollowed = None;
        let (nonce, base, first_ordinal) = (header.nonce, header.base, header.first_ordinal);
        self.segments.push(SegmentInfo { file: id, nonce, base, first_ordinal, end: FRAMES_AT });
        Some(Phase::Apply(index, Scan::new(nonce, FRAMES_AT, len, remembered.map(|previous| previous.end))))
    }

    fn apply(&mut self) -> Option<DiskOp> {
        let Phase::Apply(index, scan) = &mut self.phase else { return None };
        let index = *index;
        let file = self.files.get(index)?.id;
        let is_last =
            (index + 1..self.files.len()).all(|later| !matches!(self.files[later].state, State::Segment { .. }));
        let segment = self.segments.last_mut()?;
        let replay = self.replay.as_mut()?;
        loop {
            match scan.step() {
                ScanStep::Read { offset, len } => return Some(DiskOp::Read { file, offset, len }),
                ScanStep::Frame { offset, end, header, body } => match &mut self.cut {
                    Some(cut) => cut.2 = end,
                    None => {
                        replay.frame(file, offset..end, &header, body);
                        segment.end = end;
                        self.unfollowed = None;
                    }
                },
                ScanStep::Bad { from, to } if is_last && segment.base + from >= self.vouched => {
                    self.cut.get_or_insert((file, from, to)).2 = to;
                }
                ScanStep::Bad { from, to } => {
                    replay.damaged(file, from..to);
                    segment.end = to;
                    self.unfollowed = Some((file, from, to));
                }
                ScanStep::End(_) => {
                    // What cannot be read may have been acknowledged.
                    if scan.unreadable() > 0 && self.unfollowed.is_none() {
                        self.unfollowed = self.cut.take().filter(|_| is_last);
                        if let Some((file, from, to)) = self.unfollowed {
                            replay.damaged(file, from..to);
                            segment.end = to;
                        }
                    }
                    break;
                }
            }
        }
        self.phase = self.begin(index + 1);
        None
    }

    /// All files are taken up: works out where writing goes on, and what has to be written again.
    fn end(&mut self) -> Phase {
        let last = self.last();
        let (Some(segment), Some(file)) = (self.segments.last().copied(), last.and_then(|last| self.files.get(last)))
        else {
            self.tail.base = self.vouched;
            self.pass_over_lost();
            return Phase::Over;
        };
        let (id, len) = (file.id, file.len);
        let made_with = last.and_then(|last| self.header_of(last)).map_or(len, |header| header.size);
        let is_used = segment.file == id;
        let mut end = segment.end;
        // Its length was durable with its header, and it may be shorter only behind a closed frame or before a successor, be that
        // one lost: somebody cut it, and what was there may have been acknowledged.
        if is_used && len < made_with && !self.closed && !self.is_followed(id) {
            let from = self.cut.take().map_or(end, |(_, from, _)| from);
            end = made_with;
            self.unfollowed = Some((id, from, made_with));
            if let Some(replay) = &mut self.replay {
                replay.damaged(id, from..made_with);
            }
        }
        self.pass_over_lost();
        self.tail.previous = Some(Previous { file: segment.file, nonce: segment.nonce, end });
        self.tail.base = segment.base + end;
        if !is_used {
            // The last segment was not the one that it should be; what there is of the store ends before it.
            return Phase::Over;
        }
        let used = self.cut.map_or(end, |(_, _, to)| to).next_multiple_of(BLOCK);
        if used < len {
            self.tail.trim = Some((id, len, used));
        }
        if let (Some((file, from, to)), Some(replay)) = (self.cut, &mut self.replay) {
            replay.report.add(Finding::new(file, from..to, Damage::Cut));
        }
        self.rewrite(&segment, len)
    }

    /// Whether a file behind this one held something that is lost.
    fn is_followed(&self, id: FileId) -> bool {
        self.files.iter().any(|file| file.id > id && file.state == State::Lost)
    }

    /// Nobody gets the ordinals of what was lost, if nothing follows that tells how many they were.
    fn pass_over_lost(&mut self) {
        if let (Some((file, from, to)), Some(replay)) = (self.unfollowed.take(), &mut self.replay) {
            replay.pass_over(file, from..to);
        }
    }

    fn rewrite(&self, segment: &SegmentInfo, file_len: u64) -> Phase {
        let at = self.vouched.saturating_sub(segment.base);
        let (file, end) = (segment.file, segment.end.min(file_len));
        // A file that was cut is not made longer.
        if self.read_only || end < FRAMES_AT {
            return Phase::Over;
        }
        if at > FRAMES_AT {
            let rewrite = Phase::Rewrite { file, at, end, bytes: None, header: None, is_block: false };
            return if at < end { rewrite } else { Phase::Over };
        }
        // Without a frame that was synced, the header may not be durable either.
        let header = self.last().and_then(|last| self.header_of(last));
        Phase::Rewrite { file, at: 0, end, bytes: None, header, is_block: false }
    }
}
