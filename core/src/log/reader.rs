//! Reads a store in the order of its ordinals, from any of them on, with bounded memory.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::clock::Hlc;
use super::commit::{Commit, CommitHash, LogId};
use super::disk::{DiskDone, DiskOp, DiskResult, FileId};
use super::op::Op;
use super::recover::SegmentInfo;
use super::scan::{Scan, ScanStep};
use super::segment::{FRAMES_AT, FrameKind};
use crate::identity::PeerId;

/// Where a reader is in a store.
///
/// Only the ordinal is to be kept: the place is a hint that saves a search, and is good for one opening of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// The next op that is wanted.
    pub ordinal: u64,
    place: Option<(FileId, u64)>,
}

impl Cursor {
    /// A cursor whose next op is the one with this ordinal.
    pub fn at(ordinal: u64) -> Cursor {
        Cursor { ordinal, place: None }
    }
}

/// A commit as a store took it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The ordinal of its first op.
    pub first_ordinal: u64,
    /// Whose it is.
    pub author: PeerId,
    /// The commit.
    pub commit: Commit,
}

impl Taken {
    /// Its ops from this ordinal on.
    pub fn delivered(&self, from: u64) -> impl Iterator<Item = Delivered> + '_ {
        let header = *self.commit.header();
        self.commit.ops().zip(0u32..).filter_map(move |(op, index)| {
            let ordinal = self.first_ordinal + u64::from(index);
            let seq = header.first_seq + u64::from(index);
            let (author, commit) = (self.author, self.commit.hash());
            (ordinal >= from).then_some(Delivered {
                ordinal,
                log: header.log,
                seq,
                author,
                hlc: header.hlc,
                commit,
                index,
                op,
            })
        })
    }
}

/// An op, as it is delivered to the application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Its number in the order in which this store took ops.
    pub ordinal: u64,
    /// Its log.
    pub log: LogId,
    /// Its number in the log. `(log, seq)` names it on every node.
    pub seq: u64,
    /// Who wrote it.
    pub author: PeerId,
    /// The author's clock when its commit was formed.
    pub hlc: Hlc,
    /// Its commit.
    pub commit: CommitHash,
    /// Its place in the commit.
    pub index: u32,
    /// The op.
    pub op: Op,
}

/// Ops that were taken and cannot be read any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ordinals {} to {} are damaged: {file}, bytes {} to {}", ordinals.start, ordinals.end.saturating_sub(1), range.start, range.end)]
pub struct Damaged {
    /// The ordinals. Reading can go on behind them.
    pub ordinals: Range<u64>,
    /// The file that held them, as far as it is known.
    pub file: FileId,
    /// The bytes in it.
    pub range: Range<u64>,
}

/// A commit and where it lies.
#[derive(Debug)]
struct Found {
    first_ordinal: u64,
    commit: Commit,
    file: FileId,
    range: Range<u64>,
}

/// One reading: from a cursor on, until there are enough bytes.
#[derive(Debug)]
pub struct Reading {
    /// The ordinal that it began with.
    from: u64,
    wanted: u64,
    until: u64,
    bytes_left: usize,
    segment: usize,
    scan: Option<Scan>,
    start_at: Option<u64>,
    waiting: bool,
    bad: Option<(FileId, Range<u64>)>,
    taken: Vec<Found>,
    place: Option<(FileId, u64)>,
    damaged: Option<Damaged>,
    over: bool,
}

impl Reading {
    /// A reading of what lies from `cursor` on below the ordinal `until`: at least a commit, then up to `max_bytes`.
    pub fn new(segments: &[SegmentInfo], cursor: Cursor, until: u64, max_bytes: usize) -> Reading {
        let hinted = cursor.place.and_then(|(file, at)| Some((segments.iter().position(|s| s.file == file)?, at)));
        let (segment, start_at) = match hinted {
            Some((segment, at)) => (segment, Some(at)),
            None => (segments.partition_point(|s| s.first_ordinal <= cursor.ordinal).saturating_sub(1), None),
        };
        Reading {
            from: cursor.ordinal,
            wanted: cursor.ordinal,
            until,
            bytes_left: max_bytes,
            segment,
            scan: None,
            start_at,
            waiting: false,
            bad: None,
            taken: Vec::new(),
            place: cursor.place,
            damaged: None,
            over: cursor.ordinal >= until,
        }
    }

