//! The vocabulary of everything that can happen to stores and the disks under them.
//!
//! Every op is legal in every state: machines are counted modulo the number there is, places on a disk modulo what is written
//! there, and what makes no sense at the moment (to close a store that is closed) does nothing. So any list of ops can be cut
//! and reordered, which is what shrinking does. The text form is that of [`sim`](crate::sim).

use std::ops::Range;

use proptest::prelude::*;

use super::device::Fault;

words! {
    /// What an append writes.
    Kind {
        /// Opaque ops.
        Plain = "plain",
        /// A key gets a value.
        Put = "put",
        /// A key is deleted.
        Delete = "delete",
    }
}

ops! {
    /// Time passes.
    Wait = "wait" {
        /// Microseconds.
        us: u64,
    }
    /// Writers append, each at once.
    Append = "append" {
        /// Which machine.
        at: u8,
        /// What.
        kind: Kind,
        /// How many writers.
        writers: u8,
        /// Ops of each; one for keys.
        count: u8,
        /// Bytes of each op.
        len: u32,
    }
    /// Somebody reads from a place on, another one than those who follow.
    Read = "read" {
        /// Which machine.
        at: u8,
        /// From where, modulo what there is and a little more.
        from: u16,
        /// At most so many bytes.
        bytes: u32,
    }
    /// The store is closed in order.
    Close = "close" {
        /// Which machine.
        at: u8,
    }
    /// A store that is not open is opened.
    Open = "open" {
        /// Which machine.
        at: u8,
        /// Only for reading.
        read_only: bool,
    }
    /// The process ends. What it wrote is in the cache.
    Kill = "kill" {
        /// Which machine.
        at: u8,
    }
    /// The power goes.
    Crash = "crash" {
        /// Which machine.
        at: u8,
    }
    /// A fault befalls an operation.
    Fault = "fault" {
        /// Which machine.
        at: u8,
        /// What happens.
        fault: Fault,
        /// After so many operations.
        after: u8,
    }
    /// The disk has so much room left.
    Full = "full" {
        /// Which machine.
        at: u8,
        /// Thousands of bytes; 65,535 for as many as there are.
        kbytes: u16,
    }
    /// Nothing can be written any more, or again.
    Protect = "protect" {
        /// Which machine.
        at: u8,
        /// Whether it begins.
        on: bool,
    }
    /// Nothing works any more, or again.
    Break = "break" {
        /// Which machine.
        at: u8,
        /// Whether it begins.
        on: bool,
    }
    /// What is clean leaves the cache.
    Evict = "evict" {
        /// Which machine.
        at: u8,
    }
    /// A bit on the disk turns over.
    Rot = "rot" {
        /// Which machine.
        at: u8,
        /// Which sector of those that hold something.
        sector: u16,
        /// Which bit of it.
        bit: u16,
    }
    /// All files are copied to a safe place.
    Backup = "backup" {
        /// Which machine.
        at: u8,
    }
    /// The copy is put back.
    Restore = "restore" {
        /// Which machine.
        at: u8,
    }
    /// The first machine is copied, with its identity and disk, to the last one.
    Clone = "clone" {}
    /// What one machine has read of its log is imported by another.
    Import = "import" {
        /// From which machine.
        from: u8,
        /// Into which.
        to: u8,
    }
    /// The wall clock is set.
    Clock = "clock" {
        /// Which machine.
        at: u8,
        /// How far it is off.
        ms: i64,
    }
    /// Operations of the disk take so long from now on.
    Slow = "slow" {
        /// Which machine.
        at: u8,
        /// Microseconds, up to which each takes a random part.
        us: u32,
    }
}

/// What a list of ops is meant to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// A disk that keeps its promises: crashes, errors that it admits, a full disk.
    Honest,
    /// One that does not: it rots, lies and loses.
    Dishonest,
    /// Operators: backups, clones, imports.
    Copies,
}

impl Profile {
    /// Every one.
    pub const ALL: &[Profile] = &[Profile::Honest, Profile::Dishonest, Profile::Copies];
}

/// Any op, as likely as `profile` makes it.
pub fn any_op(profile: Profile) -> BoxedStrategy<Op> {
    any_op_on(profile, if profile == Profile::Copies { 0..3 } else { 0..1 })
}

