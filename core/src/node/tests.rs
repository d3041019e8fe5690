//! Two nodes and their handshake step by step; and several on one network without delay, for what concerns a third peer.

use super::*;
use crate::config::NetworkId;
use crate::overlay::{Batch, TunPacket};
use crate::path::PathClass;
use crate::path::SocketId;
use crate::relay::RelayAddress;
use crate::session::RustCrypto;
use crate::wire::{Candidate, CandidateKind, NatVerdict, RelayRole, SignalBody, SignalRole};
use alloc::vec;
use core::num::NonZeroU32;

const SOCKET: SocketInfo = SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 };

const ADDRESS: RelayAddress = RelayAddress { handle: NonZeroU32::MIN, token: 7 };

/// Where a node is.
fn at(node: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, node as u8 + 1], 4100))
}

fn path(remote: SocketAddr) -> FourTuple {
    FourTuple { socket: SOCKET.id, local: None, remote }
}

fn id(node: usize) -> PeerId {
    Identity::from_seed([node as u8 + 1; 32]).peer_id()
}

fn prefix(node: usize) -> Prefix {
    Prefix::new([10, 0, node as u8, 0].into(), 24).unwrap()
}

/// A datagram on its way: from where, to where.
struct Transit {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Net {
    nodes: Vec<Node>,
    now: Instant,
    /// Changes a datagram's addresses, or drops it.
    wire: fn(&mut Transit) -> bool,
    /// What was sent, by whom.
    sent: Vec<(usize, SocketAddr, Vec<u8>)>,
    /// Packets that arrived, by receiver.
    packets: Vec<usize>,
    events: Vec<(usize, Event)>,
}

impl Net {
    /// Nodes that all know each other and where they are. The last may relay.
    fn new(count: usize) -> Net {
        Net::with(count, |_, _| true)
    }

    /// `knows` tells whether the first node is told where the second is.
    fn with(count: usize, knows: fn(usize, usize) -> bool) -> Net {
        let nodes = (0..count).map(|node| {
            let peer = |other: usize| Net::peer(other, other + 1 == count, knows(node, other));
            let config = NodeConfig {
                network_id: NetworkId::new("test").unwrap(),
                network_key: None,
                sockets: vec![SOCKET],
                peers: (0..count).filter(|other| *other != node).map(peer).collect(),
                policy: Policy::default(),
                own_prefixes: vec![prefix(node)],
                mtu: 1400,
                aes_is_fast: false,
                checksum_offload: false,
            };
            let (identity, seed) = (Identity::from_seed([node as u8 + 1; 32]), [node as u8 + 1; 32]);
            let mut node =
                Node::new(config, identity, Box::new(RustCrypto), seed, Instant::ORIGIN, UnixTime(1_000)).unwrap();
            node.command(Instant::ORIGIN, Command::NetworkChanged { local: vec![at(usize::from(seed[0]) - 1).ip()] })
                .unwrap();
            node
        });
        let nodes = nodes.collect();
        let (sent, packets, events) = Default::default();
        let mut net = Net { nodes, now: Instant::ORIGIN, wire: |_| true, sent, packets, events };
        net.run(1_000);
        net
    }

    fn peer(node: usize, relay_capable: bool, known: bool) -> PeerConfig {
        PeerConfig {
            id: id(node),
            name: "peer".into(),
            prefixes: vec![prefix(node)],
            relay_capable,
            endpoints: if known { vec![at(node)] } else { vec![] },
            last_known: vec![],
        }
    }

