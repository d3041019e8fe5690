//! Hello, HelloAck, Cookie, and what a confirmed session changes.

use super::{Control, Node, Origin, Outgoing, PeerIndex, STRANGER_INTERVAL};
use crate::counters::DropReason;
use crate::event::Event;
use crate::path::{FourTuple, PathClass, Proof, Switch, SwitchReason, Via};
use crate::peer::Link;
use crate::session::handshake::MAX_PLACES;
use crate::session::noise::Claim;
use crate::session::{Admission, Cookie, Pending, Session};
use crate::time::Instant;
use crate::wire::hello::NO_COOKIE_MAC;
use crate::wire::{CookieReply, EnvelopeType, Header, Hello, HelloAck};

impl Node {
    /// A Hello: who knows this node, is allowed, and is there now, gets a HelloAck.
    pub(super) fn on_hello(&mut self, from: Origin, header: &Header, datagram: &[u8]) -> Result<(), DropReason> {
        let hello = Hello::decode(datagram).map_err(|_| DropReason::Malformed)?;
        let path = from.via;
        if self.shared.gate.is_shut(self.shared.now, &path.place(from.leg_of).0, *hello.cookie_mac == NO_COOKIE_MAC) {
            return Err(DropReason::HelloRate);
        }
        if !self.shared.local.knows_us(&hello) {
            return Err(DropReason::HelloMac);
        }
        self.shared.counters.hellos_received += 1;
        self.admit(from, header, &hello)?;
        if let Some((peer, index)) = self.shared.indices.answer_to(hello.ephemeral) {
            // Of a session that is confirmed meanwhile there is nothing more to say: then nothing is built.
            self.shared.counters.hellos_replayed += 1;
            if let Some((peer, _)) = self.peer_mut(peer) {
                peer.sessions.on_repeat(index, &path);
            }
            self.shared.send(Outgoing::HelloAck { peer, index, path });
            return Ok(());
        }
        let claim = self.shared.local.read_claim(&hello).map_err(|_| DropReason::Handshake)?;
        let Some(&index) = self.by_static_key.get(claim.remote_static()) else {
            self.report_stranger(claim, path);
            return Err(DropReason::UnauthorizedPeer);
        };
        if from.leg_of.is_some_and(|owner| owner != index) {
            return Err(DropReason::UnauthorizedPeer); // A relay passes on what is from the peer that it named.
        }
        let now = self.shared.now;
        let (peer, shared) = self.peer_mut(index).ok_or(DropReason::UnauthorizedPeer)?;
        let proved = shared.local.prove(claim, &hello, &peer.keys).map_err(|_| DropReason::Handshake)?;
        self.check_place(index, &path)?;
        let (peer, shared) = self.peer_mut(index).ok_or(DropReason::UnauthorizedPeer)?;
        let payload = &proved.payload;
        if peer.life.is_some_and(|(boot, stamp)| boot == payload.boot_id && payload.stamp <= stamp) {
            return Err(DropReason::Replay); // Within one life of the peer its stamps only grow.
        }
        // What is not provably newer than what was seen may be a replay: its sender has to answer first.
        let newer = peer.stamp.is_some_and(|stamp| proved.payload.stamp > stamp) && !peer.sessions.has_pending();
        let cookie = proved.payload.cookie.map(Cookie::new);
        let (place, socket) = path.place(from.leg_of);
        let fresh = cookie.is_some_and(|cookie| shared.jar.accepts(now, place, socket, &cookie));
        if !newer && !fresh {
            let sender = header.sender_index().ok_or(DropReason::Malformed)?;
            shared.send(Outgoing::Cookie { peer: from.leg_of, path, index: sender, hello_mac: *hello.mac });
            return Ok(());
        }
        let local_index = shared.indices.allocate(&mut shared.rng, index);
        shared.indices.remember(local_index, *hello.ephemeral);
        let answer = match shared.local.answer(proved, local_index, &shared.rng.secret(), &*shared.crypto) {
            Ok(answer) => answer,
            Err(_) => {
                shared.indices.release(local_index);
                return Err(DropReason::Handshake);
            }
        };
        let session = Session::new(answer.agreed, false, now);
        peer.sessions.add_pending(Pending { session, ack: answer.ack, path: Some(path) }, &mut shared.indices);
        shared.send(Outgoing::HelloAck { peer: index, index: local_index, path });
        peer.departed = false;
        // The peer is where this Hello came from, if it is no replay: one of ours that is under way should go there too.
        if fresh
            && peer.heard_at.replace(path) != Some(path)
            && let Some(greeting) = peer.greeting.as_mut()
        {
            greeting.next = now;
        }
        self.reschedule(index);
        Ok(())
    }

