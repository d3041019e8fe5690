//! The network between simulated hosts: addresses, links, NATs and what can be done to a datagram on its way.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use vine_core::Instant;
use vine_core::path::{Family, FourTuple, SocketId};
use vine_core::rng::Rng;
use vine_core::wire::{EnvelopeType, Header, Lane};

use super::op::Way;

/// The port that every host listens on at first.
pub const PORT: u16 = 4100;

/// Addresses that belong to nobody: what they send is forged, and what is sent to them is lost.
const GHOSTS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 6666),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 1)), 6666),
];

/// A NAT forgets a mapping that nothing was sent by for this long (RFC 4787 REQ-5 asks for two minutes; many take 30 s).
const MAPPING_LIFETIME: Duration = Duration::from_secs(30);

/// What is sent to an address that has proved nothing, in terms of what came from there (RFC 9000 section 8.1).
const AMPLIFICATION: u64 = 3;

/// Datagrams that an attacker remembers.
const CAPTURED: usize = 256;

/// The ghost that can send to an address of this family.
pub const fn ghost(family: Family) -> SocketAddr {
    match family {
        Family::V4 => GHOSTS[0],
        Family::V6 => GHOSTS[1],
    }
}

/// The socket of a family, on every host.
pub const fn socket_of(family: Family) -> SocketId {
    SocketId(match family {
        Family::V4 => 0,
        Family::V6 => 1,
    })
}

/// How datagrams of one direction between two hosts fare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much is added to it, anew for every burst.
    pub jitter: Duration,
    /// Of a thousand datagrams so many are lost.
    pub loss: u16,
    /// So many arrive twice.
    pub duplicate: u16,
    /// So many arrive much later than others.
    pub reorder: u16,
    /// So many arrive damaged.
    pub corrupt: u16,
    /// Nothing arrives.
    pub cut: bool,
}

impl Default for Link {
    fn default() -> Link {
        let delay = Duration::from_millis(10);
        Link { delay, jitter: Duration::ZERO, loss: 0, duplicate: 0, reorder: 0, corrupt: 0, cut: false }
    }
}

/// A NAT of IPv4 before one host.
#[derive(Clone, Debug)]
pub struct Nat {
    public: Ipv4Addr,
    /// Lets in only what comes from an address and port that something was sent to (RFC 4787 section 5).
    restricted: bool,
    mappings: BTreeMap<u16, Mapping>,
    next_port: u16,
}

#[derive(Clone, Debug)]
struct Mapping {
    inner: SocketAddr,
    remotes: BTreeSet<SocketAddr>,
    last_out: Instant,
}

/// Where a host stands in the network.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Its own IPv4 address; behind a NAT a private one.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The port of both its sockets.
    pub port: u16,
    /// The NAT before its IPv4 address.
    pub nat: Option<Nat>,
    moves: u8,
}

/// A datagram that an attacker saw.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Where it came from, as its receiver sees it.
    pub source: SocketAddr,
    /// Where it went.
    pub destination: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What became of a datagram on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It will arrive.
    Sent,
    /// The sender has no such address or no route.
    Unsendable,
    /// Nobody has the destination address, or its NAT lets nothing in.
    Nowhere,
    /// The link lost it.
    Lost,
    /// The link is cut.
    Cut,
}

/// One datagram that a host sent.
#[derive(Clone, Debug)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// Which host sent it.
    pub from: usize,
    /// Which host has the destination address.
    pub to: Option<usize>,
    /// The destination address.
    pub remote: SocketAddr,
    /// What it says of itself.
    pub header: Option<Header>,
    /// Its length.
    pub len: usize,
    /// What became of it.
    pub fate: Fate,
}

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flight {
    /// When it arrives.
    pub at: Instant,
    order: u64,
    /// Its source address, as the receiver will see it.
    pub source: SocketAddr,
    destination: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Ord for Flight {
    fn cmp(&self, other: &Flight) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order)) // The heap has its largest on top: the earliest.
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Flight) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The network between the hosts.
#[derive(Debug)]
pub struct Network {
    /// Every host's place.
    pub hosts: Vec<Attachment>,
    /// Links that are not the default.
    links: BTreeMap<(usize, usize, Family), Link>,
    /// What every datagram did, in order.
    pub records: Vec<Record>,
    /// What an attacker saw lately.
    pub captured: VecDeque<Captured>,
    /// The same, without what is sealed: there is much less of it.
    pub handshakes: VecDeque<Captured>,
    /// Bytes sent to the ghost, and by it.
    pub ghost_bytes: (u64, u64),
    /// Damage done by links: lost, duplicated, reordered, corrupted.
    pub damage: [u64; 4],
    flights: BinaryHeap<Flight>,
    order: u64,
    rng: Rng,
}

