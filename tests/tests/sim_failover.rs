//! How long packets stay away when a direct path fails, and whether it is taken again. See [`vine_tests::sim`].

use std::time::Duration;

use vine_core::path::SwitchReason;
use vine_core::wire::{EnvelopeType, Lane};
use vine_core::{Event, Instant};
use vine_tests::sim::{HostSpec, Link, Traffic, Way, World};

/// The host that carries packets for the two others.
const RELAY: usize = 0;

/// How often a packet is sent.
const EVERY: Duration = Duration::from_millis(10);

/// Round trips of the direct path.
const ROUND_TRIPS: [Duration; 3] = [Duration::from_millis(1), Duration::from_millis(50), Duration::from_millis(300)];

/// What a sender may mirror in one round trip.
const MIRRORED_BYTES: usize = 64 * 1024;

/// Within this time after it is whole again the direct path is taken.
const RETURN: Duration = Duration::from_secs(2);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What holds for every round trip. Beside it: the packet that finds the path dead, and the first one that goes elsewhere.
fn bound(round_trip: Duration) -> Duration {
    3 * round_trip + millis(200) + 2 * EVERY
}

/// Hosts 1 and 2 talk directly; the relay is as far from each as they are from each other.
fn talking(seed: u64, round_trip: Duration, ways: &[(usize, usize)]) -> World {
    let end = |other: usize| HostSpec::with_peers([RELAY, other]);
    let relay = HostSpec { relay: true, ..HostSpec::with_peers([1, 2]) };
    let mut world = World::started(seed, vec![relay, end(2), end(1)]);
    for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
        world.change_links(from, to, Way::Both, |link| Link { delay: round_trip / 2, ..link });
    }
    for (from, to) in ways {
        world.stream(*from, *to, EVERY);
    }
    world.run_for(secs(10));
    assert!(ways.iter().all(|(from, to)| world.class(*from, *to) == "direct"), "they begin directly");
    world
}

fn cut(world: &mut World, ways: &[(usize, usize)], cut: bool) {
    ways.iter().for_each(|(from, to)| world.set_cut(*from, *to, Way::Both, cut));
}

/// Cuts the direct path in some directions for five seconds, and mends it. Packets may stay away for `limit`, and then come
/// back without loss.
fn fail_and_return(world: &mut World, ways: &[(usize, usize)], dead: &[(usize, usize)], limit: Duration) {
    let start = world.now();
    cut(world, dead, true);
    world.run_for(secs(5));
    let end = world.now();
    for (from, to) in ways {
        let gap = world.ledger.longest_gap(*from, *to, start - EVERY, end - secs(1));
        assert!(gap <= limit, "nothing from host {from} to host {to} for {gap:?}, with {dead:?} cut");
    }
    for (from, to) in ways.iter().filter(|way| dead.contains(way)) {
        assert_eq!(world.class(*from, *to), "relay");
    }
    cut(world, dead, false);
    let is_back = |world: &World| ways.iter().all(|(from, to)| world.class(*from, *to) == "direct");
    assert!(world.run_while(RETURN, is_back), "they are not back");
    world.run_for(secs(5));
    assert!(is_back(world), "they do not stay");
    world.end_streams();
    let until = world.now();
    world.run_for(secs(1));
    for (from, to) in ways {
        let (arrived, sent) = world.ledger.between(*from, *to, end, until);
        assert_eq!(arrived, sent, "from host {from} to host {to}, while the path returns");
        world.stream(*from, *to, EVERY);
    }
    world.run_for(secs(2));
    for host in [1, 2] {
        let rekeyed = |event: &Event| matches!(event, Event::SessionEstablished { .. });
        assert!(!world.events_since(host, start).any(rekeyed), "the keys stay the same");
        let down = |event: &Event| matches!(event, Event::PeerDown { .. });
        assert!(!world.events_since(host, start).any(down), "and the peer stays up");
    }
}

