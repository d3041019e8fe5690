//! A peer's deadline came.

use super::{Control, FIRST_SLOT, Node, PeerIndex, Send};
use crate::counters::DropReason;
use crate::event::DownReason;
use crate::wire::CloseReason;

impl Node {
    /// Does everything that is due for a peer, and sets its next deadline.
    pub(super) fn maintain(&mut self, index: PeerIndex) {
        self.maintain_sessions(index);
        self.maintain_paths(index);
        self.maintain_greeting(index);
        self.maintain_keepalive(index);
        self.reschedule(index);
    }

    fn maintain_sessions(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        if peer.sessions.expire(now, &mut shared.indices) {
            shared.counters.session_failures += 1;
            peer.greet(now);
        }
        while let Some(session) = peer.sessions.poll_finish(now) {
            shared.send(Send::HelloFinish { peer: index, index: session });
        }
        if peer.receipts.is_due(now)
            && let Some(slot) = peer.control_path()
        {
            shared.send(Send::Control { peer: index, slot, message: Control::Receipt });
        }
    }

    fn maintain_paths(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        peer.paths.check_liveness(now, || shared.rng.u64());
        let (lost, in_doubt) = (peer.is_lost(now), peer.session_in_doubt(now));
        if in_doubt {
            peer.greet(now);
        }
        self.send_probes(index);
        self.update_paths(index);
        if lost {
            self.set_down(index, DownReason::Unreachable);
        }
    }

    /// Sends the Pings that are due.
    pub(super) fn send_probes(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        while let Some(probe) = peer.paths.poll_probe(shared.now) {
            let message = Control::Ping { token: probe.token };
            shared.send(Send::Control { peer: index, slot: probe.slot, message });
        }
    }

    fn maintain_greeting(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(greeting) = peer.greeting.as_ref().filter(|greeting| greeting.next <= now) else { return };
        let attempts = greeting.attempts;
        let interval = shared.rng.jitter(peer.hello_interval(now, attempts), 10);
        if let Some(greeting) = peer.greeting.as_mut() {
            greeting.attempts += 1;
            greeting.last = Some(now);
            greeting.next = now + interval;
        }
        match &peer.initiation {
            Some(initiation) if !initiation.is_stale(now) => self.send_hello(index),
            stale => {
                shared.counters.session_failures += u64::from(stale.is_some());
                self.say_hello(index, None, now);
            }
        }
    }

    fn maintain_keepalive(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        // The peer sees this node at an address that the host does not have: a NAT is between them.
        let behind_nat = match (&shared.addresses, peer.observed) {
            (Some(addresses), Some(observed)) => !addresses.contains(&observed.ip()),
            _ => true,
        };
        peer.set_keepalive(behind_nat && peer.sessions.current.is_some());
        if !peer.keepalive_due(now) {
            return;
        }
        if let Some(session) = peer.sessions.current.as_ref()
            && session.is_due_for_idle_rekey(now)
        {
            peer.greet(now);
        }
        if let Some(slot) = peer.control_path() {
            shared.send(Send::Control { peer: index, slot, message: Control::Keepalive });
        }
    }

    /// Says goodbye to a peer and forgets the session. The datagram is made here, as its keys go.
    pub(super) fn goodbye(&mut self, index: PeerIndex, reason: CloseReason) {
        let Some((peer, _)) = self.peer_mut(index) else { return };
        let slot = peer.control_path().unwrap_or(FIRST_SLOT);
        let sealed = self.seal_close(index, slot, reason);
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some((path, datagram)) = sealed {
            shared.send(Send::Ready { path, datagram });
        }
        peer.sessions.close_all(&mut shared.indices);
        while peer.queue.pop().is_some() {
            shared.counters.drop(DropReason::NoSession);
        }
    }
}
