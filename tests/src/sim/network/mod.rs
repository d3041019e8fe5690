//! The network between simulated hosts: addresses, links, NATs and what can be done to a datagram on its way.

mod audit;
mod link;
mod nat;
mod place;
mod reach;

pub use audit::Audit;
pub use link::Link;
pub use nat::{Behaviour, NatBox, NatKind};
pub use place::{Attachment, Realm};
pub use reach::Reach;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use vine_core::Instant;
use vine_core::path::{Family, FourTuple, SocketId};
use vine_core::rng::Rng;
use vine_core::wire::{EnvelopeType, HEADER_LEN, Header, Lane};

use super::op::Way;

/// The port that every host listens on at first.
pub const PORT: u16 = 4100;

/// Addresses that belong to nobody: what they send is forged, and what is sent to them is lost.
const GHOSTS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), 6666),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 1)), 6666),
];

/// What is sent to an address that has proved nothing, in terms of what came from there (RFC 9000 section 8.1).
const AMPLIFICATION: u64 = 3;

/// Datagrams of control that a host sends within a second, at most, for each host that there is: two that answer each other
/// for ever are a bug, and would keep a run from ending.
const CONTROL_RATE: u32 = 500;

/// Datagrams that an attacker remembers.
const CAPTURED: usize = 256;

/// The ghost that can send to an address of this family.
pub const fn ghost(family: Family) -> SocketAddr {
    match family {
        Family::V4 => GHOSTS[0],
        Family::V6 => GHOSTS[1],
    }
}

/// Whether it is a ghost's.
pub(super) fn is_ghost(address: &SocketAddr) -> bool {
    GHOSTS.contains(address)
}

/// The socket of a family, on every host.
pub const fn socket_of(family: Family) -> SocketId {
    SocketId(match family {
        Family::V4 => 0,
        Family::V6 => 1,
    })
}

/// A datagram that an attacker saw.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Which host sent it as it is, where one did.
    pub sender: Option<usize>,
    /// Where it came from, as its receiver sees it.
    pub source: SocketAddr,
    /// Where it went.
    pub destination: SocketAddr,
    /// Where both are addresses.
    pub realm: Realm,
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
    /// Nobody has the destination address, or the sender's NAT does not let it out.
    Nowhere,
    /// The link lost it.
    Lost,
    /// The link is cut.
    Cut,
    /// The link's MTU is less.
    TooBig,
    /// The link's queue was full.
    Overflow,
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
    sender: Option<usize>,
    /// Its source address, as the receiver will see it.
    pub source: SocketAddr,
    destination: SocketAddr,
    realm: Realm,
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
    /// The NATs.
    pub boxes: Vec<NatBox>,
    /// Links that are not the default.
    links: BTreeMap<(usize, usize, Family), Link>,
    /// Until when links with a rate have something to do.
    busy: BTreeMap<(usize, usize, Family), Instant>,
    /// What every datagram did, in order.
    pub records: Vec<Record>,
    /// What an attacker saw lately.
    pub captured: VecDeque<Captured>,
    /// The same, without what is sealed: there is much less of it.
    pub handshakes: VecDeque<Captured>,
    /// Bytes sent to the ghost, and by it.
    pub ghost_bytes: (u64, u64),
    /// What an observer holds the nodes to.
    pub audit: Audit,
    /// What datagrams met on their way, and how often.
    pub met: BTreeMap<&'static str, u64>,
    flights: BinaryHeap<Flight>,
    /// By host: how many datagrams of control since when.
    control: BTreeMap<usize, (Instant, u32)>,
    order: u64,
    rng: Rng,
}

impl Network {
    /// A network without hosts.
    pub fn new(rng: Rng) -> Network {
        Network {
            hosts: Vec::new(),
            boxes: Vec::new(),
            links: BTreeMap::new(),
            busy: BTreeMap::new(),
            records: Vec::new(),
            captured: VecDeque::new(),
            handshakes: VecDeque::new(),
            ghost_bytes: (0, 0),
            audit: Audit::default(),
            met: BTreeMap::new(),
            flights: BinaryHeap::new(),
            control: BTreeMap::new(),
            order: 0,
            rng,
        }
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
        let departure = self.depart(now, from, &path);
        let realm = departure.and_then(|departure| departure.realm);
        let to = realm.and_then(|realm| self.holder_of(realm, path.remote));
        let way = to.map(|to| (from, to, Family::of(&path.remote)));
        let link = way.map(|(from, to, family)| self.link(from, to, family)).unwrap_or_default();
        let jitter = Duration::from_nanos(self.rng.below(link.jitter.as_nanos() as u64 + 1));
        for datagram in bytes.chunks(segment.max(1)) {
            let header = Header::decode(datagram).ok();
            self.audit.on_handed(from, datagram);
            if departure.is_some() {
                self.audit.on_sent(now, from, path.remote, is_ghost(&path.remote), datagram);
            }
            let fate = match (departure, realm, way) {
                (None, ..) => Fate::Unsendable,
                _ if GHOSTS.contains(&path.remote) => {
                    self.reach_ghost(datagram);
                    Fate::Nowhere
                }
                (Some(departure), Some(realm), Some(way)) => {
                    let bytes = datagram.to_vec();
                    let (sender, source) = (Some(from), departure.source);
                    let seen = Captured { sender, source, destination: path.remote, realm, bytes };
                    self.capture(&seen);
                    self.carry(now, jitter, way, link, seen)
                }
                _ => Fate::Nowhere,
            };
            self.note_kind(header, datagram);
            self.count_control(now, from, header);
            let (remote, len) = (path.remote, datagram.len());
            self.records.push(Record { at: now, from, to, remote, header, len, fate });
        }
    }

