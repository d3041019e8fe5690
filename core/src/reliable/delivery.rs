//! The queue and the recovery of two paths together, over a network that loses, delays, reorders and repeats.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use proptest::prelude::*;

use super::{MAX_MESSAGE_LEN, Reliable, Token};
use crate::path::RttEstimator;
use crate::path::recovery::{Blocked, MAX_RANGES, Received, Recovery};
use crate::time::Instant;

const MS: Duration = Duration::from_millis(1);
const PATHS: usize = 2;

/// What goes around an envelope's messages, roughly.
const OVERHEAD: usize = 72;

#[derive(Clone, Debug)]
enum Datagram {
    Packet { path: usize, number: u64, order: u64, messages: Vec<u8> },
    Ack { path: usize, ranges: Vec<RangeInclusive<u64>>, delay: Duration },
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Push { key: u8 },
    Cancel { key: u8 },
    Switch,
    Cut { path: usize },
    Heal { path: usize },
    Wait { ms: u32 },
}

/// How the network behaves, in percent and milliseconds.
#[derive(Clone, Copy, Debug)]
struct Weather {
    loss: u64,
    duplicates: u64,
    delay: u64,
    jitter: u64,
}

struct World {
    now: Instant,
    random: u64,
    weather: Weather,
    is_cut: [bool; PATHS],
    in_transit: BTreeMap<(Instant, u64), Datagram>,
    datagrams: u64,

    queue: Reliable<u8>,
    recovery: [Recovery<Token>; PATHS],
    rtt: [RttEstimator; PATHS],
    preferred: usize,
    paced_until: Instant,
    /// The newest version of each key that was pushed and not cancelled.
    newest: BTreeMap<u8, u32>,
    versions: u32,
    copies: usize,

    received: [Received; PATHS],
    /// The order (as the control lane's counter gives it) and the version last taken in, by key.
    applied: BTreeMap<u8, (u64, u32)>,
}

impl World {
    fn new(seed: u64, weather: Weather) -> World {
        World {
            now: Instant::from_millis(1000),
            random: seed | 1,
            weather,
            is_cut: [false; PATHS],
            in_transit: BTreeMap::new(),
            datagrams: 0,
            queue: Reliable::default(),
            recovery: Default::default(),
            rtt: Default::default(),
            preferred: 0,
            paced_until: Instant::FAR_FUTURE,
            newest: BTreeMap::new(),
            versions: 0,
            copies: 0,
            received: Default::default(),
            applied: BTreeMap::new(),
        }
    }

