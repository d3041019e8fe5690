use super::*;
use crate::path::{SocketId, SwitchReason};

const MS: Duration = Duration::from_millis(1);

fn at(port: u16) -> Via {
    Via::Direct(FourTuple { socket: SocketId(0), local: None, remote: ([192, 0, 2, port as u8], port).into() })
}

const RELAY: Via = Via::Relay(PeerIndex(9));

fn start() -> Instant {
    Instant::from_millis(1_000)
}

fn switch(from: u16, to: u16, why: SwitchReason, unanswered: u16) -> Option<Switch> {
    Some(Switch { from: Some((at(from), PathClass::Direct)), to: (at(to), PathClass::Direct), why, unanswered })
}

/// A set whose preferred path, at port 1, was proven at `start()` with an RTT of 10 ms.
fn proven() -> (PathSet, PathSlot) {
    let mut set = PathSet::default();
    let slot = set.insert(start(), at(1), PathClass::Direct);
    set.prove(start(), slot, Proof::Pong(MS * 10));
    assert_eq!(
        set.reselect(start(), || 0),
        Some(Switch { from: None, to: (at(1), PathClass::Direct), why: SwitchReason::First, unanswered: 0 })
    );
    (set, slot)
}

#[test]
fn a_new_address_is_a_candidate_and_moves_nothing() {
    let (mut set, slot) = proven();
    let (new, _) = set.note_arrival(start(), &at(2), PathClass::Direct, 1_000, || 7);
    assert_eq!(set.get(new).map(|path| path.state), Some(PathState::Candidate));
    assert_eq!(set.reselect(start(), || 0), None);
    assert_eq!(set.preferred_slot(), Some(slot));
    // Both are probed: the peer may have left the old address.
    let probed: Vec<PathSlot> = core::iter::from_fn(|| set.poll_probe(start(), || 0)).map(|probe| probe.slot).collect();
    assert_eq!(probed, [slot, new]);
}

#[test]
fn only_the_pong_to_a_ping_of_this_path_proves_it() {
    let (mut set, slot) = proven();
    let (new, _) = set.note_arrival(start(), &at(2), PathClass::Direct, 1_000, || 7);
    while set.poll_probe(start(), || 0).is_some() {}
    let now = start() + MS * 20;
    assert_eq!(set.on_pong(now, new, 8, Duration::ZERO), None, "a token that was not sent yet");
    assert_eq!(set.on_pong(now, PathSlot(5), 7, Duration::ZERO), None, "a path that there is not");
    assert_eq!(set.on_pong(now, new, 7, MS * 5), Some(MS * 15));
    assert_eq!(set.on_pong(now, new, 7, Duration::ZERO), None, "the same Pong again");
    assert_eq!(set.get(new).map(|path| path.state), Some(PathState::Usable));
    assert_eq!(set.preferred_slot(), Some(slot));
}

#[test]
fn an_address_that_a_datagram_gave_is_not_sent_more_than_three_times_what_came() {
    let (mut set, _) = proven();
    let (new, _) = set.note_arrival(start(), &at(2), PathClass::Direct, 32, || 7);
    let mut sent = 0;
    for step in 0..40 {
        let now = start() + MS * 100 * step;
        while let Some(probe) = set.poll_probe(now, || 0) {
            sent += usize::from(probe.slot == new && set.may_send(new, 43)) * 43;
        }
    }
    assert!(sent > 0 && sent <= 3 * 32, "{sent} bytes");
}

