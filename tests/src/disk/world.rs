//! A few machines and what happens to them, and whether they are as they should be when the faults have ended.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use vine_core::identity::Identity;
use vine_core::log::replay::Depth;
use vine_core::log::store::{Store, StoreConfig};
use vine_core::{Instant, NetworkId};

use super::device::SimDisk;
use super::dice::Dice;
use super::ledger::Timeline;
use super::machine::{Content, Machine, Shared};
use super::op::{Kind, Op};
use super::script::Setup;
use super::twin::Twin;

/// How long a store on a disk that works may take for anything.
const DEADLINE: Duration = Duration::from_secs(60);
/// Keys that are written.
const KEYS: u64 = 12;
/// A disk with as much room as there is.
const BOUNDLESS: u16 = u16::MAX;

/// The first machine, one with another identity, and one that becomes a clone of the first.
const MACHINES: usize = 3;
/// The clone.
const CLONE: usize = 2;

/// Machines, and what they share.
pub struct World {
    /// The machines.
    pub machines: Vec<Machine>,
    /// The ledger, and what was reached.
    pub shared: Shared,
    backups: Vec<Option<(SimDisk, Timeline)>>,
    now: Instant,
    dice: Dice,
}

/// The store of one machine of a world.
pub(super) fn config(setup: &Setup, owner: &Identity, members: &[Identity]) -> StoreConfig {
    StoreConfig {
        network_id: NetworkId::new("example").expect("a name"),
        owner: owner.peer_id(),
        members: members.iter().map(Identity::peer_id).collect(),
        segment_bytes: u64::from(setup.segment_kb) * 1024,
        max_bytes: if setup.max_kb == 0 { u64::MAX / 2 } else { u64::from(setup.max_kb) * 1024 },
        author_bytes: u64::MAX / 2,
        view_bytes: if setup.view_kb == 0 { usize::MAX / 2 } else { setup.view_kb as usize * 1024 },
        read_only: false,
        depth: if setup.deep { Depth::Signatures } else { Depth::Checksums },
    }
}

