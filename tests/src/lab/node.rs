//! A vine node on a host: identity, configuration, daemon, and questions to it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::host::Host;
use super::process::{Finished, Process};
use super::wait::wait_until;

/// The `vine` binary under test: `$VINE_BIN`, else the one that was built beside this test.
///
/// # Panics
/// Where there is none.
pub fn vine_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("VINE_BIN") {
        return fs::canonicalize(&path).unwrap_or_else(|e| panic!("VINE_BIN={}: {e}", path.display()));
    }
    let test = std::env::current_exe().expect("a running program has a path");
    let beside = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").join("vine");
    assert!(beside.exists(), "no {}: build it, set VINE_BIN, or run `bash scripts/test.sh`", beside.display());
    beside
}

/// Whether the binary under test is a release build, so that figures of speed mean something.
pub fn vine_binary_is_release() -> bool {
    vine_binary().components().any(|part| part.as_os_str() == "release")
}

/// What stands in a node's configuration.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `node.name`.
    pub name: String,
    /// `node.network_id`.
    pub network_id: String,
    /// `node.network_key`.
    pub network_key: Option<String>,
    /// `node.listen`.
    pub listen: Vec<String>,
    /// `tun.name`.
    pub tun: String,
    /// `tun.addresses`.
    pub addresses: Vec<String>,
    /// `bootstrap_peers`: peer id and address.
    pub bootstrap: Vec<(String, String)>,
    /// `allowed_peers`.
    pub allowed: Vec<Allowed>,
    /// `policy.allow_relay`.
    pub allow_relay: bool,
}

/// One of `allowed_peers`.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// `name`.
    pub name: String,
    /// `peer_id`.
    pub peer_id: String,
    /// `prefixes`.
    pub prefixes: Vec<String>,
    /// `relay_capable`.
    pub relay_capable: bool,
}

impl NodeSpec {
    /// A node of the network `lab` with number `n`: it owns 10.42.n.0/24 and fd42:0:0:n::/64, has the first address of
    /// each, and listens on port 4100 of both families.
    pub fn numbered(name: &str, n: u8) -> NodeSpec {
        NodeSpec {
            name: name.to_owned(),
            network_id: "lab".to_owned(),
            network_key: None,
            listen: vec!["udp://0.0.0.0:4100".to_owned(), "udp://[::]:4100".to_owned()],
            tun: "vine0".to_owned(),
            addresses: vec![format!("10.42.{n}.1/24"), format!("fd42:0:0:{n:x}::1/64")],
            bootstrap: Vec::new(),
            allowed: Vec::new(),
            allow_relay: true,
        }
    }

    /// The prefixes that the node's own addresses lie in.
    pub fn prefixes(&self) -> Vec<String> {
        self.addresses.iter().map(|address| network_of(address)).collect()
    }
}

/// `10.42.1.1/24` → `10.42.1.0/24`, `fd42:0:0:1::1/64` → `fd42:0:0:1::/64`: enough for the addresses that tests use.
fn network_of(address: &str) -> String {
    let (ip, length) = address.split_once('/').expect("an address with its prefix length");
    match ip.strip_suffix("::1") {
        Some(high) => format!("{high}::/{length}"),
        None => format!("{}.0/{length}", ip.rsplit_once('.').expect("an IPv4 address").0),
    }
}

/// Why a question to a daemon had no answer.
#[derive(Debug)]
pub struct QueryError {
    /// The command's exit code.
    pub code: i32,
    /// What it said.
    pub message: String,
}

/// A vine node on a host.
#[derive(Debug)]
pub struct Node {
    host: Host,
    peer_id: String,
    /// Its configuration, written by [`Node::write_config`].
    pub spec: NodeSpec,
    dir: PathBuf,
    daemon: Option<Process>,
}

