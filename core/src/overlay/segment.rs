//! From one large packet to packets of the path's size.

use super::checksum::Sum;
use super::packet::{IPV6_HEADER, IpPacket, PacketError, TcpHeader, Transport, UdpHeader, put_word};
use super::virtio::{Offload, TunPacket};

/// What becomes of an open transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumMode {
    /// It stays open: the field holds the folded sum of the pseudo-header, and the receiver's kernel adds the rest.
    /// For peers that understand it; the seal protects the bytes meanwhile.
    Partial,
    /// It is computed here.
    Full,
}

/// The packets that a [`TunPacket`] stands for: itself, or the segments that the kernel left to be cut.
///
/// Each is written once, with its only copy of the payload, wherever the caller wants it. As when the kernel cuts,
/// IPv4 identifications count up, FIN and PSH go on the last segment only, CWR on the first only.
///
/// ```
/// use vine_core::overlay::{ChecksumMode, Segments, TunPacket};
///
/// let ping = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
/// let segments = Segments::new(&TunPacket::complete(&ping)?, ChecksumMode::Full);
/// let mut room = [0; 1500];
/// for index in 0..segments.count() {
///     let length = segments.write(index, &mut room);
///     assert_eq!(room[..length], ping);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// What every segment begins with; empty where the packet goes as it is.
    header: &'a [u8],
    /// What is shared out among the segments.
    payload: &'a [u8],
    /// Bytes of payload in each segment but the last.
    size: usize,
    count: usize,
    /// Absent where no checksum is open.
    open: Option<Open>,
}

/// What the segments of a packet with an open checksum have in common.
#[derive(Clone, Copy, Debug)]
struct Open {
    mode: ChecksumMode,
    transport: Transport,
    transport_offset: usize,
    /// Over the pseudo-header, but for the length.
    pseudo: Sum,
    /// Absent over IPv6.
    ipv4: Option<Ipv4>,
}

/// What the IPv4 headers of the segments have in common.
#[derive(Clone, Copy, Debug)]
struct Ipv4 {
    /// Identification of the first segment.
    identification: u16,
    /// Over the header, but for total length, identification and checksum.
    sum: Sum,
}

impl<'a> Segments<'a> {
    /// The segments of `packet`.
    pub fn new(packet: &TunPacket<'a>, mode: ChecksumMode) -> Segments<'a> {
        let ip = packet.ip();
        let whole = ip.bytes();
        let (header_len, size) = match packet.offload() {
            Offload::None | Offload::Checksum { .. } => (0, whole.len()),
            Offload::Tcp { mss, header_len } => (header_len, mss),
            Offload::Udp { size, header_len } => (header_len, size),
        };
        let (header, payload) = whole.split_at_checked(header_len).unwrap_or((&[], whole));
        let open = match packet.offload() {
            Offload::None => None,
            _ => ip.transport().map(|transport| Open::new(ip, transport, mode)),
        };
        let count = payload.len().div_ceil(size.max(1)).max(1);
        Segments { header, payload, size, count, open }
    }

    /// How many there are; at least one.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of segment `index`, which is below [`Self::count`].
    pub fn segment_len(&self, index: usize) -> usize {
        self.header.len() + self.part(index).len()
    }

    /// Bytes of all segments together.
    pub const fn total_len(&self) -> usize {
        self.header.len() * self.count + self.payload.len()
    }

    /// Whether the segments are written with an open checksum, which the receiver must be told.
    pub const fn csum_partial(&self) -> bool {
        matches!(self.open, Some(Open { mode: ChecksumMode::Partial, .. }))
    }

    /// Writes segment `index` to the beginning of `out` and returns its length. Zero and nothing written if there is
    /// no such segment, or `out` is shorter than [`Self::segment_len`].
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let part = self.part(index);
        let length = self.header.len() + part.len();
        let Some(out) = out.get_mut(..length).filter(|_| index < self.count) else { return 0 };
        let Some((header, payload)) = out.split_at_mut_checked(self.header.len()) else { return 0 };
        header.copy_from_slice(self.header);
        payload.copy_from_slice(part);
        if let Some(open) = &self.open {
            if !self.header.is_empty() {
                open.write_ip_lengths(index, out);
                open.write_transport_fields(index, self.size, index + 1 == self.count, out);
            }
            open.write_checksum(out);
        }
        length
    }

