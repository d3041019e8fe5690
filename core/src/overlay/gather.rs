//! From packets of the path's size back to few large ones.

use core::net::IpAddr;

use heapless::Vec;

use super::checksum::{Sum, replace_word};
use super::packet::{Fragment, IPV6_HEADER, IpPacket, TCP, TcpHeader, Transport, UDP, UdpHeader, put_word, word};
use super::virtio::VirtioNetHeader;

/// Flows that can be gathered side by side. A receive buffer of 64 KiB holds some 45 full packets; with more flows than
/// this among them there is little to merge.
const SLOTS: usize = 8;
/// Packets in one write. A receive buffer holds no more (`UDP_GRO_CNT_MAX`), 64 KiB of full packets are 47, and every
/// Linux with UDP segmentation takes so many datagrams (`UDP_MAX_SEGMENTS`).
const MAX_PARTS: usize = 64;
/// Bytes of a merged packet: what the length field of IPv4 can say.
const MAX_PACKET: usize = 65_535;

/// What the TUN takes as one large packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// TCP segments (`TUN_F_TSO4`, `TUN_F_TSO6`).
    Tcp,
    /// TCP segments and UDP datagrams (`TUN_F_USO4` and `TUN_F_USO6` too, Linux 6.2).
    TcpAndUdp,
}

/// Merges the packets that were opened in one receive buffer into few large writes to the TUN.
///
/// Every packet goes in by [`Gather::push`] and comes out of the sink, alone or as part of a merged one: a
/// [`VirtioNetHeader`] and the slices to write behind it in one `writev`. The first slice begins with the headers, the
/// others are payload where it lies in the buffer. [`Gather::finish`] hands out what is still held back.
///
/// Packets are merged if cutting the result as the kernel does gives the same packets again: consecutive segments of
/// one flow, alike in every header field, of one size but for a shorter last one, without flags other than ACK and a
/// final PSH. (Where IPv4 forbids fragmentation the identification means nothing, RFC 6864, and may come out
/// otherwise.) The checksum of a merged packet is left open for the kernel. That vouches for the bytes, so only packets
/// whose checksum their sender left open under the seal, or that verifies here, are merged; others pass as they are.
///
/// Packets of one flow never overtake each other. Packets of different flows may.
///
/// ```
/// use vine_core::overlay::{Gather, Merge};
///
/// let mut buffer = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
/// let mut written = 0;
/// let mut sink = |_header: &_, parts: &[&[u8]]| written += parts.len();
/// let mut gather = Gather::new(Merge::Tcp);
/// gather.push(&mut buffer, false, &mut sink);
/// gather.finish(&mut sink);
/// assert_eq!(written, 1);
/// ```
#[derive(Debug)]
#[must_use = "packets are held back until `finish`"]
pub struct Gather<'a> {
    merge: Merge,
    /// Made when first needed, so that an empty gatherer costs next to nothing.
    slots: [Option<Slot<'a>>; SLOTS],
    /// The slot of the latest packet: the next one is most likely of the same flow.
    latest: usize,
    /// How many runs have begun.
    begun: u64,
}

/// Room for one run.
#[derive(Debug)]
struct Slot<'a> {
    run: Option<Run<'a>>,
    /// What the write consists of. The place of the head is kept free: it is still being changed.
    parts: Vec<&'a [u8], MAX_PARTS>,
}

/// Consecutive packets of a flow that will be one.
#[derive(Debug)]
struct Run<'a> {
    /// The first packet; its headers become those of all.
    head: &'a mut [u8],
    facts: Facts,
    /// Whether PSH is set in a packet of the run, always the last.
    push: bool,
    /// How many packets there are.
    count: usize,
    /// Bytes that the merged packet has so far.
    total: usize,
    /// When it began: its place among all runs.
    age: u64,
}

/// What is known of one packet.
#[derive(Clone, Copy, Debug)]
struct Facts {
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    transport_offset: usize,
    payload_len: usize,
    checksum: Checksum,
}

/// What is known of a packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// The sender left it open.
    Open,
    /// It is there, and has not been looked at.
    Unverified,
    /// It is there and right.
    Verified,
}

