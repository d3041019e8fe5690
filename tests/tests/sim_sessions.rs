//! How sessions live and end. See [`vine_tests::sim`].

use std::time::Duration;

use vine_core::wire::EnvelopeType::{self, Hello};
use vine_core::wire::OVERHEAD;
use vine_core::{Command, CommandError, DownReason, DropReason, Event, Instant};
use vine_tests::sim::{Fate, HostSpec, Link, Traffic, Way, World};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn established(world: &World, host: usize) -> Vec<Instant> {
    let is = |event: &Event| matches!(event, Event::SessionEstablished { .. });
    world.hosts[host].events.iter().filter(|(_, event)| is(event)).map(|(at, _)| *at).collect()
}

#[test]
fn packets_of_every_kind_arrive_whole() {
    for offload in [false, true] {
        let spec = |other| HostSpec { offload, tun_mtu: 65_100, ..HostSpec::with_peers([other]) };
        let mut world = World::started(1, vec![spec(1), spec(0)]);
        world.run_for(secs(1));
        for kind in Traffic::ALL {
            for (len, count) in [(8, 1), (100, 1), (1_360, 1), (1_360, 47), (20_000, 3), (9_000, 7), (65_000, 1)] {
                world.send(0, 1, *kind, len, count);
                world.send(1, 0, *kind, len, count);
                world.run_for(millis(20));
            }
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let tally = world.ledger.tally(from, to);
            assert_eq!(tally.delivered, tally.sent);
        }
    }
}

#[test]
fn under_traffic_keys_change_after_120_s_and_no_packet_is_lost() {
    for senders in [vec![0], vec![1], vec![0, 1]] {
        let mut world = World::of(2, 2);
        world.run_for(secs(1));
        for sender in &senders {
            world.stream(*sender, 1 - sender, millis(20));
        }
        let start = world.now();
        world.run_for(secs(241));
        for host in [0, 1] {
            let at: Vec<Instant> = established(&world, host).into_iter().filter(|at| *at > start).collect();
            // Who began the former session is the first to rekey, the other one waits ten seconds for it.
            let age = at.first().expect("keys have changed").since(start) + secs(1);
            assert!(age >= secs(120) && age <= secs(131), "{senders:?} send, host {host}: {age:?}");
            assert_eq!(at.len(), if age < secs(121) { 2 } else { 1 }, "{senders:?} send, host {host}: {at:?}");
        }
        world.end_streams();
        world.run_for(secs(1));
        for (from, to) in [(0, 1), (1, 0)] {
            let tally = world.ledger.tally(from, to);
            assert_eq!(tally.delivered, tally.sent);
        }
        assert!(world.hosts.iter().all(|host| host.running().counters().session_failures == 0));
    }
}

#[test]
fn an_idle_pair_sends_next_to_nothing() {
    let mut world = World::of(2, 3);
    world.run_for(secs(60));
    let start = world.now();
    world.run_for(secs(3600));
    for host in [0, 1] {
        let sent: Vec<usize> = world.sent_since(host, start).map(|record| record.len).collect();
        assert!(sent.len() <= 3600 / 25, "host {host} sends {} datagrams in an hour", sent.len());
        assert!(sent.iter().sum::<usize>() <= 3600 / 25 * 40, "host {host} sends {} bytes", sent.iter().sum::<usize>());
        assert!(world.is_up(host, 1 - host));
    }
    let mark = world.now();
    world.send(0, 1, Traffic::Udp4, 100, 1);
    world.send(1, 0, Traffic::Udp4, 100, 1);
    world.run_for(millis(11));
    assert!(world.has_reached(0, 1, mark) && world.has_reached(1, 0, mark), "old keys still carry, at once");
}

#[test]
fn an_idle_pair_without_nat_sends_nothing() {
    let mut world = World::of(2, 3);
    world.tell_addresses(0);
    world.tell_addresses(1);
    world.run_for(secs(60));
    let start = world.now();
    world.run_for(secs(3000));
    let sent = world.sent_since(0, start).count() + world.sent_since(1, start).count();
    assert!(sent <= 8, "{sent} datagrams, though no NAT is between them");
    assert!(world.time_to_meet(0, 1, millis(100)) <= millis(15));
}

