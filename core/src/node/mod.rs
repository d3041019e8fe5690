//! The node: one machine's whole protocol, driven by its caller.
//!
//! [`Node`] composes what the other modules decide; it holds no protocol of its own. Its methods come in four families:
//! `handle_*` takes what happened, `command` takes what somebody wants, `poll_*` tells what is to be done and when to come
//! back, and the rest are views for reports. Any order of calls is legal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `ingress` | a datagram arrived: opens it, hands packets to the caller and control to its module |
//! | `egress` | the host sends a packet: finds its owner, seals it into the caller's batch |
//! | `deliver` | control messages that must arrive |
//! | `refused` | the host could not send a datagram |
//! | `too_long` | packets that a path does not carry whole |
//! | `signal` | candidates, Signals and connectivity checks |
//! | `handshake` | Hello, HelloAck, Cookie and what a confirmed session changes |
//! | `maintain` | a peer's deadline came: probes, receipts, keepalives, Hellos |
//! | `relay` | envelopes that leave or arrive through a third peer, and those of others that pass here |
//! | `outbox` | what waits to be sent, as short descriptions |
//! | `transmit` | turns a description into bytes when the caller polls |
//! | `view`, `explain` | what reports say |

mod deliver;
mod egress;
mod explain;
mod handshake;
mod ingress;
mod maintain;
mod outbox;
mod refused;
mod relay;
pub(crate) mod signal;
#[cfg(test)]
mod tests;
mod too_long;
mod transmit;
mod view;

pub use egress::TunOutcome;
pub use explain::{Explanation, NetView, PathView, RelayLegView, RelayView, RemoteSide, SeenView};
use ingress::Origin;
pub use ingress::{Inbound, InboundPacket};
pub use refused::SendError;
pub use view::{ChannelView, PeerState, PeerView, RouteView, SessionView};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::command::{Command, CommandError};
use crate::config::{ConfigError, NodeConfig, PeerConfig, Policy};
use crate::counters::{Counters, DropReason};
use crate::event::{DownReason, Event};
use crate::identity::{Identity, PeerId};
use crate::membership;
use crate::overlay::{PeerIndex, Prefix, RouteTable};
use crate::path::mapping::Observations;
use crate::path::{Family, FourTuple, PathSlot, SocketInfo, Via};
use crate::peer::{Link, MAX_PINGS, OperatorPing, Peer};
use crate::relay::{RelayHandles, RelayTable};
use crate::rng::Rng;
use crate::session::handshake::LocalKeys;
use crate::session::{CookieJar, CryptoBackend, HelloGate, Indices, KeyAge};
use crate::time::{Instant, UnixTime};
use crate::timers::Timers;
use crate::wire::{CloseReason, RelayCloseReason};
use outbox::{Control, Outbox, Outgoing};

/// What a caller is to do. The bytes of a datagram are in the scratch buffer that was given to [`Node::poll_output`].
#[derive(Debug)]
#[must_use = "an output that is not carried out is lost"]
pub enum Output {
    /// Send `scratch[..len]`.
    Transmit {
        /// Where from and where to.
        path: FourTuple,
        /// Bytes in the scratch buffer.
        len: usize,
    },
    /// Give the host the IP packet `scratch[..len]`. Its checksums are complete.
    Tun {
        /// Bytes in the scratch buffer.
        len: usize,
    },
    /// Something to report.
    Event(Event),
}

/// One machine of a vine network.
#[derive(Debug)]
pub struct Node {
    peers: Peers,
    by_static_key: BTreeMap<[u8; 32], PeerIndex>,
    by_id: BTreeMap<[u8; 32], PeerIndex>,
    /// The peers that may relay.
    relays: Vec<PeerIndex>,
    routes: RouteTable,
    timers: Timers,
    shared: Shared,
}

/// The peers by index.
#[derive(Debug, Default)]
struct Peers {
    /// `None` where a removed peer was; its index is given to the next new one.
    slots: Vec<Option<Box<Peer>>>,
}

