//! The durable log of `vine-core` on real files.
#![warn(clippy::unwrap_used)]

mod error;
mod files;
mod handle;
mod inbox;
mod lock;
mod reply;
mod request;
mod stub;
mod subscription;
mod tickets;
mod worker;

use stub as core;

pub use crate::error::{OpenError, StoreError};
pub use crate::files::{FileSystemError, Files};
pub use crate::handle::{Figures, Handle, Options, Position, Status};
pub use crate::inbox::Pending;
pub use crate::lock::{Lock, LockError};
pub use crate::request::Batch;
pub use crate::subscription::{Item, Subscription};
