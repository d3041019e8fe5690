//! vine-core: the vine protocol as one pure state machine.
#![no_std]

extern crate alloc;

mod command;
mod config;
mod counters;
mod event;
pub mod identity;
pub mod membership;
pub mod node;
pub mod overlay;
pub mod path;
mod peer;
pub mod rng;
pub mod session;
pub mod time;
mod timers;
pub mod wire;

pub use command::{Command, CommandError};
pub use config::{ConfigError, NetworkId, NetworkKey, NodeConfig, PeerConfig, Policy};
pub use counters::{Counters, DropReason};
pub use event::{DownReason, Event};
pub use identity::{Identity, PeerId};
pub use node::{Enqueue, Inbound, Node, Output};
pub use time::{Instant, UnixTime};
