//! Fragments: whatever comes, in whatever order, Reassembly does what a plain list does, within its bounds; and what was
//! cut comes out whole.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vine_core::Instant;
use vine_core::overlay::{Fragments, Reassembly};
use vine_core::wire::FragmentPart;
use vine_fuzz::alloc::peak_of;
use vine_fuzz::pattern;

/// What 64 KiB may take: as much again where a buffer grows, the packet that comes out, and the lists.
const MAX_MEMORY: usize = 3 * 65_536 + 16_384;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A fragment of a packet that was cut by the rules.
    Honest { packet: u8, part: u8 },
    /// Any fragment.
    Any { id: u8, offset: u16, total: u16, len: u16, stamp: u8 },
    /// Time goes on.
    Wait { hundredths: u8 },
}

/// An unfinished packet, plainly.
struct Unfinished {
    id: u32,
    total: u16,
    deadline: Instant,
    parts: BTreeMap<u16, Vec<u8>>,
    spoilt: bool,
}

impl Unfinished {
    fn kept(&self) -> usize {
        self.parts.values().map(Vec::len).sum()
    }
}

/// The rules of docs/protocol.md, said plainly.
#[derive(Default)]
struct Plain {
    packets: Vec<Unfinished>,
    dropped: u64,
}

impl Plain {
    fn give_up(&mut self, which: impl Fn(&Unfinished) -> bool) -> bool {
        let Some(index) = self.packets.iter().position(which) else { return false };
        self.dropped += u64::from(!self.packets.remove(index).spoilt);
        true
    }

    fn push(&mut self, now: Instant, part: FragmentPart<'_>) -> Option<Vec<u8>> {
        let (id, bytes) = (part.id(), part.bytes());
        while self.give_up(|packet| packet.deadline <= now) {}
        loop {
            let is_new = self.packets.iter().all(|packet| packet.id != id);
            let kept: usize = self.packets.iter().map(Unfinished::kept).sum();
            let is_full = (is_new && self.packets.len() == 8) || kept + bytes.len() > 65_536;
            if !is_full || !self.give_up(|packet| packet.id != id) {
                break;
            }
        }
        if self.packets.iter().all(|packet| packet.id != id) {
            let deadline = now + Duration::from_secs(1);
            self.packets.push(Unfinished { id, total: part.total(), deadline, parts: BTreeMap::new(), spoilt: false });
        }
        let index = self.packets.iter().position(|packet| packet.id == id).expect("it was put there");
        let packet = &mut self.packets[index];
        let same_length = packet.total == part.total();
        if packet.spoilt || (same_length && packet.parts.get(&part.offset()).is_some_and(|there| there == bytes)) {
            return None;
        }
        let places = |offset: u16, len: usize| usize::from(offset)..usize::from(offset) + len;
        let own = places(part.offset(), bytes.len());
        let overlaps = packet.parts.iter().any(|(offset, there)| {
            let there = places(*offset, there.len());
            there.start < own.end && own.start < there.end
        });
        if overlaps || !same_length || packet.parts.len() == 64 {
            packet.parts.clear();
            packet.spoilt = true;
            self.dropped += 1;
            return None;
        }
        packet.parts.insert(part.offset(), bytes.to_vec());
        let is_whole = packet.kept() == usize::from(packet.total);
        is_whole.then(|| self.packets.remove(index).parts.into_values().flatten().collect())
    }
}

/// Packets of many lengths.
static HONEST: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| [20, 1280, 1281, 9000].map(|len| pattern(len as u64, len)));

/// The fragments of a packet, cut by the rules.
fn cut(packet: &[u8], id: u32) -> Vec<FragmentPart<'_>> {
    let fragments = Fragments::new(packet, id, 1184).expect("there is room");
    assert_eq!(fragments.len(), packet.len().div_ceil(1173));
    fragments.collect()
}

fuzz_target!(|steps: Vec<Step>| {
    let honest: Vec<Vec<_>> = HONEST.iter().zip(1000..).map(|(packet, id)| cut(packet, id)).collect();
    let mut now = Instant::ORIGIN;
    let (mut reassembly, mut plain) = (Reassembly::default(), Plain::default());
    for step in &steps {
        let bytes;
        let part = match *step {
            Step::Honest { packet, part } => {
                let parts = &honest[usize::from(packet) % honest.len()];
                Some(parts[usize::from(part) % parts.len()])
            }
            Step::Any { id, offset, total, len, stamp } => {
                bytes = vec![stamp; usize::from(len)];
                FragmentPart::new(u32::from(id % 12), offset, total, &bytes)
            }
            Step::Wait { hundredths } => {
                now += Duration::from_millis(10) * u32::from(hundredths);
                None
            }
        };
        let Some(part) = part else { continue };
        let expected = plain.push(now, part);
        let (whole, memory) = peak_of(|| reassembly.push(now, part));
        assert!(memory <= MAX_MEMORY, "{memory} bytes");
        assert_eq!(whole, expected);
        if let Some(packet) = whole.filter(|_| part.id() >= 1000) {
            assert_eq!(packet, HONEST[part.id() as usize - 1000]);
        }
        assert_eq!(reassembly.next_deadline(), plain.packets.first().map(|packet| packet.deadline));
        assert_eq!(reassembly.take_dropped(), std::mem::take(&mut plain.dropped));
    }
});
