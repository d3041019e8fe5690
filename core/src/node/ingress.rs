//! A datagram arrived.

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use super::{Control, Instant, Node, Outgoing, PeerIndex, Shared};
use crate::counters::DropReason;
use crate::delivery::Order;
use crate::event::{DownReason, Event};
use crate::overlay::{IpPacket, RouteTable, clamp_mss, is_tcp_syn};
use crate::path::{FourTuple, PathSlot, PathState, Proof, Via};
use crate::peer::{Link, OperatorPing};
use crate::session::{OpenError, Session};
use crate::wire::{
    EnvelopeType, Flags, FragmentPart, Header, HeaderError, Lane, Message, Messages, Payload, RelayCloseReason,
};

/// What a datagram was, where it was more than control.
#[derive(Debug)]
#[must_use = "it is to be passed on, to the host or to another node"]
pub enum Inbound<'a> {
    /// A packet for the host.
    Packet(InboundPacket<'a>),
    /// This node is a relay: the datagram, of which only the header was changed, goes on.
    Forward {
        /// Where to.
        to: FourTuple,
        /// The datagram.
        datagram: &'a mut [u8],
    },
}

/// An IP packet that a peer sent, opened in place in the datagram that carried it.
#[derive(Debug)]
pub struct InboundPacket<'a> {
    /// Whose packet it is.
    pub peer: PeerIndex,
    /// The packet.
    pub packet: &'a mut [u8],
    /// Whether the sender left the transport checksum to be completed here: it holds the pseudo-header's sum only.
    pub csum_partial: bool,
}

/// Requests that one envelope may make.
const MAX_REQUESTS: usize = 16;

/// What a Pong says that was asked for through a relay: nobody saw an address.
const UNSPECIFIED: SocketAddr = SocketAddr::new(core::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Where an envelope came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The way.
    pub(super) via: Via,
    /// Whose envelopes the relay passes on here, where it came by one.
    pub(super) leg_of: Option<PeerIndex>,
}

