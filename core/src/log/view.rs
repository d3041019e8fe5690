//! The key-value view: the last write of every key, the same on every node that holds the same commits.
//!
//! A write wins over another one of its key by `(stamp, commit hash, index in the commit)`, which no two writes share, so
//! the order in which commits arrive makes no difference. A delete leaves a tombstone, which is kept. Writes with a stamp at
//! or beyond [`KV_HORIZON`] have no effect on any node.
//!
//! The view is in memory and has a limit. Past it nothing is applied any more, neither now nor later, and nothing is ever
//! applied in part: what [`View::apply`] took is a prefix of what it was given, and says so.
//!
//! A write of this node gets its stamp from [`View::reserve`]: later than its clock, than what the view has for the key and
//! than what was handed out for the key and is on its way to the disk.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use bytes::Bytes;

use super::clock::{Hlc, KV_HORIZON};
use super::commit::{Commit, CommitHash};
use super::op::Op;

/// What an entry counts beside its key and value, in bytes: the entry itself, its part of the tree and of the allocations.
pub const ENTRY_OVERHEAD: usize = 256;
/// The most local writes on their way to the disk that a view hands out stamps for.
pub const MAX_RESERVED: usize = 65_536;

/// What is hashed before the entries.
const DIGEST_DOMAIN: &[u8] = b"vine log view 1";

/// The last write of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its stamp.
    pub stamp: Hlc,
    /// The commit that holds it.
    pub commit: CommitHash,
    /// Its number in the commit, from 0.
    pub index: u32,
    /// The value, or `None` where the key was deleted.
    pub value: Option<Bytes>,
}

impl Entry {
    /// By what a write wins over another one.
    fn order(&self) -> (Hlc, CommitHash, u32) {
        (self.stamp, self.commit, self.index)
    }

    /// Bytes that count against the limit.
    fn cost(&self, key: &[u8]) -> usize {
        cost(key, self.value.as_deref())
    }
}

fn cost(key: &[u8], value: Option<&[u8]>) -> usize {
    ENTRY_OVERHEAD + key.len() + value.map_or(0, <[u8]>::len)
}

/// The view has reached its limit and is not what the log says any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the key-value view has reached its limit of {limit} bytes")]
pub struct ViewFull {
    /// Its limit.
    pub limit: usize,
}

/// Why a local write gets no stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReserveError {
    /// The view is at its limit, or would be with this write.
    #[error(transparent)]
    Full(#[from] ViewFull),
    /// The stamp would be at or beyond [`KV_HORIZON`], where writes have no effect.
    #[error(
        "the write's stamp {stamp} would lie beyond {KV_HORIZON}: this clock is wrong, or that of the key's last writer"
    )]
    Horizon {
        /// What the stamp would be.
        stamp: Hlc,
    },
    /// [`MAX_RESERVED`] writes are on their way.
    #[error("{MAX_RESERVED} writes are on their way to the disk")]
    Busy,
}

/// A stamp for a local write that is on its way to the disk. It goes back by [`View::release`] when the write is applied or
/// has failed.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "it is held until it is released"]
pub struct Reservation {
    key: Bytes,
    stamp: Hlc,
    growth: usize,
}

impl Reservation {
    /// The stamp of the write.
    pub fn stamp(&self) -> Hlc {
        self.stamp
    }

    /// The key that it is for.
    pub fn key(&self) -> &Bytes {
        &self.key
    }
}

/// What is reserved for a key.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    last: Hlc,
    count: usize,
}

/// The last write of every key.
#[derive(Clone, Debug)]
pub struct View {
    entries: BTreeMap<Bytes, Entry>,
    /// What the entries count, in bytes.
    bytes: usize,
    limit: usize,
    full: bool,
    reserved: BTreeMap<Bytes, Reserved>,
    reserved_count: usize,
    reserved_bytes: usize,
}

impl View {
    /// An empty view of at most `limit` bytes: keys, values, and [`ENTRY_OVERHEAD`] for each, tombstones included.
    pub fn new(limit: usize) -> View {
        View {
            entries: BTreeMap::new(),
            bytes: 0,
            limit,
            full: false,
            reserved: BTreeMap::new(),
            reserved_count: 0,
            reserved_bytes: 0,
        }
    }

