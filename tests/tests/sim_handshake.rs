//! How two nodes come to have a session, and who does not. See [`vine_tests::sim`].

use std::time::Duration;

use vine_core::wire::EnvelopeType::{Cookie, Hello, HelloAck, HelloFinish, Sealed};
use vine_core::wire::{EnvelopeType, Header};
use vine_core::{DropReason, Event};
use vine_tests::flood::{Load, Noise};
use vine_tests::sim::{HostSpec, Traffic, Way, World, ghost};

const DAY_MS: i64 = 86_400_000;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Two hosts of which only the first knows where the other is.
fn caller_and_called() -> World {
    let called = HostSpec { finds: vec![], ..HostSpec::with_peers([0]) };
    World::started(1, vec![HostSpec::with_peers([1]), called])
}

fn established(world: &World, host: usize) -> usize {
    let is = |event: &&(vine_core::Instant, Event)| matches!(event.1, Event::SessionEstablished { .. });
    world.hosts[host].events.iter().filter(is).count()
}

/// The bytes of the last envelope of a kind that was seen on the wire.
fn last_seen(world: &World, kind: EnvelopeType) -> Vec<u8> {
    let is = |bytes: &[u8]| Header::decode(bytes).is_ok_and(|header| header.kind() == kind);
    world.network.captured.iter().rev().find(|seen| is(&seen.bytes)).expect("such a thing was sent").bytes.clone()
}

#[test]
fn first_contact_costs_a_cookie_and_no_more() {
    let mut world = caller_and_called();
    let start = world.now();
    world.send(0, 1, Traffic::Udp4, 100, 1);
    assert!(world.run_while(millis(100), |world| world.has_reached(0, 1, start)));
    assert_eq!(world.now().since(start), millis(50), "two and a half round trips of 20 ms");
    world.run_for(millis(150));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    let said = world.kinds_since(0, start);
    assert_eq!(said.iter().filter(|kind| **kind != Sealed).collect::<Vec<_>>(), [&Hello, &Hello, &HelloFinish]);
    let said = world.kinds_since(1, start);
    assert_eq!(said.iter().filter(|kind| **kind != Sealed).collect::<Vec<_>>(), [&Cookie, &HelloAck]);
    assert_eq!((established(&world, 0), established(&world, 1)), (1, 1));
}

#[test]
fn a_restarted_peer_with_a_right_clock_needs_no_cookie() {
    let mut world = caller_and_called();
    world.time_to_meet(0, 1, millis(100));
    world.run_for(millis(500));
    world.crash(0);
    world.start(0);
    let start = world.now();
    world.time_to_meet(0, 1, millis(100));
    assert!(!world.kinds_since(1, start).contains(&Cookie));
    let restarted = |event: &Event| matches!(event, Event::SessionEstablished { restarted: true, .. });
    assert!(world.events_since(1, start).any(restarted));
}

#[test]
fn a_bad_clock_costs_one_round_trip() {
    for clock_ms in [-DAY_MS, -1_770_000_000_000] {
        let mut world = caller_and_called();
        world.time_to_meet(0, 1, millis(100));
        world.run_for(millis(500));
        world.crash(0);
        world.hosts[0].clock_ms = clock_ms;
        world.start(0);
        let start = world.now();
        world.run_for(millis(200));
        assert!(world.is_up(0, 1), "clock off by {clock_ms} ms");
        let cookies = world.kinds_since(1, start).into_iter().filter(|kind| *kind == Cookie).count();
        assert_eq!(cookies, 1);
        let hellos = world.kinds_since(0, start).into_iter().filter(|kind| *kind == Hello).count();
        assert_eq!(hellos, 2);
    }
}

#[test]
fn a_restart_with_a_clock_behind_the_former_one_stays_reachable() {
    for restarted_says_hello in [true, false] {
        let mut world = if restarted_says_hello { caller_and_called() } else { World::of(2, 2) };
        world.time_to_meet(0, 1, millis(200));
        world.crash(0);
        world.hosts[0].clock_ms = -DAY_MS;
        world.start(0);
        world.time_to_meet(0, 1, secs(2));
        // Its next Hellos are of the same life, and still older than the last one of the former.
        for _ in 0..3 {
            world.roam(0, false, false);
            assert!(world.time_to_meet(0, 1, secs(3)) <= millis(2_000));
            world.run_for(secs(1));
        }
    }
}

#[test]
fn a_clock_that_was_ahead_locks_nobody_out() {
    let mut world = caller_and_called();
    world.crash(0);
    world.hosts[0].clock_ms = 1000 * DAY_MS;
    world.start(0);
    world.time_to_meet(0, 1, millis(100));
    world.crash(0);
    world.hosts[0].clock_ms = 0;
    world.start(0);
    assert!(world.time_to_meet(0, 1, millis(200)) <= millis(100));
}

