//! What the TUN device says about a packet's offloads.

use super::packet::{IpPacket, PacketError, Transport};

/// The `virtio_net_hdr` that stands before every packet on a TUN opened with `IFF_VNET_HDR`
/// (virtio 1.2 section 5.1.6, without `num_buffers`): 10 bytes, little endian.
///
/// The fields are as on the wire. A packet from the TUN becomes a [`TunPacket`], which proves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHeader {
    /// [`Self::NEEDS_CSUM`], or zero. Other bits are of no concern here.
    pub flags: u8,
    /// How the packet is to be segmented: one of the `GSO_` constants, perhaps with [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers up to the payload. The kernel's own value is a hint and may be larger.
    pub hdr_len: u16,
    /// Bytes of payload in each segment.
    pub gso_size: u16,
    /// Where the checksummed bytes begin, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum field is, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHeader {
    /// Bytes of the header.
    pub const LEN: usize = 10;
    /// The checksum field holds the sum of the pseudo-header only; the rest is to be added.
    pub const NEEDS_CSUM: u8 = 1;
    /// One packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4 to be segmented.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6 to be segmented.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP datagrams of equal length, of either IP version (Linux 6.2).
    pub const GSO_UDP_L4: u8 = 5;
    /// Set beside a TCP type where CWR belongs to the first segment only.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads the ten bytes. Every value is possible.
    pub const fn decode(bytes: &[u8; Self::LEN]) -> VirtioNetHeader {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        VirtioNetHeader {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// The ten bytes to write before the packet.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

/// A packet as one read of the TUN gave it: the IP packet, and what the kernel left to be done.
#[derive(Clone, Copy, Debug)]
pub struct TunPacket<'a> {
    ip: IpPacket<'a>,
    offload: Offload,
}

/// What the kernel left to be done with a packet. All offsets are derived from the packet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: the packet is complete.
    None,
    /// The checksum from `start` on is open.
    Checksum {
        /// Where the transport header begins.
        start: usize,
        /// Where the checksum field is, from `start`.
        offset: usize,
    },
    /// TCP to be cut into segments, and each checksum is open.
    Tcp {
        /// Bytes of payload in each segment but the last; not zero.
        mss: usize,
        /// Bytes of IP and TCP headers that each segment repeats.
        header_len: usize,
    },
    /// UDP datagrams of one flow back to back, and each checksum is open.
    Udp {
        /// Bytes of payload in each datagram but the last; not zero.
        size: usize,
        /// Bytes of IP and UDP headers that each datagram repeats.
        header_len: usize,
    },
}

/// Why what was read from the TUN is not a packet with its offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunPacketError {
    /// The read was shorter than the header.
    #[error("shorter than a virtio_net_hdr")]
    NoHeader,
    /// Behind the header is no IP packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// An offload is asked for, but the packet has no TCP or UDP header for it, or the other one.
    #[error("an offload that does not go with the packet's protocol {protocol}")]
    Protocol {
        /// The packet's transport protocol.
        protocol: u8,
    },
    /// Checksum offsets that are not those of the transport header.
    #[error("checksum at {start}+{offset}, which is not where the transport header has it")]
    ChecksumPosition {
        /// `csum_start` as given.
        start: u16,
        /// `csum_offset` as given.
        offset: u16,
    },
    /// Segmentation without an open checksum, which virtio forbids (5.1.6.2).
    #[error("segmentation without NEEDS_CSUM")]
    ChecksumNotOpen,
    /// A segmentation type that was not asked for, or a segment size of zero.
    #[error("segmentation type {gso_type:#04x} with size {gso_size}")]
    Segmentation {
        /// `gso_type` as given.
        gso_type: u8,
        /// `gso_size` as given.
        gso_size: u16,
    },
}

