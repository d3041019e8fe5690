//! Routers with a NAT, made of nftables.

use super::Lab;
use super::host::Host;
use super::switch::Switch;

/// How a NAT chooses the outer port of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The port of the host, as long as it is free: a host that talks to many from one port is seen by all under one address,
    /// which is endpoint-independent mapping in effect (RFC 4787 section 4.1).
    Kept,
    /// A random one for every flow: address-and-port-dependent mapping.
    Random,
}

/// A router with one side on a switch, masquerading what comes from the other.
///
/// It filters by address and port (RFC 4787 section 5): in from outside comes only what answers a flow from inside; to the
/// router itself, nothing.
#[derive(Debug)]
pub struct Nat {
    host: Host,
}

impl Nat {
    /// The router's namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl Lab {
    /// A new router with a NAT; `public` is its address on the switch, such as `203.0.113.11/24`.
    pub fn nat(&self, name: &str, public: &str, ports: Ports, switch: &Switch) -> Nat {
        let host = self.router(name);
        let (outside, _) = self.plug(&host, &[public], switch);
        let how = if ports == Ports::Random { "fully-random" } else { "" };
        host.nft(&format!(
            "table ip nat {{
               chain post {{ type nat hook postrouting priority 100; oifname \"{outside}\" masquerade {how}; }}
             }}
             table ip filter {{
               chain forward {{ type filter hook forward priority 0; policy drop;
                 ct state established,related accept
                 iifname != \"{outside}\" accept
               }}
               chain input {{ type filter hook input priority 0; policy drop;
                 ct state established,related accept
                 iifname != \"{outside}\" accept
               }}
             }}"
        ));
        Nat { host }
    }

    /// Puts a host behind a router: a link of their own, on which the router has the address ending in 1 of a network such as
    /// `10.11.0` (a /24) and the host the one ending in 2, and the host's default route. Returns the name of the host's link.
    pub fn behind(&self, router: &Host, host: &Host, network: &str) -> String {
        let (gateway, address) = (format!("{network}.1"), format!("{network}.2/24"));
        let (_, link) = self.link(router, &[&format!("{gateway}/24")], host, &[&address]);
        host.ip(&["route", "add", "default", "via", &gateway]);
        link
    }

    /// A host that forwards IPv4 packets.
    pub fn router(&self, name: &str) -> Host {
        let host = self.host(name);
        host.set_kernel("net/ipv4/ip_forward", "1");
        host
    }
}
