//! The daemon's life and its control socket, on a real host. What happens between daemons is tested in `vine-tests`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vine_tests::lab::{Finished, Lab, Node, NodeSpec, wait_until};

const PATIENCE: Duration = Duration::from_secs(5);

/// One host with an address, and a node on it that knows one peer, which is never there.
fn single(test: &str) -> Option<(Node, Lab)> {
    let lab = Lab::open(test)?;
    let (host, other) = (lab.host("a"), lab.host("b"));
    lab.link(&host, &["192.0.2.1/24"], &other, &["192.0.2.2/24"]);
    let mut node = Node::new(&host, NodeSpec::numbered("a", 1));
    let peer = Node::new(&other, NodeSpec::numbered("b", 2));
    node.allow(&peer);
    node.bootstrap(&peer, "192.0.2.2");
    node.write_config();
    Some((node, lab))
}

/// Runs `vine` on the node's host with its configuration; the binary is the one that was built with this test.
fn vine(node: &Node, args: &[&str]) -> Finished {
    let config = node.config();
    let config = config.to_string_lossy();
    let args = [args, &["-c", &config]].concat();
    node.host().run(env!("CARGO_BIN_EXE_vine"), &args)
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// A detached daemon; it is stopped when this goes, so that no test leaves one behind.
struct Started<'a>(&'a Node);

impl Drop for Started<'_> {
    fn drop(&mut self) {
        vine(self.0, &["daemon", "stop"]);
    }
}

fn start(node: &Node) -> (Started<'_>, Value) {
    let started = vine(node, &["daemon", "start", "--format", "json"]);
    assert!(started.ok(), "{started:?}");
    (Started(node), json(&started))
}

