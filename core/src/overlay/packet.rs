//! What vine needs to know of an IP packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Bytes of an IPv6 header without extensions.
pub(super) const IPV6_HEADER: usize = 40;
/// Bytes of a UDP header.
pub(super) const UDP_HEADER: usize = 8;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

/// No sender needs more IPv6 extension headers: RFC 8200 section 4.1 recommends each at most once, destination options
/// twice, and knows seven.
const MAX_EXTENSION_HEADERS: usize = 8;

/// IPv6 extension headers of the common form: next header, length in 8-byte units beyond the first.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// IPv6 fragment header: 8 bytes.
const FRAGMENT: u8 = 44;
/// Authentication header: length in 4-byte units beyond the second.
const AUTHENTICATION: u8 = 51;

/// A view of one whole IP packet, whose lengths have been checked against the bytes.
///
/// The buffer holds the packet exactly: a length field that says less or more than there is makes it no packet. What
/// lies behind the IP headers is looked at only by [`IpPacket::transport`].
#[derive(Clone, Copy, Debug)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport_offset: usize,
    fragment: Fragment,
    /// An IPv6 routing header names the final destination, not the one in the IPv6 header.
    source_routed: bool,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// The first fragment: it holds the transport header, but not all of the transport's bytes.
    First,
    /// A later fragment: it has no transport header.
    Later,
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than the shortest header of its version.
    #[error("{0} bytes are too few for an IP header")]
    Truncated(usize),
    /// The version is neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// The IPv4 header length is below 20 bytes or beyond the packet.
    #[error("IPv4 header of {0} bytes")]
    HeaderLength(usize),
    /// The length field disagrees with the buffer.
    #[error("the header claims {claimed} bytes, there are {actual}")]
    TotalLength {
        /// Bytes of the packet as its header says.
        claimed: usize,
        /// Bytes in the buffer.
        actual: usize,
    },
    /// An IPv6 extension header reaches beyond the packet.
    #[error("truncated IPv6 extension header")]
    ExtensionHeader,
    /// More IPv6 extension headers than any sender needs.
    #[error("more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")]
    TooManyExtensionHeaders,
}

/// The transport header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp(TcpHeader),
    /// UDP (RFC 768).
    Udp(UdpHeader),
}

/// What vine reads of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first payload byte (or of SYN).
    pub sequence: u32,
    /// Bytes of this header with its options: 20 to 60, and within the packet.
    pub header_len: usize,
    /// The eight flags from CWR (0x80) to FIN (0x01).
    pub flags: u8,
}

impl TcpHeader {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
    /// Where the flags are, from the start of the header.
    pub(super) const FLAGS_OFFSET: usize = 13;
    /// Where the sequence number is.
    pub(super) const SEQUENCE_OFFSET: usize = 4;
    /// Where the checksum is.
    pub(super) const CHECKSUM_OFFSET: usize = 16;
}

/// What vine reads of a UDP header, whose length field agrees with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The checksum field; zero over IPv4 means that there is none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Where the length is, from the start of the header.
    pub(super) const LENGTH_OFFSET: usize = 4;
    /// Where the checksum is.
    pub(super) const CHECKSUM_OFFSET: usize = 6;
}

impl Transport {
    /// The protocol number.
    pub const fn protocol(&self) -> u8 {
        match self {
            Transport::Tcp(_) => TCP,
            Transport::Udp(_) => UDP,
        }
    }

    /// Bytes of the transport header.
    pub const fn header_len(&self) -> usize {
        match self {
            Transport::Tcp(tcp) => tcp.header_len,
            Transport::Udp(_) => UDP_HEADER,
        }
    }

    /// Where the checksum field is, in bytes from the start of the transport header.
    pub const fn checksum_offset(&self) -> usize {
        match self {
            Transport::Tcp(_) => TcpHeader::CHECKSUM_OFFSET,
            Transport::Udp(_) => UdpHeader::CHECKSUM_OFFSET,
        }
    }

    /// Source and destination port.
    pub const fn ports(&self) -> (u16, u16) {
        match self {
            Transport::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            Transport::Udp(udp) => (udp.source_port, udp.destination_port),
        }
    }
}

