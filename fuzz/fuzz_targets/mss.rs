//! What is done so that packets fit: a SYN is clamped as a plain reading of its options says and nothing else changes;
//! the host is told by a packet that is right in every field, or not at all.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{Fragment, IpPacket, MAX_TOO_BIG_LEN, Transport, clamp_mss, write_too_big};
use vine_fuzz::packets::{plain_sum, put, repair, transport_sum};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    as_it_is: bool,
    is_syn: bool,
    csum_partial: bool,
    mtu: u16,
    bytes: &'a [u8],
}

/// Where the options of a SYN have a maximum segment size, plainly.
fn places(packet: &[u8]) -> Vec<usize> {
    let Ok(ip) = IpPacket::parse(packet) else { return Vec::new() };
    let Some(Transport::Tcp(tcp)) = ip.transport() else { return Vec::new() };
    let (mut at, end) = (ip.transport_offset() + 20, ip.transport_offset() + tcp.header_len);
    let mut found = Vec::new();
    while tcp.flags & 2 != 0 && at < end && packet[at] != 0 {
        let len = match packet[at] {
            1 => 1,
            _ if at + 1 == end => break,
            _ => usize::from(packet[at + 1]),
        };
        if len == 0 || (len == 1 && packet[at] != 1) || at + len > end {
            break;
        }
        if packet[at] == 2 && len == 4 {
            found.push(at + 2);
        }
        at += len;
    }
    found
}

fn check_clamp(before: &[u8], mtu: usize, csum_partial: bool) {
    let mut packet = before.to_vec();
    let changed = clamp_mss(&mut packet, mtu, csum_partial);
    assert_eq!(changed, packet != before);
    let Ok(ip) = IpPacket::parse(before) else { return assert!(!changed) };
    let limit = mtu.saturating_sub(if ip.is_ipv4() { 40 } else { 60 });
    let start = ip.transport_offset();
    let mut expected = before.to_vec();
    for at in places(before) {
        let value = u16::from_be_bytes([before[at], before[at + 1]]);
        if limit > 0 {
            put(&mut expected, at, value.min(limit.min(65_535) as u16));
        }
    }
    if changed && !csum_partial {
        // Both forms of zero verify.
        let (sum, was) = (transport_sum(&packet, start), transport_sum(before, start));
        assert_eq!(sum % 0xffff, was % 0xffff, "a right checksum stays right, a wrong one wrong");
        expected[start + 16..start + 18].copy_from_slice(&packet[start + 16..start + 18]);
    }
    assert_eq!(packet, expected, "nothing but values and the checksum changes");
    assert!(!clamp_mss(&mut packet, mtu, csum_partial), "once is enough");
}

fn check_too_big(packet: &IpPacket<'_>, mtu: usize) {
    let mut out = [0; MAX_TOO_BIG_LEN];
    let Some(len) = write_too_big(packet, mtu, packet.destination(), &mut out) else { return };
    let told = IpPacket::parse(&out[..len]).expect("it is a packet");
    assert_eq!((told.source(), told.destination()), (packet.destination(), packet.source()));
    assert_ne!(packet.fragment(), Fragment::Later);
    let message = told.payload();
    let said = usize::from(u16::from_be_bytes([message[6], message[7]]));
    assert!(said >= mtu && said < packet.bytes().len());
    assert!(packet.bytes().starts_with(&message[8..]));
    if packet.is_ipv4() {
        assert_eq!((plain_sum(&out[..20]), plain_sum(message), &message[..2]), (0xffff, 0xffff, &[3, 4][..]));
        assert!(packet.bytes()[6] & 0x40 != 0 && len <= 576);
    } else {
        assert_eq!((transport_sum(&out[..len], 40), &message[..2]), (0xffff, &[2, 0][..]));
        assert!(said >= 1280);
    }
    assert_eq!(write_too_big(&told, 0, told.destination(), &mut [0; MAX_TOO_BIG_LEN]), None, "no error about an error");
}

fuzz_target!(|input: Input<'_>| {
    let mut bytes = input.bytes.to_vec();
    if !input.as_it_is {
        repair(&mut bytes);
    }
    if let Some((start, ip)) = IpPacket::parse(&bytes).ok().map(|ip| (ip.transport_offset(), ip.transport()))
        && matches!(ip, Some(Transport::Tcp(_)))
        && input.is_syn
    {
        bytes[start + 13] |= 2;
    }
    let mtu = usize::from(input.mtu);
    check_clamp(&bytes, mtu, input.csum_partial);
    if let Ok(packet) = IpPacket::parse(&bytes) {
        check_too_big(&packet, mtu);
        // The fuzzer's packets are short; IPv6 needs long ones.
        if !packet.is_ipv4() && bytes.len() < 1400 {
            bytes.resize(1400, 0);
            put(&mut bytes, 4, 1360);
            if let Ok(packet) = IpPacket::parse(&bytes) {
                check_too_big(&packet, mtu);
            }
        }
    }
});