    /// Sleeps exactly, for `ms`.
    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.deliver();
            let next = self.nodes.iter().map(|node| node.poll_timeout().0).min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.nodes.iter_mut().for_each(|node| node.handle_timeout(self.now));
        }
    }

    fn deliver(&mut self) {
        let mut scratch = vec![0; Node::SCRATCH_LEN];
        for _ in 0..10_000 {
            let mut transits = Vec::new();
            for (n, node) in self.nodes.iter_mut().enumerate() {
                while let Some(output) = node.poll_output(&mut scratch) {
                    match output {
                        Output::Transmit { path, len } => {
                            let bytes = scratch[..len].to_vec();
                            self.sent.push((n, path.remote, bytes.clone()));
                            transits.push(Transit { from: at(n), to: path.remote, bytes });
                        }
                        Output::Event(event) => self.events.push((n, event)),
                        Output::Tun { .. } => self.packets.push(n),
                    }
                }
            }
            if transits.is_empty() {
                return;
            }
            transits.into_iter().for_each(|transit| self.carry(transit));
        }
        panic!("they never fall silent");
    }

    fn carry(&mut self, mut transit: Transit) {
        if !(self.wire)(&mut transit) {
            return;
        }
        let Some(to) = (0..self.nodes.len()).find(|node| at(*node) == transit.to) else { return };
        match self.nodes[to].handle_datagram(self.now, path(transit.from), &mut transit.bytes) {
            Some(Inbound::Packet(_)) => self.packets.push(to),
            Some(Inbound::Forward { to: next, datagram }) => {
                let bytes = datagram.to_vec();
                self.carry(Transit { from: at(to), to: next.remote, bytes });
            }
            None => {}
        }
    }

    /// The host of `from` sends a packet to `to`.
    fn send(&mut self, from: usize, to: usize) {
        self.send_long(from, to, 20);
    }

    /// The same with a packet of so many bytes.
    fn send_long(&mut self, from: usize, to: usize, length: u16) {
        let mut packet = vec![0; usize::from(length)];
        packet[..20]
            .copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, from as u8, 1, 10, 0, to as u8, 1]);
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let mut batch = Batch::with_capacity(2_000);
        let _ = self.nodes[from].handle_tun(self.now, TunPacket::complete(&packet).unwrap(), &mut batch);
        if let Some(destination) = batch.destination() {
            let bytes = batch.bytes().to_vec();
            self.carry(Transit { from: at(from), to: destination.remote, bytes });
        }
        self.deliver();
    }

    /// The preferred way from one to the other.
    fn way(&self, from: usize, to: usize) -> Option<(Via, PathClass)> {
        self.peer_of(from, to).paths.preferred().map(|(_, path)| (path.via, path.class))
    }

    /// The index by which a node knows another.
    fn index(&self, node: usize, other: usize) -> PeerIndex {
        self.nodes[node].index_of(&id(other)).unwrap()
    }

    fn peer_of(&self, node: usize, other: usize) -> &Peer {
        self.nodes[node].peer(self.index(node, other)).unwrap()
    }

    fn dropped(&self, node: usize, reason: DropReason) -> u64 {
        self.nodes[node].counters().dropped(reason)
    }
}

#[test]
fn a_peer_that_passes_on_in_silence_is_no_direct_path() {
    let mut net = Net::with(3, |_, other| other == 2);
    assert!(net.way(0, 2).is_some() && net.way(1, 2).is_some());
    // Whatever node 0 says to node 2's address reaches node 1 from there, and the other way round.
    net.wire = |transit| {
        if transit.to == at(2) && transit.from != at(2) {
            let from = core::mem::replace(&mut transit.from, at(2));
            transit.to = if from == at(0) { at(1) } else { at(0) };
        }
        true
    };
    // They seek each other where node 2 is.
    for (node, other) in [(0, 1), (1, 0)] {
        net.nodes[node].command(net.now, Command::SetEndpoints { peer: id(other), endpoints: vec![at(2)] }).unwrap();
    }
    for _ in 0..3 {
        net.run(100);
        net.send(0, 1);
    }
    assert_eq!((net.way(0, 1), net.way(1, 0)), (None, None));
    assert!(net.dropped(1, DropReason::ForeignPlace) > 0);
    // Once node 2 is there no more, its address may be anybody's.
    net.run(3_000);
    assert_eq!(net.way(0, 1), Some((Via::Direct(path(at(2))), PathClass::Direct)));
}

/// The datagrams that a node has to send to another.
fn outgoing(node: &mut Node) -> Vec<Vec<u8>> {
    let mut scratch = vec![0; Node::SCRATCH_LEN];
    let outputs = core::iter::from_fn(|| match node.poll_output(&mut scratch)? {
        Output::Transmit { len, .. } => Some(Some(scratch[..len].to_vec())),
        _ => Some(None),
    });
    outputs.flatten().collect()
}

