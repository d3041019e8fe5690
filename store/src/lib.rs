//! The durable log of `vine-core` on real files.
#![warn(clippy::unwrap_used)]

mod archive;
mod error;
mod files;
mod handle;
mod inbox;
mod lock;
mod reply;
mod request;
mod subscription;
mod tickets;
mod verification;
mod worker;

pub use crate::archive::{ExportError, ImportError};
pub use crate::error::{OpenError, StoreError};
pub use crate::files::{FileSystemError, Files};
pub use crate::handle::{Figures, Handle, Imported, MAX_SCAN, Options, Position, Scanned, Status};
pub use crate::inbox::Pending;
pub use crate::lock::{Lock, LockError};
pub use crate::request::Batch;
pub use crate::subscription::{Change, Item, Subscription, Watch, Watched};
pub use crate::verification::Verification;
