//! The simulator's stores on real files: every operation is done on a simulated disk and on the host's, and must give the
//! same. See [`vine_tests::disk`]. What can be asked of it by the environment: [`vine_tests::script`].

use vine_tests::disk::OnFiles;
use vine_tests::script::try_seeds;

/// Seeds by default.
const SEEDS: u64 = 400;

/// What the seeds must reach.
const SITUATIONS: &[&str] = &[
    "a backup was put back",
    "a bit turned over",
    "a damaged range is told",
    "a program finds the same state",
    "append failed: NoRoom",
    "append failed: Stopped",
    "cloned",
    "commit of several writers",
    "event: Closed",
    "event: Durable",
    "event: Imported",
    "event: Opened",
    "event: Read",
    "event: Refused",
    "event: Stopped",
    "found more than was acknowledged",
    "killed with appends waiting",
    "the same state after reopening",
];

#[test]
fn seeds_keep_every_promise_on_real_files() {
    try_seeds::<OnFiles>(SEEDS, SITUATIONS);
}
