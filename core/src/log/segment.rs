//! Segment files, byte by byte: the header block and the frames that follow it.
//!
//! ```text
//!   0       header, 512 bytes
//!   512     zeros
//!   4096    header, again         in another sector of every disk, so that the loss of one does not lose the segment
//!   4608    frame | frame | ...   each at a multiple of 64 bytes; zeros behind the last one
//! ```
//!
//! A frame is `crc u32 | magic u16 | kind u8 | flags u8 | body_len u32 | count u32 | first_ordinal u64 | synced_upto u64`, all
//! little endian, its body, and zeros up to the next multiple of 64. The CRC32C covers everything behind it, zeros included,
//! and is seeded by the segment's nonce and the frame's offset: a frame of another segment or from another place, and bytes
//! of an application that look like a frame, do not pass for one.
//!
//! `synced_upto` is what makes damage tell from an interrupted write: whoever wrote the frame knew that everything below that
//! place was on the disk. Places are counted across segments ([`Lsn`]).

use alloc::vec::Vec;

use crc::{CRC_32_ISCSI, Crc, Table};

use super::disk::FileId;

/// A place in a store: bytes since its beginning, over all segments.
pub type Lsn = u64;

/// The longest segment, whatever the configuration says.
pub const MAX_SEGMENT: u64 = 4 << 30;
/// The most that a place or an ordinal can be: 146 years of a gigabyte a second. Greater ones are forged, and sums of smaller
/// ones do not overflow.
pub const MAX_PLACE: u64 = 1 << 62;
/// Length of a copy of the header.
pub const HEADER_COPY: u64 = 512;
/// Where the copies of the header lie.
pub const HEADER_COPIES: [u64; 2] = [0, 4096];
/// Where the first frame of a segment lies: behind the header block.
pub const FRAMES_AT: u64 = HEADER_COPIES[1] + HEADER_COPY;
/// Frames begin at multiples of this.
pub const ALIGN: u64 = 64;
/// Length of a frame's header.
pub const FRAME_HEADER: usize = 32;
/// The longest body of a frame: a commit of the largest size.
pub const MAX_BODY: usize = 1024 * 1024 + 256;
/// The longest frame, with its header and padding.
pub const MAX_FRAME: u64 = frame_len(MAX_BODY);

const MAGIC: [u8; 8] = *b"vineseg1";
/// Version 1 had its second copy in the same block of the disk.
const VERSION: u32 = 2;
const FRAME_MAGIC: u16 = 0x6676;
const NO_FILE: u64 = u64::MAX;

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Length on the disk of a frame with a body of `body` bytes.
pub const fn frame_len(body: usize) -> u64 {
    ((FRAME_HEADER + body) as u64).next_multiple_of(ALIGN)
}

/// The segment before another one, as its successor remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Previous {
    /// Its number.
    pub file: FileId,
    /// Its nonce.
    pub nonce: [u8; 16],
    /// The offset at which its frames end. All before was durable when the successor's header was written.
    pub end: u64,
}

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The number of the file that it was written into.
    pub file: FileId,
    /// The length that the file was made with. It is cut shorter only behind a [`FrameKind::Closed`], or once it has a
    /// successor.
    pub size: u64,
    /// The place of its first byte in the store.
    pub base: Lsn,
    /// The ordinal of the first op that it may hold.
    pub first_ordinal: u64,
    /// Fresh randomness, the seed of its checksums.
    pub nonce: [u8; 16],
    /// The PeerId whose store this is.
    pub owner: [u8; 32],
    /// The hash of the network's name.
    pub network: [u8; 32],
    /// The segment before it; none for the first one of a store.
    pub previous: Option<Previous>,
}

/// What a header block turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderBlock {
    /// A header.
    Valid {
        /// What it says.
        header: SegmentHeader,
        /// Where the copy lies that is damaged, if one is.
        damaged: Option<u64>,
    },
    /// Zeros: the segment was prepared and never used.
    Empty,
    /// Of a version that this code does not know.
    Version(u32),
    /// Neither copy is a header.
    Bad,
}