#[test]
fn silence_makes_a_path_suspect_and_a_proven_one_takes_over() {
    let (mut set, slot) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), other, Proof::Pong(MS * 50));
    assert!(set.on_data_sent(start(), slot, (0, 100), || 1));
    assert!(!set.on_data_sent(start() + MS, slot, (1, 100), || 1), "the deadline stands already");
    let patience = set.get(slot).map(Path::patience).unwrap_or_default();
    set.check_liveness(start() + patience - MS, || 1);
    assert_eq!((set.mirror(), set.reselect(start() + patience - MS, || 0)), (None, None));
    let late = start() + patience;
    set.check_liveness(late, || 1);
    assert_eq!(set.mirror(), Some((other, at(2))), "what is sent goes both ways at once");
    let probes: Vec<DueProbe> = core::iter::from_fn(|| set.poll_probe(late, || 0)).collect();
    assert_eq!(set.reselect(late + MS * 200, || 0), None, "the other has not answered since");
    set.warm_standby(late, || 2);
    let token = probes.iter().find(|probe| probe.slot == other).unwrap().token;
    assert_eq!(set.on_pong(late + MS * 20, other, token, Duration::ZERO), Some(MS * 20));
    assert_eq!(set.reselect(late + MS * 20, || 0), None, "this one may still answer");
    let again = set.poll_probe(late + MS * 20, || 0).map(|probe| probe.slot);
    assert_eq!((again, set.poll_probe(late + MS * 20, || 0)), (Some(slot), None), "it is asked a second time");
    // A round trip of 10 ms that varies by 5 is waited for from both Pings on.
    assert_eq!(set.switch_at(), Some(late + MS * 30 * 5 / 4));
    assert_eq!(set.reselect(late + MS * 37, || 0), None);
    assert_eq!(set.reselect(late + MS * 38, || 0), switch(1, 2, SwitchReason::PathLost, 2));
}

#[test]
fn one_lost_ping_costs_no_path_that_answers_the_next() {
    let (mut set, slot) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), other, Proof::Pong(MS * 20));
    set.on_data_sent(start(), slot, (0, 100), || 5);
    // A burst that began before the doubt goes on at once.
    assert_eq!(set.poll_probe(start() + MS * 100, || 0), Some(DueProbe { slot, token: 5 }));
    let late = start() + set.patience();
    set.check_liveness(late, || 20);
    let asked: Vec<DueProbe> = core::iter::from_fn(|| set.poll_probe(late, || 0)).collect();
    assert_eq!(asked, [DueProbe { slot, token: 6 }, DueProbe { slot: other, token: 20 }]);
    set.on_pong(late + MS * 20, other, 20, Duration::ZERO);
    let again = late + MS * 30 / 4;
    assert_eq!(set.get(slot).map(Path::next_deadline), Some(again));
    assert_eq!(set.poll_probe(again, || 0), Some(DueProbe { slot, token: 7 }));
    set.on_pong(again + MS * 10, slot, 7, Duration::ZERO);
    assert_eq!(set.reselect(late + MS * 38, || 0), None);
    assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Usable));
}

#[test]
fn receipts_prove_and_what_they_leave_open_keeps_the_clock_running() {
    let (mut set, slot) = proven();
    set.on_data_sent(start(), slot, (3, 100), || 1);
    set.on_data_sent(start(), slot, (5, 100), || 1);
    set.on_receipt(start() + MS * 5, slot, 2, 2);
    assert_eq!(set.unproven_since(), Some(start()), "a receipt for a former path in this slot");
    set.on_receipt(start() + MS * 10, slot, 6, 6);
    assert_eq!(set.unproven_since(), Some(start()), "a receipt for what was never sent");
    set.on_receipt(start() + MS * 20, slot, 4, 4);
    assert_eq!(set.unproven_since(), Some(start()), "what is open was sent then");
    set.on_data_sent(start() + MS * 22, slot, (7, 100), || 1);
    set.on_receipt(start() + MS * 25, slot, 3, 3);
    assert_eq!(set.unproven_since(), Some(start()), "an older receipt that comes later");
    set.on_receipt(start() + MS * 30, slot, 6, 6);
    assert_eq!(set.unproven_since(), Some(start() + MS * 22));
    set.on_receipt(start() + MS * 40, slot, 7, 7);
    assert_eq!(set.unproven_since(), None);
}

#[test]
fn a_faster_path_must_be_clearly_faster() {
    let (mut set, _) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), other, Proof::Pong(MS * 9));
    assert_eq!(set.reselect(start(), || 0), None);
    for _ in 0..40 {
        set.prove(start(), other, Proof::Pong(MS * 5));
    }
    assert_eq!(set.reselect(start(), || 0), switch(1, 2, SwitchReason::Faster, 0));
}

#[test]
fn probes_end_and_only_the_preferred_path_outlives_them() {
    let (mut set, slot) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.probe_all(start(), || 1);
    for step in 0..40 {
        while set.poll_probe(start() + MS * 100 * step, || 0).is_some() {}
    }
    assert!(set.get(other).is_none());
    assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Suspect));
    assert_eq!(set.next_deadline(), Instant::FAR_FUTURE);
}

