//! A laboratory of network namespaces: hosts, links between them, and real processes inside.
//!
//! ```no_run
//! use vine_tests::lab::Lab;
//!
//! let Some(lab) = Lab::open("a_test") else { return };
//! let (a, b) = (lab.host("a"), lab.host("b"));
//! lab.link(&a, &["192.0.2.1/24"], &b, &["192.0.2.2/24"]);
//! assert!(a.run("ping", &["-c1", "192.0.2.2"]).ok());
//! ```
//!
//! Nothing in a lab reaches the network of the machine. Everything that a lab made goes with it: when it is dropped, also by
//! a panic, the processes in its namespaces are killed, then namespaces and files are removed. What a test run that was
//! itself killed left behind is removed by the next one.
//!
//! Only one lab exists on a machine at a time (a lock file says so), because tests here measure time on real kernels.

mod datagrams;
mod host;
mod iperf;
mod nat;
mod node;
mod ping;
mod process;
pub mod proxy;
mod switch;
mod transfer;
mod wait;

pub use datagrams::Datagrams;
pub use host::{Host, UdpCounter};
pub use iperf::{iperf_server, iperf_tcp};
pub use nat::{Nat, Ports};
pub use node::{Allowed, Node, NodeSpec, QueryError, vine_binary, vine_binary_is_release};
pub use ping::{Ping, Reply, first_answer};
pub use process::{Finished, Process};
pub use switch::{Cut, PacketCounter, Switch};
pub use transfer::{Arrived, Transfer, send_at_once};
pub use wait::{poll_until, wait_until};

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prefix of every namespace and directory that a lab makes: `vt-<pid of the test process>-`.
const PREFIX: &str = "vt-";

/// Name of the environment variable that forbids leaving a test out.
pub const ALL: &str = "VINE_TEST_ALL";

/// The namespaces, processes and files of one test.
#[derive(Debug)]
pub struct Lab {
    test: String,
    dir: PathBuf,
    tag: String,
    links: Cell<u32>,
    _alone: File,
}

impl Lab {
    /// A lab for the test of this name, or `None` where the test has to be left out (which is reported).
    ///
    /// # Panics
    /// Where the test would be left out although `VINE_TEST_ALL` is set.
    pub fn open(test: &str) -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            leave_out(test, "network namespaces and TUN devices need root");
            return None;
        }
        for tool in ["ip", "ss", "ping", "iperf3", "nft", "setpriv", "taskset", "chrt"] {
            if !on_path(tool) {
                leave_out(test, &format!("`{tool}` is not installed"));
                return None;
            }
        }
        let alone = File::create("/run/vine-tests.lock").expect("root can create a lock file in /run");
        alone.lock().expect("the lock file can be locked");
        remove_stale();
        let tag = format!("{PREFIX}{}-", std::process::id());
        let dir = std::env::temp_dir().join(format!("{tag}lab"));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        Some(Lab { test: test.to_owned(), dir, tag, links: Cell::new(0), _alone: alone })
    }

    /// A new host: a network namespace with its loopback up, and a directory.
    pub fn host(&self, name: &str) -> Host {
        let host = Host::new(name, format!("{}{name}", self.tag), self.dir.join(name));
        fs::create_dir(host.dir()).unwrap_or_else(|e| panic!("{}: {e}", host.dir().display()));
        ip(&["netns", "add", host.namespace()]);
        host.ip(&["link", "set", "lo", "up"]);
        // An address that is not yet checked for duplicates cannot be used, and here there are none.
        host.set_kernel("net/ipv6/conf/default/accept_dad", "0");
        host.set_kernel("net/ipv6/conf/all/accept_dad", "0");
        // As distributions have it: an address does not go because another one of its network does.
        host.set_kernel("net/ipv4/conf/all/promote_secondaries", "1");
        host
    }

    /// Joins two hosts with a veth pair, and returns the names of its two ends.
    pub fn link(&self, a: &Host, a_addresses: &[&str], b: &Host, b_addresses: &[&str]) -> (String, String) {
        let (in_a, in_b) = (self.link_name(), self.link_name());
        let (a_ns, b_ns) = (a.namespace(), b.namespace());
        ip(&["link", "add", &in_a, "netns", a_ns, "type", "veth", "peer", "name", &in_b, "netns", b_ns]);
        for (host, link, addresses) in [(a, &in_a, a_addresses), (b, &in_b, b_addresses)] {
            host.ip(&["link", "set", link, "up"]);
            addresses.iter().for_each(|address| host.add_address(link, address));
        }
        (in_a, in_b)
    }

    /// A new switch: a bridge in a namespace of its own.
    pub fn switch(&self, name: &str) -> Switch {
        let host = self.host(name);
        host.ip(&["link", "add", "br0", "type", "bridge"]);
        host.ip(&["link", "set", "br0", "up"]);
        Switch::new(host)
    }

    /// Plugs a host into a switch, and returns the names of its link and of the switch's port.
    pub fn plug(&self, host: &Host, addresses: &[&str], switch: &Switch) -> (String, String) {
        let (link, port) = self.link(host, addresses, switch.host(), &[]);
        switch.host().ip(&["link", "set", &port, "master", "br0"]);
        (link, port)
    }

    /// Puts this test and all that it starts from now on before whatever else the machine does, until the lab is dropped: so
    /// that figures are of what is measured.
    pub fn go_first(&self) {
        if !schedule(&["--rr", "-p", "1"]) {
            println!("{}: no real-time scheduling here; what else the machine does is in the figures", self.test);
        }
    }

    fn link_name(&self) -> String {
        let number = self.links.get();
        self.links.set(number + 1);
        format!("eth{number}")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.test, &self.dir);
        }
        schedule(&["--other", "-p", "0"]);
        remove_namespaces(&self.tag);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Notes a measured figure, for the summary of `scripts/test.sh`.
