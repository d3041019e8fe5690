//! vine-core: an encrypted mesh network as one pure state machine.
//!
//! The core is for whoever wants vine inside a runtime of their own, for tests that replay a network bit for bit, and for
//! fuzzers. It has no socket, no clock, no thread, no file and no randomness: packets, time and a seed come in, datagrams,
//! packets and events come out. `vine-tokio` drives it with real sockets and a TUN device, the simulator with a seeded
//! network on virtual time.
//!
//! # The flow of data
//!
//! ```text
//!   host (TUN)                              this crate                                network
//!
//!   packet  --> handle_tun ---> overlay: whose is it?  path: which way?  session: seal --> Batch
//!                                                                                            |
//!                                                                                      datagrams to send
//!
//!   packet  <-- Gather <------- overlay: is it theirs to send?  session: open <-- handle_datagram
//!                                              |
//!                               handshakes, probes, receipts: answered by poll_output
//! ```
//!
//! The hot path returns its result directly: [`Node::handle_tun`] seals into the caller's [`overlay::Batch`], and
//! [`Node::handle_datagram`] returns the packet that it opened in place. Everything else waits in the node until the caller
//! asks [`Node::poll_output`] for it.
//!
//! # Driving a node
//!
//! ```
//! use vine_core::path::{Family, FourTuple, SocketId, SocketInfo};
//! use vine_core::session::RustCrypto;
//! use vine_core::*;
//!
//! # fn identity(n: u8) -> Identity { Identity::from_seed([n; 32]) }
//! # fn node(own: Identity, peer: Identity, own_net: &str, peer_net: &str, at: Option<&str>) -> Node {
//! let config = NodeConfig {
//!     network_id: NetworkId::new("example").unwrap(),
//!     network_key: None,
//!     sockets: vec![SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 }],
//!     peers: vec![PeerConfig {
//!         id: peer.peer_id(),
//!         name: "beta".into(),
//!         prefixes: vec![peer_net.parse().unwrap()],
//!         relay_capable: false,
//!         last_known: vec![],
//!         endpoints: at.map(|at| at.parse().unwrap()).into_iter().collect(),
//!     }],
//!     policy: Policy::default(),
//!     own_prefixes: vec![own_net.parse().unwrap()],
//!     mtu: 1400,
//!     aes_is_fast: false,
//!     checksum_offload: false,
//! };
//! // The seed is 32 fresh random bytes. Time is whatever the caller says that it is.
//! let seed = [7; 32];
//! let mut node = Node::new(config, own, Box::new(RustCrypto), seed, Instant::ORIGIN, UnixTime(1_700_000_000_000)).unwrap();
//! # node
//! # }
//! # let mut alpha = node(identity(1), identity(2), "10.42.0.0/24", "10.42.1.0/24", Some("192.0.2.2:4100"));
//! # let mut beta = node(identity(2), identity(1), "10.42.1.0/24", "10.42.0.0/24", None);
//! # let (at_alpha, at_beta) = ("192.0.2.1:4100".parse().unwrap(), "192.0.2.2:4100".parse().unwrap());
//! # let arrived = |remote| FourTuple { socket: SocketId(0), local: None, remote };
//!
//! // Two nodes in one thread: what one sends, the other receives a millisecond later.
//! let mut scratch = vec![0; Node::SCRATCH_LEN];
//! let mut events = Vec::new();
//! let mut now = Instant::ORIGIN;
//! for _ in 0..100 {
//!     while let Some(output) = alpha.poll_output(&mut scratch) {
//!         match output {
//!             Output::Transmit { len, .. } => _ = beta.handle_datagram(now, arrived(at_alpha), &mut scratch[..len]),
//!             Output::Tun { .. } => {} // A packet for the host: `scratch[..len]`.
//!             Output::Event(event) => events.push(event),
//!         }
//!     }
//!     while let Some(output) = beta.poll_output(&mut scratch) {
//!         if let Output::Transmit { len, .. } = output {
//!             _ = alpha.handle_datagram(now, arrived(at_beta), &mut scratch[..len]);
//!         }
//!     }
//!     now += core::time::Duration::from_millis(1);
//!     alpha.handle_timeout(now); // A real caller sleeps until poll_timeout() or an input.
//!     beta.handle_timeout(now);
//! }
//! assert!(events.contains(&Event::PeerUp { peer: beta.id() }));
//! ```
//!
//! # Rules
//!
//! - Any order of calls is legal, and no call has to follow another.
//! - The same inputs give the same outputs, byte for byte.
//! - Hostile bytes are dropped and counted ([`DropReason`]); a fault of one peer closes that peer; only [`Node::command`]
//!   returns errors. A panic means a bug in here.
//! - Every queue and table has a capacity and a policy for when it is full.
#![no_std]
#![warn(clippy::disallowed_types, clippy::disallowed_methods)]

extern crate alloc;

mod command;
mod config;
mod counters;
mod delivery;
mod event;
pub mod identity;
pub mod log;
pub mod membership;
pub mod node;
pub mod overlay;
pub mod path;
mod peer;
pub mod rate;
pub mod relay;
pub mod reliable;
pub mod rng;
pub mod session;
pub mod time;
mod timers;
pub mod wire;

pub use command::{Command, CommandError};
pub use config::{ConfigError, MAX_PEERS, NetworkId, NetworkKey, NodeConfig, PeerConfig, Policy};
pub use counters::{Counters, DropReason};
pub use event::{DownReason, Event};
pub use identity::{Identity, PeerId};
pub use node::{Inbound, Node, Output, SendError, TunOutcome};
pub use time::{Instant, UnixTime};
