//! Relays: how an envelope leaves through one, what arrives through one, and what this node passes on for others.

use super::{Inbound, Node, Origin, PeerIndex, Shared};
use crate::counters::DropReason;
use crate::delivery::Topic;
use crate::path::{FourTuple, MAX_PATHS, PathClass, Via};
use crate::peer::Peer;
use crate::rate::Rate;
use crate::relay::{
    LegAction, LegState, LegView, MAX_LEGS, Receiver, RelayAddress, RelayLegs, RelayOption, RelayRefusal,
};
use crate::wire::{EnvelopeType, HEADER_LEN, Header, Message, RelayClose, RelayCloseReason, RelayOpen, RelayRole};

/// How an envelope to a peer leaves this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carriage {
    /// Where its datagram goes.
    pub(super) to: FourTuple,
    /// What goes before it, for the relay.
    pub(super) header: Option<[u8; HEADER_LEN]>,
}

/// Places from where envelopes came that are passed on for a peer, and where it was not known to be, are asked this often.
const STRAY_RATE: Rate = Rate { units: 1, per: core::time::Duration::from_secs(2), burst: 2 };

impl Node {
    /// How an envelope to `peer` leaves by `via`. `None` where the relay is not there (any more).
    pub(super) fn carriage(&self, peer: Option<PeerIndex>, via: Via) -> Option<Carriage> {
        match via {
            Via::Direct(to) => Some(Carriage { to, header: None }),
            Via::Relay(relay) => {
                let address = self.peer(peer?)?.legs.as_ref()?.remote(relay)?;
                let to = self.peer(relay)?.paths.carrier()?;
                Some(Carriage { to, header: Some(Header::relayed(address.handle, address.token).encode()) })
            }
        }
    }

