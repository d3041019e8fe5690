//! Two production nodes, a network in the fuzzer's hands, and the rules that hold whatever it does:
//!
//! - no panic, and none of what [`GlassCrypto`] watches (nonces, the age of keys);
//! - a packet arrives at most once, unchanged, at its owner, and only from an address of its sender;
//! - what a node wants to send is an envelope that a datagram carries;
//! - data goes only to where the other node is or was, whoever claims to be it from where;
//! - a node that has said all it had to say sleeps: its deadline lies ahead;
//! - the same inputs give the same outputs;
//! - afterwards, on a network that works, both connect again and packets cross both ways (see [`World::heal`]).

mod heal;
mod op;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use vine_core::overlay::{Batch, Prefix, TunPacket, VirtioNetHeader, finish_checksum};
use vine_core::path::{Family, FourTuple, SocketId, SocketInfo};
use vine_core::wire::{EnvelopeType, Header, Lane, MAX_DATAGRAM_LEN};
use vine_core::{
    Command, Event, Identity, Inbound, Instant, NetworkId, NetworkKey, Node, NodeConfig, Output, PeerConfig, PeerId,
    Policy, TunOutcome, UnixTime,
};

pub use op::{Op, Order, Outgoing, Owner, PeerList, Scenario, Setup, Side};

use crate::crypto::GlassCrypto;
use crate::packets::Packet;
use crate::{Edit, pattern};

/// Datagrams under way; the oldest is lost beyond that.
const MAX_UNDER_WAY: usize = 256;
/// Ops of one run; a longer list is as good as several.
const MAX_OPS: usize = 96;
/// What a runtime holds of outgoing datagrams.
const BATCH_CAPACITY: usize = 128 * 1024;
/// Wakes in a row at one moment after which a node is busy and not waiting.
const MAX_WAKES: usize = 8;

struct Ids {
    seeds: [[u8; 32]; 2],
    ids: [PeerId; 2],
    absent: PeerId,
}

static IDS: LazyLock<Ids> = LazyLock::new(|| {
    let seeds = [[1; 32], [2; 32]];
    let id = |seed| Identity::from_seed(seed).peer_id();
    Ids { seeds, ids: seeds.map(id), absent: id([3; 32]) }
});

/// A datagram that was sent.
#[derive(Clone, Debug)]
struct UnderWay {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// What became of the packets with certain bytes.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: Side,
    /// Who owned the destination when it was sent.
    owner: Option<PeerId>,
    /// How many such packets a node has taken.
    taken: usize,
    delivered: usize,
}

/// One node with what its host and its runtime hold.
struct Host {
    node: Node,
    address: SocketAddr,
    /// Every address that it has had.
    been_at: Vec<SocketAddr>,
    batch: Batch<FourTuple>,
    /// How often it was started.
    lives: u8,
    shut_down: bool,
    /// Which peers were reported up.
    up: Vec<PeerId>,
    delivered: usize,
}

/// The nodes and the network. See the [module documentation](self).
pub struct World {
    setup: Setup,
    salt: [u8; 32],
    hosts: [Host; 2],
    now: Instant,
    crypto: GlassCrypto,
    under_way: VecDeque<UnderWay>,
    packets: BTreeMap<Vec<u8>, Sent>,
    /// Packets made so far: no two are the same.
    made: u64,
    scratch: Vec<u8>,
    /// A hash over everything that came out.
    trace: u64,
}

impl World {
    /// Runs a scenario, heals the network, and panics where a rule was broken. The nodes' seeds are made of `salt`.
    pub fn run(scenario: &Scenario, salt: [u8; 32]) {
        let trace = World::run_once(scenario, salt);
        if scenario.setup.twice {
            assert_eq!(World::run_once(scenario, salt), trace, "the same inputs, the same outputs");
        }
    }

    fn run_once(scenario: &Scenario, salt: [u8; 32]) -> u64 {
        let mut world = World::new(scenario.setup, salt);
        for op in scenario.ops.iter().take(MAX_OPS) {
            world.carry_out(op);
            world.settle();
        }
        world.heal();
        world.trace
    }

