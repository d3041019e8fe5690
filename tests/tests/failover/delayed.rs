//! Failover over paths with a delay. Every underlay datagram goes through a proxy on the host in the middle:
//!
//! ```text
//!   a 192.0.2.1 ─── .9 ┐     ┌ .9 ─── 198.51.100.1 b
//!                      middle
//!                         └ .9 ─── 203.0.113.1 r
//! ```
//!
//! The way through r takes as long as the direct one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vine_tests::lab::{Datagrams, Host, Lab, Node, NodeSpec, Ping, Process, Transfer, figure, wait_until};

use crate::{INTERVAL, PATIENCE};

/// What a failover takes beyond three round trips.
const BEYOND: Duration = Duration::from_millis(200);
/// Bytes that fill the queue of a slow line.
const PLENTY: u64 = 2 << 20;

struct Delayed {
    a: Node,
    b: Node,
    _r: Node,
    middle: Host,
    _proxies: Vec<Process>,
    _lab: Lab,
}

impl Delayed {
    /// Running nodes; the words are of the proxy between a and b, beside its delay. a and b reach each other directly.
    fn new(test: &str, rtt: Duration, words: &[&str]) -> Option<Delayed> {
        let lab = Lab::open(test)?;
        let [host_a, host_b, host_r, middle] = ["a", "b", "r", "middle"].map(|name| lab.host(name));
        lab.link(&host_a, &["192.0.2.1/24"], &middle, &["192.0.2.9/24"]);
        lab.link(&host_b, &["198.51.100.1/24"], &middle, &["198.51.100.9/24"]);
        lab.link(&host_r, &["203.0.113.1/24"], &middle, &["203.0.113.9/24"]);
        let ms = |time: Duration| format!("delay={}", time.as_secs_f64() * 1e3);
        let proxies = vec![
            proxy(&middle, &[&["192.0.2.9:4100", "198.51.100.1:4100", &ms(rtt / 2)], words].concat()),
            proxy(&middle, &["192.0.2.9:4200", "203.0.113.1:4100", &ms(rtt / 4)]),
            proxy(&middle, &["198.51.100.9:4200", "203.0.113.1:4100", &ms(rtt / 4)]),
        ];
        let [mut a, mut b, mut r] = [(&host_a, 1), (&host_b, 2), (&host_r, 3)]
            .map(|(host, number)| Node::new(host, NodeSpec::numbered(host.name(), number)));
        a.allow(&b);
        b.allow(&a);
        a.spec.bootstrap.push((b.peer_id().to_owned(), "udp://192.0.2.9:4100".to_owned()));
        for (node, at) in [(&mut a, "192.0.2.9"), (&mut b, "198.51.100.9")] {
            node.allow_as_relay(&r);
            node.spec.bootstrap.push((r.peer_id().to_owned(), format!("udp://{at}:4200")));
            r.allow(node);
        }
        for node in [&mut r, &mut b, &mut a] {
            node.up();
        }
        let ping = ["-n", "-q", "-c1", "-W1", &b.overlay(false).to_string()];
        wait_until("b answers", PATIENCE, || a.host().run("ping", &ping).ok().then_some(()));
        let delayed = Delayed { a, b, _r: r, middle, _proxies: proxies, _lab: lab };
        delayed.a.wait_class(&delayed.b, "direct", PATIENCE);
        Some(delayed)
    }

    /// The RTT to b as a measures it.
    fn rtt(&self) -> Duration {
        let session = self.a.entry("sessions", self.b.peer_id()).unwrap_or_default();
        Duration::from_secs_f64(session["rtt_ms"].as_f64().expect("a proven path has an RTT") / 1e3)
    }

    /// Lets the direct path go dark.
    fn cut(&self) {
        self.middle.nft(
            "table ip dark {
               chain in { type filter hook input priority 0; ip daddr 192.0.2.9 udp dport 4100 drop; }
               chain out { type filter hook output priority 0; ip saddr 192.0.2.9 udp sport 4100 drop; }
             }",
        );
    }
}

fn proxy(host: &Host, words: &[&str]) -> Process {
    let label = format!("proxy-{}", words[0]);
    let process = host.spawn(&label, env!("CARGO_BIN_EXE_udp-proxy"), words);
    wait_until("the proxy is ready", PATIENCE, || process.output().contains("ready").then_some(()));
    process
}

