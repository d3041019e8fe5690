//! What the hosts behind the nodes send each other: packets whose every byte is known beforehand.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vine_core::Instant;
use vine_core::overlay::{ChecksumMode, Prefix, Segments, TunPacket, VirtioNetHeader};

use super::op::Traffic;

const UDP: u8 = 17;
const TCP: u8 = 6;
/// RFC 3692: for experiments.
const RAW: u8 = 253;

/// Both ends of every flow.
const PORT: u16 = 7000;

/// The flag of a TCP segment that opens a connection.
const SYN: u8 = 2;

/// What a host takes in one segment that does not know of the tunnel: what Ethernet carries over IPv4.
const MSS: u16 = 1_460;

/// The least that a host may be told to send in one segment: what goes through a relay whole, in the longest packet that
/// IPv6 carries everywhere. Beside it there are IPv6 and UDP, two headers and a tag of vine's, then IPv6 and TCP again.
const LEAST_MSS: u16 = 1_280 - 48 - 48 - 60;

/// A host that does not exist.
const NOBODY: usize = 5000;

/// What is left of a maximal IP packet beside the longest headers used here.
const MAX_PAYLOAD: usize = 65_000;

/// The overlay address of a host.
pub fn overlay_address(host: usize, v6: bool) -> IpAddr {
    let [high, low] = (host as u16).to_be_bytes();
    match v6 {
        false => Ipv4Addr::new(10, 42 + high, low, 1).into(),
        true => Ipv6Addr::new(0xfd42, 0, 0, host as u16, 0, 0, 0, 1).into(),
    }
}

/// What a host owns.
pub fn overlay_prefixes(host: usize) -> Vec<Prefix> {
    let prefix = |v6, length| Prefix::containing(overlay_address(host, v6), length);
    vec![prefix(false, 24).expect("24 of 32 bits"), prefix(true, 64).expect("64 of 128 bits")]
}

/// One packet as the receiving host must see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    /// The host that sends.
    pub from: usize,
    /// The host that owns the destination.
    pub to: usize,
    protocol: u8,
    v6: bool,
    /// The number of the packet, or the TCP sequence number of its first byte.
    id: u64,
}

/// What is known of a packet that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    payload: usize,
    at: Instant,
    delivered: Option<Instant>,
    forbidden: bool,
}

/// A packet for `handle_tun`.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The ten bytes before it.
    pub header: [u8; VirtioNetHeader::LEN],
    /// The packet.
    pub bytes: Vec<u8>,
}

/// How packets of one direction between two hosts fared.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Packets handed to the node (segments counted).
    pub sent: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// When the one that was sent last of all delivered ones was sent.
    pub latest: Option<Instant>,
}

/// Everything that was sent, and what arrived of it.
#[derive(Debug, Default)]
pub struct Ledger {
    packets: BTreeMap<Key, Sent>,
    tallies: BTreeMap<(usize, usize), Tally>,
    sequences: BTreeMap<(usize, usize, bool), u32>,
    next_id: u64,
    /// Connections that were opened with shorter segments than the host asked for.
    pub clamped: u64,
}

impl Ledger {
    /// Makes packets of a kind and remembers them as sent.
    pub fn make(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        kind: Traffic,
        len: usize,
        count: usize,
    ) -> Vec<Offered> {
        let (len, count) = (len.clamp(8, MAX_PAYLOAD), count.max(1));
        let batched = count.min(MAX_PAYLOAD / len).max(1);
        match kind {
            Traffic::Udp4 | Traffic::Udp6 => {
                (0..count).map(|_| self.datagrams(now, from, to, kind == Traffic::Udp6, len, 1)).collect()
            }
            Traffic::Raw4 | Traffic::Raw6 => {
                (0..count).map(|_| self.raw(now, from, to, kind == Traffic::Raw6, len)).collect()
            }
            Traffic::Uso4 => vec![self.datagrams(now, from, to, false, len, batched)],
            Traffic::Tcp4 | Traffic::Tcp6 => vec![self.stream(now, from, to, kind == Traffic::Tcp6, len, batched)],
        }
    }

