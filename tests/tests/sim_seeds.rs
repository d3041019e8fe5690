//! Many worlds, each made by a number: faults, then healing. See [`vine_tests::sim`].
//!
//! `VINE_SIM_SEED=n` runs that one, `VINE_SIM_SEEDS=n` that many, `VINE_SIM_FIRST=n` begins there,
//! `VINE_SIM_FILE=path` runs the script in a file, `VINE_SIM_QUICK=1` ends with the first seed that fails. With
//! `VINE_SIM_LOG=1` and `--nocapture` every datagram is shown.

use std::sync::Mutex;

use vine_tests::sim::{Coverage, Script, in_parallel};

/// Seeds by default: three minutes on two processors.
const SEEDS: u64 = 10_000;

/// Every so many seeds one runs twice.
const TWICE: u64 = 8;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 300;

/// So many failures are shrunk.
const SHRUNK: usize = 3;

/// What the seeds must reach: every kind of box, what nodes report of their paths, legs, checks and channels, and every
/// reason to drop something, but for those that no world here can come to:
///
/// - `key_exhausted` takes 2^28 packets under one key, or 2^36 forgeries;
/// - `handshake` takes a HelloAck whose bits were flipped on its way: too rare to be relied on;
/// - `not_ip` and `control_overflow` take a peer that has keys and does not speak as a node does;
/// - `nested_relay` likewise: what others wrap is `unknown_session` before;
/// - `relay_quota`, and a leg that ends by `quota`, take more channels than there are hosts, or a configured rate;
/// - a leg that ends as `idle` was given up by its ends long before the relay does, `unknown_channel` is said by none;
/// - a peer that goes down as `expired` has been unreachable for longer than that is waited for.
const SITUATIONS: &[&str] = &[
    "MSS clamped",
    "MTU raised",
    "NAT rebound",
    "NAT verdict of the peer: address_dependent",
    "NAT verdict of the peer: endpoint_independent",
    "NAT verdict of the peer: none",
    "NAT verdict: address_dependent",
    "NAT verdict: endpoint_independent",
    "NAT verdict: none",
    "NAT: double",
    "NAT: filtered",
    "NAT: hairpin",
    "NAT: mapping AddressAndPortDependent, filtering AddressAndPortDependent",
    "NAT: mapping AddressAndPortDependent, filtering AddressDependent",
    "NAT: mapping AddressAndPortDependent, filtering EndpointIndependent",
    "NAT: mapping AddressDependent, filtering AddressAndPortDependent",
    "NAT: mapping AddressDependent, filtering AddressDependent",
    "NAT: mapping AddressDependent, filtering EndpointIndependent",
    "NAT: mapping EndpointIndependent, filtering AddressAndPortDependent",
    "NAT: mapping EndpointIndependent, filtering AddressDependent",
    "NAT: mapping EndpointIndependent, filtering EndpointIndependent",
    "channel: complete",
    "channel: half",
    "check sent",
    "check: answered",
    "check: refused",
    "check: silent",
    "check: waiting",
    "cipher: AES-256-GCM",
    "cipher: ChaCha20-Poly1305",
    "cookie sent",
    "drop: authentication",
    "drop: channel_not_ready",
    "drop: foreign_place",
    "drop: hello_mac",
    "drop: hello_rate",
    "drop: malformed",
    "drop: no_session",
    "drop: peer_departed",
    "drop: queue_overflow",
    "drop: reassembly",
    "drop: relay_source",
    "drop: replay",
    "drop: too_large",
    "drop: unauthorized_peer",
    "drop: unauthorized_source",
    "drop: unknown_channel",
    "drop: unknown_route",
    "drop: unknown_session",
    "drop: unknown_type",
    "drop: unknown_version",
    "firewall: filtered",
    "fragment sent",
    "healed: carried",
    "healed: found",
    "healed: only carried",
    "healed: signaled",
    "hello replayed",
    "host told: packet too big",
    "last-known endpoint used",
    "link: corrupted",
    "link: duplicated",
    "link: lost",
    "link: queue overflow",
    "link: reordered",
    "link: too big",
    "packet mirrored",
    "path lost for another",
    "path switch: better_path",
    "path switch: direct to relay",
    "path switch: faster_path",
    "path switch: first_path",
    "path switch: nothing to direct",
    "path switch: nothing to relay",
    "path switch: nothing to signaling_then_direct",
    "path switch: path_lost",
    "path switch: peer_moved",
    "path switch: relay to direct",
    "path switch: relay to signaling_then_direct",
    "path switch: signaling_then_direct to relay",
    "path: direct lost",
    "path: direct suspect",
    "path: relay suspect",
    "path: relay usable",
    "path: signaling_then_direct suspect",
    "path: signaling_then_direct usable",
    "peer down: closed_by_peer",
    "peer down: removed",
    "peer down: unreachable",
    "ping reply",
    "relay leg ended: refused",
    "relay leg ended: unknown_peer",
    "relay leg ended: unreachable",
    "relay leg: asked",
    "relay leg: open",
    "relay leg: proven",
    "relay leg: refused",
    "relay: packet sent by one",
    "relay: passed on",
    "relay: refused",
    "send refused: too long",
    "send refused: unreachable",
    "sent by relay: Cookie",
    "sent by relay: Hello",
    "sent by relay: HelloAck",
    "sent by relay: HelloFinish",
    "sent by relay: sealed",
    "session failure",
    "session: crossed",
    "session: peer restarted",
    "session: rekey",
    "shutdown",
    "signal: candidate refused",
    "signal: carried",
    "signal: received",
    "signal: refused",
    "signal: sent",
    "trial: a path got narrow",
    "trial: a relay takes over",
    "trial: another family takes over",
    "trial: keys grew old",
    "trial: rested",
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