impl SegmentHeader {
    /// The header block: [`FRAMES_AT`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let copy = self.encode_copy();
        let mut block = Vec::with_capacity(FRAMES_AT as usize);
        for at in HEADER_COPIES {
            block.resize(at as usize, 0);
            block.extend(&copy);
        }
        block
    }

    /// What is written for the copy at `at` alone: the first one with the zeros up to the second one, for of a block that the
    /// disk does not read no part can be written.
    pub fn encode_copy_at(&self, at: u64) -> Vec<u8> {
        let mut bytes = self.encode_copy();
        if at == HEADER_COPIES[0] {
            bytes.resize((HEADER_COPIES[1] - HEADER_COPIES[0]) as usize, 0);
        }
        bytes
    }

    /// One copy of the header: [`HEADER_COPY`] bytes.
    pub fn encode_copy(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_COPY as usize);
        copy.extend(MAGIC);
        copy.extend([0; 4]);
        copy.extend(VERSION.to_le_bytes());
        copy.extend(self.file.0.to_le_bytes());
        copy.extend(self.size.to_le_bytes());
        copy.extend(self.base.to_le_bytes());
        copy.extend(self.first_ordinal.to_le_bytes());
        copy.extend(self.nonce);
        copy.extend(self.owner);
        copy.extend(self.network);
        let previous = self.previous.unwrap_or(Previous { file: FileId(NO_FILE), nonce: [0; 16], end: 0 });
        copy.extend(previous.file.0.to_le_bytes());
        copy.extend(previous.nonce);
        copy.extend(previous.end.to_le_bytes());
        copy.resize(HEADER_COPY as usize, 0);
        let crc = CRC32C.checksum(&copy[12..]);
        copy[8..12].copy_from_slice(&crc.to_le_bytes());
        copy
    }

    /// Reads the header block of `file`. A block that is cut short is [`HeaderBlock::Bad`], unless what is there is zeros. Of two
    /// good copies that differ the one that names the file is taken: the other was written to the wrong place.
    pub fn decode(block: &[u8], file: FileId) -> HeaderBlock {
        if block.iter().all(|byte| *byte == 0) {
            return HeaderBlock::Empty;
        }
        let [first, second] = HEADER_COPIES.map(|at| {
            let copy = block.get(at as usize..).unwrap_or_default();
            Self::decode_copy(copy.get(..HEADER_COPY as usize).unwrap_or(copy))
        });
        match (first, second) {
            (CopyState::Valid(header), CopyState::Valid(other)) if header == other => {
                HeaderBlock::Valid { header, damaged: None }
            }
            // Whatever the other one says: who does not know a version writes nothing over it.
            (CopyState::Version(version), _) | (_, CopyState::Version(version)) => HeaderBlock::Version(version),
            (CopyState::Valid(other), CopyState::Valid(header)) if other.file != file && header.file == file => {
                HeaderBlock::Valid { header, damaged: Some(HEADER_COPIES[0]) }
            }
            (CopyState::Valid(header), _) => HeaderBlock::Valid { header, damaged: Some(HEADER_COPIES[1]) },
            (_, CopyState::Valid(header)) => HeaderBlock::Valid { header, damaged: Some(HEADER_COPIES[0]) },
            (CopyState::Bad, CopyState::Bad) => HeaderBlock::Bad,
        }
    }

    fn decode_copy(copy: &[u8]) -> CopyState {
        let Some(rest) = copy.strip_prefix(&MAGIC) else { return CopyState::Bad };
        let mut fields = Fields(rest);
        let Some(crc) = fields.u32() else { return CopyState::Bad };
        if copy.len() as u64 != HEADER_COPY || crc != CRC32C.checksum(fields.0) {
            return CopyState::Bad;
        }
        match Self::decode_fields(&mut fields) {
            Some(Ok(header)) => CopyState::Valid(header),
            Some(Err(version)) => CopyState::Version(version),
            None => CopyState::Bad,
        }
    }

    fn decode_fields(fields: &mut Fields<'_>) -> Option<Result<SegmentHeader, u32>> {
        let version = fields.u32()?;
        if version != VERSION {
            return Some(Err(version));
        }
        let (file, size, base, first_ordinal) = (FileId(fields.u64()?), fields.u64()?, fields.u64()?, fields.u64()?);
        let (nonce, owner, network) = (fields.array()?, fields.array()?, fields.array()?);
        let previous = Previous { file: FileId(fields.u64()?), nonce: fields.array()?, end: fields.u64()? };
        let previous = (previous.file != FileId(NO_FILE)).then_some(previous);
        let longest = size.max(previous.map_or(0, |previous| previous.end));
        if longest > MAX_SEGMENT || base > MAX_PLACE || first_ordinal > MAX_PLACE {
            return None;
        }
        Some(Ok(SegmentHeader { file, size, base, first_ordinal, nonce, owner, network, previous }))
    }
}

enum CopyState {
    Valid(SegmentHeader),
    Version(u32),
    Bad,
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// The beginning of a log.
    Genesis,
    /// A commit.
    Commit,
    /// Nothing: it says that what lies before it is durable.
    Marker,
    /// A marker, and the last frame of its segment: the store was closed.
    Closed,
}

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            FrameKind::Genesis => 1,
            FrameKind::Commit => 2,
            FrameKind::Marker => 3,
            FrameKind::Closed => 4,
        }
    }

    fn from_code(code: u8) -> Option<FrameKind> {
        [FrameKind::Genesis, FrameKind::Commit, FrameKind::Marker, FrameKind::Closed]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The header of a frame, without its checksum and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What it carries.
    pub kind: FrameKind,
    /// How many ordinals it takes: the ops of a commit.
    pub count: u32,
    /// The first of them; for other kinds the next one that is free.
    pub first_ordinal: u64,
    /// Everything below this place was durable when the frame was written.
    pub synced_upto: Lsn,
}

