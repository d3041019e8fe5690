//! The durable log of `vine-core` on real files: an append-only log with a key-value view, for one process, in any runtime.
//!
//! A [`Handle`] is an open store. What it is asked is done by a thread of its own; every answer is a future for tasks, and can
//! be waited for in a plain thread. A write is answered when it is on the disk, synced, and not before. Many writers share
//! one sync.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use vine_core::log::Op;
//! use vine_core::{Identity, NetworkId};
//! use vine_store::{Handle, Item, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let dir = home.path().join("log");
//! // The identity signs what is written. A store belongs to one identity and one network.
//! let identity = Arc::new(Identity::from_seed([7; 32]));
//! let options = Options::new(NetworkId::new("example")?);
//! let store = Handle::open(&dir, identity, options)?;
//!
//! // In a task: store.append(..).await
//! let at = store.append(vec![Bytes::from("the door was opened")]).wait()?;
//! assert_eq!((at.first_ordinal, at.count), (0, 1));
//! store.put(Bytes::from("door"), Bytes::from("open")).wait()?;
//! assert_eq!(store.get(Bytes::from("door")).wait()?, Some(Bytes::from("open")));
//!
//! // Every op in the order in which this store took it, and those that are written later.
//! let mut ops = store.subscribe(0);
//! let Item::Op(first) = ops.wait_next()? else { panic!("it is damaged") };
//! assert_eq!(first.op, Op::Plain(Bytes::from("the door was opened")));
//!
//! store.close().wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied upon
//!
//! - **Acknowledged is durable.** It is there after a crash of the process or the machine, in the same order, once. What was
//!   not answered may be there or not ([`AppendError::Unknown`](vine_core::log::store::AppendError::Unknown)).
//! - **Ordinals are cursors.** They count all ops that this store took, from 0, and are never given twice. Who keeps the one
//!   behind the last that he has dealt with, goes on there with [`Handle::subscribe`] or [`Handle::read`].
//! - **Damage is told.** What cannot be read is an item of its own ([`Item::Damaged`]), and a part of the
//!   [report](Handle::report) of the opening. The rest stays in use, and nothing is thrown away.
//! - **Nothing piles up.** Who asks for more than fits into the queue waits, or is told ([`Handle::try_append`]); reading is as
//!   fast as it is taken.
//! - **One process writes.** Another one is refused ([`LockError::InUse`]).
//!
//! # Logs of other nodes
//!
//! A store holds the logs of others too, as far as they are members ([`Options::members`], [`Handle::set_members`]).
//! [`Exporter`] and [`Importer`] carry them as archives; every hash and signature is verified on the way in, by a second
//! thread. Stores that hold the same logs have the same [`Handle::state_hash`]. [`Verification`] reads every byte of a store
//! again, beside its writer if need be.
//!
//! # Inside
//!
//! ```text
//!   Handle --> Inbox --> Worker: vine_core::log::store::Store  <--> Files   one system call after the other
//!     ^                    |            ^
//!     |                    |            '-----------------------  Verifier  verifies imports beside
//!     '-----  Pending  <---'
//! ```
//!
//! All that decides is in the state machine of the core, which is tested on a simulated disk; here are threads, queues and
//! files. What lies on the disk is specified in `docs/log.md`.
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