impl<'a> Gather<'a> {
    /// A gatherer that holds nothing, for one receive buffer.
    pub fn new(merge: Merge) -> Gather<'a> {
        Gather { merge, slots: core::array::from_fn(|_| None), latest: 0, begun: 0 }
    }

    /// Takes one packet, and hands out what it pushes ahead of itself. `csum_partial` is what its envelope said: the
    /// sender left the transport checksum open.
    pub fn push(
        &mut self,
        packet: &'a mut [u8],
        csum_partial: bool,
        sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]]),
    ) {
        let facts = match Facts::read(packet, csum_partial) {
            Ok(facts) => facts,
            Err(flow) => {
                // A fragment or a damaged packet may belong to any flow, and must not overtake it.
                if flow == NoFacts::FlowUnknown {
                    self.finish(sink);
                }
                return sink(&VirtioNetHeader::default(), &[packet]);
            }
        };
        if let Some(slot) = self.slot_of(&facts) {
            self.latest = slot;
            if self.continues(slot, packet, &facts) {
                return self.append(slot, packet, &facts, sink);
            }
            self.flush(slot, sink);
        }
        if facts.may_begin(packet, self.merge) {
            self.begin(packet, facts, sink);
        } else {
            write_alone(packet, &facts, sink);
        }
    }

    /// Hands out everything that is held back, oldest first.
    pub fn finish(&mut self, sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]])) {
        while let Some(slot) = self.oldest() {
            self.flush(slot, sink);
        }
    }

    /// The slot that holds the flow of this packet.
    fn slot_of(&self, facts: &Facts) -> Option<usize> {
        let holds = |slot: &usize| self.run(*slot).is_some_and(|run| run.facts.is_same_flow(facts));
        Some(self.latest).filter(holds).or_else(|| (0..SLOTS).find(holds))
    }

    /// The slot of the run that began first.
    fn oldest(&self) -> Option<usize> {
        let ages = (0..SLOTS).filter_map(|slot| Some((self.run(slot)?.age, slot)));
        ages.min().map(|(_, slot)| slot)
    }

    fn run(&self, slot: usize) -> Option<&Run<'a>> {
        self.slots.get(slot)?.as_ref()?.run.as_ref()
    }

    /// Whether the packet continues the run in `slot`.
    fn continues(&mut self, slot: usize, packet: &[u8], facts: &Facts) -> bool {
        let slot = self.slots.get_mut(slot).and_then(Option::as_mut);
        slot.and_then(|slot| slot.run.as_mut()).is_some_and(|run| run.takes(packet, facts))
    }

    /// Appends the packet to the run that it continues, and hands the run out if nothing can follow.
    fn append(
        &mut self,
        slot: usize,
        packet: &'a [u8],
        facts: &Facts,
        sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]]),
    ) {
        let Some(Some(Slot { run: Some(run), parts })) = self.slots.get_mut(slot) else { return };
        let payload = packet.get(facts.header_len()..).unwrap_or_default();
        // A run takes no more packets than it has parts.
        debug_assert!(!parts.is_full());
        let _ = parts.push(payload);
        run.count += 1;
        run.total += payload.len();
        run.push = facts.tcp_flags() & TcpHeader::PSH != 0;
        if run.is_closed() {
            self.flush(slot, sink);
        }
    }

    /// Begins a run with this packet. If all slots are taken, the oldest run goes out first.
    fn begin(&mut self, packet: &'a mut [u8], facts: Facts, sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]])) {
        let free = (0..SLOTS).find(|slot| self.run(*slot).is_none());
        let index = free.or_else(|| self.oldest()).unwrap_or_default();
        self.flush(index, sink);
        let Some(slot) = self.slots.get_mut(index) else { return write_alone(packet, &facts, sink) };
        let slot = slot.get_or_insert_with(|| Slot { run: None, parts: Vec::new() });
        let total = packet.len();
        slot.run = Some(Run { head: packet, facts, push: false, count: 1, total, age: self.begun });
        // The head's place. The slot is free, so there is room.
        let _ = slot.parts.push(&[]);
        self.begun += 1;
        self.latest = index;
    }

    /// Hands out the run in `slot`, if there is one.
    fn flush(&mut self, slot: usize, sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]])) {
        let Some(Some(slot)) = self.slots.get_mut(slot) else { return };
        let Some(run) = slot.run.take() else { return };
        if run.count == 1 {
            write_alone(run.head, &run.facts, sink);
        } else {
            let (header, head) = run.seal_headers();
            if let Some(first) = slot.parts.first_mut() {
                *first = head;
            }
            sink(&header, &slot.parts);
        }
        slot.parts.clear();
    }
}

impl<'a> Run<'a> {
    /// Whether nothing can follow: the latest packet was shorter, or pushes.
    fn is_closed(&self) -> bool {
        let full = self.head.len() + (self.count - 1) * self.facts.payload_len;
        self.push || self.total < full
    }