impl Network {
    /// A network without hosts.
    pub fn new(rng: Rng) -> Network {
        Network {
            hosts: Vec::new(),
            links: BTreeMap::new(),
            records: Vec::new(),
            captured: VecDeque::new(),
            handshakes: VecDeque::new(),
            ghost_bytes: (0, 0),
            damage: [0; 4],
            flights: BinaryHeap::new(),
            order: 0,
            rng,
        }
    }

    /// Gives a new host its addresses.
    pub fn attach(&mut self, v4: bool, v6: bool, nat: Option<bool>) {
        let index = self.hosts.len();
        self.hosts.push(Attachment { v4: None, v6: None, port: PORT, nat: None, moves: 0 });
        let nat = nat.map(|restricted| Nat {
            public: Ipv4Addr::new(198, 51, 100, index as u8),
            restricted,
            mappings: BTreeMap::new(),
            next_port: 20_000,
        });
        let (v4_address, v6_address) = self.fresh_addresses(index, nat.is_some());
        let host = &mut self.hosts[index];
        host.v4 = v4.then_some(v4_address);
        host.v6 = v6.then_some(v6_address);
        host.nat = nat;
    }

    fn fresh_addresses(&self, index: usize, private: bool) -> (Ipv4Addr, Ipv6Addr) {
        let moves = self.hosts[index].moves;
        let [high, low] = (index as u16).to_be_bytes();
        let v4 = if private { Ipv4Addr::new(192, 168, moves, 2) } else { Ipv4Addr::new(100 + high, low, moves, 1) };
        (v4, Ipv6Addr::new(0x2001, 0xdb8, index as u16, u16::from(moves), 0, 0, 0, 1))
    }

    /// A host gets new addresses (a NAT keeps its own), or only a new port.
    pub fn roam(&mut self, host: usize, port_only: bool) {
        let private = self.hosts[host].nat.is_some();
        self.hosts[host].moves = self.hosts[host].moves.wrapping_add(1);
        let (v4, v6) = self.fresh_addresses(host, private);
        let attachment = &mut self.hosts[host];
        if port_only {
            attachment.port += 1;
        } else {
            attachment.v4 = attachment.v4.map(|_| v4);
            attachment.v6 = attachment.v6.map(|_| v6);
        }
    }

    /// The NAT of a host forgets everything; what it maps next gets new ports.
    pub fn rebind(&mut self, host: usize) -> bool {
        let Some(nat) = self.hosts[host].nat.as_mut() else { return false };
        nat.mappings.clear();
        true
    }

    /// The host's own addresses.
    pub fn local_addresses(&self, host: usize) -> Vec<IpAddr> {
        let host = &self.hosts[host];
        host.v4.map(IpAddr::V4).into_iter().chain(host.v6.map(IpAddr::V6)).collect()
    }

    /// Where a host can be found by who never heard of it.
    pub fn public_endpoints(&self, host: usize) -> Vec<SocketAddr> {
        let host = &self.hosts[host];
        let v4 = host.v4.filter(|_| host.nat.is_none()).map(IpAddr::V4);
        v4.into_iter().chain(host.v6.map(IpAddr::V6)).map(|ip| SocketAddr::new(ip, host.port)).collect()
    }

    /// Whether what `from` sends to this address reaches `to`, whatever the links do.
    pub fn leads_to(&self, from: usize, to: usize, endpoint: &SocketAddr) -> bool {
        let has_family = match Family::of(endpoint) {
            Family::V4 => self.hosts[from].v4.is_some(),
            Family::V6 => self.hosts[from].v6.is_some(),
        };
        has_family && self.public_endpoints(to).contains(endpoint)
    }

