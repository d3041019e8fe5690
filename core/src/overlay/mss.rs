//! Telling TCP in time: the maximum segment size that the two ends of a connection agree on (RFC 9293 section 3.7.1)
//! is made small enough for the path, so that no segment is too long for it.

use super::checksum::replace_word;
use super::packet::{IPV6_HEADER, IpPacket, TCP_HEADER, TcpHeader, Transport, put_word, word};

/// Bytes of an IPv4 header without options. The MSS counts no options, of IP or of TCP (RFC 6691).
const IPV4_HEADER: usize = 20;

/// Kinds of TCP options: end of the list, no operation, maximum segment size (RFC 9293 section 3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
/// Bytes of the last: kind, length, value.
const MSS_LEN: u8 = 4;

/// Whether a packet begins a TCP connection, or answers the beginning: whether [`clamp_mss`] may have something to do.
pub fn is_tcp_syn(packet: &IpPacket<'_>) -> bool {
    matches!(packet.transport(), Some(Transport::Tcp(tcp)) if tcp.flags & TcpHeader::SYN != 0)
}

/// Lowers the maximum segment size that a SYN announces to what fits into packets of `mtu` bytes. Returns whether it
/// changed anything; it changes nothing but the value and the checksum.
///
/// `csum_partial` says that the checksum field holds the pseudo-header's sum only; it does not cover the options then.
///
/// What is no TCP packet, no SYN, or announces nothing stays as it is: a sender that was told nothing sends segments that
/// fit everywhere (536 bytes, or 1,220 over IPv6). A list of options that makes no sense is read as far as it does.
pub fn clamp_mss(packet: &mut [u8], mtu: usize, csum_partial: bool) -> bool {
    let Ok(ip) = IpPacket::parse(packet) else { return false };
    let Some(Transport::Tcp(tcp)) = ip.transport() else { return false };
    if tcp.flags & TcpHeader::SYN == 0 {
        return false;
    }
    let headers = TCP_HEADER + if ip.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    // More than 65,535 needs no clamping, and an MTU without room for a segment allows none that would be right.
    let Ok(limit) = u16::try_from(mtu.saturating_sub(headers)) else { return false };
    let start = ip.transport_offset();
    let Some(header) = packet.get_mut(start..).and_then(|bytes| bytes.get_mut(..tcp.header_len)) else { return false };
    if limit == 0 {
        return false;
    }
    let mut changed = false;
    let mut at = TCP_HEADER;
    while let Some((value_at, next)) = next_option(header, at) {
        at = next;
        let old = value_at.and_then(|at| Some((at, word(header, at)?)));
        let Some((value_at, old)) = old.filter(|(_, old)| *old > limit) else { continue };
        put_word(header, value_at, limit);
        changed = true;
        if !csum_partial {
            amend_checksum(header, value_at, old, limit);
        }
    }
    changed
}

/// The option at `at`: where its value is, if it is a maximum segment size, and where the next option is. `None` at the
/// end of the list and where there is no option.
fn next_option(header: &[u8], at: usize) -> Option<(Option<usize>, usize)> {
    match *header.get(at)? {
        END => None,
        NO_OPERATION => Some((None, at + 1)),
        kind => {
            let length = *header.get(at + 1)?;
            let next = at + usize::from(length);
            let is_plausible = length >= 2 && next <= header.len();
            let value_at = (kind == MSS && length == MSS_LEN).then_some(at + 2);
            is_plausible.then_some((value_at, next))
        }
    }
}