    /// Whether `packet` continues this run. Looks at checksums last: that reads the whole packet.
    fn takes(&mut self, packet: &[u8], facts: &Facts) -> bool {
        self.count < MAX_PARTS
            && (1..=self.facts.payload_len).contains(&facts.payload_len)
            && self.total + facts.payload_len <= MAX_PACKET
            && self.is_continued_by(packet, facts)
            && self.headers_agree(packet, facts)
            && self.has_same_ip_checksum(packet)
            && self.facts.verify(self.head)
            && { *facts }.verify(packet)
    }

    /// Whether sequence number, flags and identification are those that cutting would give the next packet.
    fn is_continued_by(&self, packet: &[u8], facts: &Facts) -> bool {
        let in_sequence = match (&self.facts.transport, &facts.transport) {
            (Transport::Tcp(first), Transport::Tcp(next)) => {
                let offset = (self.count * self.facts.payload_len) as u32;
                next.sequence == first.sequence.wrapping_add(offset) && next.flags & !TcpHeader::PSH == TcpHeader::ACK
            }
            (Transport::Udp(_), Transport::Udp(udp)) => facts.checksum == Checksum::Open || udp.checksum != 0,
            _ => false,
        };
        in_sequence && (self.facts.may_renumber(self.head) || self.counts_up_to(packet))
    }

    /// Whether the IPv4 identification counts up from the head's.
    fn counts_up_to(&self, packet: &[u8]) -> bool {
        let first = word(self.head, IpPacket::V4_IDENTIFICATION_OFFSET);
        let next = word(packet, IpPacket::V4_IDENTIFICATION_OFFSET);
        first.map(|first| first.wrapping_add(self.count as u16)) == next
    }

    /// Whether all header fields agree but lengths, identification, sequence number, PSH and checksums.
    fn headers_agree(&self, packet: &[u8], facts: &Facts) -> bool {
        let start = facts.transport_offset;
        if start != self.facts.transport_offset || facts.header_len() != self.facts.header_len() {
            return false;
        }
        let same = |from: usize, to: usize| self.head.get(from..to) == packet.get(from..to);
        let ip = match facts.source {
            // Version, header length and service; flags, time to live and protocol; addresses and options.
            IpAddr::V4(_) => same(0, 2) && same(6, 10) && same(12, start),
            // Version, class and flow label; next header, hop limit, addresses and extension headers.
            IpAddr::V6(_) => same(0, 4) && same(6, start),
        };
        let transport = match facts.transport {
            // Ports; acknowledgment and header length; window; urgent pointer and options.
            Transport::Tcp(_) => {
                same(start, start + 4)
                    && same(start + 8, start + TcpHeader::FLAGS_OFFSET)
                    && same(start + 14, start + TcpHeader::CHECKSUM_OFFSET)
                    && same(start + 18, facts.header_len())
            }
            Transport::Udp(_) => same(start, start + 4),
        };
        ip && transport
    }

    /// Whether an IPv4 header that agrees with the head's has a right checksum if and only if the head has: then what
    /// may differ has the same sum in both. The merged header's is right in the same case, as it is changed by what
    /// changes under it.
    fn has_same_ip_checksum(&self, packet: &[u8]) -> bool {
        let varying = |bytes: &[u8]| {
            let length = word(bytes, IpPacket::V4_LENGTH_OFFSET)?;
            let identification = word(bytes, IpPacket::V4_IDENTIFICATION_OFFSET)?;
            let checksum = word(bytes, IpPacket::V4_CHECKSUM_OFFSET)?;
            Some(Sum::default().plus_word(length).plus_word(identification).plus_word(checksum).fold())
        };
        self.facts.source.is_ipv6() || varying(self.head) == varying(packet)
    }