/// The same on these machines.
pub fn any_op_on(profile: Profile, machines: Range<u8>) -> BoxedStrategy<Op> {
    let at = machines;
    match profile {
        Profile::Honest => any_honest(at, 5).boxed(),
        Profile::Dishonest => prop_oneof![8 => any_honest(at.clone(), 1), 1 => any_lie(at)].boxed(),
        Profile::Copies => prop_oneof![5 => any_honest(at.clone(), 1), 1 => any_copy(at)].boxed(),
    }
}

/// What happens on disks that keep their promises; `faults` says how often something goes wrong.
fn any_honest(machines: Range<u8>, faults: u32) -> impl Strategy<Value = Op> {
    let at = move || machines.clone();
    let wait =
        prop_oneof![4 => 0u64..2_000, 4 => 2_000u64..50_000, 3 => 50_000u64..300_000, 1 => 300_000u64..3_000_000];
    let us = prop_oneof![1 => Just(0u32), 3 => 1u32..2_000, 1 => 2_000u32..80_000];
    let kinds = [Fault::Io, Fault::Full, Fault::Partial, Fault::SyncFails, Fault::ReadFails];
    let fault = (at(), prop::sample::select(kinds.to_vec()), 0u8..30);
    prop_oneof![
        24 => wait.prop_map(|us| Op::Wait { us }),
        34 => any_append(at()),
        4 => (at(), any::<u16>(), 1u32..100_000).prop_map(|(at, from, bytes)| Op::Read { at, from, bytes }),
        3 => at().prop_map(|at| Op::Close { at }),
        9 => (at(), prop::bool::weighted(0.1)).prop_map(|(at, read_only)| Op::Open { at, read_only }),
        4 => at().prop_map(|at| Op::Kill { at }),
        faults => at().prop_map(|at| Op::Crash { at }),
        faults => fault.prop_map(|(at, fault, after)| Op::Fault { at, fault, after }),
        2 => (at(), prop_oneof![Just(u16::MAX), 0u16..300]).prop_map(|(at, kbytes)| Op::Full { at, kbytes }),
        1 => (at(), prop::bool::weighted(0.4)).prop_map(|(at, on)| Op::Protect { at, on }),
        1 => (at(), prop::bool::weighted(0.4)).prop_map(|(at, on)| Op::Break { at, on }),
        2 => at().prop_map(|at| Op::Evict { at }),
        2 => (at(), us).prop_map(|(at, us)| Op::Slow { at, us }),
        1 => (at(), -100_000_000i64..100_000_000).prop_map(|(at, ms)| Op::Clock { at, ms }),
    ]
}

fn any_lie(machines: Range<u8>) -> impl Strategy<Value = Op> {
    let at = move || machines.clone();
    let fault = (at(), prop::sample::select(vec![Fault::SyncLies, Fault::WriteLost, Fault::WriteAstray]), 0u8..30);
    prop_oneof![
        fault.prop_map(|(at, fault, after)| Op::Fault { at, fault, after }),
        (at(), any::<u16>(), any::<u16>()).prop_map(|(at, sector, bit)| Op::Rot { at, sector, bit }),
    ]
}

fn any_copy(machines: Range<u8>) -> impl Strategy<Value = Op> {
    let at = move || machines.clone();
    prop_oneof![
        1 => at().prop_map(|at| Op::Backup { at }),
        1 => at().prop_map(|at| Op::Restore { at }),
        1 => Just(Op::Clone {}),
        2 => (at(), at()).prop_map(|(from, to)| Op::Import { from, to }),
    ]
}

fn any_append(at: Range<u8>) -> impl Strategy<Value = Op> {
    let kind = prop_oneof![3 => Just(Kind::Plain), 3 => Just(Kind::Put), 1 => Just(Kind::Delete)];
    let count = prop_oneof![4 => 1u8..4, 1 => 4u8..40];
    let len = prop_oneof![8 => 16u32..300, 3 => 300u32..4_000, 1 => 4_000u32..70_000];
    (at, kind, prop_oneof![4 => 1u8..3, 1 => 3u8..20], count, len)
        .prop_map(|(at, kind, writers, count, len)| Op::Append { at, kind, writers, count, len })
}

/// A list of up to `max` ops.
pub fn any_ops(profile: Profile, max: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(any_op(profile), 1..=max)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(op in prop::sample::select(Profile::ALL).prop_flat_map(any_op)) {
            prop_assert_eq!(op.to_string().parse::<Op>(), Ok(op));
        }
    }
}