/// One HTTP request over the control socket, as `curl --unix-socket` makes it: status and body.
fn http(socket: &Path, request: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.write_all(request.as_bytes()).expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the daemon answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn get(socket: &Path, path: &str) -> (u16, Value) {
    http(socket, &format!("GET {path} HTTP/1.1\r\nhost: vine\r\nconnection: close\r\n\r\n"))
}

fn post(socket: &Path, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    http(
        socket,
        &format!("POST {path} HTTP/1.1\r\nhost: vine\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
    )
}

#[test]
fn a_detached_daemon_starts_answers_and_stops() {
    let Some((node, _lab)) = single("a_detached_daemon_starts_answers_and_stops") else { return };
    let before = node.host().all_routes();
    let (daemon, started) = start(&node);
    assert_eq!(started["phase"], "running");
    assert!(node.host().has_link("vine0"));
    let status = vine(&node, &["daemon", "status", "--format", "json"]);
    assert_eq!((status.code, &json(&status)["running"]), (0, &Value::Bool(true)), "{status:?}");
    assert_eq!(json(&status)["pid"], started["pid"]);
    let mode = std::fs::metadata(node.control_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = vine(&node, &["daemon", "start"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains(&format!("already running (pid {})", started["pid"])), "{again:?}");

    let stopped = vine(&node, &["daemon", "stop"]);
    assert!(stopped.ok(), "{stopped:?}");
    assert!(!node.control_socket().exists() && !node.host().has_link("vine0"));
    assert_eq!(node.host().all_routes(), before);
    // At once after a stop, the next start finds nothing in its way.
    let (_next, _) = start(&node);
    drop(daemon);
    let log = std::fs::read_to_string(node.dir().join("vine.log")).unwrap();
    assert_eq!(log.matches("is up").count(), 2, "{log}");
}

#[test]
fn a_detached_daemon_that_cannot_start_says_why() {
    let Some((mut node, _lab)) = single("a_detached_daemon_that_cannot_start_says_why") else { return };
    let _taken = node.host().udp_socket("0.0.0.0:4100".parse().unwrap());
    let failed = vine(&node, &["daemon", "start"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("4100") && failed.stderr.contains("in use"), "{failed:?}");
    assert!(!node.control_socket().exists() && !node.host().has_link("vine0"));
    node.spec.addresses.push("10.42.1.300/24".to_owned());
    node.write_config();
    let failed = vine(&node, &["daemon", "start"]);
    assert!(failed.code == 2 && failed.stderr.contains("10.42.1.300"), "{failed:?}");
}

#[test]
fn the_control_socket_speaks_http_and_json() {
    let Some((node, _lab)) = single("the_control_socket_speaks_http_and_json") else { return };
    let (_daemon, _) = start(&node);
    let socket = node.control_socket();
    let (code, status) = get(&socket, "/v1/status");
    assert_eq!(code, 200);
    let keys: Vec<&str> = status.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["log", "name", "network_id", "peer_id", "peers_connected", "peers_total", "phase", "uptime_s"]);
    let lists = [
        ("peers", vec!["last_seen_s", "name", "peer_id", "prefixes", "relay_capable", "rtt_ms", "state"]),
        ("routes", vec!["installed", "peer", "prefix"]),
    ];
    for (list, expected) in lists {
        let (code, entries) = get(&socket, &format!("/v1/{list}"));
        assert_eq!(code, 200);
        let keys: Vec<&str> = entries[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, expected);
    }
    assert_eq!(get(&socket, "/v1/sessions"), (200, serde_json::json!([])));
    assert_eq!(get(&socket, "/v1/relayed"), (200, serde_json::json!([])));
    let (_, netcheck) = get(&socket, "/v1/netcheck");
    assert_eq!((&netcheck["udp"], &netcheck["hairpin"]), (&Value::Null, &"unknown".into()), "{netcheck}");
    assert_eq!(netcheck["ipv4"]["addresses"], serde_json::json!(["192.0.2.1"]), "{netcheck}");
    let (code, why) = post(&socket, "/v1/why", r#"{"target":"b"}"#);
    assert_eq!((code, &why["session"], &why["way"]), (200, &false.into(), &Value::Null), "{why}");
    assert_eq!(why["known"][0]["address"], "192.0.2.2:4100");
    assert!(why["conclusion"].as_str().unwrap().contains("192.0.2.2:4100"), "{why}");
    let (_, counters) = get(&socket, "/v1/counters");
    for key in
        ["packets_sent", "packets_received", "route_misses", "session_failures", "fallback_transitions", "relay_usage"]
    {
        assert!(counters[key].is_u64(), "{key}: {counters}");
    }
    assert!(counters["drops"]["unknown_route"].is_u64(), "{counters}");
    let (_, snapshot) = get(&socket, "/v1/snapshot");
    assert_eq!(snapshot["status"]["name"], "a");

    for (answer, code, word) in [
        (get(&socket, "/v1/frobnicate"), 404, "not_found"),
        (get(&socket, "/v1/stop"), 405, "method"),
        (post(&socket, "/v1/ping", "{"), 400, "bad_request"),
        (post(&socket, "/v1/why", r#"{"target":"a"}"#), 400, "own_address"),
        (post(&socket, "/v1/why", r#"{"target":"nobody"}"#), 404, "unknown_target"),
        (post(&socket, "/v1/ping", &"x".repeat(100_000)), 400, "bad_request"),
        (post(&socket, "/v1/ping", r#"{"target":"nobody","timeout_ms":10}"#), 404, "unknown_target"),
        (post(&socket, "/v1/ping", r#"{"target":"b","timeout_ms":10}"#), 503, "not_connected"),
    ] {
        assert_eq!((answer.0, answer.1["error"]["code"].as_str()), (code, Some(word)), "{}", answer.1);
    }
}

#[test]
fn where_a_peer_was_reached_outlives_the_daemon_and_its_configuration() {
    let Some(lab) = Lab::open("where_a_peer_was_reached_outlives_the_daemon_and_its_configuration") else { return };
    let (host, other) = (lab.host("a"), lab.host("b"));
    lab.link(&host, &["192.0.2.1/24"], &other, &["192.0.2.2/24"]);
    let mut a = Node::new(&host, NodeSpec::numbered("a", 1));
    let mut b = Node::new(&other, NodeSpec::numbered("b", 2));
    a.allow(&b);
    b.allow(&a);
    a.bootstrap(&b, "192.0.2.2");
    b.write_config();
    a.write_config();
    let memory = a.dir().join("last-known");
    std::fs::write(&memory, "vine-last-known 1\nvine1").unwrap();
    {
        let (_b, _) = start(&b);
        let (_a, _) = start(&a);
        a.wait_connected(&b);
        let why = json(&vine(&a, &["why", "b", "--format", "json"]));
        assert_eq!((&why["way"]["class"], &why["state"]), (&"direct".into(), &"connected".into()), "{why}");
        assert_eq!(why["history"].as_array().unwrap().len(), 2, "chosen and up: {why}");
        assert!(why["conclusion"].as_str().unwrap().contains("b is reached directly"), "{why}");
        let text = vine(&a, &["why", "b"]);
        assert!(text.ok() && text.stdout.contains("history\n"), "{text:?}");
        let netcheck = json(&vine(&a, &["netcheck", "--format", "json"]));
        let (udp, mapping) = (&netcheck["udp"], &netcheck["mapping"]);
        assert_eq!((udp, mapping, &netcheck["hairpin"]), (&true.into(), &"none".into(), &"not_needed".into()));
        assert!(vine(&a, &["netcheck"]).stdout.contains("peers answer"));
    }
    let log = std::fs::read_to_string(a.dir().join("vine.log")).unwrap();
    assert!(log.contains("last-known is ignored"), "{log}");
    let mode = std::fs::metadata(&memory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&memory).unwrap().contains("192.0.2.2:4100"));

    // Nobody tells where the other is any more.
    a.spec.bootstrap.clear();
    a.write_config();
    let (_b, _) = start(&b);
    let (_a, _) = start(&a);
    a.wait_connected(&b);
}

#[test]
fn sigusr1_writes_a_snapshot_to_the_log() {
    let Some((mut node, _lab)) = single("sigusr1_writes_a_snapshot_to_the_log") else { return };
    node.up();
    node.signal(Signal::USR1);
    wait_until("the log has a snapshot", PATIENCE, || {
        node.daemon().output().contains("snapshot {\"taken_at_ms\"").then_some(())
    });
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn reload_names_what_needs_a_restart() {
    let Some((node, _lab)) = single("reload_names_what_needs_a_restart") else { return };
    let (_daemon, _) = start(&node);
    let reload = || json(&vine(&node, &["daemon", "reload", "--format", "json"]));
    assert_eq!(reload()["changed"], serde_json::json!([]));
    let mut text = std::fs::read_to_string(node.config()).unwrap();
    text = text
        .replace("name = \"b\"", "name = \"beta\"")
        .replace("allow_relay = true", "allow_relay = false")
        .replace("[tun]", "[tun]\nmtu = 1300");
    std::fs::write(node.config(), text).unwrap();
    let reloaded = reload();
    assert_eq!(reloaded["changed"], serde_json::json!(["beta"]), "{reloaded}");
    assert_eq!((&reloaded["policy"], &reloaded["restart_needed"]), (&true.into(), &serde_json::json!(["tun.mtu"])));
    assert_eq!(json(&vine(&node, &["peers", "--format", "json"]))[0]["name"], "beta");
}

#[test]
fn systemd_is_told_of_every_phase() {
    let Some((node, _lab)) = single("systemd_is_told_of_every_phase") else { return };
    let path = node.dir().join("notify");
    let notify = UnixDatagram::bind(&path).expect("the node's directory can be written");
    notify.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    let told = || {
        let mut buffer = [0; 512];
        let length = notify.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let environment = [format!("NOTIFY_SOCKET={}", path.display()), "WATCHDOG_USEC=200000".to_owned()];
    let config = node.config();
    let mut args: Vec<&str> = environment.iter().map(String::as_str).collect();
    let config = config.to_string_lossy();
    args.extend([env!("CARGO_BIN_EXE_vine"), "up", "-c", &config]);
    let mut daemon = node.host().spawn("notifying", "env", &args);

    assert_eq!(told().trim(), "READY=1");
    assert_eq!(told().trim(), "WATCHDOG=1");
    daemon.signal(Signal::HUP);
    let reloading = std::iter::repeat_with(told).find(|text| !text.contains("WATCHDOG=1")).expect("it goes on");
    assert!(reloading.contains("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    let ready = std::iter::repeat_with(told).find(|text| !text.contains("WATCHDOG=1")).expect("it goes on");
    assert_eq!(ready.trim(), "READY=1");
    daemon.signal(Signal::TERM);
    let stopping = std::iter::repeat_with(told).find(|text| !text.contains("WATCHDOG=1")).expect("it goes on");
    assert_eq!(stopping.trim(), "STOPPING=1");
    assert_eq!(daemon.wait(PATIENCE).and_then(|status| status.code()), Some(0));
}
