//! What was written, by whom, and where it has to be: what no store can know and every store is checked against.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use vine_core::log::disk::{DiskOp, FileId};
use vine_core::log::op::Op;
use vine_core::log::segment::{ALIGN, FRAME_HEADER};
use vine_core::log::{Commit, CommitHash, LogId};

use super::device::SimDisk;

/// A place in a log.
pub type Position = (LogId, u64);

/// What a position holds, once and for all.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// The commit.
    pub commit: CommitHash,
    /// The op's number in it.
    pub index: u32,
    /// The op.
    pub op: Op,
}

/// Every position that any store of any machine ever gave to an op, over all lives, clones and backups.
#[derive(Clone, Default)]
pub struct Ledger {
    positions: BTreeMap<Position, Known>,
    commits: BTreeMap<Position, Commit>,
    /// What a store has said that it never wrote.
    refused: BTreeSet<Position>,
}

impl Ledger {
    /// Takes note of a commit, before anybody can rely on it.
    ///
    /// # Panics
    /// Where one of its positions is taken.
    pub fn claim(&mut self, commit: &Commit) {
        let header = *commit.header();
        for (index, op) in (0..).zip(commit.ops()) {
            let position = (header.log, header.first_seq + u64::from(index));
            let known = Known { commit: commit.hash(), index, op };
            let before = self.positions.insert(position, known.clone());
            assert!(before.is_none_or(|before| before == known), "position {position:?} is used twice");
        }
        self.commits.insert((header.log, header.first_seq), commit.clone());
    }

    /// A store says for certain that it never wrote what it gave this position to.
    pub fn refuse(&mut self, position: Position) {
        self.refused.insert(position);
    }

    /// Whether some store said for certain that this was never written.
    pub fn is_refused(&self, position: Position) -> bool {
        self.refused.contains(&position)
    }

    /// What a position holds.
    pub fn get(&self, position: Position) -> Option<&Known> {
        self.positions.get(&position)
    }

    /// The commit that begins at a position.
    pub fn commit(&self, first: Position) -> Option<&Commit> {
        self.commits.get(&first)
    }

    /// The commits that a write carries, with their places. `effect` is the number of the write.
    pub fn commits_in(&self, op: &DiskOp, effect: u64) -> Vec<Placed> {
        let DiskOp::Write { file, offset, bytes } = op else { return Vec::new() };
        let mut found = Vec::new();
        let mut at = 0;
        while at + FRAME_HEADER + 40 <= bytes.len() {
            match self.commit_at(&bytes[at + FRAME_HEADER..]) {
                Some(commit) => {
                    let len = FRAME_HEADER + commit.bytes().len();
                    let ordinal = bytes[at + 16..at + 24].try_into().map_or(0, u64::from_le_bytes);
                    let (log, first_seq, count) =
                        (commit.header().log, commit.header().first_seq, commit.header().count);
                    let frame = bytes.slice(at..at + len);
                    found.push(Placed {
                        log,
                        first_seq,
                        count,
                        ordinal,
                        file: *file,
                        offset: offset + at as u64,
                        frame,
                        effect,
                    });
                    at += len.next_multiple_of(ALIGN as usize);
                }
                None => at += ALIGN as usize,
            }
        }
        found
    }

    fn commit_at(&self, bytes: &[u8]) -> Option<&Commit> {
        if bytes[..8] == [0; 8] {
            return None;
        }
        let (log, rest) = bytes.split_first_chunk()?;
        let (seq, _) = rest.split_first_chunk()?;
        let commit = self.commits.get(&(LogId(*log), u64::from_le_bytes(*seq)))?;
        bytes.starts_with(commit.bytes()).then_some(commit)
    }
}

/// A commit's frame on a disk.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its log.
    pub log: LogId,
    /// The position of its first op.
    pub first_seq: u64,
    /// How many ops it has.
    pub count: u32,
    /// The ordinal that the frame gives to the first of them.
    pub ordinal: u64,
    file: FileId,
    offset: u64,
    frame: Bytes,
    /// The number of the write that brought it there first.
    effect: u64,
}