    /// The first packet of a TCP connection, which says how long segments it takes.
    pub fn open_connection(&mut self, now: Instant, from: usize, to: usize, v6: bool) -> Offered {
        let next = self.sequences.entry((from, to, v6)).or_insert(0xffff_0000);
        let sequence = *next;
        *next = next.wrapping_add(1);
        self.note(now, Key { from, to, protocol: TCP, v6, id: u64::from(sequence) }, 0);
        let mut bytes = ip_header((overlay_address(from, v6), overlay_address(to, v6)), TCP, 24);
        bytes.extend(PORT.to_be_bytes().into_iter().chain(PORT.to_be_bytes()));
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0x60, SYN, 0x10, 0, 0, 0, 0, 0, 2, 4]);
        bytes.extend(MSS.to_be_bytes());
        put_checksum(&mut bytes);
        let header = offload(&mut bytes, sequence.is_multiple_of(2), VirtioNetHeader::GSO_NONE, 0);
        Offered { header, bytes }
    }

    /// A packet that claims to come from `whose`, or goes to nobody: it must never arrive.
    pub fn forge(&mut self, now: Instant, from: usize, whose: usize, to: Option<usize>) -> Offered {
        let id = self.fresh_id();
        let to = to.unwrap_or(NOBODY);
        let key = Key { from: whose, to, protocol: UDP, v6: id.is_multiple_of(2), id };
        self.packets.insert(key, Sent { payload: 32, at: now, delivered: None, forbidden: true });
        let source = (overlay_address(whose, key.v6), overlay_address(to, key.v6));
        debug_assert!(whose != from || to == NOBODY);
        let bytes = udp_packet(source, &numbered(id, 32));
        Offered { header: VirtioNetHeader::default().encode(), bytes }
    }

    /// How packets from one host to another fared.
    pub fn tally(&self, from: usize, to: usize) -> Tally {
        self.tallies.get(&(from, to)).copied().unwrap_or_default()
    }

    /// How many packets from one host to another that were sent in `from_time..to_time` arrived, and how many there were.
    pub fn between(&self, from: usize, to: usize, since: Instant, until: Instant) -> (usize, usize) {
        let sent: Vec<&Sent> = self.of_pair(from, to).filter(|sent| sent.at >= since && sent.at < until).collect();
        (sent.iter().filter(|sent| sent.delivered.is_some()).count(), sent.len())
    }

    /// When the latest packet from one host to another arrived.
    pub fn latest_arrival(&self, from: usize, to: usize) -> Option<Instant> {
        self.of_pair(from, to).filter_map(|sent| sent.delivered).max()
    }

    /// The longest time in `since..until` during which nothing that was sent from one host to another arrived: from the
    /// last packet before that did to the first one after it, both by when they were sent.
    pub fn longest_gap(&self, from: usize, to: usize, since: Instant, until: Instant) -> Duration {
        self.longest_gap_of(0, from, to, since, until)
    }

    /// The same of packets with at least so many bytes of payload.
    pub fn longest_gap_of(&self, payload: usize, from: usize, to: usize, since: Instant, until: Instant) -> Duration {
        let arrived = |sent: &&Sent| sent.delivered.is_some() && sent.payload >= payload;
        let arrived = self.of_pair(from, to).filter(arrived).map(|sent| sent.at);
        let mut marks: Vec<Instant> = arrived.filter(|at| *at > since && *at < until).chain([since, until]).collect();
        marks.sort();
        marks.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// What was sent from one host to another and might arrive.
    fn of_pair(&self, from: usize, to: usize) -> impl Iterator<Item = &Sent> {
        let of_pair = self.packets.iter().filter(move |(key, _)| key.from == from && key.to == to);
        of_pair.map(|(_, sent)| sent).filter(|sent| !sent.forbidden)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&mut self, now: Instant, key: Key, payload: usize) {
        let sent = Sent { payload, at: now, delivered: None, forbidden: false };
        let former = self.packets.insert(key, sent);
        debug_assert!(former.is_none(), "the simulator numbers packets twice");
        self.tallies.entry((key.from, key.to)).or_default().sent += 1;
    }

    fn datagrams(&mut self, now: Instant, from: usize, to: usize, v6: bool, len: usize, count: usize) -> Offered {
        let mut payload = Vec::with_capacity(len * count);
        for _ in 0..count {
            let id = self.fresh_id();
            self.note(now, Key { from, to, protocol: UDP, v6, id }, len);
            payload.extend(numbered(id, len));
        }
        let mut bytes = udp_packet((overlay_address(from, v6), overlay_address(to, v6)), &payload);
        let gso_type = if count > 1 { VirtioNetHeader::GSO_UDP_L4 } else { VirtioNetHeader::GSO_NONE };
        let open = count > 1 || self.next_id.is_multiple_of(2);
        let header = offload(&mut bytes, open, gso_type, len);
        Offered { header, bytes }
    }

    fn raw(&mut self, now: Instant, from: usize, to: usize, v6: bool, len: usize) -> Offered {
        let id = self.fresh_id();
        self.note(now, Key { from, to, protocol: RAW, v6, id }, len);
        let mut bytes = ip_header((overlay_address(from, v6), overlay_address(to, v6)), RAW, len);
        bytes.extend(numbered(id, len));
        Offered { header: VirtioNetHeader::default().encode(), bytes }
    }

    fn stream(&mut self, now: Instant, from: usize, to: usize, v6: bool, mss: usize, count: usize) -> Offered {
        let total = mss * count;
        let next = self.sequences.entry((from, to, v6)).or_insert(0xffff_0000); // It wraps soon.
        let first = *next;
        *next = next.wrapping_add(total as u32);
        for segment in 0..count {
            let sequence = first.wrapping_add((segment * mss) as u32);
            self.note(now, Key { from, to, protocol: TCP, v6, id: u64::from(sequence) }, mss);
        }
        let mut bytes = ip_header((overlay_address(from, v6), overlay_address(to, v6)), TCP, 20 + total);
        bytes.extend(PORT.to_be_bytes().into_iter().chain(PORT.to_be_bytes()));
        bytes.extend(first.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0]);
        bytes.extend((0..total).map(|at| stream_byte(from, to, first.wrapping_add(at as u32))));
        put_checksum(&mut bytes);
        let gso_type = match (count > 1, v6) {
            (false, _) => VirtioNetHeader::GSO_NONE,
            (true, false) => VirtioNetHeader::GSO_TCPV4,
            (true, true) => VirtioNetHeader::GSO_TCPV6,
        };
        let open = count > 1 || first.is_multiple_of(2);
        let header = offload(&mut bytes, open, gso_type, mss);
        Offered { header, bytes }
    }

    /// Takes what a host reads from its TUN: perhaps several packets merged into one. Returns how many it was.
    ///
    /// # Panics
    /// Where one of them was never sent like that, was sent to somebody else, or has arrived before.
    pub fn receive(&mut self, now: Instant, host: usize, header: &VirtioNetHeader, parts: &[&[u8]]) -> u64 {
        let whole = parts.concat();
        let packet = TunPacket::parse(&header.encode(), &whole);
        let packet = packet.unwrap_or_else(|error| panic!("host {host} is given no packet: {error}"));
        let segments = Segments::new(&packet, ChecksumMode::Full);
        let mut room = vec![0; whole.len()];
        for index in 0..segments.count() {
            let len = segments.write(index, &mut room);
            self.check(now, host, &room[..len]);
        }
        segments.count() as u64
    }

    fn check(&mut self, now: Instant, host: usize, packet: &[u8]) {
        let seen = Seen::read(packet);
        let key = Key { from: seen.from, to: seen.to, protocol: seen.protocol, v6: seen.v6, id: seen.id };
        assert_eq!(key.to, host, "a packet for another host arrives: {key:?}");
        let sent = self.packets.get_mut(&key).unwrap_or_else(|| panic!("nobody sent this: {key:?}"));
        assert!(!sent.forbidden, "a forged packet arrives: {key:?}");
        assert!(sent.delivered.is_none(), "a packet arrives twice: {key:?}");
        assert_eq!(sent.payload, seen.payload.len(), "another length: {key:?}");
        let expected: Vec<u8> = match key.protocol {
            TCP => (0..sent.payload)
                .map(|at| stream_byte(key.from, key.to, (key.id as u32).wrapping_add(at as u32)))
                .collect(),
            _ => numbered(key.id, sent.payload),
        };
        assert!(expected == seen.payload, "another payload: {key:?}");
        if let Some(mss) = seen.mss {
            assert!((LEAST_MSS..=MSS).contains(&mss), "segments of {mss} bytes, where {MSS} were asked for: {key:?}");
            self.clamped += u64::from(mss < MSS);
        }
        sent.delivered = Some(now);
        let tally = self.tallies.entry((key.from, key.to)).or_default();
        tally.delivered += 1;
        tally.latest = tally.latest.max(Some(sent.at));
    }
}

