//! One production node, and a peer of it whose every byte is the fuzzer's choice: it has true keys, follows the protocol
//! only as far as it likes, and shares its addresses with strangers. The rules that hold whatever it does:
//!
//! - no panic, and none of what [`GlassCrypto`] watches;
//! - what nobody can authenticate changes nothing: no answer, no allocation;
//! - the node sends only to where something authentic came from, and what it sends can be read by a peer that follows the
//!   protocol to the letter;
//! - a packet comes out as it was sealed, and only from an address that the peer owns;
//! - one datagram makes the node take a bounded amount of memory;
//! - a node that has said all it had to say sleeps.

mod forge;
mod step;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use vine_core::overlay::{Batch, IpPacket, Prefix, TunPacket};
use vine_core::path::{Family, FourTuple, SocketId, SocketInfo};
use vine_core::session::keys::{MacKey, cookie_key, hello_key};
use vine_core::session::noise::{Initiator, StaticKey};
use vine_core::session::{Cookie, Tunnel};
use vine_core::wire::{EnvelopeType, Header, Hello, MAX_DATAGRAM_LEN, Message, Messages, Payload, hello};
use vine_core::{
    Identity, Inbound, Instant, NetworkId, Node, NodeConfig, Output, PeerConfig, PeerId, Policy, TunOutcome, UnixTime,
};

pub use step::{HelloShape, Inner, Name, Step, Visit};

use crate::alloc::peak_of;
use crate::crypto::GlassCrypto;

const NETWORK: &str = "fuzz";
/// Steps of one run.
const MAX_STEPS: usize = 64;
/// Sessions that the peer remembers.
const MAX_TUNNELS: usize = 8;
/// Datagrams that the peer remembers, to send them again.
const MAX_RECORDED: usize = 64;
/// The most bytes that one authentic datagram may make the node hold or use for a moment: its control queue when it grows
/// to its full size, old and new place together, is the largest of it.
const MAX_MEMORY: usize = 2 << 20;
/// Wakes in a row at one moment after which a node is busy and not waiting.
const MAX_WAKES: usize = 8;

/// Someone with keys.
struct Person {
    id: PeerId,
    key: StaticKey,
}

struct People {
    node: PeerId,
    node_static: [u8; 32],
    /// Whom the node allows.
    friend: Person,
    /// Whom it does not.
    stranger: Person,
    /// Allowed too, and never there.
    absent: PeerId,
    hello_key: MacKey,
    cookie_key: MacKey,
    friend_hello_key: MacKey,
    friend_cookie_key: MacKey,
}

static PEOPLE: LazyLock<People> = LazyLock::new(|| {
    let identity = |n| Identity::from_seed([n; 32]);
    let person = |n| Person { id: identity(n).peer_id(), key: StaticKey::from(&identity(n)) };
    let (node, friend) = (identity(1).peer_id(), person(2));
    People {
        node,
        node_static: node.x25519(),
        stranger: person(3),
        absent: identity(4).peer_id(),
        hello_key: hello_key(&node, NETWORK, None),
        cookie_key: cookie_key(&node, NETWORK, None),
        friend_hello_key: hello_key(&friend.id, NETWORK, None),
        friend_cookie_key: cookie_key(&friend.id, NETWORK, None),
        friend,
    }
});

/// A handshake that the peer began.
struct Begun {
    index: u32,
    initiator: Initiator,
    hello_mac: hello::Mac,
}

/// The node and its peer. See the [module documentation](self).
pub struct Encounter {
    salt: [u8; 32],
    node: Node,
    glass: GlassCrypto,
    /// The peer's side of the cipher; its keys may be as old as it likes.
    own_glass: GlassCrypto,
    now: Instant,
    batch: Batch<FourTuple>,
    scratch: Vec<u8>,
    /// Addresses from which something authentic came.
    authentic: BTreeSet<SocketAddr>,
    begun: Vec<Begun>,
    tunnels: Vec<Tunnel>,
    cookie: Option<Cookie>,
    /// The node's last Hello.
    greeted: Option<Vec<u8>>,
    /// Pings of the node that have no answer: token and path.
    pings: Vec<(u64, u8)>,
    recorded: Vec<Vec<u8>>,
    /// Packets that the node's host sent.
    packets: Vec<Vec<u8>>,
    /// Ephemeral keys, indices and stamps made so far.
    made: u32,
}

impl Encounter {
    /// Lets the two meet, takes every step, and panics where a rule was broken. Every key is made of `salt`.
    pub fn run(visit: &Visit, salt: [u8; 32]) {
        let mut encounter = Encounter::new(visit, salt);
        if !visit.cold {
            encounter.meet();
        }
        for step in visit.steps.iter().take(MAX_STEPS) {
            encounter.carry_out(step);
            encounter.drain();
        }
    }

