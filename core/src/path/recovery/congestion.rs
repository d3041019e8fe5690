//! How much may be in flight on a path: NewReno as in RFC 9002 section 7.

use crate::time::Instant;

/// The size that windows are counted in: a full datagram on the smallest path.
const DATAGRAM: u32 = 1232;

/// The window at first (RFC 9002 section 7.2).
pub(super) const INITIAL_WINDOW: u32 = 10 * DATAGRAM;

/// The window after persistent congestion, and the least at any time.
const MIN_WINDOW: u32 = 2 * DATAGRAM;

/// More than the packets that may be in flight can fill.
const MAX_WINDOW: u32 = 512 * DATAGRAM;

/// The congestion window of one path and what is in flight in it, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    window: u32,
    threshold: u32,
    in_flight: u32,
    /// Bytes acknowledged towards the next growth, beyond slow start.
    acknowledged: u32,
    /// When the last loss was noticed: losses of what was sent before do not reduce the window again.
    recovery_start: Option<Instant>,
}

impl Default for Congestion {
    fn default() -> Self {
        Congestion { window: INITIAL_WINDOW, threshold: u32::MAX, in_flight: 0, acknowledged: 0, recovery_start: None }
    }
}

impl Congestion {
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether `bytes` more fit in. Something always fits when nothing is in flight.
    pub(super) fn admits(&self, bytes: u32) -> bool {
        self.in_flight == 0 || self.in_flight.saturating_add(bytes) <= self.window
    }

    /// Whether the window is what limits the sender: one that is not used must not grow (RFC 9002 section 7.8).
    pub(super) fn is_used(&self) -> bool {
        self.in_flight >= self.window / 2
    }

    pub(super) fn on_sent(&mut self, bytes: u32) {
        self.in_flight = self.in_flight.saturating_add(bytes);
    }

    /// A packet sent at `sent_at` was acknowledged; `is_used` is of before this acknowledgement.
    pub(super) fn on_acknowledged(&mut self, sent_at: Instant, bytes: u32, is_used: bool) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if !is_used || self.recovery_start.is_some_and(|start| sent_at <= start) {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + bytes).min(MAX_WINDOW);
            return;
        }
        self.acknowledged += bytes;
        if self.acknowledged >= self.window {
            self.acknowledged -= self.window;
            self.window = (self.window + DATAGRAM).min(MAX_WINDOW);
        }
    }

    /// A packet left the flight without being acknowledged.
    pub(super) fn on_gone(&mut self, bytes: u32) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// A loss was noticed at `now`; `sent_at` is of the last packet lost.
    pub(super) fn on_loss(&mut self, now: Instant, sent_at: Instant) {
        if self.recovery_start.is_some_and(|start| sent_at <= start) {
            return;
        }
        self.recovery_start = Some(now);
        self.window = (self.window / 2).max(MIN_WINDOW);
        self.threshold = self.window;
        self.acknowledged = 0;
    }

    /// Nothing came through for several timeouts (RFC 9002 section 7.6).
    pub(super) fn on_persistent_congestion(&mut self) {
        self.window = MIN_WINDOW;
        self.acknowledged = 0;
        self.recovery_start = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Instant = Instant::from_millis(10);

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_datagram() {
        let mut congestion = Congestion::default();
        congestion.on_sent(INITIAL_WINDOW);
        assert!(congestion.is_used() && !congestion.admits(1));
        congestion.on_acknowledged(SENT, INITIAL_WINDOW, true);
        assert_eq!((congestion.window(), congestion.in_flight()), (2 * INITIAL_WINDOW, 0));
        congestion.on_loss(Instant::from_millis(20), SENT);
        assert_eq!(congestion.window(), INITIAL_WINDOW);
        for _ in 0..10 {
            congestion.on_acknowledged(Instant::from_millis(30), DATAGRAM, true);
        }
        assert_eq!(congestion.window(), INITIAL_WINDOW + DATAGRAM);
    }

    #[test]
    fn one_reduction_a_round_trip() {
        let mut congestion = Congestion::default();
        congestion.on_loss(Instant::from_millis(20), SENT);
        congestion.on_loss(Instant::from_millis(25), Instant::from_millis(20));
        congestion.on_acknowledged(Instant::from_millis(20), DATAGRAM, true);
        assert_eq!(congestion.window(), INITIAL_WINDOW / 2);
        congestion.on_loss(Instant::from_millis(40), Instant::from_millis(21));
        assert_eq!(congestion.window(), INITIAL_WINDOW / 4);
        congestion.on_loss(Instant::from_millis(60), Instant::from_millis(50));
        assert_eq!(congestion.window(), MIN_WINDOW);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut congestion = Congestion::default();
        congestion.on_sent(DATAGRAM);
        assert!(!congestion.is_used());
        congestion.on_acknowledged(SENT, DATAGRAM, false);
        assert_eq!(congestion.window(), INITIAL_WINDOW);
    }
}
