//! The durable log of `vine-core` on real files.
#![warn(clippy::unwrap_used)]

mod error;
mod export;
mod files;
mod handle;
mod import;
mod inbox;
mod lock;
mod reply;
mod request;
mod subscription;
mod tickets;
mod verification;
mod verifier;
mod worker;

pub use crate::error::{OpenError, StoreError};
pub use crate::export::{ExportError, Exporter, LeftOut};
pub use crate::files::{FileSystemError, Files, Room, room};
pub use crate::handle::{Figures, Handle, Imported, MAX_SCAN, Options, Position, Scanned, Status};
pub use crate::import::{ImportError, Importer, Records, Unpacker};
pub use crate::inbox::Pending;
pub use crate::lock::{Lock, LockError};
pub use crate::request::Batch;
pub use crate::subscription::{Change, Item, Subscription, Watch, Watched};
pub use crate::verification::Verification;
