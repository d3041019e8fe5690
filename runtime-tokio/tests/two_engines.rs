//! Two engines in one process: real sockets on the loopback, packet devices in memory.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;
use vine_core::path::SocketId;
use vine_core::{Command, Event, Identity, NetworkId, NodeConfig, PeerConfig, Policy};
use vine_tokio::{
    Bootstrap, Device, Endpoint, Engine, EngineConfig, EngineHandle, Exit, MemoryTunHost, PingError, Reload,
    aes_is_fast, memory_tun,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// One machine of the test: number 1 owns 10.42.1.0/24 and fd42:0:0:1::/64, and so on.
struct Machine {
    engine: EngineHandle,
    host: MemoryTunHost,
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn peer(n: u8) -> PeerConfig {
    PeerConfig {
        id: identity(n).peer_id(),
        name: format!("machine-{n}"),
        prefixes: vec![format!("10.42.{n}.0/24").parse().unwrap(), format!("fd42:0:0:{n}::/64").parse().unwrap()],
        relay_capable: false,
        endpoints: vec![],
        last_known: vec![],
    }
}

fn config(n: u8, peers: &[u8], listen: &str, device: Device) -> EngineConfig {
    let node = NodeConfig {
        network_id: NetworkId::new("test").unwrap(),
        network_key: None,
        sockets: vec![],
        peers: peers.iter().map(|n| peer(*n)).collect(),
        policy: Policy::default(),
        own_prefixes: peer(n).prefixes,
        // As long as the longest packet of these tests; the loopback carries it.
        mtu: 9000,
        aes_is_fast: aes_is_fast(),
        checksum_offload: false,
    };
    EngineConfig::new(node, identity(n), vec![listen.parse().unwrap()], device)
}

async fn start(n: u8, other: u8, listen: &str, at: Option<Endpoint>) -> Machine {
    let (device, host) = memory_tun(256);
    let mut config = config(n, &[other], listen, Device::Memory(device));
    config.bootstrap.extend(at.map(|endpoint| Bootstrap { peer: identity(other).peer_id(), endpoint }));
    Machine { engine: Engine::start(config).await.unwrap(), host }
}

/// Machine 1 knows where machine 2 is, and not the other way round.
async fn pair(listen: &str) -> (Machine, Machine) {
    let b = start(2, 1, listen, None).await;
    let a = start(1, 2, listen, Some(Endpoint::Address(b.engine.local_addrs()[0]))).await;
    up(&a, 2).await;
    up(&b, 1).await;
    (a, b)
}

/// Waits until the peer is connected.
async fn up(machine: &Machine, other: u8) {
    let mut events = machine.engine.events();
    let id = identity(other).peer_id();
    let connected = machine.engine.query(move |node, _| node.sessions().any(|s| s.id == id && s.path.is_some()));
    if connected.await.unwrap() {
        return;
    }
    let is_up = async { while events.recv().await.unwrap() != (Event::PeerUp { peer: id }) {} };
    timeout(PATIENCE, is_up).await.expect("the peer comes up");
}

/// An IPv4 or IPv6 packet of protocol 253 (for experiments, RFC 3692) that is right in every field.
fn packet(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 253, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            let sum: u32 = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 253, 64];
            packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("one family"),
    }
}

async fn received(machine: &mut Machine) -> Vec<u8> {
    timeout(PATIENCE, machine.host.recv()).await.expect("a packet in time").expect("the engine runs")
}

