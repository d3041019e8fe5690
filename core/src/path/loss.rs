//! How much of what is sent on a path is lost, by what receipts say.

use core::time::Duration;

use crate::time::Instant;

/// Datagrams of one sample, at least.
const SAMPLE: u64 = 64;

/// And it takes this long, so that one full queue is one sample.
const SAMPLE_TIME: Duration = Duration::from_millis(500);

/// Of a thousand: a path that loses this much is left for one that does not. Nothing can be done over such a path but to
/// wait, and what merely fills its queue loses less.
const TOO_MUCH: u32 = 250;

/// So many are worth a look (they count as one loss in RFC 9002).
const LOSSES: u64 = 3;

/// For so long what was measured counts.
const MEMORY: Duration = Duration::from_secs(60);

/// The losses of one direction of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossMeter {
    /// The last receipt: the largest counter, and how many had arrived.
    last: Option<(u64, u64)>,
    /// The sample that is being taken: since when, what was sent and what has arrived of it.
    began: Instant,
    sent: u64,
    arrived: u64,
    /// Lost since it was last told that there are many.
    lost: u64,
    /// Lost of a thousand, a quarter of it by the last sample.
    rate: u32,
    measured: Option<Instant>,
}

impl LossMeter {
    /// Takes in a receipt: `received` of the datagrams up to `largest` have arrived. Returns whether [`LOSSES`] were lost since
    /// it last did.
    pub(super) fn on_receipt(&mut self, now: Instant, largest: u64, received: u64) -> bool {
        let Some((last_largest, last_received)) = self.last.replace((largest, received)) else {
            self.began = now;
            return false;
        };
        let (sent, arrived) = (largest.saturating_sub(last_largest), received.saturating_sub(last_received));
        self.sent = self.sent.saturating_add(sent);
        self.arrived = self.arrived.saturating_add(arrived); // What the peer says may be anything.
        if self.sent >= SAMPLE && now.since(self.began) >= SAMPLE_TIME {
            let lost = self.sent.saturating_sub(self.arrived).saturating_mul(1000) / self.sent;
            self.rate = (self.rate * 3 + u32::try_from(lost).unwrap_or(1000)) / 4;
            self.measured = Some(now);
            (self.began, self.sent, self.arrived) = (now, 0, 0);
        }
        // What was late comes with a later one.
        self.lost = self.lost.saturating_add(sent).saturating_sub(arrived);
        let many = self.lost >= LOSSES;
        self.lost = if many { 0 } else { self.lost };
        many
    }

    /// Whether so much is lost that any path that does not is better.
    pub(super) fn is_too_much(&self, now: Instant) -> bool {
        self.rate >= TOO_MUCH && self.measured.is_some_and(|measured| now.since(measured) < MEMORY)
    }

    /// Begins a new sample: other counters are used from now on, or the path is silent altogether, which is no loss but a fault.
    pub(super) fn restart(&mut self) {
        self.last = None;
        (self.sent, self.arrived, self.lost) = (0, 0, 0);
    }

    /// The path has shown that it is better now. One bad sample, and it is not.
    pub(super) fn forgive(&mut self) {
        self.restart();
        self.rate = self.rate.min(TOO_MUCH - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred datagrams in each 100 ms, of which `lost` are lost. Returns when the path was found to lose too much.
    fn found_after(lost: u64, seconds: u64) -> Option<u64> {
        let mut meter = LossMeter::default();
        (0..seconds * 10).find(|n| {
            let now = Instant::from_millis(1_000 + n * 100);
            let many = meter.on_receipt(now, n * 100, n * (100 - lost));
            assert_eq!(many, *n > 0);
            meter.is_too_much(now)
        })
    }

    #[test]
    fn a_path_that_loses_much_is_found_after_some_seconds_and_others_are_not() {
        assert_eq!(found_after(20, 600), None);
        let much = found_after(40, 600).unwrap();
        assert!((15..=30).contains(&much), "{much}");
        assert!(found_after(90, 600).unwrap() >= 5, "one sample is not enough");
    }

    #[test]
    fn what_is_late_is_not_lost_and_what_was_is_forgotten() {
        let mut meter = LossMeter::default();
        for n in 0..1_000 {
            let now = Instant::from_millis(n * 50);
            // Every other receipt lacks what comes a little later.
            let late = if n % 2 == 1 { 2 } else { 0 };
            assert!(!meter.on_receipt(now, n * 20, n * 20 - late) && !meter.is_too_much(now));
        }
        let (mut meter, mut many) = (LossMeter::default(), 0);
        for n in 0..100 {
            many += u64::from(meter.on_receipt(Instant::from_millis(n * 100), n * 100, n * 99));
            many += u64::from(meter.on_receipt(Instant::from_millis(n * 100), n * 100, n * 99));
        }
        assert_eq!(many, 33);
        for n in 100..200 {
            meter.on_receipt(Instant::from_millis(n * 100), n * 100, n * 50);
        }
        assert!(meter.is_too_much(Instant::from_millis(20_000)) && !meter.is_too_much(Instant::from_millis(90_000)));
        meter.restart();
        meter.on_receipt(Instant::from_millis(21_000), 0, 0);
        assert!(meter.is_too_much(Instant::from_millis(21_000)), "other keys do not change the path");
        meter.forgive();
        let start = Instant::from_millis(22_000);
        assert!(!meter.on_receipt(start, 0, 0) && !meter.is_too_much(start));
        assert!(meter.on_receipt(start + SAMPLE_TIME, 100, 60) && meter.is_too_much(start + SAMPLE_TIME));
    }
}
