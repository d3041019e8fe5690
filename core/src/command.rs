//! What the operator, or the runtime on the host's behalf, may ask of a node.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::config::{ConfigError, PeerConfig, Policy};
use crate::identity::PeerId;
use crate::time::UnixTime;

/// A request to a [`Node`](crate::Node).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Replaces the list of allowed peers. Sessions of peers that stay are not disturbed; peers that are gone are told so.
    SetPeers(Vec<PeerConfig>),
    /// Replaces what is permitted.
    SetPolicy(Policy),
    /// Replaces where a peer may be found (a name was resolved anew).
    SetEndpoints {
        /// Which peer.
        peer: PeerId,
        /// Where.
        endpoints: Vec<SocketAddr>,
    },
    /// Sends a Ping over the peer's session; the answer is an [`Event::PingReply`](crate::Event::PingReply).
    Ping {
        /// Which peer.
        peer: PeerId,
        /// Comes back in the event.
        token: u64,
    },
    /// The host's own addresses changed, or it woke from sleep: every path is proven anew at once.
    NetworkChanged {
        /// The addresses that the host has now.
        local: Vec<IpAddr>,
    },
    /// The wall clock was set.
    SetUnixTime(UnixTime),
    /// Says goodbye to every peer. What [`Node::poll_output`](crate::Node::poll_output) returns afterwards is the goodbye.
    Shutdown,
}

/// Why a command was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// No such peer is allowed.
    #[error("no such peer")]
    UnknownPeer,
    /// There is no session with the peer; one is being sought.
    #[error("not connected")]
    NotConnected,
    /// Too many Pings to this peer are unanswered.
    #[error("too many pings are waiting for an answer")]
    TooManyPings,
    /// The new list of peers is not valid; the old one stays.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node has shut down.
    #[error("the node has shut down")]
    ShutDown,
}
