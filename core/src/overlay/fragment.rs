//! Packets that are longer than what a path carries: cut into fragments, and put together again.
//!
//! These are vine's own fragments, inside the seal. The host knows nothing of them, and IP fragments travel in them like
//! any other packet. The identification has 32 bits, so that one comes again only after every packet of the old one is
//! long gone (RFC 4963 shows what the 16 bits of IPv4 do).

use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Instant;
use crate::wire::{FragmentPart, varint};

/// The most fragments of a packet. The longest packet needs 57 on the least path there is: a datagram of 1,280 bytes
/// over IPv6, with the headers of UDP and of a relay and the overhead of the envelope.
const MAX_PARTS: usize = 64;
/// The most packets that a peer may have unfinished.
const MAX_PACKETS: usize = 8;
/// The most bytes of them that are kept. A packet of any length fits.
const MAX_BYTES: usize = 65_536;
/// How long a packet may take. What is missing then was lost: paths differ by less.
const LIFETIME: Duration = Duration::from_secs(1);

/// The fragments of a packet, in order: all of one length but for the last.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    id: u32,
    /// Bytes of the packet in each.
    size: usize,
    offset: usize,
}

impl<'a> Fragments<'a> {
    /// Cuts `packet` into messages of at most `room` bytes each, which all have the identification `id`. `None` where
    /// it is no packet by its length, or where it would take more than 64 fragments.
    pub fn new(packet: &'a [u8], id: u32, room: usize) -> Option<Fragments<'a>> {
        let overhead = 1 + varint::len(room as u64) + FragmentPart::HEADER_LEN;
        let size = room.checked_sub(overhead).filter(|size| *size > 0)?;
        let is_packet = packet.len() >= usize::from(FragmentPart::MIN_TOTAL) && packet.len() <= usize::from(u16::MAX);
        let fits = packet.len().div_ceil(size) <= MAX_PARTS;
        (is_packet && fits).then_some(Fragments { packet, id, size, offset: 0 })
    }
}

impl<'a> Iterator for Fragments<'a> {
    type Item = FragmentPart<'a>;

    fn next(&mut self) -> Option<FragmentPart<'a>> {
        let rest = self.packet.get(self.offset..)?;
        let bytes = rest.get(..self.size).unwrap_or(rest);
        // A packet has at most 65,535 bytes. At its end no bytes are left, which is no fragment.
        let part = FragmentPart::new(self.id, self.offset as u16, self.packet.len() as u16, bytes)?;
        self.offset += bytes.len();
        Some(part)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.packet.len().saturating_sub(self.offset).div_ceil(self.size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Fragments<'_> {}

/// Puts the fragments of one peer together again.
///
/// They may come in any order and more than once. At most 8 packets are unfinished, for at most a second each, and at
/// most 64 KiB of them are kept: the oldest gives way to the newest. Memory follows the bytes that have arrived and not
/// the length that a fragment claims. A packet whose fragments overlap or disagree is given up, with all of it that is
/// still to come (as RFC 8200 section 4.5 has it): no honest sender makes such.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    /// In the order in which their first fragments came.
    packets: Vec<Partial>,
    /// Packets given up since the last [`Reassembly::take_dropped`].
    dropped: u64,
}

/// A packet that is not whole.
#[derive(Clone, Debug)]
struct Partial {
    id: u32,
    total: u16,
    /// When it is given up.
    deadline: Instant,
    /// What has arrived, in the order in which it did.
    bytes: Vec<u8>,
    /// Where the bytes belong, by offset. They do not overlap.
    parts: Vec<Part>,
    /// Its fragments contradict each other: nothing of it is kept, and nothing more is taken.
    is_spoilt: bool,
}

/// Where a fragment belongs, and where it is.
#[derive(Clone, Copy, Debug)]
struct Part {
    offset: usize,
    len: usize,
    /// In [`Partial::bytes`].
    at: usize,
}

impl Reassembly {
    /// Takes a fragment, and returns the packet that it completes.
    ///
    /// A packet is as long as its fragments said. That it is an IP packet is for the caller to find out.
    pub fn push(&mut self, now: Instant, part: FragmentPart<'_>) -> Option<Vec<u8>> {
        self.handle_timeout(now);
        let known = self.packets.iter().position(|packet| packet.id == part.id());
        self.make_room(known, part.bytes().len());
        // Making room may have moved it, but never takes it away.
        let known = self.packets.iter().position(|packet| packet.id == part.id());
        let index = known.unwrap_or_else(|| {
            self.packets.push(Partial::new(&part, now + LIFETIME));
            self.packets.len() - 1
        });
        let packet = self.packets.get_mut(index)?;
        if !packet.add(&part) {
            self.dropped += 1;
        }
        if !packet.is_whole() {
            return None;
        }
        Some(self.packets.remove(index).into_packet())
    }

