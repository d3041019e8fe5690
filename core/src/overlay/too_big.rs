//! Telling the host that a packet is too long: ICMP "fragmentation needed" (RFC 792, RFC 1191 section 4) and ICMPv6
//! "packet too big" (RFC 4443 section 3.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::packet::{Fragment, IPV6_HEADER, IpPacket, put_word};

/// The longest answer: an ICMPv6 error must fit the least MTU of IPv6 (RFC 4443 section 2.4 (c)).
pub const MAX_TOO_BIG_LEN: usize = IPV6_MIN_MTU;

/// Every IPv6 link carries so many bytes (RFC 8200 section 5); a host makes nothing of being told of fewer.
const IPV6_MIN_MTU: usize = 1280;
/// The least MTU that IPv4 knows (RFC 791 section 3.2).
const IPV4_MIN_MTU: usize = 68;
/// An ICMP error is at most so long (RFC 1812 section 4.3.2.3).
const MAX_V4_LEN: usize = 576;

const IPV4_HEADER: usize = 20;
/// Bytes before the quoted packet, in ICMP and in ICMPv6: type, code, checksum, and the MTU in what is left.
const ICMP_HEADER: usize = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Precedence "internetwork control" (RFC 1812 section 4.3.2.5).
const CONTROL: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;
/// Type and code of what the host is told.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
/// Where both have their checksum.
const ICMP_CHECKSUM_OFFSET: usize = 2;
/// Where an IPv4 header has its flags, and "don't fragment" among them.
const V4_FLAGS_OFFSET: usize = 6;
const DONT_FRAGMENT: u8 = 0x40;

/// Writes to `out` the packet that tells the sender of `packet` that the way to its destination carries packets of
/// `mtu` bytes, as if it came from `source`. Returns its length, at most [`MAX_TOO_BIG_LEN`].
///
/// `packet` is what the host sent; where it left the cutting to the device, that is longer than the packets meant. What
/// the host is told is never less than its IP version allows.
///
/// `None` where no answer may be given (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)): to an ICMP error, so that
/// errors do not make errors; to a fragment other than the first; to a packet that was not sent by one host to one host.
/// Nor is it given where it would be wrong: the packet is no longer than that, or may be fragmented. Also `None` where
/// `source` is of the other family or `out` has no room.
///
/// A good `source` is the destination of the packet. The host expects packets from there on this interface, so that
/// they pass its reverse path filter, which is more than can be said of any address of the node: the host takes a
/// packet from outside with an address of its own for forged. Neither family needs another address for that.
pub fn write_too_big(packet: &IpPacket<'_>, mtu: usize, source: IpAddr, out: &mut [u8]) -> Option<usize> {
    let host = packet.source();
    let is_answerable = packet.fragment() != Fragment::Later
        && !is_icmp_error(packet)
        && is_one_host(host)
        && is_one_host(packet.destination());
    if !is_answerable || source.is_ipv4() != packet.is_ipv4() {
        return None;
    }
    match (source, host) {
        (IpAddr::V4(source), IpAddr::V4(host)) => write_v4(packet, mtu, source, host, out),
        (IpAddr::V6(source), IpAddr::V6(host)) => write_v6(packet, mtu, source, host, out),
        _ => None,
    }
}

