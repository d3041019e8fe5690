//! Routers with NAT, cuts, counters, transfers and the delaying proxy of the laboratory, without vine.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use vine_tests::lab::{Datagrams, Host, Lab, Ping, Ports, Switch, Transfer, poll_until, send_at_once, wait_until};

const LIMIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(host: &Host, address: &str) -> UdpSocket {
    let socket = host.udp_socket(at(address));
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// Sends a datagram and returns from where it came, where it did.
fn crosses(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"hello", to).unwrap();
    match receiver.recv_from(&mut [0; 16]) {
        Ok((_, source)) => Some(source),
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{e}");
            None
        }
    }
}

/// A host behind a NAT, and sockets: its own, two of hosts outside.
fn behind_nat(test: &str, ports: Ports) -> Option<([UdpSocket; 3], Lab)> {
    let lab = Lab::open(test)?;
    let internet = lab.switch("net");
    let (inside, one, other) = (lab.host("inside"), lab.host("one"), lab.host("other"));
    lab.plug(&one, &["203.0.113.1/24"], &internet);
    lab.plug(&other, &["203.0.113.2/24"], &internet);
    let nat = lab.nat("nat", "203.0.113.11/24", ports, &internet);
    lab.behind(nat.host(), &inside, "10.11.0");
    let sockets = [(&inside, "10.11.0.2:4100"), (&one, "203.0.113.1:4100"), (&other, "203.0.113.2:4100")];
    Some((sockets.map(|(host, address)| socket(host, address)), lab))
}

#[test]
fn masquerade_keeps_the_port_and_lets_in_only_answers() {
    let test = "masquerade_keeps_the_port_and_lets_in_only_answers";
    let Some(([inside, one, other], _lab)) = behind_nat(test, Ports::Kept) else { return };
    let outer = at("203.0.113.11:4100");
    assert_eq!(crosses(&other, outer, &inside), None, "nothing comes in unasked");
    assert_eq!(crosses(&inside, one.local_addr().unwrap(), &one), Some(outer));
    assert_eq!(crosses(&other, outer, &inside), None, "another one is not who was asked");
    assert_eq!(crosses(&inside, other.local_addr().unwrap(), &other), Some(outer), "both see the same address");
    assert_eq!(crosses(&one, outer, &inside), Some(one.local_addr().unwrap()));
    assert_eq!(crosses(&other, outer, &inside), Some(other.local_addr().unwrap()));
}

#[test]
fn fully_random_masquerade_shows_everyone_another_port() {
    let test = "fully_random_masquerade_shows_everyone_another_port";
    let Some(([inside, one, other], _lab)) = behind_nat(test, Ports::Random) else { return };
    let to_one = crosses(&inside, one.local_addr().unwrap(), &one).unwrap();
    let to_other = crosses(&inside, other.local_addr().unwrap(), &other).unwrap();
    assert_eq!((to_one.ip(), to_other.ip()), (ip("203.0.113.11"), ip("203.0.113.11")));
    assert_ne!(to_one.port(), to_other.port());
    assert_eq!(crosses(&one, to_one, &inside), Some(one.local_addr().unwrap()));
    assert_eq!(crosses(&one, to_other, &inside), None);
}

/// Two hosts on a switch.
fn two(test: &str) -> Option<(Host, Host, Switch, Lab)> {
    let lab = Lab::open(test)?;
    let switch = lab.switch("sw");
    let (a, b) = (lab.host("a"), lab.host("b"));
    lab.plug(&a, &["192.0.2.1/24", "2001:db8::1/64"], &switch);
    lab.plug(&b, &["192.0.2.2/24", "2001:db8::2/64"], &switch);
    Some((a, b, switch, lab))
}

#[test]
fn a_cut_is_silent_and_counters_count_what_passes() {
    let Some((a, b, switch, _lab)) = two("a_cut_is_silent_and_counters_count_what_passes") else { return };
    for (v6, one, other) in [(false, "192.0.2.1:9", "192.0.2.2:9"), (true, "[2001:db8::1]:9", "[2001:db8::2]:9")] {
        let (from, to) = (at(one), at(other));
        let (sender, receiver) = (socket(&a, one), socket(&b, other));
        let small = switch.count(from.ip(), to.ip(), 13..=13);
        let others = switch.count(from.ip(), to.ip(), 14..=65_535);
        assert!(crosses(&sender, to, &receiver).is_some());
        let cut = switch.cut(from.ip(), to.ip());
        assert!(crosses(&sender, to, &receiver).is_none(), "v6: {v6}");
        assert!(crosses(&receiver, from, &sender).is_none());
        cut.lift();
        assert!(crosses(&receiver, from, &sender).is_some());
        let cut = switch.cut_one_way(from.ip(), to.ip());
        assert!(crosses(&sender, to, &receiver).is_none());
        assert!(crosses(&receiver, from, &sender).is_some());
        cut.lift();
        assert!(crosses(&sender, to, &receiver).is_some());
        assert_eq!((small.packets(), others.packets()), (2, 0), "what was cut is not counted");
    }
}

