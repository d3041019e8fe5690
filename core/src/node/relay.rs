//! Relays: how an envelope leaves through one.

use super::{Node, PeerIndex};
use crate::path::{FourTuple, Via};
use crate::wire::HEADER_LEN;

/// How an envelope to a peer leaves this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carriage {
    /// Where its datagram goes.
    pub(super) to: FourTuple,
    /// What goes before it, for the relay.
    pub(super) header: Option<[u8; HEADER_LEN]>,
}

impl Node {
    /// How an envelope to `peer` leaves by `via`. `None` where the relay is not there (any more).
    pub(super) fn carriage(&self, _peer: Option<PeerIndex>, via: Via) -> Option<Carriage> {
        match via {
            Via::Direct(to) => Some(Carriage { to, header: None }),
            Via::Relay(_) => None,
        }
    }
}
