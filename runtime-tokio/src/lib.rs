//! Drives [`vine_core`] with tokio: UDP sockets, a TUN interface with its addresses and routes, the clock, randomness.
//!
//! The protocol is the core's; this crate is the adapter between it and one host. [`Engine::start`] opens what the
//! configuration asks for and starts one task that owns the [`Node`](vine_core::Node). There is no lock around the node and
//! no channel for packets: the task reads the TUN and the sockets, calls the node, and writes what comes out.
//!
//! ```text
//!   TUN --> handle_tun --> Batch --------------> segmented UDP sends
//!   TUN <-- Gather <------ handle_datagram <---- batches of UDP receives
//!                          poll_output --------> single UDP sends, events
//!   EngineHandle --------> query, command, ping, reload, shutdown: closures that the task runs between packets
//! ```
//!
//! Each turn does a bounded amount of work for every source and then yields, so that neither a flood on one side nor a
//! burst on the other keeps timers, requests or the rest of the runtime waiting for more than some milliseconds.
//!
//! Without privileges, [`memory_tun`] stands in for the TUN interface, and for a network that this host does not have
//! [`memory_udp`] for the sockets:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use vine_core::{Identity, NetworkId, NodeConfig, Policy};
//! use vine_tokio::{Device, Engine, EngineConfig, aes_is_fast, memory_tun};
//!
//! let node = NodeConfig {
//!     network_id: NetworkId::new("example").unwrap(),
//!     network_key: None,
//!     sockets: vec![], // Filled in by the engine.
//!     peers: vec![],
//!     policy: Policy::default(),
//!     own_prefixes: vec!["10.42.0.1/32".parse().unwrap()],
//!     mtu: 1400,
//!     aes_is_fast: aes_is_fast(),
//!     checksum_offload: false, // Filled in by the engine.
//! };
//! let (device, host) = memory_tun(64);
//! let listen = vec!["udp://127.0.0.1:0".parse().unwrap()];
//! let config = EngineConfig::new(node, Identity::from_seed([1; 32]), listen, Device::Memory(device));
//! let engine = Engine::start(config).await.unwrap();
//! assert_eq!(engine.query(|node, _now| node.peers().count()).await.unwrap(), 0);
//! engine.shutdown().await;
//! # drop(host);
//! # });
//! ```

mod address;
mod counters;
mod crypto;
mod engine;
#[cfg(target_os = "linux")]
mod linux;
mod memory_udp;
mod tun;
mod udp;

#[cfg(target_os = "linux")]
use linux as host;

#[cfg(not(target_os = "linux"))]
compile_error!("vine-tokio knows Linux only so far: another host is a second folder beside src/linux");

pub use address::{AddressError, Endpoint, ListenAddr};
pub use counters::{Count, RuntimeCounters};
pub use crypto::{Ring, aes_is_fast};
pub use engine::{
    Bootstrap, Device, Engine, EngineConfig, EngineHandle, Exit, PingError, Pong, Reload, ReloadError, StartError,
    Stopped, Underlay,
};
pub use host::network::NetworkError;
pub use host::tun::TunError;
pub use memory_udp::{MemoryDatagram, MemoryUdp, MemoryUdpNetwork, memory_udp};
pub use tun::{MemoryTun, MemoryTunHost, TunConfig, VNET_HEADER, memory_tun};
pub use udp::BindError;