impl Node {
    /// Makes an identity for the node; the configuration is yet to be written.
    pub fn new(host: &Host, spec: NodeSpec) -> Node {
        let dir = host.dir().join(&spec.name);
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("an own directory can be closed to others");
        let identity = dir.join("identity").to_string_lossy().into_owned();
        let mut node = Node { host: host.clone(), peer_id: String::new(), spec, dir, daemon: None };
        let done = node.vine(&["identity", "init", "--path", &identity]);
        assert!(done.ok(), "vine identity init: {}", done.stderr.trim());
        let shown = node.vine(&["identity", "show", "--path", &identity, "--format", "json"]);
        let json: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|e| panic!("{e}: {shown:?}"));
        node.peer_id = json["peer_id"].as_str().expect("`identity show` names the peer id").to_owned();
        node
    }

    /// The host it lives on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its peer id in text form.
    pub fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of its configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("vine.toml")
    }

    /// The path of its control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("vine.sock")
    }

    /// Its overlay address of a family: the first one that has it.
    pub fn overlay(&self, v6: bool) -> std::net::IpAddr {
        let mut addresses = self.spec.addresses.iter().filter_map(|address| address.split('/').next()?.parse().ok());
        addresses
            .find(|address: &std::net::IpAddr| address.is_ipv6() == v6)
            .expect("the node has an address of the family")
    }

    /// Lets the other node in, with the prefixes of its addresses.
    pub fn allow(&mut self, other: &Node) {
        self.spec.allowed.push(Allowed {
            name: other.spec.name.clone(),
            peer_id: other.peer_id.clone(),
            prefixes: other.spec.prefixes(),
            relay_capable: false,
        });
    }

    /// As [`Node::allow`], and lets the other node carry packets to third ones.
    pub fn allow_as_relay(&mut self, other: &Node) {
        self.allow(other);
        if let Some(entry) = self.spec.allowed.last_mut() {
            entry.relay_capable = true;
        }
    }

    /// Gives the other node's underlay address, such as `192.0.2.2` or `[2001:db8::2]`, port 4100.
    pub fn bootstrap(&mut self, other: &Node, underlay: &str) {
        self.spec.bootstrap.push((other.peer_id.clone(), format!("udp://{underlay}:4100")));
    }

    /// Writes the configuration as it stands in `spec`.
    pub fn write_config(&self) {
        let spec = &self.spec;
        let mut text = format!(
            "[node]\nname = {:?}\nnetwork_id = {:?}\nidentity_path = {:?}\nstate_dir = {:?}\nlisten = {:?}\n",
            spec.name,
            spec.network_id,
            self.dir.join("identity"),
            self.dir,
            spec.listen
        );
        let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a string can grow");
        if let Some(key) = &spec.network_key {
            add(format_args!("network_key = {key:?}\n"));
        }
        add(format_args!("\n[tun]\nname = {:?}\naddresses = {:?}\n", spec.tun, spec.addresses));
        for (peer_id, address) in &spec.bootstrap {
            add(format_args!("\n[[bootstrap_peers]]\npeer_id = {peer_id:?}\naddress = {address:?}\n"));
        }
        for Allowed { name, peer_id, prefixes, relay_capable } in &spec.allowed {
            add(format_args!("\n[[allowed_peers]]\nname = {name:?}\npeer_id = {peer_id:?}\nprefixes = {prefixes:?}\n"));
            add(format_args!("relay_capable = {relay_capable}\n"));
        }
        add(format_args!("\n[policy]\nallow_relay = {}\n", spec.allow_relay));
        fs::write(self.config(), text).expect("the node's directory can be written");
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600))
            .expect("an own file can be closed to others");
    }

    /// Runs a `vine` command on the host to its end.
    pub fn vine(&self, args: &[&str]) -> Finished {
        self.host.run(vine_binary(), args)
    }

    /// Runs `vine up` with this configuration to its end: for a start that has to fail.
    pub fn up_to_the_end(&self, limit: Duration) -> Finished {
        let mut process = self.spawn_up("failing");
        let status = process.wait(limit);
        let code = status.unwrap_or_else(|| panic!("`vine up` still runs after {limit:?}")).code();
        let output = process.output();
        Finished { code: code.unwrap_or(-1), stdout: String::new(), stderr: output }
    }

    /// Starts `vine up`; returns at once.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.spec.name);
        self.daemon = Some(self.spawn_up("daemon"));
    }

    fn spawn_up(&self, label: &str) -> Process {
        let args = ["up".into(), "-c".into(), self.config()];
        self.host.spawn(&format!("{}-{label}", self.spec.name), vine_binary(), &args)
    }

    /// Writes the configuration, starts the daemon and waits until it answers questions.
    pub fn up(&mut self) {
        self.write_config();
        self.start();
        wait_until(&format!("{} answers", self.spec.name), Duration::from_secs(5), || self.query("status").ok());
    }

    /// The running daemon.
    ///
    /// # Panics
    /// Where none was started.
    pub fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("the daemon was started")
    }

    /// Sends a signal to the daemon.
    pub fn signal(&mut self, signal: Signal) {
        self.daemon().signal(signal);
    }

    /// Kills the daemon as a crash would, without looking after what is left: [`Node::crash`] does that later.
    ///
    /// # Panics
    /// Where none was started.
    pub fn kill_daemon(&self) {
        self.daemon.as_ref().expect("the daemon was started").signal(Signal::KILL);
    }

    /// Kills the daemon as a crash would.
    pub fn crash(&mut self) {
        self.daemon().kill();
        self.daemon = None;
    }

    /// Stops the daemon by SIGTERM and returns its exit code.
    ///
    /// # Panics
    /// Where it still runs after 5 s.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let status = self.daemon().wait(Duration::from_secs(5)).expect("SIGTERM ends the daemon within 5 s");
        self.daemon = None;
        status.code()
    }

    /// Asks the running daemon: `vine WHAT -c FILE --format json`.
    ///
    /// # Errors
    /// What the command said where it failed.
    pub fn query(&self, what: &str) -> Result<Value, QueryError> {
        let done = self.vine(&[what, "-c", &self.config().to_string_lossy(), "--format", "json"]);
        match serde_json::from_str(&done.stdout) {
            Ok(json) if done.ok() => Ok(json),
            _ => Err(QueryError { code: done.code, message: done.stdout + &done.stderr }),
        }
    }

    /// One entry of a list that the daemon reports: that of the peer with this id.
    pub fn entry(&self, list: &str, peer_id: &str) -> Option<Value> {
        let json = self.query(list).ok()?;
        let entries = json.as_array().unwrap_or_else(|| panic!("`vine {list}` reports a list, not {json}"));
        entries.iter().find(|entry| entry["peer_id"] == peer_id).cloned()
    }

    /// The state of a peer as the daemon reports it, empty where it reports none.
    pub fn peer_state(&self, peer: &Node) -> String {
        let entry = self.entry("peers", peer.peer_id()).unwrap_or_default();
        entry["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The class of the path to a peer as the daemon reports it, empty where it reports no session.
    pub fn class(&self, peer: &Node) -> String {
        let entry = self.entry("sessions", peer.peer_id()).unwrap_or_default();
        entry["class"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until both nodes report that they reach each other by a path of this class.
    pub fn wait_class(&self, other: &Node, class: &str, limit: Duration) {
        for (one, peer) in [(self, other), (other, self)] {
            wait_until(
                &format!("{} reaches {} by a path that is {class}", one.spec.name, peer.spec.name),
                limit,
                || (one.class(peer) == class).then_some(()),
            );
        }
    }

    /// A counter of the daemon, 0 where it has none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.query("counters").map_or(0, |counters| counters[name].as_u64().unwrap_or(0))
    }

    /// A drop counter, 0 where it was never counted.
    pub fn drops(&self, reason: &str) -> u64 {
        self.query("counters").map_or(0, |counters| counters["drops"][reason].as_u64().unwrap_or(0))
    }

    /// Waits until both nodes report each other as connected.
    pub fn wait_connected(&self, other: &Node) {
        for (one, peer) in [(self, other), (other, self)] {
            wait_until(
                &format!("{} reports {} connected", one.spec.name, peer.spec.name),
                Duration::from_secs(5),
                || (one.peer_state(peer) == "connected").then_some(()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_of_an_address() {
        assert_eq!(network_of("10.42.1.1/24"), "10.42.1.0/24");
        assert_eq!(network_of("fd42:0:0:a::1/64"), "fd42:0:0:a::/64");
    }
}
