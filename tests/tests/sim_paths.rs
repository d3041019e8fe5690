//! How a session stays while addresses change and links fail. See [`vine_tests::sim`].

use std::time::Duration;

use vine_core::path::Family;
use vine_core::wire::EnvelopeType::{Cookie, Hello, HelloAck};
use vine_core::{DownReason, Event};
use vine_tests::sim::{Behaviour, BoxSpec, HostSpec, Link, NatKind, PORT, Topology, Traffic, Way, World, ghost};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A pair that talks; the caller knows where the called is, and not the other way round.
fn talking(seed: u64) -> World {
    let called = HostSpec { finds: vec![], ..HostSpec::with_peers([0]) };
    let mut world = World::started(seed, vec![HostSpec::with_peers([1]), called]);
    world.time_to_meet(0, 1, secs(1));
    world.run_for(secs(5));
    world
}

#[test]
fn a_host_that_moves_is_found_again() {
    for moves in [0, 1] {
        for port_only in [false, true] {
            for told in [false, true] {
                let mut world = World::of(2, 1);
                world.run_for(secs(1));
                world.stream(0, 1, millis(20));
                world.stream(1, 0, millis(20));
                world.run_for(secs(5));
                let start = world.now();
                world.roam(moves, port_only, told);
                let took = world.time_to_meet(0, 1, secs(2));
                world.run_for(secs(2));
                let rekeyed = |event: &Event| matches!(event, Event::SessionEstablished { .. });
                let kept = !world.events_since(0, start).any(rekeyed);
                assert!(kept || (!told && !port_only), "host {moves} moves, port {port_only}, told {told}: new keys");
                assert!(world.is_up(0, 1) && world.is_up(1, 0));
                // Who is told, or may simply go on sending from the new port, needs no timeout.
                let limit = if told || port_only { millis(500) } else { millis(1_900) };
                assert!(took <= limit, "host {moves} moves, port {port_only}, told {told}: {took:?}");
            }
        }
    }
}

#[test]
fn a_host_that_moves_keeps_its_session_and_says_no_hello() {
    let mut world = talking(2);
    world.stream(0, 1, millis(20));
    world.run_for(secs(1));
    let start = world.now();
    world.roam(0, false, true);
    world.run_for(secs(3));
    for host in [0, 1] {
        let kinds = world.kinds_since(host, start);
        assert!(!kinds.contains(&Hello) && !kinds.contains(&HelloAck), "host {host}");
    }
    let switched = |event: &Event| matches!(event, Event::SessionSwitched { .. });
    assert!(world.events_since(1, start).any(switched), "host 1 sends to the new address");
    let (arrived, sent) = world.ledger.between(0, 1, start, start + secs(2));
    assert!(arrived + 2 >= sent, "{arrived} of {sent}: nothing is lost by moving");
}

#[test]
fn a_nat_that_forgets_costs_little() {
    for restricted in [false, true] {
        let inside = HostSpec { nat: Some(NatKind::cone(restricted)), ..HostSpec::with_peers([1]) };
        let outside = HostSpec { finds: vec![], ..HostSpec::with_peers([0]) };
        let mut world = World::started(3, vec![inside, outside]);
        world.time_to_meet(0, 1, secs(1));
        world.stream(0, 1, millis(20));
        world.stream(1, 0, millis(20));
        world.run_for(secs(5));
        world.network.rebind(0);
        let took = world.time_to_meet(0, 1, secs(2));
        assert!(took <= millis(800), "restricted {restricted}: {took:?}");
    }
}

#[test]
fn an_attacker_who_forwards_from_elsewhere_gets_no_data() {
    let mut world = talking(11);
    world.stream(1, 0, millis(20));
    world.stream(0, 1, millis(20));
    world.run_for(secs(1));
    // What host 0 sends does not arrive; the attacker carries it to host 1 from an address of its own, for a while.
    world.set_cut(0, 1, Way::Both, true);
    let to = world.path_between(0, 1).local.expect("hosts have addresses");
    let (start, mut forwarded) = (world.now(), 0);
    for _ in 0..300 {
        world.run_for(millis(10));
        for record in world.sent_since(0, start).skip(forwarded).map(|record| record.len).collect::<Vec<_>>() {
            let seen = world.network.captured.iter().rev().find(|seen| seen.bytes.len() == record);
            if let Some(seen) = seen.cloned() {
                world.network.inject(world.now(), ghost(Family::V4), (to, PORT).into(), seen.bytes);
            }
            forwarded += 1;
        }
    }
    let (to_ghost, from_ghost) = world.network.ghost_bytes;
    assert!(from_ghost > 5_000, "{from_ghost}");
    assert!(to_ghost > 0 && to_ghost <= 3 * from_ghost, "it is asked whether it answers: {to_ghost}");
    // The network itself panics where data goes there.
    world.set_cut(0, 1, Way::Both, false);
    assert!(world.time_to_meet(0, 1, secs(2)) <= millis(1_500));
}

