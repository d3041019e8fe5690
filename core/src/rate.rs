//! How much of something in how much time.

use core::time::Duration;

use crate::time::Instant;

/// A rate with a burst. In any stretch of time `t`, a [`Bucket`] of this rate gives out at most `burst + units * t / per`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// So many units,
    pub units: u64,
    /// in so much time,
    pub per: Duration,
    /// and so many at once after a pause.
    pub burst: u64,
}

impl Rate {
    /// The time that `amount` units take at this rate, rounded up to the nanosecond.
    fn cost(&self, amount: u64) -> Duration {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(amount.saturating_mul(per).div_ceil(self.units.max(1)))
    }
}

/// A token bucket, kept as the one instant at which it is full again (the generic cell rate algorithm of ITU-T I.371): no
/// fraction is ever lost, and a bucket that nobody asks needs no refill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Takes `amount` units out and says whether they were there. A refusal takes nothing.
    pub fn take(&mut self, now: Instant, rate: &Rate, amount: u64) -> bool {
        let full_at = self.full_at.max(now) + rate.cost(amount);
        let granted = full_at.since(now) <= rate.cost(rate.burst);
        if granted {
            self.full_at = full_at;
        }
        granted
    }

    /// When `amount` units can be taken, if nobody else takes any: [`Instant::FAR_FUTURE`] where that is more than a burst.
    pub fn available_at(&self, rate: &Rate, amount: u64) -> Instant {
        if amount > rate.burst {
            return Instant::FAR_FUTURE;
        }
        self.full_at + rate.cost(amount) - rate.cost(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const RATE: Rate = Rate { units: 32, per: Duration::from_secs(60), burst: 32 };

    #[test]
    fn a_burst_and_then_the_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::from_millis(5));
        assert!((0..32).all(|_| bucket.take(start, &RATE, 1)));
        assert!(!bucket.take(start, &RATE, 1));
        let next = bucket.available_at(&RATE, 1);
        assert_eq!(next, start + Duration::from_millis(1875));
        assert!(!bucket.take(next - Duration::from_nanos(1), &RATE, 1) && bucket.take(next, &RATE, 1));
        assert_eq!(bucket.available_at(&RATE, 33), Instant::FAR_FUTURE);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_gets_more(asks in prop::collection::vec((0u64..5_000, 1u64..8), 1..300)) {
            let (mut bucket, mut now) = (Bucket::default(), Instant::ORIGIN);
            let mut taken: Vec<(Instant, u64)> = Vec::new();
            for (pause, amount) in asks {
                now += Duration::from_millis(pause);
                let expected = bucket.available_at(&RATE, amount) <= now;
                prop_assert_eq!(bucket.take(now, &RATE, amount), expected);
                if expected {
                    taken.push((now, amount));
                }
                let minute: u64 = taken.iter().filter(|(at, _)| now.since(*at) < RATE.per).map(|(_, n)| n).sum();
                prop_assert!(minute <= RATE.burst + RATE.units);
            }
        }
    }
}