/// Makes up for the change of the word at `at`, counted from the start of the TCP header, from `old` to `new`.
fn amend_checksum(header: &mut [u8], at: usize, old: u16, new: u16) {
    let Some(checksum) = word(header, TcpHeader::CHECKSUM_OFFSET) else { return };
    // The checksum is over words at even places. A value at an odd one adds its halves the other way round (RFC 1071
    // section 2 (B)).
    let (old, new) = if at.is_multiple_of(2) { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    put_word(header, TcpHeader::CHECKSUM_OFFSET, replace_word(checksum, old, new));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Spec, any_payload, any_spec, transport_sum};
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A SYN with these options, which are a multiple of four bytes, and a right checksum.
    fn syn(v6: bool, options: &[u8]) -> Vec<u8> {
        let spec = Spec { v6, flags: 0x02, tcp_options: (options.len() / 4) as u8, ..Spec::tcp(1, b"") };
        with_options(&spec, options)
    }

    fn with_options(spec: &Spec, options: &[u8]) -> Vec<u8> {
        let mut packet = spec.build();
        let start = spec.ip_header_len();
        packet[start + 20..][..options.len()].copy_from_slice(options);
        packet[spec.checksum_at()..][..2].fill(0);
        let checksum = !transport_sum(&packet, start, false);
        packet[spec.checksum_at()..][..2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// The options of a packet without IP options after clamping, if it was changed. Its checksum must be right.
    fn clamped(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
        let mut packet = packet.to_vec();
        let before = packet.clone();
        let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
        if !clamp_mss(&mut packet, mtu, false) {
            assert_eq!(packet, before);
            return None;
        }
        assert_eq!(transport_sum(&packet, start, false), 0xffff);
        assert!(!clamp_mss(&mut packet, mtu, false));
        Some(packet[start + 20..].to_vec())
    }

    #[test]
    fn a_syn_is_clamped_to_what_fits() {
        let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let lowered = |high, low| {
            let mut lowered = options.to_vec();
            lowered[2..4].copy_from_slice(&[high, low]);
            Some(lowered)
        };
        assert_eq!(clamped(&syn(false, &options), 1280), lowered(0x04, 0xd8));
        assert_eq!(clamped(&syn(true, &options), 1280), lowered(0x04, 0xc4));
        assert_eq!(clamped(&syn(false, &options), 1500), None);
        assert_eq!(clamped(&syn(false, &options), 1499), lowered(0x05, 0xb3));
        assert_eq!(clamped(&syn(false, &options), 70_000), None);
        assert_eq!(clamped(&syn(false, &options), usize::MAX), None);
        assert_eq!(clamped(&syn(false, &options), 40), None);
        assert_eq!(clamped(&syn(false, &options), 0), None);
    }

    #[test]
    fn a_value_at_an_odd_place_is_clamped() {
        let options = [1, 2, 4, 0x05, 0xb4, 1, 1, 0];
        assert_eq!(clamped(&syn(false, &options), 1280), Some([1, 2, 4, 0x04, 0xd8, 1, 1, 0].to_vec()));
    }

    #[test]
    fn an_open_checksum_stays() {
        let spec = Spec { flags: 0x12, tcp_options: 1, ..Spec::tcp(1, b"") };
        let mut packet = spec.build_partial();
        packet[40..44].copy_from_slice(&[2, 4, 0x05, 0xb4]);
        let checksum = packet[36..38].to_vec();
        assert!(clamp_mss(&mut packet, 1280, true));
        assert_eq!((&packet[36..38], &packet[40..44]), (&checksum[..], &[2, 4, 0x04, 0xd8][..]));
    }

    #[test]
    fn hostile_lists_are_read_as_far_as_they_make_sense() {
        for options in [
            &[1, 2, 4, 0xff][..],
            &[0, 2, 4, 0xff, 0xff, 0, 0, 0],
            &[9, 0, 2, 4, 0xff, 0xff, 1, 1],
            &[9, 1, 2, 4, 0xff, 0xff, 1, 1],
            &[9, 9, 2, 4, 0xff, 0xff, 1, 1],
            &[9, 255, 2, 4, 0xff, 0xff, 1, 1],
            &[2, 3, 0xff, 1],
            &[2, 2, 1, 1],
            &[1, 1, 1, 2],
            &[1, 1, 2, 4],
            &[2, 6, 0xff, 0xff, 0xff, 0xff, 1, 1],
        ] {
            let mut padded = options.to_vec();
            padded.resize(options.len().next_multiple_of(4), 0);
            assert_eq!(clamped(&syn(false, &padded), 1280), None, "{options:?}");
        }
        // Whichever of them the receiver believes.
        let twice = [2, 4, 0xff, 0xff, 2, 4, 0xff, 0xfe, 9, 99, 0, 0];
        assert_eq!(clamped(&syn(false, &twice), 1280).unwrap()[..8], [2, 4, 4, 0xd8, 2, 4, 4, 0xd8]);
    }

    #[test]
    fn other_packets_stay() {
        let mss = [2, 4, 0x05, 0xb4];
        for spec in [
            Spec { flags: 0x10, tcp_options: 1, ..Spec::tcp(1, b"") },
            Spec { flags: 0x01, tcp_options: 1, ..Spec::tcp(1, b"") },
        ] {
            assert_eq!(clamped(&with_options(&spec, &mss), 1280), None);
        }
        let mut fragment = syn(false, &mss);
        fragment[6] = 0x20;
        assert!(!clamp_mss(&mut fragment, 1280, false));
        // Options in what is no option list any more.
        let data = Spec { flags: 0x02, tcp_options: 0, ..Spec::tcp(1, &mss) };
        assert_eq!(clamped(&data.build(), 1280), None);
        assert!(!clamp_mss(&mut [], 1280, false) && !clamp_mss(&mut [0x45; 10], 1280, false));
    }

    proptest! {
        #[test]
        fn nothing_but_value_and_checksum_changes(
            spec in any_spec(20),
            options in any_payload(40),
            odd in 0usize..4,
            mtu in 0usize..3000,
        ) {
            let spec = Spec { udp: false, flags: spec.flags | 0x02, ..spec };
            let mut options = options[..usize::from(spec.tcp_options) * 4].to_vec();
            if options.len() >= 8 {
                options[..odd].fill(1);
                options[odd..odd + 2].copy_from_slice(&[2, 4]);
            }
            let before = with_options(&spec, &options);
            let start = spec.ip_header_len();
            let mut packet = before.clone();
            let changed = clamp_mss(&mut packet, mtu, false);
            prop_assert_eq!(changed, packet != before);
            prop_assert_eq!(transport_sum(&packet, start, false), 0xffff);
            let limit = mtu.saturating_sub(if spec.v6 { 60 } else { 40 });
            if options.len() >= 8 && limit > 0 {
                let value = usize::from(u16::from_be_bytes([packet[start + 22 + odd], packet[start + 23 + odd]]));
                let was = usize::from(u16::from_be_bytes([before[start + 22 + odd], before[start + 23 + odd]]));
                prop_assert_eq!(value, was.min(limit));
            }
            // Outside of the checksum and of the options nothing changed.
            let (options_at, end) = (start + 20, start + 20 + options.len());
            prop_assert_eq!(&packet[..start + 16], &before[..start + 16]);
            prop_assert_eq!(&packet[start + 18..options_at], &before[start + 18..options_at]);
            prop_assert_eq!(&packet[end..], &before[end..]);

            let mut open = before.clone();
            prop_assert_eq!(clamp_mss(&mut open, mtu, true), changed);
            prop_assert_eq!(&open[start + 16..start + 18], &before[start + 16..start + 18]);
        }
    }
}
