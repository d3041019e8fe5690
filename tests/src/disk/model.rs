//! What the key-value view has to be, in the simplest way that it can be said.

use std::collections::BTreeMap;

use vine_core::log::commit::CommitHash;
use vine_core::log::op::Op;

/// A write, and where it stands among all writes of its key.
type Write = ((u64, CommitHash, u32), Option<Vec<u8>>);

/// The last write of each key.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model(BTreeMap<Vec<u8>, Write>);

impl Model {
    /// Takes in one op: the one with this index in that commit.
    pub fn apply(&mut self, op: &Op, commit: CommitHash, index: u32) {
        let (stamp, key, value) = match op {
            Op::Put { stamp, key, value } => (stamp.0, key, Some(value.to_vec())),
            Op::Delete { stamp, key } => (stamp.0, key, None),
            Op::Plain(_) | Op::Other { .. } => return,
        };
        let write = ((stamp, commit, index), value);
        match self.0.get(&key[..]) {
            Some((place, _)) if *place > write.0 => {}
            _ => _ = self.0.insert(key.to_vec(), write),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key)?.1.as_deref()
    }

    /// The highest stamp seen for a key; 0 for none.
    pub fn stamp(&self, key: &[u8]) -> u64 {
        self.0.get(key).map_or(0, |((stamp, ..), _)| *stamp)
    }

    /// Every key that was ever written, in order, with its value; none where it was deleted.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, (_, value))| (&key[..], value.as_deref()))
    }
}