    /// Gives up the packets whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let live = self.packets.iter().position(|packet| packet.deadline > now);
        for _ in 0..live.unwrap_or(self.packets.len()) {
            self.give_up(0);
        }
        if self.packets.is_empty() {
            self.packets = Vec::new();
        }
    }

    /// When [`Reassembly::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.packets.first().map(|packet| packet.deadline)
    }

    /// Packets that were given up since this was asked last.
    pub fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    /// Gives up the oldest packets until `len` bytes more may be kept, of packet `known` or of a new one.
    fn make_room(&mut self, mut known: Option<usize>, len: usize) {
        while (known.is_none() && self.packets.len() >= MAX_PACKETS) || self.kept() + len > MAX_BYTES {
            let oldest = if known == Some(0) { 1 } else { 0 };
            if oldest >= self.packets.len() {
                // It alone is too long: its fragments overlap, which is found out next.
                return;
            }
            self.give_up(oldest);
            known = known.map(|index| if index > oldest { index - 1 } else { index });
        }
    }

    /// Bytes kept.
    fn kept(&self) -> usize {
        self.packets.iter().map(|packet| packet.bytes.len()).sum()
    }

    fn give_up(&mut self, index: usize) {
        let packet = self.packets.remove(index);
        // One that is spoilt was counted when it became so.
        self.dropped += u64::from(!packet.is_spoilt);
    }
}

impl Partial {
    fn new(part: &FragmentPart<'_>, deadline: Instant) -> Partial {
        let (id, total) = (part.id(), part.total());
        Partial { id, total, deadline, bytes: Vec::new(), parts: Vec::new(), is_spoilt: false }
    }

    /// Takes a fragment in. False where the packet is spoilt by it.
    fn add(&mut self, part: &FragmentPart<'_>) -> bool {
        if self.is_spoilt {
            return true;
        }
        let offset = usize::from(part.offset());
        let place = self.parts.partition_point(|other| other.offset < offset);
        let next = self.parts.get(place);
        if part.total() == self.total && next.is_some_and(|next| self.is_again(next, part)) {
            return true;
        }
        let before = place.checked_sub(1).and_then(|place| self.parts.get(place));
        let overlaps = before.is_some_and(|before| before.offset + before.len > offset)
            || next.is_some_and(|next| next.offset < offset + part.bytes().len());
        if overlaps || part.total() != self.total || self.parts.len() >= MAX_PARTS {
            (self.bytes, self.parts, self.is_spoilt) = (Vec::new(), Vec::new(), true);
            return false;
        }
        self.parts.insert(place, Part { offset, len: part.bytes().len(), at: self.bytes.len() });
        self.bytes.extend_from_slice(part.bytes());
        true
    }

    /// Whether `part` is what is there already, once more.
    fn is_again(&self, there: &Part, part: &FragmentPart<'_>) -> bool {
        there.offset == usize::from(part.offset()) && self.bytes_of(there) == part.bytes()
    }

