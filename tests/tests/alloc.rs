//! The hot path allocates nothing: ten thousand packets through two nodes, with timers, receipts and probes running.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use vine_core::overlay::{Batch, Gather, Merge, TunPacket, VirtioNetHeader};
use vine_core::path::{Family, FourTuple, SocketId, SocketInfo};
use vine_core::session::RustCrypto;
use vine_core::{
    Identity, Inbound, Instant, NetworkId, Node, NodeConfig, Output, PeerConfig, Policy, TunOutcome, UnixTime,
};
use vine_tests::heap::{Counting, HeapUse};
use vine_tests::sim::{Ledger, Offered, Traffic, overlay_prefixes};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = HeapUse::of_this_thread().allocations;
    work();
    HeapUse::of_this_thread().allocations - before
}

/// One of the two machines, with all the buffers that it will ever need.
struct Machine {
    node: Node,
    address: SocketAddr,
    batch: Batch<FourTuple>,
    scratch: Vec<u8>,
    /// What one receive of the other side gives: datagrams back to back.
    buffer: Vec<u8>,
    delivered: u64,
    controls: u64,
}

impl Machine {
    fn new(number: usize, offload: bool) -> Machine {
        let identity = |number: usize| Identity::from_seed([number as u8 + 1; 32]);
        let address = |number: usize| SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1 + number as u8), 4100));
        let other = 1 - number;
        let config = NodeConfig {
            network_id: NetworkId::new("alloc").expect("five bytes are a name"),
            network_key: None,
            sockets: vec![SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 }],
            peers: vec![PeerConfig {
                id: identity(other).peer_id(),
                name: "other".into(),
                prefixes: overlay_prefixes(other),
                relay_capable: false,
                last_known: vec![],
                endpoints: vec![address(other)],
            }],
            policy: Policy::default(),
            own_prefixes: overlay_prefixes(number),
            mtu: 1400,
            aes_is_fast: offload,
            checksum_offload: offload,
        };
        let (seed, now) = ([number as u8 + 7; 32], Instant::from_millis(1));
        Machine {
            node: Node::new(config, identity(number), Box::new(RustCrypto), seed, now, UnixTime(1))
                .expect("two peers that differ"),
            address: address(number),
            batch: Batch::with_capacity(128 * 1024),
            scratch: vec![0; Node::SCRATCH_LEN],
            buffer: vec![0; 128 * 1024],
            delivered: 0,
            controls: 0,
        }
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, stride: usize, bytes: &[u8]) {
        let local = Some(IpAddr::from(match self.address.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => unreachable!("both machines have IPv4"),
        }));
        let path = FourTuple { socket: SocketId(0), local, remote: from };
        let received = &mut self.buffer[..bytes.len()];
        received.copy_from_slice(bytes);
        let delivered = &mut self.delivered;
        let mut sink = |_: &VirtioNetHeader, parts: &[&[u8]]| *delivered += parts.len() as u64;
        let mut gather = Gather::new(Merge::TcpAndUdp);
        for datagram in received.chunks_mut(stride) {
            if let Some(Inbound::Packet(inbound)) = self.node.handle_datagram(now, path, datagram) {
                gather.push(inbound.packet, inbound.csum_partial, &mut sink);
            }
        }
        gather.finish(&mut sink);
    }

    /// Does what is due and hands the other machine what comes of it.
    fn settle(&mut self, now: Instant, other: &mut Machine) {
        if self.node.poll_timeout().0 <= now {
            self.node.handle_timeout(now);
        }
        while let Some(output) = self.node.poll_output(&mut self.scratch) {
            if let Output::Transmit { len, .. } = output {
                self.controls += 1;
                other.receive(now, self.address, len, &self.scratch[..len]);
            }
        }
    }

    fn send(&mut self, now: Instant, packet: &Offered, other: &mut Machine) {
        let parsed = TunPacket::parse(&packet.header, &packet.bytes).expect("hosts hand over packets");
        assert_eq!(self.node.handle_tun(now, parsed, &mut self.batch), TunOutcome::Taken);
        for chunk in self.batch.chunks(64, 65_507) {
            other.receive(now, self.address, chunk.segment_size, chunk.bytes);
        }
        self.batch.clear();
    }
}

/// Sends `rounds` rounds of packets from one to the other and back, one round every five milliseconds.
fn talk(now: &mut Instant, rounds: usize, a: &mut Machine, b: &mut Machine, packets: &[Vec<Offered>; 2]) {
    for round in 0..rounds {
        *now += Duration::from_millis(5);
        a.settle(*now, b);
        b.settle(*now, a);
        a.send(*now, &packets[0][round % packets[0].len()], b);
        b.send(*now, &packets[1][round % packets[1].len()], a);
    }
}

#[test]
fn ten_thousand_packets_allocate_nothing() {
    for offload in [false, true] {
        let (mut a, mut b) = (Machine::new(0, offload), Machine::new(1, offload));
        let mut ledger = Ledger::default();
        let mut now = Instant::from_millis(1);
        let mut make = |from: usize| -> Vec<Offered> {
            let kinds = Traffic::ALL.iter().flat_map(|kind| [(*kind, 1), (*kind, 4)]);
            kinds.flat_map(|(kind, count)| ledger.make(now, from, 1 - from, kind, 1_300, count)).collect()
        };
        let packets = [make(0), make(1)];
        // Until every lane, that of control too, has had the 256 envelopes after which its replay window has its full size.
        talk(&mut now, 4_000, &mut a, &mut b, &packets);
        assert!(a.node.sessions().all(|session| session.confirmed) && a.node.sessions().count() == 1);

        let sent = |a: &Machine, b: &Machine| a.node.counters().packets_sent + b.node.counters().packets_sent;
        let (before, controls) = (sent(&a, &b), a.controls + b.controls);
        let count = allocations(|| talk(&mut now, 4_000, &mut a, &mut b, &packets));
        let (packets, controls) = (sent(&a, &b) - before, a.controls + b.controls - controls);
        assert!(packets >= 10_000, "{packets} packets");
        assert!(controls >= 500, "{controls} receipts and probes");
        assert_eq!(count, 0, "allocations in {packets} packets and {controls} receipts and probes");
        let received = a.node.counters().packets_received + b.node.counters().packets_received;
        assert!(received >= packets, "everything arrives");
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(5)))), 1);
}