#[test]
fn a_statement_that_overtook_an_older_one_stands() {
    let mut net = Net::new(3);
    let (relay, other) = (net.index(0, 2), net.index(0, 1));
    net.nodes[0].tell_open(relay, RelayRole::Request, other, ADDRESS);
    let mut open = outgoing(&mut net.nodes[0]);
    net.nodes[0].tell_close(relay, RelayRole::Request, *id(1).as_bytes(), RelayCloseReason::REFUSED);
    let mut close = outgoing(&mut net.nodes[0]);
    assert_eq!((open.len(), close.len()), (1, 1));
    for datagram in [&mut close[0], &mut open[0]] {
        let _ = net.nodes[2].handle_datagram(net.now, path(at(0)), datagram);
    }
    assert!(net.nodes[2].shared.channels.is_empty());
}

#[test]
fn a_relay_tells_a_peer_of_more_channels_than_its_queue_holds() {
    let mut net = Net::new(3);
    let others: Vec<PeerConfig> = (10..110).map(|node| Net::peer(node, false, false)).collect();
    for node in [0, 2] {
        let peers = (0..3).filter(|other| *other != node).map(|other| Net::peer(other, other == 2, true));
        net.nodes[node].command(net.now, Command::SetPeers(peers.chain(others.clone()).collect())).unwrap();
    }
    let relay = &mut net.nodes[2];
    let client = relay.index_of(&id(0)).unwrap();
    for other in 10..110 {
        let other = relay.index_of(&id(other)).unwrap();
        let Shared { channels, handles, rng, .. } = &mut relay.shared;
        channels.open(net.now, client, other, ADDRESS, handles, rng).unwrap();
    }
    relay.on_relay_restart(client);
    net.run(3_000);
    // The others are not there: each leg ends as soon as it is answered.
    assert_eq!(net.nodes[0].peers.iter().filter(|(_, peer)| peer.legs.is_some()).count(), 100);
    for node in [0, 2] {
        assert_eq!(net.dropped(node, DropReason::ControlOverflow), 0);
    }
}

#[test]
fn what_must_arrive_does_after_the_peer_was_added_anew() {
    let mut net = Net::new(3);
    let (relay, other) = (net.index(0, 2), net.index(0, 1));
    net.nodes[0].tell_open(relay, RelayRole::Request, other, ADDRESS);
    net.run(100);
    assert_eq!(net.nodes[2].shared.channels.len(), 1);
    // The goodbye is lost.
    net.wire = |_| false;
    net.nodes[0].command(net.now, Command::SetPeers(vec![Net::peer(1, false, true)])).unwrap();
    net.deliver();
    net.wire = |_| true;
    net.nodes[0]
        .command(net.now, Command::SetPeers(vec![Net::peer(1, false, true), Net::peer(2, true, true)]))
        .unwrap();
    net.run(1_000);
    let relay = net.index(0, 2);
    net.nodes[0].tell_close(relay, RelayRole::Request, *id(1).as_bytes(), RelayCloseReason::REFUSED);
    net.run(100);
    assert!(net.nodes[2].shared.channels.is_empty());
}

#[test]
fn what_the_host_does_not_send_is_known_without_waiting() {
    let mut net = two_and_a_relay();
    forbid_signaling(&mut net, 0);
    net.wire = |transit| transit.bytes.len() <= 1_350;
    talk(&mut net, 1_000);
    let (room, now) = (|net: &Net, to| net.peer_of(0, to).paths.preferred().map(|(_, path)| path.room()), net.now);
    for size in (1_351..1_460).rev() {
        net.nodes[0].handle_send_error(now, path(at(2)), size, SendError::TooLong);
    }
    net.run(50);
    // 1,312 bytes of a datagram are the next size that is tried; a relay's header comes off for the other one.
    assert_eq!((room(&net, 2), room(&net, 1)), (Some(1_312 - 32), Some(1_312 - 48)));
    for seconds in 0..3 {
        net.run(seconds);
        net.nodes[0].handle_send_error(net.now, path(at(1)), 100, SendError::Unreachable);
        net.nodes[0].handle_send_error(net.now, path(at(2)), 0, SendError::TooLong);
    }
    assert!(net.way(0, 1).is_some() && net.way(0, 2).is_some());
}

