//! What `vine` says about the daemon is true.

use std::time::Duration;

use vine_tests::lab::{Node, first_answer, wait_until};

use crate::pair::{Knows, Pair};

const PATIENCE: Duration = Duration::from_secs(10);

fn vine_ping(from: &Node, target: &str) -> vine_tests::lab::Finished {
    let config = from.config();
    from.vine(&[
        "ping",
        target,
        "--count",
        "2",
        "--interval",
        "0.05",
        "--timeout",
        "0.5",
        "-c",
        &config.to_string_lossy(),
    ])
}

#[test]
fn reports_follow_the_peer_from_connected_to_gone() {
    let test = "reports_follow_the_peer_from_connected_to_gone";
    let Some(mut pair) = Pair::connected(test, Knows::OnlyB) else { return };
    let (a, b) = (&mut pair.a, &mut pair.b);
    let status = a.query("status").unwrap();
    for (key, value) in [("name", "a"), ("network_id", "lab"), ("peer_id", a.peer_id())] {
        assert_eq!(status[key], value, "{status}");
    }
    assert_eq!((&status["peers_total"], &status["peers_connected"]), (&1.into(), &1.into()), "{status}");

    let peer = a.entry("peers", b.peer_id()).unwrap();
    assert_eq!(peer["name"], "b");
    assert_eq!(peer["prefixes"], serde_json::json!(["10.42.2.0/24", "fd42:0:0:2::/64"]));
    let routes = a.query("routes").unwrap();
    for prefix in ["10.42.2.0/24", "fd42:0:0:2::/64"] {
        let installed = routes.as_array().unwrap().iter().any(|r| r["prefix"] == prefix && r["installed"] == true);
        assert!(installed, "{prefix}: {routes}");
    }

    let before = a.entry("sessions", b.peer_id()).unwrap();
    assert_eq!(before["class"], "direct");
    assert!(before["path"].as_str().unwrap().contains("192.0.2.2:4100"), "{before}");
    let big = a.host().run("ping", &["-n", "-q", "-c5", "-i0.02", "-s1000", &b.overlay(false).to_string()]);
    assert!(big.ok(), "{big:?}");
    let grown = |key: &str, json: &serde_json::Value| json[key].as_u64().unwrap() - before[key].as_u64().unwrap();
    let after = a.entry("sessions", b.peer_id()).unwrap();
    assert!(grown("tx_bytes", &after) >= 5 * 1028 && grown("rx_bytes", &after) >= 5 * 1028, "{before} {after}");

    for target in ["b", "10.42.2.1", "fd42:0:0:2::1"] {
        let ping = vine_ping(a, target);
        assert!(ping.ok() && ping.stdout.contains("192.0.2.2:4100"), "{target}: {ping:?}");
    }

    // Nothing is sent, so nothing can be known of the crash until somebody asks; then the reports know it too.
    b.crash();
    let ping = vine_ping(a, "b");
    assert_eq!(ping.code, 1, "{ping:?}");
    assert!(!ping.stdout.contains("192.0.2.2"), "no path carried it: {ping:?}");
    wait_until("a says that b is not connected", PATIENCE, || (a.peer_state(b) != "connected").then_some(()));
    assert_eq!(a.query("status").unwrap()["peers_connected"], 0);
}

#[test]
fn a_stopped_daemon_is_said_to_be_stopped() {
    let test = "a_stopped_daemon_is_said_to_be_stopped";
    let Some(mut pair) = Pair::connected(test, Knows::Both) else { return };
    let a = &mut pair.a;
    assert_eq!(a.query("status").unwrap()["name"], "a");
    assert_eq!(a.stop(), Some(0));
    for what in ["status", "peers", "sessions", "counters", "routes"] {
        let error = a.query(what).unwrap_err();
        assert_eq!(error.code, 1, "{what}: {error:?}");
        assert!(error.message.contains("not running"), "{what}: {}", error.message);
    }
    let ping = vine_ping(a, "b");
    assert!(ping.code == 1 && ping.stderr.contains("not running"), "{ping:?}");

    // One that was killed leaves its socket behind, and is not taken for a running one.
    a.start();
    wait_until("a answers", PATIENCE, || a.query("status").ok());
    a.crash();
    let error = a.query("status").unwrap_err();
    assert!(error.code == 1 && error.message.contains("not running"), "{error:?}");
}

#[test]
fn vine_down_stops_the_daemon() {
    let Some(mut pair) = Pair::connected("vine_down_stops_the_daemon", Knows::Both) else { return };
    let a = &mut pair.a;
    let done = a.vine(&["down", "-c", &a.config().to_string_lossy()]);
    assert!(done.ok(), "{done:?}");
    let status = a.daemon().wait(PATIENCE).expect("`vine down` ends the daemon");
    assert_eq!(status.code(), Some(0));
    assert!(!a.host().has_link("vine0"));
}

#[test]
fn a_packet_for_nobody_is_counted() {
    let Some(pair) = Pair::connected("a_packet_for_nobody_is_counted", Knows::Both) else { return };
    // The kernel hands over what the node's own prefix covers; nobody has this address.
    pair.a.host().ip(&["route", "add", "10.99.0.0/24", "dev", "vine0"]);
    let before = pair.a.drops("unknown_route");
    assert!(first_answer(pair.a.host(), "10.99.0.9".parse().unwrap(), Duration::ZERO).is_none());
    wait_until("it is counted", PATIENCE, || (pair.a.drops("unknown_route") > before).then_some(()));
    assert!(pair.a.query("counters").unwrap()["route_misses"].as_u64() > Some(0));
}
