//! What is asked of the store's thread.

use std::fmt;

use bytes::Bytes;
use vine_core::PeerId;
use vine_core::log::Record;
use vine_core::log::reader::{Cursor, Damaged, Taken};
use vine_core::log::store::Store;

use crate::Position;
use crate::handle::{Imported, Status};
use crate::reply::Reply;

/// A question about the state of the store, which answers itself.
pub(crate) type Query = Box<dyn FnOnce(&Store) + Send>;

/// A request with the way back.
pub(crate) enum Request {
    Append { ops: Vec<Bytes>, reply: Reply<Position> },
    Put { key: Bytes, value: Bytes, reply: Reply<Position> },
    Delete { key: Bytes, reply: Reply<Position> },
    Import { records: Vec<Record>, reply: Reply<Imported> },
    Read { read: Read, reply: Reply<Batch> },
    Members { members: Vec<PeerId>, reply: Reply<()> },
    Status { reply: Reply<Status> },
    Query(Query),
    Close { reply: Reply<()> },
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) from: Cursor,
    pub(crate) max_bytes: usize,
    /// Wait where the log ends until there is more.
    pub(crate) follow: bool,
}

/// What was read: commits in the order of their ordinals. The first one may begin before the cursor.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The commits.
    pub taken: Vec<Taken>,
    /// Where to go on.
    pub next: Cursor,
    /// A range behind them that cannot be read; `next` lies behind it.
    pub damaged: Option<Damaged>,
}

/// What requests are counted together: each kind has room of its own, and none waits for another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Appends and writes of keys.
    Write,
    /// Imports: they are verified before they are written, which takes its time.
    Import,
    /// Readings and questions.
    Other,
}

/// Requests and their bytes, by kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Load([(usize, usize); 3]);

impl Load {
    /// How many requests of a kind, and their bytes.
    pub(crate) fn of(&self, kind: Kind) -> (usize, usize) {
        self.0[kind as usize]
    }

    pub(crate) fn add(&mut self, kind: Kind, requests: usize, bytes: usize) {
        let load = &mut self.0[kind as usize];
        *load = (load.0 + requests, load.1.saturating_add(bytes));
    }

    /// The sum of both.
    pub(crate) fn with(mut self, other: Load) -> Load {
        for kind in [Kind::Write, Kind::Import, Kind::Other] {
            let (requests, bytes) = other.of(kind);
            self.add(kind, requests, bytes);
        }
        self
    }
}

/// What an op takes beside its key, value or data, at least as much as in a commit.
const OP_HEAD: usize = size_of::<Bytes>();

impl Request {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Request::Append { .. } | Request::Put { .. } | Request::Delete { .. } => Kind::Write,
            Request::Import { .. } => Kind::Import,
            Request::Read { .. }
            | Request::Members { .. }
            | Request::Status { .. }
            | Request::Query(_)
            | Request::Close { .. } => Kind::Other,
        }
    }

    /// How many bytes it holds, about; of a write no fewer than the core counts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Append { ops, .. } => ops.iter().map(|op| op.len() + OP_HEAD).sum(),
            Request::Put { key, value, .. } => key.len() + value.len() + OP_HEAD,
            Request::Delete { key, .. } => key.len() + OP_HEAD,
            Request::Import { records, .. } => import_bytes(records),
            Request::Members { members, .. } => size_of_val(&members[..]),
            Request::Read { .. } | Request::Status { .. } | Request::Query(_) | Request::Close { .. } => 0,
        }
    }
}

/// Bytes of the records of an import, about.
pub(crate) fn import_bytes(records: &[Record]) -> usize {
    let of_commit = |record: &Record| if let Record::Commit(commit) = record { commit.bytes().len() } else { 0 };
    records.iter().map(|record| size_of::<Record>() + of_commit(record)).sum()
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Append { .. } => "Append",
            Request::Put { .. } => "Put",
            Request::Delete { .. } => "Delete",
            Request::Import { .. } => "Import",
            Request::Read { .. } => "Read",
            Request::Members { .. } => "Members",
            Request::Status { .. } => "Status",
            Request::Query(_) => "Query",
            Request::Close { .. } => "Close",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vine_core::log::{Hlc, Op};

    use super::*;
    use crate::reply::pair;

    #[test]
    fn no_write_is_more_to_the_core_than_it_is_here() {
        let end = Arc::default();
        let bytes = |len| Bytes::from(vec![0; len]);
        for len in [0, 1, 127, 128, 16_383, 16_384, 200_000] {
            let (key, value) = (bytes(1024), bytes(len));
            let op = Op::Put { stamp: Hlc(u64::MAX), key: key.clone(), value: value.clone() };
            assert!(Request::Put { key: key.clone(), value, reply: pair(&end).0 }.bytes() >= op.encoded_len());
            let op = Op::Delete { stamp: Hlc(u64::MAX), key: key.clone() };
            assert!(Request::Delete { key, reply: pair(&end).0 }.bytes() >= op.encoded_len());
            let op = Op::Plain(bytes(len));
            assert!(Request::Append { ops: vec![bytes(len)], reply: pair(&end).0 }.bytes() >= op.encoded_len());
        }
    }
}