/// A stream of datagrams through the tunnel that nobody answers.
fn one_way(from: &Node, to: &Node) -> Datagrams {
    Datagrams::start(from.host(), to.host(), SocketAddr::new(to.overlay(false), 7000))
}

/// Both directions at once, each a stream of its own that nobody answers, and a ping.
fn within_bounds(test: &str, rtt: Duration) {
    let Some(delayed) = Delayed::new(test, rtt, &[]) else { return };
    let stream = one_way(&delayed.a, &delayed.b);
    let ping = Ping::start(delayed.a.host(), delayed.b.overlay(false), INTERVAL);
    stream.wait_for_more(200, PATIENCE);
    ping.wait_for_more(100, PATIENCE);
    let srtt = delayed.rtt();
    assert!(srtt >= rtt && srtt < 2 * rtt + Duration::from_millis(20), "{srtt:?}");
    let (from, at) = (Instant::now(), std::time::SystemTime::now());
    delayed.cut();
    ping.flows_after(at, PATIENCE);
    stream.wait_for_more(50, PATIENCE);
    let (answered, unanswered) = (ping.longest_gap(at), stream.longest_gap(from));
    figure(
        test,
        &format!("RTT {srtt:.0?}: a ping stands still {answered:.0?}, a stream of datagrams {unanswered:.0?}"),
    );
    // So much lies between two of them when nothing is cut.
    let outage = answered.max(unanswered).saturating_sub(INTERVAL);
    assert!(outage <= 3 * srtt + BEYOND, "{answered:?} {unanswered:?}");
}

#[test]
fn failover_at_an_rtt_of_1_ms() {
    within_bounds("failover_at_an_rtt_of_1_ms", Duration::from_millis(1));
}

#[test]
fn failover_at_an_rtt_of_50_ms() {
    within_bounds("failover_at_an_rtt_of_50_ms", Duration::from_millis(50));
}

#[test]
fn failover_at_an_rtt_of_300_ms() {
    within_bounds("failover_at_an_rtt_of_300_ms", Duration::from_millis(300));
}

#[test]
fn a_stream_that_nobody_answers_alone() {
    let test = "a_stream_that_nobody_answers_alone";
    let Some(delayed) = Delayed::new(test, Duration::from_millis(50), &[]) else { return };
    let stream = one_way(&delayed.b, &delayed.a);
    stream.wait_for_more(200, PATIENCE);
    let srtt = delayed.rtt();
    let from = Instant::now();
    delayed.cut();
    wait_until("b has left the direct path", PATIENCE, || (delayed.b.class(&delayed.a) == "relay").then_some(()));
    stream.wait_for_more(50, PATIENCE);
    let gap = stream.longest_gap(from);
    figure(test, &format!("RTT {srtt:.0?}: it stands still {gap:.0?}"));
    assert!(gap <= 3 * srtt + BEYOND, "{gap:?}");
}

/// A transfer fills the queue of a slow line: the RTT grows to many times what it was, and that is no outage.
#[test]
fn a_full_queue_is_no_outage_and_an_outage_of_a_full_queue_is_noticed() {
    let test = "a_full_queue_is_no_outage_and_an_outage_of_a_full_queue_is_noticed";
    let Some(delayed) = Delayed::new(test, Duration::from_millis(20), &["rate=8", "queue=256"]) else { return };
    let stream = one_way(&delayed.b, &delayed.a);
    let target = SocketAddr::new(delayed.b.overlay(false), 7001);
    let transfer = Transfer::start(delayed.a.host(), delayed.b.host(), target);
    let before = delayed.a.counter("fallback_transitions");
    transfer.wait_for_more(PLENTY, PATIENCE);
    stream.wait_for_more(100, PATIENCE);
    assert_eq!(delayed.a.counter("fallback_transitions"), before, "a full queue is no outage");
    let srtt = delayed.rtt();
    let from = Instant::now();
    delayed.cut();
    stream.wait_for_more(100, PATIENCE);
    transfer.wait_for_more(PLENTY / 4, PATIENCE);
    let gap = stream.longest_gap(from);
    figure(test, &format!("RTT {srtt:.0?} with a full queue: a stream of datagrams stands still {gap:.0?}"));
    assert!(gap <= 3 * srtt + BEYOND, "{gap:?}");
    transfer.finish();
}