/// A Signal with one candidate.
fn signal(stamp: u64, candidate: SocketAddr) -> SignalBody {
    let candidates = [Candidate { kind: CandidateKind::Reflexive, address: candidate }].into_iter().collect();
    SignalBody { stamp, wants_answer: false, nat: NatVerdict::Unknown, candidates, results: heapless::Vec::new() }
}

#[test]
fn the_first_check_goes_out_with_a_hello() {
    let mut net = Net::with(3, |node, other| other == 2 || node == 2);
    net.sent.clear();
    let (carrier, mut scratch) = (net.index(1, 2), [0; SignalBody::SCRATCH_LEN]);
    let body = signal(1, SocketAddr::from(([192, 0, 2, 200], 4100)));
    net.nodes[1].on_signal(carrier, &body.to_signal(SignalRole::Carried(*id(0).as_bytes()), &mut scratch));
    net.deliver();
    let to: Vec<SocketAddr> = net.sent.iter().map(|(_, to, _)| *to).collect();
    assert!(to.contains(&SocketAddr::from(([192, 0, 2, 200], 4100))), "{to:?}");
}

#[test]
fn nobody_brings_signals_without_end() {
    let mut net = Net::with(3, |node, other| other == 2 || node == 2);
    let (carrier, mut scratch) = (net.index(1, 2), [0; SignalBody::SCRATCH_LEN]);
    for stamp in 0..10_000 {
        let body = signal(stamp, SocketAddr::from(([192, 0, 2, 200], 4100)));
        net.nodes[1].on_signal(carrier, &body.to_signal(SignalRole::Carried(*id(0).as_bytes()), &mut scratch));
    }
    let counters = net.nodes[1].counters();
    assert!(counters.signals_refused >= 9_744, "{}", counters.signals_refused);
    net.run(10_000);
    let before = net.nodes[1].counters().signals_refused;
    let body = signal(20_000, SocketAddr::from(([192, 0, 2, 200], 4100)));
    net.nodes[1].on_signal(carrier, &body.to_signal(SignalRole::Own, &mut scratch));
    assert_eq!(net.nodes[1].counters().signals_refused, before, "only for a while");
}

/// Two that reach each other through the third alone, until they signal.
fn two_and_a_relay() -> Net {
    Net::with(3, |node, other| other == 2 || node == 2)
}

/// Both send for so long, a packet each in 100 ms.
fn talk(net: &mut Net, ms: u64) {
    for _ in 0..ms / 100 {
        net.send(0, 1);
        net.send(1, 0);
        net.run(100);
    }
}

fn forbid_signaling(net: &mut Net, node: usize) {
    let policy = Policy { allow_signaling_upgrade: false, ..Policy::default() };
    net.nodes[node].command(net.now, Command::SetPolicy(policy)).unwrap();
}

#[test]
fn forbidding_signaling_ends_what_it_led_to() {
    let mut net = two_and_a_relay();
    talk(&mut net, 3_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::SignalingThenDirect));
    forbid_signaling(&mut net, 0);
    talk(&mut net, 2_000);
    let checks = net.nodes[0].counters().checks_sent;
    for _ in 0..20 {
        talk(&mut net, 500);
        assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::Relay));
    }
    assert_eq!(net.nodes[0].counters().checks_sent, checks);
    let received = net.packets.len();
    talk(&mut net, 1_000);
    assert!(net.packets.len() >= received + 18, "both still hear each other");
    net.nodes[0].command(net.now, Command::SetPolicy(Policy::default())).unwrap();
    talk(&mut net, 3_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::SignalingThenDirect));
}

