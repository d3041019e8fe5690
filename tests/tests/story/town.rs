//! The four machines and what lies between them.

use std::net::IpAddr;
use std::time::Duration;

use vine_tests::lab::{Cut, Lab, Node, NodeSpec, PacketCounter, Ports, Switch};

const ALPHA_ON_THE_LINE: &str = "192.0.2.11";
const BETA_ON_THE_LINE: &str = "192.0.2.12";
const RELAY: &str = "198.51.100.40";
const NAT_OF_BETA: &str = "198.51.100.2";
const NAT_OF_GAMMA: &str = "198.51.100.3";
/// Payload of the pings that are counted, and how long the UDP datagram is that carries such a packet directly: IP and ICMP
/// headers 28, envelope 32, UDP header 8, and up to 15 bytes of padding.
const PING_BYTES: u16 = 700;
const DIRECT: std::ops::RangeInclusive<u16> = PING_BYTES + 68..=PING_BYTES + 83;
/// The header of a Relayed envelope is 16 more.
const RELAYED: std::ops::RangeInclusive<u16> = PING_BYTES + 84..=PING_BYTES + 99;
const PINGS: u64 = 20;

/// alpha, beta, gamma and relay with their configurations, not yet started.
pub(crate) struct Town {
    pub(crate) alpha: Node,
    pub(crate) beta: Node,
    pub(crate) gamma: Node,
    pub(crate) relay: Node,
    line: Switch,
    internet: Switch,
    _lab: Lab,
}

impl Town {
    /// `None` where the test has to be left out.
    pub(crate) fn new(test: &str) -> Option<Town> {
        let lab = Lab::open(test)?;
        let (internet, line) = (lab.switch("internet"), lab.switch("line"));
        let [alpha, beta, gamma, relay] = ["alpha", "beta", "gamma", "relay"].map(|name| lab.host(name));
        for (host, address) in [(&alpha, ALPHA_ON_THE_LINE), (&beta, BETA_ON_THE_LINE)] {
            let (link, _) = lab.plug(host, &[&format!("{address}/24")], &line);
            // A datagram that is sent together with others is counted by itself all the same.
            host.ip(&["link", "set", &link, "gso_max_segs", "1"]);
        }
        lab.plug(&relay, &[&format!("{RELAY}/24")], &internet);
        let routers = [
            (&alpha, "198.51.100.1", Ports::Random, "10.11.0"),
            (&beta, NAT_OF_BETA, Ports::Kept, "10.12.0"),
            (&gamma, NAT_OF_GAMMA, Ports::Kept, "10.13.0"),
        ];
        for (host, public, ports, network) in routers {
            let nat = lab.nat(&format!("nat-{}", host.name()), &format!("{public}/24"), ports, &internet);
            lab.behind(nat.host(), host, network);
        }
        let [alpha, beta, gamma, relay] = [(&alpha, 1), (&beta, 2), (&gamma, 3), (&relay, 4)]
            .map(|(host, number)| Node::new(host, NodeSpec::numbered(host.name(), number)));
        let mut town = Town { alpha, beta, gamma, relay, line, internet, _lab: lab };
        town.introduce();
        Some(town)
    }

    /// Everyone allows everyone and knows where relay is; alpha and beta know each other's address on the line.
    fn introduce(&mut self) {
        let Town { alpha, beta, gamma, relay, .. } = self;
        alpha.allow(beta);
        alpha.allow(gamma);
        alpha.bootstrap(beta, BETA_ON_THE_LINE);
        beta.allow(alpha);
        beta.allow(gamma);
        beta.bootstrap(alpha, ALPHA_ON_THE_LINE);
        gamma.allow(alpha);
        gamma.allow(beta);
        for node in [alpha, beta, gamma] {
            node.allow_as_relay(relay);
            node.bootstrap(relay, RELAY);
            relay.allow(node);
        }
    }

    /// Starts the four daemons.
    pub(crate) fn up(&mut self) {
        for node in [&mut self.relay, &mut self.alpha, &mut self.beta, &mut self.gamma] {
            node.up();
        }
    }

    /// Lets the line between alpha and beta go dark.
    pub(crate) fn cut_the_line(&self) -> Cut {
        self.line.cut(ip(ALPHA_ON_THE_LINE), ip(BETA_ON_THE_LINE))
    }

    /// Pings of one size, and where they are seen: that a path is what its class says is not for the daemon alone to say.
    pub(crate) fn assert_paths_by_counters(&self) {
        let on_the_line = self.line.count(ip(ALPHA_ON_THE_LINE), ip(BETA_ON_THE_LINE), DIRECT);
        let punched = self.internet.count(ip(NAT_OF_GAMMA), ip(NAT_OF_BETA), DIRECT);
        let to_relay = self.internet.count(ip(NAT_OF_GAMMA), ip(RELAY), RELAYED);
        let cases: [(&Node, &Node, &PacketCounter); 3] = [
            (&self.alpha, &self.beta, &on_the_line),
            (&self.gamma, &self.beta, &punched),
            (&self.gamma, &self.alpha, &to_relay),
        ];
        for (from, to, counter) in cases {
            let before = counter.packets();
            ping(from, to);
            let seen = counter.packets() - before;
            assert!(seen >= PINGS, "{} to {}: {seen} of {PINGS} seen", from.spec.name, to.spec.name);
        }
    }
}

/// So many pings of the counted size, each answered.
fn ping(from: &Node, to: &Node) {
    let (count, size) = (PINGS.to_string(), PING_BYTES.to_string());
    let limit = Duration::from_secs(5).as_secs().to_string();
    let args = ["-n", "-q", "-i", "0.01", "-w", &limit, "-c", &count, "-s", &size, &to.overlay(false).to_string()];
    let done = from.host().run("ping", &args);
    assert!(done.ok(), "{} to {}: {done:?}", from.spec.name, to.spec.name);
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