    /// Applies all puts and deletes of a commit, or none. Returns how many of them won over what was there. Applied again, a
    /// commit changes nothing.
    ///
    /// # Errors
    /// [`ViewFull`] if the view would be over its limit with it, and ever after.
    pub fn apply(&mut self, commit: &Commit) -> Result<usize, ViewFull> {
        self.apply_ops(commit.hash(), commit.ops())
    }

    /// As [`View::apply`], for the ops of the commit with this hash, all of them in order.
    ///
    /// # Errors
    /// [`ViewFull`].
    pub fn apply_ops(&mut self, commit: CommitHash, ops: impl Iterator<Item = Op>) -> Result<usize, ViewFull> {
        if self.full {
            return Err(ViewFull { limit: self.limit });
        }
        let winners = self.winners(commit, ops);
        let gone: usize = winners.keys().filter_map(|key| self.entries.get(key).map(|entry| entry.cost(key))).sum();
        let come: usize = winners.iter().map(|(key, entry)| entry.cost(key)).sum();
        let bytes = self.bytes - gone + come;
        if bytes > self.limit {
            self.full = true;
            return Err(ViewFull { limit: self.limit });
        }
        self.bytes = bytes;
        let changed = winners.len();
        for (key, entry) in winners {
            // Copied out of the commit, whose memory one small value would hold otherwise.
            let value = entry.value.as_deref().map(Bytes::copy_from_slice);
            let entry = Entry { value, ..entry };
            match self.entries.get_mut(&key) {
                Some(old) => *old = entry,
                None => _ = self.entries.insert(Bytes::copy_from_slice(&key), entry),
            }
        }
        Ok(changed)
    }

