//! Round-trip time of one path, estimated as RFC 9002 section 5 does.

use core::time::Duration;

/// The round-trip time that is assumed before the first sample (`kInitialRtt` of RFC 9002 section 6.2.2).
const INITIAL: Duration = Duration::from_millis(333);

/// The least time that a timer can tell apart (`kGranularity` of RFC 9002 section 6.1.2).
pub(super) const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round-trip time and its variation, in integer nanoseconds (RFC 9002 section 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: Duration,
    latest: Duration,
}

impl RttEstimator {
    /// Takes one sample in.
    pub fn update(&mut self, sample: Duration) {
        self.update_delayed(sample, Duration::ZERO);
    }

    /// Takes one sample in whose answer the peer says it held for `delay`. What would make the path faster than it ever was
    /// is not believed: the minimum is of samples as they were measured (RFC 9002 section 5.2).
    pub fn update_delayed(&mut self, sample: Duration, delay: Duration) {
        self.latest = sample;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            self.minimum = sample;
            return;
        };
        self.minimum = self.minimum.min(sample);
        let believed = sample.checked_sub(delay).filter(|rest| *rest >= self.minimum);
        let sample = believed.unwrap_or(sample);
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// The smoothed round-trip time, or `None` before the first sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The mean deviation of the samples.
    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// Whether samples differ little from each other, so that another one would say little new.
    pub fn is_settled(&self) -> bool {
        self.smoothed.is_some_and(|smoothed| self.variation <= (smoothed / 8).max(GRANULARITY))
    }

    /// The smallest sample.
    pub fn minimum(&self) -> Duration {
        self.minimum
    }

    /// The smoothed round-trip time, or what is assumed before the first sample.
    pub(super) fn assumed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    /// The last sample or the smoothed round-trip time, whichever is longer.
    pub(super) fn longest(&self) -> Duration {
        self.assumed().max(self.latest)
    }

    /// How long an answer that is not held back may take (RFC 9002 section 6.2.1, without `max_ack_delay`).
    pub fn probe_timeout(&self) -> Duration {
        let variation = if self.smoothed.is_some() { self.variation } else { INITIAL / 2 };
        self.assumed() + (variation * 4).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_seeds_and_later_ones_smooth() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.smoothed(), None);
        rtt.update(MS * 80);
        assert_eq!((rtt.smoothed(), rtt.variation()), (Some(MS * 80), MS * 40));
        assert!(!rtt.is_settled());
        rtt.update(MS * 160);
        assert_eq!(rtt.smoothed(), Some(MS * 90));
        assert_eq!(rtt.variation(), MS * 50);
        assert_eq!(rtt.minimum(), MS * 80);
        assert_eq!(rtt.longest(), MS * 160);
    }

    #[test]
    fn a_delay_is_taken_off_unless_it_is_beyond_belief() {
        let mut rtt = RttEstimator::default();
        rtt.update(MS * 80);
        rtt.update_delayed(MS * 104, MS * 24);
        assert_eq!((rtt.smoothed(), rtt.minimum()), (Some(MS * 80), MS * 80));
        rtt.update_delayed(MS * 80, MS * 24);
        assert_eq!((rtt.smoothed(), rtt.minimum()), (Some(MS * 80), MS * 80));
    }

    #[test]
    fn the_timeout_before_and_after_the_first_sample() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.probe_timeout(), MS * 999);
        rtt.update(MS * 100);
        assert_eq!(rtt.probe_timeout(), MS * 300);
        for _ in 0..100 {
            rtt.update(MS * 100);
        }
        assert_eq!(rtt.probe_timeout(), MS * 101);
        assert!(rtt.is_settled());
    }
}