    /// The link from one host to another.
    pub fn link(&self, from: usize, to: usize, family: Family) -> Link {
        self.links.get(&(from, to, family)).copied().unwrap_or_default()
    }

    /// Changes the links from one host to another.
    pub fn set_link(&mut self, from: usize, to: usize, way: Way, link: Link) {
        for family in way.families() {
            self.links.insert((from, to, *family), link);
        }
    }

    /// A host sends one burst of datagrams of `segment` bytes each, back to back in `bytes`, as one segmented send does.
    pub fn send(&mut self, now: Instant, from: usize, path: FourTuple, segment: usize, bytes: &[u8]) {
        let to = self.holder_of(&path.remote);
        let link = to.map(|to| self.link(from, to, Family::of(&path.remote))).unwrap_or_default();
        let jitter = Duration::from_nanos(self.rng.below(link.jitter.as_nanos() as u64 + 1));
        for datagram in bytes.chunks(segment.max(1)) {
            let fate = match (self.leave(now, from, &path), to) {
                (None, _) => Fate::Unsendable,
                (Some(_), _) if GHOSTS.contains(&path.remote) => {
                    self.reach_ghost(datagram);
                    Fate::Nowhere
                }
                (Some(_), None) => Fate::Nowhere,
                (Some(source), Some(_)) => {
                    self.capture(source, path.remote, datagram);
                    self.carry(now + link.delay + jitter, link, source, path.remote, datagram)
                }
            };
            let header = Header::decode(datagram).ok();
            let (remote, len) = (path.remote, datagram.len());
            self.records.push(Record { at: now, from, to, remote, header, len, fate });
        }
    }

    /// A ghost answers nothing: so nothing proves its address, no data goes there, and little else.
    fn reach_ghost(&mut self, datagram: &[u8]) {
        self.ghost_bytes.0 += datagram.len() as u64;
        let (to_ghost, from_ghost) = self.ghost_bytes;
        assert!(to_ghost <= AMPLIFICATION * from_ghost, "{to_ghost} bytes answer {from_ghost} of an unproven address");
        if let Ok(header) = Header::decode(datagram) {
            let is_data = header.kind() == EnvelopeType::Sealed && header.msg_id().lane() != Lane::CONTROL;
            assert!(!is_data, "data goes to an address that never answered");
        }
    }

    /// The source address under which a host's datagram travels.
    fn leave(&mut self, now: Instant, from: usize, path: &FourTuple) -> Option<SocketAddr> {
        let host = &mut self.hosts[from];
        let family = Family::of(&path.remote);
        let own = match family {
            Family::V4 => host.v4.map(IpAddr::V4),
            Family::V6 => host.v6.map(IpAddr::V6),
        }?;
        assert_eq!(path.socket, socket_of(family), "a datagram to {} by the wrong socket", path.remote);
        if path.local.is_some_and(|local| local != own) {
            return None;
        }
        let source = SocketAddr::new(own, host.port);
        match host.nat.as_mut().filter(|_| family == Family::V4) {
            Some(nat) => Some(nat.translate(now, source, path.remote)),
            None => Some(source),
        }
    }

