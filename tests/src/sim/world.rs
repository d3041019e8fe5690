//! Hosts, a network, stores and one clock: the events of all of them in order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vine_core::node::SendError;
use vine_core::overlay::{Batch, Gather, Merge, TunPacket, VirtioNetHeader};
use vine_core::path::{Family, FourTuple, SwitchReason};
use vine_core::rng::Rng;
use vine_core::wire::{EnvelopeType, Header};
use vine_core::{Command, CommandError, Counters, Event, Inbound, Instant, Node, Output, PeerId, Policy, TunOutcome};

use super::coverage::Coverage;
use super::crypto::AuditedCrypto;
use super::host::{Host, HostSpec, Topology};
use super::network::{Fate, Link, Network, Record, is_ghost};
use super::op::Traffic;
use super::trace::Trace;
use super::traffic::{Ledger, Offered};
use crate::disk::Stores;

/// Rounds of "the deadline is now" in a row that are still no busy loop: what an input makes due at once takes one.
const MAX_ROUNDS: usize = 4;

/// Outputs after one input that are still no endless loop: the queues of a node hold fewer.
const MAX_OUTPUTS: usize = 20_000;

/// Timeouts a second and peer that may lead to nothing: deadlines that traffic has moved since.
const MAX_IDLE_WAKES: u32 = 60;

/// Of so many inputs one is preceded by a search for forgotten wakeups.
const WAKE_CHECKS: u64 = 8;

/// What the clock says at first.
const BEGINNING: Instant = Instant::from_millis(1_000);

/// Bytes that a host's runtime collects before it sends.
const BATCH: usize = 128 * 1024;

/// Packets that are sent every so often.
#[derive(Clone, Copy, Debug)]
struct Stream {
    from: usize,
    to: usize,
    every: Duration,
    next: Instant,
    sent: u64,
}

/// Hosts, a network, stores and one clock.
#[derive(Debug)]
pub struct World {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// What is between them.
    pub network: Network,
    /// The stores: one for each host, none at all, or some without hosts.
    pub stores: Stores,
    /// What their users sent and got.
    pub ledger: Ledger,
    /// What was reached.
    pub coverage: Coverage,
    /// What happened.
    pub trace: Trace,
    now: Instant,
    ids: Vec<PeerId>,
    relays: BTreeSet<usize>,
    crypto: AuditedCrypto,
    pub(super) rng: Rng,
    streams: Vec<Stream>,
    batch: Batch<FourTuple>,
    scratch: Vec<u8>,
    tokens: u64,
    log: bool,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(seed: u64, crypto: AuditedCrypto, topology: impl Into<Topology>) -> World {
        let topology = topology.into();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(bytes);
        let mut network = Network::new(Rng::from_seed(rng.array()));
        topology.lay_out(&mut network);
        let relays = topology.hosts.iter().enumerate().filter(|(_, spec)| spec.relay).map(|(index, _)| index).collect();
        let mut hosts: Vec<Host> =
            topology.hosts.into_iter().enumerate().map(|(index, spec)| Host::new(index, spec)).collect();
        for host in &mut hosts {
            host.endpoints = host.spec.finds.iter().map(|&peer| (peer, network.public_endpoints(peer))).collect();
        }
        World {
            ids: hosts.iter().map(|host| host.id).collect(),
            batch: Batch::with_capacity(if hosts.is_empty() { 0 } else { BATCH }),
            hosts,
            relays,
            network,
            stores: Stores::default(),
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            trace: Trace::default(),
            now: BEGINNING,
            crypto,
            rng,
            streams: Vec::new(),
            scratch: vec![0; Node::SCRATCH_LEN],
            tokens: 0,
            log: std::env::var_os("VINE_SIM_LOG").is_some(),
        }
    }

    /// `count` running hosts that allow and find each other, over links of 10 ms, with the stub's ciphers.
    pub fn of(count: usize, seed: u64) -> World {
        let others = |index: usize| HostSpec::with_peers((0..count).filter(move |other| *other != index));
        World::started(seed, (0..count).map(others).collect::<Vec<_>>())
    }