#[test]
fn forbidding_signaling_cuts_nobody_off() {
    let mut net = two_and_a_relay();
    talk(&mut net, 3_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::SignalingThenDirect));
    // The relay goes: what is left is that one of the two says Hello where it knew the other.
    net.wire = |transit| transit.to != at(2) && transit.from != at(2);
    forbid_signaling(&mut net, 0);
    talk(&mut net, 5_000);
    let received = net.packets.len();
    talk(&mut net, 1_000);
    assert!(net.packets.len() >= received + 18, "{} of 20", net.packets.len() - received);
}

#[test]
fn a_pair_that_rested_while_its_relay_carried_nothing_asks_it_again() {
    let mut net = two_and_a_relay();
    forbid_signaling(&mut net, 0);
    talk(&mut net, 3_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::Relay));
    for allow_relay in [false, true] {
        let policy = Policy { allow_relay, ..Policy::default() };
        net.nodes[2].command(net.now, Command::SetPolicy(policy)).unwrap();
        net.run(60_000);
    }
    assert!(net.peer_of(0, 1).has_session(), "keys outlive the way");
    let received = net.packets.len();
    talk(&mut net, 2_000);
    assert!(net.packets.len() >= received + 38, "{} of 40", net.packets.len() - received);
}

#[test]
fn an_end_that_moved_is_found_by_what_is_passed_on() {
    const MOVED: SocketAddr = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 101)), 4100);
    let mut net = two_and_a_relay();
    forbid_signaling(&mut net, 0);
    forbid_signaling(&mut net, 1);
    talk(&mut net, 3_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::Relay));
    net.wire = |transit| {
        if transit.from == at(1) {
            transit.from = MOVED;
        }
        match transit.to {
            MOVED => transit.to = at(1),
            to if to == at(1) => return false,
            _ => {}
        }
        true
    };
    net.send(1, 0);
    net.run(1);
    let direct = net.peer_of(2, 1).paths.proven().any(|via| via == Via::Direct(path(MOVED)));
    assert!(direct, "the relay asked where it comes from now");
    talk(&mut net, 1_000);
    let received = net.packets.len();
    talk(&mut net, 1_000);
    assert!(net.packets.len() >= received + 18, "{} of 20", net.packets.len() - received);
}

#[test]
fn fragments_are_mirrored_too() {
    let mut net = two_and_a_relay();
    net.wire = |transit| transit.bytes.len() <= 1252;
    talk(&mut net, 10_000);
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::SignalingThenDirect));
    net.wire = |transit| transit.from == at(2) || transit.to == at(2);
    let (fragments, mirrored) = (net.nodes[0].counters().fragments_sent, net.nodes[0].counters().packets_mirrored);
    for _ in 0..60 {
        net.send_long(0, 1, 1280);
        net.run(5);
    }
    assert_eq!(net.way(0, 1).map(|(_, class)| class), Some(PathClass::Relay));
    let counters = net.nodes[0].counters();
    assert_eq!(counters.fragments_sent - fragments, 120);
    assert!(counters.packets_mirrored - mirrored >= 4, "{}", counters.packets_mirrored - mirrored);
}

/// The path from 192.0.2.`last`.
fn from(last: u8) -> FourTuple {
    FourTuple { socket: SocketId(0), local: None, remote: SocketAddr::from(([192, 0, 2, last], 4100)) }
}

/// Node 1 or 2. The first knows where to look for the other.
fn node(number: u8, unix_time: UnixTime) -> Node {
    let peer = PeerConfig {
        id: Identity::from_seed([3 - number; 32]).peer_id(),
        name: "peer".into(),
        prefixes: vec![Prefix::new([10, 0, 2 - number, 0].into(), 24).unwrap()],
        relay_capable: false,
        endpoints: if number == 1 { vec![from(2).remote] } else { vec![] },
        last_known: vec![],
    };
    let config = NodeConfig {
        network_id: NetworkId::new("test").unwrap(),
        network_key: None,
        sockets: vec![SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 }],
        peers: vec![peer],
        policy: Policy::default(),
        own_prefixes: vec![Prefix::new([10, 0, number - 1, 0].into(), 24).unwrap()],
        mtu: 1400,
        aes_is_fast: false,
        checksum_offload: false,
    };
    let identity = Identity::from_seed([number; 32]);
    Node::new(config, identity, Box::new(RustCrypto), [number; 32], Instant::ORIGIN, unix_time).unwrap()
}

