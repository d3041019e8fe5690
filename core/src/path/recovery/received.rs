//! Which packet numbers have arrived, and when they are to be acknowledged (RFC 9000 section 13.2).

use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use super::{MAX_ACK_DELAY, MAX_IN_FLIGHT};
use crate::time::Instant;

/// Ranges that are kept, and that an acknowledgement may have. Where there are more, the lowest is forgotten.
pub const MAX_RANGES: usize = 32;

/// Numbers this far below the largest are of no interest to the sender any more: it has far fewer packets in flight.
const HORIZON: u64 = 4 * MAX_IN_FLIGHT as u64;

/// In-order packets that may wait for an acknowledgement (RFC 9000 section 13.2.2).
const PACKETS_PER_ACK: u8 = 2;

/// The packet numbers that have arrived in one of the peer's number spaces.
///
/// The peer has one space for each of its path slots. All of them begin anew when the peer restarts.
#[derive(Clone, Debug)]
pub struct Received {
    /// First and last number of each range, ascending; between two is at least one missing number.
    ranges: Vec<(u64, u64)>,
    /// Numbers below are not told apart any more and count as seen.
    floor: u64,
    /// When the largest number arrived.
    largest_at: Instant,
    /// Packets that arrived since the last acknowledgement.
    pending: u8,
    due: Instant,
}

impl Default for Received {
    fn default() -> Self {
        Received { ranges: Vec::new(), floor: 0, largest_at: Instant::ORIGIN, pending: 0, due: Instant::FAR_FUTURE }
    }
}

impl Received {
    /// Notes that packet `number` arrived. Returns whether it is new: a duplicate, or one too old to tell, is not to be
    /// handled.
    pub fn on_packet(&mut self, now: Instant, number: u64) -> bool {
        let largest = self.largest();
        if !self.insert(number) {
            return false;
        }
        let is_next = largest.is_none_or(|largest| number == largest.saturating_add(1));
        if largest.is_none_or(|largest| number > largest) {
            self.largest_at = now;
        }
        self.pending = self.pending.saturating_add(1);
        // A gap or a late packet tells the sender of a loss: it should know at once.
        let due = if is_next && self.pending < PACKETS_PER_ACK { now + MAX_ACK_DELAY } else { now };
        self.due = self.due.min(due);
        self.forget();
        true
    }

    /// When an acknowledgement must leave.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// The acknowledgement that has not been sent yet, if any: how long its largest number has waited, and the ranges, the
    /// largest first. It may leave before it must, with something else. Where it leaves, [`Received::on_ack_sent`] is next.
    pub fn pending_ack(
        &self,
        now: Instant,
    ) -> Option<(Duration, impl ExactSizeIterator<Item = RangeInclusive<u64>> + Clone)> {
        let ranges = self.ranges.iter().rev().map(|(first, last)| *first..=*last);
        (self.pending > 0).then(|| (now.since(self.largest_at), ranges))
    }

    /// Notes that the acknowledgement was sent.
    pub fn on_ack_sent(&mut self) {
        self.pending = 0;
        self.due = Instant::FAR_FUTURE;
    }

    fn largest(&self) -> Option<u64> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// Adds a number; `false` where it is in already.
    fn insert(&mut self, number: u64) -> bool {
        let index = self.ranges.partition_point(|(_, last)| *last < number);
        let follows = self.ranges.get(index).copied();
        if number < self.floor || follows.is_some_and(|(first, _)| first <= number) {
            return false;
        }
        let extends_lower = index.checked_sub(1).filter(|lower| self.ranges[*lower].1 + 1 == number);
        let extends_upper = follows.is_some_and(|(first, _)| number + 1 == first);
        match (extends_lower, extends_upper) {
            (Some(lower), true) => {
                self.ranges[lower].1 = self.ranges[index].1;
                self.ranges.remove(index);
            }
            (Some(lower), false) => self.ranges[lower].1 = number,
            (None, true) => self.ranges[index].0 = number,
            (None, false) => self.ranges.insert(index, (number, number)),
        }
        true
    }

    /// Forgets ranges that are too many or too old.
    fn forget(&mut self) {
        let horizon = self.largest().unwrap_or(0).saturating_sub(HORIZON);
        let old = self.ranges.partition_point(|(_, last)| *last < horizon);
        let gone = old.max(self.ranges.len().saturating_sub(MAX_RANGES));
        if let Some((_, last)) = gone.checked_sub(1).and_then(|index| self.ranges.get(index)) {
            self.floor = last + 1;
            self.ranges.drain(..gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn ranges(received: &Received) -> Vec<(u64, u64)> {
        let (_, ranges) = received.pending_ack(Instant::ORIGIN).expect("an ack is pending");
        ranges.map(RangeInclusive::into_inner).collect()
    }

    #[test]
    fn in_order_packets_wait_for_a_second_one_or_25_ms() {
        let mut received = Received::default();
        let now = Instant::from_millis(1000);
        assert!(received.on_packet(now, 7));
        assert_eq!(received.next_deadline(), now + MAX_ACK_DELAY);
        assert_eq!(received.pending_ack(now + MS * 25).map(|(delay, _)| delay), Some(MS * 25));
        assert!(received.on_packet(now + MS, 8));
        assert_eq!(received.next_deadline(), now + MS);
        assert_eq!(ranges(&received), [(7, 8)]);
        received.on_ack_sent();
        assert_eq!(received.next_deadline(), Instant::FAR_FUTURE);
        assert!(received.pending_ack(now).is_none());
    }

    #[test]
    fn disorder_is_told_at_once_and_duplicates_never() {
        let mut received = Received::default();
        let now = Instant::from_millis(1000);
        received.on_packet(now, 1);
        received.on_ack_sent();
        assert!(received.on_packet(now, 3));
        assert_eq!(received.next_deadline(), now);
        assert_eq!(ranges(&received), [(3, 3), (1, 1)]);
        received.on_ack_sent();
        assert!(!received.on_packet(now, 3) && !received.on_packet(now, 1));
        assert_eq!(received.next_deadline(), Instant::FAR_FUTURE);
        assert!(received.on_packet(now, 2));
        assert_eq!(received.next_deadline(), now);
        assert_eq!(ranges(&received), [(1, 3)]);
    }

    #[test]
    fn the_delay_is_that_of_the_largest() {
        let mut received = Received::default();
        let now = Instant::from_millis(1000);
        received.on_packet(now, 9);
        received.on_packet(now + MS * 10, 8);
        assert_eq!(received.pending_ack(now + MS * 15).map(|(delay, _)| delay), Some(MS * 15));
    }

    #[test]
    fn extreme_numbers() {
        let mut received = Received::default();
        for number in [u64::MAX, 0, u64::MAX - 1, u64::MAX, 1] {
            received.on_packet(Instant::ORIGIN, number);
        }
        assert_eq!(ranges(&received), [(u64::MAX - 1, u64::MAX)]);
    }

    proptest! {
        #[test]
        fn like_a_set(numbers in prop::collection::vec(0u64..3000, 1..600), spread in 1u64..30) {
            let mut received = Received::default();
            let mut seen = BTreeSet::new();
            for number in numbers {
                let number = number / spread;
                let floor = received.floor;
                let new = received.on_packet(Instant::ORIGIN, number);
                prop_assert_eq!(new, number >= floor && seen.insert(number));
                prop_assert!(received.ranges.len() <= MAX_RANGES);
                prop_assert!(received.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                let kept: BTreeSet<u64> = received.ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
                let expected: BTreeSet<u64> = seen.iter().copied().filter(|number| *number >= received.floor).collect();
                prop_assert_eq!(kept, expected);
            }
        }
    }
}
