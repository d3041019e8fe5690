//! Randomness, as the caller's 32-byte seed determines it.
//!
//! The core has no source of its own. Same seed and same calls give the same bytes, on every machine, so a recorded
//! trace replays bit for bit.

use core::fmt;
use core::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};
use zeroize::Zeroizing;

/// A ChaCha20 generator.
///
/// Values that must stay secret after their use come from [`Rng::secret`], which forgets how it made them.
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// The generator of `seed`, which must be unpredictable and used once.
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        let seed = Zeroizing::new(seed);
        Rng(ChaCha20Rng::from_seed(*seed))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random `u32`.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A random `u64`.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 bytes for a key, after which the generator continues from a fresh state.
    ///
    /// A ChaCha stream can be run backwards from its key. Without this fast key erasure a memory image of today would
    /// give every ephemeral key of the process's life, and with them all recorded traffic.
    pub fn secret(&mut self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        let mut next = Zeroizing::new([0; 32]);
        self.fill(&mut *secret);
        self.fill(&mut *next);
        self.0 = ChaCha20Rng::from_seed(*next);
        secret
    }

    /// A number in `0..bound`, each equally likely; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire, "Fast Random Integer Generation in an Interval": the high half of a product, drawn again in the few
        // cases that would favour some results.
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.u64()) * u128::from(bound);
            let (high, low) = ((product >> 64) as u64, product as u64);
            if low >= threshold {
                return high;
            }
        }
    }

    /// A number in `low..=high`; `low` where `high` is smaller.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        match high.saturating_sub(low).checked_add(1) {
            Some(bound) => low.saturating_add(self.below(bound)),
            None => self.u64(),
        }
    }

    /// `base`, up to `percent` of it shorter or longer (100 at most), to the nanosecond: timers of many peers must not
    /// fall into step.
    pub fn jitter(&mut self, base: Duration, percent: u8) -> Duration {
        let nanos = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX);
        let spread = (u128::from(nanos) * u128::from(percent.min(100)) / 100) as u64;
        Duration::from_nanos(self.range(nanos - spread, nanos.saturating_add(spread)))
    }
}

/// Never the state: it determines every future key.
impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;
    use core::time::Duration;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn the_stream_is_fixed() {
        // RFC 8439, appendix A.1, test vector 1: key zero, block 0.
        let mut rng = Rng::from_seed([0; 32]);
        assert_eq!(rng.array(), [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn a_secret_leaves_no_way_back() {
        let (mut rng, mut plain) = (Rng::from_seed([1; 32]), Rng::from_seed([1; 32]));
        assert_eq!(*rng.secret(), plain.array::<32>());
        let next: [u8; 32] = plain.array();
        assert_eq!(rng.array::<64>(), Rng::from_seed(next).array::<64>());
    }

    #[test]
    fn below_reaches_every_number_evenly() {
        let mut rng = Rng::from_seed([2; 32]);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    proptest! {
        #[test]
        fn ranges_hold(seed in any::<[u8; 32]>(), a in any::<u64>(), b in any::<u64>(), nanos in any::<u64>(), percent in any::<u8>()) {
            let mut rng = Rng::from_seed(seed);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!((low..=high).contains(&rng.range(low, high)));
            prop_assert_eq!(rng.range(high, high), high);
            let base = Duration::from_nanos(nanos);
            let jittered = rng.jitter(base, percent);
            prop_assert!(jittered <= base * 2);
            prop_assert!(rng.jitter(base, 10) >= base / 10 * 8);
        }
    }
}
