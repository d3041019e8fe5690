//! The host sends a packet.

use alloc::vec;

use super::relay::Carriage;
use super::{Instant, Node, Outgoing, PeerIndex, Shared};
use crate::counters::DropReason;
use crate::overlay::{Batch, ChecksumMode, Refused, Segments, TunPacket, clamp_mss, is_tcp_syn};
use crate::path::FourTuple;
use crate::peer::Peer;
use crate::session::KeyAge;
use crate::wire::{HEADER_LEN, Header, Lane, MAX_DATAGRAM_LEN, OVERHEAD};

/// What became of a packet that the host sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "Full means that the packet was not taken"]
pub enum TunOutcome {
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
    /// The path carries packets of so many bytes whole, and this is longer.
    TooLong {
        room: usize,
    },
}

impl Node {
    /// Takes a packet from the host. A large one (segmentation offload) is split. Each segment is sealed in place in `batch`.
    pub fn handle_tun(&mut self, now: Instant, packet: TunPacket<'_>, batch: &mut Batch<FourTuple>) -> TunOutcome {
        self.advance(now);
        let index = match self.route(&packet) {
            Ok(index) => index,
            Err(reason) => {
                self.shared.counters.drop(reason);
                return TunOutcome::Dropped;
            }
        };
        let preferred = self.peer(index).and_then(|peer| peer.paths.preferred());
        let carriage = preferred.and_then(|(_, path)| self.carriage(Some(index), path.via));
        let Some((peer, shared)) = self.peer_mut(index) else { return TunOutcome::Dropped };
        match seal(peer, shared, &packet, carriage, batch) {
            Ok(Sealed { first, changed }) => {
                if self.peer(index).is_some_and(|peer| peer.paths.mirror().is_some()) {
                    self.mirror_batch(index, batch, first);
                }
                if changed {
                    self.reschedule(index);
                }
                TunOutcome::Taken
            }
            Err(Obstacle::Full) => TunOutcome::Full,
            Err(Obstacle::Drop(reason)) => {
                self.shared.counters.drop(reason);
                TunOutcome::Dropped
            }
            Err(Obstacle::Wait) => self.enqueue(index, &packet, carriage.is_some()),
            Err(Obstacle::TooLong { room }) => {
                if let Some(carriage) = carriage {
                    self.send_too_long(index, &packet, carriage, room);
                }
                TunOutcome::Taken
            }
        }
    }

