//! A machine is a node and a store: what happens to it happens to both, and both live in the same time.
//!
//! The machine with a host's number is that host's: its identity owns the store, and the store takes the logs of the hosts
//! that it allows. A world may also have stores without hosts, to try out the log alone, and hosts without stores.

use std::time::Duration;

use vine_core::log::store::Store;

use super::crypto::AuditedCrypto;
use super::host::Topology;
use super::op;
use super::world::World;
use crate::disk::{Kind, Machine, Op, Setup, Stores};

/// How long a store on a disk that works may take for anything.
const DEADLINE: Duration = Duration::from_secs(60);

impl World {
    /// A world without hosts.
    pub fn of_stores(stores: Stores) -> World {
        let mut world = World::new(0, AuditedCrypto::stub(), Topology::default());
        world.stores = stores;
        world.advance(world.stores.shared.now);
        world
    }

    /// Every host gets a store, for its next life.
    pub fn give_stores(&mut self, setup: &Setup) {
        let Some(first) = self.hosts.first() else { return };
        let identities = self.hosts.iter().map(|host| (host.secret(), Vec::new()));
        self.stores = Stores::of(setup, &first.spec.network_id, identities);
        self.advance(self.now());
        for host in 0..self.hosts.len() {
            self.set_clock(host, self.hosts[host].clock_ms);
        }
    }

    /// This world between two lives of its stores, for another end of its story.
    ///
    /// # Panics
    /// Where there are hosts, or a store runs.
    pub fn fork(&self) -> World {
        assert!(self.hosts.is_empty(), "hosts cannot be copied");
        World::of_stores(self.stores.fork())
    }

