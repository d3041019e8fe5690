//! The third phase of a run, where nothing is lost any more: what a healed world is put to, one thing at a time.

use std::time::Duration;

use vine_core::Event;
use vine_core::node::PathView;
use vine_core::path::{Family, PathState, SwitchReason, Via};

use super::network::{Behaviour, Fate, Link, Record};
use super::op::{Traffic, Way};
use super::world::World;

/// How often a packet is sent while a path fails.
const EVERY: Duration = Duration::from_millis(20);

/// Beside three round trips a dead path takes packets for so long, and for the one that finds it and the one that finds
/// another.
const FAILOVER: Duration = Duration::from_millis(200 + 2 * 20);

/// So long a path is dead.
const DEAD: Duration = Duration::from_secs(5);

/// Within this time after it is whole again a path without a relay is taken.
const RETURN: Duration = Duration::from_secs(2);

/// Longer than keys are good for.
const LONG: Duration = Duration::from_secs(200);

/// Longer than any NAT here remembers.
const IDLE: Duration = Duration::from_secs(100);

/// The end of it, when everybody has come to rest.
const RESTED: Duration = Duration::from_secs(60);

/// What an idle pair sends is told as an average over this time, everything included.
const AVERAGED: Duration = Duration::from_secs(3600);

/// At most one datagram in this time keeps a NAT's mapping.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// Datagrams that a host sends each of its peers meanwhile, at most: one in 25 s, and the answer to another that is late.
const IDLE_DATAGRAMS: usize = 4;

/// Within this time after it packets arrive. What is mapped for a direction that only the other end uses is forgotten
/// meanwhile, so that a path may have to be found dead first.
const AWAKE: Duration = Duration::from_secs(1);

/// Within this time after packets of their size stopped to arrive, packets do again.
const SMALLER: Duration = Duration::from_secs(10);

/// Puts the world to some trial, by its seed. `pairs` are those who need no relay.
///
/// # Panics
/// Where it does not pass.
pub(super) fn run(world: &mut World, pairs: &[(usize, usize)], seed: u64) {
    match seed % 8 {
        4 => grow_old(world, pairs),
        6 => rest(world, pairs),
        _ => {}
    }
    let Some(&(a, b)) = pairs.get(world.rng.below(pairs.len().max(1) as u64) as usize) else { return };
    match seed % 8 {
        6 => narrow(world, a, b),
        _ => fail(world, a, b),
    }
}

/// Keys grow old and are replaced, and no packet is lost for it.
fn grow_old(world: &mut World, pairs: &[(usize, usize)]) {
    let every = Duration::from_millis(100);
    for &(a, b) in pairs {
        world.stream(a, b, every);
        world.stream(b, a, every);
    }
    world.run_for(Duration::from_secs(2));
    let since = world.now();
    world.run_for(LONG);
    let until = world.now();
    world.run_for(Duration::from_secs(1));
    for &(a, b) in pairs {
        let is_lost = |event: &Event| matches!(event, Event::SessionSwitched { why: SwitchReason::PathLost, .. });
        let moved = [a, b].iter().any(|host| world.events_since(*host, since).any(is_lost));
        for (from, to) in [(a, b), (b, a)] {
            let (arrived, sent) = world.ledger.between(from, to, since, until);
            // A NAT may forget a mapping that only the other end uses, whether another path takes over or the same one works
            // again, as the mapping comes back with a check: what is lost then is no fault of the keys.
            let forgets = moved || world.network.boxes_before(to).next().is_some();
            let all = arrived == sent || forgets && arrived * 100 >= sent * 98;
            assert!(all, "{arrived} of {sent} packets from host {from} to host {to} arrive while keys grow old");
        }
        assert!(world.network.audit.agree(a, b, until), "hosts {a} and {b} use keys of different handshakes");
    }
    world.end_streams();
    world.coverage.hit("trial: keys grew old");
}

