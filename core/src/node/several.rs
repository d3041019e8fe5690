//! Several nodes on one network without delay, for what concerns a third peer.

use super::*;
use crate::path::PathClass;
use crate::config::NetworkId;
use crate::overlay::{Batch, TunPacket};
use crate::path::SocketId;
use crate::session::RustCrypto;
use alloc::vec;

const SOCKET: SocketInfo = SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 };

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
        let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, from as u8, 1, 10, 0, to as u8, 1];
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
        let node = &self.nodes[from];
        let index = node.index_of(&id(to)).unwrap();
        node.peer(index).unwrap().paths.preferred().map(|(_, path)| (path.via, path.class))
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
