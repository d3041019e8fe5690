//! What a node costs that nobody uses: heap and processor time for many idle peers.

use std::time::Duration;

use vine_tests::heap::{Counting, HeapUse};
use vine_tests::sim::{AuditedCrypto, HostSpec, NatKind, World};
use vine_tokio::Ring;

/// Idle peers of the node in the middle.
const PEERS: usize = 200;

/// As many as the limits are for.
const THOUSAND: usize = 1_000;

/// Bytes of heap that one of them may take.
const HEAP: i64 = 4 * 1024;

/// Of a processor's time a node with a thousand of them may take this.
const SHARE: f64 = 0.005;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Processor time of this thread so far.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is the time on a processor"))
}

/// One node behind a NAT with a session to each of `peers`, by the larger of the daemon's ciphers.
fn hub(peers: usize) -> World {
    let hub = HostSpec { nat: Some(NatKind::cone(true)), aes: true, ..HostSpec::with_peers(1..=peers) };
    let leaf = || HostSpec { finds: vec![], aes: true, ..HostSpec::with_peers([0]) };
    let hosts: Vec<HostSpec> = std::iter::once(hub).chain((0..peers).map(|_| leaf())).collect();
    let mut world = World::new(1, AuditedCrypto::of(Ring), hosts);
    for host in 0..world.hosts.len() {
        world.start(host);
    }
    world.run_for(Duration::from_secs(60));
    world
}

/// Bytes of heap that a node holds after an idle hour with so many peers, and the processor time that the world took.
fn hour(peers: usize) -> (i64, Duration) {
    let mut world = hub(peers);
    let start = cpu_time();
    world.run_for(Duration::from_secs(3_600));
    let took = cpu_time() - start;
    // The keys of an hour were changed; the former ones are kept for some minutes.
    world.run_for(Duration::from_secs(300));
    let confirmed = world.hosts[0].running().sessions().filter(|session| session.confirmed).count();
    assert_eq!(confirmed, peers);
    let before = HeapUse::of_this_thread().held;
    drop(world.hosts[0].node.take());
    (before - HeapUse::of_this_thread().held, took)
}

#[test]
fn an_idle_peer_takes_little_heap_and_next_to_no_time() {
    let ((few, _), (many, took)) = (hour(PEERS / 2), hour(PEERS));
    let each = (many - few) / (PEERS / 2) as i64;
    let heap = (many + each * (THOUSAND - PEERS) as i64) / THOUSAND as i64;
    // Of the whole world: the others and what is between them cost at least as much as the one.
    let took = took.as_secs_f64() * THOUSAND as f64 / PEERS as f64;
    println!("a peer more takes {each} bytes of heap, each of a thousand {heap}; they take {took:.2} s of an hour");
    assert!(heap <= HEAP, "{heap} bytes of heap a peer");
    assert!(took <= 3_600.0 * SHARE, "a thousand peers take {took} s of an hour");
}