    /// Notes what is sent through a relay, and what else is rare.
    fn note_kind(&mut self, header: Option<Header>, datagram: &[u8]) {
        let Some(header) = header.filter(|header| header.kind() != EnvelopeType::Sealed) else { return };
        self.met(match header.kind() {
            EnvelopeType::Relayed => match Header::decode(&datagram[HEADER_LEN..]).map(|inner| inner.kind()) {
                Ok(EnvelopeType::Hello) => "sent by relay: Hello",
                Ok(EnvelopeType::HelloAck) => "sent by relay: HelloAck",
                Ok(EnvelopeType::HelloFinish) => "sent by relay: HelloFinish",
                Ok(EnvelopeType::Cookie) => "sent by relay: Cookie",
                _ => "sent by relay: sealed",
            },
            EnvelopeType::Cookie => "sent: Cookie",
            EnvelopeType::HelloFinish => "sent: HelloFinish",
            _ => return,
        });
    }

    /// Two nodes may not answer each other for ever.
    fn count_control(&mut self, now: Instant, from: usize, header: Option<Header>) {
        let is_control =
            |header: Header| header.kind() == EnvelopeType::Sealed && header.msg_id().lane() == Lane::CONTROL;
        if !header.is_some_and(is_control) {
            return;
        }
        let limit = CONTROL_RATE * self.hosts.len() as u32;
        let (since, count) = self.control.entry(from).or_insert((now, 0));
        if now.since(*since) > Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        assert!(*count <= limit, "host {from} sends more than {limit} datagrams of control a second");
    }

    /// Notes that something happened to a datagram.
    fn met(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
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

    /// Puts a datagram on its way, if the link lets it.
    fn carry(
        &mut self,
        now: Instant,
        jitter: Duration,
        way: (usize, usize, Family),
        link: Link,
        mut datagram: Captured,
    ) -> Fate {
        if link.cut {
            return Fate::Cut;
        }
        let len = Link::packet_len(way.2, datagram.bytes.len());
        if len > usize::from(link.mtu) {
            self.met("link: too big");
            return Fate::TooBig;
        }
        let busy = self.busy.get(&way).copied().unwrap_or(Instant::ORIGIN);
        let Some(served) = link.serve(now, busy, len) else {
            self.met("link: queue overflow");
            return Fate::Overflow;
        };
        if link.rate > 0 {
            self.busy.insert(way, served);
        }
        if self.chance(link.loss) {
            self.met("link: lost");
            return Fate::Lost;
        }
        if self.chance(link.corrupt) {
            self.met("link: corrupted");
            datagram.sender = None;
            self.corrupt(&mut datagram.bytes);
        }
        let mut at = served + link.delay + jitter;
        if self.chance(link.reorder) {
            self.met("link: reordered");
            at += Duration::from_nanos(self.rng.below(4 * link.delay.as_nanos() as u64 + 20_000_000));
        }
        if self.chance(link.duplicate) {
            self.met("link: duplicated");
            let later = at + Duration::from_nanos(self.rng.below(50_000_000));
            self.put_back(later, datagram.clone());
        }
        self.put_back(at, datagram);
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

    fn capture(&mut self, seen: &Captured) {
        if Header::decode(&seen.bytes).is_ok_and(|header| !header.kind().is_sealed()) {
            remember(&mut self.handshakes, seen.clone());
        }
        remember(&mut self.captured, seen.clone());
    }

    /// A datagram will arrive, whoever sent it.
    pub fn inject(&mut self, at: Instant, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8>) {
        self.put_back(at, Captured { sender: None, source, destination, realm: Realm::Public, bytes });
    }

    /// The same where somebody saw it.
    pub fn put_back(&mut self, at: Instant, seen: Captured) {
        let Captured { sender, source, destination, realm, bytes } = seen;
        if GHOSTS.contains(&source) {
            self.ghost_bytes.1 += bytes.len() as u64;
        }
        self.order += 1;
        self.flights.push(Flight { at, order: self.order, sender, source, destination, realm, bytes });
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Instant {
        self.flights.peek().map_or(Instant::FAR_FUTURE, |flight| flight.at)
    }

    /// Whether a datagram is under way that a host sent, or that would reach it now.
    pub fn has_flights_of(&self, host: usize) -> bool {
        let is_of = |flight: &Flight| {
            flight.sender == Some(host) || self.holder_of(flight.realm, flight.destination) == Some(host)
        };
        self.flights.iter().any(is_of)
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
        let (index, own) = self.descend(now, flight.realm, flight.source, flight.destination)?;
        if let Some(sender) = flight.sender {
            self.audit.on_arrival(sender, flight.destination, index);
        }
        let path = FourTuple { socket: socket_of(Family::of(&own)), local: Some(own.ip()), remote: flight.source };
        Some((index, path, flight.bytes))
    }
}

fn remember(memory: &mut VecDeque<Captured>, seen: Captured) {
    if memory.len() == CAPTURED {
        memory.pop_front();
    }
    memory.push_back(seen);
}