    /// Turns the head's headers into those of the merged packet.
    fn seal_headers(self) -> (VirtioNetHeader, &'a [u8]) {
        let Run { head, facts, push, total, .. } = self;
        // No cast loses bits: no merged packet is longer than MAX_PACKET.
        let gso_type = match (facts.source, facts.transport) {
            (_, Transport::Udp(_)) => VirtioNetHeader::GSO_UDP_L4,
            (IpAddr::V4(_), Transport::Tcp(_)) => VirtioNetHeader::GSO_TCPV4,
            (IpAddr::V6(_), Transport::Tcp(_)) => VirtioNetHeader::GSO_TCPV6,
        };
        match facts.source {
            IpAddr::V4(_) => {
                let was = word(head, IpPacket::V4_LENGTH_OFFSET).unwrap_or_default();
                let checksum = word(head, IpPacket::V4_CHECKSUM_OFFSET).unwrap_or_default();
                put_word(head, IpPacket::V4_LENGTH_OFFSET, total as u16);
                put_word(head, IpPacket::V4_CHECKSUM_OFFSET, replace_word(checksum, was, total as u16));
            }
            IpAddr::V6(_) => {
                put_word(head, IpPacket::V6_LENGTH_OFFSET, (total - IPV6_HEADER) as u16);
            }
        }
        let start = facts.transport_offset;
        match facts.transport {
            Transport::Udp(_) => put_word(head, start + UdpHeader::LENGTH_OFFSET, (total - start) as u16),
            Transport::Tcp(_) if push => {
                if let Some(flags) = head.get_mut(start + TcpHeader::FLAGS_OFFSET) {
                    *flags |= TcpHeader::PSH;
                }
            }
            Transport::Tcp(_) => {}
        }
        let open = facts.open_checksum(head, total);
        let header = VirtioNetHeader {
            gso_type,
            hdr_len: facts.header_len() as u16,
            gso_size: facts.payload_len as u16,
            ..open
        };
        (header, head)
    }
}

/// Why a packet cannot be part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoFacts {
    /// It is of a protocol without flows.
    OtherProtocol,
    /// It may belong to any flow.
    FlowUnknown,
}

impl Facts {
    fn read(packet: &[u8], csum_partial: bool) -> Result<Facts, NoFacts> {
        let ip = IpPacket::parse(packet).map_err(|_| NoFacts::FlowUnknown)?;
        let is_other = ip.fragment() == Fragment::Whole && !matches!(ip.protocol(), TCP | UDP);
        let why_not = if is_other { NoFacts::OtherProtocol } else { NoFacts::FlowUnknown };
        let transport = ip.transport().ok_or(why_not)?;
        Ok(Facts {
            source: ip.source(),
            destination: ip.destination(),
            transport,
            transport_offset: ip.transport_offset(),
            payload_len: ip.payload().len() - transport.header_len(),
            checksum: if csum_partial { Checksum::Open } else { Checksum::Unverified },
        })
    }

    /// Bytes of the IP and transport headers.
    const fn header_len(&self) -> usize {
        self.transport_offset + self.transport.header_len()
    }

    /// The TCP flags; none for UDP.
    const fn tcp_flags(&self) -> u8 {
        match self.transport {
            Transport::Tcp(tcp) => tcp.flags,
            Transport::Udp(_) => 0,
        }
    }

    fn is_same_flow(&self, other: &Facts) -> bool {
        self.transport.ports() == other.transport.ports()
            && self.transport.protocol() == other.transport.protocol()
            && self.source == other.source
            && self.destination == other.destination
    }

    /// Whether a run may begin with this packet: there must be hope that another one follows.
    fn may_begin(&self, packet: &[u8], merge: Merge) -> bool {
        let fit = match self.transport {
            // PSH would end the run at once.
            Transport::Tcp(tcp) => tcp.flags == TcpHeader::ACK,
            Transport::Udp(udp) => merge == Merge::TcpAndUdp && (self.checksum == Checksum::Open || udp.checksum != 0),
        };
        fit && self.payload_len > 0 && packet.len() <= MAX_PACKET
    }

    /// Whether the packet has no identification, or one that means nothing: DF is set (RFC 6864 section 4.1).
    fn may_renumber(&self, packet: &[u8]) -> bool {
        self.source.is_ipv6() || packet.get(6).is_some_and(|flags| flags & 0x40 != 0)
    }

    /// Whether the transport checksum is open or right. It is computed at most once.
    fn verify(&mut self, packet: &[u8]) -> bool {
        if self.checksum == Checksum::Unverified {
            let bytes = packet.get(self.transport_offset..).unwrap_or_default();
            if self.pseudo_header(packet.len()).plus(Sum::of(bytes)).fold() == 0xffff {
                self.checksum = Checksum::Verified;
            }
        }
        self.checksum != Checksum::Unverified
    }

    /// The pseudo-header's sum for a packet of `total` bytes.
    fn pseudo_header(&self, total: usize) -> Sum {
        let length = total - self.transport_offset;
        Sum::pseudo_header(self.source, self.destination, self.transport.protocol(), length)
    }

