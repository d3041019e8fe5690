//! The reference model of the key-value view: every write that there ever was, in a list, and every answer by reading all of
//! it. Slow, and short enough to be seen to be right.

use vine_core::log::{CommitHash, Hlc, KV_HORIZON, Op};

/// A put, or a delete where there is no value.
#[derive(Clone, Debug)]
struct Write {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    stamp: Hlc,
    commit: CommitHash,
    index: usize,
}

/// A local write that is on its way to the disk.
#[derive(Clone, Debug)]
struct Pending {
    key: Vec<u8>,
    stamp: Hlc,
    done: bool,
}

/// All writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    writes: Vec<Write>,
    pending: Vec<Pending>,
}

impl Model {
    /// Applies a commit, known or not.
    pub(crate) fn apply(&mut self, commit: CommitHash, ops: &[Op]) {
        for (index, op) in ops.iter().enumerate() {
            let (key, value, stamp) = match op {
                Op::Put { key, value, stamp } => (key.to_vec(), Some(value.to_vec()), *stamp),
                Op::Delete { key, stamp } => (key.to_vec(), None, *stamp),
                _ => continue,
            };
            if stamp < KV_HORIZON {
                self.writes.push(Write { key, value, stamp, commit, index });
            }
        }
    }

    fn last(&self, key: &[u8]) -> Option<&Write> {
        let of_key = self.writes.iter().filter(|write| write.key == key);
        of_key.max_by_key(|write| (write.stamp, write.commit, write.index))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.last(key)?.value.clone()
    }

    /// The stamp of the last write of a key.
    pub(crate) fn seen(&self, key: &[u8]) -> Option<Hlc> {
        Some(self.last(key)?.stamp)
    }

    /// Up to `limit` keys with this prefix behind `after`, and their values.
    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut keys: Vec<&Vec<u8>> = self.writes.iter().map(|write| &write.key).collect();
        keys.sort();
        keys.dedup();
        let wanted = |key: &&Vec<u8>| key.starts_with(prefix) && after.is_none_or(|after| &key[..] > after);
        let found = keys.into_iter().filter(wanted).filter_map(|key| Some((key.clone(), self.get(key)?)));
        found.take(limit).collect()
    }

    /// The stamp of a local write that begins now, or `None` where it would have no effect.
    pub(crate) fn begin(&mut self, key: &[u8], clock: Hlc) -> Option<Hlc> {
        let on_the_way = self.pending.iter().filter(|pending| pending.key == key).map(|pending| pending.stamp);
        let before = self.seen(key).into_iter().chain(on_the_way).max();
        let stamp = before.map_or(clock, |before| clock.max(Hlc(before.0 + 1)));
        (stamp < KV_HORIZON).then(|| {
            self.pending.push(Pending { key: key.to_vec(), stamp, done: false });
            stamp
        })
    }

    /// A local write was applied, or has failed. Its stamp counts until no write of its key is on its way.
    pub(crate) fn end(&mut self, key: &[u8], stamp: Hlc) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.key == key && pending.stamp == stamp) {
            pending.done = true;
        }
        if self.pending.iter().filter(|pending| pending.key == key).all(|pending| pending.done) {
            self.pending.retain(|pending| pending.key != key);
        }
    }
}
