//! Two hosts behind NATs of every kind of RFC 4787, and a third one that both know. See [`vine_tests::sim`].
//!
//! Who can meet is not said here: [`vine_tests::sim::Network::reach`] tries it. `VINE_SIM_SEEDS=n` runs every pair of kinds
//! so often.

use std::sync::Mutex;
use std::time::Duration;

use vine_core::{Command, Event, Policy};
use vine_tests::sim::{
    AuditedCrypto, Behaviour, BoxSpec, HostSpec, Link, NatKind, Reach, Topology, Way, World, in_parallel,
};

/// The host that both others know; it carries packets for others.
const RELAY: usize = 0;

/// Runs of every pair of kinds, by default.
const SEEDS: u64 = 24;

/// What is left of the faults: of a thousand datagrams so many are lost.
const LOSS: u16 = 50;

/// Of so many runs with losses one may be late.
const RUNS_PER_LATE: usize = 1_000;

/// Who can meet has met within this time.
const PUNCHED: Duration = Duration::from_secs(3);

/// Packets get through within this time, by whatever way.
const REACHED: Duration = Duration::from_millis(1_500);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn open() -> HostSpec {
    HostSpec { finds: vec![RELAY], ..HostSpec::with_peers([]) }
}

fn behind(kind: NatKind) -> HostSpec {
    HostSpec { nat: Some(kind), ..open() }
}

/// Everybody allows everybody, the first carries for the others, and the others know where it is.
fn allowing_all(mut topology: Topology) -> Topology {
    let count = topology.hosts.len();
    for (index, host) in topology.hosts.iter_mut().enumerate() {
        host.peers = (0..count).filter(|other| *other != index).collect();
        host.finds.retain(|other| *other != index);
    }
    topology.hosts[RELAY].relay = true;
    topology
}

fn among(hosts: Vec<HostSpec>) -> Topology {
    allowing_all(Topology::from(hosts))
}

/// The world a moment after its start, when all have met the first; from now on links lose `loss` of a thousand datagrams.
fn settled(seed: u64, topology: Topology, loss: u16) -> World {
    let mut world = World::started(seed, topology);
    world.run_for(secs(2));
    let count = world.hosts.len();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        world.change_links(from, to, Way::Both, |link| Link { loss, ..link });
    }
    world
}

fn talk(world: &mut World, a: usize, b: usize) {
    world.stream(a, b, millis(20));
    world.stream(b, a, millis(20));
}

fn classes(world: &World, a: usize, b: usize) -> [&'static str; 2] {
    [world.class(a, b), world.class(b, a)]
}

/// Whether both ends send to each other by a path that nobody else carries.
fn is_direct(world: &World, a: usize, b: usize) -> bool {
    classes(world, a, b).iter().all(|class| matches!(*class, "direct" | "signaling_then_direct"))
}

fn is_relayed(world: &World, a: usize, b: usize) -> bool {
    classes(world, a, b) == ["relay", "relay"]
}

fn kinds() -> Vec<NatKind> {
    let of_mapping = |mapping| Behaviour::ALL.map(|filtering| NatKind::new(mapping, filtering));
    Behaviour::ALL.into_iter().flat_map(of_mapping).collect()
}

/// Every pair of kinds; the same twice is one.
fn pairs_of_kinds() -> Vec<(NatKind, NatKind)> {
    let kinds = kinds();
    let from = |first: usize| kinds[first..].iter().map(|second| (kinds[first], *second)).collect::<Vec<_>>();
    (0..kinds.len()).flat_map(from).collect()
}

/// What became of one run of the matrix.
struct Run {
    what: String,
    /// It took longer than it may.
    late: bool,
}

