//! One deadline a peer, the earliest first.

use alloc::vec::Vec;

use crate::overlay::PeerIndex;
use crate::time::Instant;

/// A binary heap of peers by deadline that knows where each peer stands, so that a deadline can be moved in O(log n), the
/// earliest one is read in O(1), and nothing is allocated once every peer has been in it.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, PeerIndex)>,
    /// Position of each peer in `heap`; `ABSENT` when it has no deadline.
    position: Vec<usize>,
}

const ABSENT: usize = usize::MAX;

impl Timers {
    /// The earliest deadline and whose it is.
    pub(crate) fn peek(&self) -> Option<(Instant, PeerIndex)> {
        self.heap.first().copied()
    }

    /// Sets, moves or (with [`Instant::FAR_FUTURE`]) removes the deadline of a peer.
    pub(crate) fn set(&mut self, peer: PeerIndex, deadline: Instant) {
        let index = peer.0 as usize;
        if self.position.len() <= index {
            self.position.resize(index + 1, ABSENT);
        }
        let at = self.position[index];
        match (at, deadline) {
            (ABSENT, Instant::FAR_FUTURE) => {}
            (ABSENT, _) => {
                self.position[index] = self.heap.len();
                self.heap.push((deadline, peer));
                self.sift_up(self.heap.len() - 1);
            }
            (_, Instant::FAR_FUTURE) => {
                let last = self.heap.len() - 1;
                self.swap(at, last);
                self.heap.pop();
                self.position[index] = ABSENT;
                if at < last {
                    self.sift_up(at);
                    self.sift_down(at);
                }
            }
            _ => {
                self.heap[at].0 = deadline;
                self.sift_up(at);
                self.sift_down(self.position[index]);
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1.0 as usize] = a;
        self.position[self.heap[b].1.0 as usize] = b;
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let smallest = (2 * at + 1..=2 * at + 2)
                .filter(|&child| child < self.heap.len())
                .fold(at, |best, child| if self.heap[child] < self.heap[best] { child } else { best });
            if smallest == at {
                return;
            }
            self.swap(at, smallest);
            at = smallest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(ops in proptest::collection::vec((0u32..12, 0u64..40), 0..200)) {
            let mut timers = Timers::default();
            let mut model = [Instant::FAR_FUTURE; 12];
            for (peer, at) in ops {
                let deadline = if at == 0 { Instant::FAR_FUTURE } else { Instant::from_nanos(at) };
                timers.set(PeerIndex(peer), deadline);
                model[peer as usize] = deadline;
                let expected = model
                    .iter()
                    .zip(0u32..)
                    .filter(|(deadline, _)| **deadline != Instant::FAR_FUTURE)
                    .map(|(deadline, peer)| (*deadline, PeerIndex(peer)))
                    .min();
                prop_assert_eq!(timers.peek(), expected);
            }
        }
    }
}