impl Peers {
    fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.slots.get(index.0 as usize)?.as_deref()
    }

    fn get_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.slots.get_mut(index.0 as usize)?.as_deref_mut()
    }

    fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        self.slots.iter().zip(0u32..).filter_map(|(peer, index)| Some((PeerIndex(index), peer.as_deref()?)))
    }

    /// The indices of the peers there are, apart from them.
    fn indices(&self) -> Vec<PeerIndex> {
        self.iter().map(|(index, _)| index).collect()
    }

    fn next_free(&self) -> PeerIndex {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        PeerIndex(u32::try_from(free).expect("membership::check allows at most MAX_PEERS"))
    }

    fn insert(&mut self, index: PeerIndex, peer: Peer) {
        let slot = index.0 as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(peer.into());
    }

    fn remove(&mut self, index: PeerIndex) -> Option<Box<Peer>> {
        self.slots.get_mut(index.0 as usize)?.take()
    }

    /// A way as reports name it.
    fn name(&self, via: Via) -> Option<Via<PeerId>> {
        Some(match via {
            Via::Direct(addresses) => Via::Direct(addresses),
            Via::Relay(relay) => Via::Relay(self.get(relay)?.config.id),
        })
    }
}

/// What every peer's protocol needs of its node.
#[derive(Debug)]
struct Shared {
    local: LocalKeys,
    crypto: Box<dyn CryptoBackend>,
    sockets: Vec<SocketInfo>,
    own_prefixes: Vec<Prefix>,
    /// The host's addresses, where the runtime has told them.
    addresses: Option<Vec<IpAddr>>,
    policy: Policy,
    rng: Rng,
    indices: Indices,
    jar: CookieJar,
    gate: HelloGate,
    /// What arriving Relayed envelopes are for.
    handles: RelayHandles,
    /// What this node carries for others.
    channels: RelayTable,
    /// Where others see this node.
    observations: Observations,
    /// Bytes of the longest packet of the host.
    packet_len: usize,
    outbox: Outbox,
    counters: Counters,
    /// The latest `now` of any call: time never runs backwards in here.
    now: Instant,
    /// Wall clock minus `now`, in milliseconds.
    unix_offset_ms: i128,
    last_stamp: u64,
    next_stranger_report: Instant,
    shut_down: bool,
}

impl Shared {
    /// Queues a datagram, or counts that there was no room. Returns whether there was.
    fn send(&mut self, send: Outgoing) -> bool {
        let queued = self.outbox.push(send);
        if !queued {
            self.counters.drop(DropReason::ControlOverflow);
        }
        queued
    }

    /// Queues what waits for a peer's session, as far as it is not queued already.
    fn flush(&mut self, index: PeerIndex, peer: &mut Peer) {
        for _ in 0..peer.queue.expire(self.now) {
            self.counters.drop(DropReason::NoSession);
        }
        while peer.flushing < peer.queue.len() && self.outbox.push(Outgoing::Packet { peer: index }) {
            peer.flushing += 1;
        }
    }

    /// A stamp for a Hello: the wall clock in milliseconds, and always more than the last one.
    fn stamp(&mut self) -> u64 {
        let wall = self.unix_offset_ms + i128::from(self.now.as_nanos() / 1_000_000);
        let wall = u64::try_from(wall.max(0)).unwrap_or(u64::MAX);
        self.last_stamp = wall.max(self.last_stamp.saturating_add(1));
        self.last_stamp
    }

    fn set_unix_time(&mut self, unix_time: UnixTime) {
        self.unix_offset_ms = i128::from(unix_time.0) - i128::from(self.now.as_nanos() / 1_000_000);
    }

    /// Whether a NAT may stand between this node and a peer that sees it at `observed`: where the host does not have that
    /// address, or not enough is known.
    fn is_behind_nat(&self, observed: Option<SocketAddr>) -> bool {
        match (&self.addresses, observed) {
            (Some(addresses), Some(observed)) => !addresses.contains(&observed.ip()),
            _ => true,
        }
    }

    /// The path to an address by the first socket of its family.
    fn path_to(&self, remote: SocketAddr) -> Option<FourTuple> {
        let socket = self.sockets.iter().find(|socket| socket.family == Family::of(&remote))?;
        Some(FourTuple { socket: socket.id, local: None, remote })
    }
}

impl Node {
    /// A scratch buffer for [`Node::poll_output`] holds at least this many bytes: the largest datagram.
    pub const SCRATCH_LEN: usize = 65_536;