impl<'a> TunPacket<'a> {
    /// Reads a packet and the header that came before it.
    pub fn parse(header: &[u8; VirtioNetHeader::LEN], packet: &'a [u8]) -> Result<TunPacket<'a>, TunPacketError> {
        let header = VirtioNetHeader::decode(header);
        let ip = IpPacket::parse(packet)?;
        let offload = Offload::derive(&header, &ip)?;
        Ok(TunPacket { ip, offload })
    }

    /// Reads what one `read` of the TUN returned: the header and the packet behind it.
    pub fn parse_read(bytes: &'a [u8]) -> Result<TunPacket<'a>, TunPacketError> {
        let (header, packet) = bytes.split_first_chunk().ok_or(TunPacketError::NoHeader)?;
        TunPacket::parse(header, packet)
    }

    /// Reads a packet from a TUN that has no header: it is complete.
    pub fn complete(packet: &'a [u8]) -> Result<TunPacket<'a>, TunPacketError> {
        Ok(TunPacket { ip: IpPacket::parse(packet)?, offload: Offload::None })
    }

    /// The IP packet; one that is to be segmented is larger than any that may be sent.
    pub const fn ip(&self) -> &IpPacket<'a> {
        &self.ip
    }

    /// What is left to be done.
    pub const fn offload(&self) -> Offload {
        self.offload
    }
}

impl Offload {
    /// What the header asks for, in terms of the packet; an error where the two do not go together.
    fn derive(header: &VirtioNetHeader, ip: &IpPacket<'_>) -> Result<Offload, TunPacketError> {
        let is_open = header.flags & VirtioNetHeader::NEEDS_CSUM != 0;
        let segmentation = header.gso_type & !VirtioNetHeader::GSO_ECN;
        if segmentation == VirtioNetHeader::GSO_NONE && !is_open {
            return Ok(Offload::None);
        }
        if !is_open {
            return Err(TunPacketError::ChecksumNotOpen);
        }
        let wrong_protocol = TunPacketError::Protocol { protocol: ip.protocol() };
        let transport = ip.transport().ok_or(wrong_protocol)?;
        let (start, offset) = (ip.transport_offset(), transport.checksum_offset());
        if usize::from(header.csum_start) != start || usize::from(header.csum_offset) != offset {
            return Err(TunPacketError::ChecksumPosition { start: header.csum_start, offset: header.csum_offset });
        }
        let header_len = start + transport.header_len();
        let size = usize::from(header.gso_size);
        if segmentation != VirtioNetHeader::GSO_NONE && size == 0 {
            return Err(TunPacketError::Segmentation { gso_type: header.gso_type, gso_size: header.gso_size });
        }
        match (segmentation, transport, ip.is_ipv4()) {
            (VirtioNetHeader::GSO_NONE, ..) => Ok(Offload::Checksum { start, offset }),
            (VirtioNetHeader::GSO_TCPV4, Transport::Tcp(_), true)
            | (VirtioNetHeader::GSO_TCPV6, Transport::Tcp(_), false) => Ok(Offload::Tcp { mss: size, header_len }),
            (VirtioNetHeader::GSO_UDP_L4, Transport::Udp(_), _) => Ok(Offload::Udp { size, header_len }),
            (VirtioNetHeader::GSO_TCPV4 | VirtioNetHeader::GSO_TCPV6 | VirtioNetHeader::GSO_UDP_L4, ..) => {
                Err(wrong_protocol)
            }
            _ => Err(TunPacketError::Segmentation { gso_type: header.gso_type, gso_size: header.gso_size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Spec;
    use super::*;
    use proptest::prelude::*;

    const OPEN: VirtioNetHeader = VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type: VirtioNetHeader::GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 20,
        csum_offset: 16,
    };

    fn offload(header: VirtioNetHeader, spec: &Spec) -> Result<Offload, TunPacketError> {
        TunPacket::parse(&header.encode(), &spec.build()).map(|packet| packet.offload())
    }

    #[test]
    fn what_a_kernel_asks_for() {
        let tcp = Spec::tcp(1, b"hello");
        assert_eq!(offload(VirtioNetHeader::default(), &tcp), Ok(Offload::None));
        let valid = VirtioNetHeader { flags: 2, ..VirtioNetHeader::default() };
        assert_eq!(offload(valid, &tcp), Ok(Offload::None));
        assert_eq!(offload(OPEN, &tcp), Ok(Offload::Checksum { start: 20, offset: 16 }));
        let tso = VirtioNetHeader { gso_type: VirtioNetHeader::GSO_TCPV4, gso_size: 2, ..OPEN };
        assert_eq!(offload(tso, &tcp), Ok(Offload::Tcp { mss: 2, header_len: 52 }));
        let ecn = VirtioNetHeader { gso_type: VirtioNetHeader::GSO_TCPV4 | VirtioNetHeader::GSO_ECN, ..tso };
        assert_eq!(offload(ecn, &tcp), Ok(Offload::Tcp { mss: 2, header_len: 52 }));
        let udp = Spec { udp: true, v6: true, ..tcp };
        let uso = VirtioNetHeader { gso_type: VirtioNetHeader::GSO_UDP_L4, csum_start: 40, csum_offset: 6, ..tso };
        assert_eq!(offload(uso, &udp), Ok(Offload::Udp { size: 2, header_len: 48 }));
    }

    #[test]
    fn what_does_not_go_with_the_packet() {
        let tcp = Spec::tcp(1, b"hello");
        let tso = VirtioNetHeader { gso_type: VirtioNetHeader::GSO_TCPV4, gso_size: 2, ..OPEN };
        let position = TunPacketError::ChecksumPosition { start: 21, offset: 16 };
        assert_eq!(offload(VirtioNetHeader { csum_start: 21, ..OPEN }, &tcp), Err(position));
        let position = TunPacketError::ChecksumPosition { start: 20, offset: 6 };
        assert_eq!(offload(VirtioNetHeader { csum_offset: 6, ..OPEN }, &tcp), Err(position));
        assert_eq!(offload(VirtioNetHeader { flags: 0, ..tso }, &tcp), Err(TunPacketError::ChecksumNotOpen));
        let zero = TunPacketError::Segmentation { gso_type: 1, gso_size: 0 };
        assert_eq!(offload(VirtioNetHeader { gso_size: 0, ..tso }, &tcp), Err(zero));
        // UFO (3) is never asked for.
        let unknown = TunPacketError::Segmentation { gso_type: 3, gso_size: 2 };
        assert_eq!(offload(VirtioNetHeader { gso_type: 3, ..tso }, &tcp), Err(unknown));
        for gso_type in [VirtioNetHeader::GSO_TCPV6, VirtioNetHeader::GSO_UDP_L4] {
            let other = TunPacketError::Protocol { protocol: 6 };
            assert_eq!(offload(VirtioNetHeader { gso_type, ..tso }, &tcp), Err(other));
        }
        assert_eq!(TunPacket::parse_read(&[0; 9]).unwrap_err(), TunPacketError::NoHeader);
        assert_eq!(TunPacket::parse_read(&[0; 10]).unwrap_err(), PacketError::Truncated(0).into());
    }

    proptest! {
        #[test]
        fn ten_bytes_round_trip(bytes in any::<[u8; 10]>()) {
            prop_assert_eq!(VirtioNetHeader::decode(&bytes).encode(), bytes);
        }
    }
}
