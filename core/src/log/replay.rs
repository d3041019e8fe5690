//! Builds the state of a store from its frames, in the order in which they were written.

use alloc::collections::{BTreeMap, VecDeque};
use core::ops::Range;

use bytes::Bytes;

use super::chain::{Chains, Refusal};
use super::clock::{Hlc, KV_HORIZON};
use super::commit::{Commit, Genesis, LogId, SignedHeader, Tip};
use super::disk::FileId;
use super::report::{Damage, Finding, Report};
use super::segment::{FrameHeader, FrameKind};
use super::view::View;
use crate::identity::PeerId;

/// Bytes that an op takes at least.
const SHORTEST_OP: u64 = 2;

/// How much of a commit is looked at again when it is read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Its checksum and its place in its log: what damage can have changed.
    Checksums,
    /// Its hash and signature too.
    Signatures,
    /// As [`Depth::Signatures`], the hashes being computed by the driver ([`Effect::Hash`](super::store::Effect::Hash)), on
    /// as many threads as it likes.
    HashJobs,
}

/// The state of a store, as far as it was read.
#[derive(Debug)]
pub struct Replay {
    /// All logs.
    pub chains: Chains,
    /// The key-value view.
    pub view: View,
    /// What was found.
    pub report: Report,
    /// Where logs have a hole that damage left: what comes before it. Behind it they were read on.
    pub holes: BTreeMap<LogId, Tip>,
    /// What the commits of each other author take, in bytes.
    pub foreign_bytes: BTreeMap<PeerId, u64>,
    /// The ordinal of the next op.
    pub next_ordinal: u64,
    /// The last stamp that the owner gave.
    pub last_stamp: Hlc,
    /// The youngest log of the owner, and the stamp of its last commit.
    last_log: Option<(LogId, Hlc)>,
    /// The last two logs of which it was looked up whether one follows the other, and what was found: each commit asks again.
    compared: Option<(LogId, LogId, Succession)>,
    owner: PeerId,
    depth: Depth,
    /// Commits whose hashes are to be computed, and where they lie.
    unhashed: VecDeque<(FileId, Range<u64>, Commit)>,
    /// Those that are being computed.
    hashing: BTreeMap<u64, (FileId, Range<u64>)>,
    /// Bytes of both.
    hashing_bytes: u64,
    next_hash: u64,
    /// The last header of each log, whose signature stands for those before it.
    unverified: BTreeMap<LogId, (FileId, Range<u64>, SignedHeader)>,
}

/// How one log of an author stands to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Succession {
    /// It follows it, however many are between them.
    Later,
    /// The other one follows it.
    Earlier,
    /// Neither follows the other.
    Unrelated,
}

impl Replay {
    /// An empty state of the store of `owner`.
    pub fn new(owner: PeerId, chains: Chains, view: View, depth: Depth) -> Replay {
        Replay {
            chains,
            view,
            report: Report::default(),
            holes: BTreeMap::new(),
            foreign_bytes: BTreeMap::new(),
            next_ordinal: 0,
            last_stamp: Hlc::default(),
            last_log: None,
            compared: None,
            owner,
            depth,
            unhashed: VecDeque::new(),
            hashing: BTreeMap::new(),
            hashing_bytes: 0,
            next_hash: 0,
            unverified: BTreeMap::new(),
        }
    }

    /// Where the owner's next log goes on: behind the last of its ops that has no hole before it. `None` where there is none,
    /// or where damage left nobody to tell: then the next log begins anew, as if it were a first one.
    pub fn predecessor(&self) -> Option<Tip> {
        let (mut log, _) = self.last_log?;
        loop {
            let state = self.chains.get(&log).filter(|state| state.genesis.peer_id == self.owner)?;
            let tip = self.holes.get(&log).copied().or_else(|| self.chains.tip(&log))?;
            if tip.next > 0 {
                return Some(tip);
            }
            log = state.genesis.predecessor?.log;
        }
    }

    /// A segment begins whose first op has this ordinal.
    pub(super) fn begin_segment(&mut self, file: FileId, first_ordinal: u64) {
        self.pass_to(file, 0, first_ordinal);
    }

    /// Passes over as many ordinals as lost bytes may have held.
    pub(super) fn pass_over(&mut self, file: FileId, range: Range<u64>) {
        let held = (range.end - range.start) / SHORTEST_OP;
        self.pass_to(file, range.start, self.next_ordinal.saturating_add(held));
    }

    /// Bytes that should be frames are none.
    pub(super) fn damaged(&mut self, file: FileId, range: Range<u64>) {
        self.report.add(Finding::new(file, range, Damage::Corrupt));
    }

    /// Takes a frame.
    pub(super) fn frame(&mut self, file: FileId, range: Range<u64>, header: &FrameHeader, body: &[u8]) {
        self.report.frames += 1;
        match header.kind {
            FrameKind::Marker | FrameKind::Closed => self.pass_to(file, range.start, header.first_ordinal),
            FrameKind::Genesis => match Genesis::decode(body) {
                Ok(genesis) => self.genesis(file, range, &genesis),
                Err(_) => self.inconsistent(file, range, "a frame holds no genesis of a log, though it should"),
            },
            FrameKind::Commit => match Commit::decode(Bytes::copy_from_slice(body)) {
                Ok(commit) => self.commit(file, range, header, commit),
                Err(_) => self.inconsistent(file, range, "a frame holds no commit, though it should"),
            },
        }
    }

