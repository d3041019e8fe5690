//! How the peer makes its datagrams.

use std::net::SocketAddr;

use vine_core::session::noise::{Claim, Initiator, Parameters};
use vine_core::session::{Cipher, Cookie, Tunnel};
use vine_core::wire::hello::{self, NO_COOKIE_MAC};
use vine_core::wire::{
    Capabilities, Ciphers, HEADER_LEN, Header, Hello, HelloAck, HelloAckPayload, HelloPayload, Lane, MAX_DATAGRAM_LEN,
    Message, MessageWriter, OVERHEAD, Payload, Writer,
};

use super::step::Told;
use super::{Begun, Encounter, HelloShape, Inner, MAX_TUNNELS, NETWORK, Name, PEOPLE};
use crate::Edit;

const NO_PSK: [u8; 32] = [0; 32];

/// Every Noise prologue: protocol, suite, the Hello's header, the network.
fn prologue(header: &[u8; HEADER_LEN]) -> [&[u8]; 4] {
    [b"vine/1", &[1], header, NETWORK.as_bytes()]
}

impl Encounter {
    /// Ephemeral keys, indices and stamps of the peer are numbers: none is used twice.
    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn ephemeral(&self, number: u32) -> [u8; 32] {
        self.salt.map(|byte| byte ^ number as u8)
    }

    pub(super) fn hello(&mut self, friend: bool, shape: &HelloShape, from: u8) {
        let person = if friend { &PEOPLE.friend } else { &PEOPLE.stranger };
        let index = self.number();
        let header = Header::hello(index).encode();
        let parameters = Parameters { local: &person.key, psk: &NO_PSK, prologue: &prologue(&header) };
        let shared = person.key.agree(&PEOPLE.node_static).expect("two honest keys agree");
        let payload = self.hello_payload(shape, person.id.as_bytes(), index);
        let mut noise = Vec::new();
        let ephemeral = self.ephemeral(index);
        let initiator =
            Initiator::write_message_1(parameters, &PEOPLE.node_static, &shared, &ephemeral, &payload, &mut noise)
                .expect("the payload is short");
        let mut datagram = vec![0; Hello::MIN_LEN + noise.len()];
        let cookie = self.cookie.filter(|_| friend);
        let mut hello_mac = NO_COOKIE_MAC;
        let mac = |covered: &[u8]| {
            hello_mac = PEOPLE.hello_key.mac(&[covered]);
            hello_mac
        };
        let cookie_mac = |covered: &[u8]| cookie.map_or(NO_COOKIE_MAC, |cookie| cookie.mac(&[covered]));
        let len = Hello::encode(index, &noise, mac, cookie_mac, &mut datagram).expect("the buffer is long enough");
        datagram.truncate(len);
        if friend {
            self.begun.push(Begun { index, initiator, hello_mac });
            if self.begun.len() > MAX_TUNNELS {
                self.begun.remove(0);
            }
        }
        self.arrive(from, datagram);
    }

    fn hello_payload(&self, shape: &HelloShape, own: &[u8; 32], number: u32) -> Vec<u8> {
        let HelloShape::Fields { boot, name, stamp, ciphers, capabilities, no_cookie, .. } = shape else {
            let HelloShape::Raw(bytes) = shape else { return Vec::new() };
            // A Hello is at most 1,232 bytes long.
            return bytes[..bytes.len().min(1_000)].to_vec();
        };
        let payload = HelloPayload {
            boot_id: [*boot; 16],
            peer_id: match name {
                Name::Own => *own,
                Name::Absent => *PEOPLE.absent.as_bytes(),
                Name::Nobody => [*boot; 32],
            },
            stamp: 1_700_000_000_000u64.saturating_add_signed(i64::from(number) * i64::from(*stamp)),
            ciphers: Ciphers::from_iter(ciphers.unwrap_or([2, 1])),
            capabilities: Capabilities(u32::from(*capabilities)),
            cookie: self.cookie.filter(|_| !no_cookie).map(|cookie| *cookie.as_bytes()),
        };
        let mut room = [0; HelloPayload::MAX_LEN];
        let mut out = Writer::new(&mut room);
        payload.encode(&mut out).expect("MAX_LEN is the longest encoding");
        out.written().to_vec()
    }