    /// Whose address it is.
    fn holder_of(&self, destination: &SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| match (destination.ip(), &host.nat) {
            (IpAddr::V4(ip), Some(nat)) => nat.public == ip,
            (IpAddr::V4(ip), None) => host.v4 == Some(ip) && host.port == destination.port(),
            (IpAddr::V6(ip), _) => host.v6 == Some(ip) && host.port == destination.port(),
        })
    }

    /// Puts a datagram on its way, if the link lets it.
    fn carry(&mut self, at: Instant, link: Link, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) -> Fate {
        if link.cut {
            return Fate::Cut;
        }
        if self.chance(link.loss) {
            self.damage[0] += 1;
            return Fate::Lost;
        }
        let mut bytes = bytes.to_vec();
        if self.chance(link.corrupt) {
            self.damage[3] += 1;
            self.corrupt(&mut bytes);
        }
        let mut at = at;
        if self.chance(link.reorder) {
            self.damage[2] += 1;
            at += Duration::from_nanos(self.rng.below(4 * link.delay.as_nanos() as u64 + 20_000_000));
        }
        if self.chance(link.duplicate) {
            self.damage[1] += 1;
            let later = at + Duration::from_nanos(self.rng.below(50_000_000));
            self.inject(later, source, destination, bytes.clone());
        }
        self.inject(at, source, destination, bytes);
        Fate::Sent
    }

    fn chance(&mut self, permille: u16) -> bool {
        permille > 0 && self.rng.below(1000) < u64::from(permille)
    }

    fn corrupt(&mut self, bytes: &mut Vec<u8>) {
        if self.rng.below(4) == 0 {
            bytes.truncate(self.rng.below(bytes.len() as u64) as usize);
        } else if !bytes.is_empty() {
            let bit = self.rng.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    fn capture(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let seen = Captured { source, destination, bytes: bytes.to_vec() };
        if Header::decode(bytes).is_ok_and(|header| !header.kind().is_sealed()) {
            remember(&mut self.handshakes, seen.clone());
        }
        remember(&mut self.captured, seen);
    }

    /// A datagram will arrive, whoever sent it.
    pub fn inject(&mut self, at: Instant, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        if GHOSTS.contains(&source) {
            self.ghost_bytes.1 += bytes.len() as u64;
        }
        self.order += 1;
        self.flights.push(Flight { at, order: self.order, source, destination, bytes });
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Instant {
        self.flights.peek().map_or(Instant::FAR_FUTURE, |flight| flight.at)
    }

    /// The next datagram that is due, with the host that gets it and the path by which it sees it come, or nothing where
    /// the destination is nobody's by now.
    pub fn arrive(&mut self, now: Instant) -> Option<Option<(usize, FourTuple, Vec<u8>)>> {
        if self.next_arrival() > now {
            return None;
        }
        let flight = self.flights.pop()?;
        Some(self.deliver(now, flight))
    }

    fn deliver(&mut self, now: Instant, flight: Flight) -> Option<(usize, FourTuple, Vec<u8>)> {
        let index = self.holder_of(&flight.destination)?;
        let host = &mut self.hosts[index];
        let family = Family::of(&flight.destination);
        let local = match host.nat.as_mut().filter(|_| family == Family::V4) {
            Some(nat) => {
                let inner = nat.admit(now, flight.destination.port(), flight.source)?;
                (host.v4.map(IpAddr::V4) == Some(inner.ip()) && host.port == inner.port()).then_some(inner.ip())?
            }
            None => flight.destination.ip(),
        };
        let path = FourTuple { socket: socket_of(family), local: Some(local), remote: flight.source };
        Some((index, path, flight.bytes))
    }
}

fn remember(memory: &mut VecDeque<Captured>, seen: Captured) {
    if memory.len() == CAPTURED {
        memory.pop_front();
    }
    memory.push_back(seen);
}

impl Nat {
    /// The public address under which `inner` sends: the same for every destination (RFC 4787 REQ-1).
    fn translate(&mut self, now: Instant, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        self.mappings.retain(|_, mapping| now.since(mapping.last_out) <= MAPPING_LIFETIME);
        let known = self.mappings.iter_mut().find(|(_, mapping)| mapping.inner == inner);
        let port = match known {
            Some((port, mapping)) => {
                mapping.last_out = now;
                mapping.remotes.insert(remote);
                *port
            }
            None => {
                let port = self.next_port;
                self.next_port = self.next_port.wrapping_add(1).max(20_000);
                self.mappings.insert(port, Mapping { inner, remotes: BTreeSet::from([remote]), last_out: now });
                port
            }
        };
        SocketAddr::new(IpAddr::V4(self.public), port)
    }

    /// The inner address that a datagram to a public port is for, if it may come in.
    fn admit(&mut self, now: Instant, port: u16, source: SocketAddr) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&port)?;
        let alive = now.since(mapping.last_out) <= MAPPING_LIFETIME;
        let welcome = !self.restricted || mapping.remotes.contains(&source);
        (alive && welcome).then_some(mapping.inner)
    }
}
