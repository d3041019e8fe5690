//! What is asked of the store's thread.

use std::fmt;

use bytes::Bytes;
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

impl Request {
    /// How many bytes it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Append { ops, .. } => ops.iter().map(|op| op.len() + size_of::<Bytes>()).sum(),
            Request::Put { key, value, .. } => key.len() + value.len(),
            Request::Delete { key, .. } => key.len(),
            Request::Import { records, .. } => records.iter().map(record_bytes).sum(),
            Request::Read { .. } | Request::Status { .. } | Request::Query(_) | Request::Close { .. } => 0,
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::Genesis(_) => size_of::<Record>(),
        Record::Commit(commit) => commit.bytes().len() + size_of::<Record>(),
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Append { .. } => "Append",
            Request::Put { .. } => "Put",
            Request::Delete { .. } => "Delete",
            Request::Import { .. } => "Import",
            Request::Read { .. } => "Read",
            Request::Status { .. } => "Status",
            Request::Query(_) => "Query",
            Request::Close { .. } => "Close",
        })
    }
}
