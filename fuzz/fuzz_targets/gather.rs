//! Gathering: whatever packets come, cutting what was written as a kernel does gives the same packets again, in order
//! within each flow, and nothing of unknown flow overtakes or is overtaken.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{
    ChecksumMode, Fragment, Gather, IpPacket, Merge, Segments, Transport, TunPacket, VirtioNetHeader, finish_checksum,
};
use vine_fuzz::packets::{Packet, plain_sum, put};
use vine_fuzz::{Edit, pattern};

#[derive(Arbitrary, Debug)]
enum Item<'a> {
    /// One packet.
    One(Packet, Finish),
    /// A packet cut into many, as a bulk transfer sends them; the last may push.
    Run {
        of: Packet,
        size: u8,
        count: u8,
        /// One of them may be of another variant.
        odd_one: u8,
        variant: u8,
        finish: Finish,
    },
    Raw(&'a [u8], bool),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Finish {
    Complete,
    Open,
    /// Complete, and then changed.
    Changed(Edit),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    udp: bool,
    items: Vec<Item<'a>>,
}

/// Bytes of all packets together, at most: more than the largest packet that they may be merged into.
const MAX_INPUT: usize = 80 * 1024;

fn finished(packet: &Packet, finish: Finish) -> (Vec<u8>, bool) {
    match finish {
        Finish::Complete => (packet.build(), false),
        Finish::Open => (packet.build_open(), true),
        Finish::Changed(edit) => {
            let mut bytes = packet.build();
            edit.apply(&mut bytes);
            (bytes, false)
        }
    }
}

fn packets(items: Vec<Item<'_>>) -> Vec<(Vec<u8>, bool)> {
    let mut packets: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut total = 0;
    for item in items {
        let made = match item {
            Item::One(packet, finish) => vec![finished(&packet, finish)],
            Item::Run { mut of, size, count, odd_one, variant, finish } => {
                // Once in a while as large as packets of a real path, so that they reach the limits of one packet.
                let large = count >= 0xf8;
                let size = if large { 1_200 + usize::from(size) } else { usize::from(size % 64) + 1 };
                of.payload = pattern(7, size * usize::from(count % 80) + usize::from(count % 3));
                let mut segments = of.segments(size);
                if let Some(segment) = segments.get_mut(usize::from(odd_one)) {
                    segment.variant ^= 1 << (variant % 8);
                }
                let last = segments.len() - 1;
                let plain = |index| if index == last { finish } else { whole(finish) };
                segments.iter().enumerate().map(|(index, segment)| finished(segment, plain(index))).collect()
            }
            Item::Raw(bytes, open) => vec![(bytes.to_vec(), open)],
        };
        total += made.iter().map(|(bytes, _)| bytes.len()).sum::<usize>();
        if total > MAX_INPUT {
            break;
        }
        packets.extend(made);
    }
    packets
}

/// Only the last packet of a run is changed.
fn whole(finish: Finish) -> Finish {
    if matches!(finish, Finish::Changed(_)) { Finish::Complete } else { finish }
}

/// Which packets stay in order among themselves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Flow {
    Of(std::net::IpAddr, std::net::IpAddr, u8, (u16, u16)),
    /// Another protocol.
    Other,
    /// It may belong to any.
    Unknown,
}

fn flow(bytes: &[u8]) -> Flow {
    let Ok(ip) = IpPacket::parse(bytes) else { return Flow::Unknown };
    match ip.transport() {
        Some(transport) => Flow::Of(ip.source(), ip.destination(), ip.protocol(), transport.ports()),
        None if ip.fragment() == Fragment::Whole && !matches!(ip.protocol(), 6 | 17) => Flow::Other,
        None => Flow::Unknown,
    }
}

/// Whether the receiving kernel takes the IP header.
fn has_right_header(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| first >> 4 != 4 || plain_sum(&bytes[..usize::from(first & 15) * 4]) == 0xffff)
}

/// A packet without what may come out otherwise: the identification where DF makes it mean nothing, how an IPv4 header's
/// checksum is right or wrong, and which of the two zeros a TCP checksum is.
fn normal(mut bytes: Vec<u8>, right_header: bool) -> Vec<u8> {
    let Ok(ip) = IpPacket::parse(&bytes) else { return bytes };
    let tcp = matches!(ip.transport(), Some(Transport::Tcp(_))).then(|| ip.transport_offset() + 16);
    if let Some(field) = tcp.filter(|field| bytes[*field..*field + 2] == [0, 0]) {
        put(&mut bytes, field, 0xffff);
    }
    if bytes[0] >> 4 == 4 {
        put(&mut bytes, 10, u16::from(right_header));
        if bytes[6] & 0x40 != 0 {
            put(&mut bytes, 4, 0);
        }
    }
    bytes
}

/// The packets that a write to the TUN stands for.
fn cut(header: &VirtioNetHeader, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let bytes = parts.concat();
    let is_packet = IpPacket::parse(&bytes).is_ok();
    // A kernel drops what has a wrong header before it is cut, or cuts it into as many that it would drop.
    let right = is_packet && has_right_header(&bytes);
    if *header == VirtioNetHeader::default() {
        return vec![normal(bytes, right)];
    }
    let packet = TunPacket::parse(&header.encode(), &bytes).expect("the kernel takes what is written");
    let segments = Segments::new(&packet, ChecksumMode::Full);
    let write = |index| {
        let mut out = vec![0; segments.segment_len(index)];
        segments.write(index, &mut out);
        normal(out, right)
    };
    (0..segments.count()).map(write).collect()
}

fuzz_target!(|input: Input<'_>| {
    let merge = if input.udp { Merge::TcpAndUdp } else { Merge::Tcp };
    let mut packets = packets(input.items);
    let expected: Vec<(Flow, Vec<u8>)> = packets
        .iter()
        .map(|(bytes, open)| {
            let mut bytes = bytes.clone();
            if *open {
                // What has no place for a checksum passes as it is.
                let _ = finish_checksum(&mut bytes);
            }
            let right = IpPacket::parse(&bytes).is_ok() && has_right_header(&bytes);
            (flow(&bytes), normal(bytes, right))
        })
        .collect();

    let mut written: Vec<(Flow, Vec<u8>)> = Vec::new();
    let mut sink = |header: &VirtioNetHeader, parts: &[&[u8]]| {
        assert!(!parts.is_empty() && parts.len() <= 1024, "one writev takes it");
        written.extend(cut(header, parts).into_iter().map(|bytes| (flow(&bytes), bytes)));
    };
    let mut gather = Gather::new(merge);
    for (bytes, open) in &mut packets {
        gather.push(bytes, *open, &mut sink);
    }
    gather.finish(&mut sink);

    assert_eq!(written.len(), expected.len(), "every packet comes out once");
    let places = |list: &[(Flow, Vec<u8>)]| {
        list.iter().enumerate().filter(|(_, item)| item.0 == Flow::Unknown).map(|item| item.0).collect::<Vec<_>>()
    };
    assert_eq!(places(&written), places(&expected), "what may be of any flow keeps its place");
    // Stable sorts keep the order within each flow.
    let mut expected = expected;
    expected.sort_by_key(|(flow, _)| *flow);
    written.sort_by_key(|(flow, _)| *flow);
    if let Some(at) = (0..expected.len()).find(|at| written[*at] != expected[*at]) {
        assert_eq!(written[at], expected[at], "in order within each flow, at {at}");
    }
});