    fn new(visit: &Visit, salt: [u8; 32]) -> Encounter {
        let glass = GlassCrypto::default();
        let now = Instant::from_millis(1_000);
        glass.set_now(now);
        let peer = |id, net: &str| PeerConfig {
            id,
            name: "peer".into(),
            prefixes: vec![net.parse().expect("it is a prefix")],
            relay_capable: false,
            last_known: vec![],
            endpoints: vec![],
        };
        let config = NodeConfig {
            network_id: NetworkId::new(NETWORK).expect("the name is short"),
            network_key: None,
            sockets: vec![SocketInfo { id: SocketId(0), family: Family::V4, port: 4100 }],
            peers: vec![peer(PEOPLE.friend.id, "10.0.0.0/30"), peer(PEOPLE.absent, "10.0.2.0/24")],
            policy: Policy::default(),
            own_prefixes: vec!["10.0.1.0/24".parse().expect("it is a prefix")],
            mtu: 1400,
            aes_is_fast: visit.aes_is_fast,
            checksum_offload: visit.checksum_offload,
        };
        let identity = Identity::from_seed([1; 32]);
        let node = Node::new(config, identity, Box::new(glass.clone()), salt, now, UnixTime(1_700_000_000_000));
        Encounter {
            salt,
            node: node.expect("the configuration is right"),
            glass,
            own_glass: GlassCrypto::default(),
            now,
            batch: Batch::with_capacity(MAX_DATAGRAM_LEN),
            scratch: vec![0; Node::SCRATCH_LEN],
            authentic: BTreeSet::new(),
            begun: Vec::new(),
            tunnels: Vec::new(),
            cookie: None,
            greeted: None,
            pings: Vec::new(),
            recorded: Vec::new(),
            packets: Vec::new(),
            made: 0,
        }
    }