fn write_v4(packet: &IpPacket<'_>, mtu: usize, source: Ipv4Addr, host: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let mtu = told(packet, mtu, IPV4_MIN_MTU)?;
    if packet.bytes().get(V4_FLAGS_OFFSET)? & DONT_FRAGMENT == 0 {
        return None;
    }
    let quoted = quoted(packet, MAX_V4_LEN - IPV4_HEADER - ICMP_HEADER);
    let length = IPV4_HEADER + ICMP_HEADER + quoted.len();
    let (header, message) = out.get_mut(..length)?.split_first_chunk_mut::<IPV4_HEADER>()?;
    let [l0, l1] = (length as u16).to_be_bytes();
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (source.octets(), host.octets());
    *header = [0x45, CONTROL, l0, l1, 0, 0, DONT_FRAGMENT, 0, HOP_LIMIT, ICMP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    let checksum = Sum::of(header).checksum();
    put_word(header, IpPacket::V4_CHECKSUM_OFFSET, checksum);
    write_message(FRAGMENTATION_NEEDED, mtu, quoted, Sum::default(), message)?;
    Some(length)
}

fn write_v6(packet: &IpPacket<'_>, mtu: usize, source: Ipv6Addr, host: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let mtu = told(packet, mtu, IPV6_MIN_MTU)?;
    let quoted = quoted(packet, MAX_TOO_BIG_LEN - IPV6_HEADER - ICMP_HEADER);
    let message_len = ICMP_HEADER + quoted.len();
    let length = IPV6_HEADER + message_len;
    let (header, message) = out.get_mut(..length)?.split_first_chunk_mut::<IPV6_HEADER>()?;
    let (fixed, addresses) = header.split_first_chunk_mut::<8>()?;
    let [l0, l1] = (message_len as u16).to_be_bytes();
    *fixed = [0x60 | CONTROL >> 4, CONTROL << 4, 0, 0, l0, l1, ICMPV6, HOP_LIMIT];
    let (from, to) = addresses.split_first_chunk_mut::<16>()?;
    *from = source.octets();
    to.copy_from_slice(&host.octets());
    let pseudo = Sum::pseudo_header(source.into(), host.into(), ICMPV6, message_len);
    write_message(PACKET_TOO_BIG, mtu, quoted, pseudo, message)?;
    Some(length)
}

/// Writes an ICMP or ICMPv6 message that has an MTU in its header and fills `out`.
fn write_message([kind, code]: [u8; 2], mtu: u16, quoted: &[u8], pseudo: Sum, out: &mut [u8]) -> Option<()> {
    let (header, data) = out.split_first_chunk_mut::<ICMP_HEADER>()?;
    // The MTU has 16 bits in ICMP, behind 16 unused ones, and 32 bits in ICMPv6.
    let [m0, m1] = mtu.to_be_bytes();
    *header = [kind, code, 0, 0, 0, 0, m0, m1];
    data.copy_from_slice(quoted);
    let checksum = Sum::of(out).plus(pseudo).checksum();
    put_word(out, ICMP_CHECKSUM_OFFSET, checksum);
    Some(())
}

/// The MTU that the host is told, if it says something about the packet.
fn told(packet: &IpPacket<'_>, mtu: usize, least: usize) -> Option<u16> {
    let mtu = u16::try_from(mtu.max(least)).ok()?;
    (usize::from(mtu) < packet.bytes().len()).then_some(mtu)
}

/// As much of the packet as there is room for.
fn quoted<'a>(packet: &IpPacket<'a>, room: usize) -> &'a [u8] {
    packet.bytes().get(..room).unwrap_or(packet.bytes())
}

/// Whether the packet is an ICMP error, or could be one.
fn is_icmp_error(packet: &IpPacket<'_>) -> bool {
    let kind = packet.payload().first();
    match (packet.protocol(), packet.is_ipv4()) {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 section 3.2.2).
        (ICMP, true) => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        // Errors have the upper bit clear (RFC 4443 section 2.1); 137 is a redirect.
        (ICMPV6, false) => matches!(kind, None | Some(0..=127 | 137)),
        _ => false,
    }
}

