//! What is sent twice while a path is in doubt: the very same sealed envelopes go by another path too, within a limit, so
//! that a pair whose path died does not wait until that is certain.

use core::ops::Range;
use core::time::Duration;

use crate::time::Instant;

/// Datagrams and bytes that may be doubled in one round trip.
const PACKETS: u32 = 64;
const BYTES: usize = 64 * 1024;

/// The round trip that the limit is for lies between these.
const WINDOW: Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// How much has been doubled in the present window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MirrorBudget {
    window_end: Instant,
    packets: u32,
    bytes: usize,
}

impl MirrorBudget {
    /// Whether `length` bytes may be sent twice now, by a path with this round-trip time; takes them off if so.
    pub(super) fn take(&mut self, now: Instant, rtt: Option<Duration>, length: usize) -> bool {
        if now >= self.window_end {
            let window = rtt.unwrap_or(WINDOW.end).clamp(WINDOW.start, WINDOW.end);
            *self = MirrorBudget { window_end: now + window, packets: 0, bytes: 0 };
        }
        let fits = self.packets < PACKETS && self.bytes + length <= BYTES;
        if fits {
            self.packets += 1;
            self.bytes += length;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_packets_and_bytes_a_round_trip() {
        let mut budget = MirrorBudget::default();
        let rtt = Some(Duration::from_millis(50));
        let mut taken =
            |at: u64, length| (0..1_000).filter(|_| budget.take(Instant::from_millis(at), rtt, length)).count();
        assert_eq!(taken(1_000, 100), 64);
        assert_eq!(taken(1_049, 100), 0);
        assert_eq!(taken(1_050, 1_400), 46);
        assert_eq!(taken(1_099, 1), 18);
        assert_eq!(taken(1_100, 70_000), 0);
    }
}
