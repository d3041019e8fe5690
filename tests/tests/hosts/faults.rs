//! A start that has to fail: a clear message, the exit code, and nothing left behind.

use std::net::SocketAddr;
use std::time::Duration;

use vine_tests::lab::{Finished, Host, Lab, Node, NodeSpec, vine_binary};

const LIMIT: Duration = Duration::from_secs(5);

/// One host with an address, and a node on it.
fn single(test: &str) -> Option<(Node, Lab)> {
    let lab = Lab::open(test)?;
    let (host, other) = (lab.host("a"), lab.host("b"));
    lab.link(&host, &["192.0.2.1/24"], &other, &["192.0.2.2/24"]);
    let node = Node::new(&host, NodeSpec::numbered("a", 1));
    node.write_config();
    Some((node, lab))
}

/// What a failed start must not change.
fn state_of(host: &Host) -> (String, String) {
    (host.ip_show(&["-br", "link", "show"]), host.all_routes())
}

/// Asserts exit code and message of a start that failed.
fn assert_says(failed: &Finished, code: i32, words: &[&str]) {
    let text = failed.stderr.to_lowercase();
    assert_eq!(failed.code, code, "{failed:?}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {}", failed.stderr);
    }
    assert!(!text.contains("panicked"), "{}", failed.stderr);
}

#[test]
fn second_daemon_on_the_same_configuration() {
    let Some((mut node, _lab)) = single("second_daemon_on_the_same_configuration") else { return };
    node.up();
    let before = state_of(node.host());
    assert_says(&node.up_to_the_end(LIMIT), 1, &["already", "running"]);
    assert_eq!(state_of(node.host()), before);
    assert!(node.query("status").is_ok(), "the first one goes on");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn port_in_use() {
    let Some((node, _lab)) = single("port_in_use") else { return };
    let address: SocketAddr = "0.0.0.0:4100".parse().unwrap();
    let _taken = node.host().udp_socket(address);
    let before = state_of(node.host());
    assert_says(&node.up_to_the_end(LIMIT), 1, &["4100", "in use"]);
    assert_eq!(state_of(node.host()), before);
    assert!(!node.control_socket().exists());
}

#[test]
fn tun_name_taken_by_another_device() {
    let Some((node, _lab)) = single("tun_name_taken_by_another_device") else { return };
    node.host().ip(&["link", "add", "vine0", "type", "veth", "peer", "name", "other"]);
    let before = state_of(node.host());
    assert_says(&node.up_to_the_end(LIMIT), 1, &["vine0"]);
    assert_eq!(state_of(node.host()), before);
    assert!(!node.control_socket().exists());
}

#[test]
fn tun_name_taken_by_another_daemon() {
    let Some((mut node, _lab)) = single("tun_name_taken_by_another_daemon") else { return };
    node.up();
    let mut spec = NodeSpec::numbered("second", 2);
    spec.listen = vec!["udp://0.0.0.0:4200".to_owned()];
    let second = Node::new(node.host(), spec);
    second.write_config();
    let before = state_of(node.host());
    assert_says(&second.up_to_the_end(LIMIT), 1, &["vine0"]);
    assert_eq!(state_of(node.host()), before);
    assert!(!second.control_socket().exists());
    assert!(node.query("status").is_ok(), "the first one goes on");
}

#[test]
fn no_permission() {
    let Some((node, _lab)) = single("no_permission") else { return };
    // Where the tests are built, another user may not reach.
    let binary = node.host().dir().join("vine");
    std::fs::copy(vine_binary(), &binary).unwrap();
    let (dir, config) = (node.dir().to_string_lossy(), node.config());
    assert!(node.host().run("chown", &["-R", "65534:65534", &dir]).ok());
    let before = state_of(node.host());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let up = [&binary.to_string_lossy(), "up", "-c", &config.to_string_lossy()];
    let mut process = node.host().spawn("nobody", "setpriv", &[&nobody[..], &up[..]].concat());
    let status = process.wait(LIMIT).expect("it ends");
    let failed = Finished { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: process.output() };
    assert_says(&failed, 1, &["not permitted", "vine0", "root", "cap_net_admin"]);
    assert_eq!(state_of(node.host()), before);
    assert!(!node.control_socket().exists());
}

#[test]
fn faulty_configuration() {
    let Some((mut node, _lab)) = single("faulty_configuration") else { return };
    node.spec.addresses.push("10.42.1.300/24".to_owned());
    node.write_config();
    let before = state_of(node.host());
    assert_says(&node.up_to_the_end(LIMIT), 2, &["10.42.1.300/24", "vine.toml"]);
    assert_eq!(state_of(node.host()), before);
    assert!(!node.control_socket().exists());
}

#[test]
fn after_a_crash_the_next_start_needs_no_help() {
    let Some((mut node, _lab)) = single("after_a_crash_the_next_start_needs_no_help") else { return };
    let before = state_of(node.host());
    node.up();
    node.crash();
    node.up();
    assert_eq!(node.stop(), Some(0));
    assert_eq!(state_of(node.host()), before);
}
