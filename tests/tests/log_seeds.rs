//! Many stores over disks that fail, each made by a number: faults, then healing. See [`vine_tests::disk`].
//!
//! `VINE_SIM_SEED=n` runs that one, `VINE_SIM_SEEDS=n` that many, `VINE_SIM_FIRST=n` begins there, `VINE_SIM_FILE=path` runs
//! the script in a file, `VINE_SIM_QUICK=1` ends with the first seed that fails. With `VINE_SIM_LOG=1` and `--nocapture`
//! every op and every effect is shown.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::sync::Mutex;

use vine_tests::disk::Script;
use vine_tests::sim::{Coverage, in_parallel};

/// Seeds by default: two minutes on two processors.
const SEEDS: u64 = 10_000;

/// Every so many seeds one runs twice.
const TWICE: u64 = 8;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 300;

/// So many failures are shrunk.
const SHRUNK: usize = 3;

/// What the seeds must reach: everything that a store can say, but for an import that comes too late and an end that a lie took,
/// which are too rare to be relied on.
const SITUATIONS: &[&str] = &[
    "a backup was put back",
    "a bit turned over",
    "a damaged range is told",
    "append failed: NoRoom",
    "append failed: Stopped",
    "append refused: Key",
    "append refused: NotOpen",
    "append refused: Stopped",
    "append refused: TooLarge",
    "cloned",
    "commit of several writers",
    "event: Closed",
    "event: Durable",
    "event: Failed",
    "event: Imported",
    "event: Opened",
    "event: Read",
    "event: Refused",
    "event: Stopped",
    "finding: Corrupt",
    "finding: Cut",
    "finding: Header",
    "finding: HeaderCopy",
    "finding: Inconsistent",
    "found more than was acknowledged",
    "imported",
    "imported again",
    "killed with appends waiting",
    "the end is lost and reported",
    "the same state after reopening",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn seeds_keep_every_promise() {
    if let Ok(file) = std::env::var("VINE_SIM_FILE") {
        let script: Script = std::fs::read_to_string(file).unwrap().parse().unwrap();
        show(&script);
        return;
    }
    if let Some(seed) = number("VINE_SIM_SEED") {
        show(&Script::from_seed(seed));
        return;
    }
    let count = number("VINE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("VINE_SIM_FIRST").unwrap_or(0);
    let coverage = Mutex::new(Coverage::default());
    let failures = Mutex::new(Vec::new());
    let is_quick = std::env::var_os("VINE_SIM_QUICK").is_some();
    in_parallel(first..first + count, |seed| {
        if is_quick && !failures.lock().unwrap().is_empty() {
            return;
        }
        match try_seed(seed) {
            Ok(reached) => coverage.lock().unwrap().merge(&reached),
            Err(why) => failures.lock().unwrap().push((seed, why)),
        }
    });
    let (coverage, mut failures) = (coverage.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{count} seeds reached:\n{coverage}");
    failures.sort();
    for (seed, why) in &failures {
        println!("VINE_SIM_SEED={seed}: {why}");
    }
    for (seed, why) in failures.iter().take(if is_quick { 0 } else { SHRUNK }) {
        let script = Script::from_seed(*seed).shrink(SHRINK_RUNS);
        println!("VINE_SIM_SEED={seed}: {why}\nas short as it could be made:\n{script}");
    }
    assert!(failures.is_empty(), "{} of {count} seeds fail; see above how to repeat them", failures.len());
    if count >= SEEDS && !is_quick {
        assert_eq!(coverage.missing(SITUATIONS), [""; 0], "situations that no seed reached");
    }
}

/// Runs one script, and says what it is and what came of it.
fn show(script: &Script) {
    println!("{script}");
    let outcome = script.run();
    println!("{}{} {} inputs and outputs", outcome.coverage, outcome.digest, outcome.entries);
}

/// Runs a seed, some of them twice.
fn try_seed(seed: u64) -> Result<Coverage, String> {
    let script = Script::from_seed(seed);
    let first = script.try_run()?;
    if seed.is_multiple_of(TWICE) {
        let second = script.try_run()?;
        if first.digest != second.digest {
            return Err(format!("two runs differ: {} and {}", first.digest, second.digest));
        }
    }
    Ok(first.coverage)
}