    /// Makes a node. `seed` is 32 fresh random bytes: the same seed and the same inputs give the same outputs, so it must
    /// be secret and never be used twice. `now` starts the node's time, `unix_time` is the wall clock at that moment.
    ///
    /// # Errors
    /// A configuration that cannot work: see [`ConfigError`].
    pub fn new(
        config: NodeConfig,
        identity: Identity,
        crypto: Box<dyn CryptoBackend>,
        seed: [u8; 32],
        now: Instant,
        unix_time: UnixTime,
    ) -> Result<Node, ConfigError> {
        membership::check(&identity.peer_id(), &config.own_prefixes, &config.peers)?;
        let mut rng = Rng::from_seed(seed);
        let (jar, gate) = (CookieJar::new(&mut rng), HelloGate::new(&mut rng));
        let local = LocalKeys::new(&identity, &config);
        let mut shared = Shared {
            local,
            crypto,
            sockets: config.sockets,
            own_prefixes: config.own_prefixes,
            addresses: None,
            policy: config.policy,
            rng,
            indices: Indices::default(),
            jar,
            gate,
            handles: RelayHandles::default(),
            channels: RelayTable::new(config.policy.relay),
            observations: Observations::default(),
            packet_len: usize::from(config.mtu),
            outbox: Outbox::new(),
            counters: Counters::default(),
            now,
            unix_offset_ms: 0,
            last_stamp: 0,
            next_stranger_report: now,
            shut_down: false,
        };
        shared.set_unix_time(unix_time);
        let mut node = Node {
            peers: Peers::default(),
            by_static_key: BTreeMap::new(),
            by_id: BTreeMap::new(),
            relays: Vec::new(),
            routes: RouteTable::new(),
            timers: Timers::default(),
            shared,
        };
        for peer in config.peers {
            node.add_peer(peer);
        }
        node.note_relays();
        Ok(node)
    }

    /// The next thing to do, or `None` when there is nothing before the next input or [`Node::poll_timeout`].
    ///
    /// # Panics
    /// Where `scratch` is shorter than [`Node::SCRATCH_LEN`].
    pub fn poll_output(&mut self, scratch: &mut [u8]) -> Option<Output> {
        assert!(scratch.len() >= Self::SCRATCH_LEN, "scratch must hold Node::SCRATCH_LEN bytes");
        while let Some(send) = self.shared.outbox.pop() {
            if let Some(output) = self.build(send, scratch) {
                return Some(output);
            }
        }
        self.shared.outbox.pop_event().map(Output::Event)
    }

    /// When to call [`Node::handle_timeout`] at the latest, and what for. While output waits this is the `now` of the last
    /// call; [`Instant::FAR_FUTURE`] means that only an input can cause anything. O(1) in the number of peers.
    pub fn poll_timeout(&self) -> (Instant, &'static str) {
        if !self.shared.outbox.is_empty() {
            return (self.shared.now, "output");
        }
        let channels = self.shared.channels.next_deadline();
        match self.timers.peek() {
            Some((deadline, index)) if deadline <= channels => {
                let why = self.peer(index).map_or("nothing", |peer| peer.next_deadline().1);
                (deadline.max(self.shared.now), why)
            }
            _ if channels == Instant::FAR_FUTURE => (Instant::FAR_FUTURE, "nothing"),
            _ => (channels.max(self.shared.now), "idle channel"),
        }
    }