#[test]
fn a_path_whose_local_address_changes_into_another_s_is_one_path() {
    let pinned = |ip: [u8; 4]| Via::Direct(FourTuple { local: Some(ip.into()), ..at(1).direct().unwrap() });
    let (old, new) = (pinned([10, 0, 0, 1]), pinned([10, 0, 0, 2]));
    let mut set = PathSet::default();
    let slot = set.insert(start(), old, PathClass::Direct);
    set.prove(start(), slot, Proof::Handshake);
    set.reselect(start(), || 0);
    let (other, _) = set.note_arrival(start(), &new, PathClass::Direct, 100, || 1);
    assert_ne!(slot, other);
    set.on_network_change(start(), &["10.0.0.2".parse().unwrap()], || 2);
    assert_eq!(set.note_arrival(start(), &new, PathClass::Direct, 100, || 3), (slot, false));
    assert_eq!(set.iter().count(), 1);
    assert_eq!(set.preferred().map(|(_, path)| path.via), Some(new));
}

#[test]
fn a_full_set_displaces_candidates_before_proven_paths() {
    let (mut set, slot) = proven();
    for port in 2..100 {
        set.note_arrival(start() + MS * 500 * u32::from(port), &at(port), PathClass::Direct, 100, || 1);
    }
    assert_eq!(set.iter().count(), MAX_PATHS);
    assert_eq!(set.preferred_slot(), Some(slot));
    assert!(set.find(&at(1)).is_some() && set.find(&at(99)).is_some());
}

#[test]
fn the_path_that_the_peer_sends_by_is_not_displaced() {
    let (mut set, _) = proven();
    let Via::Direct(from) = at(2) else { unreachable!() };
    for port in 2..100 {
        let now = start() + MS * 500 * u32::from(port);
        let (slot, is_new) = set.note_arrival(now, &at(port), PathClass::Direct, 100, || 1);
        assert!(is_new);
        set.prove(now, slot, Proof::Pong(MS * 10));
        assert!(set.note_passed(now, &from), "displaced by port {port}");
    }
    assert!(set.find(&at(3)).is_none());
}

/// `proven()` with a path by a relay beside it, and the direct one lost.
fn on_relay() -> (PathSet, PathSlot, Instant) {
    let (mut set, slot) = proven();
    let relay = set.insert(start(), RELAY, PathClass::Relay);
    set.prove(start(), relay, Proof::Pong(MS * 5));
    assert_eq!(set.reselect(start(), || 0), None, "a faster relay is no reason to leave a direct path");
    set.on_data_sent(start(), slot, (0, 100), || 1);
    let late = start() + MS * 200;
    set.check_liveness(late, || 1);
    set.prove(late, relay, Proof::Pong(MS * 5));
    let now = late + MS * 250;
    let switch = set.reselect(now, || 100).unwrap();
    assert_eq!((switch.to, switch.why), ((RELAY, PathClass::Relay), SwitchReason::PathLost));
    (set, slot, now)
}

#[test]
fn a_lost_direct_path_is_sought_and_returns_after_three_answers() {
    let (mut set, slot, lost) = on_relay();
    assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Lost));
    let mut answers = 0;
    let mut now = lost;
    while answers < 3 {
        now = now.max(set.next_deadline()) + MS;
        assert!(now < lost + MS * 900, "back within a second");
        let relay = set.preferred_slot().unwrap();
        set.on_data_sent(now, relay, (1, 100), || 5);
        set.prove(now, relay, Proof::Receipt);
        while let Some(probe) = set.poll_probe(now, || 0) {
            assert_eq!(set.reselect(now, || 0), None);
            if probe.slot == slot && probe.token >= 100 {
                answers += u32::from(set.on_pong(now + MS, slot, probe.token, Duration::ZERO).is_some());
            }
        }
        set.warm_standby(now, || 7);
    }
    let back = set.reselect(now + MS, || 0).unwrap();
    assert_eq!((back.to, back.why), ((at(1), PathClass::Direct), SwitchReason::Upgrade));
}

