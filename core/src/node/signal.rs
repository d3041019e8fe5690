//! Reaching each other: this node's candidates, the Signals that tell them, and the checks of what others tell.

use core::net::{IpAddr, SocketAddr};

use super::{Node, Outgoing, PeerIndex, Shared};
use crate::delivery::Topic;
use crate::path::candidate::{self, OwnAddresses};
use crate::path::checks::{CheckList, DueCheck, MAX_TARGETS};
use crate::path::{Family, FourTuple, PathClass, PathState, Proof, SocketInfo, Via};
use crate::peer::RemoteView;
use crate::rate::Rate;
use crate::time::Instant;
use crate::wire::{Candidate, CandidateKind, Message, Signal, SignalBody, SignalRole};

/// A Signal that has no session of its own to go by is given to so many common peers.
const CARRIERS: usize = 3;

/// Signals do not bring Hellos closer together than this.
const HELLO_GAP: core::time::Duration = core::time::Duration::from_millis(250);

/// Signals that this node carries for one peer.
const CARRY_RATE: Rate = Rate { units: 4, per: core::time::Duration::from_secs(1), burst: 64 };

/// Signals of whomever that are taken from one peer: with many peers behind it, it may bring many at once when they wake.
const BRING_RATE: Rate = Rate { units: 16, per: core::time::Duration::from_secs(1), burst: 256 };

/// What a peer saw of this node is as it was for so long: many NATs forget after 30 s.
const SEEN_FOR: core::time::Duration = core::time::Duration::from_secs(20);

impl Node {
    /// Seeks a direct path to a peer that somebody sends to: tells it where this node is, and tries where the peer may be.
    pub(super) fn maintain_search(&mut self, index: PeerIndex) {
        let allowed = self.shared.policy.allow_signaling_upgrade;
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let wanted = !peer.departed && peer.is_in_use(now) && !peer.is_reached_directly(now);
        if wanted || peer.search.is_some() {
            let search = peer.search.get_or_insert_default();
            search.rendezvous.set_wanted(now, wanted);
            if let Some(due) = search.rendezvous.poll(now, &mut shared.rng) {
                // Where the peer is configured to be needs nobody's Signal, and the peer may send none.
                self.check_endpoints(index);
                if allowed {
                    self.send_signal(index, due.wants_answer);
                }
            }
            self.send_checks(index);
        }
    }

    /// Tries the configured addresses of a peer by which nothing went of late. What it answers shows how this node is seen by
    /// the other family of addresses, which the two do not use, and keeps what NATs have mapped for that. The addresses that
    /// the peer told are tried where nobody else has shown it of late.
    fn check_endpoints(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let (now, paths, endpoints) = (shared.now, &peer.paths, &peer.config.endpoints);
        let is_covered = |via: &FourTuple| {
            let slot = paths.find(&Via::Direct(*via));
            let proof = slot.and_then(|slot| paths.get(slot)).and_then(|path| path.last_proof);
            slot.is_some() && slot == paths.preferred_slot() || proof.is_some_and(|proof| now.since(proof) < SEEN_FOR)
        };
        let targets: heapless::Vec<FourTuple, MAX_TARGETS> =
            endpoints.iter().filter_map(|at| shared.path_to(*at)).take(MAX_TARGETS).collect();
        if peer.search.is_none() && targets.iter().all(is_covered) {
            return;
        }
        let checks = &mut peer.search.get_or_insert_default().checks;
        checks.retain_local(|_, via| endpoints.contains(&via.remote));
        for via in targets {
            checks.add(CandidateKind::Configured, via);
        }
        let Shared { observations, rng, .. } = shared;
        let is_seen = |via: &FourTuple| observations.is_recent(now, via.socket, SEEN_FOR);
        let is_needless = |via: &FourTuple| is_covered(via) || !endpoints.contains(&via.remote) && is_seen(via);
        checks.start(now, is_needless, || rng.u64());
        self.send_checks(index);
        self.reschedule(index);
    }