#[test]
fn a_dead_path_is_left_in_time_and_taken_again() {
    let both = [(1, 2), (2, 1)];
    for round_trip in ROUND_TRIPS {
        for seed in 0..20 {
            let mut world = talking(seed, round_trip, &both);
            world.run_for(millis(7 * seed));
            fail_and_return(&mut world, &both, &both, bound(round_trip));
            fail_and_return(&mut world, &both, &both, bound(round_trip));
        }
    }
}

#[test]
fn one_dead_direction_is_enough() {
    let both = [(1, 2), (2, 1)];
    for round_trip in ROUND_TRIPS {
        for dead in both {
            for seed in 0..10 {
                let mut world = talking(seed, round_trip, &both);
                world.run_for(millis(7 * seed));
                fail_and_return(&mut world, &both, &[dead], bound(round_trip));
            }
        }
    }
}

#[test]
fn traffic_of_one_direction_notices_as_soon() {
    let one = [(1, 2)];
    for round_trip in ROUND_TRIPS {
        for dead in [&[(1, 2), (2, 1)][..], &[(1, 2)][..]] {
            for seed in 0..10 {
                let mut world = talking(seed, round_trip, &one);
                world.run_for(millis(7 * seed));
                fail_and_return(&mut world, &one, dead, bound(round_trip));
            }
        }
    }
}

#[test]
fn what_only_answers_go_by_may_die_without_harm() {
    // The packets arrive. Their receipts do not, until they come by another path.
    let one = [(1, 2)];
    for round_trip in ROUND_TRIPS {
        let mut world = talking(1, round_trip, &one);
        let start = world.now();
        cut(&mut world, &[(2, 1)], true);
        world.run_for(secs(5));
        let gap = world.ledger.longest_gap(1, 2, start - EVERY, world.now() - secs(1));
        assert!(gap <= 3 * EVERY, "{gap:?}");
        assert!(world.is_up(1, 2) && world.is_up(2, 1));
    }
}

#[test]
fn jitter_and_a_far_relay_do_not_change_it() {
    let both = [(1, 2), (2, 1)];
    for seed in 0..10 {
        let mut world = talking(seed, millis(50), &both);
        for (from, to) in both {
            world.change_links(from, to, Way::Both, |link| Link { jitter: millis(10), ..link });
        }
        for (from, to) in [(1, RELAY), (RELAY, 1), (2, RELAY), (RELAY, 2)] {
            world.change_links(from, to, Way::Both, |link| Link { delay: millis(80), ..link });
        }
        world.run_for(secs(10));
        fail_and_return(&mut world, &both, &both, bound(millis(60)) + millis(40));
    }
}

/// A sender fills a queue of half a second, until it is cut.
#[test]
fn a_full_queue_is_no_dead_path_and_a_dead_path_behind_one_is_left_in_time() {
    let one = [(1, 2)];
    let mut world = talking(1, millis(50), &one);
    world.change_links(1, 2, Way::Both, |link| Link { rate: 1_000_000, queue: 500_000, ..link });
    let start = world.now();
    for _ in 0..300 {
        // Somewhat more than the link carries.
        world.send(1, 2, Traffic::Udp4, 1_000, 11);
        world.run_for(EVERY);
    }
    let last = world.now();
    let gap = world.ledger.longest_gap(1, 2, start, last - secs(1));
    assert!(gap <= millis(200), "nothing for {gap:?} only because it takes longer");
    let switched = |event: &&Event| matches!(event, Event::SessionSwitched { .. });
    assert!(world.events_since(1, start).filter(switched).count() <= 2, "it does not flap");
    cut(&mut world, &[(1, 2), (2, 1)], true);
    for _ in 0..500 {
        world.send(1, 2, Traffic::Udp4, 1_000, 11);
        world.run_for(EVERY);
    }
    let gap = world.ledger.longest_gap(1, 2, last - EVERY, world.now() - secs(1));
    assert!(gap <= bound(millis(50) + millis(500)), "{gap:?}");
}

