//! The stores of a world: a machine for each, what they share, and what happens to them. Time is the world's.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use vine_core::identity::Identity;
use vine_core::log::replay::Depth;
use vine_core::log::store::StoreConfig;
use vine_core::{Instant, NetworkId, PeerId};

use super::device::SimDisk;
use super::dice::Dice;
use super::ledger::Timeline;
use super::machine::{Content, Machine, Shared};
use super::op::{Kind, Op};
use super::script::Setup;
use super::twin::Twin;

/// Keys that are written.
const KEYS: u64 = 12;
/// A disk with as much room as there is.
const BOUNDLESS: u16 = u16::MAX;

/// Where there are no hosts: the first machine, one with another identity, and one that becomes a clone of the first.
const MACHINES: usize = 3;
/// The clone.
const CLONE: usize = 2;

/// Machines, and what they share.
#[derive(Default)]
pub struct Stores {
    /// The machines.
    pub machines: Vec<Machine>,
    /// The time, the ledger, and what was reached.
    pub shared: Shared,
    backups: Vec<Option<(SimDisk, Timeline)>>,
    dice: Dice,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("machines", &self.machines.len()).finish_non_exhaustive()
    }
}

/// The secret of a machine's identity.
fn secret(number: usize) -> [u8; 32] {
    [if number == 1 { 2 } else { 1 }; 32]
}

impl Stores {
    /// The stores of a world without hosts.
    pub fn alone(setup: &Setup) -> Stores {
        let members = [0, 1].map(|number| Identity::from_seed(secret(number)).peer_id());
        Stores::of(setup, "example", (0..MACHINES).map(|number| (secret(number), members.to_vec())))
    }

    /// A store for each of these identities, given by their secrets, and those whose logs it takes.
    pub fn of(setup: &Setup, network: &str, machines: impl IntoIterator<Item = ([u8; 32], Vec<PeerId>)>) -> Stores {
        let mut dice = Dice::new(setup.seed);
        let machines = (0..).zip(machines).map(|(number, (secret, members))| {
            let config = config(setup, network, Identity::from_seed(secret).peer_id(), members);
            Machine::new(number, secret, config, dice.any())
        });
        let machines: Vec<Machine> = machines.collect();
        Stores { backups: vec![None; machines.len()], machines, shared: Shared::default(), dice }
    }

    /// The stores work on real files below `root`.
    pub fn work_on_files(&mut self, root: &Path) {
        for machine in &mut self.machines {
            machine.twin = Some(Twin::new(root, machine.number));
        }
    }

    /// These stores between two lives, for another end of their story.
    ///
    /// # Panics
    /// Where one runs.
    pub fn fork(&self) -> Stores {
        let shared = Shared { ledger: self.shared.ledger.clone(), now: self.shared.now, ..Shared::default() };
        Stores {
            machines: self.machines.iter().map(Machine::fork).collect(),
            shared,
            backups: self.backups.clone(),
            dice: self.dice,
        }
    }

    /// Whether there is a backup of a machine.
    pub fn has_backup(&self, number: usize) -> bool {
        self.backups[number].is_some()
    }

    /// Which machine wants to be woken next, and when.
    pub fn deadline(&self) -> Option<(Instant, usize)> {
        self.machines.iter().enumerate().map(|(number, machine)| (machine.deadline(), number)).min()
    }

    /// The deadline of a machine has come.
    pub fn wake(&mut self, number: usize) {
        self.machines[number].wake(&mut self.shared);
    }

    /// Does one op to a store or its disk; what concerns a whole machine is the world's to do.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn apply(&mut self, op: &Op) {
        let count = self.machines.len();
        let machine = |number: u8| usize::from(number) % count;
        match *op {
            Op::Append { at, kind, writers, count, len } => self.append(machine(at), kind, writers, count, len),
            Op::Import { from, to } => self.import(machine(from), machine(to)),
            Op::Backup { at } => {
                let Machine { disk, line, .. } = &self.machines[machine(at)];
                self.backups[machine(at)] = Some((disk.copied(), line.clone()));
            }
            Op::Restore { at } => self.restore(machine(at)),
            Op::Clone {} => {
                self.machines[CLONE].kill(&mut self.shared);
                self.machines[CLONE] = self.machines[0].cloned(CLONE);
                self.shared.coverage.hit("cloned");
            }
            ref op => self.apply_one(op),
        }
    }

    /// What happens to one machine.
    fn apply_one(&mut self, op: &Op) {
        let count = self.machines.len();
        let Stores { machines, shared, .. } = self;
        let number = |at: u8| usize::from(at) % count;
        match *op {
            Op::Read { at, from, bytes } => {
                let machine = &mut machines[number(at)];
                let next = machine.store().map_or(0, |store| store.next_ordinal());
                machine.read(shared, u64::from(from) % (next + 3), bytes as usize);
            }
            Op::Close { at } => machines[number(at)].close(shared),
            Op::Open { at, read_only } => machines[number(at)].open(shared, read_only),
            Op::Fault { at, fault, after } => {
                let disk = &mut machines[number(at)].disk;
                disk.plan(disk.effects() + u64::from(after), fault);
            }
            Op::Full { at, kbytes } => {
                let disk = &mut machines[number(at)].disk;
                let room = if kbytes == BOUNDLESS { u64::MAX } else { u64::from(kbytes) * 1024 };
                disk.capacity = disk.used().saturating_add(room);
            }
            Op::Protect { at, on } => machines[number(at)].protect(on),
            Op::Break { at, on } => machines[number(at)].break_disk(on),
            Op::Evict { at } => machines[number(at)].disk.evict(),
            Op::Rot { at, sector, bit } => machines[number(at)].rot(shared, sector, bit),
            Op::Clock { at, ms } => machines[number(at)].clock_ms = ms,
            Op::Slow { at, us } => machines[number(at)].slow = Duration::from_micros(u64::from(us)),
            _ => {}
        }
    }

    /// Writers of a machine append, each at once.
    pub fn append(&mut self, number: usize, kind: Kind, writers: u8, count: u8, len: u32) {
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

    /// All faults of the disks end.
    pub fn mend(&mut self) {
        for machine in &mut self.machines {
            (machine.disk.capacity, machine.disk.read_only, machine.disk.broken) = (u64::MAX, false, false);
            machine.disk.forget_plans();
            machine.slow = Duration::from_millis(1);
        }
    }
}

/// The configuration of one store.
fn config(setup: &Setup, network: &str, owner: PeerId, members: Vec<PeerId>) -> StoreConfig {
    StoreConfig {
        network_id: NetworkId::new(network).expect("a name"),
        owner,
        members,
        segment_bytes: u64::from(setup.segment_kb) * 1024,
        max_bytes: if setup.max_kb == 0 { u64::MAX / 2 } else { u64::from(setup.max_kb) * 1024 },
        author_bytes: u64::MAX / 2,
        view_bytes: if setup.view_kb == 0 { usize::MAX / 2 } else { setup.view_kb as usize * 1024 },
        read_only: false,
        depth: if setup.deep { Depth::Signatures } else { Depth::Checksums },
    }
}
