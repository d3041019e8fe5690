//! The second phase of a run: faults end, and everybody who can reach somebody must do so soon, by the best way there is.

use std::time::Duration;

use vine_core::node::PeerState;
use vine_core::path::{Family, SwitchReason};
use vine_core::{Counters, Event, Instant};

use super::host::Host;
use super::network::{Link, Reach};
use super::op::{Op, Way};
use super::world::World;

/// Within this time after the last fault packets flow again, where nothing is lost any more.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The same, where something still is: two or three Hellos or answers in a row may be.
pub const LOSSY_DEADLINE: Duration = Duration::from_millis(4_500);

/// So much later they flow between those who need the help of another: they meet it first.
const HELPED: Duration = Duration::from_millis(1_500);

/// The same, where something is lost.
const LOSSY_HELPED: Duration = Duration::from_secs(3);

/// A path that was lost long ago is tried this often.
const STUCK: Duration = Duration::from_secs(35);

/// So much later, where a node slept or was told a wrong time: what it then measured of round trips makes it more patient
/// with a dead path than it would be, though not by more than this.
pub const AFTER_SLEEP: Duration = Duration::from_secs(2);

/// Times that a host may find a faster path to a peer once everybody reaches everybody.
const CALM: usize = 4;

/// How often everybody sends to everybody meanwhile.
const EVERY: Duration = Duration::from_millis(100);

/// What is left of the faults: of a thousand datagrams so many are lost.
const LOSS: u16 = 50;

/// Ends every fault (but for some loss, if `lossy`): hosts run, links carry, everybody allows everybody.
pub fn heal(world: &mut World, lossy: bool) {
    let count = world.hosts.len();
    let loss = if lossy { LOSS } else { 0 };
    world.end_streams();
    for from in 0..count {
        for to in 0..count {
            let delay = Duration::from_millis(5 + world.rng.below(35));
            let jitter = Duration::from_millis(2);
            world.network.set_link(from, to, Way::Both, Link { delay, jitter, loss, ..Link::default() });
        }
    }
    for host in 0..count {
        world.hoard(host, false);
        world.resume(host);
        world.stall(host, false);
        world.start(host);
        world.permit(host, world.hosts[host].spec.policy);
        world.reload(host, (0..count).filter(|peer| *peer != host));
    }
    // A node that was told a time ahead of the true one stands still until that has come.
    let ahead = |host: &Host| host.running().now().since(host.local(world.now()));
    let longest = world.hosts.iter().map(ahead).max().unwrap_or_default();
    world.run_for(longest);
    for (a, b) in pairs(count) {
        let a_finds_b = finds(world, a, b);
        let b_finds_a = finds(world, b, a);
        if !a_finds_b && !b_finds_a {
            // The operator of one of them looks the other one up.
            let (asks, for_whom) = if world.rng.below(2) == 0 { (a, b) } else { (b, a) };
            world.look_up(asks, for_whom, true);
        }
    }
}

/// How long after such faults the hosts may take to reach each other.
pub fn deadline<'a>(lossy: bool, ops: impl IntoIterator<Item = &'a Op>) -> Duration {
    let slept = |op: &Op| matches!(op, Op::Stall { on: true, .. } | Op::Timeout { off_us: 1.., .. });
    let deadline = if lossy { LOSSY_DEADLINE } else { DEADLINE };
    deadline + if ops.into_iter().any(slept) { AFTER_SLEEP } else { Duration::ZERO }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
}

/// Whether `from` is configured with an address at which `to` is.
fn finds(world: &World, from: usize, to: usize) -> bool {
    let known = world.hosts[from].endpoints.get(&to);
    known.is_some_and(|known| known.iter().any(|endpoint| world.network.leads_to(from, to, endpoint)))
}

/// What two hosts of a healed world can count on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Promise {
    /// One knows where the other is.
    Found,
    /// They can meet, with the help of one that both reach.
    Signaled,
    /// One that both reach carries their packets; perhaps not for long.
    Carried,
    /// The same, and nothing else can ever be.
    OnlyCarried,
    /// Nobody can help them.
    Nothing,
}

impl Promise {
    const fn name(self) -> &'static str {
        match self {
            Promise::Found => "found",
            Promise::Signaled => "signaled",
            Promise::Carried => "carried",
            Promise::OnlyCarried => "only carried",
            Promise::Nothing => "nothing",
        }
    }

    /// Whether a path between the two is proven, and nobody else is on it.
    const fn is_direct(self) -> bool {
        matches!(self, Promise::Found | Promise::Signaled)
    }
}

