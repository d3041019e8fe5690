//! Paths: one local/remote address pair each, proven in both directions before they carry data.
//!
//! A session belongs to two peers; a path is one way to carry it: a pair of addresses, or a relay. [`PathSet`] holds the few
//! paths of one peer, decides which are *usable* (a Ping sent on the path was answered), which are *suspect* (something was
//! sent and no receipt came back in time), which are *lost* and sought again, and which one is preferred. It never sends
//! anything itself: it says what is due and the node sends it.

pub mod candidate;
pub mod checks;
mod liveness;
mod loss;
pub mod mapping;
mod mirror;
pub mod mtu;
pub mod recovery;
pub mod rendezvous;
mod retry;
mod rtt;
mod select;
mod set;

pub use liveness::{Path, PathState, Proof};
pub use rtt::RttEstimator;
pub use select::{Switch, SwitchReason};
pub use set::{DueProbe, MAX_PATHS, PathSet, PathSlot};

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::identity::PeerId;
use crate::overlay::PeerIndex;

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
    /// The port that it is bound to: with the host's addresses it is where peers may reach this node.
    pub port: u16,
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

    /// Whether this differs from `other` by the peer's port at most: the road is the same, and a NAT at its end has a mapping
    /// for each.
    pub(crate) fn shares_road(&self, other: &FourTuple) -> bool {
        self.remote.ip() == other.remote.ip() && FourTuple { remote: other.remote, ..*self }.admits(other)
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

/// The way that a path's datagrams take. `R` names a relay: inside a node by its index, in reports by its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via<R = PeerIndex> {
    /// Straight to the peer.
    Direct(FourTuple),
    /// To a third peer, which passes them on.
    Relay(R),
}

impl<R: Copy + PartialEq> Via<R> {
    /// The addresses, where no relay is between.
    pub fn direct(&self) -> Option<FourTuple> {
        match self {
            Via::Direct(addresses) => Some(*addresses),
            Via::Relay(_) => None,
        }
    }

    /// The relay.
    pub fn relay(&self) -> Option<R> {
        match self {
            Via::Direct(_) => None,
            Via::Relay(relay) => Some(*relay),
        }
    }

    /// Whether a datagram that arrived by `arrival` belongs to a path that goes this way.
    pub fn admits(&self, arrival: &Via<R>) -> bool {
        match (self, arrival) {
            (Via::Direct(addresses), Via::Direct(arrival)) => addresses.admits(arrival),
            (Via::Relay(relay), Via::Relay(arrival)) => relay == arrival,
            _ => false,
        }
    }
}

/// A relay is named by its fingerprint: reports that know its name put that in its place.
impl fmt::Display for Via<PeerId> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Direct(addresses) => addresses.fmt(f),
            Via::Relay(relay) => write!(f, "via {}", relay.fingerprint()),
        }
    }
}

impl Via {
    /// What stands for the sender's address where a Hello came this way: cookies and limits are bound to it. What a relay
    /// brings of the peer `leg_of` has an address of the discard prefix (RFC 6666), which no datagram can come from, and
    /// which is not that of another peer by the same relay.
    pub(crate) fn place(&self, leg_of: Option<PeerIndex>) -> (SocketAddr, u8) {
        match self {
            Via::Direct(addresses) => (addresses.remote, addresses.socket.0),
            Via::Relay(relay) => {
                let leg = leg_of.map_or(0, |peer| u128::from(peer.0) + 1);
                let address = Ipv6Addr::from((0x0100_u128 << 112) | u128::from(relay.0) << 33 | leg);
                (SocketAddr::from((address, 0)), u8::MAX)
            }
        }
    }
}

/// How a path came to be. Earlier ones are preferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathClass {
    /// Reached at an address that configuration named, that worked before, or that the peer came from by itself.
    Direct,
    /// Reached at an address that the two told each other through a third peer.
    SignalingThenDirect,
    /// Through a relay.
    Relay,
}

impl PathClass {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PathClass::Direct => "direct",
            PathClass::SignalingThenDirect => "signaling_then_direct",
            PathClass::Relay => "relay",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_a_relay_brings_have_a_place_each() {
        let place = |relay, leg: Option<u32>| Via::Relay(PeerIndex(relay)).place(leg.map(PeerIndex)).0;
        let places = [(1, None), (1, Some(0)), (1, Some(1)), (2, Some(0)), (1, Some(u32::MAX)), (2, None)];
        let mut all: alloc::vec::Vec<_> = places.map(|(relay, leg)| place(relay, leg)).into();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), places.len());
        assert!(all.iter().all(|place| matches!(place.ip(), IpAddr::V6(ip) if ip.segments()[..4] == [0x100, 0, 0, 0])));
    }
}