#[test]
fn a_transfer_stands_still_during_a_cut_and_loses_nothing() {
    let Some((a, b, switch, _lab)) = two("a_transfer_stands_still_during_a_cut_and_loses_nothing") else { return };
    let transfer = Transfer::start(&a, &b, at("192.0.2.2:7000"));
    transfer.wait_for_more(100_000, LIMIT);
    let cut = switch.cut(ip("192.0.2.1"), ip("192.0.2.2"));
    let stands = || {
        let before = transfer.received();
        poll_until(SHORT, || (transfer.received() > before).then_some(())).is_none().then_some(())
    };
    wait_until("nothing more comes", LIMIT, stands);
    cut.lift();
    transfer.wait_for_more(100_000, LIMIT);
    let arrived = transfer.finish();
    assert!(arrived.longest_gap >= SHORT && arrived.bytes >= 200_000, "{arrived:?}");
    assert!(send_at_once(&a, &b, at("[2001:db8::2]:7001"), 1 << 20) < LIMIT);
}

#[test]
fn a_stream_of_datagrams_notices_a_cut() {
    let Some((a, b, switch, _lab)) = two("a_stream_of_datagrams_notices_a_cut") else { return };
    let stream = Datagrams::start(&a, &b, at("192.0.2.2:7000"));
    stream.wait_for_more(20, LIMIT);
    let from = Instant::now();
    let cut = switch.cut_one_way(ip("192.0.2.1"), ip("192.0.2.2"));
    let stands = || poll_until(SHORT, || (stream.last() > from + SHORT).then_some(())).is_none().then_some(());
    wait_until("nothing more comes", LIMIT, stands);
    cut.lift();
    stream.wait_for_more(20, LIMIT);
    assert!(stream.longest_gap(from) >= SHORT, "{:?}", stream.longest_gap(from));
}

#[test]
fn the_proxy_delays_both_ways() {
    let Some((a, b, _switch, _lab)) = two("the_proxy_delays_both_ways") else { return };
    let words = ["192.0.2.2:4100", "192.0.2.2:4200", "both", "delay=25", "back", "delay=35"];
    let proxy = b.spawn("proxy", env!("CARGO_BIN_EXE_udp-proxy"), &words);
    wait_until("the proxy is ready", LIMIT, || proxy.output().contains("ready").then_some(()));
    let (client, server) = (socket(&a, "192.0.2.1:4100"), socket(&b, "192.0.2.2:4200"));
    let start = Instant::now();
    let outer = crosses(&client, at("192.0.2.2:4100"), &server).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(25));
    assert_eq!(crosses(&server, outer, &client), Some(at("192.0.2.2:4100")));
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn what_a_ping_lost_after_a_moment_is_counted() {
    let Some((a, _b, switch, _lab)) = two("what_a_ping_lost_after_a_moment_is_counted") else { return };
    let ping = Ping::start(&a, ip("192.0.2.2"), Duration::from_millis(10));
    let from = std::time::SystemTime::now();
    ping.wait_for_more(20, LIMIT);
    let cut = switch.cut(ip("192.0.2.1"), ip("192.0.2.2"));
    wait_until("nothing is answered any more", LIMIT, || {
        let before = ping.replies().len();
        poll_until(SHORT, || (ping.replies().len() > before).then_some(())).is_none().then_some(())
    });
    cut.lift();
    let lifted = std::time::SystemTime::now();
    ping.wait_for_more(20, LIMIT);
    assert!(ping.longest_gap(from) >= SHORT, "{:?}", ping.longest_gap(from));
    assert!(ping.lost_since(from) >= 5, "{}", ping.lost_since(from));
    assert_eq!(ping.lost_since(lifted), 0);
}