    /// Asks a peer where it can be reached, if that is not known in a family of addresses that this host has too, and nobody
    /// has shown of late how this node is seen there.
    fn ask_for_addresses(&mut self, index: PeerIndex, own: &[Candidate]) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let (now, endpoints, observations) = (shared.now, &peer.config.endpoints, &shared.observations);
        let is_missing = |socket: &SocketInfo| {
            let has = |address: &SocketAddr| Family::of(address) == socket.family;
            own.iter().any(|own| has(&own.address))
                && !endpoints.iter().any(has)
                && !observations.is_recent(now, socket.id, SEEN_FOR)
        };
        if shared.sockets.iter().any(is_missing) {
            peer.search.get_or_insert_default().rendezvous.ask(now);
            self.reschedule(index);
        }
    }

    /// Tells a peer where this node can be reached: in their session, or through common peers.
    fn send_signal(&mut self, index: PeerIndex, wants_answer: bool) {
        let candidates = self.candidates();
        let needs_help = self.peer(index).is_some_and(|peer| !peer.is_reached_directly(self.shared.now));
        let carriers = if needs_help { self.carriers(index) } else { heapless::Vec::new() };
        for carrier in &carriers {
            self.check_endpoints(*carrier);
            self.ask_for_addresses(*carrier, &candidates);
        }
        if let Some(search) = self.peer_mut(index).and_then(|(peer, _)| peer.search.as_mut()) {
            search.carriers = carriers.len();
        }
        if needs_help && carriers.is_empty() {
            self.seek_helpers(index);
        }
        let shared = &mut self.shared;
        let nat = shared.observations.verdict(shared.addresses.as_deref().unwrap_or_default());
        let stamp = shared.stamp();
        let now = shared.now;
        let Some(peer) = self.peer(index) else { return };
        let results = peer.search.iter().flat_map(|search| search.checks.results()).take(Signal::MAX_ITEMS).collect();
        let body = SignalBody { stamp, wants_answer, nat, candidates, results };
        let is_reached = peer.is_reached(now);
        let id = *peer.config.id.as_bytes();
        let mut scratch = [0; SignalBody::SCRATCH_LEN];
        self.shared.counters.signals_sent += 1;
        if is_reached {
            let signal = body.to_signal(SignalRole::Own, &mut scratch);
            self.deliver(index, Topic::Signal, &Message::Signal(signal));
            return;
        }
        for carrier in carriers {
            let signal = body.to_signal(SignalRole::Carry(id), &mut scratch);
            self.deliver(carrier, Topic::SignalTo(index), &Message::Signal(signal));
        }
    }

    /// Nobody is there who could carry a Signal to `index`: those that this node can find by itself are sought.
    fn seek_helpers(&mut self, index: PeerIndex) {
        let now = self.shared.now;
        for other in self.peers.indices().into_iter().filter(|other| *other != index) {
            let Some((peer, _)) = self.peer_mut(other) else { continue };
            if !peer.config.endpoints.is_empty() && !peer.departed && !peer.sessions.has_sender(now) {
                peer.note_helper_wanted(now);
                self.reschedule(other);
            }
        }
    }

    /// A peer is reached directly from now on. Who is sought and had few others to carry Signals may be found by it.
    pub(super) fn on_helper(&mut self, index: PeerIndex) {
        if self.peer(index).is_some_and(|peer| peer.is_reached_directly(self.shared.now)) {
            self.hint_searches(|search| search.carriers < CARRIERS);
        }
    }

    /// The peers that may carry a Signal to another: those that most likely know it first.
    fn carriers(&self, to: PeerIndex) -> heapless::Vec<PeerIndex, CARRIERS> {
        let heard = self.peer(to).and_then(|peer| peer.search.as_ref()?.carrier);
        let mut carriers: alloc::vec::Vec<_> = self
            .peers
            .iter()
            .filter(|(index, peer)| *index != to && peer.is_reached_directly(self.shared.now))
            .map(|(index, peer)| {
                let rtt = peer.paths.preferred().and_then(|(_, path)| path.rtt.smoothed());
                let is_known = !peer.config.endpoints.is_empty();
                (Some(index) != heard, !peer.config.relay_capable, !is_known, rtt, index)
            })
            .collect();
        carriers.sort();
        carriers.into_iter().take(CARRIERS).map(|(.., index)| index).collect()
    }

    /// Where this node can be reached.
    pub(super) fn candidates(&self) -> heapless::Vec<Candidate, { Signal::MAX_ITEMS }> {
        let shared = &self.shared;
        let reflexive = shared.observations.reflexive(&self.own_sockets());
        let own = OwnAddresses { interfaces: &self.own_addresses(), sockets: &shared.sockets, reflexive: &reflexive };
        candidate::gather(&own, |ip| self.is_overlay(ip))
    }

    /// The host's addresses: those that the runtime told, and those that peers reach it at. The host may have moved since, and
    /// not every runtime watches that.
    fn own_addresses(&self) -> alloc::vec::Vec<IpAddr> {
        let mut addresses = self.shared.addresses.clone().unwrap_or_default();
        for local in self.used_addresses() {
            if !addresses.contains(&local) {
                addresses.push(local);
            }
        }
        addresses
    }

    /// The host's addresses that paths lead by.
    fn used_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let paths = self.peers.iter().flat_map(|(_, peer)| peer.paths.iter());
        let usable = paths.filter(|(_, path)| path.state == PathState::Usable);
        usable.filter_map(|(_, path)| path.via.direct()?.local)
    }

    /// Whether an address lies in the overlay.
    pub(super) fn is_overlay(&self, ip: IpAddr) -> bool {
        self.routes.owner_of(ip).is_some() || self.shared.own_prefixes.iter().any(|prefix| prefix.contains(ip))
    }

    /// A Signal arrived from `from`.
    pub(super) fn on_signal(&mut self, from: PeerIndex, signal: &Signal<'_>) {
        let Some((peer, shared)) = self.peer_mut(from) else { return };
        if !matches!(signal.role(), SignalRole::Carry(_)) && !peer.brought.take(shared.now, &BRING_RATE, 1) {
            shared.counters.signals_refused += 1;
            return;
        }
        match signal.role() {
            SignalRole::Own => self.take_signal(from, None, signal),
            SignalRole::Carried(origin) => {
                if let Some(&origin) = self.by_id.get(&origin)
                    && origin != from
                {
                    self.take_signal(origin, Some(from), signal);
                }
            }
            SignalRole::Carry(to) => self.carry_signal(from, &to, signal),
        }
    }

    /// Passes a Signal on to another peer, if that is here.
    fn carry_signal(&mut self, from: PeerIndex, to: &[u8; 32], signal: &Signal<'_>) {
        let Some(&to) = self.by_id.get(to) else { return };
        let Some((peer, shared)) = self.peer_mut(from) else { return };
        let origin = *peer.config.id.as_bytes();
        let granted = peer.carried.take(shared.now, &CARRY_RATE, 1);
        let is_there = to != from && self.peer(to).is_some_and(|to| to.is_reached_directly(self.shared.now));
        if !granted || !is_there {
            self.shared.counters.signals_refused += 1;
            return;
        }
        self.shared.counters.signals_carried += 1;
        let signal = signal.with_role(SignalRole::Carried(origin));
        self.deliver(to, Topic::SignalOf(from), &Message::Signal(signal));
    }

    /// A peer tells where it can be reached.
    fn take_signal(&mut self, index: PeerIndex, carrier: Option<PeerIndex>, signal: &Signal<'_>) {
        if !self.shared.policy.allow_signaling_upgrade {
            return;
        }
        let own = self.own_sockets();
        let is_other = |at: SocketAddr| self.holder(index, &at).is_some();
        let acceptable =
            |named: &Candidate| candidate::judge(named.address, |ip| self.is_overlay(ip), &own, is_other).is_ok();
        let named: heapless::Vec<(CandidateKind, FourTuple), { Signal::MAX_ITEMS }> = signal
            .candidates()
            .filter(acceptable)
            .filter_map(|candidate| Some((candidate.kind, self.shared.path_to(candidate.address)?)))
            .collect();
        let refused = signal.candidates().count() - named.len();
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        // Where the two talk, each tells its addresses itself; what others say in its name is not needed, and may be a lie.
        let talks =
            peer.sessions.current.as_ref().is_some_and(|session| session.is_confirmed()) && peer.is_reached(now);
        if talks && carrier.is_some() {
            shared.counters.signals_refused += 1;
            return;
        }
        shared.counters.signals_received += 1;
        shared.counters.candidates_refused += refused as u64;
        let search = peer.search.get_or_insert_default();
        if !search.rendezvous.on_signal(now, carrier, signal.stamp(), signal.wants_answer()) {
            return;
        }
        search.carrier = carrier.or(search.carrier);
        search.remote = Some(RemoteView { nat: signal.nat(), results: signal.results().collect(), at: now });
        let merged = search.checks.merge(now, &named);
        shared.counters.candidates_refused += merged.refused as u64;
        if merged.added > 0 {
            search.rendezvous.on_news(now);
        }
        let paths = &peer.paths;
        let is_covered = |via: &FourTuple| {
            let slot = paths.find(&Via::Direct(*via));
            slot.and_then(|slot| paths.get(slot)).is_some_and(|path| path.state == PathState::Usable)
        };
        search.checks.start(now, is_covered, || shared.rng.u64());
        peer.departed = false;
        peer.paths.hasten(now);
        // Not more often than Hellos follow each other anyway, whoever asks for them.
        let lately =
            peer.greeting.as_ref().and_then(|greeting| greeting.last).is_some_and(|last| now < last + HELLO_GAP);
        if !peer.has_session() && !lately {
            peer.greet_now(now);
            // The first tries carry its Hello.
            self.maintain_greeting(index);
        }
        self.maintain_search(index);
        self.reschedule(index);
    }

    /// Tries the addresses that are due: by a sealed Ping where there is a session, and by a Hello where one is sought. Both
    /// go out where the session is in doubt: the peer may have begun a new life, and cannot open the Ping.
    fn send_checks(&mut self, index: PeerIndex) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(search) = peer.search.as_mut() else { return };
        while let Some(DueCheck { via, token }) = search.checks.poll(now) {
            if peer.sessions.current.is_some() {
                shared.send(Outgoing::Check { peer: index, via, token });
            }
            if let Some(initiation) = peer.initiation.as_mut() {
                let path = Via::Direct(via);
                if initiation.asked.contains(&path) || initiation.asked.push(path).is_ok() {
                    shared.counters.hellos_sent += 1;
                    shared.send(Outgoing::Hello { peer: index, path });
                }
            }
        }
    }

    /// A Pong that no path asked for: a check was answered.
    pub(super) fn on_check_answered(
        &mut self,
        index: PeerIndex,
        token: u64,
        held: core::time::Duration,
        observed: Option<SocketAddr>,
    ) {
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let now = shared.now;
        let Some(answered) = peer.search.as_mut().and_then(|search| search.checks.on_pong(now, token, held)) else {
            return;
        };
        if let Err(reason) = self.check_place(index, &Via::Direct(answered.via)) {
            return self.shared.counters.drop(reason);
        }
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        let class = if answered.by_signal { PathClass::SignalingThenDirect } else { PathClass::Direct };
        let slot = peer.paths.insert(now, Via::Direct(answered.via), class);
        if peer.paths.get(slot).is_some_and(|path| path.state != PathState::Lost) {
            peer.paths.prove(now, slot, Proof::Pong(answered.rtt));
        }
        // Most that a Signal named are seen by a mapping of their own, which is of use to nobody else.
        let is_told = answered.by_signal && shared.observations.is_recent(now, answered.via.socket, SEEN_FOR);
        let observed = observed.filter(|_| !is_told);
        if observed.is_some_and(|observed| shared.observations.note(now, index, answered.via, observed)) {
            self.hint_search();
        }
        self.update_paths(index);
        self.reschedule(index);
    }

    /// Signaling is not allowed any more: what it led to ends, and is not taken up again where the peer goes on with it.
    pub(super) fn close_signaling(&mut self) {
        for index in self.peers.indices() {
            let Some((peer, shared)) = self.peer_mut(index) else { continue };
            let now = shared.now;
            let paths = peer.paths.forget_class(PathClass::SignalingThenDirect);
            let checks = peer.search.take().map(|search| search.checks);
            let tried = checks.iter().flat_map(|checks| checks.signaled());
            peer.note_signaled(paths.iter().filter_map(Via::direct).map(|at| at.remote).chain(tried));
            let signaled = &peer.signaled;
            peer.heard_at.take_if(|via| via.direct().is_some_and(|at| signaled.contains(&at.remote)));
            if let Some(delivery) = peer.delivery.as_mut() {
                delivery.forget_signals();
            }
            peer.paths.probe_all(now, || shared.rng.u64());
            if peer.has_session() && peer.paths.preferred_slot().is_none() {
                peer.greet_now(now);
            }
            self.maintain_legs(index);
            self.update_paths(index);
            self.reschedule(index);
        }
    }

    /// The addresses of this node's sockets. Where the host is reached at one that the runtime has not told, it has moved, and
    /// those that were told may be another's by now: behind every NAT the same ones are given away.
    fn own_sockets(&self) -> alloc::vec::Vec<SocketAddr> {
        let told = self.shared.addresses.as_deref().unwrap_or_default();
        let has_moved = |told_ip: &IpAddr| {
            let is_new = |used: &IpAddr| used.is_ipv4() == told_ip.is_ipv4() && !told.contains(used);
            self.used_addresses().any(|used| is_new(&used))
        };
        let addresses = self.own_addresses();
        let ports = self.shared.sockets.iter().map(|socket| socket.port);
        let own = addresses.iter().filter(|ip| !told.contains(ip) || !has_moved(ip));
        own.flat_map(|ip| ports.clone().map(|port| SocketAddr::new(*ip, port))).collect()
    }

    /// Others see this node elsewhere than before: what it tells of itself is told anew.
    pub(super) fn hint_search(&mut self) {
        self.hint_searches(|_| true);
    }

    fn hint_searches(&mut self, which: impl Fn(&Search) -> bool) {
        for index in self.peers.indices() {
            let Some((peer, shared)) = self.peer_mut(index) else { continue };
            if let Some(search) = peer.search.as_mut().filter(|search| which(search)) {
                search.rendezvous.on_hint(shared.now);
                self.reschedule(index);
            }
        }
    }

    /// Something changed for every peer: this node has other addresses, or woke.
    pub(super) fn hint_all(&mut self) {
        for index in self.peers.indices() {
            let Some((peer, Shared { now, .. })) = self.peer_mut(index) else { continue };
            let now = *now;
            peer.paths.hasten(now);
            if let Some(legs) = peer.legs.as_mut() {
                legs.on_hint(now);
            }
            if let Some(search) = peer.search.as_mut() {
                search.rendezvous.on_hint(now);
            }
            self.reschedule(index);
        }
    }
}

impl Search {
    /// When it wants to be looked at.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.rendezvous.next_deadline().min(self.checks.next_deadline())
    }
}

/// What is done to reach a peer directly.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) rendezvous: crate::path::rendezvous::Rendezvous,
    pub(crate) checks: CheckList,
    /// How many peers could carry the last Signal to it.
    pub(crate) carriers: usize,
    /// Who carried the peer's last Signal.
    pub(crate) carrier: Option<PeerIndex>,
    /// What the peer said of its side.
    pub(crate) remote: Option<RemoteView>,
}