/// The secret of a machine's identity.
fn secret(number: usize) -> [u8; 32] {
    [if number == 1 { 2 } else { 1 }; 32]
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(setup: &Setup) -> World {
        let mut dice = Dice::new(setup.seed);
        let members = [0, 1].map(|number| Identity::from_seed(secret(number)));
        let machine = |number| {
            let config = config(setup, &members[number % 2], &members);
            Machine::new(number, secret(number), config, dice.any())
        };
        World {
            machines: (0..MACHINES).map(machine).collect(),
            shared: Shared::default(),
            backups: vec![None; MACHINES],
            now: Instant::ORIGIN,
            dice,
        }
    }

    /// A world whose stores work on real files below `root`.
    pub fn on_files(setup: &Setup, root: &Path) -> World {
        let mut world = World::new(setup);
        for machine in &mut world.machines {
            machine.twin = Some(Twin::new(root, machine.number));
        }
        world
    }

    /// This world between two lives, for another end of its story.
    ///
    /// # Panics
    /// Where a store runs.
    pub fn fork(&self) -> World {
        let shared = Shared { ledger: self.shared.ledger.clone(), ..Shared::default() };
        World {
            machines: self.machines.iter().map(Machine::fork).collect(),
            shared,
            backups: self.backups.clone(),
            ..*self
        }
    }

    /// Time passes for everybody.
    pub fn run_for(&mut self, duration: Duration) {
        self.now += duration;
        for machine in &mut self.machines {
            machine.run_until(&mut self.shared, self.now);
        }
    }

    /// Does one op.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Wait { us } => self.run_for(Duration::from_micros(us)),
            Op::Append { at, kind, writers, count, len } => self.append(at, kind, writers, count, len),
            Op::Restore { at } => self.restore(usize::from(at) % MACHINES),
            Op::Clone {} => {
                self.machines[CLONE].kill(&mut self.shared);
                self.machines[CLONE] = self.machines[0].cloned(CLONE);
                self.shared.coverage.hit("cloned");
            }
            Op::Import { from, to } => self.import(usize::from(from) % MACHINES, usize::from(to) % MACHINES),
            ref op => self.apply_one(op),
        }
    }

    /// What happens to one machine.
    fn apply_one(&mut self, op: &Op) {
        let World { machines, shared, backups, .. } = self;
        match *op {
            Op::Read { at, from, bytes } => {
                let machine = &mut machines[usize::from(at) % MACHINES];
                let next = machine.store().map_or(0, |store| store.next_ordinal());
                machine.read(shared, u64::from(from) % (next + 3), bytes as usize);
            }
            Op::Close { at } => machines[usize::from(at) % MACHINES].close(shared),
            Op::Open { at, read_only } => machines[usize::from(at) % MACHINES].open(shared, read_only),
            Op::Kill { at } => machines[usize::from(at) % MACHINES].kill(shared),
            Op::Crash { at } => machines[usize::from(at) % MACHINES].crash_by_chance(shared),
            Op::Fault { at, fault, after } => {
                let disk = &mut machines[usize::from(at) % MACHINES].disk;
                disk.plan(disk.effects() + u64::from(after), fault);
            }
            Op::Full { at, kbytes } => {
                let disk = &mut machines[usize::from(at) % MACHINES].disk;
                let room = if kbytes == BOUNDLESS { u64::MAX } else { u64::from(kbytes) * 1024 };
                disk.capacity = disk.used().saturating_add(room);
            }
            Op::Protect { at, on } => machines[usize::from(at) % MACHINES].protect(on),
            Op::Break { at, on } => machines[usize::from(at) % MACHINES].break_disk(on),
            Op::Evict { at } => machines[usize::from(at) % MACHINES].disk.evict(),
            Op::Rot { at, sector, bit } => machines[usize::from(at) % MACHINES].rot(shared, sector, bit),
            Op::Backup { at } => {
                let number = usize::from(at) % MACHINES;
                backups[number] = Some((machines[number].disk.copied(), machines[number].line.clone()));
            }
            Op::Clock { at, ms } => machines[usize::from(at) % MACHINES].clock_ms = ms,
            Op::Slow { at, us } => machines[usize::from(at) % MACHINES].slow = Duration::from_micros(u64::from(us)),
            Op::Wait { .. } | Op::Append { .. } | Op::Restore { .. } | Op::Clone {} | Op::Import { .. } => {}
        }
    }

    fn next_ordinal(&self, number: usize) -> u64 {
        self.machines[number].store().map_or(0, Store::next_ordinal)
    }

    fn append(&mut self, at: u8, kind: Kind, writers: u8, count: u8, len: u32) {
        let number = usize::from(at) % MACHINES;
        for _ in 0..writers {
            let contents = match kind {
                Kind::Plain => (0..count.max(1)).map(|_| Content::Plain(self.bytes(len))).collect(),
                Kind::Put => vec![Content::Put(self.key(), self.bytes(len))],
                Kind::Delete => vec![Content::Delete(self.key())],
            };
            self.machines[number].append(&mut self.shared, contents);
        }
    }

    /// Bytes that are nowhere else, but for very short ones.
    fn bytes(&mut self, len: u32) -> Bytes {
        let mut dice = self.dice.fork();
        let mut bytes = vec![0; len as usize];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.any().to_le_bytes()[..chunk.len()]));
        bytes.into()
    }

    fn key(&mut self) -> Bytes {
        let key = self.dice.below(KEYS);
        let name = format!("key {key}");
        if key == 0 { name.repeat(100).into() } else { name.into() }
    }

    fn restore(&mut self, number: usize) {
        let Some((disk, line)) = &self.backups[number] else { return };
        let machine = &mut self.machines[number];
        machine.kill(&mut self.shared);
        machine.disk.put_back(disk);
        machine.line = line.clone();
        machine.line.closed_at = None;
        self.shared.coverage.hit("a backup was put back");
    }

    fn import(&mut self, from: usize, to: usize) {
        let records = self.machines[from].records(&self.shared.ledger);
        if !records.is_empty() && self.machines[to].is_writing() {
            self.machines[to].import(&mut self.shared, records);
        }
    }

    /// The faults end; every store must open, take a write, survive a crash, and be the same when it is closed and opened.
    ///
    /// # Panics
    /// Where one does not.
    pub fn heal(&mut self) {
        for number in 0..MACHINES {
            let disk = &mut self.machines[number].disk;
            (disk.capacity, disk.read_only, disk.broken) = (u64::MAX, false, false);
            disk.forget_plans();
            self.machines[number].slow = Duration::from_millis(1);
            self.run_for(Duration::from_secs(2));
            if !self.reopen(number, false) {
                continue;
            }
            let before = self.next_ordinal(number);
            for kind in [Kind::Plain, Kind::Put] {
                self.append(number as u8, kind, 2, 2, 40);
            }
            self.settle(number);
            // A store may be at its limit, and a view too.
            let is_taken = self.next_ordinal(number) >= before + 4;
            assert!(is_taken || self.machines[number].is_limited(), "a healed store takes no writes");
            self.machines[number].crash(&mut self.shared, |_, _| 0);
            if !self.reopen(number, false) {
                continue;
            }
            self.append(number as u8, Kind::Plain, 1, 1, 40);
            self.settle(number);
            self.machines[number].close(&mut self.shared);
            self.run_for(DEADLINE);
            assert!(!self.machines[number].is_writing(), "a store is not closed in {DEADLINE:?}");
            self.reopen(number, true);
            assert!(!self.machines[number].has_damaged_header(), "a damaged copy of a header is not repaired");
            self.machines[number].kill(&mut self.shared);
        }
    }

    /// Opens the store anew. Returns whether it is open.
    pub fn reopen(&mut self, number: usize, read_only: bool) -> bool {
        self.machines[number].kill(&mut self.shared);
        self.machines[number].open(&mut self.shared, read_only);
        self.settle(number);
        !self.machines[number].is_refused()
    }

    /// Waits until everybody has what they asked for, or the machine is switched off.
    pub(super) fn settle_or_halt(&mut self, number: usize) {
        let until = self.now + DEADLINE;
        while self.now < until && !self.machines[number].is_idle() && !self.machines[number].is_halted() {
            self.run_for(Duration::from_millis(1));
        }
    }

    /// Waits until everybody has what they asked for.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn settle(&mut self, number: usize) {
        let until = self.now + DEADLINE;
        while self.now < until && !self.machines[number].is_idle() {
            self.run_for(Duration::from_millis(20));
        }
        assert!(self.machines[number].is_idle(), "somebody waits for a store for {DEADLINE:?}");
    }
}