    fn new(setup: Setup, salt: [u8; 32]) -> World {
        let crypto = GlassCrypto::default();
        let now = Instant::from_millis(1_000);
        crypto.set_now(now);
        let host = |side| Host {
            node: start(side, &setup, seed(salt, side, 0), now, &crypto),
            address: home(side),
            been_at: vec![home(side)],
            batch: Batch::with_capacity(BATCH_CAPACITY),
            lives: 0,
            shut_down: false,
            up: Vec::new(),
            delivered: 0,
        };
        World {
            setup,
            salt,
            hosts: Side::BOTH.map(host),
            now,
            crypto,
            under_way: VecDeque::new(),
            packets: BTreeMap::new(),
            made: 0,
            scratch: vec![0; Node::SCRATCH_LEN],
            trace: 0,
        }
    }

    fn host(&mut self, side: Side) -> &mut Host {
        &mut self.hosts[side as usize]
    }

    fn carry_out(&mut self, op: &Op) {
        match *op {
            Op::Deliver(pick) => _ = self.take(pick).map(|datagram| self.arrive(datagram)),
            Op::DeliverAll { reversed } => self.deliver_all(reversed),
            Op::Drop(pick) => _ = self.take(pick),
            Op::DropAll => self.under_way.clear(),
            Op::Duplicate(pick) => _ = self.peek(pick).map(|datagram| self.arrive(datagram)),
            Op::Corrupt(pick, edit) => _ = self.peek(pick).map(|datagram| self.arrive(corrupted(datagram, edit))),
            Op::Reflect(pick) => {
                _ = self
                    .peek(pick)
                    .map(|UnderWay { from, to, bytes }| self.arrive(UnderWay { from: to, to: from, bytes }))
            }
            Op::Spoof(pick, from) => {
                _ = self.peek(pick).map(|datagram| self.arrive(UnderWay { from: address(from), ..datagram }))
            }
            Op::Junk { to, from, ref bytes } => {
                let to = self.host(to).address;
                self.arrive(UnderWay { from: address(from), to, bytes: bytes.clone() });
            }
            Op::Send(side, outgoing) => self.send(side, &outgoing),
            Op::Flush(side) => self.flush(side),
            Op::Pass { hundredths } => self.pass(Duration::from_millis(10) * u32::from(hundredths % 1_000)),
            Op::Sleep { seconds } => {
                self.set_now(self.now + Duration::from_secs(u64::from(seconds)));
                Side::BOTH.into_iter().for_each(|side| self.wake(side));
            }
            Op::Wake(side) => self.wake(side),
            Op::Past(side, millis) => {
                let past = self.now - Duration::from_millis(u64::from(millis));
                self.host(side).node.handle_timeout(past);
            }
            Op::Poll(side, count) => _ = (0..count).find(|_| !self.poll(side)),
            Op::Move(side, to) => self.move_to(side, address(to)),
            Op::Restart(side) => self.restart(side),
            Op::Order(side, ref order) => self.order(side, order),
        }
    }

    /// After an op: unless the run is lazy, each node says what it has to say; in any case its deadline is honest.
    fn settle(&mut self) {
        for side in Side::BOTH {
            if self.setup.lazy {
                self.check_deadline(side);
            } else {
                self.drain(side);
            }
        }
    }

    fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.crypto.set_now(self.now);
    }

    fn wake(&mut self, side: Side) {
        let now = self.now;
        self.host(side).node.handle_timeout(now);
    }

    /// Takes one output. Returns whether there was one.
    fn poll(&mut self, side: Side) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let output = self.host(side).node.poll_output(&mut scratch);
        let polled = output.is_some();
        match output {
            Some(Output::Transmit { path, len }) => self.transmit(side, path, &scratch[..len]),
            Some(Output::Tun { .. }) => {}
            Some(Output::Event(event)) => self.note_event(side, event),
            None => {}
        }
        self.scratch = scratch;
        polled
    }

    /// Takes everything that a node has to say and wakes it while it asks for that; then it has to wait.
    fn drain(&mut self, side: Side) {
        for _ in 0..MAX_WAKES {
            while self.poll(side) {}
            self.check_deadline(side);
            if self.host(side).node.poll_timeout().0 > self.now {
                return;
            }
            self.wake(side);
        }
        let (deadline, why) = self.host(side).node.poll_timeout();
        panic!("{side:?} is busy at {:?}: {why} at {deadline:?}", self.now);
    }

    fn check_deadline(&mut self, side: Side) {
        let node = &self.host(side).node;
        let (deadline, why) = node.poll_timeout();
        assert!(deadline >= node.now(), "{why} was due before the last input");
        assert_eq!(node.poll_timeout(), (deadline, why));
    }

    fn note(&mut self, of: &impl std::fmt::Debug) {
        for byte in format!("{of:?}").bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn note_event(&mut self, side: Side, event: Event) {
        let up = &mut self.host(side).up;
        match event {
            Event::PeerUp { peer } => {
                assert!(!up.contains(&peer), "up twice");
                assert_ne!(peer, IDS.absent, "nobody is there");
                up.push(peer);
            }
            Event::PeerDown { peer, .. } => {
                assert!(up.contains(&peer), "down twice");
                up.retain(|held| *held != peer);
            }
            Event::UnauthorizedPeer { peer, .. } => assert_eq!(peer, IDS.ids[side.other() as usize]),
            Event::SessionEstablished { .. } | Event::SessionSwitched { .. } | Event::PingReply { .. } => {}
        }
        self.note(&event);
    }

    fn transmit(&mut self, side: Side, path: FourTuple, bytes: &[u8]) {
        assert!(bytes.len() <= MAX_DATAGRAM_LEN, "{} bytes are no datagram", bytes.len());
        let header = Header::decode(bytes).expect("what a node sends is an envelope");
        let is_data = header.kind() == EnvelopeType::Sealed && header.msg_id().lane() != Lane::CONTROL;
        let other = &self.hosts[side.other() as usize];
        assert!(!is_data || other.been_at.contains(&path.remote), "data to {}, which nobody has proven", path.remote);
        assert_eq!(path.socket, SocketId(0));
        let from = self.host(side).address;
        if self.under_way.len() == MAX_UNDER_WAY {
            self.under_way.pop_front();
        }
        self.note(&(path, bytes.len(), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()));
        self.under_way.push_back(UnderWay { from, to: path.remote, bytes: bytes.to_vec() });
    }

    fn take(&mut self, pick: u8) -> Option<UnderWay> {
        let at = usize::from(pick) % self.under_way.len().max(1);
        self.under_way.remove(at)
    }

    fn peek(&self, pick: u8) -> Option<UnderWay> {
        let at = usize::from(pick) % self.under_way.len().max(1);
        self.under_way.get(at).cloned()
    }

    fn deliver_all(&mut self, reversed: bool) {
        for _ in 0..self.under_way.len() {
            let next = if reversed { self.under_way.pop_back() } else { self.under_way.pop_front() };
            let Some(datagram) = next else { return };
            self.arrive(datagram);
        }
    }

    /// A datagram comes to whoever has its address.
    fn arrive(&mut self, UnderWay { from, to, mut bytes }: UnderWay) {
        let Some(side) = Side::BOTH.into_iter().find(|side| self.hosts[*side as usize].address == to) else { return };
        let local = self.setup.local_known.then_some(to.ip());
        let path = FourTuple { socket: SocketId(0), local, remote: from };
        let now = self.now;
        let host = self.host(side);
        let Some(Inbound::Packet(inbound)) = host.node.handle_datagram(now, path, &mut bytes) else { return };
        let (open, packet) = (inbound.csum_partial, inbound.packet.to_vec());
        self.accept(side, packet, open);
    }

    /// A packet came out at a host: it must be one that was sent to it.
    fn accept(&mut self, side: Side, mut packet: Vec<u8>, open: bool) {
        if open {
            finish_checksum(&mut packet).expect("an open checksum has its place");
        }
        let node = &self.hosts[side as usize].node;
        let sent = self.packets.get_mut(&packet).expect("nobody sent this packet");
        assert_eq!(sent.from, side.other(), "it came back");
        assert_eq!(sent.owner, Some(node.id()), "it belongs to another");
        sent.delivered += 1;
        assert!(sent.delivered <= sent.taken, "delivered again");
        let source = vine_core::overlay::IpPacket::parse(&packet).expect("it is a packet").source();
        assert_eq!(
            node.owner_of(source),
            Some(IDS.ids[side.other() as usize]),
            "from a source that is not the sender's"
        );
        self.host(side).delivered += 1;
        self.note(&(side, packet.len()));
    }

    fn send(&mut self, side: Side, outgoing: &Outgoing) {
        let packet = self.make(side, outgoing);
        // Small segments of a large packet are many, and one run of them is enough.
        let size = if outgoing.segment == 0 { 0 } else { 64 + 8 * usize::from(outgoing.segment) };
        let size = if size == 0 { 0 } else { size.max(packet.payload.len() / 64) };
        let open = outgoing.open || size > 0;
        let expected: Vec<Vec<u8>> = match size {
            0 => vec![packet.build()],
            size => packet.segments(size).iter().map(Packet::build).collect(),
        };
        let (header, bytes) = match open {
            true => (packet.vnet_header(size as u16), packet.build_open()),
            false => (VirtioNetHeader::default().encode(), packet.build()),
        };
        let parsed = TunPacket::parse(&header, &bytes).expect("a kernel would send it");
        let owner = self.host(side).node.owner_of(packet.destination);
        let taken = match self.enqueue(side, parsed) {
            TunOutcome::Full => {
                self.flush(side);
                let again = self.enqueue(side, parsed);
                assert_ne!(again, TunOutcome::Full, "an empty batch takes it or nobody does");
                again
            }
            first => first,
        };
        for bytes in expected {
            let new = Sent { from: side, owner, taken: 0, delivered: 0 };
            let sent = self.packets.entry(bytes).or_insert(new);
            sent.taken += usize::from(taken == TunOutcome::Taken);
        }
        if !outgoing.hold {
            self.flush(side);
        }
    }

    fn enqueue(&mut self, side: Side, packet: TunPacket<'_>) -> TunOutcome {
        let now = self.now;
        let host = self.host(side);
        host.node.handle_tun(now, packet, &mut host.batch)
    }

    fn make(&mut self, side: Side, outgoing: &Outgoing) -> Packet {
        self.made += 1;
        let odds = outgoing.odds;
        let overlay = |owner| overlay_address(side, owner, outgoing.v6);
        // No packet is like another: the stamp is in ports, identification and payload.
        let mut payload = self.made.to_le_bytes().to_vec();
        payload.extend(pattern(self.made, usize::from(outgoing.len.min(65_400))));
        Packet {
            source: overlay(outgoing.source),
            destination: overlay(outgoing.destination),
            udp: outgoing.udp,
            port: self.made as u16,
            identification: u16::from(odds) << 8,
            dont_fragment: odds & 1 == 0,
            class: odds,
            ip_options: odds >> 2 & 3,
            sequence: (self.made as u32) << 20,
            flags: odds,
            tcp_options: odds >> 4 & 3,
            variant: odds,
            payload,
        }
    }

    /// Sends the batch as a runtime does, in segmented sends.
    fn flush(&mut self, side: Side) {
        let batch = std::mem::replace(&mut self.host(side).batch, Batch::with_capacity(0));
        let mut datagrams = 0;
        for chunk in batch.chunks(64, MAX_DATAGRAM_LEN) {
            for datagram in chunk.bytes.chunks(chunk.segment_size) {
                self.transmit(side, chunk.destination, datagram);
                datagrams += 1;
            }
        }
        assert_eq!(datagrams, batch.len());
        let mut batch = batch;
        batch.clear();
        self.host(side).batch = batch;
    }

    /// Lets time pass, waking each node at its own deadlines.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let next = self.hosts.iter().map(|host| host.node.poll_timeout().0).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.set_now(next);
            for side in Side::BOTH {
                self.drain(side);
            }
        }
        self.set_now(until);
        Side::BOTH.into_iter().for_each(|side| self.wake(side));
    }

    /// A node gets an address, unless the other has it.
    fn move_to(&mut self, side: Side, address: SocketAddr) {
        if self.host(side.other()).address != address {
            self.place(side, address);
        }
    }

    fn place(&mut self, side: Side, address: SocketAddr) {
        let host = self.host(side);
        host.address = address;
        if !host.been_at.contains(&address) {
            host.been_at.push(address);
        }
    }

    fn restart(&mut self, side: Side) {
        let (now, setup, salt, crypto) = (self.now, self.setup, self.salt, self.crypto.clone());
        let host = self.host(side);
        host.lives = host.lives.wrapping_add(1);
        host.node = start(side, &setup, seed(salt, side, host.lives), now, &crypto);
        host.batch.clear();
        host.up.clear();
        host.shut_down = false;
    }

    fn order(&mut self, side: Side, order: &Order) {
        let now = self.now;
        let other = IDS.ids[side.other() as usize];
        let command = match *order {
            Order::Ping(token) => Command::Ping { peer: other, token },
            Order::Endpoints(which) => Command::SetEndpoints { peer: other, endpoints: endpoints(which) },
            Order::Peers(list) => Command::SetPeers(self.peers(side, list)),
            Order::Network(which) => Command::NetworkChanged { local: vec![address(which).ip()] },
            Order::Clock(unix) => Command::SetUnixTime(UnixTime(unix)),
            Order::Shutdown => Command::Shutdown,
        };
        let host = self.host(side);
        host.shut_down |= matches!(order, Order::Shutdown);
        let result = host.node.command(now, command);
        if matches!(order, Order::Peers(PeerList::Overlapping)) {
            assert!(result.is_err(), "two owners of one range");
        }
    }

    fn peers(&self, side: Side, list: PeerList) -> Vec<PeerConfig> {
        let mut other = other(side, &self.setup);
        let mut absent = absent(side);
        match list {
            PeerList::Both => vec![other, absent],
            PeerList::Other => vec![other],
            PeerList::Absent => vec![absent],
            PeerList::Nobody => vec![],
            PeerList::Swapped => {
                std::mem::swap(&mut other.prefixes, &mut absent.prefixes);
                vec![absent, other]
            }
            PeerList::Overlapping => {
                absent.prefixes.extend_from_slice(&other.prefixes);
                vec![other, absent]
            }
        }
    }
}