    /// Makes something happen to stores and their disks, and to the whole machine where it concerns that. Every op is legal
    /// at any time.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn apply_to_stores(&mut self, op: &Op) {
        let count = self.stores.machines.len().max(self.hosts.len());
        let machine = |number: u8| usize::from(number) % count;
        match *op {
            Op::Wait { us } => self.run_for(Duration::from_micros(us)),
            Op::Crash { at } => self.crash(machine(at)),
            Op::Kill { at } => self.kill(machine(at)),
            Op::Clock { at, ms } if !self.hosts.is_empty() => self.apply(&op::Op::Clock { host: at, ms }),
            _ if self.stores.machines.is_empty() => {}
            Op::Restore { at } if self.stores.has_backup(machine(at)) => {
                self.kill(machine(at));
                self.stores.apply(op);
            }
            // Nobody has the identity of another host.
            Op::Clone {} if !self.hosts.is_empty() => {}
            Op::Append { at, .. } | Op::Read { at, .. } | Op::Close { at } | Op::Open { at, .. }
                if !self.acts(machine(at)) => {}
            Op::Import { to, .. } if !self.acts(machine(to)) => {}
            ref op => self.stores.apply(op),
        }
    }

    /// Whether there is a process that does what it is asked for. Where there are no hosts, an opening makes one.
    fn acts(&self, number: usize) -> bool {
        self.hosts.get(number).is_none_or(|host| host.node.is_some() && !host.stalled)
    }

    /// The process of a machine ends. What it wrote is in the cache of its disk.
    pub fn kill(&mut self, number: usize) {
        self.end_node(number);
        if let Some(machine) = self.stores.machines.get_mut(number) {
            machine.kill(&mut self.stores.shared);
        }
    }

    /// What a power failure does to a machine's store and disk.
    pub(super) fn lose_power(&mut self, number: usize) {
        let Stores { machines, shared, .. } = &mut self.stores;
        let Some(machine) = machines.get_mut(number) else { return };
        if machine.is_awaited() && self.network.has_flights_of(number) {
            self.coverage.hit("power lost: appends wait and packets are in flight");
        }
        machine.crash_by_chance(shared);
    }

    /// The process of a host that has just started opens its store.
    pub(super) fn start_store(&mut self, host: usize) {
        self.tell_members(host);
        let Some(machine) = self.stores.machines.get_mut(host) else { return };
        if machine.is_open() {
            self.coverage.hit("closing cut short by a start");
        }
        machine.kill(&mut self.stores.shared);
        machine.open(&mut self.stores.shared, false);
    }

    /// The process of a host ends in order: with its store closed, unless that is not open yet.
    pub(super) fn close_store(&mut self, host: usize) {
        let Some(machine) = self.stores.machines.get_mut(host) else { return };
        if machine.is_open() {
            self.coverage.hit("shutdown closes the store");
            machine.close(&mut self.stores.shared);
        } else {
            machine.kill(&mut self.stores.shared);
        }
    }

    /// The process of a host stands still, or goes on.
    pub(super) fn stall_store(&mut self, host: usize, on: bool) {
        let Some(machine) = self.stores.machines.get_mut(host) else { return };
        machine.stalled = on;
        let is_late = !on && machine.deadline() < self.now();
        self.coverage.add("stall: the disk waited for its process", u64::from(is_late));
    }

    /// The wall clock of a host is off by so much from now on. Its node is not told.
    pub(super) fn set_clock(&mut self, host: usize, ms: i64) {
        self.hosts[host].clock_ms = ms;
        if let Some(machine) = self.stores.machines.get_mut(host) {
            machine.clock_ms = ms;
        }
    }

    /// A host allows others now: theirs are the logs that its store takes from now on.
    pub(super) fn tell_members(&mut self, host: usize) {
        let members = self.hosts[host].peers.iter().map(|peer| self.id(*peer)).collect();
        if let Some(machine) = self.stores.machines.get_mut(host) {
            machine.set_members(members);
        }
    }

    // What comes when the faults have ended.

    /// The processes that run open their stores, where these were closed, have stopped, or cannot be written to.
    pub fn open_stores(&mut self) {
        let Stores { machines, shared, .. } = &mut self.stores;
        for machine in machines.iter_mut().filter(|machine| !machine.is_writing()) {
            machine.kill(shared);
            machine.open(shared, false);
        }
    }

    /// Every store must open, take writes, survive a crash, and be the same when it is closed and opened. The faults of the
    /// disks end, if they have not yet.
    ///
    /// # Panics
    /// Where one does not.
    pub fn heal_stores(&mut self) {
        self.stores.mend();
        self.run_for(Duration::from_secs(2));
        let is_answered = |machine: &Machine| self.hosts.is_empty() || machine.is_idle();
        assert!(self.stores.machines.iter().all(is_answered), "the network is healed, and somebody waits for a store");
        let mut open: Vec<usize> = (0..self.stores.machines.len()).collect();
        self.restart_all(&mut open);
        let before: Vec<u64> = open.iter().map(|number| self.next_ordinal(*number)).collect();
        for number in &open {
            for kind in [Kind::Plain, Kind::Put] {
                self.stores.append(*number, kind, 2, 2, 40);
            }
        }
        self.settle_all(&open);
        for (number, before) in open.iter().zip(before) {
            // A store may be at its limit, and a view too.
            let is_taken = self.next_ordinal(*number) >= before + 4;
            assert!(is_taken || self.machine(*number).is_limited(), "a healed store takes no writes");
            self.end_node(*number);
            self.stores.machines[*number].crash(&mut self.stores.shared, |_, _| 0);
        }
        self.restart_all(&mut open);
        let repairs = open.iter().filter(|number| self.machine(**number).has_damaged_header()).count();
        self.stores.shared.coverage.add("healed: damaged headers", repairs as u64);
        let is_repaired = |number: &usize| self.machine(*number).is_writing() && !self.machine(*number).is_troubled();
        let repaired: Vec<usize> = open.iter().copied().filter(is_repaired).collect();
        open.iter().for_each(|number| self.stores.append(*number, Kind::Plain, 1, 1, 40));
        self.settle_all(&open);
        open.iter().for_each(|number| self.end(*number));
        let is_closed = |world: &World| open.iter().all(|number| !world.machine(*number).is_writing());
        assert!(self.run_while(DEADLINE, is_closed), "a store is not closed in {DEADLINE:?}");
        // One that is closed does nothing any more.
        self.run_for(DEADLINE);
        for number in &open {
            let Stores { machines, shared, .. } = &mut self.stores;
            machines[*number].kill(shared);
            machines[*number].open(shared, true);
        }
        self.settle_all(&open);
        let is_damaged = repaired.iter().any(|number| self.machine(*number).has_damaged_header());
        assert!(!is_damaged, "a damaged copy of a header is not repaired");
        open.iter().for_each(|number| self.kill(*number));
        self.coverage.add("healed: stores", open.len() as u64);
    }

    /// Ends these processes and starts them anew. Those whose stores are refused are left out from then on.
    fn restart_all(&mut self, numbers: &mut Vec<usize>) {
        for number in numbers.iter() {
            self.kill(*number);
            if *number < self.hosts.len() {
                self.start(*number);
            } else {
                self.stores.machines[*number].open(&mut self.stores.shared, false);
            }
        }
        self.settle_all(numbers);
        numbers.retain(|number| !self.machine(*number).is_refused());
    }

    /// Ends a process in order.
    fn end(&mut self, number: usize) {
        if number < self.hosts.len() {
            self.shut_down(number);
        } else {
            self.stores.machines[number].close(&mut self.stores.shared);
        }
    }

    fn machine(&self, number: usize) -> &Machine {
        &self.stores.machines[number]
    }

    fn next_ordinal(&self, number: usize) -> u64 {
        self.machine(number).store().map_or(0, Store::next_ordinal)
    }

    /// Opens a store anew, without a node. Returns whether it is open.
    pub fn reopen(&mut self, number: usize, read_only: bool) -> bool {
        self.kill(number);
        self.stores.machines[number].open(&mut self.stores.shared, read_only);
        self.settle_all(&[number]);
        !self.machine(number).is_refused()
    }

    /// Waits until everybody has what they asked for, or the machine is switched off.
    pub(crate) fn settle_or_halt(&mut self, number: usize) {
        self.run_while(DEADLINE, |world| world.machine(number).is_idle() || world.machine(number).is_halted());
    }

    /// Waits until everybody has what they asked of these stores.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn settle_all(&mut self, numbers: &[usize]) {
        let is_idle = |world: &World| numbers.iter().all(|number| world.machine(*number).is_idle());
        assert!(self.run_while(DEADLINE, is_idle), "somebody waits for a store for {DEADLINE:?}");
    }
}
