//! What a node reports. Events never carry the hot path.

use core::time::Duration;

use crate::identity::PeerId;
use crate::path::{FourTuple, PathClass, SwitchReason, Via};
use crate::session::Cipher;

/// Something that an operator or an application may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A peer can be reached: a session is confirmed and a path is proven.
    PeerUp {
        /// Who.
        peer: PeerId,
    },
    /// A peer that was up can no longer be reached.
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Why.
        why: DownReason,
    },
    /// New session keys are in use with a peer.
    SessionEstablished {
        /// With whom.
        peer: PeerId,
        /// The cipher that was agreed on.
        cipher: Cipher,
        /// Whether this node said Hello.
        initiator: bool,
        /// Whether the peer restarted since the former session (or there was none).
        restarted: bool,
    },
    /// Data to a peer goes by another path.
    SessionSwitched {
        /// To whom.
        peer: PeerId,
        /// The former path and its class.
        from: Option<(Via<PeerId>, PathClass)>,
        /// The new one.
        to: (Via<PeerId>, PathClass),
        /// Why.
        why: SwitchReason,
        /// Where the former path was lost: the Pings that went by it since it last answered.
        unanswered: u16,
    },
    /// The answer to a `Ping` command.
    PingReply {
        /// Who answered.
        peer: PeerId,
        /// The token of the command.
        token: u64,
        /// The path on which the Ping was sent.
        path: Via<PeerId>,
        /// Its class.
        class: PathClass,
        /// Its round-trip time.
        rtt: Duration,
    },
    /// A key that is not in the list of allowed peers tried to connect. At most one such event a second.
    UnauthorizedPeer {
        /// The key, proven to be its sender's.
        peer: PeerId,
        /// Where from.
        from: FourTuple,
    },
}

/// Why a peer went down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// Nothing that was sent to it is receipted or answered.
    Unreachable,
    /// It said goodbye.
    Closed,
    /// It was removed from the configuration.
    Removed,
    /// The session's keys expired and no new ones could be agreed on.
    Expired,
}

impl DownReason {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DownReason::Unreachable => "unreachable",
            DownReason::Closed => "closed_by_peer",
            DownReason::Removed => "removed",
            DownReason::Expired => "expired",
        }
    }
}
