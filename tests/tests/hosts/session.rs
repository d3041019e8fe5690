//! Two daemons over a veth pair: how fast they meet, and meet again.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use vine_tests::lab::{Ping, figure, first_answer, wait_until};

use crate::pair::{Knows, Pair};

/// Longer than any test here expects, so that a failure reports a figure and not a timeout.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PING: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(20);

/// Starts a, then b, and asserts that a ping of the overlay family is answered within a second of b's start.
fn meets(test: &str, knows: Knows, v6_underlay: bool, v6_overlay: bool) {
    let Some(mut pair) = Pair::new(test, knows, v6_underlay) else { return };
    pair.a.up();
    let from = SystemTime::now();
    pair.b.start();
    let answered = first_answer(pair.b.host(), pair.a.overlay(v6_overlay), PATIENCE);
    assert!(answered.is_some(), "no answer within {PATIENCE:?}");
    let took = from.elapsed().unwrap();
    figure(test, &format!("first ping answered {took:.0?} after the second daemon's start"));
    assert!(took < FIRST_PING, "{took:?}");
    assert!(first_answer(pair.a.host(), pair.b.overlay(v6_overlay), PATIENCE).is_some(), "and the other way");
}

#[test]
fn first_ping_ipv4_over_ipv4() {
    meets("first_ping_ipv4_over_ipv4", Knows::OnlyB, false, false);
}

#[test]
fn first_ping_ipv6_over_ipv4() {
    meets("first_ping_ipv6_over_ipv4", Knows::OnlyB, false, true);
}

#[test]
fn first_ping_ipv4_over_ipv6() {
    meets("first_ping_ipv4_over_ipv6", Knows::OnlyB, true, false);
}

#[test]
fn first_ping_ipv6_over_ipv6() {
    meets("first_ping_ipv6_over_ipv6", Knows::Both, true, true);
}

#[test]
fn first_ping_where_the_first_daemon_knows_the_address() {
    meets("first_ping_where_the_first_daemon_knows_the_address", Knows::OnlyA, false, false);
}

/// Kills b, starts it again, and asserts that the ping that a never stopped flows again within 2 s.
fn survives_a_crash(test: &str, knows: Knows) {
    let Some(mut pair) = Pair::connected(test, knows) else { return };
    let ping = Ping::start(pair.a.host(), pair.b.overlay(false), INTERVAL);
    ping.flows_after(SystemTime::now(), PATIENCE);
    pair.b.crash();
    let from = SystemTime::now();
    pair.b.start();
    let took = ping.flows_after(from, PATIENCE);
    figure(test, &format!("traffic flows {took:.0?} after the restart"));
    assert!(took < RECOVERY, "{took:?}");
    assert!(first_answer(pair.b.host(), pair.a.overlay(true), PATIENCE).is_some(), "and the other way");
}

#[test]
fn crash_and_restart_of_the_one_that_knows_the_address() {
    survives_a_crash("crash_and_restart_of_the_one_that_knows_the_address", Knows::OnlyB);
}

#[test]
fn crash_and_restart_of_the_one_that_only_the_other_knows() {
    survives_a_crash("crash_and_restart_of_the_one_that_only_the_other_knows", Knows::OnlyA);
}

#[test]
fn crash_and_restart_where_both_know() {
    survives_a_crash("crash_and_restart_where_both_know", Knows::Both);
}

#[test]
fn a_peer_that_was_stopped_and_comes_back_is_found() {
    let test = "a_peer_that_was_stopped_and_comes_back_is_found";
    let Some(mut pair) = Pair::connected(test, Knows::OnlyB) else { return };
    assert_eq!(pair.b.stop(), Some(0));
    wait_until("a says that b is gone", PATIENCE, || (pair.a.peer_state(&pair.b) != "connected").then_some(()));
    let from = SystemTime::now();
    pair.b.start();
    assert!(first_answer(pair.b.host(), pair.a.overlay(false), PATIENCE).is_some());
    assert!(from.elapsed().unwrap() < FIRST_PING, "{:?}", from.elapsed());
}

/// Whose underlay address changes.
#[derive(Clone, Copy, PartialEq)]
enum Mover {
    A,
    B,
}

