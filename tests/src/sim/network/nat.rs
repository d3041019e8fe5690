//! Boxes between a host and the rest of the network: NATs of every kind of RFC 4787, and firewalls without translation.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use vine_core::Instant;

use super::place::Realm;

/// A flow that nothing was sent by for this long is forgotten (RFC 4787 REQ-5 asks for two minutes; many take 30 s).
const LIFETIME: Duration = Duration::from_secs(30);

/// The first port that a NAT gives away, where it does not keep the inner one.
const FIRST_PORT: u16 = 20_000;

/// On what of the remote end a mapping (RFC 4787 section 4.1) or a filter (section 5) depends. Each lets through less than
/// the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Behaviour {
    /// On nothing.
    EndpointIndependent,
    /// On its address.
    AddressDependent,
    /// On its address and port.
    AddressAndPortDependent,
}

impl Behaviour {
    /// Every one.
    pub const ALL: [Behaviour; 3] =
        [Behaviour::EndpointIndependent, Behaviour::AddressDependent, Behaviour::AddressAndPortDependent];

    /// What it sees of a remote end.
    fn part_of(self, remote: SocketAddr) -> (Option<IpAddr>, Option<u16>) {
        match self {
            Behaviour::EndpointIndependent => (None, None),
            Behaviour::AddressDependent => (Some(remote.ip()), None),
            Behaviour::AddressAndPortDependent => (Some(remote.ip()), Some(remote.port())),
        }
    }
}

/// How a NAT behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatKind {
    /// Which destinations share a mapping.
    pub mapping: Behaviour,
    /// Who may send to a mapping.
    pub filtering: Behaviour,
    /// Hosts behind it reach each other at its public address (RFC 4787 section 6).
    pub hairpin: bool,
    /// A mapping gets the port of the inner end, while nobody else has it (section 4.2.1).
    pub preserves_ports: bool,
    /// How long it remembers a flow that nothing is sent by.
    pub lifetime: Duration,
}

impl NatKind {
    /// One with these behaviours, without hairpinning or port preservation.
    pub const fn new(mapping: Behaviour, filtering: Behaviour) -> NatKind {
        NatKind { mapping, filtering, hairpin: false, preserves_ports: false, lifetime: LIFETIME }
    }

    /// What most homes have, or the most permissive one.
    pub const fn cone(restricted: bool) -> NatKind {
        let filtering = if restricted { Behaviour::AddressAndPortDependent } else { Behaviour::EndpointIndependent };
        NatKind::new(Behaviour::EndpointIndependent, filtering)
    }

    /// A mapping for every destination, and no other may use it.
    pub const fn symmetric() -> NatKind {
        NatKind::new(Behaviour::AddressAndPortDependent, Behaviour::AddressAndPortDependent)
    }
}

/// The remote ends that something was sent to, and when last.
#[derive(Clone, Debug, Default)]
struct Flows(BTreeMap<SocketAddr, Instant>);

impl Flows {
    fn open(&mut self, now: Instant, remote: SocketAddr, lifetime: Duration) {
        self.0.retain(|_, last| now.since(*last) <= lifetime);
        self.0.insert(remote, now);
    }

    fn is_alive(&self, now: Instant, lifetime: Duration) -> bool {
        self.0.values().any(|last| now.since(*last) <= lifetime)
    }

    fn admits(&self, now: Instant, filtering: Behaviour, source: SocketAddr, lifetime: Duration) -> bool {
        let seen = filtering.part_of(source);
        let alive = self.0.iter().filter(|(_, last)| now.since(**last) <= lifetime);
        alive.into_iter().any(|(remote, _)| filtering.part_of(*remote) == seen)
    }
}

#[derive(Clone, Debug)]
struct Mapping {
    inner: SocketAddr,
    toward: (Option<IpAddr>, Option<u16>),
    flows: Flows,
}

/// A NAT of IPv4 with everything behind it.
#[derive(Clone, Debug)]
pub struct NatBox {
    /// How it behaves.
    pub kind: NatKind,
    /// Where it stands itself.
    pub(super) outer: Realm,
    /// Its address there.
    pub(super) public: Ipv4Addr,
    /// Hosts and boxes that were ever behind it.
    pub(super) residents: u8,
    /// Something went through it.
    pub(in super::super) is_used: bool,
    mappings: BTreeMap<u16, Mapping>,
    next_port: u16,
}

impl NatBox {
    pub(super) fn new(kind: NatKind, outer: Realm, public: Ipv4Addr) -> NatBox {
        NatBox { kind, outer, public, residents: 0, is_used: false, mappings: BTreeMap::new(), next_port: FIRST_PORT }
    }

    /// Forgets everything; what it maps next gets new ports.
    pub(super) fn forget(&mut self) {
        self.mappings.clear();
    }

    /// The public end under which `inner` sends to `remote`.
    pub(super) fn translate(&mut self, now: Instant, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let NatKind { mapping, lifetime, .. } = self.kind;
        self.mappings.retain(|_, mapping| mapping.flows.is_alive(now, lifetime));
        let toward = mapping.part_of(remote);
        let known = self.mappings.iter().find(|(_, mapping)| mapping.inner == inner && mapping.toward == toward);
        let port = known.map(|(port, _)| *port).unwrap_or_else(|| self.free_port(inner.port()));
        let mapping = self.mappings.entry(port).or_insert(Mapping { inner, toward, flows: Flows::default() });
        mapping.flows.open(now, remote, lifetime);
        self.is_used = true;
        SocketAddr::new(IpAddr::V4(self.public), port)
    }