    fn route(&mut self, packet: &TunPacket<'_>) -> Result<PeerIndex, DropReason> {
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

    /// Sends what the batch holds from byte `from` on by the standby path too: the preferred one is in doubt.
    fn mirror_batch(&mut self, index: PeerIndex, batch: &Batch<FourTuple>, from: usize) {
        let preferred = self.peer(index).and_then(|peer| peer.paths.preferred());
        let wrapped = preferred.is_some_and(|(_, path)| path.via.relay().is_some());
        let skip = if wrapped { HEADER_LEN } else { 0 };
        let Some(mirror) = self.mirror(index) else { return };
        let Some((peer, shared)) = self.peer_mut(index) else { return };
        for datagram in batch.bytes().get(from..).unwrap_or_default().chunks(batch.stride().max(1)) {
            mirror.copy(peer, shared, datagram.get(skip..).unwrap_or_default());
        }
    }

    /// Where copies of what goes by the preferred path are sent, while that is in doubt.
    pub(super) fn mirror(&self, index: PeerIndex) -> Option<Mirror> {
        let paths = &self.peer(index)?.paths;
        let (slot, via) = paths.mirror()?;
        let longest = paths.get(slot).map(|path| path.room() + path.overhead())?;
        Some(Mirror { carriage: self.carriage(Some(index), via)?, longest })
    }

    /// Keeps the segments of a packet until there is a session and a way, and seeks them.
    fn enqueue(&mut self, index: PeerIndex, packet: &TunPacket<'_>, has_way: bool) -> TunOutcome {
        let Some((peer, shared)) = self.peer_mut(index) else { return TunOutcome::Dropped };
        // A queue outlives the capabilities of a session, so nothing in it relies on them.
        let segments = Segments::new(packet, ChecksumMode::Full);
        if segments.segment_len(0) + OVERHEAD > MAX_DATAGRAM_LEN {
            shared.counters.drop(DropReason::TooLarge);
            return TunOutcome::Dropped;
        }
        let now = shared.now;
        for i in 0..segments.count() {
            let mut bytes = vec![0; segments.segment_len(i)];
            segments.write(i, &mut bytes);
            for _ in 0..peer.queue.push(now, bytes) {
                shared.counters.drop(DropReason::QueueOverflow);
            }
        }
        if has_way && peer.sessions.sender(now).is_some() {
            // It only stands behind others that are on their way.
            shared.flush(index, peer);
        } else {
            // A path by a relay that has ended its channel stays the preferred one, and nothing leaves by it: that somebody
            // sends is all that has a relay asked anew.
            peer.note_demand(now);
        }
        self.reschedule(index);
        TunOutcome::Taken
    }
}

/// A second way for what is sealed already.
pub(super) struct Mirror {
    carriage: Carriage,
    /// Bytes of the longest datagram that goes there.
    longest: usize,
}

impl Mirror {
    /// Sends a copy of an envelope, as far as the limit lets it.
    pub(super) fn copy(&self, peer: &mut Peer, shared: &mut Shared, envelope: &[u8]) {
        let Carriage { to, header } = self.carriage;
        let Ok(sealed) = Header::decode(envelope) else { return };
        let fits = envelope.len() + header.map_or(0, |header| header.len()) <= self.longest;
        if !fits || !peer.paths.take_mirror(shared.now, sealed.msg_id().counter(), envelope.len()) {
            return;
        }
        shared.counters.packets_mirrored += 1;
        let datagram = header.iter().flatten().chain(envelope).copied().collect();
        shared.send(Outgoing::Ready { to, datagram });
    }
}

/// What was sealed into a batch.
struct Sealed {
    /// Where in the batch it begins.
    first: usize,
    /// Whether a deadline of the peer changed.
    changed: bool,
}

/// Splits and seals a packet into the batch.
fn seal(
    peer: &mut Peer,
    shared: &mut Shared,
    packet: &TunPacket<'_>,
    carriage: Option<Carriage>,
    batch: &mut Batch<FourTuple>,
) -> Result<Sealed, Obstacle> {
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
    let (Some(slot), Some(Carriage { to, header })) = (peer.paths.preferred_slot(), carriage) else {
        return Err(Obstacle::Wait);
    };
    let overhead = OVERHEAD + header.as_ref().map_or(0, |header| header.len());
    let room = peer.paths.get(slot).map_or(0, |path| path.room());
    let age = session.key_age(now);
    if age == KeyAge::Expired {
        return Err(Obstacle::Wait);
    }
    let mode = if session.csum_partial { ChecksumMode::Partial } else { ChecksumMode::Full };
    let segments = Segments::new(packet, mode);
    let count = segments.count();
    let stride = segments.segment_len(0) + overhead;
    if stride > MAX_DATAGRAM_LEN {
        return Err(Obstacle::Drop(DropReason::TooLarge));
    }
    if segments.segment_len(0) > room {
        return Err(Obstacle::TooLong { room });
    }
    let clamp = if is_tcp_syn(packet.ip()) { peer.paths.host_mtu() } else { None };
    let total = segments.total_len() + count * overhead;
    if !batch.fits(to, stride, total) {
        return Err(if batch.is_empty() { Obstacle::Drop(DropReason::TooLarge) } else { Obstacle::Full });
    }
    let lane = Lane(slot.0 + 1);
    let numbers = session.tunnel.reserve(lane, count as u64).map_err(|_| Obstacle::Wait)?;
    let last = numbers.counters().end - 1;
    let csum_partial = segments.csum_partial();
    let begin = batch.bytes().len();
    for (i, permit) in numbers.enumerate() {
        let length = segments.segment_len(i) + overhead;
        let mut datagram = batch.reserve(to, length).map_err(|refused| match refused {
            Refused::FlushFirst => Obstacle::Full,
            Refused::Length => Obstacle::Drop(DropReason::TooLarge),
        })?;
        let (wrapper, envelope) = datagram.split_at_mut(overhead - OVERHEAD);
        wrapper.copy_from_slice(header.as_ref().map_or(&[], |header| header.as_slice()));
        let written = segments.write(i, &mut envelope[HEADER_LEN..]);
        debug_assert_eq!(written + overhead, length);
        if let Some(mtu) = clamp {
            clamp_mss(&mut envelope[HEADER_LEN..HEADER_LEN + written], mtu, csum_partial);
        }
        permit.seal(csum_partial, envelope);
        datagram.commit();
    }
    shared.counters.packets_sent += count as u64;
    shared.counters.relay_usage += if header.is_some() { count as u64 } else { 0 };
    shared.counters.bytes_sent += segments.total_len() as u64;
    peer.tx_bytes += total as u64;
    peer.last_sent = now;
    // A Hello that is due anyway follows more closely while there is traffic.
    let hastened = (age == KeyAge::Rekey || peer.greeting.is_some()) && peer.note_demand(now);
    let changed =
        peer.paths.on_data_sent(now, slot, (last, segments.segment_len(0) + OVERHEAD), || shared.rng.u64()) | hastened;
    Ok(Sealed { first: begin, changed })
}