    /// Opens the checksum in the headers of a packet of `total` bytes, and says so.
    fn open_checksum(&self, headers: &mut [u8], total: usize) -> VirtioNetHeader {
        let offset = self.transport.checksum_offset();
        put_word(headers, self.transport_offset + offset, self.pseudo_header(total).fold());
        VirtioNetHeader {
            flags: VirtioNetHeader::NEEDS_CSUM,
            csum_start: self.transport_offset as u16,
            csum_offset: offset as u16,
            ..VirtioNetHeader::default()
        }
    }
}

/// Hands out one packet by itself. Only an open checksum is touched: its offsets and the field come from the packet.
fn write_alone(packet: &mut [u8], facts: &Facts, sink: &mut impl FnMut(&VirtioNetHeader, &[&[u8]])) {
    let header = match facts.checksum {
        Checksum::Open => facts.open_checksum(packet, packet.len()),
        Checksum::Unverified | Checksum::Verified => VirtioNetHeader::default(),
    };
    sink(&header, &[packet]);
}

#[cfg(test)]
mod tests {
    use super::super::segment::{ChecksumMode, Segments, finish_checksum};
    use super::super::testing::{Spec, any_payload, any_spec, plain_sum};
    use super::super::virtio::TunPacket;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    // `Vec` is the one of heapless in this file.
    type List<T> = alloc::vec::Vec<T>;
    type Bytes = List<u8>;

