//! Delivery of what must arrive over one path: packet numbers, loss, timeouts, congestion, pacing (RFC 9002).
//!
//! A packet number names one envelope with reliable messages; the number spaces are those of the sender's path slots. A
//! number is used once and an envelope is never sent again: what it carried is, in another one. [`Recovery`] is the
//! sender's half and knows only tokens of what each packet carried, [`Received`] is the receiver's.
//!
//! ```text
//!   Reliable --take_for_packet--> on_sent --- Packet{path, pn} ---> Received::on_packet
//!      ^                                                                    |
//!      +-- on_acked, on_lost -- on_ack <----- Ack{path, ranges} ------ pending_ack
//! ```
//!
//! The round-trip time is the path's own: Pings measure it as well.

mod congestion;
mod pacer;
mod received;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

pub use received::{MAX_RANGES, Received};

use self::congestion::Congestion;
use self::pacer::Pacer;
use super::RttEstimator;
use super::rtt::GRANULARITY;
use crate::time::Instant;

/// Items that one packet carries at most.
pub const MAX_ITEMS: usize = 8;

/// Packets in flight on a path at most; beyond, nothing is sent until one is acknowledged or given up.
pub const MAX_IN_FLIGHT: usize = 256;

/// How long a receiver may hold an acknowledgement back (RFC 9000 section 18.2, `max_ack_delay`).
pub const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// A packet is lost when one sent this many later was acknowledged (RFC 9002 section 6.1.1).
const PACKET_THRESHOLD: u64 = 3;

/// Timeouts of this many in a row without anything acknowledged are persistent congestion (RFC 9002 section 7.6.1).
const PERSISTENT_CONGESTION: u32 = 3;

/// Timeouts do not grow beyond this while there is hope, save where the round trip itself is longer: a path that answers nothing is given up by
/// its liveness, and on one that merely loses much a Signal must not wait longer.
const MAX_TIMEOUT: Duration = Duration::from_secs(3);

/// After so many timeouts in a row, some ten seconds, nobody is there: from then on the longest pause doubles, so often.
const HOPEFUL: u32 = 8;
const MAX_GROWTH: u32 = 8;

/// What one packet carries, as tokens of the caller.
pub type Items<T> = heapless::Vec<T, MAX_ITEMS>;

/// Why nothing may be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// It would exceed the pace: it may go then.
    Until(Instant),
    /// Too much is in flight: an acknowledgement or a timeout will change that.
    InFlight,
}

/// An acknowledgement of a number that was never sent: the peer is broken or lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("packet {0} was acknowledged and never sent")]
pub struct NeverSent(pub u64);

/// What an acknowledgement changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acked<T> {
    /// What arrived.
    pub acked: Vec<T>,
    /// What is thereby known to be lost.
    pub lost: Vec<T>,
    /// The round-trip time that it shows, where its largest number is newly acknowledged: proof that the path works.
    pub rtt: Option<Duration>,
}

/// What a timeout changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimedOut<T> {
    /// What is lost.
    pub lost: Vec<T>,
    /// One packet is to be sent at once, whatever [`Recovery::may_send`] says: with these items, which may have been lost,
    /// or with others, or with none.
    pub probe: Option<Items<T>>,
}

#[derive(Clone, Debug)]
struct Sent<T> {
    number: u64,
    at: Instant,
    bytes: u32,
    items: Items<T>,
}

/// The sender's half for one path slot.
///
/// A slot keeps its numbers when its path changes ([`Recovery::abandon`]), so that an acknowledgement is never of another
/// path's packet.
#[derive(Clone, Debug)]
pub struct Recovery<T> {
    next: u64,
    /// In flight, by number and therefore by time.
    sent: VecDeque<Sent<T>>,
    largest_acked: Option<u64>,
    /// When the first packet in flight that a later one has overtaken will be lost.
    loss_at: Option<Instant>,
    /// The timeout counts from here: the last packet sent, or the last timeout.
    timer_start: Instant,
    /// Timeouts in a row.
    timeouts: u32,
    congestion: Congestion,
    pacer: Pacer,
}

impl<T> Default for Recovery<T> {
    fn default() -> Self {
        Recovery {
            next: 0,
            sent: VecDeque::new(),
            largest_acked: None,
            loss_at: None,
            timer_start: Instant::ORIGIN,
            timeouts: 0,
            congestion: Congestion::default(),
            pacer: Pacer::default(),
        }
    }
}

