//! Finds the frames of one segment, and what lies between them that is none.
//!
//! A [`Scan`] reads forward with bounded memory. Where a frame should begin and does not, it looks at every following place
//! where one may, so that damage costs the frames that it hit and not those behind them.

use alloc::vec;
use alloc::vec::Vec;

use super::disk::READ_MAX;
use super::segment::{ALIGN, FRAME_HEADER, FRAMES_AT, FrameAt, FrameHeader, MAX_FRAME, decode_frame};

/// What is asked for again, piece by piece, where a larger read failed: a block of the disk.
const BLOCK: u64 = 4096;

/// Bytes from here to the end of the block.
fn rest_of_block(at: u64) -> u64 {
    BLOCK - at % BLOCK
}

/// One forward pass over the frames of a segment.
#[derive(Debug)]
pub struct Scan {
    nonce: [u8; 16],
    /// Where frames end for certain, as the segment's successor says; none for the last segment.
    sealed_at: Option<u64>,
    /// The end of the file, or of what of it is to be looked at.
    file_end: u64,
    /// Where the next frame should begin.
    at: u64,
    /// What is in memory, from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Where no frame was found, and where the last byte of it that is not zero lies.
    bad: Option<Bad>,
    /// Reads up to this place are small ones: a large one failed.
    careful_until: u64,
    /// Bytes that the disk would not read.
    unreadable: u64,
    /// Where frames end, once that is known.
    ended: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Bad {
    from: u64,
    nonzero_end: u64,
}

/// What comes next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum ScanStep<'a> {
    /// More bytes are needed: [`Scan::feed`] them, or say that they [cannot be read](Scan::feed_failed).
    Read {
        /// From the beginning of the file.
        offset: u64,
        /// How many.
        len: u32,
    },
    /// A frame.
    Frame {
        /// Where it begins.
        offset: u64,
        /// Where the next one may begin.
        end: u64,
        /// Its header.
        header: FrameHeader,
        /// What it carries.
        body: &'a [u8],
    },
    /// Bytes where a frame should be and none is. They end where one is, or with the last byte that is not zero.
    Bad {
        /// The first of them.
        from: u64,
        /// The first behind them.
        to: u64,
    },
    /// There is nothing more; frames end at this offset.
    End(u64),
}

impl Scan {
    /// A scan of a file of `file_len` bytes from `from` on, where a frame begins. `sealed_at` is the end of its frames, where
    /// the successor of the segment tells it.
    pub fn new(nonce: [u8; 16], from: u64, file_len: u64, sealed_at: Option<u64>) -> Scan {
        let file_end = sealed_at.map_or(file_len, |end| end.min(file_len));
        Scan {
            nonce,
            sealed_at,
            file_end,
            at: from.max(FRAMES_AT),
            buffer: Vec::new(),
            buffer_at: from.max(FRAMES_AT),
            bad: None,
            careful_until: 0,
            unreadable: 0,
            ended: None,
        }
    }

