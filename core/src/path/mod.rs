//! Paths: one local/remote address pair each, proven in both directions before they carry data.
//!
//! A session belongs to two peers; a path is one way to carry it. [`PathSet`] holds the few paths of one peer, decides
//! which are *usable* (a Ping sent on the path was answered), which are *suspect* (something was sent and no receipt came
//! back in time) and which one is preferred. It never sends anything itself: it says what is due and the node sends it.

pub mod candidate;
pub mod checks;
pub mod mapping;
pub mod rendezvous;
mod rtt;
mod select;
mod set;

pub use rtt::RttEstimator;
pub use select::SwitchReason;
pub use set::{DueProbe, MAX_PATHS, Path, PathSet, PathSlot, PathState, Proof};

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Which of the runtime's sockets a datagram came by or goes to. The runtime numbers its sockets as it likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u8);

/// Address family of a socket or an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address. An IPv4-mapped IPv6 address is IPv6: the runtime opens IPv6 sockets as V6-only.
    pub fn of(addr: &SocketAddr) -> Family {
        match addr {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        }
    }
}

/// A socket that the runtime has opened, so that the core can choose one for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketInfo {
    /// The runtime's number for it.
    pub id: SocketId,
    /// The only family of addresses that it reaches.
    pub family: Family,
}

/// The addresses of a path as this node sees them.
///
/// `local` is the address a datagram arrived on, where the runtime knows it; `None` leaves the choice of source address to
/// the kernel's routing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FourTuple {
    /// The socket, and with it the local port.
    pub socket: SocketId,
    /// The local address, where it is pinned.
    pub local: Option<IpAddr>,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl FourTuple {
    /// Whether a datagram that arrived by `arrival` belongs to this path: a path whose local address is open takes any.
    pub fn admits(&self, arrival: &FourTuple) -> bool {
        self.socket == arrival.socket
            && self.remote == arrival.remote
            && (self.local == arrival.local || self.local.is_none() || arrival.local.is_none())
    }
}

impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "udp {local} -> {}", self.remote),
            None => write!(f, "udp {}", self.remote),
        }
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {self}", self.socket.0)
    }
}

/// How the preferred path came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathClass {
    /// Reached at an address that configuration, or the peer itself, named.
    Direct,
}

impl PathClass {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PathClass::Direct => "direct",
        }
    }
}