    /// Decides whether a Hello may cost a Diffie-Hellman.
    fn admit(&mut self, from: Origin, header: &Header, hello: &Hello<'_>) -> Result<(), DropReason> {
        let shared = &mut self.shared;
        let (now, jar) = (shared.now, &shared.jar);
        let (place, socket) = from.via.place(from.leg_of);
        let has_cookie = || {
            let covered = [hello.cookie_mac_input];
            *hello.cookie_mac != NO_COOKIE_MAC && jar.accepts_mac(now, place, socket, &covered, hello.cookie_mac)
        };
        match shared.gate.admit(now, &place, has_cookie) {
            Admission::Process => Ok(()),
            Admission::Refuse => Err(DropReason::HelloRate),
            Admission::Challenge => {
                let index = header.sender_index().ok_or(DropReason::Malformed)?;
                let (peer, path) = (from.leg_of, from.via);
                shared.send(Outgoing::Cookie { peer, path, index, hello_mac: *hello.mac });
                Err(DropReason::HelloRate)
            }
        }
    }

    /// Reports a stranger that knows this network, now and then, once it has proved its key.
    fn report_stranger(&mut self, claim: Claim, path: Via) {
        let Some(from) = path.direct() else { return };
        let now = self.shared.now;
        if now < self.shared.next_stranger_report {
            return;
        }
        if let Some(peer) = self.shared.local.name_stranger(claim) {
            self.shared.next_stranger_report = now + STRANGER_INTERVAL;
            self.shared.outbox.report(Event::UnauthorizedPeer { peer, from });
        }
    }

    /// The answer to this node's Hello.
    pub(super) fn on_hello_ack(&mut self, path: Via, header: &Header, datagram: &[u8]) -> Result<(), DropReason> {
        let ack = HelloAck::decode(datagram).map_err(|_| DropReason::Malformed)?;
        let index = self.shared.indices.owner(header.session()).ok_or(DropReason::UnknownSession)?;
        let now = self.shared.now;
        let (peer, shared) = self.peer_mut(index).ok_or(DropReason::UnknownSession)?;
        let was_signaled = peer.class_of(&path) == PathClass::SignalingThenDirect;
        let initiation = peer.initiation.as_mut().filter(|i| i.index == header.session());
        let initiation = initiation.ok_or(DropReason::UnknownSession)?;
        // An answer from elsewhere may have been caught and sent on by somebody: nothing went there yet.
        // Where a Signal named the address, another may have named it to have somebody flooded: a Ping finds out.
        let was_asked = !was_signaled && initiation.asked.iter().any(|asked| asked.admits(&path));
        let agreed = initiation.read_ack(&shared.local, &ack, &*shared.crypto).map_err(|_| DropReason::Handshake)?;
        self.check_place(index, &path)?;
        let (peer, shared) = self.peer_mut(index).ok_or(DropReason::UnknownSession)?;
        peer.initiation = None;
        peer.greeting = None;
        peer.departed = false;
        let session = Session::new(agreed, true, now);
        let local_index = session.index();
        peer.sessions.begin(session, now, &mut shared.indices);
        peer.follow_session();
        self.adopt(index, path, was_asked, datagram.len());
        self.shared.send(Outgoing::HelloFinish { peer: index, index: local_index });
        self.prove_path(index, path);
        self.reschedule(index);
        Ok(())
    }