/// Appends a frame for `offset` of the segment with this `nonce` to `out`. The body comes in parts.
pub fn encode_frame(out: &mut Vec<u8>, nonce: &[u8; 16], offset: u64, header: &FrameHeader, body: &[&[u8]]) {
    debug_assert!(offset.is_multiple_of(ALIGN), "frames are aligned");
    let from = out.len();
    let body_len: usize = body.iter().map(|part| part.len()).sum();
    debug_assert!(body_len <= MAX_BODY, "a frame of {body_len} bytes");
    out.extend([0; 4]);
    out.extend(FRAME_MAGIC.to_le_bytes());
    out.extend([header.kind.code(), 0]);
    out.extend((body_len as u32).to_le_bytes());
    out.extend(header.count.to_le_bytes());
    out.extend(header.first_ordinal.to_le_bytes());
    out.extend(header.synced_upto.to_le_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
    out.resize(from + frame_len(body_len) as usize, 0);
    let crc = frame_crc(nonce, offset, &out[from + 4..]);
    out[from..from + 4].copy_from_slice(&crc.to_le_bytes());
}

/// What lies at a place where a frame may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameAt<'a> {
    /// A frame.
    Frame {
        /// Its header.
        header: FrameHeader,
        /// What it carries.
        body: &'a [u8],
        /// Its length on the disk.
        len: u64,
    },
    /// It may be one, but that takes so many bytes to say.
    Need(usize),
    /// No frame.
    None,
}

/// Looks for a frame at the beginning of `bytes`, which lie at `offset` of the segment with this `nonce`.
pub fn decode_frame<'a>(bytes: &'a [u8], nonce: &[u8; 16], offset: u64) -> FrameAt<'a> {
    if bytes.len() < FRAME_HEADER {
        return FrameAt::Need(FRAME_HEADER);
    }
    let Some((crc, body_len, header)) = decode_frame_header(bytes) else { return FrameAt::None };
    let len = frame_len(body_len);
    let Some(frame) = bytes.get(..len as usize) else { return FrameAt::Need(len as usize) };
    if frame_crc(nonce, offset, &frame[4..]) != crc {
        return FrameAt::None;
    }
    FrameAt::Frame { header, body: &frame[FRAME_HEADER..FRAME_HEADER + body_len], len }
}

/// The checksum, the length of the body and the header that a frame claims.
fn decode_frame_header(bytes: &[u8]) -> Option<(u32, usize, FrameHeader)> {
    let mut fields = Fields(bytes);
    let crc = fields.u32()?;
    if fields.array()? != FRAME_MAGIC.to_le_bytes() {
        return None;
    }
    let [kind, flags] = fields.array()?;
    let body_len = fields.u32()? as usize;
    if flags != 0 || body_len > MAX_BODY {
        return None;
    }
    let (count, first_ordinal, synced_upto) = (fields.u32()?, fields.u64()?, fields.u64()?);
    if first_ordinal > MAX_PLACE || synced_upto > MAX_PLACE {
        return None;
    }
    Some((crc, body_len, FrameHeader { kind: FrameKind::from_code(kind)?, count, first_ordinal, synced_upto }))
}

fn frame_crc(nonce: &[u8; 16], offset: u64, behind_crc: &[u8]) -> u32 {
    let mut digest = CRC32C.digest();
    digest.update(nonce);
    digest.update(&offset.to_le_bytes());
    digest.update(behind_crc);
    digest.finalize()
}