#[test]
fn receipts_of_what_went_both_ways_prove_neither() {
    let (mut set, slot) = proven();
    let relay = set.insert(start(), RELAY, PathClass::Relay);
    set.prove(start(), relay, Proof::Pong(MS * 5));
    set.on_data_sent(start(), slot, (0, 100), || 1);
    let late = start() + MS * 200;
    set.check_liveness(late, || 1);
    set.on_data_sent(late, slot, (1, 100), || 1);
    assert!(set.take_mirror(late, 1, 100));
    set.on_receipt(late + MS, slot, 1, 1);
    assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Suspect));
    set.on_data_sent(late + MS, slot, (2, 100), || 1);
    set.on_receipt(late + MS * 2, slot, 2, 2);
    assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Usable));
}

#[test]
fn data_that_leaves_the_preferred_path_puts_it_in_doubt() {
    let (mut set, slot) = proven();
    let relay = set.insert(start(), RELAY, PathClass::Relay);
    set.prove(start(), relay, Proof::Pong(MS * 5));
    set.note_data(start(), slot, || 1);
    assert!(set.mirror().is_none());
    assert!(set.note_data(start() + MS * 300, relay, || 1));
    assert_eq!(set.mirror(), Some((relay, RELAY)));
    assert_eq!(set.poll_probe(start() + MS * 300, || 0).map(|probe| probe.slot), Some(slot));
    // A burst that had begun asks at once as well.
    let (mut set, slot) = proven();
    set.note_data(start(), slot, || 1);
    set.probe(start(), slot, 1);
    assert!(set.poll_probe(start(), || 0).is_some());
    let (other, _) = set.note_arrival(start(), &RELAY, PathClass::Relay, 100, || 1);
    while set.poll_probe(start(), || 0).is_some() {}
    assert!(set.note_data(start() + MS, other, || 1));
    assert_eq!(set.poll_probe(start() + MS, || 0), Some(DueProbe { slot, token: 2 }));
}

#[test]
fn a_peer_that_speaks_by_another_path_has_the_preferred_one_asked() {
    let (mut set, slot) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), other, Proof::Pong(MS * 10));
    let late = start() + Duration::from_secs(20);
    set.note_packet(late, slot, 7);
    assert_eq!(set.poll_probe(late, || 0), None, "it speaks by that one");
    set.note_packet(late, other, 7);
    assert_eq!(set.poll_probe(late, || 0).map(|probe| probe.slot), Some(slot));
    assert!(set.on_pong(late + MS * 10, slot, 7, Duration::ZERO).is_some());
    set.note_packet(late + MS * 20, other, 8);
    assert_eq!(set.poll_probe(late + MS * 20, || 0), None, "it has just answered");
    // Nobody sends anything, and still a dead one is found and left.
    let mut now = late + Duration::from_secs(20);
    let end = now + Duration::from_secs(1);
    set.note_packet(now, other, 9);
    let mut switched = None;
    while switched.is_none() && now < end {
        while let Some(probe) = set.poll_probe(now, || 9) {
            if probe.slot == other {
                set.on_pong(now, other, probe.token, Duration::ZERO);
            }
        }
        switched = set.reselect(now, || 0);
        now += MS;
    }
    assert_eq!(switched.map(|switch| (switch.to.0, switch.why)), Some((at(2), SwitchReason::PathLost)));
}

#[test]
fn a_spare_path_that_is_as_dead_keeps_no_other_waiting() {
    let (mut set, slot) = proven();
    let stale = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), stale, Proof::Pong(MS * 5));
    let (new, _) = set.note_arrival(start() + MS * 100, &at(3), PathClass::Direct, 1_000, || 7);
    set.note_data(start(), slot, || 1);
    assert!(set.note_data(start() + MS * 100, new, || 1), "the peer sends by another path");
    while set.poll_probe(start() + MS * 100, || 0).is_some() {}
    assert_eq!(set.mirror(), Some((stale, at(2))));
    assert!(set.on_pong(start() + MS * 110, new, 7, Duration::ZERO).is_some());
    assert_eq!(set.mirror(), Some((new, at(3))));
    assert_eq!(set.reselect(start() + MS * 400, || 0), switch(1, 3, SwitchReason::PathLost, 1));
}

