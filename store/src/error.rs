//! What can go wrong.

use std::io;
use std::sync::Arc;

use vine_core::log::chain::Refusal;
use vine_core::log::report;
use vine_core::log::store::AppendError;
use vine_core::log::writer::Stopped;

use crate::files::FileSystemError;
use crate::lock::LockError;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Files(#[from] FileSystemError),
    /// Another process uses the store.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What lies in the directory cannot be opened. What it holds is as it was.
    #[error("cannot open the store in {dir}: {error}")]
    Refused {
        /// The directory.
        dir: String,
        /// What is wrong.
        error: report::OpenError,
    },
    /// The system gives no randomness or no thread.
    #[error("cannot open the store: {0}")]
    System(io::Error),
    /// The store's thread ended before the store was open.
    #[error(transparent)]
    Ended(StoreError),
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The write was not taken; only with [`AppendError::Unknown`] it is not known whether it is on the disk.
    #[error(transparent)]
    Append(AppendError),
    /// A record of an import was refused, and the whole import with it.
    #[error("record {record}: {refusal}")]
    Import {
        /// The number of the record in the import.
        record: usize,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// The queue of the store is full; nothing was queued.
    #[error("the store has as much to do as it queues: try again later")]
    Busy,
    /// A bug: a reading found neither ops nor damage where ops were taken.
    #[error("the log cannot be read on at ordinal {ordinal}, and no damage is seen there")]
    Stuck {
        /// The first op that is not found.
        ordinal: u64,
    },
    /// The disk failed: the log does not grow any more, and who follows it has all of it.
    #[error("the log has stopped: {0}")]
    Stopped(Stopped),
    /// The store was opened to be read.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A bug: the store's thread panicked with this message. What was acknowledged is durable all the same.
    #[error("the thread of the store panicked, open it again: {0}")]
    Panicked(Arc<str>),
}

impl From<AppendError> for StoreError {
    fn from(error: AppendError) -> StoreError {
        StoreError::Append(error)
    }
}