/// Nobody sends for a while. Then what is sent arrives; not through a firewall, which no node can tell from an open road.
fn rest(world: &mut World, pairs: &[(usize, usize)]) {
    let is_open = |world: &World, host: usize| world.hosts[host].spec.firewall.is_none();
    let pairs: Vec<_> = pairs.iter().copied().filter(|&(a, b)| is_open(world, a) && is_open(world, b)).collect();
    world.end_streams();
    // What is under way by then is dealt with.
    world.run_for(IDLE - RESTED);
    let idle = world.now();
    world.run_for(RESTED);
    let peers = world.hosts.len() - 1;
    let sent_by = |world: &World, host: usize| {
        let until = world.now();
        // What the host has no route for never leaves it: it is a question to the kernel.
        let leaves = |record: &&Record| record.at < until && record.fate != Fate::Unsendable;
        world.sent_since(host, idle).filter(leaves).count()
    };
    // One may be about to fall due, and keys of an idle pair may be about to be changed.
    if (0..world.hosts.len()).any(|host| sent_by(world, host) > peers * IDLE_DATAGRAMS) {
        // The search for a path that a NAT has just forgotten may lie across the beginning. What counts is the average.
        world.run_for(AVERAGED - RESTED);
        let most = peers * (AVERAGED.as_secs() / KEEPALIVE.as_secs() + 2) as usize;
        for host in 0..world.hosts.len() {
            let sent = sent_by(world, host);
            assert!(sent <= most, "host {host} sends {sent} datagrams in {AVERAGED:?}, to nobody's use");
        }
    }
    let since = world.now();
    for &(a, b) in &pairs {
        world.stream(a, b, Duration::from_millis(100));
    }
    world.run_for(AWAKE);
    world.end_streams();
    for &(a, b) in &pairs {
        assert!(world.has_reached(a, b, since), "after a rest, nothing from host {a} reaches host {b} at once");
        world.send(b, a, Traffic::Udp4, 100, 1);
    }
    world.run_for(Duration::from_secs(5));
    world.coverage.add("trial: rested", pairs.len() as u64);
}

/// The family of the addresses by which a host reaches another, if it does.
fn family(world: &World, host: usize, peer: usize) -> Option<Family> {
    let why = world.hosts[host].running().why(&world.id(peer))?;
    let preferred = why.paths.iter().find(|path| path.preferred)?;
    preferred.via.direct().map(|path| Family::of(&path.remote))
}

/// Whether a host knows another way to a peer that works, beside those by addresses of `family`.
fn has_other(world: &World, host: usize, peer: usize, family: Family) -> bool {
    let why = world.hosts[host].running().why(&world.id(peer)).expect("the peer is allowed");
    why.paths.iter().filter(|path| path.state == PathState::Usable && !path.preferred).any(|path| match path.via {
        Via::Direct(path) => Family::of(&path.remote) != family,
        Via::Relay(_) => false,
    })
}

/// How many direct paths to a peer a host takes for usable, beside the one that it uses.
fn spare_paths(world: &World, host: usize, peer: usize) -> u32 {
    let why = world.hosts[host].running().why(&world.id(peer)).expect("the peer is allowed");
    let spare = |path: &&PathView| path.state == PathState::Usable && !path.preferred && path.via.direct().is_some();
    why.paths.iter().filter(spare).count() as u32
}

/// Whether a host and a peer have a path by a relay that works, and every such path will for a while.
fn has_relay(world: &World, host: usize, peer: usize) -> bool {
    let why = world.hosts[host].running().why(&world.id(peer)).expect("the peer is allowed");
    let relays = why.paths.iter().filter(|path| path.state == PathState::Usable).filter_map(|path| path.via.relay());
    let relays: Vec<_> =
        (0..world.hosts.len()).filter(|relay| relays.clone().any(|id| id == world.id(*relay))).collect();
    let is_kept = |relay: &usize| [host, peer].iter().all(|&end| keeps_ports(world, *relay, end));
    !relays.is_empty() && relays.iter().all(is_kept)
}

/// Whether what two send each other keeps open what both need. Between two NATs that both give another port for every
/// destination, each sends to a port that the other's datagrams do not come from: it is open until its NAT forgets it.
fn keeps_ports(world: &World, a: usize, b: usize) -> bool {
    let is_by_v4 = [(a, b), (b, a)].iter().any(|&(host, peer)| family(world, host, peer) == Some(Family::V4));
    let gives_many = |nat: usize| world.network.boxes[nat].kind.mapping == Behaviour::AddressAndPortDependent;
    !(is_by_v4 && [a, b].iter().all(|&host| world.network.boxes_before(host).any(gives_many)))
}