#[test]
fn a_replayed_hello_changes_nothing() {
    let mut world = caller_and_called();
    world.time_to_meet(0, 1, millis(100));
    let hello = last_seen(&world, Hello);
    world.run_for(secs(10));
    let (start, counters) = (world.now(), world.hosts[1].running().counters().clone());
    let (to, from) = (world.path_between(1, 0).remote, ghost(vine_core::path::Family::V4));
    for after in [0, 1, 700, 5_000] {
        world.inject(0, 1, hello.clone());
        world.network.inject(world.now(), from, to, hello.clone());
        world.run_for(millis(after));
    }
    let (to_ghost, from_ghost) = world.network.ghost_bytes;
    assert!(to_ghost <= from_ghost, "{to_ghost} bytes answer {from_ghost}");
    let answers = world.kinds_since(1, start);
    assert!(
        answers.iter().all(|kind| [Cookie, Sealed].contains(kind)),
        "nothing is agreed on with a replay: {answers:?}"
    );
    assert_eq!((established(&world, 0), established(&world, 1)), (1, 1));
    assert!(world.kinds_since(0, start).iter().all(|kind| *kind == Sealed), "host 0 is not disturbed");
    let now = world.hosts[1].running().counters();
    assert_eq!(now.session_failures, counters.session_failures);
    let mark = world.now();
    world.send(0, 1, Traffic::Tcp4, 1000, 3);
    world.send(1, 0, Traffic::Tcp4, 1000, 3);
    world.run_for(millis(15));
    assert!(world.has_reached(0, 1, mark) && world.has_reached(1, 0, mark), "the session is the same");
}

#[test]
fn a_repeated_hello_gets_the_stored_answer() {
    let mut world = caller_and_called();
    world.run_for(millis(31)); // The HelloAck is under way.
    let (hello, ack) = (last_seen(&world, Hello), last_seen(&world, HelloAck));
    for _ in 0..3 {
        world.inject(0, 1, hello.clone());
        world.run_for(millis(1));
        assert_eq!(last_seen(&world, HelloAck), ack);
    }
    assert_eq!(world.hosts[1].running().counters().hellos_replayed, 3);
    world.run_for(secs(1));
    assert_eq!((established(&world, 0), established(&world, 1)), (1, 1));
}

#[test]
fn forged_answers_do_not_end_a_handshake() {
    let mut world = caller_and_called();
    world.run_for(millis(31)); // The HelloAck is under way.
    let mut ack = last_seen(&world, HelloAck);
    let mut cookie = last_seen(&world, Cookie);
    *ack.last_mut().unwrap() ^= 1;
    *cookie.last_mut().unwrap() ^= 1;
    cookie[4..8].copy_from_slice(&ack[4..8]);
    for _ in 0..3 {
        world.inject(1, 0, ack.clone());
        world.inject(1, 0, cookie.clone());
    }
    world.run_for(millis(5));
    assert_eq!(world.hosts[0].running().counters().dropped(DropReason::Handshake), 6);
    world.run_for(millis(50));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert_eq!(world.hosts[0].running().counters().hellos_sent, 2);
}

#[test]
fn hellos_that_cross_lead_to_one_session() {
    for seed in 0..20 {
        let mut world = World::of(2, seed);
        world.run_for(secs(1));
        let start = world.now();
        for _ in 0..10 {
            world.send(0, 1, Traffic::Udp4, 100, 1);
            world.send(1, 0, Traffic::Udp4, 100, 1);
            world.run_for(millis(50));
        }
        let receivers = |host| -> Vec<u32> {
            let data = world.sent_since(host, start).filter_map(|record| Some(record.header?.session()));
            let mut receivers: Vec<u32> = data.collect();
            receivers.sort_unstable();
            receivers.dedup();
            receivers
        };
        assert_eq!((receivers(0).len(), receivers(1).len()), (1, 1), "one session in each direction");
        let initiator = |host: usize| {
            let of = |(_, event): &(_, Event)| match event {
                Event::SessionEstablished { initiator, .. } => Some(*initiator),
                _ => None,
            };
            world.hosts[host].events.iter().rev().find_map(of).expect("a session was established")
        };
        assert_eq!(initiator(0), world.id(0) < world.id(1), "the lower PeerId's wins");
        assert_eq!(initiator(1), world.id(1) < world.id(0), "the lower PeerId's wins");
        assert_eq!(world.ledger.tally(0, 1).delivered, 10);
        assert_eq!(world.ledger.tally(1, 0).delivered, 10);
    }
}

#[test]
fn a_lost_confirmation_is_repeated() {
    // Without traffic: the Pings that would confirm as well give up before the cut ends.
    for lost in [(0, 1), (1, 0)] {
        let mut world = caller_and_called();
        world.run_for(millis(39)); // The HelloAck is there in a moment.
        world.set_cut(lost.0, lost.1, Way::Both, true);
        world.run_for(millis(2_900));
        world.set_cut(lost.0, lost.1, Way::Both, false);
        world.run_for(millis(500));
        assert_eq!((established(&world, 0), established(&world, 1)), (1, 1), "{lost:?}");
        assert!(world.hosts.iter().all(|host| host.running().sessions().all(|session| session.confirmed)), "{lost:?}");
        assert_eq!(world.hosts[0].running().counters().session_failures, 0);
    }
}