impl<'a> IpPacket<'a> {
    /// Where an IPv4 header has its total length.
    pub(super) const V4_LENGTH_OFFSET: usize = 2;
    /// Where it has its identification.
    pub(super) const V4_IDENTIFICATION_OFFSET: usize = 4;
    /// Where it has its checksum.
    pub(super) const V4_CHECKSUM_OFFSET: usize = 10;
    /// Where an IPv6 header has its payload length.
    pub(super) const V6_LENGTH_OFFSET: usize = 4;

    /// Reads the IP headers of `bytes`, which must be one packet and nothing else.
    pub fn parse(bytes: &'a [u8]) -> Result<IpPacket<'a>, PacketError> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => IpPacket::parse_v4(bytes),
            Some(6) => IpPacket::parse_v6(bytes),
            Some(version) => Err(PacketError::Version(version)),
            None => Err(PacketError::Truncated(0)),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<IpPacket<'a>, PacketError> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(PacketError::Truncated(bytes.len()))?;
        let [first, _, len_hi, len_lo, _, _, frag_hi, frag_lo, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *header;
        let header_len = usize::from(first & 0x0f) * 4;
        if header_len < header.len() || header_len > bytes.len() {
            return Err(PacketError::HeaderLength(header_len));
        }
        let claimed = usize::from(u16::from_be_bytes([len_hi, len_lo]));
        if claimed != bytes.len() {
            return Err(PacketError::TotalLength { claimed, actual: bytes.len() });
        }
        // Three flag bits, the lowest of them "more fragments", then the offset.
        let fragment = match u16::from_be_bytes([frag_hi, frag_lo]) & 0x3fff {
            0 => Fragment::Whole,
            0x2000 => Fragment::First,
            _ => Fragment::Later,
        };
        Ok(IpPacket {
            bytes,
            source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            protocol,
            transport_offset: header_len,
            fragment,
            source_routed: false,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<IpPacket<'a>, PacketError> {
        let truncated = PacketError::Truncated(bytes.len());
        let (header, _) = bytes.split_first_chunk::<IPV6_HEADER>().ok_or(truncated)?;
        let (fixed, addresses) = header.split_first_chunk::<8>().ok_or(truncated)?;
        let (source, destination) = addresses.split_first_chunk::<16>().ok_or(truncated)?;
        let destination: &[u8; 16] = destination.first_chunk().ok_or(truncated)?;
        let [_, _, _, _, len_hi, len_lo, next_header, _] = *fixed;
        let claimed = IPV6_HEADER + usize::from(u16::from_be_bytes([len_hi, len_lo]));
        if claimed != bytes.len() {
            return Err(PacketError::TotalLength { claimed, actual: bytes.len() });
        }
        let mut packet = IpPacket {
            bytes,
            source: IpAddr::V6(Ipv6Addr::from(*source)),
            destination: IpAddr::V6(Ipv6Addr::from(*destination)),
            protocol: next_header,
            transport_offset: IPV6_HEADER,
            fragment: Fragment::Whole,
            source_routed: false,
        };
        for _ in 0..=MAX_EXTENSION_HEADERS {
            if packet.fragment == Fragment::Later || !packet.skip_extension_header()? {
                return Ok(packet);
            }
        }
        Err(PacketError::TooManyExtensionHeaders)
    }

    /// Steps over one IPv6 extension header, if there is one here.
    fn skip_extension_header(&mut self) -> Result<bool, PacketError> {
        let kind = self.protocol;
        let is_extension =
            matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY);
        if !is_extension {
            return Ok(false);
        }
        let rest = self.bytes.get(self.transport_offset..).unwrap_or_default();
        // Every kind is at least 8 bytes long.
        let &[next_header, units, hi, lo, ..] = rest.first_chunk::<8>().ok_or(PacketError::ExtensionHeader)?;
        let length = match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        if length > rest.len() {
            return Err(PacketError::ExtensionHeader);
        }
        match kind {
            // The offset is the upper 13 bits. One that is not divided further counts as a fragment as well.
            FRAGMENT if u16::from_be_bytes([hi, lo]) & 0xfff8 == 0 => self.fragment = Fragment::First,
            FRAGMENT => self.fragment = Fragment::Later,
            // The fourth byte counts the segments that are left.
            ROUTING if lo != 0 => self.source_routed = true,
            _ => {}
        }
        self.protocol = next_header;
        self.transport_offset += length;
        Ok(true)
    }

    /// The whole packet.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether this is IPv4; otherwise it is IPv6.
    pub const fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The source address.
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// The destination address, of the same family as the source.
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The protocol number behind the IP headers, IPv6 extension headers included.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the IP headers end; at most the length of the packet.
    pub const fn transport_offset(&self) -> usize {
        self.transport_offset
    }

    /// Whether the packet is a fragment.
    pub const fn fragment(&self) -> Fragment {
        self.fragment
    }

    /// What follows the IP headers.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.transport_offset..).unwrap_or_default()
    }

    /// The TCP or UDP header, if a transport checksum can be computed from this packet alone.
    ///
    /// `None` for other protocols, for fragments, where an IPv6 routing header hides the final destination, and where
    /// the transport header is truncated or its lengths lie.
    pub fn transport(&self) -> Option<Transport> {
        if self.fragment != Fragment::Whole || self.source_routed {
            return None;
        }
        let payload = self.payload();
        match self.protocol {
            TCP => {
                let &[s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, flags, ..] =
                    payload.first_chunk::<TCP_HEADER>()?;
                let header_len = usize::from(offset >> 4) * 4;
                let plausible = header_len >= TCP_HEADER && header_len <= payload.len();
                plausible.then_some(Transport::Tcp(TcpHeader {
                    source_port: u16::from_be_bytes([s0, s1]),
                    destination_port: u16::from_be_bytes([d0, d1]),
                    sequence: u32::from_be_bytes([q0, q1, q2, q3]),
                    header_len,
                    flags,
                }))
            }
            UDP => {
                let &[s0, s1, d0, d1, l0, l1, c0, c1] = payload.first_chunk::<UDP_HEADER>()?;
                let honest = usize::from(u16::from_be_bytes([l0, l1])) == payload.len();
                honest.then_some(Transport::Udp(UdpHeader {
                    source_port: u16::from_be_bytes([s0, s1]),
                    destination_port: u16::from_be_bytes([d0, d1]),
                    checksum: u16::from_be_bytes([c0, c1]),
                }))
            }
            _ => None,
        }
    }
}

/// The big-endian word at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// Overwrites the big-endian word at `at`; callers have proved that it is there.
pub(super) fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    let field = bytes.get_mut(at..).and_then(|tail| tail.first_chunk_mut());
    debug_assert!(field.is_some(), "no word at {at}");
    if let Some(field) = field {
        *field = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn v4(header_words: u8, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let header_len = usize::from(header_words) * 4;
        let mut bytes = vec![0; header_len.max(20)];
        bytes[0] = 0x40 | header_words;
        bytes[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[0] = 0x60;
        bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        bytes[6] = next_header;
        bytes[8] = 0xfd;
        bytes[23] = 1;
        bytes[24] = 0xfd;
        bytes[39] = 2;
        bytes.extend_from_slice(payload);
        bytes
    }

    const UDP_PACKET: [u8; 9] = [0, 1, 0, 2, 0, 9, 7, 7, 42];

    #[test]
    fn plain_headers() {
        let bytes = v4(5, UDP, 0, &UDP_PACKET);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.source(), "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination(), "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!((packet.transport_offset(), packet.payload()), (20, &UDP_PACKET[..]));
        let udp = UdpHeader { source_port: 1, destination_port: 2, checksum: 0x0707 };
        assert_eq!(packet.transport(), Some(Transport::Udp(udp)));

        let bytes = v6(UDP, &UDP_PACKET);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.source(), "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination(), "fd00::2".parse::<IpAddr>().unwrap());
        assert_eq!(packet.transport(), Some(Transport::Udp(udp)));
    }

    #[test]
    fn lengths_that_lie() {
        let mut bytes = v4(5, UDP, 0, &UDP_PACKET);
        bytes.push(0);
        let error = IpPacket::parse(&bytes).unwrap_err();
        assert_eq!(error, PacketError::TotalLength { claimed: 29, actual: 30 });
        let error = IpPacket::parse(&bytes[..28]).unwrap_err();
        assert_eq!(error, PacketError::TotalLength { claimed: 29, actual: 28 });
        assert_eq!(IpPacket::parse(&bytes[..19]).unwrap_err(), PacketError::Truncated(19));
        assert_eq!(IpPacket::parse(&v4(4, UDP, 0, &[])).unwrap_err(), PacketError::HeaderLength(16));
        assert_eq!(IpPacket::parse(&[0x50; 40]).unwrap_err(), PacketError::Version(5));
        assert_eq!(IpPacket::parse(&[]).unwrap_err(), PacketError::Truncated(0));
        let bytes = v6(UDP, &UDP_PACKET);
        let error = IpPacket::parse(&bytes[..48]).unwrap_err();
        assert_eq!(error, PacketError::TotalLength { claimed: 49, actual: 48 });
        let mut long_udp = UDP_PACKET;
        long_udp[5] = 10;
        assert_eq!(IpPacket::parse(&v4(5, UDP, 0, &long_udp)).unwrap().transport(), None);
        let mut tcp = [0; 20];
        tcp[12] = 0x60;
        assert_eq!(IpPacket::parse(&v4(5, TCP, 0, &tcp)).unwrap().transport(), None);
    }

    #[test]
    fn fragments_have_no_transport() {
        for (field, fragment) in [(0x2000, Fragment::First), (0x2001, Fragment::Later), (0x0001, Fragment::Later)] {
            let bytes = v4(5, UDP, field, &UDP_PACKET);
            let packet = IpPacket::parse(&bytes).unwrap();
            assert_eq!((packet.fragment(), packet.transport()), (fragment, None));
        }
        let whole = v4(5, UDP, 0x4000, &UDP_PACKET);
        assert!(IpPacket::parse(&whole).unwrap().transport().is_some(), "DF is no fragment");
        // The next header of a later fragment is told, but its bytes are not read as a header.
        let later = v6(FRAGMENT, &[DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 1, 255, 255, 255, 255]);
        let packet = IpPacket::parse(&later).unwrap();
        assert_eq!((packet.fragment(), packet.protocol()), (Fragment::Later, DESTINATION_OPTIONS));
    }

    #[test]
    fn extension_headers_are_walked_and_bounded() {
        let mut payload = vec![DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
        payload.extend([UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(UDP_PACKET);
        let bytes = v6(HOP_BY_HOP, &payload);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.transport_offset(), packet.transport().is_some()), (64, true));
        assert_eq!(IpPacket::parse(&v6(HOP_BY_HOP, &payload[..20])).unwrap_err(), PacketError::ExtensionHeader);

        let chain = |headers: usize| {
            let mut payload = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(headers - 1);
            payload.extend([UDP, 0, 0, 0, 0, 0, 0, 0]);
            payload.extend(UDP_PACKET);
            v6(DESTINATION_OPTIONS, &payload)
        };
        assert!(IpPacket::parse(&chain(8)).unwrap().transport().is_some());
        assert_eq!(IpPacket::parse(&chain(9)).unwrap_err(), PacketError::TooManyExtensionHeaders);
    }

    #[test]
    fn a_routing_header_with_segments_left_hides_the_destination() {
        let mut payload = vec![UDP, 0, 4, 1, 0, 0, 0, 0];
        payload.extend(UDP_PACKET);
        assert_eq!(IpPacket::parse(&v6(ROUTING, &payload)).unwrap().transport(), None);
        payload[3] = 0;
        assert!(IpPacket::parse(&v6(ROUTING, &payload)).unwrap().transport().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            first in any::<u8>(),
            repair in any::<bool>(),
        ) {
            let total = bytes.len() as u16;
            if repair && bytes.len() >= 40 {
                bytes[0] = if first & 1 == 0 { 0x45 + (first >> 6) } else { 0x60 };
                let (at, length) = if first & 1 == 0 { (2, total) } else { (4, total - 40) };
                bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            if let Ok(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.transport_offset() <= bytes.len());
                if let Some(transport) = packet.transport() {
                    prop_assert!(packet.transport_offset() + transport.header_len() <= bytes.len());
                }
            }
        }
    }
}
