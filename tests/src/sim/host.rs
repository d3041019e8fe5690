//! A simulated machine: one production node, and what surrounds it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use vine_core::path::{Family, FourTuple, SocketInfo};
use vine_core::session::CryptoBackend;
use vine_core::{
    Counters, Event, Identity, Instant, NetworkId, NetworkKey, Node, NodeConfig, PeerConfig, PeerId, Policy, UnixTime,
};

use super::network::{Behaviour, NatKind, Network, socket_of};
use super::traffic::overlay_prefixes;

/// What the wall clocks of hosts without skew say at the beginning.
const WALL_CLOCK_MS: i64 = 1_760_000_000_000;

/// What a wall clock says that is off by so much.
pub fn wall_clock(now: Instant, off_ms: i64) -> UnixTime {
    let true_time = WALL_CLOCK_MS + (now.as_nanos() / 1_000_000) as i64;
    UnixTime(true_time.saturating_add(off_ms).max(0) as u64)
}

/// Datagrams that wait in the sockets of a host whose process stands still; more are lost.
const SOCKET_BUFFER: usize = 256;

/// What a host is before anything happens.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// It has an IPv4 address.
    pub v4: bool,
    /// It has an IPv6 address.
    pub v6: bool,
    /// A NAT of its own stands before its IPv4 address.
    pub nat: Option<NatKind>,
    /// It, or its own NAT, stands behind the box of the [`Topology`] with this number.
    pub behind: Option<usize>,
    /// A stateful firewall stands before its IPv6 address, and filters so.
    pub firewall: Option<Behaviour>,
    /// Every other host is told that it may carry packets for others.
    pub relay: bool,
    /// What its operator permits.
    pub policy: Policy,
    /// It keeps where it reached its peers, for its next life.
    pub remembers: bool,
    /// Its kernel says what it cannot send, and takes no longer IP packets than this.
    pub link_mtu: Option<u16>,
    /// The hosts that it allows.
    pub peers: Vec<usize>,
    /// Those of them whose addresses it is configured with.
    pub finds: Vec<usize>,
    /// The name of its network.
    pub network_id: String,
    /// The key of its network.
    pub network_key: Option<[u8; 32]>,
    /// How far its wall clock is off.
    pub clock_ms: i64,
    /// The MTU of its TUN device.
    pub tun_mtu: u16,
    /// Its kernel finishes checksums.
    pub offload: bool,
    /// It prefers AES.
    pub aes: bool,
}

impl HostSpec {
    /// A host with IPv4 that allows and finds these.
    pub fn with_peers(peers: impl IntoIterator<Item = usize>) -> HostSpec {
        let peers: Vec<usize> = peers.into_iter().collect();
        HostSpec {
            v4: true,
            v6: false,
            nat: None,
            behind: None,
            firewall: None,
            relay: false,
            policy: Policy::default(),
            remembers: false,
            link_mtu: None,
            finds: peers.clone(),
            peers,
            network_id: "sim".into(),
            network_key: None,
            clock_ms: 0,
            tun_mtu: 1_400,
            offload: false,
            aes: false,
        }
    }
}

/// A NAT that several hosts may share.
#[derive(Clone, Debug)]
pub struct BoxSpec {
    /// How it behaves.
    pub kind: NatKind,
    /// The box that it stands behind itself: one with a lower number.
    pub behind: Option<usize>,
}

/// Hosts, and what stands between them and the rest of the network.
#[derive(Clone, Default, Debug)]
pub struct Topology {
    /// The NATs that hosts share.
    pub boxes: Vec<BoxSpec>,
    /// The hosts.
    pub hosts: Vec<HostSpec>,
}

impl Topology {
    /// Builds the places of all hosts.
    pub(super) fn lay_out(&self, network: &mut Network) {
        for spec in &self.boxes {
            network.put_up(spec.kind, spec.behind);
        }
        for HostSpec { v4, v6, nat, behind, firewall, .. } in &self.hosts {
            let behind = nat.map(|kind| network.put_up(kind, *behind)).or(*behind);
            network.attach(*v4, *v6, behind, *firewall);
        }
    }
}

impl From<Vec<HostSpec>> for Topology {
    fn from(hosts: Vec<HostSpec>) -> Topology {
        Topology { boxes: Vec::new(), hosts }
    }
}

/// What a life did, as others see it: its own counters are to say the same.
#[derive(Clone, Copy, Default, Debug)]
pub struct Deeds {
    /// Times that it reported another preferred path after a former one.
    pub switches: u64,
    /// Those of them because the former one was lost.
    pub losses: u64,
    /// Datagrams that it passed on for others.
    pub forwarded: u64,
    /// For a time nobody polled it: reports may have been lost.
    pub hoarded: bool,
}

/// A simulated machine.
#[derive(Debug)]
pub struct Host {
    /// What it was at first.
    pub spec: HostSpec,
    /// Its identity, for good.
    pub id: PeerId,
    /// Its node, while it runs.
    pub node: Option<Node>,
    /// How far its wall clock is off.
    pub clock_ms: i64,
    /// The hosts that it allows now.
    pub peers: BTreeSet<usize>,
    /// Where its configuration says that they are.
    pub endpoints: BTreeMap<usize, Vec<SocketAddr>>,
    /// Where it reached its peers in its former life, if it remembers that.
    pub last_known: BTreeMap<PeerId, Vec<SocketAddr>>,
    /// What its operator permits now.
    pub policy: Policy,
    /// Its process stands still.
    pub stalled: bool,
    /// It sleeps: its process stands still, and what arrives is lost.
    pub asleep: bool,
    /// Its caller polls nothing.
    pub hoarding: bool,
    /// What waits in its sockets.
    pub inbox: VecDeque<(FourTuple, Vec<u8>)>,
    /// What the node reported, over all lives.
    pub events: Vec<(Instant, Event)>,
    /// The peers that were last reported up.
    pub up: BTreeSet<PeerId>,
    /// How often it was started.
    pub lives: u32,
    /// Packets that the present life gave to the host.
    pub delivered: u64,
    /// When it was last told that a packet was too long.
    pub told: Option<Instant>,
    /// What else the present life did, seen from outside.
    pub deeds: Deeds,
    /// Timeouts that led to nothing: how many since when.
    pub idle_wakes: (Instant, u32),
    /// How often a deadline of the node came.
    pub wakes: u64,
    /// The peers that a session was established with in this life.
    pub met: BTreeSet<PeerId>,
    identity: [u8; 32],
    /// The world's time at which the present life began, and what the node's own clock said then.
    born: (Instant, Instant),
}