    /// Does what is due at `now`. Early and late calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.shared.shut_down {
            return;
        }
        let mut last = None;
        let mut rounds = 0;
        while let Some((deadline, index)) = self.timers.peek()
            && deadline <= self.shared.now
        {
            rounds = if last.replace(index) == Some(index) { rounds + 1 } else { 0 };
            self.maintain(index);
            if rounds >= MAX_ROUNDS {
                // A deadline that nothing serves is a bug; it may not take the node with it.
                debug_assert!(false, "a peer wants {:?} for ever", self.peer(index).map(|peer| peer.next_deadline()));
                self.timers.set(index, self.shared.now + Duration::from_millis(10));
            }
        }
        if self.shared.channels.next_deadline() <= self.shared.now {
            self.expire_channels();
        }
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// [`CommandError`]; the node is then as it was.
    pub fn command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        self.advance(now);
        if self.shared.shut_down {
            return Err(CommandError::ShutDown);
        }
        match command {
            Command::SetPeers(peers) => self.set_peers(peers)?,
            Command::SetPolicy(policy) => self.set_policy(policy),
            Command::SetEndpoints { peer, endpoints } => self.set_endpoints(&peer, endpoints)?,
            Command::Ping { peer, token } => self.ping(&peer, token)?,
            Command::NetworkChanged { local } => self.network_changed(local),
            Command::SetUnixTime(unix_time) => self.shared.set_unix_time(unix_time),
            Command::Shutdown => self.shut_down(),
        }
        Ok(())
    }

    /// Takes the caller's time in. It may not run backwards; where it does, it stands still.
    fn advance(&mut self, now: Instant) {
        self.shared.now = self.shared.now.max(now);
    }

    fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(index)
    }

    /// A peer and the node's shared parts, to change both.
    fn peer_mut(&mut self, index: PeerIndex) -> Option<(&mut Peer, &mut Shared)> {
        Some((self.peers.get_mut(index)?, &mut self.shared))
    }

    /// Tells the timers what a peer wants now.
    fn reschedule(&mut self, index: PeerIndex) {
        let deadline = self.peer(index).map_or(Instant::FAR_FUTURE, |peer| peer.next_deadline().0);
        self.timers.set(index, deadline);
    }

    fn index_of(&self, id: &PeerId) -> Result<PeerIndex, CommandError> {
        let index = self.by_static_key.get(&id.x25519()).copied().ok_or(CommandError::UnknownPeer)?;
        self.peer(index).filter(|peer| peer.config.id == *id).map(|_| index).ok_or(CommandError::UnknownPeer)
    }

    fn add_peer(&mut self, config: PeerConfig) {
        let index = self.peers.next_free();
        for prefix in &config.prefixes {
            self.routes.insert(*prefix, index).expect("membership::check found no conflict");
        }
        let keys = self.shared.local.peer_keys(&config.id, self.shared.rng.array());
        self.by_static_key.insert(config.id.x25519(), index);
        self.by_id.insert(*config.id.as_bytes(), index);
        let mut peer = Peer::new(config, keys, self.shared.now);
        peer.paths.set_packet_len(self.shared.now, self.shared.packet_len);
        if !peer.config.endpoints.is_empty() || !peer.config.last_known.is_empty() {
            peer.greet(self.shared.now);
        }
        self.peers.insert(index, peer);
        self.reschedule(index);
    }

    /// Removes a peer without a word to it.
    fn remove_peer(&mut self, index: PeerIndex) {
        for other in self.peers.indices() {
            if let Some(delivery) = self.peer_mut(other).and_then(|(other, _)| other.delivery.as_mut()) {
                delivery.forget(index);
            }
        }
        self.close_legs(index);
        self.close_channels(index, RelayCloseReason::UNKNOWN_PEER);
        self.leave_relay(index);
        self.shared.observations.forget(index);
        let Some(mut peer) = self.peers.remove(index) else { return };
        peer.sessions.close_all(&mut self.shared.indices);
        if let Some(initiation) = peer.initiation {
            self.shared.indices.release(initiation.index);
        }
        if peer.link == Link::Up {
            self.shared.outbox.report(Event::PeerDown { peer: peer.config.id, why: DownReason::Removed });
        }
        for _ in 0..peer.queue.clear() {
            self.shared.counters.drop(DropReason::NoSession);
        }
        self.shared.outbox.forget(index);
        self.by_static_key.remove(&peer.config.id.x25519());
        self.by_id.remove(peer.config.id.as_bytes());
        self.routes.remove_peer(index);
        self.timers.set(index, Instant::FAR_FUTURE);
    }

    fn set_peers(&mut self, peers: Vec<PeerConfig>) -> Result<(), ConfigError> {
        membership::check(&self.shared.local.peer_id(), &self.shared.own_prefixes, &peers)?;
        let stays = |held: &Peer| peers.iter().any(|peer| peer.id == held.config.id);
        let gone: Vec<PeerIndex> = self.peers.iter().filter(|(_, held)| !stays(held)).map(|(index, _)| index).collect();
        for index in gone {
            self.goodbye(index, CloseReason::REMOVED);
            self.remove_peer(index);
        }
        // Ranges move between peers: all are withdrawn before any is given.
        for index in self.peers.indices() {
            self.routes.remove_peer(index);
        }
        let now = self.shared.now;
        for config in peers {
            let Ok(index) = self.index_of(&config.id) else {
                self.add_peer(config);
                continue;
            };
            for prefix in &config.prefixes {
                self.routes.insert(*prefix, index).expect("membership::check found no conflict");
            }
            if let Some((peer, shared)) = self.peer_mut(index) {
                let moved = config.endpoints != peer.config.endpoints;
                if config.prefixes != peer.config.prefixes {
                    // What waits may be for a range that is another peer's now.
                    for _ in 0..peer.queue.clear() {
                        shared.counters.drop(DropReason::NoSession);
                    }
                }
                peer.config = config;
                if moved && !peer.has_session() {
                    peer.greet_now(now);
                }
            }
            self.reschedule(index);
        }
        self.note_relays();
        Ok(())
    }

    /// Takes in which peers may relay.
    fn note_relays(&mut self) {
        self.relays = self.peers.iter().filter(|(_, peer)| peer.config.relay_capable).map(|(index, _)| index).collect();
    }

    /// Takes in what is permitted from now on.
    fn set_policy(&mut self, policy: Policy) {
        let former = core::mem::replace(&mut self.shared.policy, policy);
        self.shared.channels.set_limits(policy.relay);
        if former.allow_relay && !policy.allow_relay {
            self.close_relays();
        }
        if former.allow_signaling_upgrade && !policy.allow_signaling_upgrade {
            self.close_signaling();
        }
        self.hint_all();
    }

    fn set_endpoints(&mut self, id: &PeerId, endpoints: Vec<SocketAddr>) -> Result<(), CommandError> {
        let index = self.index_of(id)?;
        let prefixes = self.peers.iter().map(|(_, peer)| (peer.config.name.as_str(), peer.config.prefixes.as_slice()));
        membership::check_endpoints(&endpoints, prefixes)?;
        if let Some((peer, shared)) = self.peer_mut(index)
            && peer.config.endpoints != endpoints
        {
            peer.config.endpoints = endpoints;
            if !peer.has_session() {
                peer.greet_now(shared.now);
            }
        }
        self.reschedule(index);
        Ok(())
    }

    fn ping(&mut self, id: &PeerId, token: u64) -> Result<(), CommandError> {
        let index = self.index_of(id)?;
        let Some((peer, shared)) = self.peer_mut(index) else { return Err(CommandError::UnknownPeer) };
        let now = shared.now;
        peer.expire_pings(now);
        let age = peer.sessions.current.as_mut().map(|session| session.key_age(now));
        if age == Some(KeyAge::Rekey) {
            peer.greet(now);
        }
        let usable = age.is_some_and(|age| age != KeyAge::Expired);
        let result = match peer.paths.preferred().map(|(slot, path)| (slot, path.via, path.class)) {
            Some(_) if usable && peer.pings.len() >= MAX_PINGS => Err(CommandError::TooManyPings),
            Some((slot, path, class)) if usable => {
                let wire_token = shared.rng.u64();
                let ping = OperatorPing { token, wire_token, sent: now, path, class };
                peer.pings.push(ping);
                shared.send(Outgoing::Control { peer: index, slot, message: Control::Ping { token: wire_token } });
                // Where nobody answers, reports are to know it too.
                peer.paths.probe(now, slot, shared.rng.u64());
                // Who asks uses the pair: a better path is sought for him as it is for data.
                peer.paths.touch(now);
                Ok(())
            }
            _ => {
                peer.note_demand(now);
                Err(CommandError::NotConnected)
            }
        };
        self.reschedule(index);
        result
    }

    fn network_changed(&mut self, local: Vec<IpAddr>) {
        let now = self.shared.now;
        self.shared.addresses = Some(local);
        self.shared.observations.clear();
        self.hint_all();
        for index in self.peers.indices() {
            let Some((peer, shared)) = self.peer_mut(index) else { continue };
            let local = shared.addresses.as_deref().unwrap_or_default();
            peer.behind_nat = shared.is_behind_nat(peer.observed);
            peer.paths.on_network_change(now, local, || shared.rng.u64());
            if !peer.has_session() && (peer.greeting.is_some() || !peer.config.endpoints.is_empty()) {
                peer.greet_now(now);
            }
            self.reschedule(index);
        }
    }

    fn shut_down(&mut self) {
        self.shared.outbox.clear_sends();
        for index in self.peers.indices() {
            self.goodbye(index, CloseReason::SHUTDOWN);
            self.timers.set(index, Instant::FAR_FUTURE);
        }
        self.shared.shut_down = true;
    }

    /// Counts what happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

/// Wherever a slot is needed and none is proven: the first. A path set always has it once a path was inserted.
const FIRST_SLOT: PathSlot = PathSlot(0);

/// Times that one peer's deadline may come at one moment: what one thing makes due, another may serve.
const MAX_ROUNDS: u32 = 16;

/// Reports of strangers that tried to connect are at least this far apart.
const STRANGER_INTERVAL: Duration = Duration::from_secs(1);
