//! Many worlds of whole machines, each made by a number: faults of network, hosts and disks, then healing. See
//! [`vine_tests::whole`]. What can be asked of it by the environment: [`vine_tests::script`].

use vine_tests::script::try_seeds;
use vine_tests::whole::Setup;

/// Seeds by default: twenty seconds on two processors.
const SEEDS: u64 = 1_000;

/// What the seeds must reach: what concerns both halves, and that either is at work.
const SITUATIONS: &[&str] = &[
    "NAT rebound",
    "a backup was put back",
    "a bit turned over",
    "a damaged range is told",
    "append failed: NoRoom",
    "append failed: Stopped",
    "closing cut short by a start",
    "commit of several writers",
    "drop: replay",
    "event: Closed",
    "event: Durable",
    "event: Imported",
    "event: Opened",
    "event: Read",
    "event: Refused",
    "event: Stopped",
    "finding: Corrupt",
    "finding: Cut",
    "found more than was acknowledged",
    "healed: carried",
    "healed: found",
    "healed: signaled",
    "healed: stores",
    "imported",
    "killed with appends waiting",
    "path switch: path_lost",
    "peer down: unreachable",
    "power lost: appends wait and packets are in flight",
    "session: peer restarted",
    "session: rekey",
    "shutdown closes the store",
    "stall: the disk waited for its process",
    "the same state after reopening",
    "woken up",
];

#[test]
fn seeds_keep_every_promise_of_both_halves() {
    try_seeds::<Setup>(SEEDS, SITUATIONS);
}
