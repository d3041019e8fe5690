//! Round-trip time of one path, estimated as RFC 9002 section 5 does.

use core::time::Duration;

/// Smoothed round-trip time and its variation, in integer nanoseconds (RFC 9002 section 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: Duration,
}

impl RttEstimator {
    /// Takes one sample in.
    pub fn update(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
                self.minimum = sample;
            }
            Some(smoothed) => {
                self.minimum = self.minimum.min(sample);
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// The smoothed round-trip time, or `None` before the first sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The mean deviation of the samples.
    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// The smallest sample.
    pub fn minimum(&self) -> Duration {
        self.minimum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sample_seeds_and_later_ones_smooth() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.smoothed(), None);
        rtt.update(Duration::from_millis(80));
        assert_eq!((rtt.smoothed(), rtt.variation()), (Some(Duration::from_millis(80)), Duration::from_millis(40)));
        rtt.update(Duration::from_millis(160));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(90)));
        assert_eq!(rtt.variation(), Duration::from_millis(50));
        assert_eq!(rtt.minimum(), Duration::from_millis(80));
    }
}
