//! Control messages that must arrive: put into packets, acknowledged, and sent anew when they are lost.

use super::{Control, Node, Outgoing, PeerIndex};
use crate::counters::DropReason;
use crate::delivery::{Order, Topic};
use crate::path::PathSlot;
use crate::wire::{Ack, Message, RelayRole};

impl Node {
    /// Gives a peer a message that must arrive.
    pub(super) fn deliver(&mut self, index: PeerIndex, topic: Topic, message: &Message<'_>) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if peer.delivery.get_or_insert_default().push(topic, message).is_err() {
            shared.counters.drop(DropReason::ControlOverflow);
        }
        self.flush_delivery(index);
        self.reschedule(index);
    }

    /// Whether a peer's queue has room for what can be told later as well.
    pub(super) fn has_room(&self, index: PeerIndex) -> bool {
        self.peer(index).and_then(|peer| peer.delivery.as_ref()).is_none_or(|delivery| delivery.has_room())
    }

    /// Whether a statement about a channel to `other` is the newest one.
    pub(super) fn is_newest(&mut self, index: PeerIndex, (role, other): (RelayRole, &[u8; 32]), order: Order) -> bool {
        let Some(&other) = self.by_id.get(other) else { return true }; // It is refused in any case.
        let Some((peer, _)) = self.peer_mut(index) else { return false };
        peer.delivery.get_or_insert_default().is_newest(Topic::Relay(role, other), order)
    }

    /// Sends what waits, as far as a path and its congestion window let it.
    pub(super) fn flush_delivery(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let ready = peer.sessions.current.is_some() && peer.paths.preferred_slot().is_some();
        if ready && let Some(delivery) = peer.delivery.as_mut().filter(|delivery| delivery.wants_packet()) {
            delivery.flushing = shared.send(Outgoing::Reliable { peer: index, probe: None });
        }
    }

    /// Does what is due: acknowledgements, probes, and what was lost.
    pub(super) fn maintain_delivery(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(delivery) = peer.delivery.as_mut() else { return };
        for slot in delivery.on_timeout(now, &peer.paths) {
            shared.send(Outgoing::Reliable { peer: index, probe: Some(slot) });
        }
        let due = delivery.due_acks(now);
        if let Some(slot) = peer.control_path() {
            for path in due {
                shared.send(Outgoing::Control { peer: index, slot, message: Control::Ack { path } });
            }
        }
        self.flush_delivery(index);
    }

    /// A packet arrived by `slot` that is to be acknowledged; the peer calls its path `named`. Returns whether what it carries
    /// is new.
    pub(super) fn on_packet(&mut self, index: PeerIndex, slot: PathSlot, named: u8, number: u64) -> bool {
        let Some((peer, shared)) = self.peer_mut(index) else { return false };
        let is_new = peer.delivery.get_or_insert_default().on_packet(shared.now, named, number);
        peer.paths.note_packet(shared.now, slot, shared.rng.u64());
        self.send_probes(index);
        is_new
    }

    /// The peer acknowledges packets of this node.
    pub(super) fn on_ack(&mut self, index: PeerIndex, ack: &Ack<'_>) -> Result<(), DropReason> {
        let Some((peer, shared)) = self.peer_mut(index) else { return Ok(()) };
        let delivery = peer.delivery.as_mut().ok_or(DropReason::Malformed)?;
        let proves = delivery.on_ack(shared.now, ack, &mut peer.paths).map_err(|_| DropReason::Malformed)?;
        if proves {
            peer.paths.on_ack(shared.now, PathSlot(ack.path()));
            self.update_paths(index);
        }
        self.tell_deferred(index);
        self.flush_delivery(index);
        Ok(())
    }
}
