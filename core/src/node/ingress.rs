//! A datagram arrived.

use core::time::Duration;

use super::{Control, Instant, Node, Outgoing, PeerIndex, Shared};
use crate::counters::DropReason;
use crate::event::{DownReason, Event};
use crate::overlay::{IpPacket, RouteTable};
use crate::path::{FourTuple, PathSlot, Proof};
use crate::peer::{Link, Peer};
use crate::session::{OpenError, Session};
use crate::wire::{EnvelopeType, Flags, Header, HeaderError, Lane, Message, Messages, Payload};

/// An IP packet that a peer sent, opened in place in the datagram that carried it.
#[derive(Debug)]
#[must_use = "the packet is for the host"]
pub struct Inbound<'a> {
    /// Whose packet it is.
    pub peer: PeerIndex,
    /// The packet.
    pub packet: &'a mut [u8],
    /// Whether the sender left the transport checksum to be completed here: it holds the pseudo-header's sum only.
    pub csum_partial: bool,
}

impl Node {
    /// Takes in one datagram, which arrived by `path`. An IP packet for the host is returned; everything else is dealt with.
    /// Nothing that a stranger can send allocates, panics or gets an answer (but for a cookie, see `docs/protocol.md`).
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        path: FourTuple,
        datagram: &'a mut [u8],
    ) -> Option<Inbound<'a>> {
        self.advance(now);
        if self.shared.shut_down {
            return None;
        }
        let header = match Header::decode(datagram) {
            Ok(header) => header,
            Err(error) => {
                self.shared.counters.drop(match error {
                    HeaderError::Version(_) => DropReason::UnknownVersion,
                    HeaderError::Type(_) => DropReason::UnknownType,
                    _ => DropReason::Malformed,
                });
                return None;
            }
        };
        let outcome = match header.kind() {
            EnvelopeType::Sealed | EnvelopeType::HelloFinish => self.on_sealed(path, &header, datagram),
            EnvelopeType::Hello => self.on_hello(path, &header, datagram).map(|()| None),
            EnvelopeType::HelloAck => self.on_hello_ack(path, &header, datagram).map(|()| None),
            EnvelopeType::Cookie => self.on_cookie(&header, datagram).map(|()| None),
            EnvelopeType::Relayed => Err(DropReason::UnknownType),
        };
        match outcome {
            Ok(inbound) => inbound,
            Err(reason) => {
                self.shared.counters.drop(reason);
                None
            }
        }
    }

    fn on_sealed<'a>(
        &mut self,
        path: FourTuple,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Option<Inbound<'a>>, DropReason> {
        let now = self.shared.now;
        let index = self.shared.indices.owner(header.session()).ok_or(DropReason::UnknownSession)?;
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownSession)?;
        let session = peer.sessions.get_mut(header.session()).ok_or(DropReason::UnknownSession)?;
        let takes_open_checksums = session.csum_partial;
        let length = datagram.len();
        let opened = match session.tunnel.open(datagram) {
            Ok(opened) => opened,
            Err(error) => return Err(self.on_open_error(index, header.session(), error)),
        };
        let is_current =
            peer.sessions.current.as_ref().is_some_and(|s| s.is_confirmed() && s.index() == header.session());
        if !is_current || header.kind() == EnvelopeType::HelloFinish {
            self.on_unconfirmed(index, header, path);
        }
        let (peer, shared) = (self.peers.get_mut(index).ok_or(DropReason::UnknownSession)?, &mut self.shared);
        peer.rx_bytes += length as u64;
        peer.last_received = Some(now);
        let (slot, is_new) = peer.paths.note_arrival(now, &path, length, || shared.rng.u64());
        let mut changed = is_new || !is_current;
        let csum_partial = opened.flags.contains(Flags::CSUM_PARTIAL);
        let result = match Payload::classify(opened.payload) {
            Payload::Empty => Ok(None),
            // An open checksum was not agreed on, or there is none that could be open.
            kind if csum_partial && !(takes_open_checksums && matches!(kind, Payload::Ip(_))) => {
                Err(DropReason::Malformed)
            }
            Payload::Ip(_) => {
                changed |= opened.lane != Lane::CONTROL && peer.receipts.note(now, opened.lane.0);
                accept_packet(&self.routes, shared, index, opened.payload, csum_partial)
                    .map(|packet| Some(Inbound { peer: index, packet, csum_partial }))
            }
            Payload::Messages => {
                changed = true;
                self.on_messages(index, header.session(), path, slot, opened.payload).map(|()| None)
            }
        };
        if changed {
            self.reschedule(index);
        }
        result
    }

    /// Counts a failure to open, and closes a session whose key has had all the failures that it may.
    fn on_open_error(&mut self, index: PeerIndex, session: u32, error: OpenError) -> DropReason {
        match error {
            OpenError::Malformed => DropReason::Malformed,
            OpenError::Authentication => DropReason::Authentication,
            OpenError::Replay => DropReason::Replay,
            OpenError::Exhausted => {
                if let Some((peer, shared)) = self.peer_mut(index) {
                    peer.sessions.close(session, &mut shared.indices);
                    shared.counters.session_failures += 1;
                    peer.greet(shared.now);
                }
                self.reschedule(index);
                DropReason::KeyExhausted
            }
        }
    }

    fn on_messages(
        &mut self,
        index: PeerIndex,
        session: u32,
        path: FourTuple,
        slot: PathSlot,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let mut pinged = false;
        for message in Messages::new(payload) {
            let message = message.map_err(|_| DropReason::Malformed)?;
            let Some((peer, shared)) = self.peer_mut(index) else { return Ok(()) };
            match message {
                // One envelope is worth one answer: nobody needs more, and no envelope may fill the queue.
                Message::Ping { .. } if pinged => {}
                Message::Ping { token, path: named } => {
                    pinged = true;
                    let pong = Control::Pong { token, path: named, arrived: shared.now, observed: path.remote };
                    shared.send(Outgoing::Control { peer: index, slot, message: pong });
                }
                Message::Pong { token, path: named, delay_us, observed } => {
                    let held = Duration::from_micros(delay_us);
                    on_pong(peer, shared, PathSlot(named), token, held);
                    peer.observed = Some(observed);
                    peer.behind_nat = shared.is_behind_nat(peer.observed);
                    self.update_paths(index);
                }
                Message::Receipt { lane, largest, .. } => {
                    let current = peer.sessions.current.as_ref().is_some_and(|s| s.index() == session);
                    if let Some(slot) = lane.0.checked_sub(1).filter(|_| current) {
                        peer.paths.on_receipt(shared.now, PathSlot(slot), largest);
                        self.update_paths(index);
                    }
                }
                Message::Close { .. } => {
                    self.on_close(index, session);
                    return Ok(());
                }
                Message::Packet { .. }
                | Message::Ack(_)
                | Message::Fragment(_)
                | Message::Signal(_)
                | Message::RelayOpen(_)
                | Message::RelayClose(_) => {}
            }
        }
        Ok(())
    }

    /// The peer said goodbye: its keys go at once, and it is sought again without hurry. A goodbye under former keys is of a
    /// former life and ends only those.
    fn on_close(&mut self, index: PeerIndex, session: u32) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let is_former = |current: &Session| current.is_confirmed() && current.index() != session;
        if peer.sessions.current.as_ref().is_some_and(is_former) {
            peer.sessions.close(session, &mut shared.indices);
            return;
        }
        // A session that it began meanwhile is not meant: its Hello overtook this.
        peer.sessions.close_standing(&mut shared.indices);
        peer.paths.reset();
        peer.departed = true;
        if !peer.config.endpoints.is_empty() {
            peer.greet_later(shared.now);
        }
        self.set_down(index, DownReason::Closed);
    }

    /// Reports a peer down, once.
    pub(super) fn set_down(&mut self, index: PeerIndex, why: DownReason) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if peer.link == Link::Up {
            peer.link = Link::Down;
            shared.outbox.report(Event::PeerDown { peer: peer.config.id, why });
        }
    }
}