fn corrupted(datagram: UnderWay, edit: Edit) -> UnderWay {
    let mut bytes = datagram.bytes;
    edit.apply(&mut bytes);
    UnderWay { bytes, ..datagram }
}

/// The address that a side has at first.
fn home(side: Side) -> SocketAddr {
    address(side as u8)
}

/// One of sixteen addresses. The sockets are of IPv4, so that those of IPv6 are out of reach.
fn address(which: u8) -> SocketAddr {
    let which = which % 16;
    match which {
        15 => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 4100),
        _ => SocketAddr::new(Ipv4Addr::new(192, 0, 2, which / 2 + 1).into(), 4100 + u16::from(which)),
    }
}

/// Up to three endpoints.
fn endpoints(which: u8) -> Vec<SocketAddr> {
    (0..which % 4).map(|step| address((which >> 2).wrapping_add(step * 5))).collect()
}

/// The network number of an owner: alpha has 0, beta 1, the absent one 2.
fn network(side: Side, owner: Owner) -> u8 {
    match owner {
        Owner::Own => side as u8,
        Owner::Other => side.other() as u8,
        Owner::Absent => 2,
        Owner::Nobody => 9,
    }
}

fn overlay_address(side: Side, owner: Owner, v6: bool) -> IpAddr {
    let network = network(side, owner);
    match v6 {
        false => Ipv4Addr::new(10, 0, network, 7).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, u16::from(network), 0, 0, 0, 7).into(),
    }
}