impl<T: Copy> Recovery<T> {
    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Packets in flight.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Whether a packet of `bytes` may be sent.
    pub fn may_send(&self, now: Instant, bytes: usize, rtt: &RttEstimator) -> Result<(), Blocked> {
        let bytes = to_bytes(bytes);
        // The last place is a probe's.
        if self.sent.len() + 1 >= MAX_IN_FLIGHT || !self.congestion.admits(bytes) {
            return Err(Blocked::InFlight);
        }
        let earliest = self.pacer.earliest(bytes, self.congestion.window(), rtt.assumed());
        if earliest > now { Err(Blocked::Until(earliest)) } else { Ok(()) }
    }

    /// Records that a packet of `bytes` (UDP payload) is sent and returns its number, which is [`Recovery::next_number`] of
    /// before; `None`, and nothing is recorded, where no room is left. There is room after `may_send` and for a probe.
    pub fn on_sent(&mut self, now: Instant, bytes: usize, items: Items<T>, rtt: &RttEstimator) -> Option<u64> {
        if self.sent.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (number, bytes) = (self.next, to_bytes(bytes));
        self.next += 1;
        self.timer_start = now;
        self.congestion.on_sent(bytes);
        self.pacer.on_sent(now, bytes, self.congestion.window(), rtt.assumed());
        self.sent.push_back(Sent { number, at: now, bytes, items });
        Some(number)
    }

    /// Takes in an acknowledgement: its ranges, the largest first, and how long the peer says that it waited.
    pub fn on_ack(
        &mut self,
        now: Instant,
        ranges: impl Iterator<Item = RangeInclusive<u64>> + Clone,
        delay: Duration,
        rtt: &mut RttEstimator,
    ) -> Result<Acked<T>, NeverSent> {
        if let Some(never) = ranges.clone().map(|range| *range.end()).find(|last| *last >= self.next) {
            return Err(NeverSent(never));
        }
        let mut outcome = Acked { acked: Vec::new(), lost: Vec::new(), rtt: None };
        let largest = ranges.clone().map(|range| *range.end()).max();
        let is_used = self.congestion.is_used();
        let arrived = self.take_acknowledged(ranges);
        let Some(newest) = arrived.iter().max_by_key(|packet| packet.number) else { return Ok(outcome) };
        self.timeouts = 0;
        self.largest_acked = self.largest_acked.max(largest);
        if Some(newest.number) == largest {
            let sample = now.since(newest.at);
            rtt.update_delayed(sample, delay.min(MAX_ACK_DELAY));
            outcome.rtt = Some(sample);
        }
        self.detect_lost(now, rtt, &mut outcome.lost);
        for packet in arrived {
            self.congestion.on_acknowledged(packet.at, packet.bytes, is_used);
            outcome.acked.extend(packet.items);
        }
        Ok(outcome)
    }

    /// When [`Recovery::on_timeout`] is to be called. It depends on the round-trip time as it is.
    pub fn next_deadline(&self, rtt: &RttEstimator) -> Instant {
        match self.loss_at {
            _ if self.sent.is_empty() => Instant::FAR_FUTURE,
            Some(at) => at,
            None => self.timer_start + self.timeout(rtt),
        }
    }

    /// Does what is due at `now`, if something is. Afterwards the deadline is later than `now`.
    pub fn on_timeout(&mut self, now: Instant, rtt: &RttEstimator) -> TimedOut<T> {
        let mut outcome = TimedOut { lost: Vec::new(), probe: None };
        if self.loss_at.is_some_and(|at| at <= now) {
            self.detect_lost(now, rtt, &mut outcome.lost);
        }
        if self.next_deadline(rtt) > now {
            return outcome;
        }
        self.timeouts = self.timeouts.saturating_add(1);
        self.timer_start = now;
        outcome.probe = self.sent.front().map(|oldest| oldest.items.clone());
        // The probe needs a place.
        if self.sent.len() >= MAX_IN_FLIGHT
            && let Some(oldest) = self.sent.pop_front()
        {
            self.congestion.on_gone(oldest.bytes);
            outcome.lost.extend(oldest.items);
        }
        outcome
    }

    /// The path works, as something else has shown: what waits for its next probe need not wait longer.
    pub fn on_alive(&mut self) {
        self.timeouts = 0;
    }