    /// Of each key the write among `ops` that wins, if it wins over what the view has.
    fn winners(&self, commit: CommitHash, ops: impl Iterator<Item = Op>) -> BTreeMap<Bytes, Entry> {
        let mut winners: BTreeMap<Bytes, Entry> = BTreeMap::new();
        for (index, op) in (0..).zip(ops) {
            let (stamp, key, value) = match op {
                Op::Put { stamp, key, value } => (stamp, key, Some(value)),
                Op::Delete { stamp, key } => (stamp, key, None),
                Op::Plain(_) | Op::Other { .. } => continue,
            };
            let entry = Entry { stamp, commit, index, value };
            let wins_over = |other: Option<&Entry>| other.is_none_or(|other| entry.order() > other.order());
            if stamp < KV_HORIZON && wins_over(self.entries.get(&key)) && wins_over(winners.get(&key)) {
                winners.insert(key, entry);
            }
        }
        winners
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key)?.value.as_ref()
    }

    /// The last write of a key, a delete too.
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The stamp of the last write of a key that was applied, a delete too.
    pub fn seen(&self, key: &[u8]) -> Option<Hlc> {
        self.entries.get(key).map(|entry| entry.stamp)
    }

    /// Up to `limit` keys that begin with `prefix` and come behind `after`, in order, with their values. Deleted ones are
    /// passed over.
    pub fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.entries
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(|(key, entry)| entry.value.as_ref().map(|value| (key, value)))
            .take(limit)
    }

    /// The hash of all entries, tombstones included: equal on nodes that applied the same commits, in whatever order.
    ///
    /// `"vine log view 1"`, then for each key in order: `key length u32 | key | stamp u64 | commit hash 32 | index u32`, and
    /// `0` for a tombstone or `1 | value length u32 | value`.
    pub fn digest(&self) -> [u8; 32] {
        let mut state = Blake2b::<U32>::new();
        state.update(DIGEST_DOMAIN);
        for (key, entry) in &self.entries {
            state.update((key.len() as u32).to_le_bytes());
            state.update(key);
            state.update(entry.stamp.0.to_le_bytes());
            state.update(entry.commit.0);
            state.update(entry.index.to_le_bytes());
            state.update([u8::from(entry.value.is_some())]);
            if let Some(value) = &entry.value {
                state.update((value.len() as u32).to_le_bytes());
                state.update(value);
            }
        }
        state.finalize().into()
    }

    /// The stamp for a local write of `key`, `value_len` bytes of value, none for a delete: the latest of `clock`, the next
    /// one after the key's last write and the next one after what is reserved for the key.
    ///
    /// # Errors
    /// [`ReserveError`]; then nothing is reserved. What it takes is counted against the view's limit, so that local writes
    /// are refused before they would stop the view.
    pub fn reserve(&mut self, key: &Bytes, value_len: Option<usize>, clock: Hlc) -> Result<Reservation, ReserveError> {
        if self.reserved_count >= MAX_RESERVED {
            return Err(ReserveError::Busy);
        }
        let reserved = self.reserved.get(key).copied();
        let seen = self.seen(key).max(reserved.map(|reserved| reserved.last));
        let stamp = seen.map_or(clock, |seen| clock.max(seen.next()));
        if stamp >= KV_HORIZON {
            return Err(ReserveError::Horizon { stamp });
        }
        let now = self.entries.get(key).map_or(0, |entry| entry.cost(key));
        let growth = (cost(key, None) + value_len.unwrap_or(0)).saturating_sub(now);
        let full = ViewFull { limit: self.limit };
        let room = self.limit.saturating_sub(self.bytes).saturating_sub(self.reserved_bytes);
        // A write that shrinks its entry is taken however little room there is.
        if self.full || (growth > room && growth > 0) {
            return Err(full.into());
        }
        let count = reserved.map_or(0, |reserved| reserved.count) + 1;
        self.reserved.insert(Bytes::copy_from_slice(key), Reserved { last: stamp, count });
        self.reserved_count += 1;
        self.reserved_bytes += growth;
        Ok(Reservation { key: key.clone(), stamp, growth })
    }

    /// Gives a stamp back, whether its write was applied or failed.
    pub fn release(&mut self, reservation: Reservation) {
        let Reservation { key, growth, .. } = reservation;
        let Some(reserved) = self.reserved.get_mut(&key) else { return };
        reserved.count -= 1;
        if reserved.count == 0 {
            self.reserved.remove(&key);
        }
        self.reserved_count -= 1;
        self.reserved_bytes -= growth;
    }

    /// Keys, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True while nothing was applied.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the entries count against [`View::limit`], in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the entries may count, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// True once a commit was not applied because the view was full: it does not say any more what the log does.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn put(stamp: u64, name: &str, value: &str) -> Op {
        Op::Put { stamp: Hlc(stamp), key: key(name), value: key(value) }
    }

    fn delete(stamp: u64, name: &str) -> Op {
        Op::Delete { stamp: Hlc(stamp), key: key(name) }
    }

    fn apply(view: &mut View, commit: u8, ops: &[Op]) -> Result<usize, ViewFull> {
        view.apply_ops(CommitHash([commit; 32]), ops.iter().cloned())
    }

    fn view() -> View {
        View::new(100_000)
    }

    /// The value of `k` after these commits of one op, in this order and in the opposite one.
    fn value_of_k(commits: &[(u8, Op)]) -> Option<Bytes> {
        let run = |commits: &mut dyn Iterator<Item = &(u8, Op)>| {
            let mut view = view();
            for (hash, op) in commits {
                apply(&mut view, *hash, core::slice::from_ref(op)).unwrap();
            }
            view.get(b"k").cloned()
        };
        let value = run(&mut commits.iter());
        assert_eq!(run(&mut commits.iter().rev()), value);
        value
    }

    #[test]
    fn the_later_stamp_wins_then_the_greater_hash() {
        assert_eq!(value_of_k(&[(1, put(5, "k", "a")), (2, put(6, "k", "b"))]), Some(key("b")));
        assert_eq!(value_of_k(&[(2, put(5, "k", "a")), (1, put(6, "k", "b"))]), Some(key("b")));
        assert_eq!(value_of_k(&[(1, put(5, "k", "a")), (2, put(5, "k", "b"))]), Some(key("b")));
        assert_eq!(value_of_k(&[(1, put(5, "k", "a")), (2, delete(5, "k"))]), None);
        assert_eq!(value_of_k(&[(2, put(5, "k", "a")), (1, delete(5, "k"))]), Some(key("a")));
    }

    #[test]
    fn within_a_commit_the_later_stamp_wins_then_the_later_op() {
        let mut view = view();
        let ops = [put(5, "k", "a"), put(5, "k", "b"), put(4, "k", "c"), Op::Plain(key("plain"))];
        assert_eq!(apply(&mut view, 1, &ops), Ok(1));
        let expected = Entry { stamp: Hlc(5), commit: CommitHash([1; 32]), index: 1, value: Some(key("b")) };
        assert_eq!(view.entry(b"k"), Some(&expected));
        assert_eq!(apply(&mut view, 1, &ops), Ok(0), "the same again changes nothing");
    }

    #[test]
    fn a_tombstone_stays_and_holds_off_older_puts() {
        let mut view = view();
        apply(&mut view, 1, &[delete(5, "k")]).unwrap();
        assert_eq!(apply(&mut view, 9, &[put(4, "k", "old")]), Ok(0));
        assert_eq!((view.get(b"k"), view.seen(b"k"), view.len()), (None, Some(Hlc(5)), 1));
        assert_eq!(apply(&mut view, 9, &[put(6, "k", "new")]), Ok(1));
        assert_eq!(view.get(b"k"), Some(&key("new")));
    }

    #[test]
    fn a_stamp_beyond_the_horizon_is_void() {
        let mut view = view();
        let empty = view.digest();
        assert_eq!(apply(&mut view, 1, &[put(KV_HORIZON.0, "k", "a"), delete(u64::MAX, "k")]), Ok(0));
        assert_eq!((view.len(), view.digest()), (0, empty));
        assert_eq!(apply(&mut view, 1, &[put(KV_HORIZON.0 - 1, "k", "a")]), Ok(1));
    }

    #[test]
    fn the_digest_tells_every_field() {
        let digest = |commit: u8, ops: &[Op]| {
            let mut view = view();
            apply(&mut view, commit, ops).unwrap();
            view.digest()
        };
        let filler = Op::Plain(Bytes::new());
        let digests = [
            digest(1, &[]),
            digest(1, &[put(5, "k", "v")]),
            digest(2, &[put(5, "k", "v")]),
            digest(1, &[put(6, "k", "v")]),
            digest(1, &[put(5, "l", "v")]),
            digest(1, &[put(5, "k", "w")]),
            digest(1, &[put(5, "k", "")]),
            digest(1, &[put(5, "kv", "")]),
            digest(1, &[filler, put(5, "k", "v")]),
            digest(1, &[delete(5, "k")]),
        ];
        for (n, one) in digests.iter().enumerate() {
            assert!(digests.iter().skip(n + 1).all(|other| other != one), "{n}");
        }
    }

    #[test]
    fn at_its_limit_the_view_stops_for_good_and_takes_nothing_in_part() {
        let one = ENTRY_OVERHEAD + 2;
        let mut view = View::new(2 * one + 1);
        assert_eq!(apply(&mut view, 1, &[put(1, "a", "1"), put(1, "b", "2")]), Ok(2));
        assert_eq!(view.bytes(), 2 * one);
        // What shrinks makes room within the commit.
        assert_eq!(apply(&mut view, 2, &[delete(2, "a"), put(2, "b", "222")]), Ok(2));
        assert_eq!(view.bytes(), view.limit());
        let before = view.digest();
        let full = Err(ViewFull { limit: 2 * one + 1 });
        assert_eq!(apply(&mut view, 3, &[put(3, "a", ""), put(3, "c", "")]), full);
        assert_eq!((view.digest(), view.is_full()), (before, true));
        assert_eq!(apply(&mut view, 4, &[delete(9, "b")]), full, "what would fit is not applied either");
        assert_eq!(view.digest(), before);
    }

    #[test]
    fn a_scan_goes_on_behind_a_key() {
        let mut view = view();
        let ops = ["a", "b", "b/1", "b/2", "b/3", "c"].map(|name| put(1, name, name));
        apply(&mut view, 1, &ops).unwrap();
        apply(&mut view, 1, &[delete(2, "b/2")]).unwrap();
        let scan = |prefix: &str, after: Option<&str>, limit| {
            let found = view.scan(prefix.as_bytes(), after.map(str::as_bytes), limit);
            found
                .map(|(key, value)| {
                    assert_eq!(key, value);
                    key.clone()
                })
                .collect::<Vec<_>>()
        };
        let keys = |names: &[&str]| names.iter().map(|name| key(name)).collect::<Vec<_>>();
        assert_eq!(scan("", None, 9), keys(&["a", "b", "b/1", "b/3", "c"]));
        assert_eq!(scan("b", None, 2), keys(&["b", "b/1"]));
        assert_eq!(scan("b", Some("b/1"), 2), keys(&["b/3"]));
        assert_eq!(scan("b/", Some("a"), 9), keys(&["b/1", "b/3"]), "behind a key before the prefix");
        assert_eq!(scan("b/", Some("c"), 9), keys(&[]));
        assert_eq!(scan("b", None, 0), keys(&[]));
        assert_eq!(scan("d", None, 9), keys(&[]));
    }

    #[test]
    fn two_quick_puts_of_a_key_get_rising_stamps() {
        let mut view = view();
        let name = key("k");
        apply(&mut view, 1, &[put(70, "k", "from a clock ahead")]).unwrap();
        let first = view.reserve(&name, Some(1), Hlc(5)).unwrap();
        let second = view.reserve(&name, Some(1), Hlc(6)).unwrap();
        assert_eq!((first.stamp(), second.stamp()), (Hlc(71), Hlc(72)));
        assert_eq!(view.reserve(&key("other"), None, Hlc(6)).map(|reserved| reserved.stamp()), Ok(Hlc(6)));
        view.release(first);
        let third = view.reserve(&name, None, Hlc(6)).unwrap();
        assert_eq!(third.stamp(), Hlc(73));
        assert_eq!(third.key(), &name);
        view.release(third);
        view.release(second);
        // All failed: what was handed out may be in a commit that exists, but the view does not know it.
        let fourth = view.reserve(&name, None, Hlc(100)).unwrap();
        assert_eq!(fourth.stamp(), Hlc(100));
        view.release(fourth);
    }

    #[test]
    fn a_write_without_effect_or_room_is_refused_before_it_is_made() {
        let one = ENTRY_OVERHEAD + 2;
        let mut view = View::new(2 * one);
        let full = Err(ReserveError::Full(ViewFull { limit: 2 * one }));
        let first = view.reserve(&key("a"), Some(1), Hlc(1)).unwrap();
        assert_eq!(view.reserve(&key("b"), Some(2), Hlc(1)), full);
        let second = view.reserve(&key("b"), Some(1), Hlc(1)).unwrap();
        assert_eq!(view.reserve(&key("c"), None, Hlc(1)), full, "a tombstone takes room too");
        apply(&mut view, 1, &[put(1, "a", "1"), put(1, "b", "1")]).unwrap();
        view.release(first);
        view.release(second);
        assert_eq!(view.reserve(&key("a"), Some(2), Hlc(1)), full);
        let shrinking = view.reserve(&key("a"), None, Hlc(1)).unwrap();
        let same = view.reserve(&key("b"), Some(1), Hlc(1)).unwrap();
        view.release(shrinking);
        view.release(same);
        let stamp = KV_HORIZON;
        assert_eq!(view.reserve(&key("a"), None, stamp), Err(ReserveError::Horizon { stamp }));
        apply(&mut view, 9, &[put(stamp.0 - 1, "b", "1")]).unwrap();
        assert_eq!(view.reserve(&key("b"), None, Hlc(1)), Err(ReserveError::Horizon { stamp }));
        _ = apply(&mut view, 3, &[put(3, "c", "")]);
        assert_eq!(view.reserve(&key("a"), None, Hlc(1)), full, "the view is not what the log says");
    }

    #[test]
    fn reservations_have_a_bound() {
        let mut view = View::new(usize::MAX);
        let all: Vec<_> = (0..MAX_RESERVED).map(|_| view.reserve(&key("k"), None, Hlc(1)).unwrap()).collect();
        assert_eq!(all.last().map(Reservation::stamp), Some(Hlc(MAX_RESERVED as u64)));
        assert_eq!(view.reserve(&key("k"), None, Hlc(1)), Err(ReserveError::Busy));
        all.into_iter().for_each(|reserved| view.release(reserved));
        assert!(view.reserve(&key("k"), None, Hlc(1)).is_ok());
    }
}
