//! Many stores over disks that fail, each made by a number: faults, then healing. See [`vine_tests::disk`].
//! What can be asked of it by the environment: [`vine_tests::script`].

use vine_tests::disk::Setup;
use vine_tests::script::try_seeds;

/// Seeds by default: two minutes on two processors.
const SEEDS: u64 = 10_000;

/// What the seeds must reach: everything that a store can say, but for an import that comes too late and an end that a lie took,
/// which are too rare to be relied on.
const SITUATIONS: &[&str] = &[
    "a backup was put back",
    "a bit turned over",
    "a damaged range is told",
    "append failed: NoRoom",
    "append failed: Stopped",
    "append failed: Unknown",
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
    "healed: damaged headers",
    "imported",
    "imported again",
    "killed with appends waiting",
    "the end is lost and reported",
    "the same state after reopening",
];

#[test]
fn seeds_keep_every_promise() {
    try_seeds::<Setup>(SEEDS, SITUATIONS);
}
