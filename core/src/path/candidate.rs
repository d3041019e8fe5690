//! Candidates: where this node may be reached, and which addresses of others are worth a try (RFC 8445, section 5.1).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use heapless::Vec;

use super::{Family, SocketInfo};
use crate::wire::{Candidate, CandidateKind, Signal};

/// Candidates that one Signal names at most.
pub const MAX_CANDIDATES: usize = Signal::MAX_ITEMS;

/// Of these, at most so many that others see: whoever is seen everywhere else still tells its interfaces.
const MAX_REFLEXIVE: usize = 4;

/// What this node's own candidates are made from.
#[derive(Clone, Copy, Debug)]
pub struct OwnAddresses<'a> {
    /// The addresses of the host's interfaces.
    pub interfaces: &'a [IpAddr],
    /// The sockets.
    pub sockets: &'a [SocketInfo],
    /// Where others see the sockets, the latest first.
    pub reflexive: &'a [SocketAddr],
}

/// This node's candidates, the best first, each address once. `is_overlay` tells whether an address lies in the overlay: the
/// way there would lead through the tunnel.
pub fn gather(own: &OwnAddresses<'_>, is_overlay: impl Fn(IpAddr) -> bool) -> Vec<Candidate, MAX_CANDIDATES> {
    let mut found = Vec::new();
    let acceptable = own.reflexive.iter().filter(|at| judge(**at, &is_overlay, &[], |_| false).is_ok());
    for address in acceptable.take(MAX_REFLEXIVE) {
        add(&mut found, Candidate { kind: CandidateKind::Reflexive, address: *address });
    }
    let mut interfaces: alloc::vec::Vec<IpAddr> = own.interfaces.to_vec();
    interfaces.sort_by_key(|ip| (rank(*ip), *ip));
    for ip in interfaces {
        for socket in own.sockets {
            let address = SocketAddr::new(ip, socket.port);
            if Family::of(&address) == socket.family && judge(address, &is_overlay, &[], |_| false).is_ok() {
                add(&mut found, Candidate { kind: CandidateKind::Interface, address });
            }
        }
    }
    found
}

/// Adds a candidate, unless its address is there or there is no room.
fn add(found: &mut Vec<Candidate, MAX_CANDIDATES>, candidate: Candidate) {
    if found.iter().all(|held| held.address != candidate.address) {
        _ = found.push(candidate);
    }
}

/// Interface addresses in the order of their usefulness: those that the whole internet reaches, then those of one site, then
/// those of one link.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V6(ip) if ip.is_unique_local() => 3,
        IpAddr::V6(_) => 0,
        IpAddr::V4(ip) if ip.is_link_local() => 4,
        IpAddr::V4(ip) if ip.is_private() => 2,
        IpAddr::V4(_) => 1,
    }
}

/// Why an address is not tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unacceptable {
    /// Port 0.
    #[error("it has no port")]
    NoPort,
    /// All zeros, or the network "this" (RFC 1122, section 3.2.1.3).
    #[error("it is unspecified")]
    Unspecified,
    /// This host.
    #[error("it is a loopback address")]
    Loopback,
    /// Many hosts, or none: multicast, broadcast and the reserved class E.
    #[error("it is a multicast, broadcast or reserved address")]
    NotOneHost,
    /// An IPv6 link-local address says nothing without the interface.
    #[error("it is a link-local address without its interface")]
    NoScope,
    /// IPv4 in the form of IPv6 would go around the judgement of IPv4 addresses.
    #[error("it is an IPv4 address in the form of IPv6")]
    Mapped,
    /// The way there leads through the tunnel.
    #[error("it lies in the overlay")]
    InOverlay,
    /// A socket of this node.
    #[error("it is this node's own")]
    Own,
    /// A third peer is there: it could pass on what is sent there and so pose as the peer.
    #[error("another peer is there")]
    OtherPeer,
}

/// Judges an address that somebody else named. `own` are the addresses of this node's sockets, with the port; `is_other` tells
/// whether another peer than the one that is sought is known to be there.
///
/// # Errors
/// [`Unacceptable`] where no datagram may go there.
pub fn judge(
    address: SocketAddr,
    is_overlay: impl Fn(IpAddr) -> bool,
    own: &[SocketAddr],
    is_other: impl Fn(SocketAddr) -> bool,
) -> Result<(), Unacceptable> {
    if address.port() == 0 {
        return Err(Unacceptable::NoPort);
    }
    match address {
        SocketAddr::V4(at) => judge_v4(*at.ip())?,
        SocketAddr::V6(at) => judge_v6(*at.ip(), at.scope_id())?,
    }
    if is_overlay(address.ip()) {
        return Err(Unacceptable::InOverlay);
    }
    let is_own = own.iter().any(|own| own.ip() == address.ip() && own.port() == address.port());
    match is_own {
        true => Err(Unacceptable::Own),
        false if is_other(address) => Err(Unacceptable::OtherPeer),
        false => Ok(()),
    }
}

fn judge_v4(ip: Ipv4Addr) -> Result<(), Unacceptable> {
    match ip.octets()[0] {
        0 => Err(Unacceptable::Unspecified),
        127 => Err(Unacceptable::Loopback),
        224.. => Err(Unacceptable::NotOneHost),
        _ => Ok(()),
    }
}