#[test]
fn who_forwards_one_small_envelope_gets_no_more_than_three_times_its_bytes() {
    let mut world = talking(12);
    let to = world.path_between(0, 1).local.expect("hosts have addresses");
    world.set_cut(0, 1, Way::Both, true);
    let start = world.now();
    world.send(1, 0, Traffic::Udp4, 100, 1);
    world.run_for(secs(1));
    let receipt = world.sent_since(0, start).map(|record| record.len).min().expect("it is receipted");
    let seen = world.network.captured.iter().rev().find(|seen| seen.bytes.len() == receipt).cloned();
    let bytes = seen.expect("the network sees everything").bytes;
    // Four Pings would be more.
    assert!(bytes.len() < 50, "{}", bytes.len());
    world.network.inject(world.now(), ghost(Family::V4), (to, PORT).into(), bytes);
    world.run_for(secs(5));
    let (to_ghost, from_ghost) = world.network.ghost_bytes;
    assert!(to_ghost > 0 && to_ghost <= 3 * from_ghost, "{to_ghost} bytes for {from_ghost}");
}

#[test]
fn keepalives_hold_a_nat_open() {
    let inside = HostSpec { nat: Some(NatKind::cone(true)), ..HostSpec::with_peers([1]) };
    let outside = HostSpec { finds: vec![], ..HostSpec::with_peers([0]) };
    let mut world = World::started(4, vec![inside, outside]);
    world.tell_addresses(0);
    world.tell_addresses(1);
    world.time_to_meet(0, 1, secs(1));
    world.run_for(secs(1800));
    let mark = world.now();
    world.send(1, 0, Traffic::Udp4, 100, 1);
    world.run_for(millis(15));
    assert!(world.has_reached(1, 0, mark), "from outside to inside, after half an hour");
}

#[test]
fn what_works_one_way_does_not_work() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::of(2, 5);
        world.set_cut(from, to, Way::Both, true);
        for host in [0, 1] {
            world.stream(host, 1 - host, millis(100));
        }
        world.run_for(secs(30));
        assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
        assert!(world.hosts.iter().all(|host| host.running().sessions().count() == 0));
        world.set_cut(from, to, Way::Both, false);
        assert!(world.time_to_meet(0, 1, secs(2)) <= millis(1_000));
    }
}

#[test]
fn a_direction_that_fails_takes_the_peer_down_on_the_side_that_sends_into_it() {
    let mut world = World::of(2, 6);
    world.run_for(secs(1));
    world.stream(0, 1, millis(100));
    world.stream(1, 0, millis(100));
    world.run_for(secs(2));
    let start = world.now();
    world.set_cut(0, 1, Way::Both, true);
    world.run_for(secs(10));
    let down = |of: usize| Event::PeerDown { peer: world.id(of), why: DownReason::Unreachable };
    assert!(world.events_since(0, start).any(|event| *event == down(1)));
    assert!(world.events_since(1, start).any(|event| *event == down(0)), "its packets get no receipts either");
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    world.set_cut(0, 1, Way::Both, false);
    assert!(world.time_to_meet(0, 1, secs(2)) <= millis(1_000));
    world.run_for(secs(1));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
}

#[test]
fn silence_leads_to_a_hello_after_a_second_and_to_down_after_five() {
    let mut world = talking(7);
    world.set_cut(1, 0, Way::Both, true);
    let start = world.now();
    world.send(0, 1, Traffic::Udp4, 100, 1);
    world.stream(0, 1, millis(100));
    world.run_for(secs(8));
    let first_hello = world.sent_since(0, start).find(|r| r.header.is_some_and(|header| header.kind() == Hello));
    let after = first_hello.expect("a Hello was said").at.since(start);
    assert!((millis(1_000)..=millis(1_050)).contains(&after), "{after:?}");
    let down = Event::PeerDown { peer: world.id(1), why: DownReason::Unreachable };
    let at = world.hosts[0].events.iter().find(|(at, event)| *at >= start && *event == down).expect("it is down").0;
    assert!((millis(5_000)..=millis(5_100)).contains(&at.since(start)), "{:?}", at.since(start));
}

#[test]
fn a_silent_peer_that_nothing_is_sent_to_is_not_doubted() {
    let mut world = talking(8);
    world.set_cut(1, 0, Way::Both, true);
    let start = world.now();
    world.run_for(secs(20));
    assert_eq!(world.events_since(0, start).count(), 0);
    assert!(world.kinds_since(0, start).iter().all(|kind| ![Hello, Cookie].contains(kind)));
}

#[test]
fn a_host_that_slept_is_back_at_once() {
    let mut world = World::of(2, 9);
    world.stream(0, 1, millis(50));
    world.stream(1, 0, millis(50));
    world.run_for(secs(5));
    for asleep in [secs(2), secs(60), secs(400)] {
        world.stall(0, true);
        world.run_for(asleep);
        world.stall(0, false);
        world.tell_addresses(0);
        let took = world.time_to_meet(0, 1, secs(2));
        assert!(took <= millis(1_200), "after {asleep:?}: {took:?}");
        world.stream(0, 1, millis(50));
        world.stream(1, 0, millis(50));
        world.run_for(secs(5));
    }
}