/// Both, and the datagrams that make a session between them, in order: Hello, Cookie, Hello, HelloAck, HelloFinish and
/// what follows. Those after the first `taken` are not delivered, but returned with the two.
fn handshake(taken: usize) -> ([Node; 2], Vec<Vec<u8>>) {
    let mut nodes = [node(1, UnixTime(1_000)), node(2, UnixTime(1_000))];
    let mut scratch = vec![0; Node::SCRATCH_LEN];
    let mut under_way = Vec::new();
    nodes[0].handle_timeout(Instant::ORIGIN);
    for step in 0..=taken {
        let side = step % 2;
        under_way.clear();
        while let Some(output) = nodes[side].poll_output(&mut scratch) {
            if let Output::Transmit { len, .. } = output {
                under_way.push(scratch[..len].to_vec());
            }
        }
        if step < taken {
            for datagram in &mut under_way.clone() {
                let _ = nodes[1 - side].handle_datagram(Instant::ORIGIN, from(side as u8 + 1), datagram);
            }
        }
    }
    (nodes, under_way)
}

/// Where data to the peer goes at once, if it does.
fn data_goes_to(node: &mut Node, destination: u8) -> Option<FourTuple> {
    let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, destination, 1];
    let mut batch = Batch::with_capacity(2_000);
    let taken = node.handle_tun(Instant::ORIGIN, TunPacket::complete(&packet).unwrap(), &mut batch);
    assert_eq!(taken, TunOutcome::Taken);
    batch.destination()
}

#[test]
fn an_answer_from_where_nobody_was_asked_proves_no_path() {
    for (remote, goes) in [(2, Some(from(2))), (9, None)] {
        // The HelloAck is the fourth.
        let ([mut alpha, _], mut ack) = handshake(3);
        let _ = alpha.handle_datagram(Instant::ORIGIN, from(remote), &mut ack[0]);
        assert_eq!(alpha.sessions().count(), 1);
        assert_eq!(data_goes_to(&mut alpha, 1), goes);
    }
}

#[test]
fn a_confirmation_from_where_nobody_was_answered_proves_no_path() {
    for (remote, goes) in [(1, Some(from(1))), (9, None)] {
        let ([_, mut beta], mut finish) = handshake(4);
        let _ = beta.handle_datagram(Instant::ORIGIN, from(remote), &mut finish[0]);
        assert_eq!(beta.sessions().count(), 1);
        assert_eq!(data_goes_to(&mut beta, 0), goes);
    }
}

#[test]
fn a_hello_that_came_from_two_places_proves_neither() {
    for (other, goes) in [(1, Some(from(1))), (9, None)] {
        let ([mut alpha, mut beta], mut hello) = handshake(2);
        for remote in [1, other] {
            let _ = beta.handle_datagram(Instant::ORIGIN, from(remote), &mut hello[0]);
        }
        let mut scratch = vec![0; Node::SCRATCH_LEN];
        let Some(Output::Transmit { len, .. }) = beta.poll_output(&mut scratch) else { panic!("no HelloAck") };
        let _ = alpha.handle_datagram(Instant::ORIGIN, from(2), &mut scratch[..len]);
        let Some(Output::Transmit { len, .. }) = alpha.poll_output(&mut scratch) else { panic!("no HelloFinish") };
        let mut finish = scratch[..len].to_vec();
        let _ = beta.handle_datagram(Instant::ORIGIN, from(1), &mut finish);
        assert_eq!(beta.sessions().count(), 1);
        assert_eq!(data_goes_to(&mut beta, 0), goes);
    }
}

#[test]
fn a_clock_at_its_end_stops_no_hello() {
    let mut node = node(1, UnixTime(u64::MAX));
    for seconds in 0..20 {
        node.handle_timeout(Instant::from_millis(seconds * 1_000));
    }
    assert!(node.counters().hellos_sent > 2);
}
