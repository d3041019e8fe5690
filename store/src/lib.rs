//! The durable log of `vine-core` on real files.
#![warn(clippy::unwrap_used)]

mod files;
mod fill;
mod lock;

pub use files::{FileSystemError, Files};
pub use lock::Lock;