impl Placed {
    /// Whether it, or what lies in the `before` bytes before it, has a byte there.
    pub fn touches(&self, file: FileId, range: &Range<u64>, before: u64) -> bool {
        let end = self.offset + self.frame.len() as u64;
        self.file == file && self.offset.saturating_sub(before) < range.end && end > range.start
    }

    /// Whether it is on the disk, whatever happens.
    pub fn is_durable(&self, disk: &SimDisk) -> bool {
        disk.holds(self.file, self.offset, &self.frame)
    }
}

/// What is known of an ordinal of one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// It is there, and nobody has read it yet.
    Unread,
    /// It is there, and holds this.
    At(Position),
    /// It was there. The store has said that it is lost.
    Lost,
}

/// What one store holds, as a disk that keeps its promises would have it. A copied disk takes a copy of it along.
#[derive(Clone, Default)]
pub struct Timeline {
    /// The ordinals that are there for certain: acknowledged, or found by an opening and so relied on.
    pub slots: Vec<Slot>,
    /// Where the frames of commits were written, by first ordinal. Later ones replace those that a crash took.
    placed: BTreeMap<u64, Placed>,
    /// The disk has called something durable that is not, or put it somewhere else.
    pub lied: bool,
    /// Bits of what was durable have changed.
    pub rotten: bool,
    /// The next ordinal and the state when the store was closed.
    pub closed_at: Option<(u64, [u8; 32])>,
}

impl Timeline {
    /// Whether the disk has kept every promise so far.
    pub fn is_honest(&self) -> bool {
        !self.lied && !self.rotten
    }

    /// Takes note of a frame on its way to the disk.
    ///
    /// # Panics
    /// Where one of its ordinals belongs to something else.
    pub fn place(&mut self, placed: Placed) {
        if self.placed.get(&placed.ordinal).is_some_and(|old| old.frame == placed.frame && old.offset == placed.offset)
        {
            return;
        }
        for (ordinal, seq) in (placed.ordinal..).zip(placed.first_seq..placed.first_seq + u64::from(placed.count)) {
            match self.slots.get(ordinal as usize) {
                Some(Slot::At(position)) => {
                    assert_eq!(*position, (placed.log, seq), "ordinal {ordinal} is used twice");
                }
                Some(Slot::Unread) => {
                    assert_eq!(self.expected(ordinal), Some((placed.log, seq)), "ordinal {ordinal} is used twice");
                }
                Some(Slot::Lost) | None => {}
            }
        }
        // What an earlier life wrote there and lost is not there any more.
        let overlapped: Vec<u64> = self
            .placed
            .range(..placed.ordinal + u64::from(placed.count))
            .rev()
            .take_while(|(first, old)| *first + u64::from(old.count) > placed.ordinal)
            .map(|(first, _)| *first)
            .collect();
        overlapped.iter().for_each(|first| _ = self.placed.remove(first));
        self.placed.insert(placed.ordinal, placed);
    }

    /// Where the frame with an ordinal lies.
    pub fn placed(&self, ordinal: u64) -> Option<&Placed> {
        let (_, placed) = self.placed.range(..=ordinal).next_back()?;
        (ordinal - placed.ordinal < u64::from(placed.count)).then_some(placed)
    }

    /// An ordinal behind `ordinal` whose frame is whole on the disk and was written when that of `ordinal` was durable
    /// already: it vouches for everything up to there.
    pub fn vouched_by(&self, ordinal: u64, disk: &SimDisk) -> Option<u64> {
        let effect = self.placed(ordinal)?.effect;
        let behind = self.placed.range(ordinal..(self.slots.len() as u64).max(ordinal));
        behind
            .map(|(_, placed)| placed)
            .find(|placed| placed.effect > effect && placed.is_durable(disk))
            .map(|p| p.ordinal)
    }

    /// What was written with an ordinal last.
    pub fn expected(&self, ordinal: u64) -> Option<Position> {
        let placed = self.placed(ordinal)?;
        Some((placed.log, placed.first_seq + (ordinal - placed.ordinal)))
    }
}