fn promise(world: &World, a: usize, b: usize) -> Promise {
    let finds_or_is_found = |one, other| finds(world, one, other) || finds(world, other, one);
    if finds_or_is_found(a, b) {
        return Promise::Found;
    }
    let others: Vec<usize> = (0..world.hosts.len()).filter(|host| ![a, b].contains(host)).collect();
    let helps = |host: &usize| finds_or_is_found(a, *host) && finds_or_is_found(b, *host);
    let helpers: Vec<usize> = others.iter().copied().filter(helps).collect();
    let policy = |host: usize| world.hosts[host].spec.policy;
    let carries = |host: &usize| world.hosts[*host].spec.relay && policy(*host).allow_relay;
    let carried = policy(a).allow_relay && policy(b).allow_relay && helpers.iter().any(carries);
    let signal = policy(a).allow_signaling_upgrade && policy(b).allow_signaling_upgrade;
    // Who does not signal does not say where else it can be reached: it may show one family of addresses alone.
    let signals = |host: &usize| policy(*host).allow_signaling_upgrade;
    let open: Vec<usize> = helpers.iter().copied().filter(signals).collect();
    // Who is told of a port may find another mapping there by now, where a NAT gives the same one again and again.
    let by_chance = |host| world.network.boxes_before(host).any(|nat| world.network.boxes[nat].kind.preserves_ports);
    // Who helps neither of the two by itself may have come to know them, and shows them where they are.
    match (world.network.reach(a, b, &open), world.network.reach_at_best(a, b, &others)) {
        (Reach::BothWays, _) if signal && !open.is_empty() => Promise::Signaled,
        (_, Reach::Neither) if carried && !(by_chance(a) || by_chance(b)) => Promise::OnlyCarried,
        _ if carried => Promise::Carried,
        _ => Promise::Nothing,
    }
}

/// Holds the healed world to what was promised: within `deadline` packets flow again, a little later also between those who
/// need others for it; and nobody stays on a relay who need not. Returns the pairs that need none.
///
/// # Panics
/// Where a promise is broken.
pub fn check(world: &mut World, deadline: Duration) -> Vec<(usize, usize)> {
    let count = world.hosts.len();
    let promises = pairs(count).map(|(a, b)| (a, b, promise(world, a, b)));
    let expected: Vec<_> = promises.filter(|(.., promise)| *promise != Promise::Nothing).collect();
    let started = world.now();
    for &(a, b, promise) in &expected {
        world.coverage.hit(format!("healed: {}", promise.name()));
        world.stream(a, b, EVERY);
        world.stream(b, a, EVERY);
    }
    world.run_for(deadline);
    check_reached(world, &expected, started, |promise| promise == Promise::Found);
    world.run_for(if deadline < LOSSY_DEADLINE { HELPED } else { LOSSY_HELPED });
    check_reached(world, &expected, started, |_| true);
    check_classes(world, &expected, STUCK);
    let settled = world.now();
    world.run_for(Duration::from_secs(2));
    for &(a, b, _) in &expected {
        check_state(world, a, b);
        check_state(world, b, a);
    }
    let stays = Duration::from_secs(if is_lossy(world) { 2 } else { 0 });
    check_classes(world, &expected, stays);
    world.end_streams();
    world.run_for(Duration::from_millis(500));
    for &(a, b, _) in &expected {
        check_flow(world, a, b, settled);
        check_flow(world, b, a, settled);
    }
    world.run_for(Duration::from_secs(20));
    for host in 0..count {
        check_calm(world, host, settled);
        check_counters(world, host);
    }
    expected.iter().filter(|(.., promise)| promise.is_direct()).map(|&(a, b, _)| (a, b)).collect()
}

fn check_reached(
    world: &World,
    expected: &[(usize, usize, Promise)],
    started: Instant,
    which: impl Fn(Promise) -> bool,
) {
    for &(a, b, promise) in expected.iter().filter(|(.., promise)| which(*promise)) {
        for (from, to) in [(a, b), (b, a)] {
            let took = world.now().since(started);
            let reached = world.has_reached(from, to, started);
            assert!(reached, "nothing from host {from} reaches host {to} in {took:?} ({promise:?})");
        }
    }
}