    /// One write to the TUN.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Write {
        header: VirtioNetHeader,
        parts: usize,
        bytes: Bytes,
    }

    fn gather(merge: Merge, packets: &mut [(Bytes, bool)]) -> List<Write> {
        let mut writes = vec![];
        let mut sink = |header: &VirtioNetHeader, parts: &[&[u8]]| {
            writes.push(Write { header: *header, parts: parts.len(), bytes: parts.concat() });
        };
        let mut gather = Gather::new(merge);
        for (packet, csum_partial) in packets {
            gather.push(packet, *csum_partial, &mut sink);
        }
        gather.finish(&mut sink);
        gather.finish(&mut |_, _| panic!("all was handed out"));
        writes
    }

    /// What a kernel makes of a write: packets of the path's size, as an application's socket would see them.
    fn kernel(write: &Write) -> List<Bytes> {
        let packet = match TunPacket::parse(&write.header.encode(), &write.bytes) {
            Ok(packet) => packet,
            Err(error) => {
                assert_eq!((write.header, write.parts), (VirtioNetHeader::default(), 1), "{error}");
                return vec![write.bytes.clone()];
            }
        };
        let segments = Segments::new(&packet, ChecksumMode::Full);
        assert_eq!(segments.count(), write.parts);
        let cut = |index| {
            let mut out = vec![0; segments.segment_len(index)];
            segments.write(index, &mut out);
            out
        };
        (0..segments.count()).map(cut).collect()
    }

    fn in_order(count: usize, size: usize) -> impl Iterator<Item = Spec> {
        (0..count)
            .map(move |index| Spec { id: index as u16, ..Spec::tcp((index * size) as u32, &vec![index as u8; size]) })
    }

    #[test]
    fn a_run_becomes_one_write() {
        for partial in [false, true] {
            let build = |spec: Spec| (if partial { spec.build_partial() } else { spec.build() }, partial);
            let mut packets: List<_> = in_order(10, 100).map(build).collect();
            let writes = gather(Merge::Tcp, &mut packets);
            assert_eq!(writes.len(), 1);
            let header = VirtioNetHeader {
                flags: 1,
                gso_type: VirtioNetHeader::GSO_TCPV4,
                hdr_len: 52,
                gso_size: 100,
                csum_start: 20,
                csum_offset: 16,
            };
            assert_eq!((writes[0].header, writes[0].parts), (header, 10));
            assert_eq!(kernel(&writes[0]), in_order(10, 100).map(|spec| spec.build()).collect::<List<_>>());
        }
    }

    #[test]
    fn interleaved_flows_are_merged_each() {
        let mut packets = vec![];
        for spec in in_order(5, 100) {
            for port in 0..SLOTS as u16 {
                packets.push((Spec { port, ..spec.clone() }.build(), false));
            }
        }
        let writes = gather(Merge::Tcp, &mut packets);
        assert_eq!(writes.iter().map(|write| write.parts).collect::<List<_>>(), [5; SLOTS]);
    }

    #[test]
    fn the_oldest_run_goes_first() {
        // Port 0 gets a second packet and is older all the same; one flow more than there are slots pushes it out.
        let ports = [0, 1, 0, 2, 3, 4, 5, 6, 7, 8];
        let specs = ports.map(|port| Spec { port, ..Spec::tcp(0, &[7; 100]) });
        let mut packets: List<_> = specs.map(|spec| (spec.build(), false)).into();
        packets[2] = (Spec { port: 0, ..Spec::tcp(100, &[7; 100]) }.build(), false);
        let writes = gather(Merge::Tcp, &mut packets);
        let order: List<_> = writes.iter().map(|write| (write.bytes[21], write.parts)).collect();
        assert_eq!(order, [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)]);
        // A slot that was used before holds the youngest run.
        let ports = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut packets: List<_> = ports.map(|port| (Spec { port, ..Spec::tcp(0, &[7; 100]) }.build(), false)).into();
        let writes = gather(Merge::Tcp, &mut packets);
        assert_eq!(writes.iter().map(|write| u16::from(write.bytes[21])).collect::<List<_>>(), ports);
    }

    #[test]
    fn a_merged_packet_is_no_longer_than_ipv4_can_say() {
        for v6 in [false, true] {
            let specs: List<_> = in_order(60, 1400).map(|spec| Spec { v6, ..spec }).collect();
            let mut packets: List<_> = specs.iter().map(|spec| (spec.build(), false)).collect();
            let writes = gather(Merge::Tcp, &mut packets);
            assert_eq!(writes.iter().map(|write| write.parts).collect::<List<_>>(), [46, 14]);
            assert_eq!(writes.iter().flat_map(kernel).count(), 60);
        }
    }

    #[test]
    fn ip_options_must_agree() {
        for v6 in [false, true] {
            let specs: List<_> = in_order(3, 100).map(|spec| Spec { v6, ip_options: 1, ..spec }).collect();
            let mut packets: List<_> = specs.iter().map(|spec| (spec.build(), false)).collect();
            assert_eq!(gather(Merge::Tcp, &mut packets.clone()).len(), 1);
            // Two words of the options change so that the IPv4 checksum stays right.
            let options = specs[1].ip_header_len() - 4;
            packets[1].0[options + 1] += 1;
            packets[1].0[options + 3] = packets[1].0[options + 3].wrapping_sub(1);
            assert_eq!(gather(Merge::Tcp, &mut packets).len(), 3);
        }
    }

    #[test]
    fn what_ends_a_run() {
        let parts_after = |change: &dyn Fn(&mut Spec)| {
            let mut specs: List<_> = in_order(4, 100).collect();
            change(&mut specs[2]);
            let mut packets: List<_> = specs.iter().map(|spec| (spec.build(), false)).collect();
            gather(Merge::Tcp, &mut packets).iter().map(|write| write.parts).collect::<List<_>>()
        };
        assert_eq!(parts_after(&|_| ()), [4]);
        assert_eq!(parts_after(&|spec| spec.flags |= 0x08), [3, 1], "PSH goes with what came before");
        assert_eq!(parts_after(&|spec| spec.flags |= 0x01), [2, 1, 1], "FIN");
        assert_eq!(parts_after(&|spec| spec.flags |= 0x02), [2, 1, 1], "SYN");
        assert_eq!(parts_after(&|spec| spec.flags |= 0x20), [2, 1, 1], "URG");
        assert_eq!(parts_after(&|spec| spec.flags = 0), [2, 1, 1], "no ACK");
        assert_eq!(parts_after(&|spec| spec.sequence += 1), [2, 1, 1]);
        assert_eq!(parts_after(&|spec| spec.payload.truncate(99)), [3, 1], "a shorter one is the last");
        assert_eq!(parts_after(&|spec| spec.payload.push(0)), [2, 1, 1], "a longer one is not");
        assert_eq!(parts_after(&|spec| spec.payload.clear()), [2, 1, 1], "a bare ACK keeps its place");
        assert_eq!(parts_after(&|spec| spec.tos = 3), [2, 1, 1], "a congestion mark");
        assert_eq!(parts_after(&|spec| spec.tcp_options = 2), [2, 1, 1]);
        assert_eq!(parts_after(&|spec| spec.dont_fragment = false), [2, 1, 1]);
        assert_eq!(parts_after(&|spec| spec.id = 99), [4], "DF makes identifications meaningless");
    }

    #[test]
    fn identifications_count_up_where_they_mean_something() {
        let specs: List<_> = in_order(4, 100).map(|spec| Spec { dont_fragment: false, ..spec }).collect();
        let mut packets: List<_> = specs.iter().map(|spec| (spec.build(), false)).collect();
        assert_eq!(gather(Merge::Tcp, &mut packets).len(), 1);
        let mut packets: List<_> = specs.into_iter().map(|spec| (Spec { id: 5, ..spec }.build(), false)).collect();
        assert_eq!(gather(Merge::Tcp, &mut packets).len(), 4);
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right() {
        for (wrong, expected) in [(0, vec![1, 3]), (1, vec![1, 1, 2]), (3, vec![3, 1])] {
            let mut packets: List<_> = in_order(4, 100).map(|spec| (spec.build(), false)).collect();
            packets[wrong].0[60] ^= 1;
            let before = packets[wrong].0.clone();
            let writes = gather(Merge::Tcp, &mut packets);
            assert_eq!(writes.iter().map(|write| write.parts).collect::<List<_>>(), expected);
            let untouched = writes.iter().find(|write| write.bytes == before).expect("it passes as it is");
            assert_eq!(untouched.header, VirtioNetHeader::default());
        }
    }

    #[test]
    fn a_fragment_overtakes_nothing() {
        let mut fragment = Spec::tcp(0, b"fragment").build();
        fragment[7] = 1;
        let mut ping = fragment.clone();
        (ping[7], ping[9]) = (0, 1);
        let mut packets: List<_> = in_order(2, 100).map(|spec| (spec.build(), false)).collect();
        packets.push((ping, true));
        packets.push((fragment, true));
        let parts: List<_> = gather(Merge::Tcp, &mut packets).iter().map(|write| write.parts).collect();
        assert_eq!(parts, [1, 2, 1], "the ping goes ahead, the fragment waits");
    }

    #[test]
    fn datagrams_are_merged_where_the_tun_takes_them() {
        let specs = in_order(70, 50).map(|spec| Spec { udp: true, v6: true, ..spec });
        let packets: List<_> = specs.map(|spec| (spec.build(), false)).collect();
        assert_eq!(gather(Merge::Tcp, &mut packets.clone()).len(), 70);
        let writes = gather(Merge::TcpAndUdp, &mut packets.clone());
        assert_eq!(writes.iter().map(|write| write.parts).collect::<List<_>>(), [MAX_PARTS, 6]);
        assert_eq!(writes[0].header.gso_type, VirtioNetHeader::GSO_UDP_L4);
        let cut: List<_> = writes.iter().flat_map(kernel).collect();
        assert_eq!(cut, packets.iter().map(|(packet, _)| packet.clone()).collect::<List<_>>());
    }

    /// A packet of one of a few flows, mostly the one that continues the flow; sometimes damaged.
    #[derive(Clone, Debug)]
    struct Step {
        port: u16,
        udp: bool,
        length: usize,
        flags: u8,
        jump: bool,
        tos: u8,
        open: bool,
        damage: Option<usize>,
    }

    fn step() -> impl Strategy<Value = Step> {
        let rarely = |weight: u32| prop::bool::weighted(1.0 / f64::from(weight));
        let flags = prop_oneof![16 => Just(0x10u8), 3 => Just(0x18), 1 => any::<u8>()];
        let length = prop_oneof![8 => Just(60usize), 1 => 0usize..60, 1 => Just(61)];
        let damage = prop::option::weighted(0.05, 0usize..120);
        (0u16..12, rarely(3), length, flags, rarely(20), rarely(20), any::<bool>(), damage).prop_map(
            |(port, udp, length, flags, jump, tos, open, damage)| Step {
                // Few flows most of the time, sometimes more than there are slots.
                port: if port < 9 { port % 3 } else { port },
                udp,
                length,
                flags,
                jump,
                tos: u8::from(tos),
                open,
                damage,
            },
        )
    }

    /// Packets as they arrive, with what their envelopes say.
    fn stream(v6: bool, dont_fragment: bool, steps: &[Step]) -> List<(Bytes, bool)> {
        let mut sequences = [0u32; 24];
        let mut ids = [0u16; 24];
        let make = |step: &Step| {
            let flow = usize::from(step.port) * 2 + usize::from(step.udp);
            sequences[flow] = sequences[flow].wrapping_add(if step.jump { 1000 } else { 0 });
            let spec = Spec {
                v6,
                udp: step.udp,
                dont_fragment,
                port: step.port,
                id: ids[flow],
                tos: step.tos,
                flags: step.flags,
                ..Spec::tcp(sequences[flow], &vec![step.length as u8; step.length])
            };
            sequences[flow] = sequences[flow].wrapping_add(step.length as u32);
            ids[flow] = ids[flow].wrapping_add(1);
            let mut packet = if step.open { spec.build_partial() } else { spec.build() };
            if let Some(byte) = step.damage.and_then(|at| packet.get_mut(at)) {
                *byte ^= 0x11;
            }
            (packet, step.open)
        };
        steps.iter().map(make).collect()
    }

    /// What a flow's receiver gets, with the identifications of unfragmentable packets taken out.
    fn as_received(mut packet: Bytes) -> Bytes {
        let dont_fragment = packet[0] >> 4 == 4 && packet[6] & 0x40 != 0;
        if dont_fragment && plain_sum(&packet[..20]) == 0xffff {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    }

    /// Addresses, protocol and ports.
    fn flow_of(packet: &[u8]) -> Option<(Bytes, u8, (u16, u16))> {
        let ip = IpPacket::parse(packet).ok()?;
        let transport = ip.transport()?;
        let addresses = if ip.is_ipv4() { &packet[12..20] } else { &packet[8..40] };
        Some((addresses.to_vec(), transport.protocol(), transport.ports()))
    }

    proptest! {
        #[test]
        fn gathering_undoes_cutting(
            spec in any_spec(0),
            payload in any_payload(1..=6000),
            push in any::<bool>(),
            size in 50u16..1400,
            mode in prop::sample::select(&[ChecksumMode::Partial, ChecksumMode::Full]),
        ) {
            let flags = if push { 0x18 } else { 0x10 };
            let spec = Spec { flags, payload, ..spec };
            let large = spec.build_partial();
            let start = spec.ip_header_len();
            let header = VirtioNetHeader {
                flags: VirtioNetHeader::NEEDS_CSUM,
                gso_type: match (spec.udp, spec.v6) {
                    (true, _) => VirtioNetHeader::GSO_UDP_L4,
                    (false, true) => VirtioNetHeader::GSO_TCPV6,
                    (false, false) => VirtioNetHeader::GSO_TCPV4,
                },
                hdr_len: spec.header_len() as u16,
                gso_size: size,
                csum_start: start as u16,
                csum_offset: (spec.checksum_at() - start) as u16,
            };
            let packet = TunPacket::parse(&header.encode(), &large).unwrap();
            let segments = Segments::new(&packet, mode);
            let cut = |index| {
                let mut out = vec![0; segments.segment_len(index)];
                segments.write(index, &mut out);
                (out, segments.csum_partial())
            };
            let mut packets: List<_> = (0..segments.count()).map(cut).collect();
            prop_assume!(packets.len() <= MAX_PARTS);
            let merged = packets.len() > 1;
            let writes = gather(Merge::TcpAndUdp, &mut packets);
            prop_assert_eq!(writes.len(), 1);
            let expected = if merged || mode == ChecksumMode::Partial { large.clone() } else { spec.build() };
            prop_assert_eq!(&writes[0].bytes, &expected);
            if merged {
                prop_assert_eq!(writes[0].header, header);
            }
        }

        #[test]
        fn every_flow_gets_what_it_was_sent(
            v6 in any::<bool>(),
            dont_fragment in any::<bool>(),
            merge in prop::sample::select(&[Merge::Tcp, Merge::TcpAndUdp]),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut packets = stream(v6, dont_fragment, &steps);
            let mut sent = packets.clone();
            for (packet, open) in &mut sent {
                // The receiver of a packet that was declared open takes its bytes as they came through the seal.
                if *open {
                    let _ = finish_checksum(packet);
                }
            }
            let writes = gather(merge, &mut packets);
            let received: List<Bytes> = writes.iter().flat_map(kernel).map(as_received).collect();
            let sent: List<Bytes> = sent.into_iter().map(|(packet, _)| as_received(packet)).collect();
            prop_assert_eq!(received.len(), sent.len());
            for packet in &sent {
                let flow = flow_of(packet);
                let of_flow = |packets: &[Bytes]| {
                    packets.iter().filter(|other| flow_of(other) == flow).cloned().collect::<List<_>>()
                };
                prop_assert_eq!(of_flow(&received), of_flow(&sent));
            }
            prop_assert!(writes.iter().all(|write| write.bytes.len() <= MAX_PACKET && write.parts <= MAX_PARTS));
        }

        #[test]
        fn any_bytes_pass(
            packets in prop::collection::vec((any_payload(0..100), any::<bool>()), 0..20),
            merge in prop::sample::select(&[Merge::Tcp, Merge::TcpAndUdp]),
        ) {
            let mut packets = packets;
            let before: List<Bytes> = packets.iter().map(|(packet, _)| packet.clone()).collect();
            let writes = gather(merge, &mut packets);
            prop_assert_eq!(writes.into_iter().map(|write| write.bytes).collect::<List<_>>(), before);
        }
    }
}