#[tokio::test]
async fn packets_cross_in_both_families_both_ways() {
    for listen in ["udp://127.0.0.1:0", "udp://[::1]:0"] {
        let (mut a, mut b) = pair(listen).await;
        for size in [0, 1, 100, 1300, 8000] {
            for (from, to) in [("10.42.1.5", "10.42.2.9"), ("fd42:0:0:1::5", "fd42:0:0:2::9")] {
                let there = packet(from, to, &vec![7; size]);
                assert!(a.host.send(&there).await);
                assert_eq!(received(&mut b).await, there);
                let back = packet(to, from, &vec![8; size]);
                assert!(b.host.send(&back).await);
                assert_eq!(received(&mut a).await, back);
            }
        }
        let sent = a.engine.query(|node, _| node.counters().packets_sent).await.unwrap();
        assert_eq!(sent, 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_arrives_whole_and_in_order() {
    let (a, mut b) = pair("udp://127.0.0.1:0").await;
    const COUNT: u32 = 5000;
    // No more are under way than the sockets' buffers hold: UDP would lose the rest.
    let window = Arc::new(Semaphore::new(256));
    let Machine { engine: _running, host } = a;
    let permits = window.clone();
    tokio::spawn(async move {
        for n in 0..COUNT {
            permits.acquire().await.unwrap().forget();
            assert!(host.send(&packet("10.42.1.5", "10.42.2.9", &n.to_be_bytes())).await);
        }
    });
    for n in 0..COUNT {
        assert_eq!(received(&mut b).await[20..], n.to_be_bytes());
        window.add_permits(1);
    }
}

#[tokio::test]
async fn the_first_packet_waits_for_the_handshake() {
    let mut b = start(2, 1, "udp://127.0.0.1:0", None).await;
    let a = start(1, 2, "udp://127.0.0.1:0", Some(Endpoint::Address(b.engine.local_addrs()[0]))).await;
    let first = packet("10.42.1.5", "10.42.2.9", b"first");
    assert!(a.host.send(&first).await);
    assert_eq!(received(&mut b).await, first);
}

#[tokio::test]
async fn a_bootstrap_name_is_resolved() {
    let b = start(2, 1, "udp://127.0.0.1:0", None).await;
    let port = b.engine.local_addrs()[0].port();
    let a = start(1, 2, "udp://127.0.0.1:0", Some(Endpoint::Name { host: "localhost".into(), port })).await;
    up(&a, 2).await;
}

#[tokio::test]
async fn a_ping_names_path_and_time() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let pong = a.engine.ping(identity(2).peer_id(), PATIENCE).await.unwrap();
    assert_eq!(pong.path.direct().unwrap().remote, b.engine.local_addrs()[0]);
    assert!(pong.rtt < PATIENCE);
    let stranger = a.engine.ping(identity(9).peer_id(), PATIENCE).await;
    assert!(matches!(stranger, Err(PingError::Refused(_))), "{stranger:?}");
}

#[tokio::test]
async fn what_bears_on_a_path_is_told() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let (at, id) = (b.engine.local_addrs()[0], identity(2).peer_id());
    a.engine.ping(id, PATIENCE).await.unwrap();
    let told = a.engine.query(move |node, _| {
        let why = node.why(&id).unwrap();
        assert!(node.why(&identity(9).peer_id()).is_none() && why.session && !why.departed);
        let preferred: Vec<_> = why.paths.iter().filter(|path| path.preferred).collect();
        assert_eq!(preferred.len(), 1);
        assert!(preferred[0].last_proof.is_some() && why.mtu.is_some());
        assert_eq!(node.reached().collect::<Vec<_>>(), [(id, at)]);
        assert_eq!(node.channels().count(), 0);
        let net = node.netcheck();
        assert_eq!(net.sockets.len(), 1);
        preferred[0].via.direct().unwrap().remote
    });
    assert_eq!(told.await.unwrap(), at);
}

#[tokio::test]
async fn a_hairpin_is_recognised_and_kept_from_the_node() {
    let machine = start(1, 2, "udp://127.0.0.1:0", None).await;
    let own = machine.engine.local_addrs()[0];
    assert!(machine.engine.hairpin(SocketId(0), own, PATIENCE).await.unwrap());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let elsewhere = silent.local_addr().unwrap();
    assert!(!machine.engine.hairpin(SocketId(0), elsewhere, Duration::from_millis(50)).await.unwrap());
    let drops = machine.engine.query(|node, _| node.counters().drops().map(|(_, n)| n).sum::<u64>()).await.unwrap();
    assert_eq!(drops, 0);
}

#[tokio::test]
async fn a_last_known_endpoint_finds_the_peer_again() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let reached = a.engine.query(|node, _| node.reached().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(reached, [(identity(2).peer_id(), b.engine.local_addrs()[0])]);
    a.engine.shutdown().await;

    // A new life, and nobody configured says where the other is.
    let (device, _host) = memory_tun(256);
    let mut config = config(1, &[2], "udp://127.0.0.1:0", Device::Memory(device));
    config.node.peers[0].last_known = reached.into_iter().map(|(_, address)| address).collect();
    let (_device, host) = memory_tun(1);
    let again = Machine { engine: Engine::start(config).await.unwrap(), host };
    up(&again, 2).await;
}

#[tokio::test]
async fn shutdown_says_goodbye_and_leaves_nothing() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let mut events = a.engine.events();
    let at: SocketAddr = b.engine.local_addrs()[0];
    assert_eq!(b.engine.shutdown().await, Exit::Shutdown);
    let id = identity(2).peer_id();
    let goodbye =
        async { while !matches!(events.recv().await.unwrap(), Event::PeerDown { peer, .. } if peer == id) {} };
    timeout(Duration::from_secs(2), goodbye).await.expect("the peer is told, and need not find out");

    // Its port is free again, its handle says so, and its host's side is at an end.
    std::net::UdpSocket::bind(at).unwrap();
    assert!(b.engine.query(|_, _| ()).await.is_err());
    assert!(matches!(b.engine.ping(identity(1).peer_id(), PATIENCE).await, Err(PingError::Stopped(_))));
    assert_eq!(b.engine.shutdown().await, Exit::Shutdown);
    assert!(!b.host.send(b"x").await);
}