    fn genesis(&mut self, file: FileId, range: Range<u64>, genesis: &Genesis) {
        if self.chains.restore_genesis(genesis).is_err() {
            self.inconsistent(file, range, "the beginning of a log of another network, or of one too many");
        }
    }

    fn commit(&mut self, file: FileId, range: Range<u64>, frame: &FrameHeader, commit: Commit) {
        let header = *commit.header();
        if frame.count != header.count || frame.first_ordinal < self.next_ordinal {
            self.inconsistent(file, range, "a commit is there twice, or not where it belongs");
            return;
        }
        self.pass_to(file, range.start, frame.first_ordinal);
        self.next_ordinal += u64::from(header.count);
        self.report.commits += 1;
        self.report.ops += u64::from(header.count);
        match self.depth {
            Depth::Checksums => {}
            Depth::Signatures => self.is_hashed(file, range.clone(), commit.verify_ops().is_ok()),
            Depth::HashJobs => {
                self.hashing_bytes += range.end - range.start;
                self.unhashed.push_back((file, range.clone(), commit.clone()));
            }
        }
        let before = self.chains.tip(&header.log);
        match self.chains.extend(&commit) {
            Ok(_) => {}
            Err(Refusal::Gap { log, expected, got }) => {
                self.end_run(&log);
                self.lose(file, &range, log, expected..got);
                self.holes.extend(before.filter(|_| !self.holes.contains_key(&log)).map(|tip| (log, tip)));
                self.resume(file, &range, &commit);
            }
            Err(Refusal::PredecessorMissing { log, at }) => {
                let have = self.chains.get(&log).map_or(0, |state| state.next);
                self.lose(file, &range, log, have..at);
                self.holes
                    .extend(before.filter(|_| !self.holes.contains_key(&header.log)).map(|tip| (header.log, tip)));
                self.resume(file, &range, &commit);
            }
            Err(Refusal::UnknownLog { log }) => {
                // Its genesis was lost; whose it is is not known any more.
                self.lose(file, &range, log, header.first_seq..header.next_seq());
                return;
            }
            // It is delivered for what it is, so the view has it too.
            Err(_) => self.inconsistent(file, range.clone(), "a commit does not continue its log"),
        }
        self.apply(&commit);
        if self.depth != Depth::Checksums {
            self.unverified.insert(header.log, (file, range, commit.signed_header()));
        }
    }

    /// A commit whose hash is to be computed, under a number for [`Replay::hashed`].
    pub(super) fn hash_job(&mut self) -> Option<(u64, Commit)> {
        let (file, range, commit) = self.unhashed.pop_front()?;
        let number = self.next_hash;
        self.next_hash += 1;
        self.hashing.insert(number, (file, range));
        Some((number, commit))
    }

    /// Takes what a hash was found to be.
    pub(super) fn hashed(&mut self, number: u64, is_good: bool) {
        let Some((file, range)) = self.hashing.remove(&number) else { return };
        self.hashing_bytes -= range.end - range.start;
        self.is_hashed(file, range, is_good);
    }

    /// Bytes of commits whose hashes are not known yet.
    pub(super) fn hashing_bytes(&self) -> u64 {
        self.hashing_bytes
    }

    fn is_hashed(&mut self, file: FileId, range: Range<u64>, is_good: bool) {
        if !is_good {
            self.inconsistent(file, range, "the ops of a commit do not have the hash that its header gives");
        }
    }

    /// Everything is read: verifies the signatures that stand for all others.
    pub(super) fn finish(&mut self) {
        while let Some((log, _)) = self.unverified.first_key_value() {
            let log = *log;
            self.end_run(&log);
        }
    }

    /// Takes up a durable commit: where the owner's next log goes on, what others take, and the view. A view that is full says
    /// so itself: it stops, and the log goes on.
    pub(super) fn apply(&mut self, commit: &Commit) {
        let header = commit.header();
        match self.chains.get(&header.log).map(|state| state.genesis.peer_id) {
            Some(author) if author == self.owner => {
                self.last_stamp = self.last_stamp.max(header.hlc);
                if self.is_youngest(header.log, header.hlc) {
                    self.last_log = Some((header.log, header.hlc));
                }
            }
            Some(author) => *self.foreign_bytes.entry(author).or_default() += commit.bytes().len() as u64,
            None => {}
        }
        let _stopped = self.view.apply(commit);
    }

    /// Whether a log of the owner's, with a commit of this stamp, is younger than the one that was the youngest so far: an
    /// older one may be imported at any time.
    fn is_youngest(&mut self, log: LogId, stamp: Hlc) -> bool {
        let Some((last, last_stamp)) = self.last_log.filter(|(last, _)| *last != log) else { return true };
        // A clock that was wrong does not tell which is the younger one.
        let told = |stamp: Hlc| if stamp < KV_HORIZON { stamp } else { Hlc::default() };
        match self.succession(log, last) {
            Succession::Later => true,
            Succession::Earlier => false,
            Succession::Unrelated => told(stamp) >= told(last_stamp),
        }
    }

