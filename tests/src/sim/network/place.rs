//! Where hosts stand, which addresses they have, and which way a datagram takes through the boxes between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vine_core::Instant;
use vine_core::path::{Family, FourTuple};

use super::nat::{Behaviour, Firewall, NatBox, NatKind};
use super::{Network, PORT, socket_of};

/// A part of the network in which addresses of IPv4 mean the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Realm {
    /// The network of all.
    Public,
    /// What is behind the NAT with this number.
    Behind(usize),
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
    /// Where its IPv4 address is one.
    pub realm: Realm,
    /// The addresses that its node was told last, and the port that it was started with: what it can say of itself.
    pub told: (Vec<IpAddr>, u16),
    firewall: Option<Firewall>,
    /// Its number among all that are behind the same NAT.
    resident: u8,
    moves: u8,
}

/// A datagram that has left the boxes before its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// Its source address as it is seen there.
    pub source: SocketAddr,
    /// Where it got to, with a way on to its destination or without.
    pub realm: Option<Realm>,
}

impl Network {
    /// Puts up a NAT. Returns its number.
    pub fn put_up(&mut self, kind: NatKind, behind: Option<usize>) -> usize {
        let number = self.boxes.len();
        let (outer, public) = match behind {
            None => (Realm::Public, Ipv4Addr::new(198, 51, 100, number as u8)),
            Some(outer) => (Realm::Behind(outer), Ipv4Addr::new(172, 16, number as u8, 1)),
        };
        self.boxes.push(NatBox::new(kind, outer, public));
        number
    }

    /// Gives a new host its addresses: IPv4, IPv6 or both; behind a NAT, and behind a firewall of IPv6.
    pub fn attach(&mut self, v4: bool, v6: bool, behind: Option<usize>, firewall: Option<Behaviour>) {
        let index = self.hosts.len();
        let realm = behind.map_or(Realm::Public, Realm::Behind);
        let firewall = firewall.map(Firewall::new);
        let resident = self.join(realm);
        self.hosts.push(Attachment {
            v4: None,
            v6: None,
            port: PORT,
            realm,
            told: (Vec::new(), PORT),
            firewall,
            resident,
            moves: 0,
        });
        let (v4_address, v6_address) = self.fresh_addresses(index);
        let host = &mut self.hosts[index];
        host.v4 = v4.then_some(v4_address);
        host.v6 = v6.then_some(v6_address);
        self.hosts[index].told.0 = self.local_addresses(index);
    }

    fn join(&mut self, realm: Realm) -> u8 {
        let Realm::Behind(number) = realm else { return 0 };
        let resident = &mut self.boxes[number].residents;
        *resident = resident.wrapping_add(1);
        *resident
    }

    /// Behind every NAT the same addresses are given away.
    fn fresh_addresses(&self, index: usize) -> (Ipv4Addr, Ipv6Addr) {
        let Attachment { moves, realm, resident, .. } = self.hosts[index];
        let [high, low] = (index as u16).to_be_bytes();
        let v4 = match realm {
            Realm::Behind(_) => Ipv4Addr::new(192, 168, moves, 1 + resident),
            Realm::Public => Ipv4Addr::new(100 + high, low, moves, 1),
        };
        (v4, Ipv6Addr::new(0x2001, 0xdb8, index as u16, u16::from(moves), 0, 0, 0, 1))
    }

    /// A host gets new addresses (a NAT keeps its own), or only a new port.
    pub fn roam(&mut self, host: usize, port_only: bool) {
        self.hosts[host].moves = self.hosts[host].moves.wrapping_add(1);
        let (v4, v6) = self.fresh_addresses(host);
        let attachment = &mut self.hosts[host];
        if port_only {
            attachment.port += 1;
        } else {
            attachment.v4 = attachment.v4.map(|_| v4);
            attachment.v6 = attachment.v6.map(|_| v6);
        }
    }

    /// A host is carried to another place: behind a NAT, or to where there is none.
    pub fn resettle(&mut self, host: usize, behind: Option<usize>) {
        let realm = behind.map_or(Realm::Public, Realm::Behind);
        self.hosts[host].resident = self.join(realm);
        self.hosts[host].realm = realm;
        self.roam(host, false);
    }

    /// Every NAT and firewall before a host forgets everything. Returns whether there is one.
    pub fn rebind(&mut self, host: usize) -> bool {
        let boxes: Vec<usize> = self.boxes_before(host).collect();
        boxes.iter().for_each(|number| self.boxes[*number].forget());
        let firewall = self.hosts[host].firewall.as_mut();
        !boxes.is_empty() | firewall.map(Firewall::forget).is_some()
    }

    /// The NATs before a host, from the inside outwards.
    pub fn boxes_before(&self, host: usize) -> impl Iterator<Item = usize> {
        let next = |realm: Realm| match realm {
            Realm::Behind(number) => Some(number),
            Realm::Public => None,
        };
        std::iter::successors(next(self.hosts[host].realm), move |number| next(self.boxes[*number].outer))
    }

    /// The host's own addresses.
    pub fn local_addresses(&self, host: usize) -> Vec<IpAddr> {
        let host = &self.hosts[host];
        host.v4.map(IpAddr::V4).into_iter().chain(host.v6.map(IpAddr::V6)).collect()
    }