    /// The next operation, or `None` while one is awaited and when the reading is over.
    pub fn poll(&mut self, segments: &[SegmentInfo]) -> Option<DiskOp> {
        while !self.over && !self.waiting {
            let Some(segment) = segments.get(self.segment) else {
                // What was taken is not where it should be.
                let (file, range) = self.bad.take().unwrap_or((FileId(0), 0..0));
                self.miss(self.until, file, range);
                break;
            };
            if self.scan.is_none() && segment.first_ordinal > self.wanted {
                let (file, range) = self.bad.take().unwrap_or((segment.file, FRAMES_AT..FRAMES_AT));
                self.miss(segment.first_ordinal, file, range);
                break;
            }
            let from = self.start_at.take().unwrap_or(FRAMES_AT);
            self.scan.get_or_insert_with(|| Scan::new(segment.nonce, from, segment.end, Some(segment.end)));
            if let Some(op) = self.scan(segment) {
                self.waiting = true;
                return Some(op);
            }
        }
        None
    }

    /// Takes the result of the operation.
    pub fn handle(&mut self, result: DiskResult) {
        self.waiting = false;
        let Some(scan) = &mut self.scan else { return };
        match result {
            Ok(DiskDone::Read(bytes)) => scan.feed(&bytes),
            _ => scan.feed_failed(),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What was read, where to go on, and what cannot be read. `author` knows whose each log is.
    pub fn finish(self, author: impl Fn(&LogId) -> Option<PeerId>) -> (Vec<Taken>, Cursor, Option<Damaged>) {
        let mut taken = Vec::with_capacity(self.taken.len());
        for Found { first_ordinal, commit, file, range } in self.taken {
            let Some(author) = author(&commit.header().log) else {
                // The beginning of its log was lost: nobody can say whose it is.
                let ordinals = first_ordinal.max(self.from)..first_ordinal + u64::from(commit.header().count);
                let damaged = taken.is_empty().then_some(Damaged { ordinals, file, range });
                let next = damaged.as_ref().map_or(first_ordinal, |damaged| damaged.ordinals.end);
                return (taken, Cursor::at(next), damaged);
            };
            taken.push(Taken { first_ordinal, author, commit });
        }
        let next = match &self.damaged {
            Some(damaged) => Cursor::at(damaged.ordinals.end),
            None => Cursor { ordinal: self.wanted, place: self.place },
        };
        (taken, next, self.damaged)
    }

    fn scan(&mut self, segment: &SegmentInfo) -> Option<DiskOp> {
        let scan = self.scan.as_mut()?;
        match scan.step() {
            ScanStep::Read { offset, len } => return Some(DiskOp::Read { file: segment.file, offset, len }),
            ScanStep::Frame { offset, end, header, body } if header.kind == FrameKind::Commit => {
                let (first, behind) = (header.first_ordinal, header.first_ordinal + u64::from(header.count));
                if behind <= self.wanted {
                    return None;
                }
                let commit = Commit::decode(Bytes::copy_from_slice(body)).ok();
                self.take(segment, first..behind, offset..end, commit);
            }
            ScanStep::Frame { .. } => {}
            ScanStep::Bad { from, to } => self.bad = Some((segment.file, from..to)),
            ScanStep::End(_) => {
                self.scan = None;
                self.segment += 1;
            }
        }
        None
    }

    fn take(&mut self, segment: &SegmentInfo, ordinals: Range<u64>, range: Range<u64>, commit: Option<Commit>) {
        if ordinals.start >= self.until {
            self.over = true;
            return;
        }
        if ordinals.start > self.wanted {
            let (file, range) = self.bad.take().unwrap_or((segment.file, FRAMES_AT..FRAMES_AT));
            self.miss(ordinals.start, file, range);
            return;
        }
        let Some(commit) = commit else {
            self.miss(ordinals.end, segment.file, range);
            return;
        };
        self.bytes_left = self.bytes_left.saturating_sub(commit.bytes().len());
        // What was bad before it took no ordinal.
        self.bad = None;
        self.place = Some((segment.file, range.end));
        self.taken.push(Found { first_ordinal: ordinals.start, commit, file: segment.file, range });
        self.wanted = ordinals.end;
        self.over = self.bytes_left == 0 || self.wanted >= self.until;
    }

    /// Ends with the ops up to `behind` missing, unless there is something to hand out first.
    fn miss(&mut self, behind: u64, file: FileId, range: Range<u64>) {
        self.over = true;
        if self.taken.is_empty() {
            self.damaged = Some(Damaged { ordinals: self.wanted..behind, file, range });
        }
    }
}