fn judge_v6(ip: Ipv6Addr, scope: u32) -> Result<(), Unacceptable> {
    if ip.is_unspecified() {
        return Err(Unacceptable::Unspecified);
    }
    if ip.is_loopback() {
        return Err(Unacceptable::Loopback);
    }
    if ip.is_multicast() {
        return Err(Unacceptable::NotOneHost);
    }
    if ip.is_unicast_link_local() && scope == 0 {
        return Err(Unacceptable::NoScope);
    }
    // ::ffff:0:0/96 (RFC 4291, section 2.5.5.2) and the deprecated ::/96 before it.
    let is_mapped = matches!(ip.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]);
    if is_mapped { Err(Unacceptable::Mapped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SocketId;
    use alloc::vec::Vec as List;
    use proptest::prelude::*;

    const SOCKETS: [SocketInfo; 2] = [
        SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 },
        SocketInfo { id: SocketId(1), family: Family::V6, port: 4101 },
    ];

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_overlay(ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [10, 42])
    }

    #[test]
    fn own_candidates_are_ordered_and_stand_once() {
        let interfaces = [
            "127.0.0.1",
            "10.0.0.7",
            "10.42.0.1",
            "169.254.3.4",
            "198.51.100.7",
            "::1",
            "fe80::1",
            "fd00::7",
            "2001:db8::7",
        ]
        .map(ip);
        let own = OwnAddresses {
            interfaces: &interfaces,
            sockets: &SOCKETS,
            reflexive: &[at("203.0.113.9:61000"), at("198.51.100.7:4100"), at("127.0.0.1:9")],
        };
        let found = gather(&own, is_overlay);
        let texts: List<_> = found.iter().map(|found| (found.kind, found.address)).collect();
        assert_eq!(
            texts,
            [
                (CandidateKind::Reflexive, at("203.0.113.9:61000")),
                (CandidateKind::Reflexive, at("198.51.100.7:4100")),
                (CandidateKind::Interface, at("[2001:db8::7]:4101")),
                (CandidateKind::Interface, at("10.0.0.7:4100")),
                (CandidateKind::Interface, at("[fd00::7]:4101")),
                (CandidateKind::Interface, at("169.254.3.4:4100")),
            ]
        );
    }

    #[test]
    fn a_thousand_interfaces_leave_room_for_what_others_see() {
        let interfaces: List<IpAddr> = (0..1000u32).map(|n| Ipv4Addr::from_bits(0xc0a8_0001 + n).into()).collect();
        let own = OwnAddresses { interfaces: &interfaces, sockets: &SOCKETS, reflexive: &[at("203.0.113.9:1"); 9] };
        let found = gather(&own, is_overlay);
        assert_eq!(found.len(), MAX_CANDIDATES);
        assert_eq!(found[0].kind, CandidateKind::Reflexive);
        assert_eq!(found[1].address, at("192.168.0.1:4100"));
    }

    #[test]
    fn what_may_not_be_tried() {
        let own = [at("192.0.2.1:4100"), at("[2001:db8::1]:4100")];
        let verdict = |text: &str| judge(at(text), is_overlay, &own, |held| held == at("192.0.2.7:4100")).err();
        for (address, expected) in [
            ("192.0.2.9:0", Unacceptable::NoPort),
            ("0.0.0.0:1", Unacceptable::Unspecified),
            ("0.1.2.3:1", Unacceptable::Unspecified),
            ("127.9.9.9:1", Unacceptable::Loopback),
            ("224.0.0.251:5353", Unacceptable::NotOneHost),
            ("240.0.0.1:1", Unacceptable::NotOneHost),
            ("255.255.255.255:1", Unacceptable::NotOneHost),
            ("10.42.9.9:1", Unacceptable::InOverlay),
            ("192.0.2.1:4100", Unacceptable::Own),
            ("[::]:1", Unacceptable::Unspecified),
            ("[::1]:1", Unacceptable::Loopback),
            ("[ff02::1]:1", Unacceptable::NotOneHost),
            ("[fe80::1]:1", Unacceptable::NoScope),
            ("[::ffff:127.0.0.1]:1", Unacceptable::Mapped),
            ("[::7f00:1]:1", Unacceptable::Mapped),
            ("[2001:db8::1]:4100", Unacceptable::Own),
            ("192.0.2.7:4100", Unacceptable::OtherPeer),
        ] {
            assert_eq!(verdict(address), Some(expected), "{address}");
        }
        for fine in ["192.0.2.1:4101", "192.0.2.9:53", "10.0.0.1:1", "[2001:db8::1]:1", "[fe80::1%3]:1"] {
            assert_eq!(verdict(fine), None, "{fine}");
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_others_accept(
            v4 in prop::collection::vec(any::<u32>(), 0..40),
            v6 in prop::collection::vec(any::<u128>(), 0..10),
            reflexive in prop::collection::vec(any::<SocketAddr>(), 0..10),
        ) {
            let v4 = v4.into_iter().map(|ip| IpAddr::from(Ipv4Addr::from_bits(ip)));
            let interfaces: List<IpAddr> = v4.chain(v6.into_iter().map(|ip| Ipv6Addr::from_bits(ip).into())).collect();
            let own = OwnAddresses { interfaces: &interfaces, sockets: &SOCKETS, reflexive: &reflexive };
            let found = gather(&own, is_overlay);
            for (n, candidate) in found.iter().enumerate() {
                prop_assert!(judge(candidate.address, is_overlay, &[], |_| false).is_ok());
                prop_assert!(found[..n].iter().all(|earlier| earlier.address != candidate.address));
            }
        }
    }
}
