//! Turns what waits to be sent into bytes.

use alloc::boxed::Box;

use super::{Control, Node, Outgoing, Output, PeerIndex};
use crate::path::{FourTuple, PathSlot, Via};
use crate::session::tunnel::LaneReceived;
use crate::session::{KeyAge, Session};
use crate::time::Instant;
use crate::wire::{CloseReason, HEADER_LEN, Lane, Message, MessageWriter, OVERHEAD, TAG_LEN};

/// Control messages of one envelope fit into this many bytes: eight receipts, an acknowledgement, or a Pong.
const CONTROL_LEN: usize = 512;

/// Messages that must arrive go in packets of this length: what every path carries, through a relay too.
const PACKET_LEN: usize = crate::reliable::MAX_MESSAGE_LEN + 16;

/// In place of a path's number: the Ping is sent to an address that is no path yet.
const NO_PATH: u8 = u8::MAX;

/// An envelope at the start of the scratch buffer, before it is known how it leaves.
#[derive(Clone, Copy)]
struct Built {
    /// For whom, where that is a peer.
    peer: Option<PeerIndex>,
    via: Via,
    len: usize,
}

impl Node {
    /// Builds an output at the start of `scratch`. `None` where its reason is gone meanwhile.
    pub(super) fn build(&mut self, send: Outgoing, scratch: &mut [u8]) -> Option<Output> {
        let built = match send {
            Outgoing::Ready { to, datagram } => {
                scratch.get_mut(..datagram.len())?.copy_from_slice(&datagram);
                return Some(Output::Transmit { path: to, len: datagram.len() });
            }
            Outgoing::Host { packet } => {
                scratch.get_mut(..packet.len())?.copy_from_slice(&packet);
                return Some(Output::Tun { len: packet.len() });
            }
            Outgoing::Cookie { peer, path, index, hello_mac } => {
                let shared = &mut self.shared;
                let (place, socket) = path.place(peer);
                let cookie = shared.jar.cookie(shared.now, place, socket);
                shared.counters.cookies_sent += 1;
                copy(peer, path, &cookie.reply(shared.local.cookie_key(), index, &hello_mac), scratch)?
            }
            Outgoing::Hello { peer, path } => {
                copy(Some(peer), path, &self.peer(peer)?.initiation.as_ref()?.datagram, scratch)?
            }
            Outgoing::HelloAck { peer, index, path } => {
                copy(Some(peer), path, &self.peer(peer)?.sessions.pending(index)?.ack, scratch)?
            }
            Outgoing::HelloFinish { peer, index } => self.build_finish(peer, index, scratch)?,
            Outgoing::Control { peer, slot, message } => self.build_control(peer, slot, message, scratch)?,
            Outgoing::Reliable { peer, probe } => self.build_reliable(peer, probe, scratch)?,
            Outgoing::Check { peer, via, token } => self.build_check(peer, via, token, scratch)?,
            Outgoing::Packet { peer } => self.build_packet(peer, scratch)?,
        };
        let (path, len) = self.dispatch(built, scratch)?;
        Some(Output::Transmit { path, len })
    }

    /// Where an envelope at the start of `scratch` leaves, wrapped for the relay if it takes one.
    fn dispatch(&self, built: Built, scratch: &mut [u8]) -> Option<(FourTuple, usize)> {
        let carriage = self.carriage(built.peer, built.via)?;
        let Some(header) = carriage.header else { return Some((carriage.to, built.len)) };
        let len = built.len + header.len();
        let wrapped = scratch.get_mut(..len)?;
        wrapped.copy_within(..built.len, header.len());
        wrapped.get_mut(..header.len())?.copy_from_slice(&header);
        Some((carriage.to, len))
    }

    fn build_finish(&mut self, index: PeerIndex, session: u32, scratch: &mut [u8]) -> Option<Built> {
        let (peer, shared) = self.peer_mut(index)?;
        let slot = peer.control_path()?;
        let via = peer.paths.get(slot)?.via;
        if !peer.paths.may_send(slot, OVERHEAD) {
            return None;
        }
        let session = peer.sessions.get_mut(session)?;
        let datagram = session.tunnel.seal_hello_finish().ok()?;
        peer.note_sent(shared.now);
        copy(Some(index), via, &datagram, scratch)
    }

    fn build_control(
        &mut self,
        index: PeerIndex,
        slot: PathSlot,
        message: Control,
        scratch: &mut [u8],
    ) -> Option<Built> {
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        let via = peer.paths.get(slot)?.via;
        let lanes = match message {
            Control::Receipt { again } => peer.receipts.take(again),
            _ => heapless::Vec::new(),
        };
        let room = match message {
            Control::PaddedPing { size, .. } => usize::from(size).checked_sub(peer.paths.get(slot)?.overhead())?,
            _ => CONTROL_LEN,
        };
        let mut writer = MessageWriter::new(scratch.get_mut(HEADER_LEN..HEADER_LEN + room)?);
        if let Control::Ack { path } = message {
            let ack = peer.delivery.as_mut()?.take_ack(now, path)?;
            writer.push(&Message::Ack(ack.as_ack())).ok()?;
        }
        let session = peer.sessions.current.as_mut()?;
        write_control(session, slot, message, &lanes, now, room, &mut writer)?;
        let len = writer.len();
        let datagram = scratch.get_mut(..len + OVERHEAD)?;
        if !peer.paths.may_send(slot, datagram.len()) {
            return None;
        }
        session.tunnel.seal(Lane::CONTROL, false, datagram).ok()?;
        peer.note_sent(now);
        Some(Built { peer: Some(index), via, len: len + OVERHEAD })
    }

