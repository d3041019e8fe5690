//! Acknowledgements: which packet numbers of a path arrived, as ranges (RFC 9000, section 19.3, with vine's varints).
//!
//! ```text
//!  largest | further ranges | first | gap | length | gap | length | ...
//! ```
//!
//! The first range ends at `largest` and holds `first` numbers below it. Each further one lies `gap + 2` below the
//! smallest number of the one before, and holds `length` numbers below its own largest. A range is never empty and two
//! ranges never touch, so one set of numbers has one encoding.

use core::ops::RangeInclusive;

use super::cursor::{BufferFull, ReadError, Reader, Writer};
use super::varint;

/// The largest packet number: 2^62 - 1 (RFC 9000, section 12.3). No path lives that long.
pub const MAX_PACKET_NUMBER: u64 = (1 << 62) - 1;

/// Bytes of the varint of [`MAX_PACKET_NUMBER`], and of anything that is subtracted from it.
const NUMBER_LEN: usize = varint::len(MAX_PACKET_NUMBER);

/// What has arrived of the packets that the receiver of this message sent on one of its paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    path: u8,
    delay_us: u64,
    /// From `largest` on to the last range; read once, so it is known to hold what the format asks for.
    ranges: &'a [u8],
}

impl<'a> Ack<'a> {
    /// The most ranges of one acknowledgement. Whoever has more to say leaves out the smallest numbers.
    pub const MAX_RANGES: usize = 32;
    /// The longest body, in bytes.
    pub(super) const MAX_BODY_LEN: usize = 1 + varint::MAX_LEN + AckBody::MAX_LEN;

    /// The number of the path, as the receiver of this message calls it.
    pub const fn path(&self) -> u8 {
        self.path
    }

    /// Microseconds between the arrival of the largest number and the sending of this.
    pub const fn delay_us(&self) -> u64 {
        self.delay_us
    }

    /// The numbers that arrived, largest first; at least one range, at most [`Ack::MAX_RANGES`].
    pub fn ranges(&self) -> AckRanges<'a> {
        let mut bytes = Reader::new(self.ranges);
        let largest = bytes.varint().ok();
        let further = bytes.varint().unwrap_or(0);
        AckRanges { bytes, next_largest: largest, left: further }
    }

    /// Bytes of the body.
    pub(super) const fn body_len(&self) -> usize {
        1 + varint::len(self.delay_us) + self.ranges.len()
    }

    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Ack<'a>, ReadError> {
        let path = body.u8()?;
        let delay_us = body.varint()?;
        let start = body.rest();
        let largest = body.varint_up_to(MAX_PACKET_NUMBER)?;
        let further = body.varint_up_to(Self::MAX_RANGES as u64 - 1)?;
        let mut smallest = largest - body.varint_up_to(largest)?;
        for _ in 0..further {
            // At least one number is missing in between, and at least one is in the range.
            let largest = body.varint_up_to(smallest.checked_sub(2).ok_or(ReadError::OutOfRange)?)?;
            let largest = smallest - 2 - largest;
            smallest = largest - body.varint_up_to(largest)?;
        }
        let len = start.len() - body.rest().len();
        let ranges = start.get(..len).ok_or(ReadError::Truncated)?;
        Ok(Ack { path, delay_us, ranges })
    }

    pub(super) fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        body.u8(self.path)?;
        body.varint(self.delay_us)?;
        body.bytes(self.ranges)
    }
}

/// The ranges of an [`Ack`], largest first.
#[derive(Clone, Debug)]
pub struct AckRanges<'a> {
    bytes: Reader<'a>,
    /// The largest number of the next range.
    next_largest: Option<u64>,
    /// Ranges behind the next one.
    left: u64,
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        let largest = self.next_largest.take()?;
        let smallest = largest.checked_sub(self.bytes.varint().ok()?)?;
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            let gap = self.bytes.varint().ok()?;
            self.next_largest = smallest.checked_sub(2).and_then(|below| below.checked_sub(gap));
        }
        Some(smallest..=largest)
    }
}

impl core::iter::FusedIterator for AckRanges<'_> {}

/// An acknowledgement to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckBody {
    path: u8,
    delay_us: u64,
    ranges: heapless::Vec<u8, { AckBody::MAX_LEN }>,
}

impl AckBody {
    /// `largest`, the number of further ranges, and two numbers a range but one for the first.
    const MAX_LEN: usize = NUMBER_LEN + 1 + (2 * Ack::MAX_RANGES - 1) * NUMBER_LEN;