/// Little-endian fields, one behind the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            file: FileId(7),
            size: 65_536,
            base: 4096,
            first_ordinal: 12,
            nonce: [3; 16],
            owner: [4; 32],
            network: [5; 32],
            previous: Some(Previous { file: FileId(6), nonce: [2; 16], end: 2048 }),
        }
    }

    #[test]
    fn a_header_survives_the_loss_of_either_copy() {
        for header in [header(), SegmentHeader { previous: None, ..header() }] {
            let block = header.encode();
            assert_eq!(block.len() as u64, FRAMES_AT);
            assert_eq!(SegmentHeader::decode(&block, FileId(7)), HeaderBlock::Valid { header, damaged: None });
            for byte in 0..block.len() {
                let copy = HEADER_COPIES.into_iter().find(|at| (*at..at + HEADER_COPY).contains(&(byte as u64)));
                for bit in 0..8 {
                    let mut flipped = block.clone();
                    flipped[byte] ^= 1 << bit;
                    let decoded = SegmentHeader::decode(&flipped, FileId(7));
                    assert_eq!(decoded, HeaderBlock::Valid { header, damaged: copy }, "bit {bit} of byte {byte}");
                }
            }
            // A block of a disk is lost.
            for (at, len) in [(0, 4096), (4096, 512)] {
                let mut lost = block.clone();
                lost[at..at + len].fill(0);
                let damaged = Some(at as u64);
                assert_eq!(SegmentHeader::decode(&lost, FileId(7)), HeaderBlock::Valid { header, damaged });
            }
            // A header that was written to the wrong place, and one of another version.
            let other = SegmentHeader { file: FileId(8), ..header };
            let mut astray = block.clone();
            astray[..HEADER_COPY as usize].copy_from_slice(&other.encode_copy());
            assert_eq!(SegmentHeader::decode(&astray, FileId(7)), HeaderBlock::Valid { header, damaged: Some(0) });
            for at in HEADER_COPIES.map(|at| at as usize) {
                let mut newer = block.clone();
                newer[at + 12] = 3;
                let crc = CRC32C.checksum(&newer[at + 12..at + HEADER_COPY as usize]);
                newer[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
                assert_eq!(SegmentHeader::decode(&newer, FileId(7)), HeaderBlock::Version(3));
            }
            let mut both = block.clone();
            HEADER_COPIES.into_iter().for_each(|at| both[at as usize + 20] ^= 1);
            assert_eq!(SegmentHeader::decode(&both, FileId(7)), HeaderBlock::Bad);
        }
    }

    #[test]
    fn numbers_that_no_store_comes_to_are_none() {
        let previous = Previous { file: FileId(6), nonce: [2; 16], end: MAX_SEGMENT + 1 };
        let headers = [
            SegmentHeader { base: MAX_PLACE + 1, ..header() },
            SegmentHeader { first_ordinal: u64::MAX, ..header() },
            SegmentHeader { size: u64::MAX, ..header() },
            SegmentHeader { previous: Some(previous), ..header() },
        ];
        for header in headers {
            assert_eq!(SegmentHeader::decode(&header.encode(), FileId(7)), HeaderBlock::Bad);
        }
        for (first_ordinal, synced_upto) in [(MAX_PLACE + 1, 0), (u64::MAX, 0), (0, u64::MAX)] {
            let frame = FrameHeader { kind: FrameKind::Marker, count: 0, first_ordinal, synced_upto };
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, &[7; 16], FRAMES_AT, &frame, &[]);
            assert_eq!(decode_frame(&bytes, &[7; 16], FRAMES_AT), FrameAt::None);
        }
    }

    #[test]
    fn a_cut_header_block_is_no_header_unless_a_copy_is_whole() {
        let block = header().encode();
        for len in 0..block.len() {
            let decoded = SegmentHeader::decode(&block[..len], FileId(7));
            match len {
                0 => assert_eq!(decoded, HeaderBlock::Empty),
                1..512 => assert_eq!(decoded, HeaderBlock::Bad, "{len}"),
                _ => {
                    let damaged = Some(HEADER_COPIES[1]);
                    assert_eq!(decoded, HeaderBlock::Valid { header: header(), damaged }, "{len}");
                }
            }
        }
    }

    #[test]
    fn frames_are_bound_to_their_segment_and_place() {
        let frame = FrameHeader { kind: FrameKind::Commit, count: 2, first_ordinal: 9, synced_upto: 640 };
        for len in [0, 1, 31, 32, 33, 500] {
            let body = vec![0xab; len];
            let mut bytes = vec![1, 2, 3];
            encode_frame(&mut bytes, &[7; 16], 1024, &frame, &[&body[..len / 2], &body[len / 2..]]);
            let bytes = &bytes[3..];
            assert_eq!(bytes.len() as u64, frame_len(len));
            let found = FrameAt::Frame { header: frame, body: &body, len: frame_len(len) };
            assert_eq!(decode_frame(bytes, &[7; 16], 1024), found);
            assert_eq!(decode_frame(bytes, &[7; 16], 1088), FrameAt::None);
            assert_eq!(decode_frame(bytes, &[8; 16], 1024), FrameAt::None);
            for short in 0..bytes.len() {
                assert!(
                    matches!(decode_frame(&bytes[..short], &[7; 16], 1024), FrameAt::Need(n) if n > short && n <= bytes.len())
                );
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let found = decode_frame(&flipped, &[7; 16], 1024);
                assert!(!matches!(found, FrameAt::Frame { .. }), "bit {bit} of {len}");
            }
        }
    }
}
