//! The anti-replay window: each counter is accepted once, however late or disordered it arrives (RFC 6479).

use alloc::boxed::Box;
use alloc::vec;

const WORD_BITS: u64 = u64::BITS as u64;
/// One word more than the window needs: the window may begin in the middle of a word.
const WORDS: usize = (ReplayWindow::WIDTH / WORD_BITS) as usize + 1;
/// As many hold every counter that an idle hour has.
const FEW_WORDS: usize = 4;

/// Which of the last [`ReplayWindow::WIDTH`] counters have arrived.
///
/// A ring of bits. Advancing clears whole words and shifts nothing. It takes 32 bytes of heap for the first 256 counters, as
/// most sessions of an idle pair see no more, and from then on 1,032.
///
/// Nothing in here knows about authentication: [`ReplayWindow::is_new`] may be asked at any time,
/// [`ReplayWindow::mark`] is for what has authenticated. Otherwise a forged counter would move the window past all that
/// is on its way.
#[derive(Clone)]
pub struct ReplayWindow {
    /// None, [`FEW_WORDS`] or [`WORDS`]; fewer than those only while no counter needs more.
    words: Box<[u64]>,
    /// One more than the largest counter marked; 0 before the first.
    next: u64,
}

impl ReplayWindow {
    /// Counters that the window spans, the largest one included.
    ///
    /// At 10 Gbit/s of full packets (830,000 a second) it absorbs 10 ms of disorder within one lane; paths do not share
    /// lanes.
    pub const WIDTH: u64 = 8192;

    /// A window in which nothing has arrived.
    pub fn new() -> ReplayWindow {
        ReplayWindow { words: Box::default(), next: 0 }
    }

    /// Whether `counter` has not been marked and is not too old to tell.
    pub fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        let (word, bit) = self.place(counter);
        let unseen = self.words.get(word).is_some_and(|bits| bits & bit == 0);
        self.next - counter <= Self::WIDTH && unseen
    }

    /// Marks `counter` as arrived. Returns whether it was new; if not, nothing changes.
    ///
    /// `counter` is less than 2^64 - 1, as those of an envelope are.
    pub fn mark(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let (word, bit) = self.place(counter);
        if let Some(bits) = self.words.get_mut(word) {
            *bits |= bit;
        }
        true
    }

    /// The largest counter marked.
    pub fn largest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Moves the front to `counter`, clearing the words that it enters.
    fn advance(&mut self, counter: u64) {
        self.make_room(counter / WORD_BITS);
        // Before the first mark all words are clear, and word 0 counts as entered.
        let entered = self.next.saturating_sub(1) / WORD_BITS;
        let front = counter / WORD_BITS;
        for word in (entered + 1..=front).take(WORDS) {
            if let Some(bits) = self.words.get_mut((word % WORDS as u64) as usize) {
                *bits = 0;
            }
        }
        self.next = counter.saturating_add(1);
    }

    /// Has the ring hold the word that is the `front`-th from the first counter, if it begins to wrap only later.
    fn make_room(&mut self, front: u64) {
        let held = self.words.len();
        if held == WORDS || front < held as u64 {
            return;
        }
        // Nothing has wrapped yet: each word is where it will be.
        let mut words = vec![0; if front < FEW_WORDS as u64 { FEW_WORDS } else { WORDS }];
        words[..held].copy_from_slice(&self.words);
        self.words = words.into_boxed_slice();
    }

    /// The word of the ring that holds a counter, and its bit there.
    fn place(&self, counter: u64) -> (usize, u64) {
        // The constant divisor is what makes this cheap.
        let word = counter / WORD_BITS;
        let word = if self.words.len() == WORDS { word % WORDS as u64 } else { word };
        (word as usize, 1 << (counter % WORD_BITS))
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow::new()
    }
}

impl core::fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReplayWindow").field("largest", &self.largest()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const WIDTH: u64 = ReplayWindow::WIDTH;

    /// What the window must do, in the plainest way.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn is_new(&self, counter: u64) -> bool {
            let too_old = self.seen.last().is_some_and(|largest| largest - largest.min(&counter) >= WIDTH);
            !too_old && !self.seen.contains(&counter)
        }
    }

    fn run(counters: impl IntoIterator<Item = u64>) {
        let (mut window, mut model) = (ReplayWindow::new(), Model::default());
        for counter in counters {
            let new = model.is_new(counter);
            assert_eq!(window.is_new(counter), new, "{counter} after {:?}", model.seen.last());
            assert_eq!(window.mark(counter), new);
            if new {
                model.seen.insert(counter);
            }
            assert!(!window.is_new(counter));
            assert_eq!(window.largest(), model.seen.last().copied());
        }
    }

    #[test]
    fn in_order_twice() {
        run(0..3 * WIDTH);
        run((0..3 * WIDTH).flat_map(|counter| [counter, counter]));
    }

    #[test]
    fn edges_of_the_window() {
        for first in [0, 1, 63, 64, 65, WIDTH - 1, WIDTH, WIDTH + 1, (1 << 56) - 1 - WIDTH] {
            for jump in [1, 63, 64, 65, WIDTH - 65, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH] {
                let largest = first + jump;
                let edge = largest.saturating_sub(WIDTH);
                run([
                    first,
                    largest,
                    first,
                    edge.saturating_sub(1),
                    edge,
                    edge + 1,
                    largest - 1,
                    edge + 1,
                    largest + 1,
                ]);
            }
        }
    }

    #[test]
    fn backwards_through_the_whole_window() {
        for largest in [WIDTH - 1, WIDTH, 3 * WIDTH + 17] {
            run((0..=largest).rev());
        }
    }

    #[test]
    fn every_jump_leaves_a_clean_window() {
        // Whatever was marked before, after a jump only the counters behind it that the window still spans count.
        for jump in (1..2 * WIDTH).step_by(61) {
            let mut window = ReplayWindow::new();
            for counter in 0..WIDTH {
                window.mark(counter);
            }
            let largest = WIDTH - 1 + jump;
            assert!(window.mark(largest));
            for counter in 0..=largest {
                let spanned = largest - counter < WIDTH;
                assert_eq!(
                    window.is_new(counter),
                    spanned && counter >= WIDTH && counter != largest,
                    "{jump} {counter}"
                );
            }
        }
    }

    #[test]
    fn the_largest_counters() {
        let mut window = ReplayWindow::new();
        assert!(window.mark((1 << 56) - 1));
        assert!(!window.mark((1 << 56) - 1));
        assert!(window.mark((1 << 56) - 2));
        assert!(!window.is_new(0));
    }

    proptest! {
        #[test]
        fn like_the_model(steps in prop::collection::vec((-9_000i64..9_000, 1usize..40), 1..60), start in 0u64..100_000) {
            let mut at = start as i64;
            let counters: Vec<u64> = steps
                .into_iter()
                .flat_map(|(jump, run)| {
                    at = (at + jump).max(0);
                    (0..run as u64).map(move |offset| at as u64 + offset)
                })
                .collect();
            run(counters);
        }
    }
}
