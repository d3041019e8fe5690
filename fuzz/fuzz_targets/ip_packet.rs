//! IP packets: the view agrees with a second, plainer reading of the headers, and its offsets lie within the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{Fragment, IpPacket, Transport};
use vine_fuzz::packets::repair;

/// Where the IP headers end, the protocol behind them, whether this is a fragment, and whether a routing header hides the
/// destination. `None` for what is no packet.
fn read(bytes: &[u8]) -> Option<(usize, u8, Fragment, bool)> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match bytes.first()? >> 4 {
        4 if bytes.len() >= 20 => {
            let header = usize::from(bytes[0] & 15) * 4;
            if header < 20 || header > bytes.len() || usize::from(word(2)) != bytes.len() {
                return None;
            }
            let fragment = match (word(6) & 0x1fff, word(6) & 0x2000) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            Some((header, bytes[9], fragment, false))
        }
        6 if bytes.len() >= 40 && usize::from(word(4)) + 40 == bytes.len() => read_extensions(bytes),
        _ => None,
    }
}

fn read_extensions(bytes: &[u8]) -> Option<(usize, u8, Fragment, bool)> {
    let (mut at, mut next, mut fragment, mut routed) = (40, bytes[6], Fragment::Whole, false);
    for _ in 0..9 {
        if fragment == Fragment::Later || ![0, 43, 44, 51, 60, 135].contains(&next) {
            return Some((at, next, fragment, routed));
        }
        let header = bytes.get(at..at + 8)?;
        let units = usize::from(header[1]);
        let len = match next {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if at + len > bytes.len() {
            return None;
        }
        match next {
            44 if u16::from_be_bytes([header[2], header[3]]) >> 3 == 0 => fragment = Fragment::First,
            44 => fragment = Fragment::Later,
            43 if header[3] != 0 => routed = true,
            _ => {}
        }
        next = header[0];
        at += len;
    }
    None
}

fn check(bytes: &[u8]) {
    let parsed = IpPacket::parse(bytes);
    let Some((start, protocol, fragment, routed)) = read(bytes) else {
        assert!(parsed.is_err(), "{parsed:?}");
        return;
    };
    let packet = parsed.expect("the plain reading took it");
    assert_eq!((packet.transport_offset(), packet.protocol(), packet.fragment()), (start, protocol, fragment));
    assert_eq!((packet.bytes(), packet.payload()), (bytes, &bytes[start..]));
    assert_eq!(packet.is_ipv4(), packet.source().is_ipv4());
    assert_eq!(packet.source().is_ipv4(), packet.destination().is_ipv4());
    let payload = packet.payload();
    match packet.transport() {
        Some(Transport::Tcp(tcp)) => {
            assert_eq!(protocol, 6);
            assert!((20..=60).contains(&tcp.header_len) && tcp.header_len <= payload.len());
            assert_eq!(tcp.sequence.to_be_bytes(), payload[4..8]);
            assert_eq!(tcp.flags, payload[13]);
        }
        Some(Transport::Udp(udp)) => {
            assert_eq!(protocol, 17);
            assert_eq!(usize::from(u16::from_be_bytes([payload[4], payload[5]])), payload.len());
            assert_eq!(udp.checksum.to_be_bytes(), payload[6..8]);
        }
        None => {
            let plausible = match protocol {
                6 => payload.len() >= 20 && (20..=payload.len()).contains(&(usize::from(payload[12] >> 4) * 4)),
                17 => payload.len() >= 8 && usize::from(u16::from_be_bytes([payload[4], payload[5]])) == payload.len(),
                _ => false,
            };
            assert!(!plausible || fragment != Fragment::Whole || routed);
        }
    }
    if let Some(transport) = packet.transport() {
        assert_eq!((fragment, routed), (Fragment::Whole, false));
        let (source, destination) = transport.ports();
        assert_eq!([source.to_be_bytes(), destination.to_be_bytes()].concat(), payload[..4]);
        assert!(transport.checksum_offset() + 2 <= transport.header_len());
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut bytes = bytes.to_vec();
    repair(&mut bytes);
    check(&bytes);
});
