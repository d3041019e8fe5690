//! How fast a window may be filled: evenly over the round trip, after a first burst (RFC 9002 section 7.7).

use core::time::Duration;

use super::congestion::INITIAL_WINDOW;
use crate::time::Instant;

/// Bytes that may go out at once after a pause.
const BURST: u32 = INITIAL_WINDOW;

/// Packets may leave when the schedule, at a steady rate, is at most one burst ahead (the generic cell rate algorithm of
/// ITU-T I.371: no timer, and exact at any change of the rate).
#[derive(Clone, Debug, Default)]
pub(super) struct Pacer {
    /// When all that was sent would have left at the steady rate.
    schedule: Instant,
}

impl Pacer {
    /// When `bytes` may leave, given the window and the round-trip time.
    pub(super) fn earliest(&self, bytes: u32, window: u32, rtt: Duration) -> Instant {
        (self.schedule + cost(bytes, window, rtt)) - cost(BURST.max(bytes), window, rtt)
    }

    pub(super) fn on_sent(&mut self, now: Instant, bytes: u32, window: u32, rtt: Duration) {
        self.schedule = self.schedule.max(now) + cost(bytes, window, rtt);
    }
}

/// The time that `bytes` take at 5/4 of a window a round trip: somewhat faster than acknowledgements allow, so that pacing
/// does not leave the window unused.
fn cost(bytes: u32, window: u32, rtt: Duration) -> Duration {
    let nanos = rtt.as_nanos().saturating_mul(u128::from(bytes) * 4) / (u128::from(window.max(1)) * 5);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_then_evenly_then_a_burst_again() {
        let (mut pacer, mut now) = (Pacer::default(), Instant::from_millis(1000));
        let window = 2 * BURST;
        for _ in 0..10 {
            assert!(pacer.earliest(BURST / 10, window, RTT) <= now);
            pacer.on_sent(now, BURST / 10, window, RTT);
        }
        // A twentieth of a window at 5/4 windows a round trip: 4 ms each.
        for _ in 0..50 {
            let next = pacer.earliest(BURST / 10, window, RTT);
            assert_eq!(next, now + Duration::from_millis(4));
            now = next;
            pacer.on_sent(now, BURST / 10, window, RTT);
        }
        now += RTT;
        assert!(pacer.earliest(BURST, window, RTT) <= now);
    }
}