/// Bytes of sealed packets from host 1 to a host since `since`.
fn data_bytes(world: &World, to: usize, since: Instant) -> usize {
    let is_data = |kind: EnvelopeType, lane: Lane| kind != EnvelopeType::Sealed || lane != Lane::CONTROL;
    let records = world.sent_since(1, since).filter(|record| record.to == Some(to) && record.len > 500);
    records.filter(|r| r.header.is_some_and(|h| is_data(h.kind(), h.msg_id().lane()))).map(|r| r.len).sum()
}

#[test]
fn what_is_mirrored_stays_inside_its_limit() {
    for round_trip in ROUND_TRIPS {
        let mut world = talking(1, round_trip, &[(1, 2), (2, 1)]);
        let load = |world: &mut World| {
            world.send(1, 2, Traffic::Udp4, 1_000, 40);
            world.run_for(EVERY);
        };
        (0..200).for_each(|_| load(&mut world));
        let start = world.now();
        assert!(data_bytes(&world, RELAY, start - secs(1)) == 0, "nothing is mirrored while receipts come");
        cut(&mut world, &[(1, 2), (2, 1)], true);
        while world.class(1, 2) == "direct" {
            load(&mut world);
            assert!(world.now().since(start) < secs(3), "it stays for ever");
        }
        // The class changes between two bursts: the last one may have gone by the new path.
        let (took, last) = (world.now().since(start), 40 * 1_100);
        let round_trips = 1 + (took.as_nanos() / round_trip.max(millis(1)).as_nanos()) as usize;
        let mirrored = data_bytes(&world, RELAY, start);
        assert!(mirrored <= MIRRORED_BYTES * round_trips + last, "{mirrored} bytes in {took:?}");
    }
}

#[test]
fn a_path_that_loses_does_not_flap() {
    let both = [(1, 2), (2, 1)];
    for loss in [50, 200, 400] {
        let mut world = talking(1, millis(50), &both);
        for (from, to) in both {
            world.change_links(from, to, Way::Both, |link| Link { loss, ..link });
        }
        let start = world.now();
        world.run_for(secs(60));
        let switched = |event: &&Event| matches!(event, Event::SessionSwitched { .. });
        for host in [1, 2] {
            let times = world.events_since(host, start).filter(switched).count();
            assert!(times <= 10, "{loss} of 1000 lost: host {host} switches {times} times in a minute");
        }
    }
}

#[test]
fn a_path_that_loses_too_much_is_left_and_taken_again() {
    let both = [(1, 2), (2, 1)];
    for (seed, loss) in [(1, 300), (2, 400), (3, 600)] {
        let lose = |world: &mut World, loss| {
            both.iter().for_each(|(from, to)| world.change_links(*from, *to, Way::Both, |link| Link { loss, ..link }));
        };
        let mut world = talking(seed, millis(50), &both);
        lose(&mut world, loss);
        world.run_for(secs(15));
        let start = world.now();
        world.run_for(secs(30));
        for (from, to) in both {
            let (arrived, sent) = world.ledger.between(from, to, start, world.now() - secs(1));
            // Now and then the direct path answers often enough by chance.
            assert!(arrived * 10 >= sent * 9, "{arrived} of {sent} from host {from}, where {loss} of 1000 are lost");
        }
        lose(&mut world, 0);
        let is_back = |world: &World| both.iter().all(|(from, to)| world.class(*from, *to) == "direct");
        assert!(world.run_while(secs(5), is_back), "they are not back");
        let mut world = talking(seed, millis(50), &both);
        lose(&mut world, 100);
        world.run_for(secs(120));
        let is_lossy = |event: &Event| matches!(event, Event::SessionSwitched { why: SwitchReason::Lossy, .. });
        for host in [1, 2] {
            assert!(!world.events_since(host, Instant::ORIGIN).any(is_lossy), "some loss is better than a relay");
        }
    }
}