/// The round trip that a host measured.
fn round_trip(world: &World, host: usize, peer: usize) -> Duration {
    let why = world.hosts[host].running().why(&world.id(peer)).expect("the peer is allowed");
    why.paths.iter().filter_map(|path| path.rtt).max().unwrap_or_default()
}

/// The path that two use dies, in one direction or both; another takes over in time, and the first is taken again.
fn fail(world: &mut World, a: usize, b: usize) {
    world.end_streams();
    world.stream(a, b, EVERY);
    world.stream(b, a, EVERY);
    world.run_for(Duration::from_secs(8));
    let both = [(a, b), (b, a)];
    let (Some(of_a), Some(of_b)) = (family(world, a, b), family(world, b, a)) else { return };
    let by_family = of_a == of_b && both.iter().all(|&(host, peer)| has_other(world, host, peer, of_a));
    let by_relay = both.iter().all(|&(host, peer)| has_relay(world, host, peer));
    let way = match (by_family, by_relay, of_a) {
        (_, true, _) => Way::Both,
        (true, _, Family::V4) => Way::V4,
        (true, _, Family::V6) => Way::V6,
        _ => return,
    };
    world.coverage.hit(if by_relay { "trial: a relay takes over" } else { "trial: another family takes over" });
    let dead = [&both[..], &both[..1], &both[1..]][world.rng.below(3) as usize];
    let once = FAILOVER + 3 * round_trip(world, a, b).max(round_trip(world, b, a));
    // Where all direct paths die at once, each of the others may be tried first.
    let others = both.iter().map(|&(host, peer)| spare_paths(world, host, peer)).max().unwrap_or_default();
    let limit = if by_relay { once * (1 + others) } else { once };
    let start = world.now();
    dead.iter().for_each(|&(from, to)| world.set_cut(from, to, way, true));
    world.run_for(DEAD);
    let end = world.now();
    for (from, to) in both {
        let gap = world.ledger.longest_gap(from, to, start - EVERY, end - Duration::from_secs(1));
        assert!(
            gap <= limit,
            "nothing from host {from} to host {to} for {gap:?}, with {dead:?} cut; {limit:?} at most"
        );
    }
    dead.iter().for_each(|&(from, to)| world.set_cut(from, to, way, false));
    let is_back =
        |world: &World| both.iter().all(|&(host, peer)| !["relay", "none"].contains(&world.class(host, peer)));
    assert!(world.run_while(RETURN, is_back), "hosts {a} and {b} are not back from the relay");
    let back = world.now();
    world.run_for(Duration::from_secs(3));
    world.end_streams();
    let until = world.now();
    world.run_for(Duration::from_millis(500));
    for (from, to) in both {
        let (arrived, sent) = world.ledger.between(from, to, back, until);
        assert_eq!(arrived, sent, "packets from host {from} to host {to} arrive when the path is back");
    }
}

/// What two can send each other gets shorter, and nobody tells them.
fn narrow(world: &mut World, a: usize, b: usize) {
    let send = |world: &mut World, len: usize, duration: Duration| {
        let end = world.now() + duration;
        while world.now() < end {
            world.send(a, b, Traffic::Udp4, len, 1);
            world.run_for(Duration::from_millis(50));
        }
    };
    // Traffic of long packets alone makes the path suspect as often as it is proven.
    world.stream(a, b, Duration::from_millis(100));
    world.stream(b, a, Duration::from_millis(100));
    let cut = 1_240; // It may be cut, as it is no longer than what IPv6 carries everywhere.
    send(world, cut, Duration::from_secs(6));
    for (from, to) in [(a, b), (b, a)] {
        world.change_links(from, to, Way::Both, |link| Link { mtu: 1_300, ..link });
    }
    send(world, cut, SMALLER);
    let since = world.now();
    send(world, cut, Duration::from_secs(2));
    let until = world.now();
    // What may not be cut cannot arrive: the host is to send less.
    send(world, 1_360, Duration::from_millis(500));
    assert!(world.hosts[a].told >= Some(until), "nobody tells host {a} that its packets are too long");
    world.end_streams();
    world.run_for(Duration::from_secs(1));
    let (arrived, sent) = world.ledger.between(a, b, since, until);
    assert!(arrived * 10 >= sent * 9, "{arrived} of {sent} long packets from host {a} to host {b} arrive");
    world.coverage.hit("trial: a path got narrow");
}