/// Whether the address is that of one host which others can reach.
fn is_one_host(address: IpAddr) -> bool {
    match address {
        // Neither "this network" (RFC 1122 section 3.2.1.3), nor multicast, reserved or broadcast: all from 224 on.
        IpAddr::V4(ip) => !ip.is_loopback() && (1..224).contains(&ip.octets()[0]),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Spec, any_payload, any_spec, plain_sum};
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn answer(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        let packet = IpPacket::parse(packet).unwrap();
        let mut out = [0xee; MAX_TOO_BIG_LEN + 1];
        let length = write_too_big(&packet, mtu, packet.destination(), &mut out)?;
        assert!(out[length..].iter().all(|byte| *byte == 0xee));
        assert_eq!(write_too_big(&packet, mtu, packet.destination(), &mut out[..length - 1]), None);
        Some(out[..length].to_vec())
    }

    fn tcp(v6: bool, len: usize) -> Spec {
        Spec { v6, ..Spec::tcp(1, &vec![7; len]) }
    }

    /// The sum over an ICMPv6 message and its pseudo-header.
    fn icmpv6_sum(packet: &[u8]) -> u16 {
        let mut bytes = packet[8..40].to_vec();
        bytes.extend(((packet.len() - 40) as u32).to_be_bytes());
        bytes.extend([0, 0, 0, 58]);
        bytes.extend(&packet[40..]);
        plain_sum(&bytes)
    }

    #[test]
    fn an_ipv4_host_is_told() {
        let packet = tcp(false, 1400).build();
        let told = answer(&packet, 1280).unwrap();
        assert_eq!(told.len(), 576);
        assert_eq!(told[..10], [0x45, 0xc0, 2, 64, 0, 0, 0x40, 0, 64, 1]);
        assert_eq!(told[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(told[20..22], [3, 4]);
        assert_eq!(told[24..28], [0, 0, 5, 0]);
        assert_eq!(told[28..], packet[..548]);
        assert_eq!((plain_sum(&told[..20]), plain_sum(&told[20..])), (0xffff, 0xffff));
        assert!(IpPacket::parse(&told).is_ok());
    }

    #[test]
    fn an_ipv6_host_is_told() {
        let packet = tcp(true, 1400).build();
        let told = answer(&packet, 1300).unwrap();
        assert_eq!(told.len(), 1280);
        assert_eq!(told[..8], [0x6c, 0, 0, 0, 4, 0xd8, 58, 64]);
        assert_eq!((&told[8..24], &told[24..40]), (&packet[24..40], &packet[8..24]));
        assert_eq!(told[40..42], [2, 0]);
        assert_eq!(told[44..48], [0, 0, 5, 20]);
        assert_eq!(told[48..], packet[..1232]);
        assert_eq!(icmpv6_sum(&told), 0xffff);
        assert!(IpPacket::parse(&told).is_ok());
    }

    #[test]
    fn nothing_is_said_that_would_be_wrong() {
        let packet = tcp(false, 1400).build();
        assert!(answer(&packet, packet.len()).is_none() && answer(&packet, packet.len() - 1).is_some());
        assert_eq!(answer(&packet, usize::MAX), None);
        let may = Spec { dont_fragment: false, ..tcp(false, 1400) }.build();
        assert_eq!(answer(&may, 1280), None);
        // A host may not be told of less than its version allows.
        assert_eq!(answer(&packet, 0).unwrap()[26..28], [0, 68]);
        assert_eq!(answer(&tcp(true, 1400).build(), 1000).unwrap()[44..48], [0, 0, 5, 0]);
        assert_eq!(answer(&tcp(true, 1100).build(), 1000), None);
        let parsed = IpPacket::parse(&packet).unwrap();
        assert_eq!(write_too_big(&parsed, 1280, "fd00::2".parse().unwrap(), &mut [0; 2000]), None);
    }

    #[test]
    fn errors_fragments_and_crowds_get_no_answer() {
        let changed = |v6: bool, changes: &[(usize, u8)]| {
            let mut packet = tcp(v6, 1400).build();
            for (at, byte) in changes {
                packet[*at] = *byte;
            }
            answer(&packet, 1280).is_some()
        };
        for kind in 0..=255u8 {
            assert_eq!(changed(false, &[(9, 1), (20, kind)]), ![3, 4, 5, 11, 12].contains(&kind), "{kind}");
            assert_eq!(changed(true, &[(6, 58), (40, kind)]), kind >= 128 && kind != 137, "{kind}");
        }
        assert!(changed(false, &[(6, 0x60)]), "a first fragment");
        assert!(!changed(false, &[(7, 1)]), "a later one");
        assert!(changed(true, &[(6, 44), (42, 0), (43, 1)]), "a first fragment");
        assert!(!changed(true, &[(6, 44), (42, 0), (43, 8)]), "a later one");
        for first in [0, 127, 224, 239, 240, 255] {
            assert!(!changed(false, &[(12, first)]) && !changed(false, &[(16, first)]), "{first}");
        }
        assert!(!changed(true, &[(8, 0xff)]) && !changed(true, &[(24, 0xff)]));
        let zero = |range: core::ops::Range<usize>, last: u8| {
            let mut changes: Vec<_> = range.map(|at| (at, 0)).collect();
            changes.last_mut().unwrap().1 = last;
            changed(true, &changes)
        };
        assert!(!zero(8..24, 0) && !zero(8..24, 1) && !zero(24..40, 0) && !zero(24..40, 1));
    }

    proptest! {
        #[test]
        fn what_is_said_is_a_packet(spec in any_spec(2000), mtu in 0usize..2100) {
            let packet = spec.build();
            if let Some(told) = answer(&packet, mtu) {
                let parsed = IpPacket::parse(&told).unwrap();
                let original = IpPacket::parse(&packet).unwrap();
                prop_assert_eq!((parsed.source(), parsed.destination()), (original.destination(), original.source()));
                let sum = if spec.v6 { icmpv6_sum(&told) } else { plain_sum(parsed.payload()) };
                prop_assert_eq!(sum, 0xffff);
                prop_assert!(packet.starts_with(&parsed.payload()[8..]));
                // An error gets no answer itself.
                prop_assert_eq!(answer(&told, 0), None);
            }
        }

        #[test]
        fn any_packet_is_survived(mut bytes in any_payload(20..300), v6: bool, mtu in 0usize..300) {
            let total = bytes.len() as u16;
            let (first, at, length) = if v6 { (0x60, 4, total.saturating_sub(40)) } else { (0x45, 2, total) };
            bytes[0] = first;
            bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            if IpPacket::parse(&bytes).is_ok() {
                let _ = answer(&bytes, mtu);
            }
        }
    }
}
