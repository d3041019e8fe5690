//! The outgoing batch.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// Sealed datagrams that wait to be sent: one destination, one stride, back to back in one buffer.
///
/// This is the shape of a segmented send (`UDP_SEGMENT`): every datagram is `stride` bytes long but the last, which may
/// be shorter and then closes the batch. `D` says where a batch goes; the batch only compares it. The memory is taken
/// once, at construction.
///
/// ```
/// use vine_core::overlay::{Batch, Refused};
///
/// let mut batch: Batch<u8> = Batch::with_capacity(128 * 1024);
/// let mut datagram = batch.reserve(7, 100).unwrap();
/// datagram.fill(1);
/// datagram.commit();
/// assert_eq!(batch.reserve(8, 100).err(), Some(Refused::FlushFirst)); // another destination
/// for chunk in batch.chunks(64, 65_507) {
///     assert_eq!((chunk.destination, chunk.segment_size, chunk.bytes.len()), (7, 100, 100));
/// }
/// batch.clear();
/// ```
#[derive(Debug)]
pub struct Batch<D> {
    /// [`Batch::HEADROOM`], the capacity, [`Batch::TAILROOM`].
    buffer: Vec<u8>,
    /// Where the datagrams go; none while the batch is empty.
    destination: Option<D>,
    /// Bytes from one datagram to the next.
    stride: usize,
    /// Bytes committed.
    used: usize,
    /// Datagrams committed.
    count: usize,
}

/// Why a batch takes no such datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Send and [clear](Batch::clear) the batch, then ask again: it goes elsewhere, has another stride, is closed by a
    /// shorter datagram, or is full.
    #[error("the batch must be sent first")]
    FlushFirst,
    /// An empty batch would not take it either: the length is zero or above the capacity.
    #[error("a datagram of this length fits in no batch")]
    Length,
}

/// Room for one datagram. [`Reserved::commit`] makes it part of the batch; dropped, it leaves the batch as it was.
#[derive(Debug)]
#[must_use = "a reserved datagram is part of the batch only once it is committed"]
pub struct Reserved<'a, D> {
    batch: &'a mut Batch<D>,
    destination: D,
    length: usize,
}

/// What one segmented send carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a, D> {
    /// Where it goes.
    pub destination: D,
    /// Bytes of every datagram but the last, which may be shorter.
    pub segment_size: usize,
    /// The datagrams back to back; never empty.
    pub bytes: &'a [u8],
}

impl<D: Copy + Eq> Batch<D> {
    /// Bytes before the first datagram: room for what a relay or a stream puts in front.
    pub const HEADROOM: usize = 64;
    /// Bytes after the last datagram: room for one more tag.
    pub const TAILROOM: usize = 16;

    /// An empty batch for `capacity` bytes of datagrams; a segmented send wants a multiple of 64 KiB.
    pub fn with_capacity(capacity: usize) -> Batch<D> {
        let buffer = vec![0; Self::HEADROOM + capacity + Self::TAILROOM];
        Batch { buffer, destination: None, stride: 0, used: 0, count: 0 }
    }

    /// Room for a datagram of exactly `length` bytes to `destination`. The bytes hold what was there before.
    pub fn reserve(&mut self, destination: D, length: usize) -> Result<Reserved<'_, D>, Refused> {
        if length == 0 || length > self.capacity() {
            return Err(Refused::Length);
        }
        if !self.fits(destination, length, length) {
            return Err(Refused::FlushFirst);
        }
        Ok(Reserved { batch: self, destination, length })
    }

    /// Whether datagrams of `total` bytes altogether, all of `stride` bytes but the last, would be taken one after
    /// another. A caller that splits a large packet asks before it seals the first segment.
    pub fn fits(&self, destination: D, stride: usize, total: usize) -> bool {
        let room = self.capacity() - self.used;
        let in_step = match self.destination {
            None => true,
            Some(current) => {
                let last_only = total <= stride && total <= self.stride;
                current == destination && !self.is_closed() && (stride == self.stride || last_only)
            }
        };
        in_step && stride > 0 && total <= room
    }

    /// The datagrams in sends of at most `max_segments` datagrams and `max_bytes` bytes, and at least one datagram.
    pub fn chunks(&self, max_segments: usize, max_bytes: usize) -> impl Iterator<Item = Chunk<'_, D>> {
        let segment_size = self.stride;
        let segments = max_bytes.checked_div(segment_size).unwrap_or(0).min(max_segments).max(1);
        // An empty batch has stride zero, and `chunks` takes no zero.
        let step = segments.saturating_mul(segment_size).max(1);
        self.destination.into_iter().flat_map(move |destination| {
            self.bytes().chunks(step).map(move |bytes| Chunk { destination, segment_size, bytes })
        })
    }

    /// Forgets all datagrams; the next one may go anywhere, at any length.
    pub fn clear(&mut self) {
        self.destination = None;
        self.stride = 0;
        self.used = 0;
        self.count = 0;
    }

    /// How many datagrams there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The datagrams, back to back.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(Self::HEADROOM..Self::HEADROOM + self.used).unwrap_or_default()
    }

    /// Where the datagrams go; `None` while there is none.
    pub fn destination(&self) -> Option<D> {
        self.destination
    }

    /// Bytes from one datagram to the next; zero while there is none.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// How many bytes of datagrams it holds at most.
    pub fn capacity(&self) -> usize {
        self.buffer.len() - Self::HEADROOM - Self::TAILROOM
    }

    /// Whether the last datagram is shorter than the stride, so that nothing may follow it.
    fn is_closed(&self) -> bool {
        self.used < self.count * self.stride
    }
}