/// A packet as its receiver reads it, by other code than vine's.
struct Seen<'a> {
    from: usize,
    to: usize,
    protocol: u8,
    v6: bool,
    id: u64,
    /// What it says of the length of segments, where it opens a connection.
    mss: Option<u16>,
    payload: &'a [u8],
}

impl Seen<'_> {
    fn read(packet: &[u8]) -> Seen<'_> {
        let v6 = packet[0] >> 4 == 6;
        let host = |at: usize| match v6 {
            false => usize::from(u16::from_be_bytes([packet[at + 1] - 42, packet[at + 2]])),
            true => usize::from(u16::from_be_bytes([packet[at + 6], packet[at + 7]])),
        };
        let (protocol, start, from, to) =
            if v6 { (packet[6], 40, host(8), host(24)) } else { (packet[9], 20, host(12), host(16)) };
        assert!(v6 || sum(&packet[..20]) == 0xffff, "a wrong IPv4 header checksum");
        if protocol != RAW {
            assert_eq!(transport_sum(packet), 0xffff, "a wrong transport checksum");
        }
        let payload = &packet[start
            + match protocol {
                UDP => 8,
                TCP => 4 * usize::from(packet[start + 12] >> 4),
                RAW => 0,
                other => panic!("nobody sends protocol {other}"),
            }..];
        let id = match protocol {
            TCP => u64::from(u32::from_be_bytes(bytes_at(packet, start + 4))),
            _ => u64::from_be_bytes(bytes_at(payload, 0)),
        };
        let opens = protocol == TCP && packet[start + 13] & SYN != 0;
        let mss = opens.then(|| u16::from_be_bytes(bytes_at(packet, start + 22)));
        Seen { from, to, protocol, v6, id, mss, payload }
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes")
}

