//! Who is not a peer gets nothing, and a peer cannot pretend to be another.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use vine_tests::lab::{NodeSpec, Ping, wait_until};

use crate::pair::{Knows, Pair};

const PATIENCE: Duration = Duration::from_secs(10);

/// A vine daemon that knows a's address, key and, but for what `change` does, network, and yet is not a peer.
/// It says Hello at least three times; not one byte may come back.
fn gets_nothing(test: &str, listed: bool, change: impl FnOnce(&mut NodeSpec)) {
    let Some(mut pair) = Pair::new(test, Knows::OnlyA, false) else { return };
    let (a, stranger) = (&mut pair.a, &mut pair.b);
    a.spec.bootstrap.clear();
    if !listed {
        a.spec.allowed.clear();
    }
    stranger.bootstrap(a, "192.0.2.1");
    change(&mut stranger.spec);
    a.up();
    let counter = stranger.host().count_udp("192.0.2.1:4100".parse().unwrap());
    stranger.up();
    wait_until("the stranger has said Hello three times", PATIENCE, || (counter.sent() >= 3).then_some(()));
    assert_eq!(counter.received(), 0);
    assert_ne!(stranger.peer_state(a), "connected");
    let dropped = a.query("counters").unwrap()["drops"].clone();
    assert!(dropped.as_object().is_some_and(|d| d.values().any(|n| n.as_u64() >= Some(3))), "counted: {dropped}");
}

#[test]
fn a_key_that_is_not_in_the_list_gets_nothing() {
    gets_nothing("a_key_that_is_not_in_the_list_gets_nothing", false, |_| ());
}

#[test]
fn another_network_id_gets_nothing() {
    gets_nothing("another_network_id_gets_nothing", true, |spec| spec.network_id = "other".to_owned());
}

#[test]
fn another_network_key_gets_nothing() {
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned();
    gets_nothing("another_network_key_gets_nothing", true, |spec| spec.network_key = Some(key));
}

#[test]
fn junk_gets_nothing_and_disturbs_nobody() {
    let test = "junk_gets_nothing_and_disturbs_nobody";
    let Some(pair) = Pair::connected(test, Knows::OnlyB) else { return };
    let stranger = pair.lab.host("c");
    pair.lab.link(&stranger, &["198.51.100.2/24"], pair.a.host(), &["198.51.100.1/24"]);
    let ping = Ping::start(pair.b.host(), pair.a.overlay(false), Duration::from_millis(10));
    ping.flows_after(SystemTime::now(), PATIENCE);

    let daemon: SocketAddr = "198.51.100.1:4100".parse().unwrap();
    let counter = stranger.count_udp(daemon);
    let socket = stranger.udp_socket("198.51.100.2:4100".parse().unwrap());
    for datagram in junk() {
        socket.send_to(&datagram, daemon).unwrap();
    }
    wait_until("the junk was counted", PATIENCE, || {
        let drops =
            pair.a.query("counters").ok()?["drops"].as_object()?.values().filter_map(|n| n.as_u64()).sum::<u64>();
        (drops > 1000).then_some(())
    });
    assert_eq!(counter.received(), 0);
    ping.wait_for_more(20, PATIENCE);
    assert_eq!(ping.finish().1, 0, "no ping was lost");
}

/// Datagrams of every length up to 1,400 and of every type byte, most with a header that looks right.
fn junk() -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..1400_usize).map(move |length| {
        let mut bytes: Vec<u8> = (0..length).map(|_| random()).collect();
        let header = [0x56, 1, length as u8, (length / 256) as u8];
        if length % 4 != 0 {
            bytes.iter_mut().zip(header).for_each(|(byte, value)| *byte = value);
        }
        bytes
    })
}

#[test]
fn a_foreign_source_address_is_dropped_and_counted() {
    let test = "a_foreign_source_address_is_dropped_and_counted";
    let Some(mut pair) = Pair::new(test, Knows::Both, false) else { return };
    // b believes that it owns 10.66.0.0/24 as well; a was never told so.
    pair.b.spec.addresses.push("10.66.0.1/24".to_owned());
    pair.a.up();
    pair.b.up();
    pair.a.wait_connected(&pair.b);
    let target = pair.a.overlay(false).to_string();
    let honest = pair.b.host().run("ping", &["-n", "-q", "-c1", "-W1", "-I", "10.42.2.1", &target]);
    assert!(honest.ok(), "{honest:?}");
    let before = pair.a.drops("unauthorized_source");
    let forged = pair.b.host().run("ping", &["-n", "-q", "-c3", "-i0.05", "-W0.2", "-I", "10.66.0.1", &target]);
    assert!(!forged.ok(), "{forged:?}");
    wait_until("all three are counted", PATIENCE, || (pair.a.drops("unauthorized_source") >= before + 3).then_some(()));
    assert_eq!(pair.a.peer_state(&pair.b), "connected");
}
