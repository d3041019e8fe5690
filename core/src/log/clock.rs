//! The hybrid clock that stamps commits and key-value writes.
//!
//! A stamp is the wall clock's millisecond with a counter behind it. It grows with every use even where the wall clock stands
//! still or goes back, and it is never pulled forward by the stamp of somebody else: a peer with a wrong clock spoils
//! nobody's.

use core::fmt;

use crate::time::UnixTime;

/// Bits of a stamp that count within a millisecond.
const COUNTER_BITS: u32 = 16;

/// Stamps at or beyond this one, 2100-01-01T00:00:00Z, are void in the key-value view of every node. A fixed point, so that
/// all nodes agree and a wild stamp cannot block a key for ever.
pub const KV_HORIZON: Hlc = Hlc::from_unix(UnixTime(4_102_444_800_000));

/// A hybrid logical stamp: milliseconds since 1970-01-01T00:00:00Z, shifted left by 16, plus a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first stamp of the millisecond. Times from the year 10889 on are that year's.
    pub const fn from_unix(time: UnixTime) -> Hlc {
        const LAST_MS: u64 = u64::MAX >> COUNTER_BITS;
        let ms = if time.0 < LAST_MS { time.0 } else { LAST_MS };
        Hlc(ms << COUNTER_BITS)
    }

    /// The millisecond of the stamp. It runs ahead of the wall clock after more than 65,536 stamps in one millisecond.
    pub const fn unix_time(self) -> UnixTime {
        UnixTime(self.0 >> COUNTER_BITS)
    }

    /// The stamp after this one; the last one is its own successor.
    pub const fn next(self) -> Hlc {
        Hlc(self.0.saturating_add(1))
    }
}

impl fmt::Display for Hlc {
    /// Milliseconds and counter: `1700000000000.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.unix_time().0, self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// Hands out stamps, each later than the one before.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A clock whose stamps are all later than `last`: the last stamp that this node itself gave, as far as it knows.
    pub fn new(last: Hlc) -> HybridClock {
        HybridClock { last }
    }

    /// A stamp for now: the wall clock's, or the next one after the last where that is later.
    pub fn tick(&mut self, now: UnixTime) -> Hlc {
        self.last = self.last.next().max(Hlc::from_unix(now));
        self.last
    }

    /// The last stamp that was handed out.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn stamps_rise_whatever_the_wall_clock_does() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.tick(UnixTime(1000)), Hlc(1000 << 16));
        assert_eq!(clock.tick(UnixTime(1000)), Hlc((1000 << 16) + 1));
        assert_eq!(clock.tick(UnixTime(10)), Hlc((1000 << 16) + 2), "the wall clock went back");
        assert_eq!(clock.tick(UnixTime(1001)), Hlc(1001 << 16));
        assert_eq!(clock.last().to_string(), "1001.0");
    }

    #[test]
    fn a_full_counter_runs_into_the_next_millisecond() {
        let mut clock = HybridClock::new(Hlc((7 << 16) + 0xffff));
        assert_eq!(clock.tick(UnixTime(7)), Hlc(8 << 16));
        assert_eq!(clock.tick(UnixTime(8)), Hlc((8 << 16) + 1));
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let last = Hlc::from_unix(UnixTime(u64::MAX));
        assert_eq!(last.unix_time(), UnixTime(u64::MAX >> 16));
        let mut clock = HybridClock::new(Hlc(u64::MAX));
        assert_eq!(clock.tick(UnixTime(5)), Hlc(u64::MAX));
    }

    #[test]
    fn the_horizon_is_a_date() {
        // 130 years with 32 leap days: 1972, 1976, ..., 2096.
        assert_eq!(KV_HORIZON.unix_time(), UnixTime((130 * 365 + 32) * 86_400_000));
    }
}