#[tokio::test]
async fn the_last_handle_ends_the_engine() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let mut events = a.engine.events();
    let Machine { engine, mut host } = b;
    drop(engine);
    assert_eq!(timeout(PATIENCE, host.recv()).await.unwrap(), None);
    let id = identity(2).peer_id();
    let goodbye =
        async { while !matches!(events.recv().await.unwrap(), Event::PeerDown { peer, .. } if peer == id) {} };
    timeout(PATIENCE, goodbye).await.unwrap();
}

#[tokio::test]
async fn a_reload_adds_and_removes_peers() {
    let mut b = start(2, 1, "udp://127.0.0.1:0", None).await;
    let mut a = start(1, 3, "udp://127.0.0.1:0", None).await;
    let at = Endpoint::Address(b.engine.local_addrs()[0]);
    let id = identity(2).peer_id();
    let reload = Reload {
        peers: vec![peer(2)],
        policy: Policy::default(),
        bootstrap: vec![Bootstrap { peer: id, endpoint: at }],
    };
    a.engine.reload(reload.clone()).await.unwrap();
    up(&a, 2).await;
    let there = packet("10.42.1.5", "10.42.2.9", b"reloaded");
    assert!(a.host.send(&there).await);
    assert_eq!(received(&mut b).await, there);

    // A reload that contradicts itself changes nothing.
    let twice = Reload { peers: vec![peer(2), peer(2)], ..reload };
    assert!(a.engine.reload(twice).await.is_err());
    assert!(b.host.send(&packet("10.42.2.9", "10.42.1.5", b"still")).await);
    assert_eq!(received(&mut a).await, packet("10.42.2.9", "10.42.1.5", b"still"));

    let nobody = Reload { peers: vec![], policy: Policy::default(), bootstrap: vec![] };
    a.engine.reload(nobody).await.unwrap();
    assert_eq!(a.engine.query(|node, _| node.peers().count()).await.unwrap(), 0);
    let refused = a.engine.command(Command::Ping { peer: id, token: 1 }).await.unwrap();
    assert!(refused.is_err());
}

#[tokio::test]
async fn an_idle_engine_sleeps() {
    let (a, b) = pair("udp://127.0.0.1:0").await;
    let busy = |time: Duration| async move {
        let before = process_cpu();
        tokio::time::sleep(time).await;
        process_cpu() - before
    };
    // Other tests share the process, and the two have just met: one look in which next to nothing is done is enough, as a
    // busy loop shows in each.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let spent = busy(Duration::from_millis(100)).await;
        if spent < Duration::from_millis(60) {
            break;
        }
        assert!(Instant::now() < deadline, "still {spent:?} of CPU time in 100 ms");
    }
    drop((a, b));
}

/// CPU time that this process has used.
fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
