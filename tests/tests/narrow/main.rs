//! A path with an MTU of 1280 bytes that nobody is told of: routers that drop what is too large and keep silent.
//!
//! ```text
//!   a ─ 1500 ─ near ─ 1280 ─ core ─ 1500 ─ b
//!                              └─── 1500 ─ r
//! ```
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vine_tests::lab::{Host, Lab, Node, NodeSpec, Transfer, figure, first_answer, send_at_once};

const PATIENCE: Duration = Duration::from_secs(20);
const MEGABYTE: u64 = 1 << 20;
/// One RTO of a stack that lost the first large segments is in it; a transfer that waits for more has met a black hole.
const AT_ONCE: Duration = Duration::from_secs(3);

struct Narrow {
    a: Node,
    b: Node,
    r: Node,
    core: Host,
    lab: Lab,
}

impl Narrow {
    /// The hosts and nodes; a and b know r, and a knows b.
    fn new(test: &str) -> Option<Narrow> {
        let lab = Lab::open(test)?;
        let (near, core) = (lab.router("near"), lab.router("core"));
        let [host_a, host_b, host_r] = ["a", "b", "r"].map(|name| lab.host(name));
        lab.behind(&near, &host_a, "10.1.0");
        lab.behind(&core, &host_b, "10.2.0");
        lab.behind(&core, &host_r, "10.3.0");
        let (outer, inner) = lab.link(&near, &["10.9.0.1/24"], &core, &["10.9.0.2/24"]);
        near.ip(&["link", "set", &outer, "mtu", "1280"]);
        core.ip(&["link", "set", &inner, "mtu", "1280"]);
        near.ip(&["route", "add", "default", "via", "10.9.0.2"]);
        core.ip(&["route", "add", "10.1.0.0/24", "via", "10.9.0.1"]);
        for router in [&near, &core] {
            router.nft("table ip silent { chain out { type filter hook output priority 0; ip protocol icmp drop; }; }");
        }
        assert_narrow(&host_a);
        let [mut a, mut b, mut r] = [(&host_a, 1), (&host_b, 2), (&host_r, 3)]
            .map(|(host, number)| Node::new(host, NodeSpec::numbered(host.name(), number)));
        a.allow(&b);
        b.allow(&a);
        a.bootstrap(&b, "10.2.0.2");
        for node in [&mut a, &mut b] {
            node.allow_as_relay(&r);
            node.bootstrap(&r, "10.3.0.2");
            r.allow(node);
        }
        Some(Narrow { a, b, r, core, lab })
    }

    fn up(&mut self) {
        for node in [&mut self.r, &mut self.b, &mut self.a] {
            node.up();
        }
        assert!(first_answer(self.a.host(), self.b.overlay(false), PATIENCE).is_some());
    }

    /// Drops what a and b send each other directly.
    fn part(&self) {
        self.core.nft(
            "table ip parted {
               chain c { type filter hook forward priority 0;
                 ip saddr 10.1.0.2 ip daddr 10.2.0.2 drop; ip saddr 10.2.0.2 ip daddr 10.1.0.2 drop; }
             }",
        );
    }

    /// A megabyte each way in both families, each at once.
    fn assert_carries(&self, test: &str, how: &str) {
        let (a, b) = (&self.a, &self.b);
        for (port, (from, to)) in (7000..).step_by(10).zip([(a, b), (b, a)]) {
            for v6 in [false, true] {
                let target = SocketAddr::new(to.overlay(v6), port + u16::from(v6));
                let took = send_at_once(from.host(), to.host(), target, MEGABYTE);
                let (from, to) = (&from.spec.name, &to.spec.name);
                figure(test, &format!("{how}, {from} to {to}, IPv{}: {took:.0?}", if v6 { 6 } else { 4 }));
                assert!(took < AT_ONCE, "{how}, {from} to {to}: {took:?}");
            }
        }
    }

    /// Packets of 1280 bytes cross, whole, both ways: every link of the overlay carries them.
    fn assert_carries_1280(&self) {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            for (v6, payload) in [(false, "1252"), (true, "1232")] {
                let target = to.overlay(v6).to_string();
                let args = ["-n", "-q", "-c10", "-i0.05", "-w5", "-Mdo", "-s", payload, &target];
                let done = from.host().run("ping", &args);
                assert!(
                    done.ok() && done.stdout.contains(" 0% packet loss"),
                    "{} to {target}: {done:?}",
                    from.spec.name
                );
            }
        }
    }
}

/// The topology itself: 1280 bytes pass, 1300 vanish without a word.
fn assert_narrow(a: &Host) {
    let ping = |payload: &str| a.run("ping", &["-n", "-c3", "-i0.05", "-W0.2", "-Mdo", "-s", payload, "10.2.0.2"]);
    assert!(ping("1252").ok());
    let large = ping("1272");
    assert!(large.code == 1 && !large.stdout.contains("From"), "{large:?}");
}

#[test]
fn a_megabyte_crosses_directly() {
    let test = "a_megabyte_crosses_directly";
    let Some(mut narrow) = Narrow::new(test) else { return };
    narrow.up();
    narrow.a.wait_class(&narrow.b, "direct", PATIENCE);
    narrow.assert_carries(test, "direct");
    narrow.assert_carries_1280();
}

#[test]
fn a_megabyte_crosses_by_relay() {
    let test = "a_megabyte_crosses_by_relay";
    let Some(mut narrow) = Narrow::new(test) else { return };
    narrow.part();
    narrow.up();
    narrow.a.wait_class(&narrow.b, "relay", PATIENCE);
    narrow.assert_carries(test, "relay");
    narrow.assert_carries_1280();
}

/// The direct path has room for 1500 bytes, the relay behind a narrow link has not: after the switch nothing stalls.
#[test]
fn a_transfer_survives_a_switch_to_a_path_with_less_room() {
    let test = "a_transfer_survives_a_switch_to_a_path_with_less_room";
    let Some(mut narrow) = Narrow::new(test) else { return };
    // a and b on a wide link of their own; the way to r stays narrow.
    let (a, b) = (narrow.a.host().clone(), narrow.b.host().clone());
    let links = narrow.lab.link(&a, &["10.5.0.1/24"], &b, &["10.5.0.2/24"]);
    narrow.a.spec.bootstrap.retain(|(peer, _)| peer != narrow.b.peer_id());
    let (a, b) = (&mut narrow.a, &narrow.b);
    a.bootstrap(b, "10.5.0.2");
    narrow.part();
    narrow.up();
    narrow.a.wait_class(&narrow.b, "direct", PATIENCE);
    let overlay: IpAddr = narrow.b.overlay(false);
    let transfer = Transfer::start(narrow.a.host(), narrow.b.host(), SocketAddr::new(overlay, 7100));
    transfer.wait_for_more(2 * MEGABYTE, PATIENCE);
    for (node, link) in [(&narrow.a, &links.0), (&narrow.b, &links.1)] {
        let dark = format!("type filter hook ingress device \"{link}\" priority 0; drop;");
        node.host().nft(&format!("table netdev dark {{ chain c {{ {dark} }}; }}"));
    }
    narrow.a.wait_class(&narrow.b, "relay", Duration::from_secs(2));
    transfer.wait_for_more(2 * MEGABYTE, PATIENCE);
    let arrived = transfer.finish();
    figure(test, &format!("the longest pause is {:.0?}", arrived.longest_gap));
    assert!(arrived.longest_gap < AT_ONCE, "{arrived:?}");
}