/// A packet is accepted when it is one, and when its source belongs to the peer that sent it.
fn accept_packet<'a>(
    routes: &RouteTable,
    shared: &mut Shared,
    peer: PeerIndex,
    packet: &'a mut [u8],
    csum_partial: bool,
) -> Result<&'a mut [u8], DropReason> {
    let ip = IpPacket::parse(packet).map_err(|_| DropReason::NotIp)?;
    if csum_partial && ip.transport().is_none() {
        return Err(DropReason::Malformed); // There is no checksum that could be open.
    }
    if !routes.owns(peer, ip.source()) {
        return Err(DropReason::UnauthorizedSource);
    }
    shared.counters.packets_received += 1;
    shared.counters.bytes_received += packet.len() as u64;
    Ok(packet)
}

/// A Pong proves a path, or answers the operator.
fn on_pong(peer: &mut Peer, shared: &mut Shared, slot: PathSlot, token: u64, held: Duration) {
    let now = shared.now;
    if let Some(position) = peer.pings.iter().position(|ping| ping.wire_token == token) {
        let ping = peer.pings.swap_remove(position);
        let rtt = now.since(ping.sent);
        let rtt = rtt.saturating_sub(held.min(rtt / 2));
        // The path may have been replaced since; then the answer says nothing of the new one.
        if peer.paths.get(slot).is_some_and(|path| path.addresses.admits(&ping.path)) {
            peer.paths.prove(now, slot, Proof::Pong(rtt));
        }
        shared.outbox.report(Event::PingReply { peer: peer.config.id, token: ping.token, path: ping.path, rtt });
        return;
    }
    peer.paths.on_pong(now, slot, token, held);
}
