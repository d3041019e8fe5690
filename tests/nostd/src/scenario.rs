//! Two nodes in one program, joined by a queue: they meet, an IP packet crosses, a ping is answered.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use vine_core::overlay::{Batch, Prefix, TunPacket};
use vine_core::path::{Family, FourTuple, SocketId, SocketInfo};
use vine_core::session::RustCrypto;
use vine_core::{
    Command, Event, Identity, Inbound, Instant, NetworkId, Node, NodeConfig, Output, PeerConfig, Policy, TunOutcome,
    UnixTime,
};

const SOCKET: SocketId = SocketId(0);
const DELAY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);
const TOKEN: u64 = 42;

/// A node, its address on the queue, and what came out of it.
struct Machine {
    node: Node,
    address: SocketAddr,
    received: Vec<Vec<u8>>,
    events: Vec<Event>,
}

/// A datagram under way: when it arrives, who gets it, from where, and its bytes.
struct Flight {
    arrives: Instant,
    to: usize,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// Drives the core; returns the exit status: 0 where everything was as expected, else the number of the step that failed.
pub(crate) fn run() -> i32 {
    let Some(mut machines) = machines() else { return 1 };
    let mut flights = VecDeque::new();
    let mut now = Instant::ORIGIN;
    let up =
        |machines: &[Machine; 2]| machines.iter().all(|m| m.events.iter().any(|e| matches!(e, Event::PeerUp { .. })));
    if !drive(&mut machines, &mut flights, &mut now, up) {
        return 2;
    }
    let packet = packet(Ipv4Addr::new(10, 42, 0, 1), Ipv4Addr::new(10, 42, 1, 1));
    if !send(&mut machines, &mut flights, now, &packet) {
        return 3;
    }
    if !drive(&mut machines, &mut flights, &mut now, |machines| machines[1].received.contains(&packet)) {
        return 4;
    }
    let peer = machines[1].node.id();
    if machines[0].node.command(now, Command::Ping { peer, token: TOKEN }).is_err() {
        return 5;
    }
    let answered = |machines: &[Machine; 2]| {
        machines[0].events.iter().any(|e| matches!(e, Event::PingReply { token: TOKEN, rtt, .. } if *rtt >= 2 * DELAY))
    };
    if drive(&mut machines, &mut flights, &mut now, answered) { 0 } else { 6 }
}

/// Two nodes that allow each other; only the first knows where the second is.
fn machines() -> Option<[Machine; 2]> {
    let ids = [Identity::from_seed([1; 32]).peer_id(), Identity::from_seed([2; 32]).peer_id()];
    let prefix = |n: u8| Prefix::new(IpAddr::V4(Ipv4Addr::new(10, 42, n, 0)), 24).ok();
    let address = |n: u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, n + 1)), 4100);
    let machine = |n: u8| {
        let other = 1 - n;
        let peer = PeerConfig {
            id: ids[usize::from(other)],
            name: String::from("other"),
            prefixes: vec![prefix(other)?],
            relay_capable: false,
            last_known: vec![],
            endpoints: if n == 0 { vec![address(other)] } else { Vec::new() },
        };
        let config = NodeConfig {
            network_id: NetworkId::new("no-std").ok()?,
            network_key: None,
            sockets: vec![SocketInfo { id: SOCKET, family: Family::V4, port: 4100 }],
            peers: vec![peer],
            policy: Policy::default(),
            own_prefixes: vec![prefix(n)?],
            mtu: 1400,
            aes_is_fast: n == 0,
            checksum_offload: false,
        };
        let identity = Identity::from_seed([n + 1; 32]);
        let seed = [n + 7; 32];
        let node = Node::new(config, identity, Box::new(RustCrypto), seed, Instant::ORIGIN, UnixTime(1)).ok()?;
        Some(Machine { node, address: address(n), received: Vec::new(), events: Vec::new() })
    };
    Some([machine(0)?, machine(1)?])
}

/// Hands an IP packet to the first machine as if its host had sent it.
fn send(machines: &mut [Machine; 2], flights: &mut VecDeque<Flight>, now: Instant, packet: &[u8]) -> bool {
    let mut batch: Batch<FourTuple> = Batch::with_capacity(4096);
    let Ok(packet) = TunPacket::complete(packet) else { return false };
    let taken = machines[0].node.handle_tun(now, packet, &mut batch) == TunOutcome::Taken;
    let from = machines[0].address;
    for chunk in batch.chunks(1, 4096) {
        flights.push_back(Flight { arrives: now + DELAY, to: 1, from, bytes: chunk.bytes.into() });
    }
    taken
}

/// Lets time pass, exactly as the nodes ask for it, until `done`.
fn drive(
    machines: &mut [Machine; 2],
    flights: &mut VecDeque<Flight>,
    now: &mut Instant,
    done: impl Fn(&[Machine; 2]) -> bool,
) -> bool {
    let deadline = *now + PATIENCE;
    let mut scratch = vec![0; Node::SCRATCH_LEN];
    while !done(machines) && *now < deadline {
        for (n, machine) in machines.iter_mut().enumerate() {
            while let Some(output) = machine.node.poll_output(&mut scratch) {
                match output {
                    Output::Event(event) => machine.events.push(event),
                    Output::Tun { len } => machine.received.push(scratch[..len].into()),
                    Output::Transmit { len, .. } => {
                        let bytes = scratch[..len].into();
                        flights.push_back(Flight { arrives: *now + DELAY, to: 1 - n, from: machine.address, bytes });
                    }
                }
            }
        }
        let timer = machines.iter().map(|machine| machine.node.poll_timeout().0).min();
        let arrival = flights.front().map(|flight| flight.arrives);
        *now = timer.into_iter().chain(arrival).min().unwrap_or(deadline).max(*now);
        while let Some(mut flight) = flights.pop_front_if(|flight| flight.arrives <= *now) {
            let machine = &mut machines[flight.to];
            let path = FourTuple { socket: SOCKET, local: None, remote: flight.from };
            if let Some(Inbound::Packet(inbound)) = machine.node.handle_datagram(*now, path, &mut flight.bytes) {
                machine.received.push(inbound.packet.into());
            }
        }
        machines.iter_mut().for_each(|machine| machine.node.handle_timeout(*now));
    }
    done(machines)
}

/// An IPv4 packet of an experimental protocol (RFC 3692) with four bytes of payload.
fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(*b"vine");
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}