    fn free_port(&mut self, preferred: u16) -> u16 {
        if self.kind.preserves_ports && !self.mappings.contains_key(&preferred) {
            return preferred;
        }
        while self.mappings.contains_key(&self.next_port) {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        }
        let port = self.next_port;
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        port
    }

    /// The inner end that a datagram to a public port is for, if it may come in.
    pub(super) fn admit(&self, now: Instant, port: u16, source: SocketAddr) -> Option<SocketAddr> {
        let NatKind { filtering, lifetime, .. } = self.kind;
        let mapping = self.mappings.get(&port)?;
        mapping.flows.admits(now, filtering, source, lifetime).then_some(mapping.inner)
    }

    /// Whose mapping a public port is, whether anything may come in there or not.
    pub(super) fn holder(&self, port: u16) -> Option<SocketAddr> {
        self.mappings.get(&port).map(|mapping| mapping.inner)
    }
}

/// A stateful firewall before the IPv6 address of a host: nothing comes in but what belongs to a flow from inside.
#[derive(Clone, Debug)]
pub(super) struct Firewall {
    filtering: Behaviour,
    /// By the port inside.
    flows: BTreeMap<u16, Flows>,
}

impl Firewall {
    pub(super) fn new(filtering: Behaviour) -> Firewall {
        Firewall { filtering, flows: BTreeMap::new() }
    }

    pub(super) fn forget(&mut self) {
        self.flows.clear();
    }

    pub(super) fn let_out(&mut self, now: Instant, port: u16, remote: SocketAddr) {
        self.flows.entry(port).or_default().open(now, remote, LIFETIME);
    }

    pub(super) fn admits(&self, now: Instant, port: u16, source: SocketAddr) -> bool {
        self.flows.get(&port).is_some_and(|flows| flows.admits(now, self.filtering, source, LIFETIME))
    }
}

#[cfg(test)]
mod tests {
    use Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

    use super::*;

    const INNER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2)), 4100);

    fn remote(host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 0, 0, host)), port)
    }

    fn nat(kind: NatKind) -> NatBox {
        NatBox::new(kind, Realm::Public, Ipv4Addr::new(198, 51, 100, 1))
    }

    #[test]
    fn mappings_are_shared_as_their_kind_says() {
        let now = Instant::from_millis(1);
        for (mapping, same_host, other_host) in [
            (EndpointIndependent, true, true),
            (AddressDependent, true, false),
            (AddressAndPortDependent, false, false),
        ] {
            let mut nat = nat(NatKind::new(mapping, EndpointIndependent));
            let first = nat.translate(now, INNER, remote(1, 1));
            assert_eq!(nat.translate(now, INNER, remote(1, 1)), first);
            assert_eq!(nat.translate(now, INNER, remote(1, 2)) == first, same_host, "{mapping:?}");
            assert_eq!(nat.translate(now, INNER, remote(2, 1)) == first, other_host, "{mapping:?}");
        }
    }

    #[test]
    fn filters_admit_as_their_kind_says() {
        let now = Instant::from_millis(1);
        for (filtering, same_host, other_host) in [
            (EndpointIndependent, true, true),
            (AddressDependent, true, false),
            (AddressAndPortDependent, false, false),
        ] {
            let mut nat = nat(NatKind::new(EndpointIndependent, filtering));
            let port = nat.translate(now, INNER, remote(1, 1)).port();
            let admits = |source| nat.admit(now, port, source) == Some(INNER);
            assert!(admits(remote(1, 1)));
            assert_eq!(admits(remote(1, 2)), same_host, "{filtering:?}");
            assert_eq!(admits(remote(2, 1)), other_host, "{filtering:?}");
            assert_eq!(nat.admit(now, port + 1, remote(1, 1)), None);
        }
    }

    #[test]
    fn flows_expire_each_by_itself_and_only_what_goes_out_keeps_them() {
        let at = |secs: u64| Instant::from_millis(secs * 1_000);
        let mut nat = nat(NatKind::cone(true));
        let port = nat.translate(at(0), INNER, remote(1, 1)).port();
        assert_eq!(nat.translate(at(20), INNER, remote(2, 1)).port(), port);
        assert_eq!(nat.admit(at(29), port, remote(1, 1)), Some(INNER));
        assert_eq!(nat.admit(at(31), port, remote(1, 1)), None);
        assert_eq!(nat.admit(at(31), port, remote(2, 1)), Some(INNER));
        assert_ne!(nat.translate(at(60), INNER, remote(1, 1)).port(), port);
    }

    #[test]
    fn a_preserved_port_is_given_once() {
        let now = Instant::from_millis(1);
        let mut nat = nat(NatKind { preserves_ports: true, ..NatKind::cone(true) });
        assert_eq!(nat.translate(now, INNER, remote(1, 1)).port(), INNER.port());
        let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 3)), INNER.port());
        assert_ne!(nat.translate(now, other, remote(1, 1)).port(), INNER.port());
    }

    #[test]
    fn a_firewall_admits_what_was_asked_for() {
        let at = |secs: u64| Instant::from_millis(secs * 1_000);
        let mut firewall = Firewall::new(AddressAndPortDependent);
        assert!(!firewall.admits(at(0), 4100, remote(1, 1)));
        firewall.let_out(at(0), 4100, remote(1, 1));
        assert!(firewall.admits(at(1), 4100, remote(1, 1)));
        assert!(!firewall.admits(at(1), 4101, remote(1, 1)) && !firewall.admits(at(1), 4100, remote(1, 2)));
        assert!(!firewall.admits(at(31), 4100, remote(1, 1)));
    }
}