fn is_lossy(world: &World) -> bool {
    let links = pairs(world.hosts.len()).flat_map(|(a, b)| [(a, b, Family::V4), (a, b, Family::V6)]);
    links.into_iter().any(|(a, b, family)| world.network.link(a, b, family).loss > 0)
}

/// Everybody comes within `limit` to the class that is the best for them.
fn check_classes(world: &mut World, expected: &[(usize, usize, Promise)], limit: Duration) {
    let is_right = |world: &World, a: usize, b: usize, promise: Promise| {
        let classes = [world.class(a, b), world.class(b, a)];
        match promise {
            Promise::OnlyCarried => classes == ["relay", "relay"],
            _ if promise.is_direct() => classes.iter().all(|class| !["relay", "none"].contains(class)),
            _ => true,
        }
    };
    let all = |world: &World| expected.iter().all(|&(a, b, promise)| is_right(world, a, b, promise));
    if !world.run_while(limit, all) {
        let wrong = expected.iter().find(|(a, b, promise)| !is_right(world, *a, *b, *promise));
        let &(a, b, promise) = wrong.expect("not all are right");
        panic!("hosts {a} and {b} are {promise:?}, but say {}, {}", world.class(a, b), world.class(b, a));
    }
}

/// Nearly everything arrives by now. Where a twentieth is lost, of 20 packets more than eight are in one of some million
/// cases, but a path may be left for what looks like its end.
fn check_flow(world: &World, from: usize, to: usize, settled: Instant) {
    let (arrived, sent) = world.ledger.between(from, to, settled, settled + Duration::from_secs(2));
    let least = if is_lossy(world) { 6 } else { 7 };
    assert!(sent > 0 && arrived * 10 >= sent * least, "{arrived} of {sent} packets from host {from} reach host {to}");
}

/// Paths that differ by noise are not exchanged again and again.
fn check_calm(world: &World, host: usize, settled: Instant) {
    for peer in (0..world.hosts.len()).filter(|peer| *peer != host).map(|peer| world.id(peer)) {
        let is_faster = |event: &&Event| matches!(event, Event::SessionSwitched { peer: to, why: SwitchReason::Faster, .. } if *to == peer);
        let times = world.events_since(host, settled).filter(is_faster).count();
        assert!(times <= CALM, "host {host} finds a faster path {times} times");
    }
}

/// A host says that a peer is connected, by confirmed keys.
fn check_state(world: &mut World, host: usize, peer: usize) {
    let id = world.id(peer);
    assert!(world.is_up(host, peer), "host {host} has not reported host {peer} up");
    // A lost receipt makes a path suspect for a moment.
    let connected = world.run_while(Duration::from_secs(1), |world| state(world, host, peer) == PeerState::Connected);
    assert!(connected, "host {host} calls host {peer} {}", state(world, host, peer).name());
    let node = world.hosts[host].running();
    let session = node.sessions().find(|session| session.id == id).expect("there is a session");
    assert!(session.confirmed, "host {host} sends to host {peer} under keys that are not confirmed");
    assert!(session.path.is_some(), "host {host} has no path to host {peer}");
}

fn state(world: &World, host: usize, peer: usize) -> PeerState {
    let (node, id) = (world.hosts[host].running(), world.id(peer));
    node.peers().find(|view| view.id == id).expect("the peer is allowed").state
}

fn check_counters(world: &World, host: usize) {
    let machine = &world.hosts[host];
    let counters: &Counters = machine.running().counters();
    assert_eq!(counters.packets_received, machine.delivered, "host {host} counts packets that it did not deliver");
    assert!(counters.sessions_established as usize >= machine.met.len(), "host {host} miscounts sessions");
    assert_eq!(counters.packets_relayed, machine.deeds.forwarded, "host {host} miscounts what it passes on");
    let reported = (machine.deeds.switches, machine.deeds.losses);
    let counted = (counters.path_switches, counters.fallback_transitions);
    assert!(machine.deeds.hoarded || reported == counted, "host {host} counts {counted:?} switches, not {reported:?}");
    let (counted, relayed) = (counters.relay_usage, world.network.audit.relayed(host));
    assert!(counted <= relayed, "host {host} counts {counted} packets by relays, and sent {relayed}");
    let is_silent = counted == 0 && relayed > counters.packets_mirrored;
    assert!(!is_silent, "host {host} sent {relayed} packets by relays, and counts none");
    let allowed = machine.spec.policy.allow_relay && machine.policy.allow_relay;
    assert!(allowed || !world.uses_relays(host), "host {host} uses relays, which it may not");
}
