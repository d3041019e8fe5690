//! Logs of another machine, whole, in parts and forged: what is taken is taken once and as it was written, and all else is
//! refused by name. See [`vine_tests::disk`].
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use bytes::Bytes;
use vine_core::log::commit::HEADER_LEN;
use vine_core::log::{Commit, Record};
use vine_tests::disk::{Op, Setup};
use vine_tests::sim::World;

/// A world whose first machine has written two logs, and whose second one is open; and the records of the first.
fn world() -> (World, Vec<Record>) {
    let mut world = Setup { seed: 5, segment_kb: 16, max_kb: 0, view_kb: 0, deep: false }.world();
    let workload = "open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=2 count=2 len=150
        append at=0 kind=put writers=3 count=1 len=300
        wait us=3000
        close at=0
        wait us=3000
        open at=0 read_only=false
        wait us=3000
        append at=0 kind=put writers=2 count=1 len=60
        wait us=3000
        open at=1 read_only=false
        append at=1 kind=put writers=2 count=1 len=60
        wait us=3000";
    for line in workload.lines() {
        world.apply_to_stores(&line.trim().parse::<Op>().unwrap());
    }
    let records = world.stores.machines[0].records(&world.stores.shared.ledger);
    assert!(records.iter().filter(|record| matches!(record, Record::Genesis(_))).count() == 2, "{records:?}");
    (world, records)
}

/// Imports into the second machine, and says how often an import was refused for this reason.
fn refused(world: &mut World, records: Vec<Record>, why: &str) -> u64 {
    world.stores.machines[1].import(&mut world.stores.shared, records);
    world.settle_all(&[1]);
    world.stores.shared.coverage.times(&format!("import refused: {why}"))
}

/// How many ops the second machine has.
fn ops(world: &World) -> u64 {
    world.stores.machines[1].store().unwrap().next_ordinal()
}

#[test]
fn a_log_is_taken_once_and_survives() {
    let (mut world, records) = world();
    let own = ops(&world);
    let theirs = world.stores.machines[0].store().unwrap().next_ordinal();
    for _ in 0..2 {
        world.stores.machines[1].import(&mut world.stores.shared, records.clone());
        world.settle_all(&[1]);
        assert_eq!(ops(&world), own + theirs);
    }
    world.stores.machines[1].crash(&mut world.stores.shared, |_, _| 0);
    assert!(world.reopen(1, false));
    assert_eq!(ops(&world), own + theirs);
}

#[test]
fn a_log_without_its_predecessor_is_refused() {
    let (mut world, records) = world();
    let second = records.iter().rposition(|record| matches!(record, Record::Genesis(_))).unwrap();
    let before = ops(&world);
    assert_eq!(refused(&mut world, records[second..].to_vec(), "PredecessorMissing"), 1);
    assert_eq!(ops(&world), before);
}

#[test]
fn what_is_forged_or_out_of_order_is_refused_with_all_that_came_along() {
    let (mut world, records) = world();
    let before = ops(&world);
    let commits: Vec<usize> =
        (0..records.len()).filter(|number| matches!(records[*number], Record::Commit(_))).collect();
    for number in &commits {
        let Record::Commit(commit) = &records[*number] else { unreachable!("it was chosen as a commit") };
        let last = commit.bytes().len() - 1;
        // A bit of the signature, and one of the last op.
        for (at, why) in [(HEADER_LEN + 3, "BadSignature"), (last, "BadHash")] {
            let mut bytes = commit.bytes().to_vec();
            bytes[at] ^= 1;
            let mut forged = records.clone();
            forged[*number] = Record::Commit(Commit::decode(Bytes::from(bytes)).unwrap());
            // What follows a commit with another signature does not follow it any more.
            forged.truncate(number + 1);
            let times = world.stores.shared.coverage.times(&format!("import refused: {why}"));
            assert_eq!(refused(&mut world, forged, why), times + 1, "record {number}");
        }
    }
    let mut gap = records.clone();
    gap.remove(commits[0]);
    assert!(refused(&mut world, gap, "Gap") + refused(&mut world, Vec::new(), "PredecessorMissing") > 0);
    assert_eq!(refused(&mut world, records[1..].to_vec(), "UnknownLog"), 1);
    assert_eq!(ops(&world), before, "none of it is there");
}

/// Another author's clock is a day ahead: a write that follows one of theirs wins all the same.
#[test]
fn a_later_write_wins_whatever_the_clocks() {
    let (mut world, _) = world();
    let mut apply = |text: &str| {
        text.lines().for_each(|line| world.apply_to_stores(&line.trim().parse::<Op>().unwrap()));
    };
    apply(
        "clock at=0 ms=86400000\nappend at=0 kind=put writers=40 count=1 len=9\nwait us=200000\nimport from=0 to=1\nwait us=9000",
    );
    apply(
        "append at=1 kind=put writers=40 count=1 len=9\nappend at=1 kind=delete writers=9 count=1 len=0\nwait us=9000",
    );
    world.settle_all(&[1]);
    assert!(world.stores.shared.coverage.times("imported") > 0);
}