    /// Gives up what is in flight, and what is known of the way: the path is gone or another one is in its slot. Returns
    /// what was in flight.
    pub fn abandon(&mut self) -> Vec<T> {
        let items = self.sent.drain(..).flat_map(|packet| packet.items).collect();
        *self = Recovery { next: self.next, ..Recovery::default() };
        items
    }

    /// Takes what the ranges cover out of the flight.
    fn take_acknowledged(&mut self, ranges: impl Iterator<Item = RangeInclusive<u64>>) -> Vec<Sent<T>> {
        let mut arrived = Vec::new();
        for range in ranges {
            let first = self.sent.partition_point(|packet| packet.number < *range.start());
            let end = self.sent.partition_point(|packet| packet.number <= *range.end());
            if first < end {
                arrived.extend(self.sent.drain(first..end));
            }
        }
        arrived
    }

    /// Moves what is lost out of the flight into `lost`, and finds when the next will be (RFC 9002 section 6.1).
    fn detect_lost(&mut self, now: Instant, rtt: &RttEstimator, lost: &mut Vec<T>) {
        self.loss_at = None;
        let Some(largest) = self.largest_acked else { return };
        let patience = (rtt.longest() * 9 / 8).max(GRANULARITY);
        let mut run: Option<(u64, Instant)> = None;
        let mut silence = Duration::ZERO;
        let mut last_lost = None;
        while let Some(packet) = self.sent.front().filter(|packet| packet.number < largest) {
            if packet.number + PACKET_THRESHOLD > largest && packet.at + patience > now {
                self.loss_at = Some(packet.at + patience);
                break;
            }
            // Between packets with adjoining numbers nothing was acknowledged.
            let began = run.filter(|(last, _)| last + 1 == packet.number).map_or(packet.at, |(_, began)| began);
            run = Some((packet.number, began));
            silence = silence.max(packet.at.since(began));
            last_lost = Some(packet.at);
            self.congestion.on_gone(packet.bytes);
            if let Some(packet) = self.sent.pop_front() {
                lost.extend(packet.items);
            }
        }
        let Some(last_lost) = last_lost else { return };
        self.congestion.on_loss(now, last_lost);
        let timeout = rtt.probe_timeout() + MAX_ACK_DELAY;
        if rtt.smoothed().is_some() && silence > timeout * PERSISTENT_CONGESTION {
            self.congestion.on_persistent_congestion();
        }
    }

    /// The probe timeout with its backoff (RFC 9002 section 6.2.1).
    fn timeout(&self, rtt: &RttEstimator) -> Duration {
        let timeout = rtt.probe_timeout() + MAX_ACK_DELAY;
        let longest = MAX_TIMEOUT * (1 << self.timeouts.saturating_sub(HOPEFUL).min(MAX_GROWTH));
        timeout.saturating_mul(1 << self.timeouts.min(16)).min(longest.max(timeout))
    }
}

