//! A bridge, and what it does to packets on their way: drop them silently, count them.

use std::cell::Cell;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::host::Host;

/// A bridge in a namespace of its own.
#[derive(Debug)]
pub struct Switch {
    host: Host,
    tables: Cell<u32>,
}

impl Switch {
    pub(super) fn new(host: Host) -> Switch {
        Switch { host, tables: Cell::new(0) }
    }

    /// The namespace of the bridge, whose name there is `br0`.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Drops every packet between two addresses, both ways, until [`Cut::lift`].
    ///
    /// It happens where a packet enters the bridge, so no host gets an error: a path that went dark.
    pub fn cut(&self, one: IpAddr, other: IpAddr) -> Cut {
        let rules = format!("{} drop; {} drop;", direction(one, other), direction(other, one));
        Cut { host: self.host.clone(), table: self.hook("cut", 0, &rules) }
    }

    /// As [`Switch::cut`], only the packets of one direction.
    pub fn cut_one_way(&self, from: IpAddr, to: IpAddr) -> Cut {
        Cut { host: self.host.clone(), table: self.hook("cut", 0, &format!("{} drop;", direction(from, to))) }
    }

    /// Counts, from now on, the UDP datagrams of these lengths (RFC 768: header and payload) that pass from one address to
    /// another. What a cut drops does not pass.
    pub fn count(&self, from: IpAddr, to: IpAddr, lengths: RangeInclusive<u16>) -> PacketCounter {
        let (least, most) = lengths.into_inner();
        let rule = format!("{} udp length {least}-{most} counter name passed;", direction(from, to));
        PacketCounter { host: self.host.clone(), table: self.hook("count", 10, &rule) }
    }

    /// Adds a table with one chain that sees every packet which enters the bridge, and returns the table's name.
    fn hook(&self, kind: &str, priority: u32, rules: &str) -> String {
        let number = self.tables.get();
        self.tables.set(number + 1);
        let (table, ports) = (format!("{kind}{number}"), self.ports().join(", "));
        self.host.nft(&format!(
            "table netdev {table} {{
               counter passed {{ }}
               chain c {{ type filter hook ingress devices = {{ {ports} }} priority {priority}; {rules} }}
             }}"
        ));
        table
    }

    /// The names of the bridge's ports.
    fn ports(&self) -> Vec<String> {
        let shown = self.host.ip_show(&["-o", "link", "show", "master", "br0"]);
        let names = shown.lines().filter_map(|line| line.split([':', '@']).nth(1));
        names.map(|name| name.trim().to_owned()).collect()
    }
}

/// The nftables match of packets from one address to another.
fn direction(from: IpAddr, to: IpAddr) -> String {
    let family = if from.is_ipv4() { "ip" } else { "ip6" };
    format!("{family} saddr {from} {family} daddr {to}")
}

/// Packets that a switch drops.
#[derive(Debug)]
#[must_use = "it stays until it is lifted"]
pub struct Cut {
    host: Host,
    table: String,
}

impl Cut {
    /// Lets the packets pass again.
    pub fn lift(self) {
        self.host.nft(&format!("delete table netdev {}", self.table));
    }
}

/// A counter in a switch.
#[derive(Debug)]
pub struct PacketCounter {
    host: Host,
    table: String,
}

impl PacketCounter {
    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.host.nft_counter("netdev", &self.table, "passed")
    }
}
