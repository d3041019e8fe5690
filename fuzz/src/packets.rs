//! IP packets, and what a kernel makes of them, written plainly and without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::{Arbitrary, Result, Unstructured};
use vine_core::overlay::VirtioNetHeader;

use crate::pattern;

/// A TCP or UDP packet to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Whether it is UDP; otherwise it is TCP.
    pub udp: bool,
    /// Source port, which tells flows apart.
    pub port: u16,
    /// IPv4 identification.
    pub identification: u16,
    /// The IPv4 flag DF.
    pub dont_fragment: bool,
    /// IPv4 type of service, IPv6 traffic class.
    pub class: u8,
    /// IPv4 options or an IPv6 destination options header: so many units of 4 or 8 bytes.
    pub ip_options: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP flags.
    pub flags: u8,
    /// TCP options: so many words.
    pub tcp_options: u8,
    /// Each bit changes one of the fields that packets of a run have in common.
    pub variant: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Packet {
    /// Few flows and mostly plain headers, so that packets continue each other.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Packet> {
        let [kind, odd] = u.arbitrary::<[u8; 2]>()?;
        let v6 = kind & 1 != 0;
        let mut packet = Packet {
            source: address(v6, 1),
            destination: address(v6, 2),
            udp: kind & 2 != 0,
            port: 1000 + u16::from(kind >> 2 & 3),
            identification: 0,
            dont_fragment: kind & 0x10 == 0,
            class: 0,
            ip_options: 0,
            sequence: u32::from(u.arbitrary::<u8>()?) * 100,
            flags: if kind & 0x20 == 0 { 0x10 } else { 0x18 },
            tcp_options: if kind & 0x40 == 0 { 0 } else { 3 },
            variant: 0,
            payload: pattern(u64::from(odd), usize::from(u.arbitrary::<u8>()?)),
        };
        if kind & 0x80 != 0 {
            packet.payload.resize(100, odd);
        }
        if odd & 1 != 0 {
            packet.identification = u16::from(u.arbitrary::<u8>()?);
            packet.variant = u.arbitrary::<u8>()? & u.arbitrary::<u8>()?;
        }
        if odd & 6 == 6 {
            packet.class = u.arbitrary()?;
            packet.ip_options = u.int_in_range(0..=10)?;
            packet.tcp_options = u.int_in_range(0..=10)?;
            packet.sequence = u.arbitrary()?;
            packet.flags = u.arbitrary()?;
            let len = usize::from(u.arbitrary::<u16>()?);
            packet.payload = pattern(1, if odd & 0x38 == 0 { len % 60_000 } else { len % 4_000 });
        }
        Ok(packet)
    }
}

fn address(v6: bool, last: u8) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(10, 0, 0, last).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)).into(),
    }
}