    /// The payload of segment `index`.
    fn part(&self, index: usize) -> &'a [u8] {
        let start = index.saturating_mul(self.size).min(self.payload.len());
        let end = start.saturating_add(self.size).min(self.payload.len());
        self.payload.get(start..end).unwrap_or_default()
    }
}

impl Open {
    fn new(ip: &IpPacket<'_>, transport: Transport, mode: ChecksumMode) -> Open {
        let pseudo = Sum::pseudo_header(ip.source(), ip.destination(), transport.protocol(), 0);
        let ipv4 = ip.is_ipv4().then(|| Ipv4::new(ip)).flatten();
        Open { mode, transport, transport_offset: ip.transport_offset(), pseudo, ipv4 }
    }

    fn write_ip_lengths(&self, index: usize, out: &mut [u8]) {
        // Neither cast can lose bits: a segment is no longer than the packet that it was cut from, and identifications
        // are counted modulo 2^16.
        let Some(ipv4) = &self.ipv4 else {
            let length = (out.len() - IPV6_HEADER) as u16;
            return put_word(out, IpPacket::V6_LENGTH_OFFSET, length);
        };
        let length = out.len() as u16;
        let identification = ipv4.identification.wrapping_add(index as u16);
        put_word(out, IpPacket::V4_LENGTH_OFFSET, length);
        put_word(out, IpPacket::V4_IDENTIFICATION_OFFSET, identification);
        let checksum = ipv4.sum.plus_word(length).plus_word(identification).checksum();
        put_word(out, IpPacket::V4_CHECKSUM_OFFSET, checksum);
    }

    fn write_transport_fields(&self, index: usize, size: usize, is_last: bool, out: &mut [u8]) {
        let Some(bytes) = out.get_mut(self.transport_offset..) else { return };
        match &self.transport {
            Transport::Tcp(tcp) => {
                let sequence = tcp.sequence.wrapping_add((index * size) as u32);
                let [high, low] = [(sequence >> 16) as u16, sequence as u16];
                put_word(bytes, TcpHeader::SEQUENCE_OFFSET, high);
                put_word(bytes, TcpHeader::SEQUENCE_OFFSET + 2, low);
                let not_here = match (index, is_last) {
                    (0, true) => 0,
                    (0, false) => TcpHeader::FIN | TcpHeader::PSH,
                    (_, true) => TcpHeader::CWR,
                    (_, false) => TcpHeader::CWR | TcpHeader::FIN | TcpHeader::PSH,
                };
                if let Some(flags) = bytes.get_mut(TcpHeader::FLAGS_OFFSET) {
                    *flags = tcp.flags & !not_here;
                }
            }
            Transport::Udp(_) => {
                let length = bytes.len() as u16;
                put_word(bytes, UdpHeader::LENGTH_OFFSET, length);
            }
        }
    }

    fn write_checksum(&self, out: &mut [u8]) {
        let Some(bytes) = out.get_mut(self.transport_offset..) else { return };
        let pseudo = self.pseudo.plus_length(bytes.len());
        match self.mode {
            ChecksumMode::Partial => put_word(bytes, self.transport.checksum_offset(), pseudo.fold()),
            ChecksumMode::Full => write_full_checksum(bytes, self.transport, pseudo),
        }
    }
}