impl<D: Copy + Eq> Reserved<'_, D> {
    /// Makes the datagram part of the batch.
    pub fn commit(self) {
        let batch = self.batch;
        if batch.is_empty() {
            batch.destination = Some(self.destination);
            batch.stride = self.length;
        }
        batch.used += self.length;
        batch.count += 1;
    }

    fn start(&self) -> usize {
        Batch::<D>::HEADROOM + self.batch.used
    }
}

impl<D: Copy + Eq> Deref for Reserved<'_, D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.start();
        self.batch.buffer.get(start..start + self.length).unwrap_or_default()
    }
}

impl<D: Copy + Eq> DerefMut for Reserved<'_, D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.start();
        self.batch.buffer.get_mut(start..start + self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(batch: &mut Batch<u8>, destination: u8, length: usize, fill: u8) -> Result<(), Refused> {
        let mut datagram = batch.reserve(destination, length)?;
        assert_eq!(datagram.len(), length);
        datagram.fill(fill);
        datagram.commit();
        Ok(())
    }

    #[test]
    fn a_shorter_datagram_closes() {
        let mut batch = Batch::with_capacity(1000);
        put(&mut batch, 1, 100, 1).unwrap();
        assert_eq!(put(&mut batch, 1, 101, 2), Err(Refused::FlushFirst));
        put(&mut batch, 1, 60, 2).unwrap();
        assert_eq!(put(&mut batch, 1, 60, 3), Err(Refused::FlushFirst));
        let sizes: Vec<usize> = batch.chunks(1, 1).map(|chunk| chunk.bytes.len()).collect();
        assert_eq!(sizes, [100, 60]);
        batch.clear();
        assert_eq!(batch.chunks(1, 1).count(), 0);
        put(&mut batch, 2, 101, 2).unwrap();
    }

    #[test]
    fn dropping_a_reservation_rolls_back() {
        let mut batch: Batch<u8> = Batch::with_capacity(1000);
        batch.reserve(1, 100).unwrap().fill(1);
        assert!(batch.is_empty() && batch.destination().is_none());
        put(&mut batch, 2, 50, 2).unwrap();
        batch.reserve(2, 20).unwrap().fill(1);
        put(&mut batch, 2, 50, 2).unwrap();
        assert_eq!(batch.bytes(), [2; 100]);
    }

    #[test]
    fn lengths_that_fit_nowhere() {
        let mut batch = Batch::with_capacity(1000);
        assert_eq!(put(&mut batch, 1, 0, 0), Err(Refused::Length));
        assert_eq!(put(&mut batch, 1, 1001, 0), Err(Refused::Length));
        put(&mut batch, 1, 1000, 0).unwrap();
        assert_eq!(put(&mut batch, 1, 1, 0), Err(Refused::FlushFirst));
    }

    proptest! {
        #[test]
        fn fits_foretells_reserve(
            before in prop::collection::vec(1usize..40, 0..6),
            stride in 1usize..40,
            segments in 0usize..6,
            last in 1usize..40,
        ) {
            let mut batch = Batch::with_capacity(150);
            for length in before {
                let _ = put(&mut batch, 1, length, 0);
            }
            let last = last.min(stride);
            let fits = batch.fits(1, stride, segments * stride + last);
            let lengths = core::iter::repeat_n(stride, segments).chain([last]);
            let mut taken = true;
            for length in lengths {
                taken &= put(&mut batch, 1, length, 0).is_ok();
            }
            prop_assert_eq!(fits, taken);
        }

        #[test]
        fn chunks_are_whole_and_within_bounds(
            lengths in prop::collection::vec(1usize..200, 0..40),
            max_segments in 0usize..20,
            max_bytes in 0usize..3000,
        ) {
            let mut batch = Batch::with_capacity(2000);
            let mut expected = Vec::new();
            for (at, length) in lengths.into_iter().enumerate() {
                if put(&mut batch, 1, length, at as u8).is_ok() {
                    expected.extend(vec![at as u8; length]);
                }
            }
            let mut sent = Vec::new();
            for chunk in batch.chunks(max_segments, max_bytes) {
                let segments = chunk.bytes.len().div_ceil(chunk.segment_size);
                prop_assert!(segments == 1 || (segments <= max_segments && chunk.bytes.len() <= max_bytes));
                sent.extend_from_slice(chunk.bytes);
            }
            prop_assert_eq!(&sent, &expected);
            prop_assert_eq!(batch.bytes(), &expected[..]);
        }
    }
}
