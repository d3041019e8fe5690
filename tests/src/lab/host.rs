//! A host: a network namespace and a directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Finished, Process};

/// A network namespace with a directory for its files.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: String,
    dir: PathBuf,
}

impl Host {
    pub(super) fn new(name: &str, namespace: String, dir: PathBuf) -> Host {
        Host { name: name.to_owned(), namespace, dir }
    }

    /// The name that the test gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A directory of its own.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a command on the host to its end.
    pub fn run<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[A]) -> Finished {
        let mut command = self.command(program.as_ref(), args);
        self.enter(move || Finished::of(&mut command))
    }

    /// Starts a command on the host; its output goes to `<label>.log` in the host's directory.
    pub fn spawn<A: AsRef<OsStr>>(&self, label: &str, program: impl AsRef<OsStr>, args: &[A]) -> Process {
        let mut command = self.command(program.as_ref(), args);
        let log = self.dir.join(format!("{label}.log"));
        self.enter(move || Process::spawn(&mut command, &log))
    }

    /// A child process is in the namespace of the thread that starts it, so this one may only be used by [`Host::enter`].
    fn command<A: AsRef<OsStr>>(&self, program: &OsStr, args: &[A]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.dir);
        command
    }

    /// Runs `ip` on this host; it has to succeed.
    pub fn ip(&self, args: &[&str]) {
        let all: Vec<&str> = ["-n", &self.namespace].iter().chain(args).copied().collect();
        super::ip(&all);
    }

    /// Output of an `ip` query on this host, such as `-o addr show`.
    pub fn ip_show(&self, args: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.namespace]).args(args).output().expect("`ip` can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Adds an address, such as `192.0.2.1/24` or `2001:db8::1/64`.
    pub fn add_address(&self, link: &str, address: &str) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let mut args = vec![family, "addr", "add", address, "dev", link];
        if family == "-6" {
            args.push("nodad");
        }
        self.ip(&args);
    }

    /// Removes an address.
    pub fn remove_address(&self, link: &str, address: &str) {
        self.ip(&["addr", "del", address, "dev", link]);
    }

    /// Whether the host has a network interface of this name.
    pub fn has_link(&self, link: &str) -> bool {
        self.ip_show(&["-o", "link", "show"])
            .lines()
            .any(|line| line.split([':', '@']).nth(1).is_some_and(|name| name.trim() == link))
    }

    /// Every route of every table, one a line, both families.
    pub fn all_routes(&self) -> String {
        self.ip_show(&["-4", "route", "show", "table", "all"]) + &self.ip_show(&["-6", "route", "show", "table", "all"])
    }

    /// Sets a kernel parameter of this host, such as `net/ipv6/conf/all/forwarding`.
    pub fn set_kernel(&self, parameter: &str, value: &str) {
        let path = Path::new("/proc/sys").join(parameter);
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Loads an nftables ruleset.
    pub fn nft(&self, ruleset: &str) {
        let file = self.dir.join("rules.nft");
        fs::write(&file, ruleset).expect("the host's directory can be written");
        let done = self.run("nft", &["-f", &file.to_string_lossy()]);
        assert!(done.ok(), "nft: {}\n{ruleset}", done.stderr.trim());
    }

    /// The packets of a named nftables counter.
    pub(super) fn nft_counter(&self, family: &str, table: &str, counter: &str) -> u64 {
        let done = self.run("nft", &["-j", "list", "counter", family, table, counter]);
        let json: serde_json::Value = serde_json::from_str(&done.stdout).expect("nft prints JSON");
        let entries = json["nftables"].as_array().expect("nft prints a list");
        entries.iter().find_map(|entry| entry["counter"]["packets"].as_u64()).expect("the counter is in the list")
    }

    /// Counts, from now on, the datagrams that this host sends to and receives from a UDP port of another.
    pub fn count_udp(&self, remote: SocketAddr) -> UdpCounter {
        let family = if remote.is_ipv4() { "ip" } else { "ip6" };
        let table = format!("count{}", remote.port());
        let (ip, port) = (remote.ip(), remote.port());
        self.nft(&format!(
            "table inet {table} {{
               counter sent {{ }}
               counter received {{ }}
               chain output {{ type filter hook output priority 0; {family} daddr {ip} udp dport {port} counter name sent; }}
               chain input {{ type filter hook input priority 0; {family} saddr {ip} counter name received; }}
             }}"
        ));
        UdpCounter { host: self.clone(), table }
    }

    /// A UDP socket of this host, for the test process itself.
    pub fn udp_socket(&self, address: SocketAddr) -> UdpSocket {
        self.enter(|| UdpSocket::bind(address)).unwrap_or_else(|e| panic!("{}: {address}: {e}", self.name))
    }

    /// Runs a closure on a thread that is inside the host's network namespace. Sockets and processes made there stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new("/run/netns").join(&self.namespace)).expect("the namespace exists");
        let entered = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root can enter a namespace");
            inside()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Counters in a host's kernel of what it exchanged with one UDP port of another.
#[derive(Debug)]
pub struct UdpCounter {
    host: Host,
    table: String,
}

impl UdpCounter {
    /// Datagrams sent to that port.
    pub fn sent(&self) -> u64 {
        self.read("sent")
    }

    /// Packets of any kind received from that address, ICMP included.
    pub fn received(&self) -> u64 {
        self.read("received")
    }

    fn read(&self, counter: &str) -> u64 {
        self.host.nft_counter("inet", &self.table, counter)
    }
}