impl Node {
    /// Takes in one datagram, which arrived by `path`. An IP packet for the host is returned, and so is what this node passes
    /// on as a relay; everything else is dealt with.
    /// Nothing that a stranger can send allocates, panics or gets an answer (but for a cookie, see `docs/protocol.md`). Who
    /// shows the token of a relay channel may be its owner, moved: his address is asked by a Ping, once in two seconds.
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
        let from = Origin { via: Via::Direct(path), leg_of: None };
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
            EnvelopeType::Relayed => self.on_relayed(path, &header, datagram),
            _ => self.on_envelope(from, &header, datagram),
        };
        match outcome {
            Ok(inbound) => inbound,
            Err(reason) => {
                self.shared.counters.drop(reason);
                None
            }
        }
    }

    /// An envelope for this node, which came directly or through a relay.
    pub(super) fn on_envelope<'a>(
        &mut self,
        from: Origin,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Option<Inbound<'a>>, DropReason> {
        match header.kind() {
            EnvelopeType::Sealed | EnvelopeType::HelloFinish => self.on_sealed(from, header, datagram),
            EnvelopeType::Hello => self.on_hello(from, header, datagram).map(|()| None),
            EnvelopeType::HelloAck => self.on_hello_ack(from.via, header, datagram).map(|()| None),
            EnvelopeType::Cookie => self.on_cookie(header, datagram).map(|()| None),
            // A relay is reached directly, or not at all.
            EnvelopeType::Relayed => Err(DropReason::NestedRelay),
        }
    }

    fn on_sealed<'a>(
        &mut self,
        from: Origin,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Option<Inbound<'a>>, DropReason> {
        let (now, path) = (self.shared.now, from.via);
        let index = self.shared.indices.owner(header.session()).ok_or(DropReason::UnknownSession)?;
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownSession)?;
        let session = peer.sessions.get_mut(header.session()).ok_or(DropReason::UnknownSession)?;
        let (takes_open_checksums, agreed) = (session.csum_partial, session.created);
        let length = datagram.len();
        let opened = match session.tunnel.open(datagram) {
            Ok(opened) => opened,
            Err(error) => return Err(self.on_open_error(index, header.session(), error)),
        };
        self.check_place(index, &path)?;
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownSession)?;
        if !self.shared.policy.allow_signaling_upgrade && peer.goes_on_by_signaling(&path) {
            return Err(DropReason::ForeignPlace);
        }
        let is_current =
            peer.sessions.current.as_ref().is_some_and(|s| s.is_confirmed() && s.index() == header.session());
        if !is_current || header.kind() == EnvelopeType::HelloFinish {
            self.on_unconfirmed(index, header, path);
        }
        let (peer, shared) = (self.peers.get_mut(index).ok_or(DropReason::UnknownSession)?, &mut self.shared);
        peer.rx_bytes += length as u64;
        peer.last_received = Some(now);
        let class = peer.class_of(&path);
        let (slot, is_new) = peer.paths.note_arrival(now, &path, class, length, || shared.rng.u64());
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
                changed |= peer.paths.note_data(now, slot, || shared.rng.u64());
                let mtu = || peer.paths.host_mtu();
                accept_packet(&self.routes, shared, index, mtu, opened.payload, csum_partial)
                    .map(|packet| Some(Inbound::Packet(InboundPacket { peer: index, packet, csum_partial })))
            }
            Payload::Messages => {
                changed = true;
                if opened.lane != Lane::CONTROL {
                    peer.receipts.note(now, opened.lane.0);
                    peer.paths.note_data(now, slot, || shared.rng.u64());
                }
                let order = Order { session: header.session(), agreed, number: opened.counter };
                self.on_messages(index, order, path, slot, opened.payload).map(|()| None)
            }
        };
        if changed {
            self.reschedule(index);
        }
        result
    }

    /// Refuses what seems to come straight from a peer, but from the very address where another peer is: a relay that passed
    /// it on without saying so would look like a direct path. Whether that peer is there still is asked, because a NAT may
    /// have given its address away.
    pub(super) fn check_place(&mut self, index: PeerIndex, via: &Via) -> Result<(), DropReason> {
        let Via::Direct(at) = via else { return Ok(()) };
        if self.peer(index).is_some_and(|peer| peer.paths.find(via).is_some()) {
            return Ok(());
        }
        let Some((holder, slot)) = self.holder(index, &at.remote) else { return Ok(()) };
        if let Some((holding, shared)) = self.peer_mut(holder) {
            holding.paths.probe(shared.now, slot, shared.rng.u64());
        }
        self.send_probes(holder);
        self.reschedule(holder);
        Err(DropReason::ForeignPlace)
    }

    /// Which other peer than `index` is reached at an address, as far as is known.
    pub(super) fn holder(&self, index: PeerIndex, remote: &SocketAddr) -> Option<(PeerIndex, PathSlot)> {
        let others = self.peers.iter().filter(|(other, _)| *other != index);
        others.flat_map(|(other, peer)| peer.paths.iter().map(move |(slot, path)| (other, slot, path))).find_map(
            |(other, slot, path)| {
                let is_there = path.via.direct().is_some_and(|at| at.remote == *remote);
                (is_there && path.state == PathState::Usable).then_some((other, slot))
            },
        )
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
        order: Order,
        path: Via,
        slot: PathSlot,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let mut pinged = false;
        let mut requests = 0;
        for message in Messages::new(payload) {
            let message = message.map_err(|_| DropReason::Malformed)?;
            match message {
                // One envelope is worth one answer: nobody needs more, and no envelope may fill the queue.
                Message::Ping { .. } if pinged => {}
                Message::Ping { token, path: named } => {
                    pinged = true;
                    self.on_ping(index, path, slot, token, named);
                }
                Message::Pong { token, path: named, delay_us, observed } => {
                    self.on_pong(index, PathSlot(named), token, Duration::from_micros(delay_us), observed);
                }
                Message::Receipt { lane, largest, received } => {
                    self.on_receipt(index, order.session, lane, (largest, received));
                }
                Message::Close { .. } => {
                    self.on_close(index, order.session);
                    return Ok(());
                }
                Message::Packet { path: named, number } => {
                    if !self.on_packet(index, slot, named, number) {
                        return Ok(()); // What it carries was dealt with, and is acknowledged again.
                    }
                }
                Message::Ack(ack) => self.on_ack(index, &ack)?,
                Message::Fragment(part) => self.on_fragment(index, part)?,
                Message::Signal(_) | Message::RelayOpen(_) | Message::RelayClose(_) if requests >= MAX_REQUESTS => {
                    return Err(DropReason::ControlOverflow);
                }
                Message::Signal(signal) => {
                    requests += 1;
                    self.on_signal(index, &signal);
                }
                Message::RelayOpen(open) => {
                    requests += 1;
                    if self.is_newest(index, (open.role, &open.peer), order) {
                        self.on_relay_open(index, &open);
                    }
                }
                Message::RelayClose(close) => {
                    requests += 1;
                    if self.is_newest(index, (close.role, &close.peer), order) {
                        self.on_relay_close(index, &close);
                    }
                }
            }
        }
        Ok(())
    }

    fn on_ping(&mut self, index: PeerIndex, path: Via, slot: PathSlot, token: u64, named: u8) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        peer.paths.note_ping(shared.now, slot);
        let observed = path.direct().map_or(UNSPECIFIED, |path| path.remote);
        let message = Control::Pong { token, path: named, arrived: shared.now, observed };
        shared.send(Outgoing::Control { peer: index, slot, message });
        // By a path that may work in the other direction alone, the answer may not arrive.
        if let Some(slot) = peer.second_control_path(slot) {
            shared.send(Outgoing::Control { peer: index, slot, message });
        }
    }

    /// A Pong proves a path, answers the operator, a search for the MTU, or the check of an address.
    fn on_pong(&mut self, index: PeerIndex, slot: PathSlot, token: u64, held: Duration, observed: SocketAddr) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let asked = peer.paths.get(slot).and_then(|path| path.via.direct());
        if observed != UNSPECIFIED {
            peer.observed = Some(observed);
            peer.behind_nat = shared.is_behind_nat(peer.observed);
        }
        if let Some(position) = peer.pings.iter().position(|ping| ping.wire_token == token) {
            let ping = peer.pings.swap_remove(position);
            self.on_operator_pong(index, slot, ping, held);
        } else if peer.paths.on_pong(shared.now, slot, token, held).is_some() {
            if let Some(delivery) = peer.delivery.as_mut() {
                delivery.on_proven(slot);
            }
            if let Some(relay) = peer.paths.get(slot).and_then(|path| path.via.relay())
                && let Some(legs) = peer.legs.as_mut()
            {
                legs.on_proven(shared.now, relay);
            }
            let seen = asked.filter(|_| observed != UNSPECIFIED);
            if seen.is_some_and(|path| shared.observations.note(shared.now, index, path, observed)) {
                self.hint_search();
            }
        } else {
            self.on_check_answered(index, token, held, Some(observed).filter(|observed| *observed != UNSPECIFIED));
        }
        self.update_paths(index);
    }

    fn on_operator_pong(&mut self, index: PeerIndex, slot: PathSlot, ping: OperatorPing, held: Duration) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let rtt = shared.now.since(ping.sent);
        let rtt = rtt.saturating_sub(held.min(rtt / 2));
        // The path may have been replaced since; then the answer says nothing of the new one.
        if peer.paths.get(slot).is_some_and(|path| path.via.admits(&ping.path) && path.state != PathState::Lost) {
            peer.paths.prove(shared.now, slot, Proof::Pong(rtt));
        }
        let (Some(peer), Some(path)) = (self.peer(index), self.peers.name(ping.path)) else { return };
        let (peer, token, class) = (peer.config.id, ping.token, ping.class);
        self.shared.outbox.report(Event::PingReply { peer, token, path, class, rtt });
    }

    fn on_receipt(&mut self, index: PeerIndex, session: u32, lane: Lane, (largest, received): (u64, u64)) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let current = peer.sessions.current.as_ref().is_some_and(|s| s.index() == session);
        if let Some(slot) = lane.0.checked_sub(1).filter(|_| current) {
            peer.paths.on_receipt(shared.now, PathSlot(slot), largest, received);
            self.update_paths(index);
        }
    }

    fn on_fragment(&mut self, index: PeerIndex, part: FragmentPart<'_>) -> Result<(), DropReason> {
        if part.bytes().len() == usize::from(part.total()) {
            return Err(DropReason::Malformed); // Nobody cuts what is whole.
        }
        let Some((peer, shared)) = self.peer_mut(index) else { return Ok(()) };
        let reassembly = peer.reassembly.get_or_insert_default();
        let whole = reassembly.push(shared.now, part);
        for _ in 0..reassembly.take_dropped() {
            shared.counters.drop(DropReason::Reassembly);
        }
        match whole {
            Some(mut packet) => self.on_reassembled(index, &mut packet),
            None => Ok(()),
        }
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
        peer.delivery = None;
        peer.search = None;
        peer.reassembly = None;
        if !peer.config.endpoints.is_empty() {
            peer.greet_later(shared.now);
        }
        self.set_down(index, DownReason::Closed);
        self.close_channels(index, RelayCloseReason::UNREACHABLE);
        self.leave_relay(index);
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
pub(super) fn accept_packet<'a>(
    routes: &RouteTable,
    shared: &mut Shared,
    peer: PeerIndex,
    mtu: impl FnOnce() -> Option<usize>,
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
    // What the host answers is to fit this node's own paths, which may differ from the peer's.
    if is_tcp_syn(&ip)
        && let Some(mtu) = mtu()
    {
        clamp_mss(packet, mtu, csum_partial);
    }
    shared.counters.packets_received += 1;
    shared.counters.bytes_received += packet.len() as u64;
    Ok(packet)
}