    /// Where the scan is, in bytes from the beginning of the file.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that the disk would not read so far.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// What comes next.
    pub fn step(&mut self) -> ScanStep<'_> {
        loop {
            if self.at >= self.file_end {
                return self.finish();
            }
            let start = (self.at - self.buffer_at) as usize;
            let present = self.buffer.get(start..).unwrap_or_default();
            let room = (self.file_end - self.at).min(2 * MAX_FRAME) as usize;
            match decode_frame(present, &self.nonce, self.at) {
                FrameAt::Need(needed) if present.len() < needed.min(room) => return self.read(),
                FrameAt::Need(_) | FrameAt::None => self.pass_slot(start),
                FrameAt::Frame { len, .. } if len > room as u64 => self.pass_slot(start),
                FrameAt::Frame { header, body, len } => {
                    if let Some(bad) = self.bad.take() {
                        return ScanStep::Bad { from: bad.from, to: self.at };
                    }
                    // The body again, from the buffer: the borrow above ends where the scan moves on.
                    let (offset, body_len) = (self.at, body.len());
                    self.at += len;
                    let from = start + FRAME_HEADER;
                    let body = &self.buffer[from..from + body_len];
                    return ScanStep::Frame { offset, end: self.at, header, body };
                }
            }
        }
    }

    /// Takes the bytes that were asked for. Fewer than that mean that the file ends there.
    pub fn feed(&mut self, bytes: &[u8]) {
        let asked = self.wanted();
        if bytes.len() < asked as usize {
            self.file_end = self.buffered_end() + bytes.len() as u64;
        }
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(asked as usize)]);
    }

    /// The bytes that were asked for cannot be read. They count as damaged, in pieces as small as the disk's.
    pub fn feed_failed(&mut self) {
        let asked = self.wanted();
        let from = self.buffered_end();
        if u64::from(asked) > rest_of_block(from) {
            self.careful_until = from + u64::from(asked);
            return;
        }
        self.unreadable += u64::from(asked);
        // No frame is made of these, and they are not taken for the zeros behind the last one.
        self.buffer.extend(vec![0xff; asked as usize]);
    }

    fn buffered_end(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    fn wanted(&self) -> u32 {
        let from = self.buffered_end();
        let most = if from < self.careful_until { rest_of_block(from) } else { u64::from(READ_MAX) };
        (self.file_end - from).min(most) as u32
    }

    fn read(&mut self) -> ScanStep<'_> {
        let passed = ((self.at - self.buffer_at) as usize).min(self.buffer.len());
        self.buffer.drain(..passed);
        self.buffer_at += passed as u64;
        ScanStep::Read { offset: self.buffered_end(), len: self.wanted() }
    }

    /// Goes on to the next place where a frame may begin, noting that none did here.
    fn pass_slot(&mut self, start: usize) {
        let end = (start + ALIGN as usize).min(self.buffer.len());
        let slot = self.buffer.get(start..end).unwrap_or_default();
        let bad = self.bad.get_or_insert(Bad { from: self.at, nonzero_end: self.at });
        if slot.iter().any(|byte| *byte != 0) {
            bad.nonzero_end = (self.at + ALIGN).min(self.file_end);
        }
        self.at += ALIGN;
    }

    fn finish(&mut self) -> ScanStep<'_> {
        if let Some(end) = self.ended {
            return ScanStep::End(end);
        }
        let from = self.bad.map_or(self.at.min(self.file_end), |bad| bad.from);
        // Where the successor says that frames end, they should go on to there, whatever is there instead of them.
        let to = self.sealed_at.unwrap_or_else(|| self.bad.map_or(from, |bad| bad.nonzero_end));
        self.ended = Some(self.sealed_at.unwrap_or(from));
        if from < to { ScanStep::Bad { from, to } } else { ScanStep::End(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::{FrameKind, encode_frame, frame_len};
    use super::*;

    const NONCE: [u8; 16] = [9; 16];

    /// A segment with a frame for each body, `zeros` bytes behind the last, and where the frames end.
    fn segment(bodies: &[usize], zeros: usize) -> (Vec<u8>, u64) {
        let mut file = vec![1; FRAMES_AT as usize];
        for (n, len) in bodies.iter().enumerate() {
            let header =
                FrameHeader { kind: FrameKind::Commit, count: 1, first_ordinal: n as u64, synced_upto: n as u64 };
            let offset = file.len() as u64;
            encode_frame(&mut file, &NONCE, offset, &header, &[&vec![n as u8 + 1; *len]]);
        }
        let end = file.len() as u64;
        file.resize(file.len() + zeros, 0);
        (file, end)
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Found {
        Frame(u64, u64, usize),
        Bad(u64, u64),
        End(u64),
    }

    /// Everything that a scan finds. Reads that touch a byte of `broken` fail.
    fn scan(file: &[u8], sealed_at: Option<u64>, broken: core::ops::Range<u64>) -> Vec<Found> {
        let mut scan = Scan::new(NONCE, FRAMES_AT, file.len() as u64, sealed_at);
        let mut found = Vec::new();
        loop {
            match scan.step() {
                ScanStep::Read { offset, len } => {
                    assert!((1..=READ_MAX).contains(&len));
                    let end = (offset + u64::from(len)).min(file.len() as u64);
                    if offset < broken.end && end > broken.start {
                        scan.feed_failed();
                    } else {
                        scan.feed(&file[offset as usize..end as usize]);
                    }
                }
                ScanStep::Frame { header, end, body, .. } => {
                    assert!(body.iter().all(|byte| u64::from(*byte) == header.first_ordinal + 1));
                    found.push(Found::Frame(header.first_ordinal, end, body.len()));
                }
                ScanStep::Bad { from, to } => found.push(Found::Bad(from, to)),
                ScanStep::End(end) => {
                    found.push(Found::End(end));
                    return found;
                }
            }
        }
    }

    #[test]
    fn frames_of_every_size_are_found_in_order() {
        let bodies = [0, 10, 400_000, 32, 33, 1_000_000, 1];
        for zeros in [0, 64, 70_000] {
            let (file, end) = segment(&bodies, zeros);
            for sealed in [None, Some(end)] {
                let found = scan(&file, sealed, 0..0);
                let sizes: Vec<usize> = found
                    .iter()
                    .filter_map(|f| if let Found::Frame(_, _, len) = f { Some(*len) } else { None })
                    .collect();
                assert_eq!(sizes, bodies);
                assert_eq!(found.len(), bodies.len() + 1);
                assert_eq!(found.last(), Some(&Found::End(end)));
            }
        }
    }

    #[test]
    fn damage_costs_the_frames_that_it_hits() {
        let (file, end) = segment(&[100, 300_000, 100, 100], 640);
        let second = FRAMES_AT + frame_len(100);
        let third = second + frame_len(300_000);
        for at in [second, second + 5, second + 8, second + 40, second + 299_000] {
            let mut file = file.clone();
            file[at as usize] ^= 0x10;
            let found = scan(&file, None, 0..0);
            let expected = [
                Found::Frame(0, second, 100),
                Found::Bad(second, third),
                Found::Frame(2, third + frame_len(100), 100),
                Found::Frame(3, end, 100),
                Found::End(end),
            ];
            assert_eq!(found, expected, "byte {at}");
        }
        // What is zero in the middle is missing there, too.
        let mut holed = file.clone();
        holed[second as usize..third as usize].fill(0);
        assert_eq!(scan(&holed, None, 0..0)[1], Found::Bad(second, third));
    }

    #[test]
    fn a_segment_that_ends_early_is_bad_up_to_its_seal() {
        let (file, end) = segment(&[100, 100], 0);
        let second = FRAMES_AT + frame_len(100);
        for len in FRAMES_AT..end {
            let found = scan(&file[..len as usize], Some(end), 0..0);
            let from = if len < second { FRAMES_AT } else { second };
            assert_eq!(found[found.len() - 2..], [Found::Bad(from, end), Found::End(end)], "{len} bytes");
        }
    }

    #[test]
    fn a_torn_tail_is_bad_up_to_its_last_byte() {
        let (mut file, end) = segment(&[100, 100], 6400);
        file[end as usize - 10] ^= 1;
        let second = FRAMES_AT + frame_len(100);
        let found = scan(&file, None, 0..0);
        assert_eq!(found[1..], [Found::Bad(second, end), Found::End(second)]);
        let (file, end) = segment(&[100, 100], 6400);
        let found = scan(&file[..end as usize - 1], None, 0..0);
        assert!(matches!(found[1..], [Found::Bad(from, _), Found::End(_)] if from == second), "{found:?}");
    }

    #[test]
    fn a_block_that_is_not_read_costs_the_one_before_it_nothing() {
        let (file, end) = segment(&[100, 200], 40_000);
        assert!(end < 8192);
        let found = scan(&file, None, 8192..12_288);
        let second = FRAMES_AT + frame_len(100);
        assert_eq!(found[..2], [Found::Frame(0, second, 100), Found::Frame(1, end, 200)]);
    }

    #[test]
    fn what_the_disk_does_not_read_is_damage_of_its_own_size() {
        let (file, end) = segment(&[100, 20_000, 100, 100_000, 100], 100_000);
        let second = FRAMES_AT + frame_len(100);
        let third = second + frame_len(20_000);
        let found = scan(&file, None, second + 9_000..second + 9_001);
        assert_eq!(found[1], Found::Bad(second, third));
        assert_eq!(found.len(), 6);
        assert_eq!(found.last(), Some(&Found::End(end)));
    }
}