impl Host {
    /// The host with a number.
    pub fn new(index: usize, spec: HostSpec) -> Host {
        let mut identity = [0x5e; 32];
        identity[..8].copy_from_slice(&(index as u64).to_le_bytes());
        Host {
            id: Identity::from_seed(identity).peer_id(),
            identity,
            node: None,
            clock_ms: spec.clock_ms,
            peers: spec.peers.iter().copied().collect(),
            endpoints: BTreeMap::new(),
            last_known: BTreeMap::new(),
            policy: spec.policy,
            stalled: false,
            asleep: false,
            hoarding: false,
            inbox: VecDeque::new(),
            events: Vec::new(),
            up: BTreeSet::new(),
            lives: 0,
            delivered: 0,
            told: None,
            deeds: Deeds::default(),
            idle_wakes: (Instant::ORIGIN, 0),
            wakes: 0,
            met: BTreeSet::new(),
            born: (Instant::ORIGIN, Instant::ORIGIN),
            spec,
        }
    }

    /// The secret of its identity.
    pub(super) fn secret(&self) -> [u8; 32] {
        self.identity
    }

    /// The node, where one is expected to run.
    ///
    /// # Panics
    /// Where none does.
    pub fn running(&self) -> &Node {
        self.node.as_ref().expect("the host runs")
    }

    /// What the node's own clock says.
    pub fn local(&self, now: Instant) -> Instant {
        self.born.1 + now.since(self.born.0)
    }

    /// When the node wants to be called, on the world's clock. Never, while nobody keeps its deadlines.
    pub fn deadline(&self) -> Instant {
        match &self.node {
            Some(node) if !self.stalled && !self.hoarding => {
                let (deadline, _) = node.poll_timeout();
                if deadline == Instant::FAR_FUTURE { deadline } else { self.born.0 + deadline.since(self.born.1) }
            }
            _ => Instant::FAR_FUTURE,
        }
    }

    /// What the wall clock says.
    pub fn wall_clock(&self, now: Instant) -> UnixTime {
        wall_clock(now, self.clock_ms)
    }

    /// The configuration of the peers that it allows.
    pub fn peer_configs(&self, ids: &[PeerId], relays: &BTreeSet<usize>) -> Vec<PeerConfig> {
        let config = |peer: &usize| PeerConfig {
            id: ids[*peer],
            name: format!("host{peer}"),
            prefixes: overlay_prefixes(*peer),
            relay_capable: relays.contains(peer),
            endpoints: self.endpoints.get(peer).cloned().unwrap_or_default(),
            last_known: self.last_known.get(&ids[*peer]).cloned().unwrap_or_default(),
        };
        self.peers.iter().map(config).collect()
    }

    /// Starts a node with `seed`, whose clock says `origin` now.
    pub fn start(
        &mut self,
        now: Instant,
        (index, ids, relays): (usize, &[PeerId], &BTreeSet<usize>),
        (seed, origin): ([u8; 32], Instant),
        port: u16,
        crypto: Box<dyn CryptoBackend>,
    ) {
        self.policy = self.spec.policy;
        let sockets = [Family::V4, Family::V6].map(|family| SocketInfo { id: socket_of(family), family, port });
        let config = NodeConfig {
            network_id: NetworkId::new(&self.spec.network_id).expect("the simulator names networks well"),
            network_key: self.spec.network_key.map(NetworkKey::new),
            sockets: sockets.to_vec(),
            peers: self.peer_configs(ids, relays),
            policy: self.policy,
            own_prefixes: overlay_prefixes(index),
            mtu: self.spec.tun_mtu,
            aes_is_fast: self.spec.aes,
            checksum_offload: self.spec.offload,
        };
        let identity = Identity::from_seed(self.identity);
        let node = Node::new(config, identity, crypto, seed, origin, self.wall_clock(now));
        self.node = Some(node.expect("the simulator's configurations are valid"));
        self.born = (now, origin);
        self.lives += 1;
    }

    /// Ends the present life: what the node knew is gone. Returns what it counted.
    pub fn end(&mut self) -> Option<Counters> {
        let node = self.node.take()?;
        let counters = node.counters().clone();
        assert_eq!(counters.packets_received, self.delivered, "packets counted as received are packets delivered");
        if self.spec.remembers {
            self.last_known.clear();
            node.reached().for_each(|(peer, at)| self.last_known.entry(peer).or_default().push(at));
        }
        (self.delivered, self.deeds) = (0, Deeds::default());
        self.up.clear();
        self.met.clear();
        self.inbox.clear();
        (self.stalled, self.asleep, self.hoarding) = (false, false, false);
        Some(counters)
    }

    /// Keeps a datagram for later; drops it where the socket's buffer is full, or where nobody is awake to fill it.
    pub fn keep(&mut self, path: FourTuple, bytes: Vec<u8>) {
        if !self.asleep && self.inbox.len() < SOCKET_BUFFER {
            self.inbox.push_back((path, bytes));
        }
    }
}