    /// A handshake by the book: first Hello, Cookie, Hello with it, HelloAck, HelloFinish.
    fn meet(&mut self) {
        for _ in 0..2 {
            self.hello(true, &HelloShape::plain(), 0);
            self.drain();
        }
        self.finish(0, 0);
        self.drain();
        assert_eq!(self.node.sessions().filter(|session| session.confirmed).count(), 1);
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Raw { from, bytes } => self.intrude(*from, bytes.clone()),
            Step::Hello { friend, shape, from } => self.hello(*friend, shape, *from),
            Step::Finish { tunnel, from } => self.finish(*tunnel, *from),
            Step::Sealed { tunnel, lane, csum_partial, inner, from } => {
                self.seal(*tunnel, *lane, *csum_partial, inner, *from)
            }
            Step::Skip { tunnel, lane, count } => self.skip(*tunnel, *lane, *count),
            Step::Again { pick, edit, from } => self.again(*pick, *edit, *from),
            Step::Answer { shape, from } => self.answer(shape, *from),
            Step::Challenge { cookie, from } => self.challenge(*cookie, *from),
            Step::HostSends { destination, len } => self.host_sends(*destination, *len),
            Step::Pass { hundredths } => {
                self.now += Duration::from_millis(10) * u32::from(*hundredths);
                self.glass.set_now(self.now);
                self.node.handle_timeout(self.now);
            }
        }
    }

    /// Something arrives that no key of the node vouches for.
    fn intrude(&mut self, from: u8, mut bytes: Vec<u8>) {
        let path = path(from);
        let (inbound, memory) = peak_of(|| self.node.handle_datagram(self.now, path, &mut bytes).is_some());
        assert!(!inbound, "a packet of nobody");
        assert_eq!(memory, 0, "allocated for a stranger");
        let output = self.node.poll_output(&mut self.scratch);
        assert!(output.is_none(), "answered to a stranger: {output:?}");
    }

    /// Something arrives that may be authentic. Returns the packet that came out, and whether its checksum is open.
    fn arrive(&mut self, from: u8, mut bytes: Vec<u8>) -> Option<(Vec<u8>, bool)> {
        if self.recorded.len() < MAX_RECORDED {
            self.recorded.push(bytes.clone());
        }
        let path = path(from);
        self.authentic.insert(path.remote);
        let (inbound, memory) = peak_of(|| self.node.handle_datagram(self.now, path, &mut bytes));
        let packet = inbound.and_then(|inbound| match inbound {
            Inbound::Packet(inbound) => Some((inbound.packet.to_vec(), inbound.csum_partial)),
            Inbound::Forward { .. } => None,
        });
        assert!(memory <= MAX_MEMORY, "{memory} bytes for one datagram");
        let (packet, csum_partial) = packet?;
        let source = IpPacket::parse(&packet).expect("what comes out is a packet").source();
        let own: Prefix = "10.0.0.0/30".parse().expect("it is a prefix");
        assert!(own.contains(source), "a packet from {source}");
        Some((packet, csum_partial))
    }

    /// Takes everything that the node has to say and wakes it while it asks for that; then it has to wait.
    fn drain(&mut self) {
        for _ in 0..MAX_WAKES {
            let mut scratch = std::mem::take(&mut self.scratch);
            while let Some(output) = self.node.poll_output(&mut scratch) {
                if let Output::Transmit { path, len } = output {
                    self.receive(path, scratch[..len].to_vec());
                }
            }
            self.scratch = scratch;
            if self.node.poll_timeout().0 > self.now {
                return;
            }
            self.node.handle_timeout(self.now);
        }
        panic!("the node is busy: {:?}", self.node.poll_timeout());
    }

    /// The node sent something. A peer that follows the protocol to the letter can read it.
    fn receive(&mut self, path: FourTuple, bytes: Vec<u8>) {
        assert!(self.authentic.contains(&path.remote), "nothing authentic came from {}", path.remote);
        assert!(bytes.len() <= MAX_DATAGRAM_LEN);
        let header = Header::decode(&bytes).expect("what a node sends is an envelope");
        match header.kind() {
            EnvelopeType::Hello => {
                let hello = Hello::decode(&bytes).expect("the node's Hello has its fields in their places");
                assert!(PEOPLE.friend_hello_key.verify(&[hello.mac_input], hello.mac));
                self.greeted = Some(bytes);
            }
            EnvelopeType::HelloAck => self.on_hello_ack(&header, &bytes),
            EnvelopeType::Cookie => self.on_cookie(&header, &bytes),
            EnvelopeType::HelloFinish | EnvelopeType::Sealed => self.on_sealed(&header, bytes),
            EnvelopeType::Relayed => panic!("there is no relay"),
        }
    }

    fn on_cookie(&mut self, header: &Header, bytes: &[u8]) {
        let reply = hello::CookieReply::decode(bytes).expect("the node's Cookie has its fields in their places");
        let begun = self.begun.iter().find(|begun| begun.index == header.session());
        // A Hello that was sent again is answered when the peer has long forgotten it.
        let Some(begun) = begun else { return };
        if let Some(cookie) = Cookie::from_reply(&PEOPLE.cookie_key, &reply, &begun.hello_mac) {
            self.cookie = Some(cookie);
        }
    }

    fn on_sealed(&mut self, header: &Header, mut bytes: Vec<u8>) {
        let tunnel = self.tunnels.iter().find(|tunnel| tunnel.local_index() == header.session());
        // A session that the peer forgot, or that it answered with nonsense.
        let Some(tunnel) = tunnel else { return };
        let opened = tunnel.open(&mut bytes).expect("the node seals under the session's keys, each number once");
        match Payload::classify(opened.payload) {
            Payload::Empty => {}
            Payload::Ip(_) => {
                let known = self.packets.iter().any(|packet| *packet == *opened.payload);
                assert!(known, "a packet that nobody sent");
            }
            Payload::Messages => {
                for message in Messages::new(opened.payload) {
                    let message = message.expect("the node writes messages that can be read");
                    if let Message::Ping { token, path } = message {
                        self.pings.push((token, path));
                    }
                }
            }
        }
    }

    /// The node's host sends a packet to the peer.
    fn host_sends(&mut self, destination: u8, len: u8) {
        let mut packet = vec![0; 20 + usize::from(len)];
        packet[0] = 0x45;
        packet[3] = packet.len().min(255) as u8;
        packet[2] = (packet.len() >> 8) as u8;
        packet[3] = packet.len() as u8;
        packet[12..16].copy_from_slice(&[10, 0, 1, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, destination]);
        let parsed = TunPacket::complete(&packet).expect("it is a packet");
        let _: TunOutcome = self.node.handle_tun(self.now, parsed, &mut self.batch);
        self.packets.push(packet.clone());
        let (bytes, stride) = (self.batch.bytes().to_vec(), self.batch.stride().max(1));
        if let Some(destination) = self.batch.destination() {
            bytes.chunks(stride).for_each(|datagram| self.receive(destination, datagram.to_vec()));
        }
        self.batch.clear();
    }
}

/// One of four addresses.
fn path(from: u8) -> FourTuple {
    let remote = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 2).into(), 4100 + u16::from(from % 4));
    FourTuple { socket: SocketId(0), local: None, remote }
}