    pub(super) fn on_hello_ack(&mut self, header: &Header, bytes: &[u8]) {
        let ack = HelloAck::decode(bytes).expect("the node's HelloAck has its fields in their places");
        // The stored answer to a Hello that was sent again.
        let Some(begun) = self.begun.iter().find(|begun| begun.index == header.session()) else { return };
        let (keys, payload) = begun.initiator.read_message_2(ack.noise).expect("the node answers what was sent");
        let payload = HelloAckPayload::decode(&payload, header).expect("the node's fields are right");
        let cipher = Cipher::from_id(payload.cipher).expect("the node chooses a cipher that there is");
        if self.tunnels.iter().all(|tunnel| tunnel.local_index() != header.session()) {
            self.remember(Tunnel::new(&keys, cipher, &self.own_glass, header.session(), payload.index));
        }
    }

    fn remember(&mut self, tunnel: Tunnel) {
        self.tunnels.push(tunnel);
        if self.tunnels.len() > MAX_TUNNELS {
            self.tunnels.remove(0);
        }
    }

    fn tunnel(&self, back: u8) -> Option<&Tunnel> {
        self.tunnels.iter().rev().cycle().take(256).nth(usize::from(back))
    }

    pub(super) fn finish(&mut self, tunnel: u8, from: u8) {
        let Some(finish) = self.tunnel(tunnel).and_then(|tunnel| tunnel.seal_hello_finish().ok()) else { return };
        assert!(self.arrive(from, finish.to_vec()).is_none());
    }

    pub(super) fn skip(&mut self, tunnel: u8, lane: u8, count: u16) {
        if let Some(tunnel) = self.tunnel(tunnel) {
            let _ = tunnel.reserve(Lane(lane), u64::from(count));
        }
    }