fn prefixes(side: Side, owner: Owner) -> Vec<Prefix> {
    [(false, 24), (true, 64)]
        .map(|(v6, length)| Prefix::containing(overlay_address(side, owner, v6), length).expect("the lengths fit"))
        .to_vec()
}

/// How `side` knows the other side.
fn other(side: Side, setup: &Setup) -> PeerConfig {
    let knows = side == Side::Beta || setup.both_know;
    PeerConfig {
        id: IDS.ids[side.other() as usize],
        name: format!("{:?}", side.other()),
        prefixes: prefixes(side, Owner::Other),
        relay_capable: false,
        last_known: vec![],
        endpoints: knows.then(|| home(side.other())).into_iter().collect(),
    }
}

fn absent(side: Side) -> PeerConfig {
    PeerConfig {
        id: IDS.absent,
        name: "absent".into(),
        prefixes: prefixes(side, Owner::Absent),
        relay_capable: false,
        last_known: vec![],
        endpoints: vec![],
    }
}

/// The seed of a node's `life`-th life.
fn seed(salt: [u8; 32], side: Side, life: u8) -> [u8; 32] {
    let mut seed = salt;
    seed[0] ^= side as u8;
    seed[1] ^= life;
    seed
}

/// Starts a node.
fn start(side: Side, setup: &Setup, seed: [u8; 32], now: Instant, crypto: &GlassCrypto) -> Node {
    let config = NodeConfig {
        network_id: NetworkId::new("fuzz").expect("the name is short"),
        network_key: setup.network_key.then(|| NetworkKey::new([5; 32])),
        sockets: vec![SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 }],
        peers: vec![other(side, setup), absent(side)],
        policy: Policy::default(),
        own_prefixes: prefixes(side, Owner::Own),
        mtu: 1400,
        aes_is_fast: setup.aes_is_fast[side as usize],
        checksum_offload: setup.checksum_offload[side as usize],
    };
    let clock = UnixTime(setup.clocks[side as usize]);
    let identity = Identity::from_seed(IDS.seeds[side as usize]);
    Node::new(config, identity, Box::new(crypto.clone()), seed, now, clock).expect("the configuration is right")
}
