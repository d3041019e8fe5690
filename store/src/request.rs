//! What is asked of the store's thread.

use bytes::Bytes;

use crate::core::{Cursor, Delivered, ReadError, Report};
use crate::reply::Reply;
use crate::{Position, Status};

/// A request with the way back.
#[derive(Debug)]
pub(crate) enum Request {
    Append { ops: Vec<Bytes>, reply: Reply<Position> },
    Put { key: Bytes, value: Bytes, reply: Reply<Position> },
    Delete { key: Bytes, reply: Reply<Position> },
    Read { read: Read, reply: Reply<Batch> },
    Status { reply: Reply<Status> },
    Report { reply: Reply<Report> },
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

/// What was read: ops in the order of their ordinals.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The ops.
    pub items: Vec<Delivered>,
    /// Where to go on.
    pub next: Cursor,
    /// A range behind the items that cannot be read; `next` lies behind it.
    pub damaged: Option<ReadError>,
}

impl Request {
    /// How many bytes it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Append { ops, .. } => ops.iter().map(|op| op.len() + size_of::<Bytes>()).sum(),
            Request::Put { key, value, .. } => key.len() + value.len(),
            Request::Delete { key, .. } => key.len(),
            _ => 0,
        }
    }
}