    pub(super) fn seal(&mut self, tunnel: u8, lane: u8, csum_partial: bool, inner: &Inner, from: u8) {
        let payload = self.payload(inner);
        let Some(tunnel) = self.tunnel(tunnel) else { return };
        let mut envelope = vec![0; payload.len() + OVERHEAD];
        envelope[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(&payload);
        if tunnel.seal(Lane(lane), csum_partial, &mut envelope).is_err() {
            return;
        }
        if let Some((packet, open)) = self.arrive(from, envelope) {
            assert!(matches!(Payload::classify(&payload), Payload::Ip(_)));
            assert_eq!((packet, open), (payload, csum_partial), "it comes out as it was sealed");
        }
    }

    fn payload(&mut self, inner: &Inner) -> Vec<u8> {
        match inner {
            Inner::Empty => Vec::new(),
            Inner::Raw(bytes) => bytes.clone(),
            Inner::Packet(packet, edit) => {
                let mut bytes = packet.build();
                if let Some(edit) = edit {
                    edit.apply(&mut bytes);
                }
                bytes.truncate(MAX_DATAGRAM_LEN - OVERHEAD);
                bytes
            }
            Inner::Messages(told) => messages(told),
            Inner::Pong { delay_us } => {
                let Some((token, path)) = (!self.pings.is_empty()).then(|| self.pings.remove(0)) else {
                    return Vec::new();
                };
                let observed: SocketAddr = "192.0.2.1:4100".parse().expect("it is an address");
                messages(&[Told::Pong(token, path, *delay_us, observed)])
            }
            Inner::Pings(count) => {
                let ping = |token| Told::Ping(token, 0);
                messages(&(0..u64::from(*count)).map(ping).collect::<Vec<_>>())
            }
        }
    }

    pub(super) fn again(&mut self, pick: u8, edit: Option<Edit>, from: u8) {
        let Some(recorded) = self.recorded.get(usize::from(pick) % self.recorded.len().max(1)) else { return };
        let mut bytes = recorded.clone();
        if let Some(edit) = edit {
            edit.apply(&mut bytes);
        }
        if bytes == *recorded {
            let packet = self.arrive(from, bytes);
            assert!(packet.is_none(), "a packet came out twice");
        } else {
            // Changed, it is of nobody; but a Hello's cookie_mac is looked at under load only.
            let is_hello =
                Header::decode(&bytes).is_ok_and(|header| Hello::decode(&bytes).is_ok() && header.session() == 0);
            if is_hello { _ = self.arrive(from, bytes) } else { self.forged(from, bytes) }
        }
    }

    /// A changed envelope: it may cost a little, but nothing comes of it.
    fn forged(&mut self, from: u8, mut bytes: Vec<u8>) {
        let inbound = self.node.handle_datagram(self.now, super::path(from), &mut bytes).is_some();
        assert!(!inbound, "a packet of nobody");
        assert!(self.node.poll_output(&mut self.scratch).is_none(), "an answer to nobody");
    }

    /// Answers the node's Hello.
    pub(super) fn answer(&mut self, shape: &HelloShape, from: u8) {
        let Some(greeted) = self.greeted.clone() else { return };
        let hello = Hello::decode(&greeted).expect("it was decoded before");
        let parameters =
            Parameters { local: &PEOPLE.friend.key, psk: &NO_PSK, prologue: &prologue(hello.header_bytes) };
        let claim = Claim::read_message_1(parameters, hello.noise).expect("the node says Hello to its peer");
        assert_eq!(*claim.remote_static(), PEOPLE.node_static);
        let shared = PEOPLE.friend.key.agree(&PEOPLE.node_static).expect("two honest keys agree");
        let (responder, payload) = claim.prove(&shared).expect("the node says Hello to its peer");
        let payload = HelloPayload::decode(&payload).expect("the node's fields are right");
        assert_eq!(payload.peer_id, *PEOPLE.node.as_bytes());

        let index = self.number();
        let answer = ack_payload(shape, index);
        let mut noise = Vec::new();
        let ephemeral = self.ephemeral(index);
        let keys = responder.write_message_2(&ephemeral, &answer, &mut noise).expect("the payload is short");
        let remote = hello.header.sender_index().expect("a Hello tells its sender's index");
        let mut datagram = vec![0; HEADER_LEN + noise.len()];
        let len = HelloAck::encode(remote, index, &noise, &mut datagram).expect("the buffer is long enough");
        datagram.truncate(len);
        if let Ok(agreed) = HelloAckPayload::decode(&answer, &Header::hello_ack(remote, index))
            && let Some(cipher) = Cipher::from_id(agreed.cipher)
        {
            self.remember(Tunnel::new(&keys, cipher, &self.own_glass, index, remote));
        }
        self.arrive(from, datagram);
    }

    /// Answers the node's Hello with a Cookie.
    pub(super) fn challenge(&mut self, cookie: [u8; 16], from: u8) {
        let Some(greeted) = self.greeted.clone() else { return };
        let hello = Hello::decode(&greeted).expect("it was decoded before");
        let index = hello.header.sender_index().expect("a Hello tells its sender's index");
        let reply = Cookie::new(cookie).reply(&PEOPLE.friend_cookie_key, index, hello.mac);
        assert!(hello::CookieReply::decode(&reply).is_ok());
        self.arrive(from, reply.to_vec());
    }
}

fn ack_payload(shape: &HelloShape, index: u32) -> Vec<u8> {
    let HelloShape::Fields { boot, ciphers, capabilities, wrong_index, .. } = shape else {
        let HelloShape::Raw(bytes) = shape else { return Vec::new() };
        return bytes[..bytes.len().min(1_000)].to_vec();
    };
    let payload = HelloAckPayload {
        boot_id: [*boot; 16],
        cipher: ciphers.map_or(1, |[first, _]| first),
        capabilities: Capabilities(u32::from(*capabilities)),
        index: if *wrong_index { index ^ 1 } else { index },
    };
    let mut room = [0; HelloAckPayload::MAX_LEN];
    let mut out = Writer::new(&mut room);
    payload.encode(&mut out).expect("MAX_LEN is the longest encoding");
    out.written().to_vec()
}

/// The messages that fit into one envelope.
fn messages(told: &[Told]) -> Vec<u8> {
    let mut room = vec![0; MAX_DATAGRAM_LEN - OVERHEAD];
    let mut writer = MessageWriter::new(&mut room);
    for told in told {
        let message: Option<Message<'_>> = told.message();
        let written = match (message, told) {
            (Some(message), _) => writer.push(&message),
            (None, Told::Padding(len)) => writer.pad_to(writer.len() + usize::from(*len)),
            (None, _) => Ok(()),
        };
        if written.is_err() {
            break;
        }
    }
    let len = writer.len();
    room.truncate(len);
    room
}