#[test]
fn a_restart_of_either_side_is_noticed_with_and_without_configured_endpoint() {
    for restarted in [0, 1] {
        for knows in [vec![0, 1], vec![0], vec![1]] {
            let find = |host: usize| if knows.contains(&host) { vec![1 - host] } else { vec![] };
            let spec = |host: usize| HostSpec { finds: find(host), ..HostSpec::with_peers([1 - host]) };
            let mut world = World::started(3, vec![spec(0), spec(1)]);
            world.time_to_meet(0, 1, millis(200));
            world.run_for(secs(30));
            world.crash(restarted);
            world.start(restarted);
            let took = world.time_to_meet(0, 1, secs(2));
            let at_once = knows.contains(&restarted);
            let limit = if at_once { millis(200) } else { millis(1_400) };
            assert!(took <= limit, "host {restarted} restarts, {knows:?} know the other: {took:?}");
        }
    }
}

#[test]
fn a_stranger_gets_no_byte() {
    let strangers = [
        HostSpec::with_peers([0]), // A right network, but a key that is not allowed.
        HostSpec { network_id: "other".into(), ..HostSpec::with_peers([0]) },
        HostSpec { network_key: Some([9; 32]), ..HostSpec::with_peers([0]) },
    ];
    for (number, stranger) in strangers.into_iter().enumerate() {
        let allows = if number == 0 { vec![] } else { vec![1] };
        let member = HostSpec { finds: vec![], ..HostSpec::with_peers(allows) };
        let mut world = World::started(4, vec![member, stranger]);
        world.stream(1, 0, millis(50));
        world.run_for(secs(30));
        assert_eq!(world.sent_since(0, vine_core::Instant::ORIGIN).count(), 0, "stranger {number}");
        assert!(world.sent_since(1, vine_core::Instant::ORIGIN).count() > 20, "it did try");
        let reported = world.hosts[0].events.len();
        match number {
            0 => assert!((20..=31).contains(&reported), "at most one report a second, not {reported}"),
            _ => assert_eq!(reported, 0),
        }
        let counters = world.hosts[0].running().counters();
        let reason = if number == 0 { DropReason::UnauthorizedPeer } else { DropReason::HelloMac };
        assert!(counters.dropped(reason) > 20, "stranger {number}");
    }
}

#[test]
fn a_reflected_datagram_is_no_answer() {
    let mut world = World::of(2, 5);
    let mut reflected = 0;
    for _ in 0..40 {
        world.send(0, 1, Traffic::Udp4, 100, 1);
        world.run_for(millis(11));
        while reflected < world.network.captured.len().min(200) {
            let seen = world.network.captured[reflected].clone();
            world.network.inject(world.now(), seen.destination, seen.source, seen.bytes);
            reflected += 1;
        }
    }
    world.run_for(secs(1));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert_eq!(world.ledger.tally(0, 1).delivered, 40);
}

#[test]
fn a_flood_of_forged_hellos_disturbs_nobody() {
    let mut world = World::of(3, 6);
    world.crash(2);
    world.run_for(secs(1));
    assert!(world.is_up(0, 1));
    let before = world.ledger.tally(0, 1);
    world.stream(0, 1, millis(10));
    world.stream(1, 0, millis(10));
    let load = Load::ForgedWithMac(Load::mac_key(&world.id(1), "sim"));
    let to = world.path_between(0, 1).local.expect("hosts have addresses");
    let (mut noise, mut buffer) = (Noise::new(1), [0; 2048]);
    let mut number = 0u64;
    let mut flood = |world: &mut World, time: Duration| {
        let end = world.now() + time;
        while world.now() < end {
            for _ in 0..20 {
                let len = load.fill(number, &mut noise, &mut buffer);
                let source = ([203, 0, 113, (number % 200) as u8], 1000 + (number % 7) as u16).into();
                world.network.inject(world.now(), source, (to, 4100).into(), buffer[..len].to_vec());
                number += 1;
            }
            world.run_for(millis(1)); // 20,000 a second.
        }
    };
    flood(&mut world, secs(1));
    let start = world.now();
    world.start(2);
    flood(&mut world, secs(3));
    let up = world.events_since(2, start).any(|event| *event == Event::PeerUp { peer: world.id(1) });
    assert!(up, "a new session comes up within 3 s");
    let after = world.ledger.tally(0, 1);
    let (sent, delivered) = (after.sent - before.sent, after.delivered - before.delivered);
    assert!(sent >= 395 && delivered + 2 >= sent, "{delivered} of {sent} packets of the established session arrive");
    assert_eq!(established(&world, 0), 2, "with host 1 and with host 2, once each: nothing was shaken");
}
