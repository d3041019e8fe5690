//! A daemon under a flood of Hellos.
//!
//! The measure is the TCP rate of an established session while the machine is under an equal flood of junk to a closed port:
//! what the flood itself costs the kernel is in both figures, what the daemon does with it is in one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use vine_tests::lab::{
    Host, Lab, Node, NodeSpec, Process, figure, first_answer, iperf_server, iperf_tcp, vine_binary_is_release,
    wait_until,
};

const TEST: &str = "established_and_new_sessions_live_through_floods_of_hellos";
/// Datagrams a second.
const RATE: u64 = 100_000;
const LEAST_ROUNDS: usize = 3;
/// Where the machine does something else at the same time, more rounds tell the daemon's share from the rest.
const MOST_ROUNDS: usize = 9;
/// Of one iperf3 run; the flood begins before and ends after.
const SECONDS: u32 = 2;
const DAEMON: &str = "192.0.2.1:4100";
const CLOSED: &str = "192.0.2.1:4999";
const PATIENCE: Duration = Duration::from_secs(20);
/// Kinds of Hellos in a flood.
const HELLOS: [&str; 4] = ["no-mac", "mac", "cookie", "replay"];
/// Of the rate under junk, so much has to be left under Hellos.
const LEAST_SHARE: f64 = 0.8;
/// What an allocator may keep back for itself, in KiB.
const SLACK_KIB: u64 = 2048;

#[test]
fn established_and_new_sessions_live_through_floods_of_hellos() {
    let Some(mut town) = Town::new(TEST) else { return };
    town.lab.go_first();
    let captured = town.capture_hellos();
    for node in [&mut town.a, &mut town.b] {
        node.up();
    }
    town.a.wait_connected(&town.b);
    let _server = iperf_server(town.a.host());
    let quiet = town.rate();

    let mut shares = HELLOS.map(|_| Vec::new());
    let mut after_first_round = 0;
    for round in 0..MOST_ROUNDS {
        // What else the machine does changes slowly, so each round has its own rate under junk.
        let junk = town.rate_under("junk", &captured);
        for (kind, shares) in HELLOS.iter().zip(&mut shares) {
            shares.push(town.rate_under(kind, &captured) / junk);
        }
        println!("round {round}: {:.2} Gbit/s under junk, shares of {HELLOS:?}: {shares:.2?}", junk / 1e9);
        if round == 0 {
            after_first_round = town.a.daemon().resident_kib();
        }
        if round + 1 >= LEAST_ROUNDS && shares.iter().all(|shares| median(shares) >= LEAST_SHARE) {
            break;
        }
    }
    let resident = town.a.daemon().resident_kib();
    let shares = shares.each_ref().map(|shares| median(shares));
    figure(TEST, &format!("TCP {:.2} Gbit/s without a flood", quiet / 1e9));
    for (kind, share) in HELLOS.iter().zip(shares) {
        figure(TEST, &format!("under {kind} Hellos {:.0}% of the rate under junk to a closed port", 100.0 * share));
    }
    figure(TEST, &format!("resident memory {after_first_round} KiB after the first round, {resident} after the last"));
    assert!(resident <= after_first_round + SLACK_KIB, "memory grows: {after_first_round} to {resident} KiB");
    if vine_binary_is_release() {
        assert!(shares.iter().all(|share| *share >= LEAST_SHARE), "{HELLOS:?}: {shares:?}");
    }

    town.new_session_under("mac", &captured);
    town.new_session_under("replay", &captured);
}

#[test]
fn hellos_without_the_mac_are_never_answered() {
    let Some(mut town) = Town::new("hellos_without_the_mac_are_never_answered") else { return };
    town.a.up();
    let counter = town.flooder.count_udp(DAEMON.parse().expect("an address"));
    assert_flooded(town.flood("no-mac", 1, &[]));
    assert!(counter.sent() > RATE / 2);
    assert_eq!(counter.received(), 0);
}

/// Four hosts on a switch: a, its peers b and d, and one who floods a.
struct Town {
    a: Node,
    b: Node,
    d: Node,
    flooder: Host,
    lab: Lab,
}

impl Town {
    fn new(test: &str) -> Option<Town> {
        let lab = Lab::open(test)?;
        let switch = lab.switch("sw");
        let [a, b, d] = [("a", 1), ("b", 2), ("d", 4)].map(|(name, number)| {
            let host = lab.host(name);
            lab.plug(&host, &[&format!("192.0.2.{number}/24")], &switch);
            Node::new(&host, NodeSpec::numbered(name, number))
        });
        let flooder = lab.host("c");
        lab.plug(&flooder, &["192.0.2.3/24"], &switch);
        let mut town = Town { a, b, d, flooder, lab };
        for peer in [&mut town.b, &mut town.d] {
            town.a.allow(peer);
            peer.allow(&town.a);
            peer.bootstrap(&town.a, "192.0.2.1");
        }
        Some(town)
    }