impl Ipv4 {
    fn new(ip: &IpPacket<'_>) -> Option<Ipv4> {
        let header = ip.bytes().get(..ip.transport_offset())?;
        let (fixed, options) = header.split_first_chunk::<20>()?;
        let &[v, tos, _, _, id0, id1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = fixed;
        let constant = [v, tos, f0, f1, ttl, protocol, s0, s1, s2, s3, d0, d1, d2, d3];
        let sum = Sum::of(&constant).plus(Sum::of(options));
        Some(Ipv4 { identification: u16::from_be_bytes([id0, id1]), sum })
    }
}

/// Computes the checksum of a transport header with its payload. `pseudo` is the sum over the whole pseudo-header.
fn write_full_checksum(bytes: &mut [u8], transport: Transport, pseudo: Sum) {
    put_word(bytes, transport.checksum_offset(), 0);
    let checksum = match Sum::of(bytes).plus(pseudo).checksum() {
        // Zero would say "no checksum" in UDP, and both forms of zero verify in TCP.
        0 => 0xffff,
        checksum => checksum,
    };
    put_word(bytes, transport.checksum_offset(), checksum);
}

/// Why a packet has no checksum that could be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// It is no IP packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// It has no TCP or UDP header of its own.
    #[error("no TCP or UDP header to hold a checksum in a packet of protocol {protocol}")]
    Protocol {
        /// The packet's transport protocol.
        protocol: u8,
    },
}