#[test]
fn shutdown_is_told_and_ends_everything() {
    let mut world = World::of(2, 4);
    world.run_for(secs(1));
    let start = world.now();
    world.command(0, Command::Shutdown).unwrap();
    world.run_for(millis(20));
    let closed = Event::PeerDown { peer: world.id(0), why: DownReason::Closed };
    assert_eq!(world.events_since(1, start).collect::<Vec<_>>(), [&closed]);
    assert_eq!(world.kinds_since(0, start), [EnvelopeType::Sealed], "one goodbye");

    // What is shut down stays silent, whatever happens.
    let mark = world.now();
    assert_eq!(world.hosts[0].running().poll_timeout().0, Instant::FAR_FUTURE);
    assert_eq!(world.command(0, Command::Shutdown), Err(CommandError::ShutDown));
    world.send(0, 1, Traffic::Udp4, 100, 1);
    world.stream(1, 0, millis(100));
    world.run_for(secs(10));
    assert_eq!(world.sent_since(0, mark).count(), 0);
    world.crash(0);
    world.start(0);
    assert!(world.time_to_meet(0, 1, millis(300)) <= millis(300));
}

#[test]
fn a_peer_that_said_goodbye_is_sought_without_hurry() {
    let mut world = World::of(2, 4);
    world.run_for(secs(1));
    world.shut_down(0);
    world.run_for(secs(1));
    let start = world.now();
    world.run_for(secs(300));
    let hellos = world.sent_since(1, start).count();
    assert!((1..=14).contains(&hellos), "{hellos} Hellos in five minutes");
}

#[test]
fn a_removed_peer_is_told_and_loses_its_session() {
    let mut world = World::of(3, 5);
    world.run_for(secs(1));
    let start = world.now();
    world.stream(1, 2, millis(50));
    world.reload(0, [2]);
    world.run_for(millis(20));
    let removed = Event::PeerDown { peer: world.id(1), why: DownReason::Removed };
    assert_eq!(world.events_since(0, start).collect::<Vec<_>>(), [&removed]);
    let closed = Event::PeerDown { peer: world.id(0), why: DownReason::Closed };
    assert_eq!(world.events_since(1, start).collect::<Vec<_>>(), [&closed]);
    let mark = world.now();
    world.stream(1, 0, millis(50));
    world.run_for(secs(20));
    assert!(world.sent_since(0, mark).all(|record| record.to == Some(2)), "nothing goes to who is not allowed");
    assert!(!world.has_reached(1, 0, mark));
    assert_eq!(world.hosts[0].running().peers().count(), 1);
    assert_eq!(world.hosts[0].running().routes().count(), 2);
    let tally = world.ledger.tally(1, 2);
    assert!(tally.delivered + 1 >= tally.sent, "who stays is not disturbed");

    world.reload(0, [1, 2]);
    assert!(world.time_to_meet(0, 1, secs(1)) <= millis(600));
}

#[test]
fn a_reload_without_change_disturbs_nothing() {
    let mut world = World::of(3, 6);
    world.run_for(secs(1));
    world.stream(0, 1, millis(10));
    let start = world.now();
    for _ in 0..20 {
        world.reload(0, [1, 2]);
        world.run_for(millis(100));
    }
    assert_eq!(world.events_since(0, start).count() + world.events_since(1, start).count(), 0);
    assert!(world.kinds_since(0, start).iter().all(|kind| *kind == EnvelopeType::Sealed));
    let tally = world.ledger.tally(0, 1);
    assert!(tally.delivered + 1 >= tally.sent);
}

#[test]
fn no_data_is_sealed_under_keys_that_are_too_old() {
    let mut world = World::of(2, 7);
    world.run_for(secs(1));
    world.stream(0, 1, millis(100));
    world.run_for(secs(100));
    world.crash(1);
    world.run_for(secs(300));
    let down = Event::PeerDown { peer: world.id(1), why: DownReason::Unreachable };
    assert!(world.hosts[0].events.iter().any(|(_, event)| *event == down));
    let mark = world.now();
    world.run_for(secs(20));
    let data = world.sent_since(0, mark).filter(|record| record.header.is_some_and(|header| header.kind() != Hello));
    let lengths: Vec<usize> = data.map(|record| record.len).collect();
    assert!(lengths.is_empty() || lengths == [OVERHEAD], "Hellos, and a keepalive, but not {lengths:?}");
    world.start(1);
    assert!(world.time_to_meet(0, 1, secs(2)) <= secs(1));
}

