//! The disk, as the log asks for it: numbered files, each operation with a token and a result that may be a failure.
//!
//! The log does no I/O. It hands out [`DiskOp`]s, and a driver performs them on real files (`vine-store`) or on a simulated
//! disk that tears, rots, lies and crashes. What a driver has to keep:
//!
//! - Operations take effect in the order in which they were handed out, and their results are reported in that order.
//! - A [`DiskOp::Write`] that failed may have been done in part. After a failed [`DiskOp::Sync`] nothing is known of what was
//!   written since the last one that succeeded.
//! - An operation is reported as done only when it is: a [`DiskOp::Sync`] that returned early loses acknowledged writes.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

/// The most bytes that one [`DiskOp::Read`] asks for.
pub const READ_MAX: u32 = 256 * 1024;

/// The greatest number of a file. No store comes to it: a file with a greater one was not written by vine.
pub const MAX_FILE: u64 = 1 << 62;

/// A file of the store, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    /// The file's name in the directory of a store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.seg", self.0)
    }
}

/// Ties a result to its operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// One operation on the files of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOp {
    /// Names every file of the store, with its length in bytes.
    List,
    /// Makes a file that must not exist yet, `size` bytes long. They read as zeros, and their space is reserved: that there
    /// is none left is known here and not when they are written.
    Create {
        /// The new file.
        file: FileId,
        /// Its length in bytes.
        size: u64,
    },
    /// Writes all of `bytes` at `offset`.
    Write {
        /// The file.
        file: FileId,
        /// Bytes from its beginning.
        offset: u64,
        /// What to write.
        bytes: Bytes,
    },
    /// Reads `len` bytes at `offset`; fewer only where the file ends.
    Read {
        /// The file.
        file: FileId,
        /// Bytes from its beginning.
        offset: u64,
        /// At most [`READ_MAX`].
        len: u32,
    },
    /// Makes what was written to the file so far durable (fdatasync).
    Sync {
        /// The file.
        file: FileId,
    },
    /// Makes the names that were created and removed so far durable.
    SyncDir,
    /// Cuts the file to `size` bytes.
    Truncate {
        /// The file.
        file: FileId,
        /// Its new length in bytes.
        size: u64,
    },
    /// Removes the file.
    Remove {
        /// The file.
        file: FileId,
    },
}

impl DiskOp {
    /// The file that the operation is about.
    pub fn file(&self) -> Option<FileId> {
        match self {
            DiskOp::List | DiskOp::SyncDir => None,
            DiskOp::Create { file, .. }
            | DiskOp::Write { file, .. }
            | DiskOp::Read { file, .. }
            | DiskOp::Sync { file }
            | DiskOp::Truncate { file, .. }
            | DiskOp::Remove { file } => Some(*file),
        }
    }

    /// The bytes that the operation reads or writes: the first of them, and the first behind them.
    pub fn range(&self) -> Option<(u64, u64)> {
        match self {
            DiskOp::Write { offset, bytes, .. } => Some((*offset, offset.saturating_add(bytes.len() as u64))),
            DiskOp::Read { offset, len, .. } => Some((*offset, offset.saturating_add(u64::from(*len)))),
            _ => None,
        }
    }

    /// What the operation does, in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            DiskOp::List => "list the directory",
            DiskOp::Create { .. } => "create",
            DiskOp::Write { .. } => "write",
            DiskOp::Read { .. } => "read",
            DiskOp::Sync { .. } => "sync",
            DiskOp::SyncDir => "sync the directory",
            DiskOp::Truncate { .. } => "truncate",
            DiskOp::Remove { .. } => "remove",
        }
    }
}

/// What an operation gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskDone {
    /// The files of the store and their lengths in bytes, in any order: the answer to [`DiskOp::List`].
    Listed(Vec<(FileId, u64)>),
    /// The answer to [`DiskOp::Read`].
    Read(Vec<u8>),
    /// The answer to everything else.
    Done,
}

/// Why an operation failed, as far as the log treats failures differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskErrorKind {
    /// The disk, or what the store may use of it, is full.
    NoSpace,
    /// The file system takes no writes, or none from this process.
    ReadOnly,
    /// There is no such file.
    NotFound,
    /// The file is there already.
    Exists,
    /// The device failed.
    Io,
}

/// A failed operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{}", self.text(), Code(self.code))]
pub struct DiskError {
    /// What kind of failure.
    pub kind: DiskErrorKind,
    /// The host's error number (errno), or 0 where it gave none.
    pub code: i32,
}

impl DiskError {
    fn text(&self) -> &'static str {
        match self.kind {
            DiskErrorKind::NoSpace => "no space left on the disk",
            DiskErrorKind::ReadOnly => "the files cannot be written",
            DiskErrorKind::NotFound => "no such file",
            DiskErrorKind::Exists => "the file exists already",
            DiskErrorKind::Io => "input/output error",
        }
    }
}

/// An error number behind a text, unless there is none.
struct Code(i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " (error {})", self.0) }
    }
}

/// How an operation ended.
pub type DiskResult = Result<DiskDone, DiskError>;