fn to_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const START: Instant = Instant::from_millis(10_000);

    /// A path whose round trip has always been 100 ms: loss after 112.5 ms, timeout after 126 ms.
    fn steady() -> (Recovery<u32>, RttEstimator) {
        let mut rtt = RttEstimator::default();
        for _ in 0..200 {
            rtt.update(MS * 100);
        }
        (Recovery::default(), rtt)
    }

    fn send(recovery: &mut Recovery<u32>, now: Instant, rtt: &RttEstimator, item: u32) -> u64 {
        let items = Items::from_slice(&[item]).expect("one item fits");
        recovery.on_sent(now, 1000, items, rtt).expect("there is room")
    }

    fn one(number: u64) -> core::iter::Once<RangeInclusive<u64>> {
        core::iter::once(number..=number)
    }

    #[test]
    fn what_is_acknowledged_arrived_once() {
        let (mut recovery, mut rtt) = steady();
        for item in 0..5 {
            assert_eq!(send(&mut recovery, START, &rtt, item), u64::from(item));
        }
        let ranges = [3..=4, 0..=1];
        let outcome = recovery.on_ack(START + MS * 100, ranges.clone().into_iter(), MS, &mut rtt).unwrap();
        assert_eq!(outcome, Acked { acked: [3, 4, 0, 1].into(), lost: [].into(), rtt: Some(MS * 100) });
        let again = recovery.on_ack(START + MS * 101, ranges.into_iter(), MS, &mut rtt).unwrap();
        assert_eq!(again, Acked { acked: [].into(), lost: [].into(), rtt: None });
        assert_eq!((recovery.in_flight(), recovery.congestion.in_flight()), (1, 1000));
    }

    #[test]
    fn a_number_that_was_never_sent_is_an_error_and_changes_nothing() {
        let (mut recovery, mut rtt) = steady();
        send(&mut recovery, START, &rtt, 0);
        assert_eq!(recovery.on_ack(START, [1..=1, 0..=0].into_iter(), MS, &mut rtt), Err(NeverSent(1)));
        assert_eq!(recovery.on_ack(START, one(u64::MAX), MS, &mut rtt), Err(NeverSent(u64::MAX)));
        assert_eq!(recovery.in_flight(), 1);
    }

    #[test]
    fn three_later_packets_show_a_loss() {
        let (mut recovery, mut rtt) = steady();
        for item in 0..4 {
            send(&mut recovery, START, &rtt, item);
        }
        let outcome = recovery.on_ack(START + MS * 100, one(3), Duration::ZERO, &mut rtt).unwrap();
        assert_eq!((outcome.acked, outcome.lost), ([3].into(), [0].into()));
        // The others are lost 9/8 of a round trip after they were sent.
        let deadline = recovery.next_deadline(&rtt);
        assert_eq!(deadline, START + Duration::from_micros(112_500));
        assert_eq!(recovery.on_timeout(deadline - MS, &rtt), TimedOut { lost: [].into(), probe: None });
        assert_eq!(recovery.on_timeout(deadline, &rtt), TimedOut { lost: [1, 2].into(), probe: None });
        assert_eq!(recovery.next_deadline(&rtt), Instant::FAR_FUTURE);
        assert_eq!(recovery.congestion.in_flight(), 0);
    }

    #[test]
    fn silence_asks_for_probes_ever_more_rarely() {
        let (mut recovery, mut rtt) = steady();
        send(&mut recovery, START, &rtt, 7);
        let mut now = START;
        for interval in [126, 252, 504, 1008] {
            assert_eq!(recovery.next_deadline(&rtt).since(now), MS * interval);
            now = recovery.next_deadline(&rtt);
            let outcome = recovery.on_timeout(now, &rtt);
            assert_eq!(outcome, TimedOut { lost: [].into(), probe: Some(Items::from_slice(&[7]).unwrap()) });
        }
        let mut after = |timeouts| {
            for _ in 0..timeouts {
                now = recovery.next_deadline(&rtt);
                recovery.on_timeout(now, &rtt);
            }
            recovery.next_deadline(&rtt).since(now)
        };
        assert_eq!(after(4), MAX_TIMEOUT);
        assert_eq!([after(1), after(1), after(30)], [2, 4, 256].map(|times| MAX_TIMEOUT * times), "nobody is there");
        recovery.on_alive();
        assert_eq!(recovery.next_deadline(&rtt).since(now), MS * 126);
        let probe = send(&mut recovery, now, &rtt, 7);
        let outcome = recovery.on_ack(now + MS * 100, one(probe), Duration::ZERO, &mut rtt).unwrap();
        assert_eq!((outcome.acked, outcome.lost), ([7].into(), [7].into()));
        send(&mut recovery, now, &rtt, 8);
        assert_eq!(recovery.next_deadline(&rtt).since(now), MS * 126);
    }

    #[test]
    fn the_first_timeout_without_a_sample_is_about_a_second() {
        let (mut recovery, rtt) = (Recovery::default(), RttEstimator::default());
        send(&mut recovery, START, &rtt, 0);
        assert_eq!(recovery.next_deadline(&rtt).since(START), MS * 999 + MAX_ACK_DELAY);
    }

    #[test]
    fn a_long_silence_between_losses_is_persistent_congestion() {
        let (mut recovery, mut rtt) = steady();
        for (at, item) in [(0, 0), (200, 1), (400, 2), (600, 3)] {
            send(&mut recovery, START + MS * at, &rtt, item);
        }
        recovery.on_ack(START + MS * 700, one(3), Duration::ZERO, &mut rtt).unwrap();
        assert_eq!(recovery.congestion.window(), 2 * 1232);

        let (mut recovery, mut rtt) = steady();
        for (at, item) in [(0, 0), (200, 1), (300, 2), (600, 3)] {
            send(&mut recovery, START + MS * at, &rtt, item);
        }
        // Number 1 arrived: the rest is no silence.
        recovery.on_ack(START + MS * 300, one(1), Duration::ZERO, &mut rtt).unwrap();
        recovery.on_ack(START + MS * 700, one(3), Duration::ZERO, &mut rtt).unwrap();
        assert!(recovery.congestion.window() > 2 * 1232);
    }

    #[test]
    fn the_window_and_the_pace_hold() {
        let (mut recovery, mut rtt) = steady();
        let mut sent = 0;
        while recovery.may_send(START, 1000, &rtt).is_ok() {
            send(&mut recovery, START, &rtt, 0);
            sent += 1;
        }
        assert_eq!((sent, recovery.may_send(START, 1000, &rtt)), (12, Err(Blocked::InFlight)));
        let ranges = core::iter::once(0..=11);
        recovery.on_ack(START + MS * 100, ranges, Duration::ZERO, &mut rtt).unwrap();
        // Now the window is larger than a burst, and the rest of it follows at the pace.
        let mut now = START + MS * 100;
        let mut waits = 0;
        while recovery.congestion.in_flight() < 24_000 {
            match recovery.may_send(now, 1000, &rtt) {
                Ok(()) => _ = send(&mut recovery, now, &rtt, 0),
                Err(Blocked::Until(then)) => {
                    assert!(then > now && then < now + MS * 10);
                    (now, waits) = (then, waits + 1);
                }
                Err(Blocked::InFlight) => break,
            }
        }
        assert_eq!((recovery.congestion.in_flight(), waits), (24_000, 12));
    }

    #[test]
    fn numbers_go_on_when_the_path_is_another() {
        let (mut recovery, mut rtt) = steady();
        send(&mut recovery, START, &rtt, 1);
        send(&mut recovery, START, &rtt, 2);
        assert_eq!(recovery.abandon(), [1, 2]);
        assert_eq!(recovery.next_deadline(&rtt), Instant::FAR_FUTURE);
        assert_eq!(send(&mut recovery, START, &rtt, 3), 2);
        let late = recovery.on_ack(START + MS, core::iter::once(0..=1), MS, &mut rtt).unwrap();
        assert_eq!(late, Acked { acked: [].into(), lost: [].into(), rtt: None });
    }

    #[test]
    fn a_full_flight_gives_way_to_probes_only() {
        let (mut recovery, rtt) = steady();
        let mut now = START;
        while recovery.on_sent(now, 10, Items::new(), &rtt).is_some() {}
        assert_eq!(recovery.in_flight(), MAX_IN_FLIGHT);
        for _ in 0..10 {
            now = recovery.next_deadline(&rtt);
            assert!(recovery.on_timeout(now, &rtt).probe.is_some());
            assert!(recovery.on_sent(now, 10, Items::new(), &rtt).is_some());
        }
    }

    proptest! {
        /// Whatever the peer acknowledges, every item leaves the flight once, and deadlines move.
        #[test]
        fn any_order_of_calls(ops in prop::collection::vec((0u8..8, 0u64..40, 0u64..400), 0..300)) {
            let (mut recovery, mut rtt) = (Recovery::default(), RttEstimator::default());
            let mut now = START;
            let (mut sent, mut left) = (0u32, Vec::new());
            for (op, number, wait) in ops {
                match op {
                    0..=2 => {
                        if recovery.may_send(now, 1000, &rtt).is_ok() {
                            send(&mut recovery, now, &rtt, sent);
                            sent += 1;
                        }
                    }
                    3..=4 => {
                        let last = recovery.next_number().saturating_sub(number % 10);
                        let ranges = [last.saturating_sub(number / 10)..=last];
                        if let Ok(outcome) = recovery.on_ack(now, ranges.into_iter(), MS * 5, &mut rtt) {
                            left.extend(outcome.acked);
                            left.extend(outcome.lost);
                        }
                    }
                    5 if number == 0 => left.extend(recovery.abandon()),
                    _ => now += MS * u32::try_from(wait).unwrap(),
                }
                if recovery.next_deadline(&rtt) <= now {
                    left.extend(recovery.on_timeout(now, &rtt).lost);
                }
                prop_assert!(recovery.next_deadline(&rtt) > now);
                let bytes: u32 = recovery.sent.iter().map(|packet| packet.bytes).sum();
                prop_assert_eq!(bytes, recovery.congestion.in_flight());
            }
            left.extend(recovery.abandon());
            left.sort_unstable();
            prop_assert_eq!(left, (0..sent).collect::<Vec<_>>());
        }
    }
}