/// Two hosts behind NATs of these kinds begin to talk.
fn meet(seed: u64, first: NatKind, second: NatKind) -> Run {
    let mut world = settled(seed, among(vec![open(), behind(first), behind(second)]), LOSS);
    let theory = world.network.reach(1, 2, &[RELAY]);
    let start = world.now();
    talk(&mut world, 1, 2);
    let met = |world: &World| world.has_reached(1, 2, start) && world.has_reached(2, 1, start);
    let reached = world.run_while(REACHED, met);
    world.run_until(start + PUNCHED);
    let what = format!("seed {seed}: {first:?} and {second:?}, {theory:?}: {:?}", classes(&world, 1, 2));
    let as_expected = |world: &World| match theory {
        Reach::BothWays => is_direct(world, 1, 2),
        Reach::OneWay => true,
        Reach::Neither => is_relayed(world, 1, 2),
    };
    let late = !reached || !as_expected(&world);
    // However unlucky the first seconds were, it does not stay so.
    assert!(world.run_while(secs(60), as_expected), "{what}, and then for ever");
    let since = world.now();
    world.run_for(secs(2));
    for (from, to) in [(1, 2), (2, 1)] {
        let (arrived, sent) = world.ledger.between(from, to, since, since + millis(1_500));
        assert!(arrived * 10 >= sent * 7, "{what}: {arrived} of {sent} packets arrive");
    }
    Run { what, late }
}