pub fn figure(test: &str, text: &str) {
    println!("{test}: {text}");
    append_line("VINE_TEST_FIGURES", &format!("{test}: {text}"));
}

/// Notes that a test was left out and why.
///
/// # Panics
/// Where `VINE_TEST_ALL` is set: then nothing may be left out.
pub fn leave_out(test: &str, why: &str) {
    if std::env::var_os(ALL).is_some_and(|value| value != "0") {
        panic!("{test} would be left out: {why}; {ALL} is set");
    }
    println!("left out: {test}: {why}");
    append_line("VINE_TEST_LEFT_OUT", &format!("{test}: {why}"));
}

/// Appends a line to the file that an environment variable names, where it names one.
fn append_line(variable: &str, line: &str) {
    let Some(path) = std::env::var_os(variable) else { return };
    let mut file = File::options().append(true).create(true).open(&path).expect("the named file can be appended to");
    file.write_all(format!("{line}\n").as_bytes()).expect("the named file can be written");
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

/// Runs `ip` outside any lab namespace; it has to succeed.
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("`ip` can be run");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
}

/// Sets the scheduling policy of all threads of this process; its children inherit it. Returns whether that is permitted.
fn schedule(policy: &[&str]) -> bool {
    let mut command = Command::new("chrt");
    command.arg("-a").args(policy).arg(std::process::id().to_string());
    command.output().is_ok_and(|output| output.status.success())
}

/// Kills what runs in the namespaces whose names begin so, and removes them.
fn remove_namespaces(beginning: &str) {
    for name in names_in("/run/netns").filter(|name| name.starts_with(beginning)) {
        let pids = Command::new("ip").args(["netns", "pids", &name]).output().expect("`ip` can be run").stdout;
        for pid in String::from_utf8_lossy(&pids).split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
    }
}

/// Removes what test processes that are gone left behind.
fn remove_stale() {
    let temp = std::env::temp_dir();
    let names: Vec<String> = names_in("/run/netns").chain(names_in(&temp)).collect();
    for name in names {
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok_and(|number| number != std::process::id()) && !Path::new("/proc").join(pid).exists()
        {
            remove_namespaces(&format!("{PREFIX}{pid}-"));
            let _ = fs::remove_dir_all(temp.join(&name));
        }
    }
}

fn names_in(dir: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<Vec<_>>().into_iter()
}

/// Prints the end of every log of a lab whose test failed.
fn print_logs(test: &str, dir: &Path) {
    for host in names_in(dir) {
        for name in names_in(dir.join(&host)).filter(|name| name.ends_with(".log")) {
            let text = fs::read_to_string(dir.join(&host).join(&name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("---- {test}: {host}/{name}, last lines of {}", lines.len());
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| println!("{line}"));
        }
    }
}
