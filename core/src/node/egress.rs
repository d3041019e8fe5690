//! The host sends a packet.

use alloc::vec;

use super::{Instant, Node, PeerIndex, Shared};
use crate::counters::DropReason;
use crate::overlay::{Batch, ChecksumMode, Refused, Segments, TunPacket};
use crate::path::FourTuple;
use crate::peer::Peer;
use crate::session::KeyAge;
use crate::wire::{Lane, MAX_DATAGRAM_LEN, OVERHEAD};

/// What became of a packet that the host sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "Full means that the packet was not taken"]
pub enum Enqueue {
    /// It is sealed in the batch, or waits inside the node for a session.
    Taken,
    /// It was dropped, and counted by its reason.
    Dropped,
    /// It does not fit into this batch: send the batch, clear it, and hand the packet over again.
    Full,
}

/// What stands in the way of sealing at once.
enum Obstacle {
    Drop(DropReason),
    /// The packet waits inside the node.
    Wait,
    /// The packet goes into the next batch.
    Full,
}

impl Node {
    /// Takes a packet from the host. A large one (segmentation offload) is split. Each segment is sealed in place in `batch`.
    pub fn handle_tun(&mut self, now: Instant, packet: TunPacket<'_>, batch: &mut Batch<FourTuple>) -> Enqueue {
        self.advance(now);
        let index = match self.owner_of(&packet) {
            Ok(index) => index,
            Err(reason) => {
                self.shared.counters.drop(reason);
                return Enqueue::Dropped;
            }
        };
        let Some((peer, shared)) = self.peer_mut(index) else { return Enqueue::Dropped };
        match seal(peer, shared, &packet, batch) {
            Ok(changed) => {
                if changed {
                    self.reschedule(index);
                }
                Enqueue::Taken
            }
            Err(Obstacle::Full) => Enqueue::Full,
            Err(Obstacle::Drop(reason)) => {
                self.shared.counters.drop(reason);
                Enqueue::Dropped
            }
            Err(Obstacle::Wait) => self.enqueue(index, &packet),
        }
    }

    fn owner_of(&mut self, packet: &TunPacket<'_>) -> Result<PeerIndex, DropReason> {
        if self.shared.shut_down {
            return Err(DropReason::NoSession);
        }
        match self.routes.owner_of(packet.ip().destination()) {
            Some(index) => Ok(index),
            None => {
                self.shared.counters.route_misses += 1;
                Err(DropReason::UnknownRoute)
            }
        }
    }

    /// Keeps the segments of a packet until there is a session, and seeks one.
    fn enqueue(&mut self, index: PeerIndex, packet: &TunPacket<'_>) -> Enqueue {
        let Some((peer, shared)) = self.peer_mut(index) else { return Enqueue::Dropped };
        // A queue outlives the capabilities of a session, so nothing in it relies on them.
        let segments = Segments::new(packet, ChecksumMode::Full);
        if segments.segment_len(0) + OVERHEAD > MAX_DATAGRAM_LEN {
            shared.counters.drop(DropReason::TooLarge);
            return Enqueue::Dropped;
        }
        let now = shared.now;
        for i in 0..segments.count() {
            let mut bytes = vec![0; segments.segment_len(i)];
            segments.write(i, &mut bytes);
            for _ in 0..peer.queue.push(now, bytes) {
                shared.counters.drop(DropReason::QueueOverflow);
            }
        }
        if peer.sessions.sender(now).is_some() && peer.paths.preferred_slot().is_some() {
            // It only stands behind others that are on their way.
            shared.flush(index, peer);
        } else {
            peer.want(now);
        }
        self.reschedule(index);
        Enqueue::Taken
    }
}

/// Splits and seals a packet into the batch. Returns whether a deadline of the peer changed.
fn seal(
    peer: &mut Peer,
    shared: &mut Shared,
    packet: &TunPacket<'_>,
    batch: &mut Batch<FourTuple>,
) -> Result<bool, Obstacle> {
    let now = shared.now;
    if peer.queue.len() > 0 {
        return Err(Obstacle::Wait); // Behind what waits already, so that nothing is reordered.
    }
    let Some(session) = peer.sessions.current.as_mut() else {
        return Err(if peer.departed && peer.config.endpoints.is_empty() {
            Obstacle::Drop(DropReason::PeerDeparted)
        } else {
            Obstacle::Wait
        });
    };
    let Some((slot, path)) = peer.paths.preferred().map(|(slot, path)| (slot, path.addresses)) else {
        return Err(Obstacle::Wait);
    };
    let age = session.key_age(now);
    if age == KeyAge::Expired {
        return Err(Obstacle::Wait);
    }
    let mode = if session.csum_partial { ChecksumMode::Partial } else { ChecksumMode::Full };
    let segments = Segments::new(packet, mode);
    let count = segments.count();
    let stride = segments.segment_len(0) + OVERHEAD;
    if stride > MAX_DATAGRAM_LEN {
        return Err(Obstacle::Drop(DropReason::TooLarge));
    }
    let total = segments.total_len() + count * OVERHEAD;
    if !batch.fits(path, stride, total) {
        return Err(if batch.is_empty() { Obstacle::Drop(DropReason::TooLarge) } else { Obstacle::Full });
    }
    let lane = Lane(slot.0 + 1);
    let numbers = session.tunnel.reserve(lane, count as u64).map_err(|_| Obstacle::Wait)?;
    let last = numbers.counters().end - 1;
    let csum_partial = segments.csum_partial();
    for (i, permit) in numbers.enumerate() {
        let length = segments.segment_len(i) + OVERHEAD;
        let mut datagram = batch.reserve(path, length).map_err(|refused| match refused {
            Refused::FlushFirst => Obstacle::Full,
            Refused::Length => Obstacle::Drop(DropReason::TooLarge),
        })?;
        let written = segments.write(i, &mut datagram[crate::wire::HEADER_LEN..]);
        debug_assert_eq!(written + OVERHEAD, length);
        permit.seal(csum_partial, &mut datagram);
        datagram.commit();
    }
    shared.counters.packets_sent += count as u64;
    shared.counters.bytes_sent += segments.total_len() as u64;
    peer.tx_bytes += total as u64;
    peer.last_sent = now;
    // A Hello that is due anyway follows more closely while there is traffic.
    let hastened = (age == KeyAge::Rekey || peer.greeting.is_some()) && peer.want(now);
    Ok(peer.paths.on_data_sent(now, slot, last, || shared.rng.u64()) | hastened)
}