    /// A number below `bound` (xorshift64*).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Push { key } => {
                self.versions += 1;
                let mut message = [key; 5];
                message[1..].copy_from_slice(&self.versions.to_le_bytes());
                self.queue.push(key, message.into()).expect("there are fewer keys than places");
                self.newest.insert(key, self.versions);
            }
            Op::Cancel { key } => {
                self.queue.cancel_all(|held| *held == key);
                self.newest.remove(&key);
            }
            Op::Switch => {
                for token in self.recovery[self.preferred].abandon() {
                    self.queue.on_lost(token);
                }
                self.preferred = (self.preferred + 1) % PATHS;
            }
            Op::Cut { path } => self.is_cut[path] = true,
            Op::Heal { path } => self.is_cut[path] = false,
            Op::Wait { ms } => self.run(MS * ms),
        }
        self.send();
    }

    /// Sends what waits, as far as the path admits it.
    fn send(&mut self) {
        self.paced_until = Instant::FAR_FUTURE;
        let path = self.preferred;
        while self.queue.has_queued() {
            match self.recovery[path].may_send(self.now, MAX_MESSAGE_LEN + OVERHEAD, &self.rtt[path]) {
                Ok(()) => self.send_packet(path),
                Err(Blocked::Until(then)) => {
                    assert!(then > self.now);
                    self.paced_until = then;
                    return;
                }
                Err(Blocked::InFlight) => {
                    assert!(self.recovery[path].next_deadline(&self.rtt[path]) < Instant::FAR_FUTURE);
                    return;
                }
            }
        }
    }

    fn send_packet(&mut self, path: usize) {
        let mut messages = alloc::vec![0; MAX_MESSAGE_LEN];
        let (length, items) = self.queue.take_for_packet(&mut messages);
        messages.truncate(length);
        self.copies += items.len();
        let expected = self.recovery[path].next_number();
        let number = self.recovery[path].on_sent(self.now, length + OVERHEAD, items, &self.rtt[path]);
        assert_eq!(number, Some(expected));
        let order = self.datagrams;
        self.transmit(path, Datagram::Packet { path, number: expected, order, messages });
    }

    fn transmit(&mut self, path: usize, datagram: Datagram) {
        let copies = if self.below(100) < self.weather.duplicates { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.weather.delay + self.below(self.weather.jitter + 1);
            self.datagrams += 1;
            if self.below(100) >= self.weather.loss && !self.is_cut[path] {
                let at = self.now + Duration::from_millis(delay);
                self.in_transit.insert((at, self.datagrams), datagram.clone());
            }
        }
    }

    /// Sleeps exactly, until the next thing that is due, for `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.next_deadline();
            if next > end {
                self.now = end;
                return;
            }
            assert!(next >= self.now);
            self.now = next;
            self.receive();
            for path in 0..PATHS {
                self.time_out(path);
                if self.received[path].next_deadline() <= self.now {
                    self.acknowledge(path);
                }
            }
            self.send();
            assert!(self.next_deadline() > self.now, "a deadline that did not move");
        }
    }

    fn next_deadline(&self) -> Instant {
        let network = self.in_transit.first_key_value().map_or(Instant::FAR_FUTURE, |((at, _), _)| *at);
        (0..PATHS)
            .flat_map(|path| [self.recovery[path].next_deadline(&self.rtt[path]), self.received[path].next_deadline()])
            .fold(network.min(self.paced_until), Instant::min)
    }

    fn receive(&mut self) {
        while let Some(((at, id), datagram)) = self.in_transit.pop_first() {
            if at > self.now {
                self.in_transit.insert((at, id), datagram);
                return;
            }
            match datagram {
                Datagram::Packet { path, number, order, messages } => {
                    if self.received[path].on_packet(self.now, number) {
                        self.take_in(order, &messages);
                    }
                }
                Datagram::Ack { path, ranges, delay } => {
                    let outcome = self.recovery[path].on_ack(self.now, ranges.into_iter(), delay, &mut self.rtt[path]);
                    let outcome = outcome.expect("only numbers that were sent");
                    outcome.acked.into_iter().for_each(|token| _ = self.queue.on_acked(token));
                    outcome.lost.into_iter().for_each(|token| self.queue.on_lost(token));
                }
            }
        }
    }

    /// The receiver's handlers.
    fn take_in(&mut self, order: u64, messages: &[u8]) {
        for message in messages.chunks(5) {
            let version = u32::from_le_bytes([message[1], message[2], message[3], message[4]]);
            let (last, applied) = self.applied.entry(message[0]).or_insert((order, version));
            if order >= *last {
                assert!(version >= *applied, "a packet that was sealed later carries an older version");
                (*last, *applied) = (order, version);
            }
        }
    }

    fn acknowledge(&mut self, path: usize) {
        let (delay, ranges) = self.received[path].pending_ack(self.now).expect("one is due");
        assert!(ranges.len() <= MAX_RANGES);
        let ack = Datagram::Ack { path, ranges: ranges.collect(), delay };
        self.received[path].on_ack_sent();
        self.transmit(path, ack);
    }

    fn time_out(&mut self, path: usize) {
        if self.recovery[path].next_deadline(&self.rtt[path]) > self.now {
            return;
        }
        let outcome = self.recovery[path].on_timeout(self.now, &self.rtt[path]);
        outcome.lost.into_iter().for_each(|token| self.queue.on_lost(token));
        if let Some(items) = outcome.probe {
            items.into_iter().for_each(|token| self.queue.on_doubt(token));
            self.send_packet(path);
        }
    }

    /// Everything that was pushed, and not cancelled, arrived in its newest version.
    fn assert_delivered(&self) {
        assert!(self.queue.is_empty(), "{:?} at {:?}", self.queue, self.now);
        for (key, version) in &self.newest {
            assert_eq!(self.applied.get(key).map(|(_, version)| version), Some(version), "of key {key}");
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0u8..20).prop_map(|key| Op::Push { key }),
        1 => (0u8..20).prop_map(|key| Op::Cancel { key }),
        1 => Just(Op::Switch),
        1 => (0..PATHS).prop_map(|path| Op::Cut { path }),
        1 => (0..PATHS).prop_map(|path| Op::Heal { path }),
        6 => (0u32..300).prop_map(|ms| Op::Wait { ms }),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0u64..40, 0u64..20, 1u64..150, 0u64..80).prop_map(|(loss, duplicates, delay, jitter)| Weather {
        loss,
        duplicates,
        delay,
        jitter,
    })
}

proptest! {
    #[test]
    fn everything_arrives_in_its_newest_version(
        seed in any::<u64>(),
        weather in weather(),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut world = World::new(seed, weather);
        for op in &ops {
            world.apply(*op);
        }
        for path in 0..PATHS {
            world.apply(Op::Heal { path });
        }
        world.run(Duration::from_secs(600));
        world.assert_delivered();
        prop_assert!((0..PATHS).all(|path| world.recovery[path].in_flight() == 0));
        prop_assert_eq!(world.next_deadline(), Instant::FAR_FUTURE, "an idle peer sleeps");
        let bound = 8 * ops.len() + 64;
        prop_assert!(world.copies <= bound, "{} copies of {} versions", world.copies, world.versions);
    }

    /// Where nothing is lost and nothing overtakes, nothing is sent twice.
    #[test]
    fn a_good_path_carries_everything_once(
        delay in 1u64..300,
        pushes in prop::collection::vec(0u32..60, 1..60),
    ) {
        let mut world = World::new(1, Weather { loss: 0, duplicates: 0, delay, jitter: 0 });
        for (wait, key) in pushes.iter().zip(0u8..) {
            world.apply(Op::Push { key });
            world.apply(Op::Wait { ms: *wait });
        }
        world.run(Duration::from_secs(10));
        world.assert_delivered();
        prop_assert_eq!(world.copies, pushes.len());
        prop_assert_eq!(world.datagrams as usize <= 2 * pushes.len(), true);
    }
}

#[test]
fn a_dead_path_gets_little_and_its_successor_everything() {
    let mut world = World::new(1, Weather { loss: 0, duplicates: 0, delay: 20, jitter: 0 });
    world.apply(Op::Push { key: 0 });
    world.run(MS * 500);
    world.apply(Op::Cut { path: 0 });
    for key in 1..21 {
        world.apply(Op::Push { key });
    }
    let before = world.datagrams;
    world.run(MS * 2000);
    // The flight and a few probes.
    assert!(world.datagrams - before <= 6, "{} datagrams", world.datagrams - before);
    world.apply(Op::Switch);
    world.run(MS * 200);
    world.assert_delivered();
}
