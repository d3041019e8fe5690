//! The host could not send what it was given.

use super::{Instant, Node, PeerIndex};
use crate::path::{FourTuple, Via};

/// Why a datagram was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// It is longer than the host's own link takes (`EMSGSIZE`).
    TooLong,
    /// The host has no way there at the moment (`ENETUNREACH`, `EHOSTUNREACH`).
    Unreachable,
}

impl Node {
    /// Takes in that the host did not send a datagram of `length` bytes by `path`. To say so is good, and not to say so does
    /// no harm: silence tells it later.
    pub fn handle_send_error(&mut self, now: Instant, path: FourTuple, length: usize, error: SendError) {
        self.advance(now);
        if self.shared.shut_down {
            return;
        }
        match error {
            SendError::TooLong => self.on_too_long(path, length),
            SendError::Unreachable => self.on_unreachable(path),
        }
    }

    /// Every path that begins this way carries less, those through a relay there too.
    fn on_too_long(&mut self, path: FourTuple, length: usize) {
        let direct = Via::Direct(path);
        let is_there = |index: &PeerIndex| self.peer(*index).is_some_and(|peer| peer.paths.carrier() == Some(path));
        let relay = self.relays.iter().copied().find(is_there).map(Via::Relay);
        for index in self.peers.indices() {
            let Some((peer, shared)) = self.peer_mut(index) else { continue };
            for via in [Some(direct), relay].into_iter().flatten() {
                peer.paths.on_send_refused(shared.now, &via, length);
            }
            self.reschedule(index);
        }
    }

    /// The addresses that are being tried there cannot answer.
    fn on_unreachable(&mut self, path: FourTuple) {
        for index in self.peers.indices() {
            let Some((peer, _)) = self.peer_mut(index) else { continue };
            if let Some(search) = peer.search.as_mut() {
                search.checks.on_unsendable(path.remote);
            }
        }
    }
}