/// In which order a host gets its new address and loses the old one.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    NewFirst,
    /// In between, the host has neither address nor route.
    OldFirst,
}

/// Gives one of the two another underlay address, with pings running both ways. Only b was told where the other is.
fn roams(test: &str, mover: Mover, order: Order, v6: bool) {
    let Some(pair) = Pair::connected_over(test, Knows::OnlyB, v6) else { return };
    let pings = [
        Ping::start(pair.a.host(), pair.b.overlay(false), INTERVAL),
        Ping::start(pair.b.host(), pair.a.overlay(false), INTERVAL),
    ];
    pings.iter().for_each(|ping| _ = ping.flows_after(SystemTime::now(), PATIENCE));
    let (host, link, number) = match mover {
        Mover::A => (pair.a.host(), &pair.links.0, 1),
        Mover::B => (pair.b.host(), &pair.links.1, 2),
    };
    let (old, new) = match v6 {
        true => (format!("2001:db8::{number}/64"), format!("2001:db8::10{number}/64")),
        false => (format!("192.0.2.{number}/24"), format!("192.0.2.10{number}/24")),
    };
    if order == Order::NewFirst {
        host.add_address(link, &new);
    }
    host.remove_address(link, &old);
    let from = SystemTime::now();
    if order == Order::OldFirst {
        host.add_address(link, &new);
    }
    for ping in &pings {
        let took = ping.flows_after(from, PATIENCE);
        figure(test, &format!("traffic flows {took:.0?} after the change"));
        assert!(took < RECOVERY, "{took:?}");
    }
}

#[test]
fn new_address_of_the_one_that_only_the_other_knows() {
    roams("new_address_of_the_one_that_only_the_other_knows", Mover::B, Order::NewFirst, false);
}

#[test]
fn new_address_of_the_one_that_only_the_other_knows_after_a_gap() {
    roams("new_address_of_the_one_that_only_the_other_knows_after_a_gap", Mover::B, Order::OldFirst, false);
}

#[test]
fn new_address_of_the_one_that_the_other_was_told() {
    roams("new_address_of_the_one_that_the_other_was_told", Mover::A, Order::NewFirst, false);
}

#[test]
fn new_address_of_the_one_that_the_other_was_told_after_a_gap() {
    roams("new_address_of_the_one_that_the_other_was_told_after_a_gap", Mover::A, Order::OldFirst, false);
}

#[test]
fn new_ipv6_address() {
    roams("new_ipv6_address", Mover::A, Order::NewFirst, true);
}

#[test]
fn new_ipv6_address_after_a_gap() {
    roams("new_ipv6_address_after_a_gap", Mover::B, Order::OldFirst, true);
}

#[test]
fn sigterm_takes_back_everything_and_exits_with_0() {
    let test = "sigterm_takes_back_everything_and_exits_with_0";
    let Some(mut pair) = Pair::new(test, Knows::Both, false) else { return };
    let routes_before = pair.a.host().all_routes();
    pair.a.up();
    pair.b.up();
    pair.a.wait_connected(&pair.b);
    assert!(pair.a.host().has_link("vine0"));
    assert!(pair.a.host().all_routes().contains("10.42.2.0/24"), "{}", pair.a.host().all_routes());
    assert!(pair.a.host().all_routes().contains("fd42:0:0:2::/64"), "{}", pair.a.host().all_routes());

    assert_eq!(pair.a.stop(), Some(0));
    assert!(!pair.a.host().has_link("vine0"));
    assert_eq!(pair.a.host().all_routes(), routes_before);
    assert!(!pair.a.control_socket().exists());
    wait_until("b says that a is gone", Duration::from_secs(2), || {
        (pair.b.peer_state(&pair.a) != "connected").then_some(())
    });
}

#[test]
fn sigint_stops_like_sigterm() {
    let Some(mut pair) = Pair::new("sigint_stops_like_sigterm", Knows::Both, false) else { return };
    pair.a.up();
    pair.a.signal(Signal::INT);
    let status = pair.a.daemon().wait(PATIENCE).expect("SIGINT ends the daemon");
    assert_eq!(status.code(), Some(0));
    assert!(!pair.a.host().has_link("vine0"));
}