#[test]
fn a_path_that_comes_and_goes_does_not_take_the_peer_with_it() {
    let both = [(1, 2), (2, 1)];
    let mut world = talking(1, millis(50), &both);
    let start = world.now();
    for _ in 0..20 {
        cut(&mut world, &both, true);
        world.run_for(millis(700));
        cut(&mut world, &both, false);
        world.run_for(millis(1_300));
    }
    for (from, to) in both {
        let gap = world.ledger.longest_gap(from, to, start, world.now() - secs(1));
        assert!(gap <= bound(millis(50)), "{gap:?}");
    }
    world.run_for(RETURN);
    assert_eq!([world.class(1, 2), world.class(2, 1)], ["direct", "direct"]);
}

#[test]
fn after_an_hour_without_its_direct_path_a_pair_takes_it_again() {
    let both = [(1, 2), (2, 1)];
    let mut world = talking(1, millis(50), &[]);
    for (from, to) in both {
        world.stream(from, to, millis(200));
    }
    cut(&mut world, &both, true);
    world.run_for(secs(3_600));
    assert_eq!([world.class(1, 2), world.class(2, 1)], ["relay", "relay"]);
    cut(&mut world, &both, false);
    // A lost path is tried every 30 seconds by then; what a host hears of its network tries it at once.
    let is_back = |world: &World| [world.class(1, 2), world.class(2, 1)] == ["direct", "direct"];
    assert!(world.run_while(secs(35), is_back));
    cut(&mut world, &both, true);
    world.run_for(secs(3_600));
    cut(&mut world, &both, false);
    world.tell_addresses(1);
    assert!(world.run_while(RETURN, is_back), "a hint is heard");
}

/// UDP payload of a packet of 1,280 bytes.
const LONG: usize = 1280 - 28;

/// Packets of 1,280 bytes and of other lengths for a while; what is lost meanwhile is no matter.
fn send_long(world: &mut World, duration: Duration, others: &[usize]) {
    let end = world.now() + duration;
    while world.now() < end {
        world.send(1, 2, Traffic::Udp4, LONG, 1);
        others.iter().for_each(|length| world.send(1, 2, Traffic::Udp4, *length, 1));
        world.run_for(EVERY);
    }
}

/// How long no packet of 1,280 bytes arrived in `since..`.
fn long_gap(world: &World, since: Instant) -> Duration {
    let end = world.now() - secs(1);
    world.ledger.longest_gap_of(LONG, 1, 2, since - EVERY, end)
}

#[test]
fn a_path_that_carries_less_all_at_once_stalls_nobody() {
    for round_trip in ROUND_TRIPS {
        for seed in 0..10 {
            let mut world = talking(seed, round_trip, &[]);
            send_long(&mut world, secs(3), &[]);
            world.run_for(millis(7 * seed));
            let start = world.now();
            world.change_links(1, 2, Way::Both, |link| Link { mtu: 1_300, ..link });
            send_long(&mut world, secs(8), &[]);
            let gap = long_gap(&world, start);
            assert!(gap <= bound(round_trip), "nothing for {gap:?} of a round trip of {round_trip:?}");
            assert_eq!(world.class(1, 2), "direct");
        }
    }
}

#[test]
fn small_packets_do_not_hide_that_large_ones_are_lost() {
    for round_trip in ROUND_TRIPS {
        let mut world = talking(5, round_trip, &[]);
        send_long(&mut world, secs(3), &[100]);
        let start = world.now();
        world.change_links(1, 2, Way::Both, |link| Link { mtu: 1_300, ..link });
        send_long(&mut world, secs(8), &[100]);
        let gap = long_gap(&world, start);
        assert!(gap <= 4 * bound(round_trip), "nothing for {gap:?} of a round trip of {round_trip:?}");
    }
}
