//! The story of the four machines on real kernels with real NAT; `examples/multi-pc` tells it in words.
//!
//! ```text
//!            alpha ──── leased line ──── beta            gamma
//!              │                           │               │
//!     NAT, a port per flow          NAT, port kept   NAT, port kept
//!              └───────────── internet ────┴───────────────┘
//!                                 │
//!                               relay
//! ```
//!
//! alpha and beta talk over the line between them. gamma and beta make holes in their NATs with the help of relay. gamma and
//! alpha cannot, as alpha's NAT shows everyone another port: relay carries their packets. When the line goes dark, relay
//! carries those of alpha and beta too, until the line is back.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod town;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime};

use vine_tests::lab::{Lab, Node, Ping, Transfer, figure, first_answer, wait_until};

use town::Town;

const PATIENCE: Duration = Duration::from_secs(20);
/// Until the path of the expected class carries.
const MEET: Duration = Duration::from_secs(5);
const FAILOVER: Duration = Duration::from_millis(600);
const RETURN: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(10);
/// Bytes, half a second of a transfer here.
const SOME: u64 = 800_000;

/// A TCP connection through the tunnel, from one node to another.
fn transfer(from: &Node, to: &Node, port: u16) -> Transfer {
    Transfer::start(from.host(), to.host(), SocketAddr::new(to.overlay(false), port))
}

/// The relay that carries the path between two nodes, as the first reports it.
fn relay_of(one: &Node, other: &Node) -> String {
    let session = one.entry("sessions", other.peer_id()).unwrap_or_default();
    session["relay"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn four_machines_each_pair_in_its_class_and_tcp_survives_every_switch() {
    let test = "four_machines_each_pair_in_its_class_and_tcp_survives_every_switch";
    let Some(mut town) = Town::new(test) else { return };
    town.up();
    let from = SystemTime::now();
    for (one, other) in [(&town.alpha, &town.beta), (&town.gamma, &town.beta), (&town.gamma, &town.alpha)] {
        assert!(first_answer(one.host(), other.overlay(false), PATIENCE).is_some(), "{}", one.spec.name);
    }
    figure(test, &format!("every pair answered {:.0?} after the last daemon's start", from.elapsed().unwrap()));

    let pings = [(&town.alpha, &town.beta), (&town.gamma, &town.beta), (&town.gamma, &town.alpha)]
        .map(|(one, other)| Ping::start(one.host(), other.overlay(false), INTERVAL));
    let transfers = [
        transfer(&town.alpha, &town.beta, 7001),
        transfer(&town.gamma, &town.beta, 7002),
        transfer(&town.gamma, &town.alpha, 7003),
        transfer(&town.beta, &town.alpha, 7004),
    ];
    town.alpha.wait_class(&town.beta, "direct", MEET);
    town.gamma.wait_class(&town.beta, "signaling_then_direct", MEET);
    town.gamma.wait_class(&town.alpha, "relay", MEET);
    assert_eq!(relay_of(&town.gamma, &town.alpha), "relay");
    transfers.iter().for_each(|transfer| transfer.wait_for_more(SOME, PATIENCE));
    town.assert_paths_by_counters();

    let (fallbacks, relayed) = (town.alpha.counter("fallback_transitions"), town.alpha.counter("relay_usage"));
    let cut_at = SystemTime::now();
    let line = town.cut_the_line();
    let outage = pings[0].flows_after(cut_at, PATIENCE).max(pings[0].longest_gap(cut_at));
    figure(test, &format!("the line goes dark: pings flow again after {outage:.0?}"));
    assert!(outage < FAILOVER, "{outage:?}");
    town.alpha.wait_class(&town.beta, "relay", RETURN);
    assert!(town.alpha.counter("fallback_transitions") > fallbacks);
    assert!(town.alpha.counter("relay_usage") > relayed);
    transfers.iter().for_each(|transfer| transfer.wait_for_more(SOME, PATIENCE));
    town.alpha.wait_class(&town.beta, "relay", RETURN);

    let lifted = SystemTime::now();
    line.lift();
    town.alpha.wait_class(&town.beta, "direct", RETURN);
    figure(test, &format!("the line is back: direct again within {:.0?}", lifted.elapsed().unwrap()));
    transfers.iter().for_each(|transfer| transfer.wait_for_more(SOME, PATIENCE));
    pings[0].wait_for_more(50, PATIENCE);
    assert_eq!(pings[0].lost_since(lifted), 0, "the way back loses nothing");
    town.assert_paths_by_counters();
    for ping in &pings[1..] {
        assert_eq!(ping.lost_since(cut_at), 0, "the other pairs notice nothing");
    }
    for transfer in transfers {
        let arrived = transfer.finish();
        println!("{test}: {arrived:?}");
    }
}

#[test]
fn a_pair_that_met_finds_each_other_again_without_any_common_peer() {
    let test = "a_pair_that_met_finds_each_other_again_without_any_common_peer";
    let Some(mut town) = Town::new(test) else { return };
    town.up();
    assert!(first_answer(town.gamma.host(), town.beta.overlay(false), PATIENCE).is_some());
    town.gamma.wait_class(&town.beta, "signaling_then_direct", MEET);
    town.alpha.stop();
    town.relay.stop();
    for node in [&mut town.beta, &mut town.gamma] {
        assert_eq!(node.stop(), Some(0));
    }
    let from = SystemTime::now();
    town.beta.up();
    town.gamma.up();
    // Beta's NAT lets gamma in only once beta has called too.
    let ping = Ping::start(town.beta.host(), town.gamma.overlay(false), INTERVAL);
    assert!(first_answer(town.gamma.host(), town.beta.overlay(false), PATIENCE).is_some());
    figure(test, &format!("answered {:.0?} after the restart", from.elapsed().unwrap()));
    wait_until("and the other way", MEET, || (!ping.replies().is_empty()).then_some(()));
}

#[test]
fn a_peer_that_allows_no_relay_is_not_reached_by_one() {
    let test = "a_peer_that_allows_no_relay_is_not_reached_by_one";
    let Some(mut town) = Town::new(test) else { return };
    town.alpha.spec.allow_relay = false;
    town.up();
    assert!(first_answer(town.alpha.host(), town.beta.overlay(false), PATIENCE).is_some());
    town.alpha.wait_connected(&town.beta);
    assert_eq!(first_answer(town.gamma.host(), town.alpha.overlay(false), MEET), None);
    assert_eq!(first_answer(town.alpha.host(), town.gamma.overlay(false), MEET), None);
    assert!(first_answer(town.gamma.host(), town.beta.overlay(false), PATIENCE).is_some(), "the others are reached");
}

#[test]
fn the_script_of_the_example_plays_it() {
    // The script has namespaces of its own; an open lab keeps other tests from measuring at the same time.
    let Some(_lab) = Lab::open("the_script_of_the_example_plays_it") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/multi-pc/run.sh");
    let done = Command::new("bash").arg(script).env("VINE_BIN", vine_tests::lab::vine_binary()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    for words in ["direct", "signaling_then_direct", "by relay", "every byte"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains("vine-demo-"), "it cleans up after itself");
}