#[test]
fn every_pair_of_kinds_meets_as_theory_says() {
    let seeds = std::env::var("VINE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let pairs = pairs_of_kinds();
    let late = Mutex::new(Vec::new());
    let runs = seeds * pairs.len() as u64;
    in_parallel(0..runs, |number| {
        let (first, second) = pairs[number as usize % pairs.len()];
        let run = meet(number, first, second);
        if run.late {
            late.lock().unwrap().push(run.what);
        }
    });
    let late = late.into_inner().unwrap();
    let allowed = runs as usize / RUNS_PER_LATE + 1;
    assert!(late.len() <= allowed, "{} of {runs} runs are late:\n{}", late.len(), late.join("\n"));
}

#[test]
fn who_is_in_the_open_is_reached_by_everybody() {
    for kind in kinds() {
        let mut world = settled(1, among(vec![open(), open(), behind(kind)]), 0);
        talk(&mut world, 1, 2);
        world.run_for(PUNCHED);
        assert!(is_direct(&world, 1, 2), "{kind:?}: {:?}", classes(&world, 1, 2));
    }
}

#[test]
fn a_configured_address_needs_no_signaling() {
    let inside = HostSpec { finds: vec![RELAY, 1], ..behind(NatKind::symmetric()) };
    let mut world = settled(2, among(vec![open(), open(), inside]), 0);
    talk(&mut world, 1, 2);
    world.run_for(secs(1));
    assert_eq!(classes(&world, 1, 2), ["direct", "direct"]);
}

#[test]
fn an_address_that_was_signaled_is_called_so() {
    let home = NatKind::cone(true);
    let mut world = settled(3, among(vec![open(), behind(home), behind(home)]), 0);
    talk(&mut world, 1, 2);
    world.run_for(PUNCHED);
    assert!(classes(&world, 1, 2).contains(&"signaling_then_direct"), "{:?}", classes(&world, 1, 2));
    assert!(is_direct(&world, 1, 2));
}

/// Two hosts behind one box, or behind boxes of their own in it.
fn under_one_roof(carrier: NatKind, own: Option<NatKind>) -> Topology {
    let inside = || HostSpec { nat: own, behind: Some(0), ..open() };
    let boxes = vec![BoxSpec { kind: carrier, behind: None }];
    allowing_all(Topology { boxes, hosts: vec![open(), inside(), inside()] })
}

#[test]
fn two_behind_one_nat_meet_behind_it() {
    for hairpin in [false, true] {
        for carrier in kinds() {
            let mut world = settled(4, under_one_roof(NatKind { hairpin, ..carrier }, None), 0);
            talk(&mut world, 1, 2);
            world.run_for(PUNCHED);
            assert!(is_direct(&world, 1, 2), "{carrier:?}: {:?}", classes(&world, 1, 2));
        }
    }
}

#[test]
fn two_nats_behind_one_need_a_hairpin() {
    for hairpin in [false, true] {
        let carrier = NatKind { hairpin, ..NatKind::cone(true) };
        let mut world = settled(5, under_one_roof(carrier, Some(NatKind::cone(true))), 0);
        talk(&mut world, 1, 2);
        world.run_for(PUNCHED);
        let as_expected = if hairpin { is_direct(&world, 1, 2) } else { is_relayed(&world, 1, 2) };
        assert!(as_expected, "hairpin {hairpin}: {:?}", classes(&world, 1, 2));
    }
}

#[test]
fn a_nat_behind_a_nat_is_as_the_stricter_of_them() {
    for outer in kinds() {
        let boxes = vec![BoxSpec { kind: outer, behind: None }];
        let deep = HostSpec { behind: Some(0), ..behind(NatKind::cone(true)) };
        let hosts = vec![open(), deep, behind(NatKind::cone(true))];
        let mut world = settled(6, allowing_all(Topology { boxes, hosts }), 0);
        let theory = world.network.reach(1, 2, &[RELAY]);
        talk(&mut world, 1, 2);
        world.run_for(PUNCHED);
        match theory {
            Reach::BothWays => assert!(is_direct(&world, 1, 2), "{outer:?}: {:?}", classes(&world, 1, 2)),
            Reach::OneWay => {}
            Reach::Neither => assert!(is_relayed(&world, 1, 2), "{outer:?}: {:?}", classes(&world, 1, 2)),
        }
    }
}

#[test]
fn firewalls_of_ipv6_open_for_each_other() {
    let strict = Some(Behaviour::AddressAndPortDependent);
    for second in [strict, None] {
        let inside = |firewall| HostSpec { v6: true, firewall, ..behind(NatKind::symmetric()) };
        let relay = HostSpec { v6: true, ..open() };
        let mut world = settled(7, among(vec![relay, inside(strict), inside(second)]), 0);
        talk(&mut world, 1, 2);
        world.run_for(PUNCHED);
        assert!(is_direct(&world, 1, 2), "{second:?}: {:?}", classes(&world, 1, 2));
    }
}

#[test]
fn signaling_needs_no_relay() {
    let home = NatKind::cone(true);
    for (kind, meets) in [(home, true), (NatKind::symmetric(), false)] {
        let mut topology = among(vec![open(), behind(kind), behind(home)]);
        topology.hosts[RELAY].relay = false;
        let mut world = settled(8, topology, 0);
        talk(&mut world, 1, 2);
        world.run_for(secs(6));
        assert_eq!(is_direct(&world, 1, 2), meets, "{:?}", classes(&world, 1, 2));
        assert_eq!(world.is_up(1, 2) && world.is_up(2, 1), meets);
        assert!(meets || !world.has_reached(1, 2, world.hosts[1].events[0].0), "nobody carries it");
    }
}

#[test]
fn a_helper_that_was_away_for_long_helps_at_once() {
    for relay in [true, false] {
        let mut topology = among(vec![open(), behind(NatKind::cone(true)), behind(NatKind::cone(true))]);
        topology.hosts[RELAY].relay = relay;
        for was_there in [true, false] {
            let mut world = World::new(9, AuditedCrypto::stub(), topology.clone());
            (1..=2).for_each(|host| world.start(host));
            if was_there {
                world.start(RELAY);
                world.run_for(secs(2));
                world.crash(RELAY);
            }
            talk(&mut world, 1, 2);
            world.run_for(secs(333));
            world.start(RELAY);
            let met = |world: &World| is_direct(world, 1, 2);
            assert!(world.run_while(secs(6), met), "relay {relay}, {was_there}: {:?}", classes(&world, 1, 2));
        }
    }
}

#[test]
fn who_permits_no_relay_gets_none() {
    for forbids in 0..3 {
        let symmetric = NatKind::symmetric();
        let mut topology = among(vec![open(), behind(symmetric), behind(symmetric)]);
        topology.hosts[forbids].policy = Policy { allow_relay: false, ..Policy::default() };
        let mut world = settled(9, topology, 0);
        talk(&mut world, 1, 2);
        let start = world.now();
        world.run_for(secs(10));
        assert!(!world.has_reached(1, 2, start) && !world.has_reached(2, 1, start), "host {forbids} forbids it");
        assert!(!world.is_up(1, 2) && !world.is_up(2, 1));
        assert!(world.is_up(1, RELAY) && world.is_up(2, RELAY), "nobody else is in trouble");
    }
}

#[test]
fn who_permits_no_signaling_stays_on_the_relay() {
    for forbids in [1, 2] {
        let home = NatKind::cone(true);
        let mut topology = among(vec![open(), behind(home), behind(home)]);
        topology.hosts[forbids].policy = Policy { allow_signaling_upgrade: false, ..Policy::default() };
        let mut world = settled(10, topology, 0);
        talk(&mut world, 1, 2);
        world.run_for(secs(5));
        assert!(is_relayed(&world, 1, 2), "host {forbids} forbids it: {:?}", classes(&world, 1, 2));
    }
}

#[test]
fn a_nat_that_forgets_costs_little_after_punching() {
    let home = NatKind::cone(true);
    let mut world = settled(11, among(vec![open(), behind(home), behind(home)]), 0);
    talk(&mut world, 1, 2);
    world.run_for(secs(5));
    assert!(is_direct(&world, 1, 2));
    for forgets in [1, 2, 1] {
        let start = world.now();
        world.network.rebind(forgets);
        world.run_for(secs(4));
        for (from, to) in [(1, 2), (2, 1)] {
            let gap = world.ledger.longest_gap(from, to, start, start + secs(3));
            assert!(gap <= millis(800), "host {forgets}'s: nothing from host {from} for {gap:?}");
        }
        assert!(is_direct(&world, 1, 2), "{:?}", classes(&world, 1, 2));
    }
}

#[test]
fn a_host_that_is_carried_elsewhere_gets_what_is_possible_there() {
    let boxes = [NatKind::cone(true), NatKind::symmetric()].map(|kind| BoxSpec { kind, behind: None }).to_vec();
    let hosts = vec![open(), HostSpec { behind: Some(0), ..open() }, behind(NatKind::cone(true))];
    let mut world = settled(12, allowing_all(Topology { boxes, hosts }), 0);
    talk(&mut world, 1, 2);
    world.run_for(secs(5));
    assert!(is_direct(&world, 1, 2));
    for told in [true, false] {
        for (place, direct) in [(Some(1), false), (None, true), (Some(1), false), (Some(0), true)] {
            let start = world.now();
            world.resettle(1, place, told);
            let limit = if told { REACHED } else { secs(3) };
            let met = |world: &World| world.has_reached(1, 2, start) && world.has_reached(2, 1, start);
            assert!(world.run_while(limit, met), "to {place:?}, told {told}: nothing gets through");
            let as_expected = |world: &World| if direct { is_direct(world, 1, 2) } else { is_relayed(world, 1, 2) };
            assert!(world.run_while(secs(5), as_expected), "to {place:?}, told {told}: {:?}", classes(&world, 1, 2));
            world.run_for(secs(2));
            assert!(as_expected(&world), "to {place:?}, told {told}, and later: {:?}", classes(&world, 1, 2));
        }
    }
}

/// Hosts 1 and 2, which need a relay and talk: host 0 is one of 120 ms, host 3 one of 20.
fn with_two_relays() -> World {
    let symmetric = NatKind::symmetric();
    let knows_both = |kind| HostSpec { finds: vec![0, 3], ..behind(kind) };
    let mut topology = among(vec![open(), knows_both(symmetric), knows_both(symmetric), open()]);
    topology.hosts[3].relay = true;
    let mut world = World::started(13, topology);
    for end in [1, 2] {
        for (from, to) in [(end, 0), (0, end)] {
            world.change_links(from, to, Way::Both, |link| Link { delay: millis(60), ..link });
        }
    }
    talk(&mut world, 1, 2);
    world.run_for(secs(10));
    world
}

/// Datagrams with data that host 1 sent by a relay in the last second.
fn datagrams(world: &World, via: usize) -> usize {
    let since = world.now() - secs(1);
    world.sent_since(1, since).filter(|record| record.to == Some(via) && record.len > 200).count()
}

#[test]
fn the_nearer_relay_is_chosen_and_the_other_one_takes_over() {
    let mut world = with_two_relays();
    assert!(is_relayed(&world, 1, 2));
    assert!(datagrams(&world, 3) >= 40 && datagrams(&world, 0) <= 5, "the one with 20 ms, not the one with 120 ms");
    let start = world.now();
    world.crash(3);
    world.run_for(secs(5));
    let gap = world.ledger.longest_gap(1, 2, start, start + secs(4));
    assert!(gap <= millis(800), "{gap:?}");
    assert!(datagrams(&world, 0) >= 40);
    world.start(3);
    world.run_for(secs(60));
    assert!(datagrams(&world, 3) >= 40, "it is the better one again");
}

#[test]
fn a_relay_that_says_goodbye_is_left_at_once() {
    let mut world = with_two_relays();
    assert!(datagrams(&world, 3) >= 40);
    let start = world.now();
    world.shut_down(3);
    world.run_for(secs(2));
    for (from, to) in [(1, 2), (2, 1)] {
        let gap = world.ledger.longest_gap(from, to, start, start + secs(1));
        // One way by the other relay is 50 ms longer.
        assert!(gap <= millis(130), "nothing from host {from} for {gap:?}");
    }
    assert!(datagrams(&world, 0) >= 40);
    world.shut_down(0);
    world.run_for(millis(150));
    assert_eq!(classes(&world, 1, 2), ["none", "none"], "nobody carries, and nobody says so");
}

#[test]
fn an_idle_pair_sends_next_to_nothing() {
    let home = NatKind::cone(true);
    for (kind, what) in [(home, "direct"), (NatKind::symmetric(), "relay")] {
        let mut world = settled(14, among(vec![open(), behind(kind), behind(home)]), 0);
        talk(&mut world, 1, 2);
        world.run_for(secs(5));
        world.end_streams();
        world.run_for(secs(60));
        let start = world.now();
        world.run_for(secs(3_600));
        for host in [1, 2] {
            // One pair with the other end, one with the relay.
            let sent = world.sent_since(host, start).count();
            assert!(sent <= 2 * 3_600 / 25, "{what}: host {host} sends {sent} datagrams in an hour");
        }
    }
}

#[test]
fn meeting_changes_no_keys() {
    let home = NatKind::cone(true);
    let mut world = settled(15, among(vec![open(), behind(home), behind(home)]), 0);
    talk(&mut world, 1, 2);
    world.run_for(secs(5));
    let with_other = |host: usize| {
        let other = world.id(3 - host);
        let is = |event: &&Event| matches!(event, Event::SessionEstablished { peer, .. } if *peer == other);
        world.events_since(host, vine_core::Instant::ORIGIN).filter(is).count()
    };
    assert!(is_direct(&world, 1, 2));
    assert!(with_other(1) <= 2 && with_other(2) <= 2, "at most the Hellos crossed");
}

#[test]
fn who_pings_a_relayed_pair_has_a_better_path_sought() {
    let home = NatKind::cone(true);
    let mut world = settled(16, among(vec![open(), behind(home), behind(home)]), 0);
    talk(&mut world, 1, 2);
    world.run_for(secs(5));
    world.set_cut(1, 2, Way::Both, true);
    world.set_cut(2, 1, Way::Both, true);
    world.run_for(secs(5));
    world.end_streams();
    world.run_for(secs(60));
    world.set_cut(1, 2, Way::Both, false);
    world.set_cut(2, 1, Way::Both, false);
    world.run_for(secs(60));
    assert!(is_relayed(&world, 1, 2), "nobody uses the pair");
    let peer = world.id(2);
    for token in 0..5 {
        world.command(1, Command::Ping { peer, token }).unwrap();
        world.run_for(secs(1));
    }
    assert_eq!(world.class(1, 2), "signaling_then_direct", "by which it asks now");
}
