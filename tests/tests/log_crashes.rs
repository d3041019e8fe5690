//! Every crash of small workloads, exhaustively: see [`vine_tests::disk::crashes`].
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::sync::Mutex;

use vine_tests::disk::crashes::{Tally, crash_at, effects_of};
use vine_tests::disk::{Op, Setup};
use vine_tests::sim::in_parallel;

/// Tries every crash of a workload of at most `most` effects.
fn every_crash(segment_kb: u32, workload: &str, most: u64) {
    let setup = Setup { seed: 1, segment_kb, max_kb: 0, view_kb: 0, deep: false };
    let ops: Vec<Op> = workload.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| l.parse().unwrap()).collect();
    let effects = effects_of(&setup, &ops);
    assert!((most / 4..=most).contains(&effects), "{effects} effects");
    let total = Mutex::new(Tally::default());
    in_parallel(0..effects + 1, |at| {
        let tally = crash_at(&setup, &ops, at);
        let mut total = total.lock().unwrap();
        total.crashes += tally.crashes;
        total.nested += tally.nested;
    });
    let total = total.into_inner().unwrap();
    println!("{effects} effects, {total:?}");
    assert!(total.crashes > effects && total.nested > total.crashes, "{total:?}");
}

/// One segment, one writer after the other, closed in order and opened again.
#[test]
fn of_appends_one_by_one() {
    every_crash(
        64,
        "open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=40
        wait us=3000
        append at=0 kind=put writers=1 count=1 len=900
        wait us=3000
        append at=0 kind=plain writers=3 count=2 len=30
        wait us=200000
        append at=0 kind=delete writers=1 count=1 len=0
        wait us=3000
        close at=0
        wait us=3000
        open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=2 count=1 len=1200
        wait us=200000",
        60,
    );
}

/// Segments of one block: every few writes begin another one.
#[test]
fn of_many_segments() {
    every_crash(
        4,
        "open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=1500
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=1400
        wait us=3000
        append at=0 kind=put writers=2 count=1 len=700
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=2500
        wait us=3000",
        60,
    );
}

/// A process that is killed again and again, so that openings follow on the cache of the one before.
#[test]
fn of_lives_that_end_at_once() {
    every_crash(
        32,
        "open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=600
        wait us=150
        kill at=0
        open at=0 read_only=false
        wait us=3000
        append at=0 kind=put writers=1 count=1 len=50
        wait us=3000
        kill at=0
        open at=0 read_only=false
        wait us=3000
        append at=0 kind=plain writers=2 count=1 len=700
        wait us=3000",
        60,
    );
}

/// Many frames in one write, for all of which there is one sync.
#[test]
fn of_an_import() {
    every_crash(
        16,
        "open at=1 read_only=false
        wait us=3000
        append at=1 kind=plain writers=1 count=1 len=600
        wait us=3000
        append at=1 kind=put writers=1 count=1 len=700
        wait us=3000
        append at=1 kind=plain writers=1 count=1 len=600
        wait us=3000
        open at=0 read_only=false
        wait us=3000
        append at=0 kind=put writers=1 count=1 len=200
        wait us=3000
        import from=1 to=0
        wait us=3000
        append at=0 kind=plain writers=1 count=1 len=200
        wait us=3000",
        60,
    );
}