#[test]
fn who_only_helps_others_to_meet_keeps_its_keys_young() {
    let mut world = World::of(3, 9);
    world.run_for(secs(1));
    world.set_cut(0, 1, Way::Both, true);
    world.set_cut(1, 0, Way::Both, true);
    world.stream(0, 1, millis(100));
    for _ in 0..20 {
        let carried = world.hosts[2].running().counters().signals_carried;
        world.run_for(secs(40));
        assert!(world.hosts[2].running().counters().signals_carried > carried, "{:?}", world.now());
    }
}

#[test]
fn a_packet_under_anothers_address_does_not_arrive() {
    let mut world = World::of(3, 8);
    world.run_for(secs(1));
    for _ in 0..10 {
        world.send_forged(0, 2, Some(1)); // The ledger panics where one arrives.
    }
    world.run_for(secs(1));
    assert_eq!(world.hosts[1].running().counters().dropped(DropReason::UnauthorizedSource), 10);
    assert_eq!(world.hosts[1].running().counters().packets_received, 0);
}

#[test]
fn what_nobody_owns_goes_nowhere() {
    let mut world = World::of(2, 9);
    world.run_for(secs(1));
    let start = world.now();
    world.send_forged(0, 0, None);
    assert_eq!(world.sent_since(0, start).count(), 0);
    let counters = world.hosts[0].running().counters();
    assert_eq!((counters.route_misses, counters.dropped(DropReason::UnknownRoute)), (1, 1));
}

#[test]
fn packets_wait_for_a_session_the_oldest_is_dropped_first() {
    let mut world = World::of(2, 10);
    world.crash(1);
    world.run_for(secs(1));
    for _ in 0..100 {
        world.send(0, 1, Traffic::Udp4, 100, 1);
        world.run_for(millis(1));
    }
    let newest = world.now() - millis(60);
    world.start(1);
    world.run_for(secs(1));
    assert_eq!(world.ledger.tally(0, 1).delivered, 64);
    assert_eq!(world.ledger.between(0, 1, newest, world.now()), (60, 60));
    assert_eq!(world.hosts[0].running().counters().dropped(DropReason::QueueOverflow), 36);
}

#[test]
fn a_ping_of_the_operator_is_answered_with_the_round_trip() {
    let mut world = World::of(2, 11);
    world.run_for(secs(1));
    let start = world.now();
    let token = world.ping(0, 1).expect("the peer is up");
    world.run_for(millis(21));
    let answers: Vec<&Event> = world.events_since(0, start).collect();
    let [Event::PingReply { peer, token: answered, rtt, .. }] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((*peer, *answered, *rtt), (world.id(1), token, millis(20)));
    world.set_cut(0, 1, Way::Both, true);
    let asked = (0..40).filter(|_| world.ping(0, 1).is_some()).count();
    assert!(asked <= 16, "{asked} unanswered pings wait");
}

#[test]
fn loss_and_reordering_are_no_fault_of_a_session() {
    let mut world = World::of(2, 12);
    for (from, to) in [(0, 1), (1, 0)] {
        let link = Link { jitter: millis(40), loss: 100, duplicate: 100, reorder: 100, ..Link::default() };
        world.network.set_link(from, to, Way::Both, link);
    }
    world.run_for(secs(3));
    let start = world.now();
    world.stream(0, 1, millis(10));
    world.stream(1, 0, millis(10));
    world.run_for(secs(60));
    let lost = world.sent_since(0, start).filter(|record| record.fate == Fate::Lost).count();
    assert!(lost > 100, "{lost}");
    let tally = world.ledger.tally(0, 1);
    assert!(tally.delivered * 100 >= tally.sent * 85, "{tally:?}");
    for host in [0, 1] {
        let down = |event: &Event| matches!(event, Event::PeerDown { .. });
        assert!(!world.events_since(host, start).any(down), "host {host} saw its peer down");
    }
    assert!(world.hosts[1].running().counters().dropped(DropReason::Replay) > 100);
}