    fn bytes_of(&self, part: &Part) -> &[u8] {
        self.bytes.get(part.at..part.at + part.len).unwrap_or_default()
    }

    /// The parts do not overlap and lie within the packet, so bytes can be counted.
    fn is_whole(&self) -> bool {
        self.bytes.len() == usize::from(self.total)
    }

    fn into_packet(self) -> Vec<u8> {
        if self.parts.is_sorted_by_key(|part| part.at) {
            return self.bytes;
        }
        let mut packet = Vec::with_capacity(self.bytes.len());
        for part in &self.parts {
            packet.extend_from_slice(self.bytes_of(part));
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::any_payload;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const T0: Instant = Instant::ORIGIN;

    fn part(id: u32, offset: u16, total: u16, bytes: &[u8]) -> FragmentPart<'_> {
        FragmentPart::new(id, offset, total, bytes).unwrap()
    }

    #[test]
    fn fragments_fill_their_room() {
        let packet = vec![7; 1280];
        let parts: Vec<_> = Fragments::new(&packet, 9, 1184).unwrap().collect();
        let places: Vec<_> = parts.iter().map(|part| (part.id(), part.offset(), part.bytes().len())).collect();
        assert_eq!(places, [(9, 0, 1173), (9, 1173, 107)]);
        assert_eq!(crate::wire::Message::Fragment(parts[0]).encoded_len(), 1184);
        assert_eq!(Fragments::new(&packet, 9, 1300).unwrap().len(), 1);
        assert_eq!(Fragments::new(&vec![7; 65_535], 9, 1184).unwrap().len(), 56);
        assert!(Fragments::new(&packet, 9, 29).is_none());
        assert!(Fragments::new(&packet, 9, 10).is_none());
        assert!(Fragments::new(&packet, 9, 0).is_none());
        assert!(Fragments::new(&packet[..19], 9, 1184).is_none());
        assert!(Fragments::new(&vec![7; 65_536], 9, 1184).is_none());
    }

    #[test]
    fn a_packet_is_given_up_after_a_second() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.next_deadline(), None);
        assert_eq!(reassembly.push(T0, part(1, 0, 40, &[1; 20])), None);
        let later = T0 + Duration::from_millis(400);
        assert_eq!(reassembly.push(later, part(2, 0, 40, &[2; 20])), None);
        assert_eq!(reassembly.next_deadline(), Some(T0 + LIFETIME));
        reassembly.handle_timeout(T0 + LIFETIME);
        assert_eq!(reassembly.take_dropped(), 1);
        assert_eq!(reassembly.next_deadline(), Some(later + LIFETIME));
        assert_eq!(reassembly.push(later + LIFETIME, part(2, 20, 40, &[2; 20])), None);
        assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (1, 1));
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut reassembly = Reassembly::default();
        for id in 0..9 {
            assert_eq!(reassembly.push(T0, part(id, 0, 40, &[1; 20])), None);
        }
        assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (1, 8));
        assert_eq!(reassembly.push(T0, part(8, 20, 40, &[1; 20])), Some(vec![1; 40]));
        assert_eq!(reassembly.push(T0, part(1, 20, 40, &[1; 20])), Some(vec![1; 40]));
        assert_eq!(reassembly.push(T0, part(0, 20, 40, &[1; 20])), None);
        assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (0, 7));
    }

    #[test]
    fn the_longest_packet_displaces_the_others_and_not_itself() {
        let packet = vec![0x60; 65_535];
        let mut reassembly = Reassembly::default();
        let mut parts: Vec<_> = Fragments::new(&packet, 1, 1184).unwrap().collect();
        let last = parts.pop().unwrap();
        let _ = reassembly.push(T0, part(0, 0, 5000, &[1; 2000]));
        for part in parts {
            assert_eq!(reassembly.push(T0, part), None);
        }
        let _ = reassembly.push(T0, part(2, 0, 5000, &[1; 200]));
        assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (1, 2));
        assert_eq!(reassembly.push(T0, last), Some(packet));
        assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (1, 0));
    }

    #[test]
    fn a_packet_that_contradicts_itself_is_given_up_whole() {
        for bad in [
            part(1, 0, 40, &[2; 20]),
            part(1, 0, 40, &[1; 19]),
            part(1, 0, 40, &[1; 21]),
            part(1, 19, 40, &[1; 1]),
            part(1, 10, 40, &[1; 30]),
            part(1, 20, 41, &[1; 20]),
            part(1, 0, 41, &[1; 20]),
        ] {
            let mut reassembly = Reassembly::default();
            assert_eq!(reassembly.push(T0, part(1, 0, 40, &[1; 20])), None);
            assert_eq!(reassembly.push(T0, bad), None, "{bad:?}");
            assert_eq!((reassembly.take_dropped(), reassembly.kept()), (1, 0));
            assert_eq!(reassembly.push(T0, part(1, 20, 40, &[1; 20])), None);
            assert_eq!(reassembly.push(T0, part(1, 0, 40, &[1; 20])), None);
            reassembly.handle_timeout(T0 + LIFETIME);
            assert_eq!((reassembly.take_dropped(), reassembly.packets.len()), (0, 0));
        }
    }

    #[test]
    fn crumbs_are_not_collected_for_ever() {
        let mut reassembly = Reassembly::default();
        for offset in 0..=MAX_PARTS as u16 {
            assert_eq!(reassembly.push(T0, part(1, offset * 2, 2000, &[1])), None);
        }
        assert_eq!((reassembly.take_dropped(), reassembly.kept()), (1, 0));
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in(
            packets in prop::collection::vec(any_payload(20..3000), 1..=MAX_PACKETS),
            room in 100usize..1500,
            order in any::<[u64; 256]>(),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut parts: Vec<(u64, FragmentPart<'_>)> = (0..)
                .zip(&packets)
                .flat_map(|(id, packet)| Fragments::new(packet, id, room).unwrap())
                .zip(order.into_iter().cycle())
                .map(|(part, key)| (key, part))
                .collect();
            parts.sort_by_key(|(key, _)| *key);
            let mut reassembly = Reassembly::default();
            let mut whole = vec![None; packets.len()];
            let mut sent: Vec<FragmentPart<'_>> = Vec::new();
            for (step, (_, part)) in parts.into_iter().enumerate() {
                if let Some(packet) = reassembly.push(T0, part) {
                    whole[part.id() as usize] = Some(packet);
                }
                sent.push(part);
                // Something that came already comes once more, if its packet is still unfinished.
                if let Some(index) = again.get(step) {
                    let part = *index.get(&sent);
                    if whole[part.id() as usize].is_none() {
                        prop_assert_eq!(reassembly.push(T0, part), None);
                    }
                }
            }
            prop_assert_eq!(whole.into_iter().flatten().collect::<Vec<_>>(), packets);
            prop_assert_eq!((reassembly.take_dropped(), reassembly.next_deadline()), (0, None));
        }

        #[test]
        fn whatever_comes_is_bounded(
            parts in prop::collection::vec((0u32..12, any::<u16>(), any::<u16>(), 1usize..9000, 0u64..100), 0..200),
        ) {
            let bytes = vec![5; 9000];
            let mut reassembly = Reassembly::default();
            let mut now = T0;
            for (id, offset, total, len, wait) in parts {
                now += Duration::from_millis(wait);
                let Some(part) = FragmentPart::new(id, offset, total, &bytes[..len]) else { continue };
                if let Some(packet) = reassembly.push(now, part) {
                    prop_assert_eq!(packet, vec![5; usize::from(total)]);
                }
                prop_assert!(reassembly.packets.len() <= MAX_PACKETS && reassembly.kept() <= MAX_BYTES);
                prop_assert!(reassembly.next_deadline().is_none_or(|deadline| deadline > now));
            }
        }
    }
}
