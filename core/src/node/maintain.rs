//! A peer's deadline came.

use super::{Control, FIRST_SLOT, Node, Outgoing, PeerIndex};
use crate::counters::DropReason;
use crate::event::DownReason;
use crate::peer::Keepalive;
use crate::wire::CloseReason;

impl Node {
    /// Does everything that is due for a peer, and sets its next deadline.
    pub(super) fn maintain(&mut self, index: PeerIndex) {
        self.maintain_sessions(index);
        self.maintain_paths(index);
        self.maintain_greeting(index);
        self.maintain_keepalive(index);
        self.maintain_mtu(index);
        self.maintain_legs(index);
        self.maintain_search(index);
        self.maintain_delivery(index);
        self.maintain_reassembly(index);
        self.reschedule(index);
    }

    fn maintain_sessions(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let given_up = peer.sessions.expire(now, &mut shared.indices);
        peer.follow_session();
        if given_up {
            shared.counters.session_failures += 1;
            peer.greet(now);
        }
        let is_without = peer.sessions.current.is_none();
        while let Some(session) = peer.sessions.poll_finish(now) {
            shared.send(Outgoing::HelloFinish { peer: index, index: session });
        }
        if peer.receipts.is_due(now)
            && let Some(slot) = peer.control_path()
        {
            let slots = [(Some(slot), false), (peer.second_control_path(slot), true)];
            for (slot, again) in slots.into_iter().filter_map(|(slot, again)| Some((slot?, again))) {
                shared.send(Outgoing::Control { peer: index, slot, message: Control::Receipt { again } });
            }
        }
        if given_up && is_without {
            self.set_down(index, DownReason::Expired);
        }
    }

    fn maintain_paths(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        peer.paths.check_liveness(now, || shared.rng.u64());
        peer.paths.warm_standby(now, || shared.rng.u64());
        self.send_probes(index);
        self.ask_silent_relays(index);
        self.update_paths(index);
        let Some((peer, _)) = self.peer_mut(index) else { return };
        if peer.session_in_doubt(now) {
            peer.greet(now);
        }
        if peer.is_lost(now) {
            self.set_down(index, DownReason::Unreachable);
        }
    }

    /// Sends the Pings that are due.
    pub(super) fn send_probes(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        while let Some(probe) = peer.paths.poll_probe(shared.now, || shared.rng.u64()) {
            let message = Control::Ping { token: probe.token };
            shared.send(Outgoing::Control { peer: index, slot: probe.slot, message });
        }
    }

    pub(super) fn maintain_greeting(&mut self, index: PeerIndex) {
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
                let cookie = stale.as_ref().and_then(|initiation| initiation.next_cookie());
                shared.counters.session_failures += u64::from(stale.is_some() && peer.has_session());
                self.say_hello(index, cookie, now);
            }
        }
    }

    fn maintain_keepalive(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(kind) = peer.take_keepalive(now) else { return };
        if peer.sessions.current.as_ref().is_some_and(|session| session.is_due_for_idle_rekey(now)) {
            peer.greet(now);
        }
        match (kind, peer.control_path()) {
            (Keepalive::Asking, Some(slot)) => {
                peer.paths.probe(now, slot, shared.rng.u64());
                self.send_probes(index);
            }
            (Keepalive::Silent, Some(slot)) => {
                shared.send(Outgoing::Control { peer: index, slot, message: Control::Keepalive });
            }
            (_, None) => {}
        }
    }

    /// Forgets packets of which parts were lost.
    fn maintain_reassembly(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let Some(reassembly) = peer.reassembly.as_mut() else { return };
        reassembly.handle_timeout(shared.now);
        for _ in 0..reassembly.take_dropped() {
            shared.counters.drop(DropReason::Reassembly);
        }
        if reassembly.next_deadline().is_none() {
            peer.reassembly = None;
        }
    }

    /// Says goodbye to a peer and forgets the session. The datagram is made here, as its keys go.
    pub(super) fn goodbye(&mut self, index: PeerIndex, reason: CloseReason) {
        let Some((peer, _)) = self.peer_mut(index) else { return };
        let slot = peer.control_path().unwrap_or(FIRST_SLOT);
        let sealed = self.seal_close(index, slot, reason);
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some((to, datagram)) = sealed {
            shared.send(Outgoing::Ready { to, datagram });
        }
        peer.sessions.close_all(&mut shared.indices);
        for _ in 0..peer.queue.clear() {
            shared.counters.drop(DropReason::NoSession);
        }
    }
}