    /// The same with hosts of the caller's choice.
    pub fn started(seed: u64, topology: impl Into<Topology>) -> World {
        let mut world = World::new(seed, AuditedCrypto::stub(), topology);
        for host in 0..world.hosts.len() {
            world.start(host);
        }
        world
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The identity of a host.
    pub fn id(&self, host: usize) -> PeerId {
        self.ids[host]
    }

    /// The host with an identity.
    pub fn host_of(&self, id: &PeerId) -> Option<usize> {
        self.ids.iter().position(|held| held == id)
    }

    // Time.

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.step(end) {}
        self.advance(end);
    }

    /// Lets time pass until `done`, but not longer than `limit`. Returns whether it is done.
    pub fn run_while(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                self.advance(end);
                return done(self);
            }
        }
        true
    }

    /// Does what is next, unless that is after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let deadline = self.hosts.iter().enumerate().map(|(index, host)| (host.deadline(), index)).min();
        let stream = self.streams.iter().enumerate().map(|(index, stream)| (stream.next, index)).min();
        let store = self.stores.deadline();
        let due = |entry: Option<(Instant, usize)>| entry.map_or(Instant::FAR_FUTURE, |(at, _)| at);
        let arrival = self.network.next_arrival();
        let next = arrival.min(due(deadline)).min(due(stream)).min(due(store));
        if next > end {
            return false;
        }
        self.advance(next);
        if arrival <= next {
            self.arrivals();
        } else if due(stream) <= next {
            self.feed(due_index(stream));
        } else if due(deadline) <= next {
            self.wake(due_index(deadline));
        } else {
            self.stores.wake(due_index(store));
        }
        true
    }

    /// It is `to` now, for everybody. What was due earlier waited for its process.
    pub(super) fn advance(&mut self, to: Instant) {
        self.now = self.now.max(to);
        self.stores.shared.now = self.now;
    }

    /// Hands every datagram that is due now to its host; those that come together are received together.
    fn arrivals(&mut self) {
        let mut by_host: BTreeMap<usize, Vec<(FourTuple, Vec<u8>)>> = BTreeMap::new();
        while let Some(arrived) = self.network.arrive(self.now) {
            if let Some((host, path, bytes)) = arrived {
                by_host.entry(host).or_default().push((path, bytes));
            }
        }
        for (host, datagrams) in by_host {
            if self.hosts[host].stalled {
                datagrams.into_iter().for_each(|(path, bytes)| self.hosts[host].keep(path, bytes));
            } else {
                self.receive(host, datagrams);
            }
        }
    }

    fn feed(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        stream.next += stream.every;
        stream.sent += 1;
        let Stream { from, to, sent, .. } = *stream;
        self.send(from, to, Traffic::ALL[sent as usize % 4], 200, 1);
    }

    /// The node's deadline has come.
    fn wake(&mut self, host: usize) {
        self.hosts[host].wakes += 1;
        let before = self.hosts[host].events.len() + self.network.records.len();
        self.timeout_at(host, self.hosts[host].local(self.now));
        let productive = self.hosts[host].events.len() + self.network.records.len() > before;
        let machine = &mut self.hosts[host];
        if self.now.since(machine.idle_wakes.0) > Duration::from_secs(1) {
            machine.idle_wakes = (self.now, 0);
        }
        machine.idle_wakes.1 += u32::from(!productive);
        let limit = MAX_IDLE_WAKES * machine.peers.len().max(1) as u32;
        assert!(machine.idle_wakes.1 <= limit, "host {host} wakes again and again and does nothing");
    }

    // What reaches a node.

    /// Calls `handle_timeout` with a time on the node's own clock.
    pub fn timeout_at(&mut self, host: usize, at: Instant) {
        self.trace.note("timeout", host, at, &[]);
        if let Some(node) = self.hosts[host].node.as_mut() {
            node.handle_timeout(at);
        }
        self.settle(host);
    }

    /// Datagrams reach a node together.
    pub fn receive(&mut self, host: usize, mut datagrams: Vec<(FourTuple, Vec<u8>)>) {
        self.look_for_forgotten_wakeups(host);
        let machine = &mut self.hosts[host];
        let now = machine.local(self.now);
        let Some(node) = machine.node.as_mut() else { return };
        let (ledger, at) = (&mut self.ledger, self.now);
        let (mut delivered, mut forwarded) = (0, Vec::new());
        let mut sink = |header: &_, parts: &[&[u8]]| delivered += ledger.receive(at, host, header, parts);
        let mut gather = Gather::new(if host.is_multiple_of(2) { Merge::Tcp } else { Merge::TcpAndUdp });
        for (path, bytes) in &mut datagrams {
            self.trace.note("datagram", host, now, bytes);
            let dropped = if self.log { node.counters().clone() } else { Counters::default() };
            match node.handle_datagram(now, *path, bytes) {
                Some(Inbound::Packet(inbound)) => gather.push(inbound.packet, inbound.csum_partial, &mut sink),
                Some(Inbound::Forward { to, datagram }) => {
                    assert!(!is_ghost(&path.remote), "host {host} passes on what a stranger sent");
                    assert!(machine.policy.allow_relay, "host {host} carries for others, which it may not");
                    forwarded.push((to, datagram.to_vec()));
                }
                None => {}
            }
            if self.log
                && let Some(reason) = newly_dropped(&dropped, node.counters())
            {
                println!("{at:?} host {host} drops what came from {}: {reason}", path.remote);
            }
        }
        gather.finish(&mut sink);
        machine.delivered += delivered;
        machine.deeds.forwarded += forwarded.len() as u64;
        self.network.audit.forwarding = true;
        for (to, datagram) in forwarded {
            self.transmit(host, to, &datagram);
        }
        self.network.audit.forwarding = false;
        self.settle(host);
    }

    /// A host sends packets to another one.
    pub fn send(&mut self, from: usize, to: usize, kind: Traffic, len: usize, count: usize) {
        if from == to || self.hosts[from].node.is_none() {
            return;
        }
        let offered = self.ledger.make(self.now, from, to, kind, len, count);
        self.hand_over(from, &offered);
    }

    /// A host opens a TCP connection to another one.
    pub fn open_connection(&mut self, from: usize, to: usize, v6: bool) {
        if from == to || self.hosts[from].node.is_none() {
            return;
        }
        let offered = self.ledger.open_connection(self.now, from, to, v6);
        self.hand_over(from, &[offered]);
    }

    /// A host sends a packet under the address of `whose`, or its own packet to nobody's address.
    pub fn send_forged(&mut self, from: usize, whose: usize, to: Option<usize>) {
        let offered = self.ledger.forge(self.now, from, whose, to);
        self.hand_over(from, &[offered]);
    }

    /// Hands packets to a node as a runtime does: into one batch until it is full, then the batch is sent.
    fn hand_over(&mut self, host: usize, offered: &[Offered]) {
        if self.hosts[host].stalled || self.hosts[host].node.is_none() {
            return;
        }
        self.look_for_forgotten_wakeups(host);
        let now = self.hosts[host].local(self.now);
        for packet in offered {
            self.trace.note("tun", host, now, &packet.bytes);
            let parsed = TunPacket::parse(&packet.header, &packet.bytes).expect("hosts hand over packets");
            for attempt in 0.. {
                let Some(node) = self.hosts[host].node.as_mut() else { return };
                if node.handle_tun(now, parsed, &mut self.batch) != TunOutcome::Full {
                    break;
                }
                assert!(attempt == 0 && !self.batch.is_empty(), "an empty batch is called full");
                self.flush(host);
            }
        }
        self.flush(host);
        self.settle(host);
    }

    fn flush(&mut self, host: usize) {
        let mut refused = Vec::new();
        for chunk in self.batch.chunks(64, 65_507) {
            self.trace.note("batch", host, self.now, chunk.bytes);
            if self.is_refused(host, &chunk.destination, chunk.segment_size) {
                refused.push((chunk.destination, chunk.segment_size));
                continue;
            }
            self.network.send(self.now, host, chunk.destination, chunk.segment_size, chunk.bytes);
            if self.log {
                self.log_last();
            }
        }
        self.batch.clear();
        for (path, length) in refused {
            self.tell_refused(host, path, length, SendError::TooLong);
        }
    }

    /// Whether the link of a host takes less.
    fn is_refused(&self, host: usize, path: &FourTuple, datagram: usize) -> bool {
        let len = Link::packet_len(Family::of(&path.remote), datagram);
        self.hosts[host].spec.link_mtu.is_some_and(|mtu| len > usize::from(mtu))
    }

    /// The kernel of a host says that it has not sent a datagram.
    fn tell_refused(&mut self, host: usize, path: FourTuple, length: usize, error: SendError) {
        let label = if error == SendError::TooLong { "send refused: too long" } else { "send refused: unreachable" };
        self.coverage.hit(label);
        let now = self.hosts[host].local(self.now);
        if let Some(node) = self.hosts[host].node.as_mut() {
            node.handle_send_error(now, path, length, error);
        }
    }

    /// Asks something of a node. Refused where the host does not run.
    pub fn command(&mut self, host: usize, command: Command) -> Result<(), CommandError> {
        if self.hosts[host].stalled {
            return Err(CommandError::ShutDown);
        }
        self.look_for_forgotten_wakeups(host);
        self.request(host, command)
    }

    fn request(&mut self, host: usize, command: Command) -> Result<(), CommandError> {
        let now = self.hosts[host].local(self.now);
        self.trace.note("command", host, now, format!("{command:?}").as_bytes());
        let Some(node) = self.hosts[host].node.as_mut() else { return Err(CommandError::ShutDown) };
        let result = node.command(now, command);
        self.settle(host);
        result
    }

    // What comes out of a node.

    /// Polls everything out of a node, and keeps deadlines that are due at once.
    pub fn settle(&mut self, host: usize) {
        if self.hosts[host].hoarding || self.hosts[host].stalled {
            return;
        }
        for round in 0.. {
            self.drain(host);
            let now = self.hosts[host].local(self.now);
            let Some(node) = self.hosts[host].node.as_mut() else { return };
            let (deadline, why) = node.poll_timeout();
            if deadline > node.now() {
                return;
            }
            assert!(round < MAX_ROUNDS, "host {host} is in a busy loop for {why:?}");
            self.trace.note("due", host, now, why.as_bytes());
            node.handle_timeout(now);
        }
    }

    fn drain(&mut self, host: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for count in 0.. {
            assert!(count < MAX_OUTPUTS, "host {host} has endless output");
            let Some(node) = self.hosts[host].node.as_mut() else { break };
            match node.poll_output(&mut scratch) {
                None => break,
                Some(Output::Transmit { path, len }) => self.transmit(host, path, &scratch[..len]),
                Some(Output::Tun { len }) => self.give_host(host, &scratch[..len]),
                Some(Output::Event(event)) => self.on_event(host, event),
            }
        }
        self.scratch = scratch;
    }

    /// A packet for the host: one that came in fragments, or a word about its own packets.
    fn give_host(&mut self, host: usize, packet: &[u8]) {
        // ICMP of either version: the users of hosts send none.
        let is_told = matches!(packet, [0x45, ..] if packet.get(9) == Some(&1)) || packet.get(6) == Some(&58);
        if is_told {
            self.coverage.hit("host told: packet too big");
            self.hosts[host].told = Some(self.now);
        } else {
            let delivered = self.ledger.receive(self.now, host, &VirtioNetHeader::default(), &[packet]);
            self.hosts[host].delivered += delivered;
        }
    }

    fn transmit(&mut self, host: usize, path: FourTuple, bytes: &[u8]) {
        self.trace.note("transmit", host, self.now, bytes);
        let header = Header::decode(bytes);
        assert!(header.is_ok(), "host {host} sends what is no envelope: {header:?}");
        if self.is_refused(host, &path, bytes.len()) {
            return self.tell_refused(host, path, bytes.len(), SendError::TooLong);
        }
        self.network.send(self.now, host, path, bytes.len(), bytes);
        if self.log {
            self.log_last();
        }
        let is_sent = self.network.records.last().is_none_or(|record| record.fate != Fate::Unsendable);
        if self.hosts[host].spec.link_mtu.is_some() && !is_sent {
            self.tell_refused(host, path, bytes.len(), SendError::Unreachable);
        }
    }

    fn log_last(&self) {
        let Some(record) = self.network.records.last() else { return };
        let kind = record.header.map(|header| header.kind());
        let (at, from, to, len, fate) = (record.at, record.from, record.to, record.len, record.fate);
        println!("{at:?} host {from} -> {to:?} {} {kind:?} {len} B {fate:?}", record.remote);
    }

    fn on_event(&mut self, host: usize, event: Event) {
        self.trace.note("event", host, self.now, format!("{event:?}").as_bytes());
        if self.log {
            println!("{:?} host {host}: {event:?}", self.now);
        }
        self.note_memory(host, &event);
        let machine = &mut self.hosts[host];
        match &event {
            Event::PeerUp { peer } => {
                assert!(machine.up.insert(*peer), "host {host} reports a peer up that is up");
                self.coverage.hit("peer up");
            }
            Event::PeerDown { peer, why } => {
                assert!(machine.up.remove(peer), "host {host} reports a peer down that is down");
                self.coverage.hit(format!("peer down: {}", why.name()));
            }
            Event::SessionEstablished { peer, cipher, restarted, initiator } => {
                let again = !machine.met.insert(*peer);
                self.coverage.hit(match (again, restarted) {
                    (false, _) => "session: first",
                    (true, false) => "session: rekey",
                    (true, true) => "session: peer restarted",
                });
                self.coverage.hit(format!("cipher: {cipher}"));
                self.note_crossing(host, *peer, *initiator);
            }
            Event::SessionSwitched { from, to, why, .. } => {
                machine.deeds.switches += u64::from(from.is_some());
                machine.deeds.losses += u64::from(matches!(why, SwitchReason::PathLost | SwitchReason::Lossy));
                self.coverage.hit(format!("path switch: {why}"));
                let from = from.as_ref().map_or("nothing", |(_, class)| class.name());
                self.coverage.hit(format!("path switch: {from} to {}", to.1.name()));
            }
            Event::PingReply { .. } => self.coverage.hit("ping reply"),
            Event::UnauthorizedPeer { .. } => self.coverage.hit("unauthorized peer"),
        }
        let now = self.now;
        self.hosts[host].events.push((now, event));
    }

    /// Two sessions of one pair within a second, one begun by each side: the Hellos crossed.
    fn note_crossing(&mut self, host: usize, with: PeerId, begun_here: bool) {
        let recent = |at: Instant| self.now.since(at) < Duration::from_secs(1);
        let crosses = |event: &Event| {
            matches!(event, Event::SessionEstablished { peer, initiator, .. }
                if *peer == with && *initiator != begun_here)
        };
        let mut events = self.hosts[host].events.iter().rev().take_while(|(at, _)| recent(*at));
        if events.any(|(_, event)| crosses(event)) {
            self.coverage.hit("session: crossed");
        }
    }

    /// A node that is asked again what it knows already may not want to be called earlier than it said before: else it had
    /// forgotten a deadline.
    fn look_for_forgotten_wakeups(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let local = machine.local(self.now);
        if machine.stalled || machine.hoarding || self.rng.below(WAKE_CHECKS) > 0 {
            return;
        }
        let Some(node) = machine.node.as_mut() else { return };
        let (before, _) = node.poll_timeout();
        if before <= local.max(node.now()) {
            return;
        }
        node.handle_timeout(local);
        for peer in machine.peers.iter().take(8) {
            let endpoints = machine.endpoints.get(peer).cloned().unwrap_or_default();
            let same = Command::SetEndpoints { peer: self.ids[*peer], endpoints };
            let known = node.command(local, same);
            assert!(matches!(known, Ok(()) | Err(CommandError::ShutDown)), "host {host} forgot a peer: {known:?}");
        }
        let (after, why) = node.poll_timeout();
        let late = before.since(after);
        assert!(after >= before, "host {host} forgot a wakeup for {why:?}: it would have come {late:?} late");
        if let Some(output) = node.poll_output(&mut self.scratch) {
            panic!("host {host} forgot that it had something to do: {output:?}");
        }
    }

    // Lives.

    /// A host that is down starts.
    pub fn start(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            return;
        }
        let seed = self.rng.array();
        // Clocks of different lives have nothing to do with each other.
        let origin = Instant::from_nanos(self.rng.below(1 << 40));
        let ids = std::mem::take(&mut self.ids);
        let port = self.network.hosts[host].port;
        self.network.audit.on_start(host, self.hosts[host].clock_ms);
        self.hosts[host].start(
            self.now,
            (host, &ids, &self.relays),
            (seed, origin),
            port,
            Box::new(self.crypto.clone()),
        );
        self.ids = ids;
        self.network.hosts[host].told.1 = port;
        self.trace.note("start", host, origin, &seed);
        self.tell_addresses(host);
        self.settle(host);
        self.start_store(host);
    }

    /// The power of a host goes.
    pub fn crash(&mut self, host: usize) {
        self.lose_power(host);
        self.end_node(host);
    }

    /// The node of a host is gone.
    pub(super) fn end_node(&mut self, host: usize) {
        if host >= self.hosts.len() {
            return;
        }
        self.look(host);
        self.trace.note("crash", host, self.now, &[]);
        if let Some(counters) = self.hosts[host].end() {
            self.count(&counters);
        }
    }

    /// The node says goodbye and ends, and the store is closed in order.
    pub fn shut_down(&mut self, host: usize) {
        self.hosts[host].hoarding = false;
        if self.command(host, Command::Shutdown).is_ok() {
            self.coverage.hit("shutdown");
            self.end_node(host);
            self.close_store(host);
        }
    }

    /// The configuration of a host is read again: it allows these peers now.
    pub fn reload(&mut self, host: usize, peers: impl IntoIterator<Item = usize>) {
        if self.hosts[host].stalled {
            return;
        }
        self.look_for_forgotten_wakeups(host); // While what the node knows is what the host knows.
        self.hosts[host].peers = peers.into_iter().collect();
        self.tell_members(host);
        let peers = &self.hosts[host].peers;
        self.network.audit.on_reload(host, |peer| peers.contains(&peer));
        let configs = self.hosts[host].peer_configs(&self.ids, &self.relays);
        if self.hosts[host].node.is_some() {
            self.request(host, Command::SetPeers(configs)).expect("the simulator's configurations are valid");
        }
        let machine = &self.hosts[host];
        let allowed = |id: &PeerId| machine.peers.iter().any(|peer| self.ids[*peer] == *id);
        assert!(machine.hoarding || machine.up.iter().all(allowed), "a peer that was removed is still up");
        let met: Vec<PeerId> = machine.met.iter().copied().filter(allowed).collect();
        self.hosts[host].met = met.into_iter().collect();
    }

    /// The operator of a host permits this from now on.
    pub fn permit(&mut self, host: usize, policy: Policy) {
        if self.command(host, Command::SetPolicy(policy)).is_ok() {
            self.hosts[host].policy = policy;
        }
    }

    /// A host looks up where a peer is; nowhere, if it is not `found`.
    pub fn look_up(&mut self, host: usize, peer: usize, found: bool) {
        if self.hosts[host].stalled || !self.hosts[host].peers.contains(&peer) {
            return;
        }
        self.look_for_forgotten_wakeups(host);
        let endpoints = if found { self.network.public_endpoints(peer) } else { Vec::new() };
        self.hosts[host].endpoints.insert(peer, endpoints.clone());
        let command = Command::SetEndpoints { peer: self.ids[peer], endpoints };
        if self.hosts[host].node.is_some() {
            self.request(host, command).expect("the peer is allowed");
        }
    }

    /// The runtime tells the node of the host's present addresses.
    pub fn tell_addresses(&mut self, host: usize) {
        let local = self.network.local_addresses(host);
        // Down, or told later.
        if self.command(host, Command::NetworkChanged { local: local.clone() }).is_ok() {
            self.network.hosts[host].told.0 = local;
        }
    }

    /// The operator pings a peer. Returns the token, if the node took the request.
    pub fn ping(&mut self, host: usize, peer: usize) -> Option<u64> {
        self.tokens += 1;
        let (token, peer) = (self.tokens, self.ids[peer]);
        self.command(host, Command::Ping { peer, token }).ok().map(|()| token)
    }

    /// A host sends a packet every so often from now on; never, if `every` is zero.
    pub fn stream(&mut self, from: usize, to: usize, every: Duration) {
        self.streams.retain(|stream| (stream.from, stream.to) != (from, to));
        if from != to && !every.is_zero() {
            self.streams.push(Stream { from, to, every, next: self.now + every, sent: 0 });
        }
    }

    /// Nobody sends anything by itself any more.
    pub fn end_streams(&mut self) {
        self.streams.clear();
    }

    // What tests ask.

    /// Whether `host` last reported `peer` up.
    pub fn is_up(&self, host: usize, peer: usize) -> bool {
        self.hosts[host].up.contains(&self.ids[peer])
    }

    /// How the path of `host` to `peer` came to be, as its operator reads it; `none`, where there is no session or no path.
    pub fn class(&self, host: usize, peer: usize) -> &'static str {
        let node = self.hosts[host].node.as_ref();
        let session = node.and_then(|node| node.sessions().find(|session| session.id == self.ids[peer]));
        session.filter(|session| session.path.is_some()).map_or("none", |session| session.class.name())
    }

    /// What a host reported since `since`.
    pub fn events_since(&self, host: usize, since: Instant) -> impl Iterator<Item = &Event> {
        self.hosts[host].events.iter().filter(move |(at, _)| *at >= since).map(|(_, event)| event)
    }

    /// What a host sent since `since`.
    pub fn sent_since(&self, host: usize, since: Instant) -> impl Iterator<Item = &Record> {
        let first = self.network.records.partition_point(|record| record.at < since);
        self.network.records[first..].iter().filter(move |record| record.from == host)
    }

    /// The types of what a host sent since `since`.
    pub fn kinds_since(&self, host: usize, since: Instant) -> Vec<EnvelopeType> {
        self.sent_since(host, since).filter_map(|record| Some(record.header?.kind())).collect()
    }

    /// Both send to each other every so often; how long it takes until a packet has gone through in both directions.
    ///
    /// # Panics
    /// Where it takes longer than `limit`.
    pub fn time_to_meet(&mut self, a: usize, b: usize, limit: Duration) -> Duration {
        let since = self.now;
        for (from, to) in [(a, b), (b, a)] {
            self.send(from, to, Traffic::Udp4, 100, 1);
            self.stream(from, to, Duration::from_millis(20));
        }
        let met = |world: &World| world.has_reached(a, b, since) && world.has_reached(b, a, since);
        assert!(self.run_while(limit, met), "hosts {a} and {b} have not met within {limit:?}");
        self.end_streams();
        self.now.since(since)
    }

    /// Whether a packet of `from` that was sent at `since` or later has reached `to`.
    pub fn has_reached(&self, from: usize, to: usize, since: Instant) -> bool {
        self.ledger.tally(from, to).latest.is_some_and(|latest| latest >= since)
    }
}

/// What was dropped since `before`.
fn newly_dropped(before: &Counters, now: &Counters) -> Option<&'static str> {
    now.drops().find(|(reason, times)| *times > before.dropped(*reason)).map(|(reason, _)| reason.name())
}

fn due_index(entry: Option<(Instant, usize)>) -> usize {
    entry.expect("something is due").1
}