/// The header before a packet, and the packet's checksum opened where the header says so.
fn offload(packet: &mut [u8], open: bool, gso_type: u8, size: usize) -> [u8; VirtioNetHeader::LEN] {
    if !open {
        return VirtioNetHeader::default().encode();
    }
    let start = if packet[0] >> 4 == 6 { 40 } else { 20 };
    let offset = if protocol_of(packet) == TCP { 16 } else { 6 };
    let pseudo = sum(&pseudo_header(packet, start));
    packet[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    let gso_size = if gso_type == VirtioNetHeader::GSO_NONE { 0 } else { size as u16 };
    let (csum_start, csum_offset) = (start as u16, offset as u16);
    VirtioNetHeader { flags: VirtioNetHeader::NEEDS_CSUM, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset }
        .encode()
}

fn udp_packet(addresses: (IpAddr, IpAddr), payload: &[u8]) -> Vec<u8> {
    let mut packet = ip_header(addresses, UDP, 8 + payload.len());
    packet.extend(PORT.to_be_bytes().into_iter().chain(PORT.to_be_bytes()));
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0; 2]);
    packet.extend(payload);
    put_checksum(&mut packet);
    packet
}

fn ip_header(addresses: (IpAddr, IpAddr), protocol: u8, payload: usize) -> Vec<u8> {
    match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + payload as u16).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(source.octets().into_iter().chain(destination.octets()));
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((payload as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(source.octets().into_iter().chain(destination.octets()));
            header
        }
        _ => unreachable!("both addresses are of one family"),
    }
}

/// Eight bytes of number, then bytes that follow from it.
fn numbered(id: u64, len: usize) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend((8..len).map(|at| mix(id, at as u64)));
    payload.truncate(len);
    payload
}

fn stream_byte(from: usize, to: usize, sequence: u32) -> u8 {
    mix((from as u64) << 32 | to as u64, u64::from(sequence))
}

fn mix(a: u64, b: u64) -> u8 {
    let mixed = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 56) as u8
}

fn protocol_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 6 { packet[6] } else { packet[9] }
}

fn put_checksum(packet: &mut [u8]) {
    let (start, protocol) = (if packet[0] >> 4 == 6 { 40 } else { 20 }, protocol_of(packet));
    let at = start + if protocol == TCP { 16 } else { 6 };
    let checksum = match !transport_sum(packet) {
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 1071, said plainly.
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(packet: &[u8], start: usize) -> Vec<u8> {
    let mut pseudo = packet[if start == 40 { 8..40 } else { 12..20 }].to_vec();
    pseudo.extend([0, protocol_of(packet)]);
    pseudo.extend(((packet.len() - start) as u16).to_be_bytes());
    pseudo
}

fn transport_sum(packet: &[u8]) -> u16 {
    let start = if packet[0] >> 4 == 6 { 40 } else { 20 };
    let mut bytes = pseudo_header(packet, start);
    bytes.extend(&packet[start..]);
    sum(&bytes)
}