#[test]
fn addresses_that_lead_to_ever_new_ones_cost_little() {
    // Each answer to an address that is new opens a mapping that is new, and the other end lets it in.
    let loose = NatKind::new(Behaviour::AddressAndPortDependent, Behaviour::EndpointIndependent);
    let boxes = (0..2).map(|_| BoxSpec { kind: loose, behind: None }).collect();
    let hosts = vec![HostSpec::with_peers([1]), HostSpec::with_peers([0])];
    let mut world = World::started(16, Topology { boxes, hosts });
    world.time_to_meet(0, 1, secs(1));
    for host in [0, 1] {
        for other in [0, 1] {
            world.stream(other, 1 - other, millis(100));
        }
        world.resettle(host, Some(host), true);
        world.run_for(secs(2));
    }
    let start = world.now();
    world.run_for(secs(10));
    for host in [0, 1] {
        let sent = world.sent_since(host, start).count();
        assert!(sent <= 1_000, "host {host} sends {sent} datagrams in ten seconds");
    }
}

#[test]
fn a_host_that_sleeps_hears_nothing_and_is_back_at_once() {
    for asleep in [secs(2), secs(60), secs(3_600)] {
        let inside = HostSpec { nat: Some(NatKind::cone(true)), ..HostSpec::with_peers([1]) };
        let outside = HostSpec { finds: vec![], ..HostSpec::with_peers([0]) };
        let mut world = World::started(13, vec![inside, outside]);
        world.stream(1, 0, millis(50));
        world.time_to_meet(0, 1, secs(1));
        world.run_for(secs(5));
        // What it does at the very moment that it falls asleep it has done.
        world.run_for(Duration::from_nanos(1));
        let start = world.now();
        world.suspend(0);
        world.stream(1, 0, millis(50));
        world.run_for(asleep);
        assert_eq!(world.sent_since(0, start).count(), 0);
        assert!(!world.has_reached(1, 0, start), "it sleeps");
        world.resume(0);
        let took = world.time_to_meet(0, 1, secs(2));
        assert!(took <= millis(1_200), "after {asleep:?}: {took:?}");
    }
}

#[test]
fn what_is_longer_than_a_link_carries_is_lost_and_nothing_else() {
    let mut world = World::of(2, 14);
    world.time_to_meet(0, 1, secs(1));
    world.run_for(secs(1));
    world.change_links(0, 1, Way::Both, |link| Link { mtu: 1_280, ..link });
    // IPv4, UDP, the envelope, its tag, then IPv4 and UDP again.
    let (fits, start) = (1_280 - 28 - 32 - 28, world.now());
    world.send(0, 1, Traffic::Udp4, fits, 1);
    world.run_for(millis(200));
    assert!(world.has_reached(0, 1, start));
}

#[test]
fn a_narrow_link_delays_and_then_loses() {
    let mut world = World::of(2, 15);
    world.time_to_meet(0, 1, secs(1));
    world.run_for(secs(1));
    world.change_links(0, 1, Way::Both, |link| Link { rate: 100_000, queue: 20_000, ..link });
    let start = world.now();
    world.send(0, 1, Traffic::Udp4, 1_000, 40);
    world.run_for(secs(1));
    let (arrived, sent) = world.ledger.between(0, 1, start, start + millis(1));
    assert_eq!((arrived, sent), (18, 40), "so many fit into 20 kB");
    assert!(world.ledger.latest_arrival(0, 1).is_some_and(|at| at.since(start) >= millis(180)));
}

#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    let mut world = World::of(3, 12);
    let size = |world: &World| format!("{:?}", world.hosts[0].running()).len();
    let mut sizes = Vec::new();
    for round in 0..60 {
        world.stream(1, 0, millis(50));
        world.run_for(millis(300));
        match round % 3 {
            0 => world.reload(0, [2]),
            1 => world.roam(1, round % 2 == 0, true),
            _ => world.crash(1),
        }
        world.run_for(millis(300));
        world.reload(0, [1, 2]);
        world.start(1);
        world.run_for(secs(2));
        world.end_streams();
        world.run_for(secs(200));
        sizes.push(size(&world));
    }
    let (early, late) = (sizes[8], sizes[56]);
    assert!(late <= early + early / 4, "what a node holds grows from {early} to {late}");
}

#[test]
fn five_hundred_idle_peers_cost_no_busy_wakeups() {
    const LEAVES: usize = 500;
    let hub = HostSpec { finds: vec![], ..HostSpec::with_peers(1..=LEAVES) };
    let leaf = || HostSpec::with_peers([0]);
    let mut world = World::started(10, std::iter::once(hub).chain((0..LEAVES).map(|_| leaf())).collect::<Vec<_>>());
    world.run_for(secs(10));
    assert_eq!(world.hosts[0].running().sessions().filter(|session| session.confirmed).count(), LEAVES);
    let (before, start) = (world.hosts[0].wakes, world.now());
    world.run_for(secs(100));
    let (wakes, sent) = (world.hosts[0].wakes - before, world.sent_since(0, start).count());
    assert!(sent <= LEAVES * 5, "{sent} datagrams");
    assert!(wakes <= 2 * sent as u64, "{wakes} wakeups for {sent} datagrams");
}
