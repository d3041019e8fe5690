//! Packets for the tests of this folder, made and judged without the code under test.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

/// A TCP or UDP packet to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) v6: bool,
    pub(super) udp: bool,
    /// Distinguishes flows.
    pub(super) port: u16,
    pub(super) id: u16,
    pub(super) dont_fragment: bool,
    pub(super) tos: u8,
    /// IPv4 options or an IPv6 destination options header: so many units of 4 or 8 bytes.
    pub(super) ip_options: u8,
    pub(super) sequence: u32,
    pub(super) flags: u8,
    /// TCP options: so many words.
    pub(super) tcp_options: u8,
    pub(super) payload: Vec<u8>,
}

impl Spec {
    pub(super) fn tcp(sequence: u32, payload: &[u8]) -> Spec {
        Spec {
            v6: false,
            udp: false,
            port: 1000,
            id: 7,
            dont_fragment: true,
            tos: 0,
            ip_options: 0,
            sequence,
            flags: 0x10,
            tcp_options: 3,
            payload: payload.to_vec(),
        }
    }

    pub(super) fn ip_header_len(&self) -> usize {
        match self.v6 {
            true => 40 + 8 * usize::from(self.ip_options),
            false => 20 + 4 * usize::from(self.ip_options),
        }
    }

    pub(super) fn header_len(&self) -> usize {
        self.ip_header_len() + if self.udp { 8 } else { 20 + 4 * usize::from(self.tcp_options) }
    }

    /// Where the checksum field is.
    pub(super) fn checksum_at(&self) -> usize {
        self.ip_header_len() + if self.udp { 6 } else { 16 }
    }

    /// The packet with all checksums right.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut packet = self.ip_header();
        let transport_len = (self.header_len() - packet.len() + self.payload.len()) as u16;
        packet.extend(self.port.to_be_bytes());
        packet.extend(443u16.to_be_bytes());
        if self.udp {
            packet.extend(transport_len.to_be_bytes());
            packet.extend([0; 2]);
        } else {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend(0x0a0b_0c0du32.to_be_bytes());
            packet.extend([(5 + self.tcp_options) << 4, self.flags, 0x12, 0x34, 0, 0, 0, 0]);
            packet.extend((0..self.tcp_options).flat_map(|word| [1, 1, 1, word]));
        }
        packet.extend(&self.payload);
        let checksum = match !transport_sum(&packet, self.ip_header_len(), self.udp) {
            0 => 0xffff,
            checksum => checksum,
        };
        packet[self.checksum_at()..][..2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// The packet with its transport checksum open, as a kernel hands it over.
    pub(super) fn build_partial(&self) -> Vec<u8> {
        let mut packet = self.build();
        let pseudo = pseudo_sum(&packet, self.ip_header_len(), self.udp);
        packet[self.checksum_at()..][..2].copy_from_slice(&pseudo.to_be_bytes());
        packet
    }

    fn ip_header(&self) -> Vec<u8> {
        let total = (self.header_len() + self.payload.len()) as u16;
        let protocol = if self.udp { 17 } else { 6 };
        let mut header = vec![0; self.ip_header_len()];
        if self.v6 {
            header[0] = 0x60 | self.tos >> 4;
            header[1] = self.tos << 4;
            header[4..6].copy_from_slice(&(total - 40).to_be_bytes());
            header[6] = if self.ip_options > 0 { 60 } else { protocol };
            header[7] = 64;
            (header[8], header[23], header[24], header[39]) = (0xfd, 1, 0xfd, 2);
            if self.ip_options > 0 {
                header[40] = protocol;
                header[41] = self.ip_options - 1;
            }
        } else {
            header[0] = 0x45 + self.ip_options;
            header[1] = self.tos;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[4..6].copy_from_slice(&self.id.to_be_bytes());
            header[6] = if self.dont_fragment { 0x40 } else { 0 };
            header[8] = 64;
            header[9] = protocol;
            header[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            header[20..].fill(1);
            let checksum = !plain_sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        header
    }
}

/// RFC 1071, said plainly.
pub(super) fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(packet: &[u8], start: usize, udp: bool) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut pseudo = packet[addresses].to_vec();
    pseudo.extend([0, if udp { 17 } else { 6 }]);
    pseudo.extend(((packet.len() - start) as u16).to_be_bytes());
    pseudo
}

/// What the field of an open checksum must hold.
pub(super) fn pseudo_sum(packet: &[u8], start: usize, udp: bool) -> u16 {
    plain_sum(&pseudo_header(packet, start, udp))
}

/// The sum over pseudo-header, header and payload: 0xffff for a packet with a right checksum.
pub(super) fn transport_sum(packet: &[u8], start: usize, udp: bool) -> u16 {
    let mut bytes = pseudo_header(packet, start, udp);
    bytes.extend(&packet[start..]);
    plain_sum(&bytes)
}

pub(super) fn any_payload(lengths: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), lengths)
}

pub(super) fn any_spec(max_payload: usize) -> impl Strategy<Value = Spec> {
    let ip = (any::<bool>(), any::<u16>(), any::<bool>(), any::<u8>(), 0u8..3);
    let transport = (any::<bool>(), any::<u32>(), any::<u8>(), 0u8..=10);
    (ip, transport, any_payload(0..=max_payload)).prop_map(
        |((v6, id, dont_fragment, tos, ip_options), (udp, sequence, flags, tcp_options), payload)| Spec {
            v6,
            udp,
            port: 1000,
            id,
            dont_fragment,
            tos,
            ip_options,
            sequence,
            flags,
            tcp_options,
            payload,
        },
    )
}
