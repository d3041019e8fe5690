//! Two relays for a pair that has no direct path: the one that carries goes, the other carries on.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use vine_tests::lab::{Lab, Node, NodeSpec, Ping, figure, first_answer};

use crate::{INTERVAL, PATIENCE};

const OUTAGE: Duration = Duration::from_millis(600);

fn address(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

/// How a relay goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goes {
    /// Killed: it says nothing, its host refuses what comes.
    Crashes,
    /// Told to stop: it says so to its peers.
    Stops,
    /// Nothing of it comes through any more.
    Dark,
}

/// The name of the relay between a and b, as a reports it.
fn relay_of(a: &Node, b: &Node) -> String {
    let session = a.entry("sessions", b.peer_id()).unwrap_or_default();
    session["relay"].as_str().unwrap_or_default().to_owned()
}

fn the_other_relay_carries_on(test: &str, goes: Goes) {
    let Some(lab) = Lab::open(test) else { return };
    let switch = lab.switch("sw");
    let [mut a, mut b, one, other] = [("a", 1), ("b", 2), ("one", 3), ("other", 4)].map(|(name, number)| {
        let host = lab.host(name);
        lab.plug(&host, &[&format!("{}/24", address(number))], &switch);
        Node::new(&host, NodeSpec::numbered(name, number))
    });
    let _apart = switch.cut(address(1), address(2));
    let mut relays = [(one, 3), (other, 4)];
    a.allow(&b);
    b.allow(&a);
    for (relay, number) in &mut relays {
        for node in [&mut a, &mut b] {
            node.allow_as_relay(relay);
            node.bootstrap(relay, &address(*number).to_string());
            relay.allow(node);
        }
        relay.up();
    }
    a.up();
    b.up();
    assert!(first_answer(a.host(), b.overlay(false), PATIENCE).is_some());
    let ping = Ping::start(a.host(), b.overlay(false), INTERVAL);
    a.wait_class(&b, "relay", PATIENCE);
    // The spare is kept ready.
    ping.wait_for_more(200, PATIENCE);

    let before = relay_of(&a, &b);
    let (relay, number) = relays.iter_mut().find(|(node, _)| node.spec.name == before).expect("a names its relay");
    let from = SystemTime::now();
    match goes {
        Goes::Crashes => relay.crash(),
        Goes::Stops => assert_eq!(relay.stop(), Some(0)),
        Goes::Dark => {
            let _both = [1, 2].map(|node| switch.cut(address(node), address(*number)));
        }
    }
    ping.flows_after(from, PATIENCE);
    ping.wait_for_more(50, PATIENCE);
    let outage = ping.longest_gap(from);
    figure(test, &format!("the relay {goes:?}: a 10 ms ping stands still {outage:.0?}"));
    assert!(outage <= OUTAGE, "{outage:?}");
    assert_ne!(relay_of(&a, &b), before);
    a.wait_class(&b, "relay", PATIENCE);
}

#[test]
fn a_relay_crashes() {
    the_other_relay_carries_on("a_relay_crashes", Goes::Crashes);
}

#[test]
fn a_relay_stops() {
    the_other_relay_carries_on("a_relay_stops", Goes::Stops);
}

#[test]
fn a_relay_goes_dark() {
    the_other_relay_carries_on("a_relay_goes_dark", Goes::Dark);
}