    /// Where a host can be found by who never heard of it.
    pub fn public_endpoints(&self, host: usize) -> Vec<SocketAddr> {
        let host = &self.hosts[host];
        let v4 = host.v4.filter(|_| host.realm == Realm::Public).map(IpAddr::V4);
        let v6 = host.v6.filter(|_| host.firewall.is_none()).map(IpAddr::V6);
        v4.into_iter().chain(v6).map(|ip| SocketAddr::new(ip, host.port)).collect()
    }

    /// Whether what `from` sends to this address reaches `to`, whatever the links do.
    pub fn leads_to(&self, from: usize, to: usize, endpoint: &SocketAddr) -> bool {
        self.own_address(from, Family::of(endpoint)).is_some() && self.public_endpoints(to).contains(endpoint)
    }

    /// The address of a host in a family.
    fn own_address(&self, host: usize, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.hosts[host].v4.map(IpAddr::V4),
            Family::V6 => self.hosts[host].v6.map(IpAddr::V6),
        }
    }

    /// A datagram leaves its host and the boxes before it. Nothing, where the host cannot send it.
    pub(super) fn depart(&mut self, now: Instant, from: usize, path: &FourTuple) -> Option<Departure> {
        let family = Family::of(&path.remote);
        let own = self.own_address(from, family)?;
        assert_eq!(path.socket, socket_of(family), "a datagram to {} by the wrong socket", path.remote);
        if path.local.is_some_and(|local| local != own) {
            return None;
        }
        let host = &mut self.hosts[from];
        let (port, realm) = (host.port, host.realm);
        let source = SocketAddr::new(own, port);
        let IpAddr::V4(destination) = path.remote.ip() else {
            if let Some(firewall) = &mut host.firewall {
                firewall.let_out(now, port, path.remote);
            }
            return Some(Departure { source, realm: Some(Realm::Public) });
        };
        Some(self.ascend(now, realm, source, SocketAddr::new(destination.into(), path.remote.port())))
    }

    /// Takes a datagram outwards, through one NAT after the other, to where its destination is an address.
    fn ascend(&mut self, now: Instant, mut realm: Realm, mut source: SocketAddr, remote: SocketAddr) -> Departure {
        let mut translations = 0;
        while let Realm::Behind(number) = realm
            && !self.is_address_in(realm, remote.ip())
        {
            let nat = &mut self.boxes[number];
            if remote.ip() == nat.public {
                self.met("NAT: hairpin");
                let nat = &mut self.boxes[number];
                if !nat.kind.hairpin {
                    return Departure { source, realm: None };
                }
            }
            let nat = &mut self.boxes[number];
            source = nat.translate(now, source, remote);
            realm = nat.outer;
            translations += 1;
        }
        if translations > 1 {
            self.met("NAT: double");
        }
        Departure { source, realm: Some(realm) }
    }

    /// Whether somebody has this address there.
    fn is_address_in(&self, realm: Realm, ip: IpAddr) -> bool {
        self.hosts.iter().any(|host| host.realm == realm && host.v4.is_some_and(|v4| v4 == ip))
            || self.boxes.iter().any(|nat| nat.outer == realm && nat.public == ip)
    }

    /// The host that a datagram is for which got to `realm`: as far as can be said before it arrives.
    pub(super) fn holder_of(&self, mut realm: Realm, mut destination: SocketAddr) -> Option<usize> {
        loop {
            if let Some(index) = self.host_at(realm, destination.ip()) {
                return (self.hosts[index].port == destination.port()).then_some(index);
            }
            let number = self.box_at(realm, destination.ip())?;
            realm = Realm::Behind(number);
            match self.boxes[number].holder(destination.port()) {
                Some(inner) => destination = inner,
                // Any of them, since the links to them need not differ.
                None => return (0..self.hosts.len()).find(|host| self.boxes_before(*host).any(|nat| nat == number)),
            }
        }
    }

    fn host_at(&self, realm: Realm, ip: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| match ip {
            IpAddr::V4(ip) => host.v4 == Some(ip) && host.realm == realm,
            IpAddr::V6(ip) => host.v6 == Some(ip),
        })
    }

    fn box_at(&self, realm: Realm, ip: IpAddr) -> Option<usize> {
        self.boxes.iter().position(|nat| nat.outer == realm && nat.public == ip)
    }

    /// Takes a datagram inwards from `realm`. Returns the host that gets it, and its own end.
    pub(super) fn descend(
        &mut self,
        now: Instant,
        mut realm: Realm,
        source: SocketAddr,
        mut destination: SocketAddr,
    ) -> Option<(usize, SocketAddr)> {
        while self.host_at(realm, destination.ip()).is_none() {
            let number = self.box_at(realm, destination.ip())?;
            let Some(inner) = self.boxes[number].admit(now, destination.port(), source) else {
                self.met("NAT: filtered");
                return None;
            };
            (realm, destination) = (Realm::Behind(number), inner);
        }
        let index = self.host_at(realm, destination.ip())?;
        let host = &self.hosts[index];
        let wall = host.firewall.as_ref().filter(|_| destination.is_ipv6());
        if wall.is_some_and(|wall| !wall.admits(now, destination.port(), source)) {
            self.met("firewall: filtered");
            return None;
        }
        (host.port == destination.port()).then_some((index, destination))
    }
}