#[test]
fn probes_without_answer_ask_the_others_again() {
    let (mut set, slot) = proven();
    let (new, _) = set.note_arrival(start(), &at(2), PathClass::Direct, 1_000, || 7);
    while set.poll_probe(start(), || 0).is_some() {}
    assert!(set.on_pong(start() + MS * 10, new, 7, Duration::ZERO).is_some());
    let mut now = start();
    while set.get(slot).is_some_and(|path| path.state == PathState::Usable) {
        now += MS;
        while set.poll_probe(now, || 9).is_some() {}
    }
    assert!(now <= start() + MS * 500, "{now:?}");
    assert!(set.on_pong(now + MS * 10, new, 9, Duration::ZERO).is_some(), "it was asked when the other did not answer");
    assert_eq!(set.reselect(now + MS * 250, || 0), switch(1, 2, SwitchReason::PathLost, 3));
}

#[test]
fn a_pair_that_is_not_in_use_seeks_nothing() {
    let (mut set, _, lost) = on_relay();
    let mut now = lost;
    while set.next_deadline() != Instant::FAR_FUTURE {
        now = now.max(set.next_deadline());
        assert!(now < lost + Duration::from_secs(60));
        while set.poll_probe(now, || 0).is_some() {}
        while set.poll_mtu(now, || 0).is_some() {}
        set.warm_standby(now, || 7);
        set.check_liveness(now, || 7);
    }
    let relay = set.preferred_slot().unwrap();
    assert!(set.on_data_sent(now, relay, (9, 100), || 1));
    assert!(set.next_deadline() <= now + MS * 100, "and at once when it is again");
}

#[test]
fn a_relay_that_takes_its_path_away_has_the_others_asked() {
    let (mut set, start) = (PathSet::default(), start());
    for via in [Via::Relay(PeerIndex(9)), Via::Relay(PeerIndex(8))] {
        let slot = set.insert(start, via, PathClass::Relay);
        set.prove(start, slot, Proof::Pong(MS * 10));
    }
    set.reselect(start, || 0);
    set.remove_relay(start + MS, PeerIndex(9), || 3);
    let asked: Vec<PathSlot> =
        core::iter::from_fn(|| set.poll_probe(start + MS, || 0)).map(|probe| probe.slot).collect();
    assert_eq!(asked, [PathSlot(0), PathSlot(1)]);
    set.on_pong(start + MS * 11, PathSlot(1), 3, Duration::ZERO);
    assert_eq!(set.reselect(start + MS * 50, || 0).map(|switch| switch.why), Some(SwitchReason::PathLost));
    set.remove_relay(start + MS * 51, PeerIndex(9), || 3);
    assert_eq!(set.find(&Via::Relay(PeerIndex(9))), None);

    // It is told again and again that there is no way: that asks nobody anew, and the burst ends.
    let mut now = start + MS * 60;
    set.remove_relay(now, PeerIndex(8), || 4);
    while set.get(PathSlot(1)).is_some_and(|path| path.probe.is_some()) {
        assert!(now < start + Duration::from_secs(5), "it is asked for ever");
        while set.poll_probe(now, || 5).is_some() {}
        now += MS * 100;
        set.remove_relay(now, PeerIndex(8), || 6);
    }
    assert!(set.is_given_up());
}

/// Its Pongs are lost, and receipts of what is sent keep it usable.
#[test]
fn a_burst_that_fails_on_a_path_in_use_has_the_others_asked() {
    let (mut set, slot) = proven();
    let other = set.insert(start(), at(2), PathClass::Direct);
    set.prove(start(), other, Proof::Pong(MS * 20));
    set.probe(start(), slot, 1);
    let (mut now, mut sent) = (start(), 0);
    while sent < 4 {
        set.prove(now, slot, Proof::Receipt);
        while let Some(probe) = set.poll_probe(now, || 9) {
            sent += usize::from(probe.slot == slot);
            set.on_pong(now, other, probe.token, Duration::ZERO);
        }
        now = set.get(slot).and_then(|path| path.probe).unwrap().next;
    }
    set.prove(now, slot, Proof::Receipt);
    let asked: Vec<PathSlot> = core::iter::from_fn(|| set.poll_probe(now, || 9)).map(|probe| probe.slot).collect();
    assert!(asked.contains(&other), "{asked:?}");
    assert!(!set.is_given_up(), "nobody is greeted before the others were asked");
}
