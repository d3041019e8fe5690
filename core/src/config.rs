//! What a node is told when it is made: its network, its peers, its host.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::identity::PeerId;
use crate::overlay::Prefix;
use crate::path::SocketInfo;
use crate::relay::RelayLimits;

/// Peers that a node holds at most.
pub const MAX_PEERS: usize = 4_096;

/// The name of a network, 1 to [`NetworkId::MAX_LEN`] bytes of UTF-8. Nodes of different networks cannot talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkId(String);

impl NetworkId {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Takes a name.
    ///
    /// # Errors
    /// [`ConfigError::NetworkId`] where it is empty or longer than [`NetworkId::MAX_LEN`] bytes.
    pub fn new(name: &str) -> Result<NetworkId, ConfigError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(ConfigError::NetworkId { len: name.len() });
        }
        Ok(NetworkId(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A secret that every node of a network holds beside its own identity. Used as the pre-shared key of the handshake.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NetworkKey([u8; 32]);

impl NetworkKey {
    /// Takes the 32 bytes.
    pub fn new(bytes: [u8; 32]) -> NetworkKey {
        NetworkKey(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(..)")
    }
}

/// One allowed peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    /// Its identity.
    pub id: PeerId,
    /// Its name, for people.
    pub name: String,
    /// The ranges that it owns.
    pub prefixes: Vec<Prefix>,
    /// Whether it may carry packets between two others.
    pub relay_capable: bool,
    /// Where it may be found. May be empty: then it has to find us, or a common peer helps.
    pub endpoints: Vec<SocketAddr>,
    /// Where it was reached in a former life of this node.
    pub last_known: Vec<SocketAddr>,
}

/// What this node permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Only the peers that are listed may connect, and nobody else learns that this node exists.
    pub strict_allowlist: bool,
    /// Packets may travel through a relay.
    pub allow_relay: bool,
    /// A direct path may be set up by signaling through a common peer.
    pub allow_signaling_upgrade: bool,
    /// What this node grants as a relay.
    pub relay: RelayLimits,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            strict_allowlist: true,
            allow_relay: true,
            allow_signaling_upgrade: true,
            relay: RelayLimits::default(),
        }
    }
}

/// Everything a [`Node`](crate::Node) is told at the start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The network.
    pub network_id: NetworkId,
    /// Its key, if it has one.
    pub network_key: Option<NetworkKey>,
    /// The sockets that the runtime has opened.
    pub sockets: Vec<SocketInfo>,
    /// The allowed peers.
    pub peers: Vec<PeerConfig>,
    /// What is permitted.
    pub policy: Policy,
    /// The ranges that this node itself owns. No peer may own an overlapping one.
    pub own_prefixes: Vec<Prefix>,
    /// Bytes of the longest packet that the host sends: the MTU of its TUN device.
    pub mtu: u16,
    /// Whether this machine computes AES-256-GCM faster than ChaCha20-Poly1305 (the adapter finds out).
    pub aes_is_fast: bool,
    /// Whether the host completes transport checksums of packets written to its TUN, so that peers may leave them open.
    pub checksum_offload: bool,
}

/// Why a configuration was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The network's name is empty or too long.
    #[error("network_id has {len} bytes; it must have 1 to {max}", max = NetworkId::MAX_LEN)]
    NetworkId {
        /// Its length in bytes.
        len: usize,
    },
    /// The node's own identity is among the peers.
    #[error("peer {name:?} has this node's own identity")]
    OwnIdentity {
        /// The peer's name.
        name: String,
    },
    /// An identity is listed twice.
    #[error("peers {first:?} and {second:?} have the same identity")]
    DuplicatePeer {
        /// The one listed first.
        first: String,
        /// The one listed later.
        second: String,
    },
    /// Two identities are one Noise static key, so that the handshake could not tell them apart.
    #[error("the identities of {first:?} and {second:?} are one X25519 key")]
    SharedStaticKey {
        /// The one listed first.
        first: String,
        /// The one listed later.
        second: String,
    },
    /// Two owners claim overlapping ranges.
    #[error("prefix {prefix} of {name:?} overlaps {other_prefix} of {other:?}")]
    OverlappingPrefix {
        /// The range.
        prefix: Prefix,
        /// Its owner.
        name: String,
        /// The range that it overlaps.
        other_prefix: Prefix,
        /// The owner of that one.
        other: String,
    },
    /// Where a peer may be found lies in a range of the overlay.
    #[error(
        "the endpoint {endpoint} lies in {prefix}, which {owner:?} owns: the way there would lead through the tunnel"
    )]
    EndpointInOverlay {
        /// The endpoint.
        endpoint: SocketAddr,
        /// The range.
        prefix: Prefix,
        /// The name of its owner.
        owner: String,
    },
    /// More peers than a node holds.
    #[error("{count} peers are listed; a node holds at most {max}", max = MAX_PEERS)]
    TooManyPeers {
        /// How many.
        count: usize,
    },
}