    /// Seals a packet of messages that must arrive. Where the pacer holds it back, there is a new deadline.
    fn build_reliable(&mut self, index: PeerIndex, probe: Option<PathSlot>, scratch: &mut [u8]) -> Option<Built> {
        let built = self.seal_reliable(index, probe, scratch);
        if built.is_some() {
            self.flush_delivery(index);
        }
        self.reschedule(index);
        built
    }

    fn seal_reliable(&mut self, index: PeerIndex, probe: Option<PathSlot>, scratch: &mut [u8]) -> Option<Built> {
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        let slot = probe.filter(|slot| peer.paths.get(*slot).is_some()).or(peer.paths.preferred_slot());
        let delivery = peer.delivery.as_mut()?;
        if probe.is_none() {
            delivery.flushing = false;
        }
        let age = peer.sessions.current.as_mut()?.key_age(now);
        if age != KeyAge::Fresh {
            // Between two who send each other no packets nothing else asks for new keys.
            peer.greet(now);
        }
        let (slot, session) = (slot?, peer.sessions.sender(now)?);
        let delivery = peer.delivery.as_mut()?;
        let via = peer.paths.get(slot)?.via;
        let payload = scratch.get_mut(HEADER_LEN..HEADER_LEN + PACKET_LEN)?;
        let len = delivery.write_packet(now, &peer.paths, slot, OVERHEAD, probe.is_some(), payload)?;
        let datagram = scratch.get_mut(..len + OVERHEAD)?;
        session.tunnel.seal(Lane::CONTROL, false, datagram).ok()?;
        peer.note_sent(now);
        Some(Built { peer: Some(index), via, len: len + OVERHEAD })
    }

    /// Seals a Ping to an address that is no path.
    fn build_check(&mut self, index: PeerIndex, to: FourTuple, token: u64, scratch: &mut [u8]) -> Option<Built> {
        let (peer, shared) = self.peer_mut(index)?;
        let session = peer.sessions.current.as_mut()?;
        let mut writer = MessageWriter::new(scratch.get_mut(HEADER_LEN..HEADER_LEN + CONTROL_LEN)?);
        writer.push(&Message::Ping { token, path: NO_PATH }).ok()?;
        let len = writer.len() + OVERHEAD;
        session.tunnel.seal(Lane::CONTROL, false, scratch.get_mut(..len)?).ok()?;
        shared.counters.checks_sent += 1;
        Some(Built { peer: Some(index), via: Via::Direct(to), len })
    }

    /// Seals the oldest packet that waited for the session.
    fn build_packet(&mut self, index: PeerIndex, scratch: &mut [u8]) -> Option<Built> {
        let (peer, shared) = self.peer_mut(index)?;
        let now = shared.now;
        peer.flushing = peer.flushing.saturating_sub(1);
        let (slot, via, room) = peer.paths.preferred().map(|(slot, path)| (slot, path.via, path.room()))?;
        let carriage = self.carriage(Some(index), via)?;
        let (peer, shared) = self.peer_mut(index)?;
        let session = peer.sessions.sender(now)?;
        let packet = peer.queue.pop()?;
        if packet.len() > room {
            self.send_fragments(index, &packet, carriage, room);
            return None; // They wait behind this.
        }
        shared.counters.relay_usage += u64::from(carriage.header.is_some());
        let len = packet.len() + OVERHEAD;
        let datagram = scratch.get_mut(..len)?;
        datagram.get_mut(HEADER_LEN..len - TAG_LEN)?.copy_from_slice(&packet);
        let lane = Lane(slot.0 + 1);
        let counter = session.tunnel.seal(lane, false, datagram).ok()?;
        shared.counters.packets_sent += 1;
        shared.counters.bytes_sent += packet.len() as u64;
        peer.tx_bytes += len as u64;
        peer.note_sent(now);
        peer.paths.on_data_sent(now, slot, (counter, len), || shared.rng.u64());
        self.reschedule(index);
        Some(Built { peer: Some(index), via, len })
    }

    /// A sealed goodbye, and where it goes.
    pub(super) fn seal_close(
        &mut self,
        index: PeerIndex,
        slot: PathSlot,
        reason: CloseReason,
    ) -> Option<(FourTuple, Box<[u8]>)> {
        let mut scratch = [0; CONTROL_LEN + OVERHEAD + HEADER_LEN];
        let built = self.build_control(index, slot, Control::Close { reason }, &mut scratch)?;
        let (to, len) = self.dispatch(built, &mut scratch)?;
        Some((to, scratch.get(..len)?.into()))
    }
}

fn copy(peer: Option<PeerIndex>, via: Via, datagram: &[u8], scratch: &mut [u8]) -> Option<Built> {
    scratch.get_mut(..datagram.len())?.copy_from_slice(datagram);
    Some(Built { peer, via, len: datagram.len() })
}

/// Writes the messages of one control envelope. `None` where there is nothing to say.
fn write_control(
    session: &Session,
    slot: PathSlot,
    control: Control,
    lanes: &[u8],
    now: Instant,
    room: usize,
    writer: &mut MessageWriter<'_>,
) -> Option<()> {
    match control {
        Control::Keepalive | Control::Ack { .. } => {}
        Control::PaddedPing { token, .. } => {
            writer.push(&Message::Ping { token, path: slot.0 }).ok()?;
            writer.pad_to(room).ok()?;
        }
        Control::Ping { token } => writer.push(&Message::Ping { token, path: slot.0 }).ok()?,
        Control::Pong { token, path, arrived, observed } => {
            let delay_us = u64::try_from(now.since(arrived).as_micros()).unwrap_or(u64::MAX);
            writer.push(&Message::Pong { token, path, delay_us, observed }).ok()?;
        }
        Control::Receipt { .. } => {
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
    Some(())
}