/// Completes the open transport checksum of a received packet in place, for a TUN that takes no open checksums.
///
/// Where the checksum is, and what it covers, comes from the packet alone; what the field holds does not matter. Must
/// be called only for packets that their sender declared open: it would make any other one valid.
pub fn finish_checksum(packet: &mut [u8]) -> Result<(), ChecksumError> {
    let ip = IpPacket::parse(packet)?;
    let transport = ip.transport().ok_or(ChecksumError::Protocol { protocol: ip.protocol() })?;
    let pseudo = Sum::pseudo_header(ip.source(), ip.destination(), transport.protocol(), ip.payload().len());
    let start = ip.transport_offset();
    if let Some(bytes) = packet.get_mut(start..) {
        write_full_checksum(bytes, transport, pseudo);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Spec, any_payload, any_spec, plain_sum, pseudo_sum, transport_sum};
    use super::super::virtio::VirtioNetHeader;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The header that a kernel puts before `spec`; `size` zero asks for no segmentation.
    fn header(spec: &Spec, size: u16) -> [u8; VirtioNetHeader::LEN] {
        let gso_type = match (size, spec.udp, spec.v6) {
            (0, ..) => VirtioNetHeader::GSO_NONE,
            (_, true, _) => VirtioNetHeader::GSO_UDP_L4,
            (_, false, true) => VirtioNetHeader::GSO_TCPV6,
            (_, false, false) => VirtioNetHeader::GSO_TCPV4,
        };
        let start = spec.ip_header_len();
        let header = VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            gso_type,
            hdr_len: 0,
            gso_size: size,
            csum_start: start as u16,
            csum_offset: (spec.checksum_at() - start) as u16,
        };
        header.encode()
    }

    fn write_all(segments: &Segments<'_>) -> Vec<Vec<u8>> {
        let mut total = 0;
        let written = (0..segments.count())
            .map(|index| {
                let mut out = vec![0xee; segments.segment_len(index)];
                assert_eq!(segments.write(index, &mut out), out.len());
                assert_eq!(segments.write(index, &mut vec![0; out.len() - 1]), 0);
                total += out.len();
                out
            })
            .collect();
        assert_eq!(total, segments.total_len());
        assert_eq!(segments.write(segments.count(), &mut [0; 70_000]), 0);
        written
    }

    /// What a kernel without offload would have sent instead of `spec`.
    fn expected(spec: &Spec, size: usize) -> Vec<Spec> {
        let parts: Vec<&[u8]> = match spec.payload.is_empty() {
            true => vec![&[]],
            false => spec.payload.chunks(size).collect(),
        };
        let last = parts.len() - 1;
        let segment = |(index, part): (usize, &&[u8])| {
            let mut segment = spec.clone();
            segment.payload = part.to_vec();
            segment.id = spec.id.wrapping_add(index as u16);
            segment.sequence = spec.sequence.wrapping_add((index * size) as u32);
            segment.flags &= if index == 0 { 0xff } else { 0x7f };
            segment.flags &= if index == last { 0xff } else { 0xf6 };
            segment
        };
        parts.iter().enumerate().map(segment).collect()
    }

    #[test]
    fn a_packet_without_offload_is_copied() {
        let bytes = Spec::tcp(1, b"hello").build();
        let segments = Segments::new(&TunPacket::complete(&bytes).unwrap(), ChecksumMode::Partial);
        assert!(!segments.csum_partial());
        assert_eq!(write_all(&segments), [bytes]);
    }

    #[test]
    fn the_largest_packet() {
        let spec = Spec { flags: 0x99, ..Spec::tcp(u32::MAX - 1000, &vec![0x5a; 65_535 - 52]) };
        let bytes = spec.build_partial();
        let packet = TunPacket::parse(&header(&spec, 1348), &bytes).unwrap();
        let written = write_all(&Segments::new(&packet, ChecksumMode::Full));
        let wanted: Vec<_> = expected(&spec, 1348).iter().map(Spec::build).collect();
        assert_eq!(written, wanted);
        assert_eq!(written.len(), 49);
        assert!(written.iter().all(|segment| plain_sum(&segment[..20]) == 0xffff));
    }

    #[test]
    fn a_checksum_of_zero_is_written_as_ffff() {
        let mut spec = Spec { udp: true, ..Spec::tcp(0, &[0, 0]) };
        let sum = transport_sum(&spec.build_partial(), 20, true);
        // The field holds the pseudo-header's sum once more, so take that out.
        let without = plain_sum(&[sum.to_be_bytes(), (!pseudo_sum(&spec.build(), 20, true)).to_be_bytes()].concat());
        spec.payload = (!without).to_be_bytes().to_vec();
        let mut packet = spec.build_partial();
        finish_checksum(&mut packet).unwrap();
        assert_eq!(packet[26..28], [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn segments_are_those_of_a_kernel_without_offload(spec in any_spec(400), size in 1u16..120) {
            let bytes = spec.build_partial();
            let packet = TunPacket::parse(&header(&spec, size), &bytes).unwrap();
            let wanted = expected(&spec, usize::from(size));

            let full = Segments::new(&packet, ChecksumMode::Full);
            prop_assert!(!full.csum_partial());
            prop_assert_eq!(write_all(&full), wanted.iter().map(Spec::build).collect::<Vec<_>>());

            let partial = Segments::new(&packet, ChecksumMode::Partial);
            prop_assert!(partial.csum_partial());
            let mut written = write_all(&partial);
            prop_assert_eq!(&written, &wanted.iter().map(Spec::build_partial).collect::<Vec<_>>());
            for segment in &mut written {
                finish_checksum(segment).unwrap();
            }
            prop_assert_eq!(written, write_all(&full));
        }

        #[test]
        fn one_packet_with_an_open_checksum(spec in any_spec(400), garbage in any::<[u8; 2]>()) {
            let mut bytes = spec.build_partial();
            bytes[spec.checksum_at()..][..2].copy_from_slice(&garbage);
            let packet = TunPacket::parse(&header(&spec, 0), &bytes).unwrap();
            let full = Segments::new(&packet, ChecksumMode::Full);
            prop_assert_eq!(write_all(&full), [spec.build()]);
            let partial = Segments::new(&packet, ChecksumMode::Partial);
            prop_assert_eq!(write_all(&partial), [spec.build_partial()]);
            finish_checksum(&mut bytes).unwrap();
            prop_assert_eq!(bytes, spec.build());
        }

        #[test]
        fn any_bytes_are_segmented_or_refused(
            header in any::<[u8; 10]>(),
            spec in any_spec(100),
            damage in prop::collection::vec((0usize..60, any::<u8>()), 0..3),
            fitting in any::<bool>(),
            noise in any_payload(0..100),
        ) {
            let mut bytes = spec.build();
            for (at, byte) in damage {
                if let Some(target) = bytes.get_mut(at) {
                    *target = byte;
                }
            }
            let header = if fitting { self::header(&spec, u16::from(header[4])) } else { header };
            for bytes in [bytes, noise] {
                if let Ok(packet) = TunPacket::parse(&header, &bytes) {
                    for mode in [ChecksumMode::Full, ChecksumMode::Partial] {
                        write_all(&Segments::new(&packet, mode));
                    }
                }
                let mut received = bytes.clone();
                if finish_checksum(&mut received).is_err() {
                    prop_assert_eq!(received, bytes);
                }
            }
        }
    }
}