    /// A Cookie: the next Hello carries it, at once.
    pub(super) fn on_cookie(&mut self, header: &Header, datagram: &[u8]) -> Result<(), DropReason> {
        let reply = CookieReply::decode(datagram).map_err(|_| DropReason::Malformed)?;
        let index = self.shared.indices.owner(header.session()).ok_or(DropReason::UnknownSession)?;
        let now = self.shared.now;
        let (peer, _) = self.peer_mut(index).ok_or(DropReason::UnknownSession)?;
        let initiation = peer.initiation.as_mut().filter(|i| i.index == header.session());
        let initiation = initiation.ok_or(DropReason::UnknownSession)?;
        let cookie = initiation.read_cookie(&reply).map_err(|_| DropReason::Handshake)?;
        match initiation.cookie() {
            None => self.say_hello(index, Some(cookie), now),
            // The Hello with it is on its way, or was lost and will be repeated.
            Some(held) if held == cookie => {}
            // The one before has expired, or somebody injects cookies: they may not drive this node.
            Some(_) => initiation.keep_cookie(cookie),
        }
        Ok(())
    }

    /// Something authenticated under a session that is not the confirmed current one.
    pub(super) fn on_unconfirmed(&mut self, index: PeerIndex, header: &Header, path: Via) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let ours_wins = shared.local.peer_id() < peer.config.id;
        let now = shared.now;
        let session = header.session();
        let hello = peer.sessions.get_mut(session).and_then(|held| Some((held.remote_boot, held.remote_stamp?)));
        let answered = peer.sessions.pending(session).map(|pending| pending.path);
        let confirmed = peer.sessions.confirm(session, now, ours_wins, &mut shared.indices);
        peer.follow_session();
        if confirmed {
            if let Some((boot, stamp)) = hello {
                peer.stamp = peer.stamp.max(Some(stamp));
                let former = peer.life.filter(|(former, _)| *former == boot);
                peer.life = Some((boot, former.map_or(stamp, |(_, former)| former.max(stamp))));
            }
            peer.greeting = None;
            peer.departed = false;
            // What is still under way would only replace keys that are new.
            if let Some(initiation) = peer.initiation.take() {
                shared.indices.release(initiation.index);
            }
            shared.counters.sessions_established += 1;
            if let Some(answered) = answered {
                // The length counts where the envelope's arrival is noted.
                self.adopt(index, path, answered.is_some_and(|answered| answered.admits(&path)), 0);
                self.prove_path(index, path);
            }
        } else if header.kind() == EnvelopeType::HelloFinish {
            // Our answer to an earlier one was lost.
            if let Some(slot) = peer.control_path() {
                shared.send(Outgoing::Control { peer: index, slot, message: Control::Keepalive });
            }
        }
        if confirmed {
            self.report_session(index, session);
        }
    }

    /// A session was agreed on; the peer may have restarted. Where this side's part of the handshake went to the place that
    /// the other's came from, `proven`, that path works both ways.
    fn adopt(&mut self, index: PeerIndex, path: Via, proven: bool, length: usize) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(boot) = peer.sessions.current.as_ref().map(|session| session.remote_boot) else { return };
        let restarted = peer.boot.is_some_and(|former| former != boot);
        peer.boot = Some(boot);
        if restarted {
            peer.paths.reset();
            if let Some(delivery) = peer.delivery.as_mut() {
                delivery.on_restart();
            }
            if let Some(search) = peer.search.as_mut() {
                search.rendezvous.on_restart();
            }
        }
        let class = peer.class_of(&path);
        if proven {
            let slot = peer.paths.insert(now, path, class);
            peer.paths.prove(now, slot, Proof::Handshake);
        } else {
            peer.paths.note_arrival(now, &path, class, length, || shared.rng.u64());
        }
        peer.restarted |= restarted;
        if let (Via::Direct(via), Some(search)) = (path, peer.search.as_mut()) {
            search.checks.on_handshake(&via);
        }
        if restarted {
            self.on_relay_restart(index);
        }
        self.insert_legs(index);
        self.update_paths(index);
    }

    /// Pings on the path of a new session: that measures it, and answers the peer's confirmation at once.
    fn prove_path(&mut self, index: PeerIndex, path: Via) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        if let Some(slot) = peer.paths.find(&path) {
            peer.paths.probe(now, slot, shared.rng.u64());
        }
        self.send_probes(index);
    }

    /// Chooses the preferred path anew and tells what follows from it.
    pub(super) fn update_paths(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some(Switch { from, to, why, unanswered }) = peer.paths.reselect(shared.now, || shared.rng.u64()) {
            shared.counters.path_switches += u64::from(from.is_some());
            shared.counters.fallback_transitions +=
                u64::from(matches!(why, SwitchReason::PathLost | SwitchReason::Lossy));
            let peer = peer.config.id;
            let name = |(via, class)| Some((self.peers.name(via)?, class));
            let (from, to) = (from.and_then(name), name(to));
            if let Some(to) = to {
                self.shared.outbox.report(Event::SessionSwitched { peer, from, to, why, unanswered });
            }
            self.on_switch(index, why);
        }
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let usable = peer.paths.preferred().is_some() && peer.sessions.current.is_some();
        if usable {
            shared.flush(index, peer);
            self.flush_delivery(index);
        }
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let confirmed = peer.sessions.current.as_ref().is_some_and(|session| session.is_confirmed());
        if usable && confirmed && peer.link == Link::Down && peer.is_answering(shared.now) {
            peer.link = Link::Up;
            shared.outbox.report(Event::PeerUp { peer: peer.config.id });
        }
    }

    /// Data goes by another path.
    fn on_switch(&mut self, index: PeerIndex, why: SwitchReason) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        if let (Some(slot), Some(delivery)) = (peer.paths.preferred_slot(), peer.delivery.as_mut()) {
            delivery.on_switch(slot);
        }
        if why == SwitchReason::PathLost
            && let Some(search) = peer.search.as_mut()
        {
            search.rendezvous.on_hint(now);
        }
        self.maintain_legs(index);
        self.maintain_search(index);
        self.on_helper(index);
    }

    /// Reports a confirmed session, unless one that crossed it is used instead.
    fn report_session(&mut self, index: PeerIndex, session: u32) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some(session) = peer.sessions.current.as_ref().filter(|current| current.index() == session) {
            let restarted = core::mem::take(&mut peer.restarted);
            let (peer, cipher, initiator) = (peer.config.id, session.cipher, session.initiator);
            shared.outbox.report(Event::SessionEstablished { peer, cipher, initiator, restarted });
        }
        self.update_paths(index);
    }

    /// Makes a Hello and sends it wherever the peer may be.
    pub(super) fn say_hello(&mut self, index: PeerIndex, cookie: Option<Cookie>, now: Instant) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        if let Some(former) = peer.initiation.take() {
            shared.indices.release(former.index);
        }
        let local_index = shared.indices.allocate(&mut shared.rng, index);
        let stamp = shared.stamp();
        match shared.local.greet(&peer.keys, local_index, stamp, cookie, &shared.rng.secret(), now) {
            Ok(initiation) => {
                peer.initiation = Some(initiation.into());
                self.send_hello(index);
            }
            Err(_) => shared.indices.release(local_index),
        }
    }

    /// Sends the Hello that is under way to every place where the peer may be.
    pub(super) fn send_hello(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        // Two of three Hellos leave the choice of source address to the kernel: the one that a path is pinned to may be gone
        // without anybody having told.
        let pinned = peer.greeting.as_ref().is_none_or(|greeting| greeting.attempts % 3 == 1);
        let pin = |path: Via| match path {
            Via::Direct(path) => Via::Direct(FourTuple { local: path.local.filter(|_| pinned), ..path }),
            relay => relay,
        };
        let known = peer.paths.proven().chain(peer.heard_at).map(pin);
        let configured = peer.config.endpoints.iter().chain(&peer.config.last_known);
        let configured = configured.filter_map(|endpoint| shared.path_to(*endpoint));
        let relays = peer.legs.iter().flat_map(|legs| legs.open()).map(Via::Relay);
        let mut places: heapless::Vec<Via, MAX_PLACES> = heapless::Vec::new();
        for place in known.chain(configured.map(Via::Direct)).chain(relays) {
            if !places.iter().any(|held| held.place(None) == place.place(None)) {
                let _ = places.push(place); // Full: see MAX_PLACES.
            }
        }
        if let Some(initiation) = peer.initiation.as_mut() {
            let new = places.iter().filter(|place| !initiation.asked.contains(place)).copied();
            let room = MAX_PLACES - initiation.asked.len();
            let new: heapless::Vec<Via, MAX_PLACES> = new.take(room).collect();
            initiation.asked.extend(new);
        }
        for path in places {
            shared.counters.hellos_sent += 1;
            shared.send(Outgoing::Hello { peer: index, path });
        }
    }
}
