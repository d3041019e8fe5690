//! Drives [`vine_core`] with tokio.
#![warn(missing_docs)]

mod address;
mod counters;
#[cfg(target_os = "linux")]
mod linux;
mod tun;
mod udp;

#[cfg(target_os = "linux")]
use linux as host;

#[cfg(not(target_os = "linux"))]
compile_error!("vine-tokio knows Linux only so far: another host is a second folder beside src/linux");

pub use address::{AddressError, Endpoint, ListenAddr};
pub use counters::{Count, RuntimeCounters};
pub use host::tun::TunError;
pub use tun::{MemoryTun, MemoryTunHost, TunConfig, VNET_HEADER, memory_tun};
pub use udp::BindError;
