//! Many worlds, each made by a number: faults, then healing. See [`vine_tests::sim`].
//!
//! `VINE_SIM_SEED=n` runs that one, `VINE_SIM_SEEDS=n` that many, `VINE_SIM_FIRST=n` begins there,
//! `VINE_SIM_FILE=path` runs the script in a file, `VINE_SIM_QUICK=1` ends with the first seed that fails. With `VINE_SIM_LOG=1` and `--nocapture` every datagram is shown.

use std::sync::Mutex;

use vine_tests::sim::{Coverage, Script, in_parallel};

/// Seeds by default.
const SEEDS: u64 = 600;

/// Every so many seeds one runs twice.
const TWICE: u64 = 8;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 300;

/// So many failures are shrunk.
const SHRUNK: usize = 3;

/// What the seeds must reach.
const SITUATIONS: &[&str] = &[
    "cipher: AES-256-GCM",
    "cipher: ChaCha20-Poly1305",
    "cookie sent",
    "drop: authentication",
    "drop: hello_mac",
    "drop: hello_rate",
    "drop: malformed",
    "drop: no_session",
    "drop: peer_departed",
    "drop: queue_overflow",
    "drop: replay",
    "drop: unauthorized_peer",
    "drop: unauthorized_source",
    "drop: unknown_route",
    "drop: unknown_session",
    "drop: unknown_type",
    "drop: unknown_version",
    "firewall: filtered",
    "healed: found",
    "healed: only carried",
    "healed: signaled",
    "hello replayed",
    "link: corrupted",
    "link: duplicated",
    "link: lost",
    "link: queue overflow",
    "link: reordered",
    "link: too big",
    "NAT rebound",
    "NAT: filtered",
    "NAT: hairpin",
    "path switch: faster_path",
    "path switch: first_path",
    "path switch: path_lost",
    "peer down: closed_by_peer",
    "peer down: removed",
    "peer down: unreachable",
    "ping reply",
    "session failure",
    "session: crossed",
    "session: peer restarted",
    "session: rekey",
    "shutdown",
    "unauthorized peer",
    "woken up",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn seeds_keep_every_rule_and_heal() {
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
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    for (seed, why) in &failures {
        println!("VINE_SIM_SEED={seed}: {why}");
    }
    for (seed, why) in failures.iter().take(if is_quick { 0 } else { SHRUNK }) {
        let script = Script::from_seed(*seed).shrink(SHRINK_RUNS);
        println!("VINE_SIM_SEED={seed}: {why}\nas short as it could be made:\n{script}");
    }
    assert!(failures.is_empty(), "{} of {count} seeds fail; see above how to repeat them", failures.len());
    let coverage = coverage.into_inner().unwrap();
    println!("{count} seeds reached:\n{coverage}");
    if count >= SEEDS {
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
