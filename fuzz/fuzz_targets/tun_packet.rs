//! Reads of a TUN with `virtio_net_hdr`, and the segments they stand for, in both checksum modes: what is announced is
//! written, each segment is a packet of its own, completing an open one gives the complete one, and where the packet is
//! known they are exactly those of a kernel that cuts it itself.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{ChecksumMode, IpPacket, Offload, Segments, TunPacket, VirtioNetHeader, finish_checksum};
use vine_fuzz::packets::{Packet, repair, transport_sum};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// What one `read` gave.
    Read(&'a [u8]),
    /// The same with honest lengths, and checksum offsets that are the packet's own.
    Likely { gso_type: u8, gso_size: u16, bytes: &'a [u8] },
    /// A known packet.
    Made { packet: Packet, size: u16, open: bool },
}

/// Writes every segment, holding the writer to what it announced.
fn write_all(segments: &Segments<'_>) -> Vec<Vec<u8>> {
    let mut written = Vec::new();
    for index in 0..segments.count() {
        let len = segments.segment_len(index);
        let mut out = vec![0xee; len + 1];
        assert_eq!(segments.write(index, &mut out), len);
        assert_eq!(out.pop(), Some(0xee), "not a byte more");
        if len > 0 {
            assert_eq!(segments.write(index, &mut vec![0; len - 1]), 0, "no room, nothing written");
        }
        written.push(out);
    }
    assert!(!written.is_empty());
    assert_eq!(written.iter().map(Vec::len).sum::<usize>(), segments.total_len());
    assert_eq!(segments.write(segments.count(), &mut [0; 64]), 0);
    written
}

fn check(packet: &TunPacket<'_>) -> Vec<Vec<u8>> {
    let full = Segments::new(packet, ChecksumMode::Full);
    assert!(!full.csum_partial());
    let complete = write_all(&full);
    let partial = Segments::new(packet, ChecksumMode::Partial);
    let mut open = write_all(&partial);
    assert_eq!(partial.csum_partial(), packet.offload() != Offload::None);
    if partial.csum_partial() {
        for segment in &mut open {
            finish_checksum(segment).expect("an open checksum has its place");
        }
    }
    assert_eq!(open, complete, "the receiver's kernel comes to the same");

    let whole = packet.ip();
    let header_len = match packet.offload() {
        Offload::None => {
            assert_eq!(complete, [whole.bytes()]);
            return complete;
        }
        Offload::Checksum { start, .. } => start,
        Offload::Tcp { header_len, .. } | Offload::Udp { header_len, .. } => header_len,
    };
    let size = match packet.offload() {
        Offload::Tcp { mss, .. } => mss,
        Offload::Udp { size, .. } => size,
        _ => whole.bytes().len(),
    };
    let mut payload = Vec::new();
    for (index, segment) in complete.iter().enumerate() {
        let ip = IpPacket::parse(segment).expect("each segment is a packet");
        assert_eq!((ip.source(), ip.destination()), (whole.source(), whole.destination()));
        assert_eq!((ip.protocol(), ip.transport_offset()), (whole.protocol(), whole.transport_offset()));
        assert_eq!(transport_sum(segment, ip.transport_offset()), 0xffff);
        let part = &segment[header_len..];
        assert!(part.len() == size || index + 1 == complete.len());
        payload.extend_from_slice(part);
    }
    // A packet that is not cut has its checksum in what is compared here.
    let skip = if complete.len() == 1 { 20 } else { 0 };
    assert_eq!(payload[skip.min(payload.len())..], whole.bytes()[header_len..][skip.min(payload.len())..]);
    complete
}

/// An all-zero header but for what the packet in `bytes` proves.
fn likely_header(gso_type: u8, gso_size: u16, bytes: &[u8]) -> [u8; VirtioNetHeader::LEN] {
    let mut header = VirtioNetHeader { flags: 1, gso_type, gso_size, ..VirtioNetHeader::default() };
    if let Ok(ip) = IpPacket::parse(bytes)
        && let Some(transport) = ip.transport()
    {
        header.csum_start = ip.transport_offset() as u16;
        header.csum_offset = transport.checksum_offset() as u16;
    }
    header.encode()
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Read(bytes) => {
            if let Some(header) = bytes.first_chunk() {
                assert_eq!(VirtioNetHeader::decode(header).encode(), *header);
            }
            if let Ok(packet) = TunPacket::parse_read(bytes) {
                check(&packet);
            }
        }
        Input::Likely { gso_type, gso_size, bytes } => {
            let mut bytes = bytes.to_vec();
            repair(&mut bytes);
            if let Ok(packet) = TunPacket::parse(&likely_header(gso_type, gso_size, &bytes), &bytes) {
                check(&packet);
            }
        }
        Input::Made { packet, size, open } => {
            // Sizes of one byte would cut a large packet into tens of thousands; once is enough.
            let size = if open { 0 } else { size.max(packet.payload.len() as u16 / 100).max(1) };
            let bytes = packet.build_open();
            let header = packet.vnet_header(size);
            let parsed = TunPacket::parse(&header, &bytes).expect("a kernel would send it");
            let size = if open { usize::MAX } else { usize::from(size) };
            let wanted: Vec<Vec<u8>> = match open {
                true => vec![packet.build()],
                false => packet.segments(size).iter().map(Packet::build).collect(),
            };
            assert_eq!(check(&parsed), wanted);
        }
    }
});