impl Packet {
    /// Bytes of the IP headers.
    pub fn ip_header_len(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => 20 + 4 * usize::from(self.ip_options),
            IpAddr::V6(_) => 40 + 8 * usize::from(self.ip_options),
        }
    }

    /// Bytes of all headers.
    pub fn header_len(&self) -> usize {
        self.ip_header_len() + if self.udp { 8 } else { 20 + 4 * usize::from(self.tcp_options) }
    }

    /// Where the transport checksum is.
    pub fn checksum_at(&self) -> usize {
        self.ip_header_len() + if self.udp { 6 } else { 16 }
    }

    /// The packet with all checksums right.
    pub fn build(&self) -> Vec<u8> {
        let mut packet = self.ip_header();
        packet.extend(self.port.to_be_bytes());
        packet.extend(443u16.to_be_bytes());
        if self.udp {
            packet.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            packet.extend([0; 2]);
        } else {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend([10, 11, 12, self.bit(0)]);
            packet.extend([
                (5 + self.tcp_options) << 4 | self.bit(1),
                self.flags,
                0x12,
                self.bit(2),
                0,
                0,
                0,
                self.bit(3),
            ]);
            packet.extend((0..self.tcp_options).flat_map(|word| [1, 1, 1, word + self.bit(4)]));
        }
        packet.extend(&self.payload);
        let checksum = match !transport_sum(&packet, self.ip_header_len()) {
            0 => 0xffff,
            checksum => checksum,
        };
        put(&mut packet, self.checksum_at(), checksum);
        packet
    }

    /// The packet with its transport checksum open, as a kernel hands it over.
    pub fn build_open(&self) -> Vec<u8> {
        let mut packet = self.build();
        let sum = plain_sum(&pseudo_header(&packet, self.ip_header_len()));
        put(&mut packet, self.checksum_at(), sum);
        packet
    }

    /// What a kernel puts before [`Packet::build_open`]; `size` zero asks for no segmentation.
    pub fn vnet_header(&self, size: u16) -> [u8; VirtioNetHeader::LEN] {
        let gso_type = match (size, self.udp, self.source) {
            (0, ..) => VirtioNetHeader::GSO_NONE,
            (_, true, _) => VirtioNetHeader::GSO_UDP_L4,
            (_, false, IpAddr::V4(_)) => VirtioNetHeader::GSO_TCPV4,
            (_, false, IpAddr::V6(_)) => VirtioNetHeader::GSO_TCPV6,
        };
        let start = self.ip_header_len();
        let header = VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: self.header_len() as u16,
            gso_size: size,
            csum_start: start as u16,
            csum_offset: (self.checksum_at() - start) as u16,
        };
        header.encode()
    }

    /// The packets that a kernel without segmentation offload sends instead of this one.
    pub fn segments(&self, size: usize) -> Vec<Packet> {
        let parts: Vec<&[u8]> = match self.payload.is_empty() {
            true => vec![&[]],
            false => self.payload.chunks(size).collect(),
        };
        let last = parts.len() - 1;
        let headers = Packet { payload: Vec::new(), ..*self };
        let cut = |(index, part): (usize, &&[u8])| {
            // CWR on the first only; FIN and PSH on the last only.
            let first_only = if index == 0 { 0xff } else { 0x7f };
            let last_only = if index == last { 0xff } else { 0xf6 };
            Packet {
                payload: part.to_vec(),
                identification: self.identification.wrapping_add(index as u16),
                sequence: self.sequence.wrapping_add((index * size) as u32),
                flags: self.flags & first_only & last_only,
                ..headers
            }
        };
        parts.iter().enumerate().map(cut).collect()
    }

    fn bit(&self, which: u8) -> u8 {
        self.variant >> which & 1
    }

    fn ip_header(&self) -> Vec<u8> {
        let total = (self.header_len() + self.payload.len()) as u16;
        let protocol = if self.udp { 17 } else { 6 };
        let mut header = vec![0; self.ip_header_len()];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header[0] = 0x45 + self.ip_options;
                header[1] = self.class;
                put(&mut header, 2, total);
                put(&mut header, 4, self.identification);
                header[6] = if self.dont_fragment { 0x40 } else { 0 };
                (header[8], header[9]) = (63 + self.bit(5), protocol);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                header[20..].fill(1);
                if let Some(last) = header[20..].last_mut() {
                    *last = self.bit(6);
                }
                let checksum = !plain_sum(&header);
                put(&mut header, 10, checksum);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header[0] = 0x60 | self.class >> 4;
                header[1] = self.class << 4;
                put(&mut header, 4, total - 40);
                (header[6], header[7]) = (if self.ip_options > 0 { 60 } else { protocol }, 63 + self.bit(5));
                header[3] = self.bit(7);
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
                if self.ip_options > 0 {
                    (header[40], header[41], header[47]) = (protocol, self.ip_options - 1, self.bit(6));
                }
            }
            _ => panic!("a packet's addresses are of one family"),
        }
        header
    }
}

/// Overwrites the big-endian word at `at`.
pub fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// RFC 1071, said plainly.
pub fn plain_sum(bytes: &[u8]) -> u16 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    sum += odd.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header of a packet whose transport header, of TCP or UDP, begins at `start`.
fn pseudo_header(packet: &[u8], start: usize) -> Vec<u8> {
    let is_v4 = packet[0] >> 4 == 4;
    let mut pseudo = packet[if is_v4 { 12..20 } else { 8..40 }].to_vec();
    pseudo.extend([0, protocol(packet, start)]);
    pseudo.extend(((packet.len() - start) as u16).to_be_bytes());
    pseudo
}

/// The protocol of the transport header at `start`: the next header of whatever stands before it.
fn protocol(packet: &[u8], start: usize) -> u8 {
    let (mut at, mut next) = if packet[0] >> 4 == 4 { (start, packet[9]) } else { (40, packet[6]) };
    while at < start {
        let units = usize::from(packet[at + 1]);
        let len = match next {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        next = packet[at];
        at += len;
    }
    next
}

/// The sum over pseudo-header, transport header and payload: 0xffff for a packet with a right checksum.
pub fn transport_sum(packet: &[u8], start: usize) -> u16 {
    let mut bytes = pseudo_header(packet, start);
    bytes.extend(&packet[start..]);
    plain_sum(&bytes)
}

/// Makes the length fields of `bytes` say the truth, and a kind out of the first byte, so that more inputs are packets.
pub fn repair(bytes: &mut [u8]) {
    let len = bytes.len().min(65_535) as u16;
    match bytes.first() {
        Some(first) if first & 0x10 == 0 && len >= 20 => {
            let words = 5 + (first & 0x03);
            bytes[0] = 0x40 | words;
            put(bytes, 2, len);
        }
        Some(_) if len >= 40 => {
            bytes[0] = 0x60;
            put(bytes, 4, len - 40);
        }
        _ => {}
    }
}
