//! Every crash of a small workload on the first machine: before every effect, with every way in which the disk may be left, and once more while
//! the store recovers from it.

use std::collections::BTreeMap;

use vine_core::log::store::Store;

use super::device::Unsynced;
use super::dice::Dice;
use super::op::Op;
use super::script::Setup;
use super::stores::Stores;
use crate::sim::World;

/// Up to so many unsynced things every combination of their states is tried.
const EXHAUSTIVE: usize = 6;
/// Beyond that, so many samples.
const SAMPLES: usize = 64;
/// After a crash within the recovery, so many samples.
const NESTED_SAMPLES: usize = 4;

/// What was tried.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Crashes of the workload, each with another disk left.
    pub crashes: u64,
    /// Crashes of the recoveries.
    pub nested: u64,
}

/// Effects of a workload that nothing interrupts.
///
/// # Panics
/// Where a rule is broken.
pub fn effects_of(setup: &Setup, workload: &[Op]) -> u64 {
    let mut world = setup.world();
    workload.iter().for_each(|op| world.apply_to_stores(op));
    world.stores.machines[0].disk.effects()
}

/// Tries every crash before effect `at` of a workload.
///
/// # Panics
/// Where a rule is broken; the text says in which case.
pub fn crash_at(setup: &Setup, workload: &[Op], at: u64) -> Tally {
    let mut world = setup.world();
    world.stores.machines[0].halt_at = Some(at);
    for op in workload {
        world.apply_to_stores(op);
        if world.stores.machines[0].is_halted() {
            break;
        }
    }
    let Stores { machines, shared, .. } = &mut world.stores;
    machines.iter_mut().for_each(|machine| machine.kill(shared));
    let mut tally = Tally::default();
    for kept in choices(&world.stores.machines[0].disk.unsynced(), SAMPLES, at) {
        let mut crashed = world.fork();
        crash(&mut crashed, &kept);
        tally.crashes += 1;
        tally.nested += crash_again(&crashed, &format!("effect {at}, {kept:?}"));
        proven(crashed, &format!("effect {at}, {kept:?}"));
    }
    tally
}

/// Crashes once more, before every effect of the recovery.
fn crash_again(crashed: &World, case: &str) -> u64 {
    let mut count = 0;
    for effect in 0.. {
        let mut world = crashed.fork();
        let disk = &world.stores.machines[0].disk;
        let at = disk.effects() + effect;
        world.stores.machines[0].halt_at = Some(at);
        world.stores.machines[0].open(&mut world.stores.shared, false);
        world.settle_or_halt(0);
        let halted = world.stores.machines[0].is_halted();
        world.stores.machines[0].kill(&mut world.stores.shared);
        if !halted {
            return count;
        }
        for kept in choices(&world.stores.machines[0].disk.unsynced(), NESTED_SAMPLES, at) {
            let mut again = world.fork();
            crash(&mut again, &kept);
            count += 1;
            let case = format!("{case}, effect {effect} of the recovery, {kept:?}");
            assert!(again.reopen(0, false), "{case}: the store cannot be opened");
            again.stores.machines[0].kill(&mut again.stores.shared);
        }
    }
    count
}

/// The store opens with all that it ever acknowledged, takes writes, and keeps them.
fn proven(mut world: World, case: &str) {
    assert!(world.reopen(0, false), "{case}: the store cannot be opened");
    let next = |world: &World| world.stores.machines[0].store().map_or(0, Store::next_ordinal);
    let before = next(&world);
    for op in ["append at=0 kind=plain writers=2 count=1 len=20", "append at=0 kind=put writers=1 count=1 len=20"] {
        world.apply_to_stores(&op.parse().expect("an op"));
    }
    world.settle_all(&[0]);
    assert_eq!(next(&world), before + 3, "{case}: the store takes no writes");
    world.stores.machines[0].crash(&mut world.stores.shared, |_, _| 0);
    assert!(world.reopen(0, false), "{case}: the store cannot be opened again");
}

fn crash(world: &mut World, kept: &BTreeMap<Unsynced, usize>) {
    world.stores.machines[0].crash(&mut world.stores.shared, |what, _| kept.get(&what).copied().unwrap_or(0));
}

/// Ways to leave what is unsynced: all there are, or samples of them, nothing and everything among these.
fn choices(unsynced: &[(Unsynced, usize)], samples: usize, seed: u64) -> Vec<BTreeMap<Unsynced, usize>> {
    let combinations: usize = unsynced.iter().map(|(_, states)| *states).fold(1, usize::saturating_mul);
    let is_small = unsynced.len() <= EXHAUSTIVE && samples >= SAMPLES || combinations <= samples;
    let nth = |mut number: usize| {
        let states = unsynced.iter().map(|(what, states)| {
            let kept = number % states;
            number /= states;
            (*what, kept)
        });
        states.collect()
    };
    if is_small {
        return (0..combinations).map(nth).collect();
    }
    let mut dice = Dice::new(seed);
    let mut sample = |number: usize| -> BTreeMap<Unsynced, usize> {
        let kept = |(what, states): &(Unsynced, usize)| {
            let kept = match number {
                0 => 0,
                1 => states - 1,
                _ => dice.below(*states as u64) as usize,
            };
            (*what, kept)
        };
        unsynced.iter().map(kept).collect()
    };
    (0..samples).map(&mut sample).collect()
}
