//! Turns what waits to be sent into bytes.

use alloc::boxed::Box;

use super::{Control, Node, Outgoing, PeerIndex};
use crate::path::{FourTuple, PathSlot};
use crate::session::Session;
use crate::session::tunnel::LaneReceived;
use crate::time::Instant;
use crate::wire::{CloseReason, HEADER_LEN, Lane, Message, MessageWriter, OVERHEAD, TAG_LEN};

/// Control messages of one envelope fit into this many bytes: eight receipts, or a Pong.
const CONTROL_LEN: usize = 512;

impl Node {
    /// Builds a datagram at the start of `scratch`. `None` where its reason is gone meanwhile.
    pub(super) fn build(&mut self, send: Outgoing, scratch: &mut [u8]) -> Option<(FourTuple, usize)> {
        match send {
            Outgoing::Cookie { path, index, hello_mac } => {
                let shared = &mut self.shared;
                let cookie = shared.jar.cookie(shared.now, path.remote, path.socket.0);
                shared.counters.cookies_sent += 1;
                copy(path, &cookie.reply(shared.local.cookie_key(), index, &hello_mac), scratch)
            }
            Outgoing::Hello { peer, path } => copy(path, &self.peer(peer)?.initiation.as_ref()?.datagram, scratch),
            Outgoing::HelloAck { peer, index, path } => {
                copy(path, &self.peer(peer)?.sessions.pending(index)?.ack, scratch)
            }
            Outgoing::Ready { path, datagram } => copy(path, &datagram, scratch),
            Outgoing::HelloFinish { peer, index } => self.build_finish(peer, index, scratch),
            Outgoing::Control { peer, slot, message } => self.build_control(peer, slot, message, scratch),
            Outgoing::Packet { peer } => self.build_packet(peer, scratch),
        }
    }

    fn build_finish(&mut self, index: PeerIndex, session: u32, scratch: &mut [u8]) -> Option<(FourTuple, usize)> {
        let (peer, shared) = self.peer_mut(index)?;
        let slot = peer.control_path()?;
        let path = peer.paths.get(slot)?.addresses;
        if !peer.paths.may_send(slot, OVERHEAD) {
            return None;
        }
        let session = peer.sessions.get_mut(session)?;
        let datagram = session.tunnel.seal_hello_finish().ok()?;
        peer.note_sent(shared.now);
        copy(path, &datagram, scratch)
    }

    fn build_control(
        &mut self,
        index: PeerIndex,
        slot: PathSlot,
        message: Control,
        scratch: &mut [u8],
    ) -> Option<(FourTuple, usize)> {
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        let path = peer.paths.get(slot)?.addresses;
        let lanes = if matches!(message, Control::Receipt) { peer.receipts.take() } else { heapless::Vec::new() };
        let session = peer.sessions.current.as_mut()?;
        let len =
            write_control(session, slot, message, &lanes, now, scratch.get_mut(HEADER_LEN..HEADER_LEN + CONTROL_LEN)?)?;
        let datagram = scratch.get_mut(..len + OVERHEAD)?;
        if !peer.paths.may_send(slot, datagram.len()) {
            return None;
        }
        session.tunnel.seal(Lane::CONTROL, false, datagram).ok()?;
        peer.note_sent(now);
        Some((path, len + OVERHEAD))
    }

    /// Seals the oldest packet that waited for the session.
    fn build_packet(&mut self, index: PeerIndex, scratch: &mut [u8]) -> Option<(FourTuple, usize)> {
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        peer.flushing = peer.flushing.saturating_sub(1);
        let (slot, path) = peer.paths.preferred().map(|(slot, path)| (slot, path.addresses))?;
        let session = peer.sessions.sender(now)?;
        let packet = peer.queue.pop()?;
        let len = packet.len() + OVERHEAD;
        let datagram = scratch.get_mut(..len)?;
        datagram.get_mut(HEADER_LEN..len - TAG_LEN)?.copy_from_slice(&packet);
        let lane = Lane(slot.0 + 1);
        let counter = session.tunnel.seal(lane, false, datagram).ok()?;
        shared.counters.packets_sent += 1;
        shared.counters.bytes_sent += packet.len() as u64;
        peer.tx_bytes += len as u64;
        peer.note_sent(now);
        peer.paths.on_data_sent(now, slot, counter, || shared.rng.u64());
        self.reschedule(index);
        Some((path, len))
    }

    /// A sealed goodbye, and where it goes.
    pub(super) fn seal_close(
        &mut self,
        index: PeerIndex,
        slot: PathSlot,
        reason: CloseReason,
    ) -> Option<(FourTuple, Box<[u8]>)> {
        let mut scratch = [0; CONTROL_LEN + OVERHEAD];
        let (path, len) = self.build_control(index, slot, Control::Close { reason }, &mut scratch)?;
        Some((path, scratch.get(..len)?.into()))
    }
}

fn copy(path: FourTuple, datagram: &[u8], scratch: &mut [u8]) -> Option<(FourTuple, usize)> {
    scratch.get_mut(..datagram.len())?.copy_from_slice(datagram);
    Some((path, datagram.len()))
}

/// Writes the messages of one control envelope into `payload`. Returns their length.
fn write_control(
    session: &Session,
    slot: PathSlot,
    control: Control,
    lanes: &[u8],
    now: Instant,
    payload: &mut [u8],
) -> Option<usize> {
    let mut writer = MessageWriter::new(payload);
    match control {
        Control::Keepalive => {}
        Control::Ping { token } => writer.push(&Message::Ping { token, path: slot.0 }).ok()?,
        Control::Pong { token, path, arrived, observed } => {
            let delay_us = u64::try_from(now.since(arrived).as_micros()).unwrap_or(u64::MAX);
            writer.push(&Message::Pong { token, path, delay_us, observed }).ok()?;
        }
        Control::Receipt => {
            for lane in lanes.iter().map(|lane| Lane(*lane)) {
                // A lane of the former session has nothing to report under this one.
                if let Some(LaneReceived { largest, count }) = session.tunnel.received(lane) {
                    writer.push(&Message::Receipt { lane, largest, received: count }).ok()?;
                }
            }
            if writer.is_empty() {
                return None;
            }
        }
        Control::Close { reason } => writer.push(&Message::Close { reason }).ok()?,
    }
    Some(writer.len())
}
