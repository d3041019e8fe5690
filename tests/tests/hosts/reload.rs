//! SIGHUP: peers come and go, the session that stays does not notice.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use vine_tests::lab::{Lab, Node, NodeSpec, Ping, wait_until};

const PATIENCE: Duration = Duration::from_secs(5);

/// Nodes a, b and c on a switch; a and b know each other, c knows a.
fn three(test: &str) -> Option<(Node, Node, Node, Lab)> {
    let lab = Lab::open(test)?;
    let switch = lab.switch("sw");
    let mut nodes = [("a", 1), ("b", 2), ("c", 3)].map(|(name, number)| {
        let host = lab.host(name);
        lab.plug(&host, &[&format!("192.0.2.{number}/24")], &switch);
        Node::new(&host, NodeSpec::numbered(name, number))
    });
    let [a, b, c] = &mut nodes;
    a.allow(b);
    a.bootstrap(b, "192.0.2.2");
    for node in [b, c] {
        node.allow(a);
        node.bootstrap(a, "192.0.2.1");
    }
    let [a, b, c] = nodes;
    Some((a, b, c, lab))
}

fn handshake_age(node: &Node, peer: &Node) -> f64 {
    node.entry("sessions", peer.peer_id()).and_then(|session| session["handshake_age_s"].as_f64()).expect("a session")
}

#[test]
fn reload_adds_and_removes_a_peer_and_the_other_session_stays() {
    let test = "reload_adds_and_removes_a_peer_and_the_other_session_stays";
    let Some((mut a, mut b, mut c, _lab)) = three(test) else { return };
    for node in [&mut a, &mut b, &mut c] {
        node.up();
    }
    a.wait_connected(&b);
    assert!(a.entry("peers", c.peer_id()).is_none(), "c is a stranger so far");

    let ping = Ping::start(a.host(), b.overlay(false), Duration::from_millis(10));
    ping.flows_after(SystemTime::now(), PATIENCE);
    let age = handshake_age(&a, &b);

    a.allow(&c);
    a.write_config();
    a.signal(Signal::HUP);
    a.wait_connected(&c);
    assert!(a.host().all_routes().contains("10.42.3.0/24"));

    a.spec.allowed.retain(|peer| peer.name != "c");
    a.write_config();
    let done = a.vine(&["daemon", "reload", "-c", &a.config().to_string_lossy()]);
    assert!(done.ok(), "vine daemon reload: {}", done.stderr);
    wait_until("c is no peer any more", PATIENCE, || a.entry("peers", c.peer_id()).is_none().then_some(()));
    wait_until("nor does c think so", PATIENCE, || (c.peer_state(&a) != "connected").then_some(()));
    assert!(!a.host().all_routes().contains("10.42.3.0/24"));

    ping.wait_for_more(20, PATIENCE);
    let (replies, lost) = ping.finish();
    assert_eq!(lost, 0, "of {}", replies.len());
    assert!(handshake_age(&a, &b) > age, "the session was not made anew");
}

#[test]
fn a_faulty_configuration_is_not_taken_by_reload() {
    let test = "a_faulty_configuration_is_not_taken_by_reload";
    let Some((mut a, mut b, _c, _lab)) = three(test) else { return };
    a.up();
    b.up();
    a.wait_connected(&b);
    std::fs::write(a.config(), "[node]\nnmae = \"a\"\n").unwrap();
    let done = a.vine(&["daemon", "reload", "-c", &a.config().to_string_lossy()]);
    assert_ne!(done.code, 0, "{done:?}");
    a.signal(Signal::HUP);
    wait_until("the daemon's log names the fault", PATIENCE, || a.daemon().output().contains("nmae").then_some(()));
    let ping = Ping::start(a.host(), b.overlay(false), Duration::from_millis(10));
    ping.flows_after(SystemTime::now(), PATIENCE);
}
