//! Packets that a path does not carry whole: they are cut into fragments, or the host is told.

use alloc::vec;

use super::relay::Carriage;
use super::{Node, Outgoing, PeerIndex};
use crate::counters::DropReason;
use crate::overlay::{ChecksumMode, Fragments, MAX_TOO_BIG_LEN, Segments, TunPacket, write_too_big};
use crate::path::PathSlot;
use crate::wire::{HEADER_LEN, Lane, Message, MessageWriter, OVERHEAD, TAG_LEN};

/// Every link of the overlay carries packets of this length (RFC 8200, section 5), in fragments if need be.
pub(crate) const MIN_LINK_MTU: usize = 1280;

impl Node {
    /// Sends a packet that is longer than `room`, the longest that the path carries whole: in fragments where that is right,
    /// else not at all, and then the host is told.
    pub(super) fn send_too_long(&mut self, index: PeerIndex, packet: &TunPacket<'_>, carriage: Carriage, room: usize) {
        let segments = Segments::new(packet, ChecksumMode::Full);
        let paths = self.peer(index).map(|peer| &peer.paths);
        let is_settled = paths.is_none_or(|paths| paths.is_mtu_settled());
        let host_mtu = paths.and_then(|paths| paths.host_mtu()).unwrap_or(room);
        if is_settled && segments.segment_len(0) > MIN_LINK_MTU {
            let mut answer = [0; MAX_TOO_BIG_LEN];
            let mtu = host_mtu.max(MIN_LINK_MTU);
            if let Some(length) = write_too_big(packet.ip(), mtu, packet.ip().destination(), &mut answer) {
                self.shared.counters.drop(DropReason::TooLarge);
                self.give_host(answer.get(..length).unwrap_or_default());
                return;
            }
        }
        for i in 0..segments.count() {
            let mut bytes = vec![0; segments.segment_len(i)];
            segments.write(i, &mut bytes);
            if self.send_fragments(index, &bytes, carriage, room).is_none() {
                self.shared.counters.drop(DropReason::TooLarge);
            }
        }
    }

    /// Cuts one packet, and seals its parts on the preferred path.
    pub(super) fn send_fragments(
        &mut self,
        index: PeerIndex,
        packet: &[u8],
        carriage: Carriage,
        room: usize,
    ) -> Option<()> {
        let mirror = self.mirror(index);
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        let PathSlot(slot) = peer.paths.preferred_slot()?;
        peer.sessions.sender(now)?;
        let id = peer.next_fragment;
        let parts = Fragments::new(packet, id, room)?;
        peer.next_fragment = id.wrapping_add(1);
        let before = carriage.header.map_or(0, |header| header.len());
        for part in parts {
            let message = Message::Fragment(part);
            let mut datagram = vec![0; before + OVERHEAD + message.encoded_len()].into_boxed_slice();
            let length = datagram.len() - before;
            let (wrapper, envelope) = datagram.split_at_mut(before);
            wrapper.copy_from_slice(carriage.header.as_ref().map_or(&[], |header| header.as_slice()));
            let end = envelope.len() - TAG_LEN;
            MessageWriter::new(envelope.get_mut(HEADER_LEN..end)?).push(&message).ok()?;
            let session = peer.sessions.sender(now)?;
            let counter = session.tunnel.seal(Lane(slot + 1), false, envelope).ok()?;
            peer.tx_bytes += datagram.len() as u64;
            peer.paths.on_data_sent(now, PathSlot(slot), (counter, length), || shared.rng.u64());
            shared.counters.fragments_sent += 1;
            let envelope = datagram.get(before..).unwrap_or_default();
            mirror.iter().for_each(|mirror| mirror.copy(peer, shared, envelope));
            shared.send(Outgoing::Ready { to: carriage.to, datagram });
        }
        peer.last_sent = now;
        shared.counters.packets_sent += 1;
        shared.counters.bytes_sent += packet.len() as u64;
        shared.counters.relay_usage += u64::from(carriage.header.is_some());
        self.reschedule(index);
        Some(())
    }

    /// Gives the host a packet.
    pub(super) fn give_host(&mut self, packet: &[u8]) {
        self.shared.send(Outgoing::Host { packet: packet.into() });
    }

    /// A packet of a peer that came in fragments and is whole now.
    pub(super) fn on_reassembled(&mut self, index: PeerIndex, packet: &mut [u8]) -> Result<(), DropReason> {
        let packet = super::ingress::accept_packet(&self.routes, &mut self.shared, index, || None, packet, false)?;
        self.shared.send(Outgoing::Host { packet: (&*packet).into() });
        Ok(())
    }

    /// Searches for what the paths carry.
    pub(super) fn maintain_mtu(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        while let Some((slot, probe)) = peer.paths.poll_mtu(now, || shared.rng.u64()) {
            let size = u16::try_from(probe.size).unwrap_or(u16::MAX);
            let message = super::Control::PaddedPing { token: probe.token, size };
            shared.send(Outgoing::Control { peer: index, slot, message });
        }
    }
}
