//! Completing an open checksum: the result verifies by the plain sum, nothing but the field changes, and a refused packet
//! stays as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{IpPacket, finish_checksum};
use vine_fuzz::packets::{repair, transport_sum};

fuzz_target!(|input: (bool, &[u8])| {
    let (as_it_is, bytes) = input;
    let mut bytes = bytes.to_vec();
    if !as_it_is {
        repair(&mut bytes);
    }
    let mut packet = bytes.clone();
    match finish_checksum(&mut packet) {
        Err(_) => {
            assert_eq!(packet, bytes);
            assert!(!IpPacket::parse(&bytes).is_ok_and(|ip| ip.transport().is_some()));
        }
        Ok(()) => {
            let ip = IpPacket::parse(&packet).expect("it was one before");
            let start = ip.transport_offset();
            let field = start + ip.transport().expect("it was there before").checksum_offset();
            assert_eq!(transport_sum(&packet, start), 0xffff);
            assert_ne!(packet[field..field + 2], [0, 0], "zero would say that there is none");
            let mut again = packet.clone();
            assert_eq!(finish_checksum(&mut again), Ok(()));
            assert_eq!(again, packet);
            bytes[field..field + 2].copy_from_slice(&packet[field..field + 2]);
            assert_eq!(packet, bytes, "only the field changes");
        }
    }
});
