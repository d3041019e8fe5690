//! What a datagram meets between two hosts.

use std::time::Duration;

use vine_core::Instant;
use vine_core::path::Family;

/// How datagrams of one direction between two hosts fare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// One-way delay.
    pub delay: Duration,
    /// Up to this much is added to it, anew for every burst.
    pub jitter: Duration,
    /// Of a thousand datagrams so many are lost.
    pub loss: u16,
    /// So many arrive twice.
    pub duplicate: u16,
    /// So many arrive much later than others.
    pub reorder: u16,
    /// So many arrive damaged.
    pub corrupt: u16,
    /// Nothing arrives.
    pub cut: bool,
    /// Longer IP packets than this are lost, and nobody is told.
    pub mtu: u16,
    /// Bytes of IP packets a second; zero for as many as there are.
    pub rate: u32,
    /// Bytes that may wait for their turn; more are lost.
    pub queue: u32,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0,
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            cut: false,
            mtu: u16::MAX,
            rate: 0,
            queue: u32::MAX,
        }
    }
}

impl Link {
    /// The length of the IP packet around a UDP payload.
    pub(in super::super) fn packet_len(family: Family, payload: usize) -> usize {
        payload + 8 + if family == Family::V4 { 20 } else { 40 }
    }

    /// When a packet of `len` bytes has left the queue that is busy until `busy`; never, where there is no room.
    pub(super) fn serve(&self, now: Instant, busy: Instant, len: usize) -> Option<Instant> {
        if self.rate == 0 {
            return Some(now);
        }
        let start = busy.max(now);
        let waiting = u128::from(self.rate) * start.since(now).as_nanos() / 1_000_000_000;
        let takes = len as u64 * 1_000_000_000 / u64::from(self.rate);
        (waiting + len as u128 <= u128::from(self.queue)).then(|| start + Duration::from_nanos(takes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_delays_and_then_drops() {
        let link = Link { rate: 1_000_000, queue: 3_000, ..Link::default() };
        let now = Instant::from_millis(1_000);
        let millis = |millis| now + Duration::from_millis(millis);
        assert_eq!(link.serve(now, Instant::ORIGIN, 1_000), Some(millis(1)));
        assert_eq!(link.serve(now, millis(2), 1_000), Some(millis(3)));
        assert_eq!(link.serve(now, millis(3), 1_000), None);
        assert_eq!(Link::default().serve(now, millis(9), 1_000), Some(now));
    }
}