    /// Lets b and d say Hello to an address where nobody but this test listens, and keeps what they said: Hellos of real
    /// peers, addressed to a, which never came to a.
    fn capture_hellos(&mut self) -> Vec<PathBuf> {
        let trap = self.flooder.udp_socket("192.0.2.3:4100".parse().expect("an address"));
        trap.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        let mut files = Vec::new();
        for (node, here) in [(&mut self.b, "192.0.2.2:4100"), (&mut self.d, "192.0.2.4:4100")] {
            let real = std::mem::take(&mut node.spec.bootstrap);
            node.bootstrap(&self.a, "192.0.2.3");
            node.up();
            let here: SocketAddr = here.parse().expect("an address");
            let mut buffer = [0; 2048];
            for number in 0..2 {
                let length = loop {
                    let (length, from) = trap.recv_from(&mut buffer).expect("the peer says Hello");
                    if from == here {
                        break length;
                    }
                };
                let file = self.flooder.dir().join(format!("{}-{number}.hello", node.spec.name));
                std::fs::write(&file, &buffer[..length]).expect("the host's directory can be written");
                files.push(file);
            }
            assert_eq!(node.stop(), Some(0));
            node.spec.bootstrap = real;
            node.write_config();
        }
        files
    }

    /// Starts a flood, pinned to the last core, and waits until it flows. It goes before everything else on that core, as
    /// what a real one does to a machine does not wait for the machine either.
    fn flood(&self, kind: &str, seconds: u32, captured: &[PathBuf]) -> Process {
        let last_core = std::thread::available_parallelism().map_or(0, |count| count.get() - 1);
        let target = if kind == "junk" { CLOSED } else { DAEMON };
        let program = std::env::var("VINE_FLOOD_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_flood").to_owned());
        let mut args = [
            "--fifo",
            "2",
            "taskset",
            "-c",
            &last_core.to_string(),
            &program,
            target,
            &RATE.to_string(),
            &seconds.to_string(),
            kind,
        ]
        .map(str::to_owned)
        .to_vec();
        if matches!(kind, "mac" | "cookie" | "replay") {
            args.extend([self.a.peer_id().to_owned(), self.a.spec.network_id.clone()]);
        }
        if kind == "replay" {
            args.extend(captured.iter().map(|file| file.to_string_lossy().into_owned()));
        }
        let flood = self.flooder.spawn(&format!("flood-{kind}"), "chrt", &args);
        wait_until("the flood flows", PATIENCE, || flood.output().contains("begins").then_some(()));
        flood
    }

    /// The TCP rate from b to a.
    fn rate(&self) -> f64 {
        iperf_tcp(self.b.host(), self.a.overlay(false), SECONDS)
    }

    /// The TCP rate from b to a under a flood.
    fn rate_under(&self, kind: &str, captured: &[PathBuf]) -> f64 {
        let flood = self.flood(kind, SECONDS + 1, captured);
        let rate = self.rate();
        assert_flooded(flood);
        rate
    }

    /// Starts d in the middle of a flood: within 3 s of its start a ping is answered.
    fn new_session_under(&mut self, kind: &str, captured: &[PathBuf]) {
        let flood = self.flood(kind, 5, captured);
        let from = SystemTime::now();
        self.d.start();
        let answered = first_answer(self.d.host(), self.a.overlay(false), PATIENCE);
        let took = from.elapsed().unwrap_or_default();
        assert!(answered.is_some_and(|_| took < Duration::from_secs(3)), "under {kind}: {took:?}");
        figure(TEST, &format!("under {kind} Hellos a new session answers {took:.0?} after the daemon's start"));
        assert_eq!(self.d.stop(), Some(0));
        drop(flood);
    }
}

/// Waits for the end of a flood and asserts that it was one.
fn assert_flooded(mut flood: Process) {
    let status = flood.wait(PATIENCE).expect("the flood ends");
    let output = flood.output();
    assert!(status.success(), "{output}");
    let last: Vec<f64> = output.lines().last().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    let [sent, seconds] = last[..] else { panic!("the sender prints two numbers: {output}") };
    if vine_binary_is_release() {
        assert!(sent / seconds >= 0.95 * RATE as f64, "only {sent} datagrams in {seconds} s");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