    /// The acknowledgement of `ranges`, which come largest first, are not empty and do not touch each other. Those
    /// behind the first [`Ack::MAX_RANGES`] are left out. `None` where there is none, or where they are otherwise.
    pub fn new(path: u8, delay_us: u64, ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Option<AckBody> {
        let mut ranges = ranges.into_iter().take(Ack::MAX_RANGES);
        let first = ranges.next()?;
        let largest = *first.end();
        if largest > MAX_PACKET_NUMBER {
            return None;
        }
        let mut further = 0;
        let mut behind: heapless::Vec<u8, { AckBody::MAX_LEN }> = heapless::Vec::new();
        let mut push = |number| behind.extend_from_slice(&varint::encode(number)).ok();
        push(largest.checked_sub(*first.start())?)?;
        let mut smallest = *first.start();
        for range in ranges {
            push(smallest.checked_sub(2)?.checked_sub(*range.end())?)?;
            push(range.end().checked_sub(*range.start())?)?;
            smallest = *range.start();
            further += 1;
        }
        let mut bytes = heapless::Vec::new();
        bytes.extend_from_slice(&varint::encode(largest)).ok()?;
        bytes.extend_from_slice(&varint::encode(further)).ok()?;
        bytes.extend_from_slice(&behind).ok()?;
        Some(AckBody { path, delay_us, ranges: bytes })
    }

    /// The acknowledgement, to be written.
    pub fn as_ack(&self) -> Ack<'_> {
        Ack { path: self.path, delay_us: self.delay_us, ranges: &self.ranges }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn read(body: &[u8]) -> Result<Vec<RangeInclusive<u64>>, ReadError> {
        Ack::decode(&mut Reader::new(body)).map(|ack| ack.ranges().collect())
    }

    #[test]
    fn the_longest_fits_and_more_is_left_out() {
        // Gaps and lengths as long as they can be with so many ranges.
        let step = MAX_PACKET_NUMBER / 41;
        let range = |i: u64| {
            let end = MAX_PACKET_NUMBER - i * step;
            end - step / 2..=end
        };
        let body = AckBody::new(255, u64::MAX, (0..40).map(range)).unwrap();
        let ack = body.as_ack();
        assert_eq!(ack.ranges().collect::<Vec<_>>(), (0..32).map(range).collect::<Vec<_>>());
        assert!(ack.body_len() <= Ack::MAX_BODY_LEN);
    }

    #[test]
    fn what_is_no_list_of_ranges_is_not_written() {
        assert_eq!(AckBody::new(0, 0, []), None);
        for ranges in [
            [5..=6, 8..=9],
            [8..=9, 7..=7],
            [8..=9, 8..=8],
            [RangeInclusive::new(9, 8), 1..=1],
            [8..=9, RangeInclusive::new(3, 2)],
            [0..=1, 0..=0],
            [MAX_PACKET_NUMBER..=MAX_PACKET_NUMBER + 1, 0..=0],
        ] {
            assert_eq!(AckBody::new(0, 0, ranges.clone()), None, "{ranges:?}");
        }
        assert!(AckBody::new(0, 0, [2..=9, 0..=0]).is_some());
    }

    #[test]
    fn ranges_that_go_below_zero_are_refused() {
        assert_eq!(read(&[1, 0, 9, 0, 9]), Ok(std::vec![0..=9]));
        assert_eq!(read(&[1, 0, 9, 0, 10]), Err(ReadError::TooLarge));
        assert_eq!(read(&[1, 0, 9, 1, 7, 0, 0]), Ok(std::vec![2..=9, 0..=0]));
        assert_eq!(read(&[1, 0, 9, 1, 7, 0, 1]), Err(ReadError::TooLarge));
        assert_eq!(read(&[1, 0, 9, 1, 7, 1, 0]), Err(ReadError::TooLarge));
        assert_eq!(read(&[1, 0, 9, 1, 8, 0, 0]), Err(ReadError::OutOfRange));
        assert_eq!(read(&[1, 0, 9, 32, 0]), Err(ReadError::TooLarge));
        assert_eq!(read(&[1, 0, 9, 1, 0, 0]), Err(ReadError::Truncated));
        let mut largest = std::vec![1, 0];
        largest.extend(varint::encode(MAX_PACKET_NUMBER + 1));
        largest.extend([0, 0]);
        assert_eq!(read(&largest), Err(ReadError::TooLarge));
    }

    /// Up to 32 ranges, from gaps and lengths.
    fn any_ranges() -> impl Strategy<Value = Vec<RangeInclusive<u64>>> {
        let number = || (any::<u64>(), 8u32..64).prop_map(|(value, shift)| value >> shift);
        let steps = prop::collection::vec((number(), number()), 1..=Ack::MAX_RANGES);
        (steps, 0..=MAX_PACKET_NUMBER).prop_map(|(steps, mut top)| {
            let mut ranges = Vec::new();
            for (gap, len) in steps {
                ranges.push(top.saturating_sub(len)..=top);
                let Some(next) = top.checked_sub(len).and_then(|smallest| smallest.checked_sub(gap + 2)) else { break };
                top = next;
            }
            ranges
        })
    }

    proptest! {
        #[test]
        fn round_trip(path: u8, delay_us: u64, ranges in any_ranges()) {
            let body = AckBody::new(path, delay_us, ranges.iter().cloned()).unwrap();
            let ack = body.as_ack();
            let mut buf = [0; Ack::MAX_BODY_LEN];
            let mut out = Writer::new(&mut buf);
            ack.encode(&mut out).unwrap();
            prop_assert_eq!(out.len(), ack.body_len());
            let back = Ack::decode(&mut Reader::new(out.written())).unwrap();
            prop_assert_eq!(back, ack);
            prop_assert_eq!((back.path(), back.delay_us()), (path, delay_us));
            prop_assert_eq!(back.ranges().collect::<Vec<_>>(), ranges);
        }

        #[test]
        fn what_is_read_can_be_built_and_is_the_same(bytes in prop::collection::vec(0u8..=140, 0..80)) {
            if let Ok(ack) = Ack::decode(&mut Reader::new(&bytes)) {
                prop_assert!(ack.ranges().all(|range| range.start() <= range.end()));
                let built = AckBody::new(ack.path(), ack.delay_us(), ack.ranges()).unwrap();
                prop_assert_eq!(built.as_ack(), ack);
            }
        }
    }
}