    /// A Relayed envelope: it is for this node, or for another that this one relays to.
    pub(super) fn on_relayed<'a>(
        &mut self,
        path: FourTuple,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Option<Inbound<'a>>, DropReason> {
        let token = header.token().ok_or(DropReason::Malformed)?;
        match self.shared.handles.get(header.session(), token).ok_or(DropReason::UnknownChannel)? {
            Receiver::Leg { peer, relay } => {
                self.check_source(relay, path, datagram.len())?;
                let inner = datagram.get_mut(HEADER_LEN..).ok_or(DropReason::Malformed)?;
                let header = Header::decode(inner).map_err(|_| DropReason::Malformed)?;
                let from = Origin { via: Via::Relay(relay), leg_of: Some(peer) };
                let is_other = |owner| owner != peer;
                let is_hello = header.kind() == EnvelopeType::Hello;
                if !is_hello && self.shared.indices.owner(header.session()).is_none_or(is_other) {
                    return Err(DropReason::UnknownSession);
                }
                self.on_envelope(from, &header, inner)
            }
            Receiver::Channel(end) => {
                let forward = self.shared.channels.route(end).ok_or(DropReason::UnknownChannel)?;
                self.check_source(forward.from, path, datagram.len())?;
                let address = forward.address.ok_or(DropReason::ChannelNotReady)?;
                let to = self.peer(forward.to).and_then(|peer| peer.paths.carrier());
                let to = to.ok_or(DropReason::ChannelNotReady)?;
                if !self.shared.channels.count(self.shared.now, &forward, datagram.len()) {
                    return Err(DropReason::RelayQuota);
                }
                let room = datagram.get_mut(..HEADER_LEN).ok_or(DropReason::Malformed)?;
                room.copy_from_slice(&Header::relayed(address.handle, address.token).encode());
                self.shared.counters.packets_relayed += 1;
                self.shared.counters.bytes_relayed += datagram.len() as u64;
                Ok(Some(Inbound::Forward { to, datagram }))
            }
        }
    }

    /// What is passed on comes from a proven path of the peer that it is taken to be from. Who knows its token may be that peer
    /// at a new address, and have nothing else to say than what is passed on: then that address is asked. Anybody on the way
    /// knows it too, so that is done rarely.
    fn check_source(&mut self, index: PeerIndex, path: FourTuple, length: usize) -> Result<(), DropReason> {
        let via = Via::Direct(path);
        if self.peer_mut(index).is_some_and(|(peer, shared)| peer.paths.note_passed(shared.now, &path)) {
            return Ok(());
        }
        self.check_place(index, &via)?;
        if let Some((peer, shared)) = self.peer_mut(index).filter(|(peer, _)| peer.has_session())
            && peer.strays.take(shared.now, &STRAY_RATE, 1)
        {
            let class = peer.class_of(&via);
            let (slot, _) = peer.paths.note_arrival(shared.now, &via, class, length, || shared.rng.u64());
            peer.paths.probe(shared.now, slot, shared.rng.u64());
            self.send_probes(index);
            self.reschedule(index);
        }
        Err(DropReason::RelaySource)
    }

    /// A peer speaks of a channel.
    pub(super) fn on_relay_open(&mut self, from: PeerIndex, open: &RelayOpen) {
        let address = RelayAddress { handle: open.handle, token: open.token };
        let Some(&other) = self.by_id.get(&open.peer) else {
            return self.tell_close(from, answer_to(open.role), open.peer, RelayCloseReason::UNKNOWN_PEER);
        };
        match open.role {
            RelayRole::Request => self.on_request(from, other, address),
            RelayRole::Offer => self.on_offer(from, other, address),
        }
    }

    /// `from` asks this node to carry to `to`.
    fn on_request(&mut self, from: PeerIndex, to: PeerIndex, address: RelayAddress) {
        let now = self.shared.now;
        if !self.shared.channels.take_request(now, from) {
            self.shared.counters.relay_refusals += 1; // It is not even told.
            return;
        }
        let is_there =
            self.peer(to).is_some_and(|peer| peer.sessions.has_sender(now) && peer.paths.carrier().is_some());
        let refusal = match is_there {
            _ if !self.shared.policy.allow_relay => Some(RelayCloseReason::REFUSED),
            false => Some(RelayCloseReason::UNREACHABLE),
            true => None,
        };
        let shared = &mut self.shared;
        let opened = match refusal {
            Some(reason) => Err(reason),
            None => shared
                .channels
                .open(shared.now, from, to, address, &mut shared.handles, &mut shared.rng)
                .map_err(RelayRefusal::reason),
        };
        match opened {
            Ok(opened) => {
                self.tell_open(from, RelayRole::Offer, to, opened.answer);
                if let Some(inform) = opened.inform {
                    self.tell_open(to, RelayRole::Offer, from, inform);
                    self.ask(to);
                }
            }
            Err(reason) => {
                self.shared.counters.relay_refusals += 1;
                let Some(peer) = self.peer(to).map(|peer| *peer.config.id.as_bytes()) else { return };
                self.tell_close(from, RelayRole::Offer, peer, reason);
            }
        }
    }

    /// The relay `relay` carries to and from `peer`.
    fn on_offer(&mut self, relay: PeerIndex, peer: PeerIndex, address: RelayAddress) {
        let is_relay = self.peer(relay).is_some_and(|relay| relay.config.relay_capable) && relay != peer;
        let allowed = self.shared.policy.allow_relay && is_relay;
        let Some((held, shared)) = self.peer_mut(peer) else { return };
        let taken = allowed && {
            let legs = held.legs.get_or_insert_with(|| RelayLegs::new(peer).into());
            legs.on_offer(shared.now, relay, address, &mut shared.handles, &mut shared.rng)
        };
        if !taken {
            let id = *held.config.id.as_bytes();
            return self.tell_close(relay, RelayRole::Request, id, RelayCloseReason::REFUSED);
        }
        self.on_leg(peer, relay);
        self.maintain_legs(peer);
        self.reschedule(peer);
    }

    /// A leg is open: it is a path, or a way to say Hello.
    fn on_leg(&mut self, index: PeerIndex, relay: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        if peer.has_session() {
            let slot = peer.paths.insert(now, Via::Relay(relay), PathClass::Relay);
            peer.paths.probe(now, slot, shared.rng.u64());
            self.send_probes(index);
        } else if peer.greeting.is_some() {
            peer.greet_now(now);
        }
    }

    /// The open legs to a peer with which there is a session now are paths.
    pub(super) fn insert_legs(&mut self, index: PeerIndex) {
        let Some(peer) = self.peer(index) else { return };
        let open: heapless::Vec<PeerIndex, MAX_LEGS> = peer.legs.iter().flat_map(|legs| legs.open()).collect();
        open.into_iter().for_each(|relay| self.on_leg(index, relay));
    }

    /// A channel ended.
    pub(super) fn on_relay_close(&mut self, from: PeerIndex, close: &RelayClose) {
        let Some(&other) = self.by_id.get(&close.peer) else { return };
        match close.role {
            RelayRole::Request => {
                let shared = &mut self.shared;
                if shared.channels.close(from, other, &mut shared.handles) {
                    let Some(id) = self.peer(from).map(|peer| *peer.config.id.as_bytes()) else { return };
                    self.tell_close(other, RelayRole::Offer, id, close.reason);
                }
            }
            RelayRole::Offer => {
                let Some((peer, shared)) = self.peer_mut(other) else { return };
                let Some(legs) = peer.legs.as_mut() else { return };
                if legs.on_close(shared.now, from, close.reason, &mut shared.handles) {
                    peer.paths.remove_relay(shared.now, from, || shared.rng.u64());
                    self.update_paths(other);
                }
                self.reschedule(other);
            }
        }
    }

    /// A path through a relay is in doubt: its leg is stated anew, and the relay itself may be gone.
    pub(super) fn ask_silent_relays(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let silent: heapless::Vec<PeerIndex, MAX_PATHS> = peer.paths.newly_silent_relays(now).collect();
        for relay in silent {
            let Some((peer, _)) = self.peer_mut(index) else { return };
            if let Some(legs) = peer.legs.as_mut() {
                legs.on_silent(now, relay);
            }
            self.ask(relay);
        }
    }

    /// Asks a peer whether it is still where it was.
    fn ask(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some(slot) = peer.paths.preferred_slot() {
            peer.paths.probe(shared.now, slot, shared.rng.u64());
            self.reschedule(index);
        }
    }

    /// Opens, restates and gives up the legs to a peer.
    pub(super) fn maintain_legs(&mut self, index: PeerIndex) {
        let wanted = self.wants_relay(index);
        let Some(peer) = self.peer(index) else { return };
        if peer.legs.is_none() && !wanted {
            return;
        }
        let options: alloc::vec::Vec<RelayOption> =
            self.relays.iter().filter_map(|relay| self.option(index, *relay)).collect();
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let in_use = peer.paths.preferred().and_then(|(_, path)| path.via.relay());
        let legs = peer.legs.get_or_insert_with(|| RelayLegs::new(index).into());
        let is_proven = |leg: &LegView| leg.state == LegState::Open && peer.paths.is_relay_proven(leg.relay, leg.since);
        let proven: heapless::Vec<PeerIndex, MAX_LEGS> = legs.iter().filter(is_proven).map(|leg| leg.relay).collect();
        proven.into_iter().for_each(|relay| legs.on_proven(shared.now, relay));
        legs.maintain(shared.now, wanted, &options, in_use, &mut shared.handles, &mut shared.rng);
        while let Some(action) = self.poll_leg(index) {
            let Some(id) = self.peer(index).map(|peer| *peer.config.id.as_bytes()) else { return };
            match action {
                LegAction::Open { relay, address } => self.tell_open(relay, RelayRole::Request, index, address),
                LegAction::Close { relay, reason } => {
                    self.tell_close(relay, RelayRole::Request, id, reason);
                    if let Some((peer, shared)) = self.peer_mut(index) {
                        peer.paths.remove_relay(shared.now, relay, || shared.rng.u64());
                    }
                }
            }
        }
        self.drop_relay_paths(index);
    }

    /// A path through a relay that this node has no leg of any more leads nowhere.
    fn drop_relay_paths(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let has_leg = |relay: PeerIndex| peer.legs.as_ref().is_some_and(|legs| legs.remote(relay).is_some());
        let relays = peer.paths.iter().filter_map(|(_, path)| path.via.relay());
        let gone: heapless::Vec<PeerIndex, MAX_PATHS> = relays.filter(|relay| !has_leg(*relay)).collect();
        for relay in gone {
            peer.paths.remove_relay(shared.now, relay, || shared.rng.u64());
        }
    }

    /// The relays of a peer's legs that cannot be told anything more at the moment.
    fn full_relays(&self, index: PeerIndex) -> heapless::Vec<PeerIndex, MAX_LEGS> {
        let legs = self.peer(index).and_then(|peer| peer.legs.as_ref());
        legs.iter().flat_map(|legs| legs.iter()).map(|leg| leg.relay).filter(|relay| !self.has_room(*relay)).collect()
    }

    fn poll_leg(&mut self, index: PeerIndex) -> Option<LegAction> {
        let (now, full) = (self.shared.now, self.full_relays(index));
        self.peer_mut(index)?.0.legs.as_mut()?.poll(now, |relay| !full.contains(&relay))
    }

    /// Whether a relay could carry to a peer.
    fn option(&self, index: PeerIndex, relay: PeerIndex) -> Option<RelayOption> {
        let now = self.shared.now;
        let peer = self.peer(relay).filter(|peer| relay != index && peer.sessions.has_sender(now))?;
        peer.paths.carrier()?;
        let rtt = peer.paths.preferred().and_then(|(_, path)| path.rtt.smoothed());
        Some(RelayOption { relay, rtt, usable: peer.paths.is_direct() })
    }

    /// Whether a relay is wanted for a peer: while somebody sends, as the way or as a spare one.
    fn wants_relay(&self, index: PeerIndex) -> bool {
        let in_use = |peer: &Peer| !peer.departed && peer.is_in_use(self.shared.now);
        self.shared.policy.allow_relay && self.peer(index).is_some_and(in_use)
    }

    /// Ends every channel that this node carries and every leg that it uses: relaying is not allowed any more.
    pub(super) fn close_relays(&mut self) {
        let shared = &mut self.shared;
        for [a, b] in shared.channels.close_all(&mut shared.handles) {
            self.tell_both(a, b, RelayCloseReason::REFUSED);
        }
        for index in self.peers.indices() {
            self.close_legs(index);
            self.update_paths(index);
            self.reschedule(index);
        }
    }

    /// A peer that may have been a relay is gone: what led through it leads nowhere.
    pub(super) fn leave_relay(&mut self, relay: PeerIndex) {
        let now = self.shared.now;
        for index in self.peers.indices() {
            let Some((peer, shared)) = self.peer_mut(index) else { continue };
            let has_leg = peer.legs.as_ref().is_some_and(|legs| legs.iter().any(|leg| leg.relay == relay));
            if !has_leg && peer.paths.find(&Via::Relay(relay)).is_none() {
                continue;
            }
            if let Some(legs) = peer.legs.as_mut() {
                legs.forget(relay, &mut shared.handles);
            }
            peer.paths.forget_relay(relay);
            peer.paths.probe_all(now, || shared.rng.u64());
            if peer.paths.preferred_slot().is_none() && peer.has_session() {
                peer.greet_now(now);
            }
            self.update_paths(index);
            self.reschedule(index);
        }
    }

    /// Gives up the legs to a peer.
    pub(super) fn close_legs(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let id = *peer.config.id.as_bytes();
        let Some(mut legs) = peer.legs.take() else { return };
        for relay in legs.close_all(&mut shared.handles) {
            self.tell_close(relay, RelayRole::Request, id, RelayCloseReason::REFUSED);
            if let Some((peer, shared)) = self.peer_mut(index) {
                peer.paths.remove_relay(shared.now, relay, || shared.rng.u64());
            }
        }
    }

    /// Closes the channels of a peer that is no more, or whose session is over.
    pub(super) fn close_channels(&mut self, index: PeerIndex, reason: RelayCloseReason) {
        let Some(id) = self.peer(index).map(|peer| *peer.config.id.as_bytes()) else { return };
        let shared = &mut self.shared;
        for other in shared.channels.close_peer(index, &mut shared.handles) {
            self.tell_close(other, RelayRole::Offer, id, reason);
        }
    }

    /// A peer began a new life: channels and legs through it are stated anew.
    pub(super) fn on_relay_restart(&mut self, index: PeerIndex) {
        for (partner, address) in self.shared.channels.on_restart(index) {
            self.tell_open(index, RelayRole::Offer, partner, address);
        }
        let now = self.shared.now;
        for other in self.peers.indices() {
            let Some((peer, _)) = self.peer_mut(other) else { continue };
            if let Some(legs) = peer.legs.as_mut().filter(|legs| legs.iter().any(|leg| leg.relay == index)) {
                legs.on_silent(now, index);
                self.reschedule(other);
            }
        }
    }

    /// Closes what nobody used for long.
    pub(super) fn expire_channels(&mut self) {
        loop {
            let Shared { channels, handles, now, .. } = &mut self.shared;
            let Some([a, b]) = channels.expire(*now, handles) else { return };
            self.tell_both(a, b, RelayCloseReason::IDLE);
        }
    }

    fn tell_both(&mut self, a: PeerIndex, b: PeerIndex, reason: RelayCloseReason) {
        for (to, other) in [(a, b), (b, a)] {
            let Some(id) = self.peer(other).map(|peer| *peer.config.id.as_bytes()) else { continue };
            self.tell_close(to, RelayRole::Offer, id, reason);
        }
    }

    pub(super) fn tell_open(&mut self, to: PeerIndex, role: RelayRole, other: PeerIndex, address: RelayAddress) {
        let Some(peer) = self.peer(other).map(|peer| *peer.config.id.as_bytes()) else { return };
        if role == RelayRole::Offer && !self.has_room(to) {
            return self.shared.channels.defer(to, other);
        }
        let open = RelayOpen { role, peer, handle: address.handle, token: address.token };
        self.deliver(to, Topic::Relay(role, other), &Message::RelayOpen(open));
    }

    /// Tells a peer of the channels for which its queue had no room.
    pub(super) fn tell_deferred(&mut self, index: PeerIndex) {
        while self.has_room(index)
            && let Some((partner, address)) = self.shared.channels.take_deferred(index)
        {
            self.tell_open(index, RelayRole::Offer, partner, address);
        }
    }

    pub(super) fn tell_close(&mut self, to: PeerIndex, role: RelayRole, peer: [u8; 32], reason: RelayCloseReason) {
        // About a peer that is not known here there is nothing to keep in order.
        let other = self.by_id.get(&peer).copied().unwrap_or(to);
        self.deliver(to, Topic::Relay(role, other), &Message::RelayClose(RelayClose { role, peer, reason }));
    }
}

/// In which role a statement is answered.
fn answer_to(role: RelayRole) -> RelayRole {
    match role {
        RelayRole::Request => RelayRole::Offer,
        RelayRole::Offer => RelayRole::Request,
    }
}