    /// How one log stands to another one.
    fn succession(&mut self, log: LogId, other: LogId) -> Succession {
        if let Some((.., known)) = self.compared.filter(|(a, b, _)| (*a, *b) == (log, other)) {
            return known;
        }
        let found = if self.follows(log, other) {
            Succession::Later
        } else if self.follows(other, log) {
            Succession::Earlier
        } else {
            Succession::Unrelated
        };
        self.compared = Some((log, other, found));
        found
    }

    /// Whether a log follows another one, however many are between them.
    fn follows(&self, log: LogId, before: LogId) -> bool {
        let predecessor = |log: &LogId| self.chains.get(log)?.genesis.predecessor.map(|tip| tip.log);
        core::iter::successors(predecessor(&log), predecessor).any(|log| log == before)
    }

    fn resume(&mut self, file: FileId, range: &Range<u64>, commit: &Commit) {
        if self.chains.resume(commit).is_err() {
            self.inconsistent(file, range.clone(), "a commit does not continue its log");
        }
    }

    fn end_run(&mut self, log: &LogId) {
        let Some((file, range, header)) = self.unverified.remove(log) else { return };
        let author = self.chains.get(log).map(|state| state.genesis.peer_id);
        if author.is_none_or(|author| header.verify(&author).is_err()) {
            self.inconsistent(file, range, "a commit is not signed by the author of its log");
        }
    }

    fn inconsistent(&mut self, file: FileId, range: Range<u64>, what: &'static str) {
        self.report.add(Finding::new(file, range, Damage::Inconsistent(what)));
    }

    /// Ordinals up to `ordinal` are missing unless they were there.
    fn pass_to(&mut self, file: FileId, at: u64, ordinal: u64) {
        if ordinal <= self.next_ordinal {
            return;
        }
        let missing = self.next_ordinal..ordinal;
        self.next_ordinal = ordinal;
        // What a finding names as missing ends where this begins, or it is another one's.
        let adjoins = |finding: &Finding| finding.ordinals.as_ref().is_none_or(|named| named.end == missing.start);
        if let Some(finding) = self.loss(file, at, adjoins) {
            let from = finding.ordinals.as_ref().map_or(missing.start, |named| named.start);
            finding.ordinals = Some(from..ordinal);
        }
    }

    fn lose(&mut self, file: FileId, range: &Range<u64>, log: LogId, positions: Range<u64>) {
        if let Some(finding) = self.loss(file, range.start, |_| true) {
            finding.lose(log, positions);
        }
    }

    /// The finding that what is missing belongs to: the last one if it `fits`, or a new one; none where there is no room for
    /// that, and then it is counted.
    fn loss(&mut self, file: FileId, at: u64, fits: impl Fn(&Finding) -> bool) -> Option<&mut Finding> {
        let is_of_it = |finding: &Finding| finding.damage.is_loss() && fits(finding);
        let report = &mut self.report;
        if !report.findings.last().is_some_and(is_of_it) {
            let what = "something is missing before this place";
            let before = report.unlisted;
            report.add(Finding::new(file, at..at, Damage::Inconsistent(what)));
            if report.unlisted > before {
                return None;
            }
        }
        report.findings.last_mut()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::config::NetworkId;
    use crate::identity::Identity;

    fn replay() -> Replay {
        let owner = Identity::from_seed([7; 32]).peer_id();
        let chains = Chains::new(NetworkId::new("example").unwrap(), BTreeSet::new());
        Replay::new(owner, chains, View::new(0), Depth::Checksums)
    }

    #[test]
    fn a_finding_names_all_ordinals_that_are_missing_by_it() {
        let mut replay = replay();
        let file = FileId(1);
        replay.damaged(file, 64..128);
        replay.pass_to(file, 128, 5);
        replay.pass_to(file, 192, 9);
        assert_eq!(replay.report.findings.len(), 1);
        assert_eq!(replay.report.findings[0].ordinals, Some(0..9));
        // Ops that are there lie between these and the next ones.
        replay.next_ordinal = 12;
        replay.pass_to(FileId(2), 64, 20);
        let ordinals: alloc::vec::Vec<_> = replay.report.findings.iter().map(|f| f.ordinals.clone()).collect();
        assert_eq!(ordinals, [Some(0..9), Some(12..20)]);
        assert_eq!(replay.report.findings[1].file, FileId(2));
    }

    #[test]
    fn what_finds_no_room_in_the_list_is_counted() {
        let mut replay = replay();
        for number in 0..300u64 {
            replay.next_ordinal = number * 10;
            replay.pass_to(FileId(number), 0, number * 10 + 5);
        }
        let report = &replay.report;
        assert_eq!((report.findings.len() as u64, report.unlisted), (256, 44));
        assert_eq!(report.findings[255].ordinals, Some(2550..2555));
    }
}
