//! The handshake's datagrams: what a Hello says, what answers it, and the keys that both sides then have.
//!
//! [`LocalKeys`] is what this node brings to every handshake, [`PeerKeys`] what it knows of one peer beforehand. Neither keeps
//! any state of a handshake: that is [`Initiation`] on the side that said Hello and a pending session on the other.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use zeroize::Zeroizing;

use super::keys::{MacKey, cookie_key, hello_key};
use super::noise::{Claim, Initiator, NoiseError, Parameters, Responder, SharedSecret, StaticKey};
use super::sessions::Agreed;
use super::{BootId, Cipher, Cookie, CryptoBackend, Tunnel};
use crate::config::{NetworkId, NodeConfig};
use crate::identity::{Identity, PeerId};
use crate::path::Via;
use crate::time::Instant;
use crate::wire::hello::{NO_COOKIE_MAC, SUITE_IKPSK2};
use crate::wire::{
    Capabilities, Ciphers, CookieReply, HEADER_LEN, Header, Hello, HelloAck, HelloAckPayload, HelloError, HelloPayload,
    TlvError, Writer,
};

/// First part of the Noise prologue.
const PROTOCOL: &[u8] = b"vine/1";

/// A Hello is repeated as it is for this long; after that a new one is made, with new keys.
const INITIATION_LIFETIME: Duration = Duration::from_secs(4);

/// Forged HelloAcks cost two Diffie-Hellmans each; one Hello tries at most this many.
const MAX_BAD_ACKS: u8 = 8;

/// Why a handshake message was refused. Its sender never learns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Its fields are not where they should be.
    #[error(transparent)]
    Layout(#[from] HelloError),
    /// It does not authenticate.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// What it carries is malformed.
    #[error(transparent)]
    Payload(#[from] TlvError),
    /// A MAC is wrong.
    #[error("wrong MAC")]
    Mac,
    /// The PeerId that it states is not the one of the key that it proves.
    #[error("the stated identity is another one")]
    Identity,
    /// No cipher that both know, or one that was not offered.
    #[error("no common cipher")]
    Cipher,
    /// Too many wrong answers to one Hello.
    #[error("too many wrong answers")]
    TooManyAnswers,
}

/// A Hello keeps its cookie for so long where another comes: who is asked by two ways gives each its own, and each has to have
/// its turn.
const COOKIE_TURN: Duration = Duration::from_millis(400);

/// A Hello goes to at most this many places; a peer with more is found at one of the first.
pub(crate) const MAX_PLACES: usize = 16;

/// What this node brings to every handshake.
pub(crate) struct LocalKeys {
    peer_id: PeerId,
    static_key: StaticKey,
    network_id: NetworkId,
    psk: Zeroizing<[u8; 32]>,
    aes_is_fast: bool,
    capabilities: Capabilities,
    hello_key: MacKey,
    cookie_key: MacKey,
}

/// What this node knows of a peer beforehand.
pub(crate) struct PeerKeys {
    id: PeerId,
    /// What this node's life is called to the peer: one that is removed and added again finds that a new one began, as
    /// everything that this node knew of it is gone.
    boot: BootId,
    static_key: [u8; 32],
    /// `None` for a key of small order, with which no handshake can succeed. A valid PeerId has none.
    shared: Option<SharedSecret>,
}

/// A handshake that this node began.
pub(crate) struct Initiation {
    /// This node's index of the session to be.
    pub(crate) index: u32,
    /// The Hello.
    pub(crate) datagram: Box<[u8]>,
    /// Where it was sent.
    pub(crate) asked: heapless::Vec<Via, MAX_PLACES>,
    /// The cookie that the peer gave, if it did.
    cookie: Option<Cookie>,
    /// A cookie that came when the Hello carried one already: for the next Hello.
    next_cookie: Option<Cookie>,
    cookie_key: MacKey,
    noise: Initiator,
    started: Instant,
    bad_acks: u8,
}

/// A Hello whose sender has proved its key.
pub(crate) struct ProvedHello {
    pub(crate) payload: HelloPayload,
    initiator_index: u32,
    responder: Responder,
    local_boot: BootId,
}

/// A HelloAck and the session that it offers.
pub(crate) struct Answer {
    pub(crate) ack: Box<[u8]>,
    pub(crate) agreed: Agreed,
}

impl LocalKeys {
    pub(crate) fn new(identity: &Identity, config: &NodeConfig) -> LocalKeys {
        let psk = Zeroizing::new(config.network_key.as_ref().map_or([0; 32], |key| *key.as_bytes()));
        let peer_id = identity.peer_id();
        let capabilities = if config.checksum_offload { Capabilities::CSUM_PARTIAL } else { Capabilities::NONE };
        LocalKeys {
            static_key: StaticKey::from(identity),
            aes_is_fast: config.aes_is_fast,
            capabilities,
            hello_key: hello_key(&peer_id, config.network_id.as_str(), Some(&psk)),
            cookie_key: cookie_key(&peer_id, config.network_id.as_str(), Some(&psk)),
            network_id: config.network_id.clone(),
            psk,
            peer_id,
        }
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub(crate) fn peer_keys(&self, id: &PeerId, boot: BootId) -> PeerKeys {
        let static_key = id.x25519();
        PeerKeys { id: *id, boot, shared: self.static_key.agree(&static_key).ok(), static_key }
    }

    fn prologue<'a>(&'a self, header: &'a [u8; HEADER_LEN]) -> [&'a [u8]; 4] {
        [PROTOCOL, &[SUITE_IKPSK2], header.as_slice(), self.network_id.as_str().as_bytes()]
    }

    /// What both sides understand.
    fn both(&self, theirs: Capabilities) -> Capabilities {
        self.capabilities.intersection(theirs)
    }

    fn ciphers(&self) -> Ciphers {
        let preferred: &[Cipher] =
            if self.aes_is_fast { &[Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] } else { &[Cipher::ChaCha20Poly1305] };
        preferred.iter().map(|cipher| cipher.id()).collect()
    }

    /// Says Hello to a peer. With a cookie, the Hello proves the address that got it, outside and inside.
    pub(crate) fn greet(
        &self,
        peer: &PeerKeys,
        index: u32,
        stamp: u64,
        cookie: Option<Cookie>,
        ephemeral: &[u8; 32],
        now: Instant,
    ) -> Result<Initiation, HandshakeError> {
        let shared = peer.shared.as_ref().ok_or(NoiseError::ZeroSharedSecret)?;
        let payload = HelloPayload {
            boot_id: peer.boot,
            peer_id: *self.peer_id.as_bytes(),
            stamp,
            ciphers: self.ciphers(),
            capabilities: self.capabilities,
            cookie: cookie.map(|cookie| *cookie.as_bytes()),
        };
        let mut plain = [0; HelloPayload::MAX_LEN];
        let mut writer = Writer::new(&mut plain);
        payload.encode(&mut writer).expect("MAX_LEN is the longest encoding");
        let header = Header::hello(index).encode();
        let prologue = self.prologue(&header);
        let parameters = Parameters { local: &self.static_key, psk: &self.psk, prologue: &prologue };
        let mut noise = Vec::new();
        let initiator =
            Initiator::write_message_1(parameters, &peer.static_key, shared, ephemeral, writer.written(), &mut noise)?;
        let mut datagram = alloc::vec![0; Hello::MIN_LEN + noise.len()];
        let (network_id, psk) = (self.network_id.as_str(), Some(&*self.psk));
        let mac = |covered: &[u8]| hello_key(&peer.id, network_id, psk).mac(&[covered]);
        let cookie_mac = |covered: &[u8]| cookie.map_or(NO_COOKIE_MAC, |cookie| cookie.mac(&[covered]));
        let len =
            Hello::encode(index, &noise, mac, cookie_mac, &mut datagram).expect("the buffer is longer than a Hello");
        datagram.truncate(len);
        let (datagram, asked) = (datagram.into(), heapless::Vec::new());
        Ok(Initiation {
            index,
            datagram,
            asked,
            cookie,
            next_cookie: None,
            cookie_key: cookie_key(&peer.id, network_id, psk),
            noise: initiator,
            started: now,
            bad_acks: 0,
        })
    }

    /// Whether the sender of a Hello knows this node and its network.
    pub(crate) fn knows_us(&self, hello: &Hello<'_>) -> bool {
        self.hello_key.verify(&[hello.mac_input], hello.mac)
    }

    /// The key of the MAC in this node's Cookies.
    pub(crate) fn cookie_key(&self) -> &MacKey {
        &self.cookie_key
    }

    /// Opens the first half of a Hello: whose does it claim to be?
    pub(crate) fn read_claim(&self, hello: &Hello<'_>) -> Result<Claim, HandshakeError> {
        let prologue = self.prologue(hello.header_bytes);
        let parameters = Parameters { local: &self.static_key, psk: &self.psk, prologue: &prologue };
        Ok(Claim::read_message_1(parameters, hello.noise)?)
    }

    /// Opens the second half, which proves that the sender is the peer.
    pub(crate) fn prove(
        &self,
        claim: Claim,
        hello: &Hello<'_>,
        peer: &PeerKeys,
    ) -> Result<ProvedHello, HandshakeError> {
        let shared = peer.shared.as_ref().ok_or(NoiseError::ZeroSharedSecret)?;
        let (responder, payload) = claim.prove(shared)?;
        let payload = HelloPayload::decode(&payload)?;
        if payload.peer_id != *peer.id.as_bytes() {
            return Err(HandshakeError::Identity);
        }
        let initiator_index = hello.header.sender_index().ok_or(HandshakeError::Identity)?;
        Ok(ProvedHello { payload, initiator_index, responder, local_boot: peer.boot })
    }

    /// The identity of a sender that is not allowed, once it has proved its key.
    pub(crate) fn name_stranger(&self, claim: Claim) -> Option<PeerId> {
        let static_key = *claim.remote_static();
        let (_, payload) = claim.prove(&self.static_key.agree(&static_key).ok()?).ok()?;
        let id = PeerId::from_bytes(HelloPayload::decode(&payload).ok()?.peer_id).ok()?;
        (id.x25519() == static_key).then_some(id)
    }

    /// Answers a proved Hello.
    pub(crate) fn answer(
        &self,
        hello: ProvedHello,
        index: u32,
        ephemeral: &[u8; 32],
        crypto: &dyn CryptoBackend,
    ) -> Result<Answer, HandshakeError> {
        let ours = self.ciphers();
        let common = |cipher: &Cipher| ours.contains(&cipher.id()) && hello.payload.ciphers.contains(&cipher.id());
        let cipher = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305].into_iter().find(common);
        let cipher = cipher.ok_or(HandshakeError::Cipher)?;
        let payload =
            HelloAckPayload { boot_id: hello.local_boot, cipher: cipher.id(), capabilities: self.capabilities, index };
        let mut plain = [0; HelloAckPayload::MAX_LEN];
        let mut writer = Writer::new(&mut plain);
        payload.encode(&mut writer).expect("MAX_LEN is the longest encoding");
        let mut noise = Vec::new();
        let established = hello.responder.write_message_2(ephemeral, writer.written(), &mut noise)?;
        let mut ack = alloc::vec![0; HEADER_LEN + noise.len()];
        HelloAck::encode(hello.initiator_index, index, &noise, &mut ack).expect("the buffer is a HelloAck long");
        let agreed = Agreed {
            tunnel: Tunnel::new(&established, cipher, crypto, index, hello.initiator_index),
            cipher,
            remote_boot: hello.payload.boot_id,
            remote_stamp: Some(hello.payload.stamp),
            csum_partial: self.both(hello.payload.capabilities).contains(Capabilities::CSUM_PARTIAL),
        };
        Ok(Answer { ack: ack.into(), agreed })
    }
}

impl Initiation {
    /// Whether a repeat should be a new Hello instead.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        let has_better_cookie = self.next_cookie.is_some() && self.started + COOKIE_TURN <= now;
        self.started + INITIATION_LIFETIME <= now || has_better_cookie || self.bad_acks >= MAX_BAD_ACKS
    }

    /// Keeps a cookie for the next Hello, which is then due at the next repeat.
    pub(crate) fn keep_cookie(&mut self, cookie: Cookie) {
        self.next_cookie = Some(cookie);
    }

    /// What the next Hello should carry.
    pub(crate) fn next_cookie(&self) -> Option<Cookie> {
        self.next_cookie.or(self.cookie)
    }

    /// The cookie that this Hello carried.
    pub(crate) fn cookie(&self) -> Option<Cookie> {
        self.cookie
    }

    /// Reads the answer. Wrong ones leave the handshake as it was.
    pub(crate) fn read_ack(
        &mut self,
        local: &LocalKeys,
        ack: &HelloAck<'_>,
        crypto: &dyn CryptoBackend,
    ) -> Result<Agreed, HandshakeError> {
        if self.bad_acks >= MAX_BAD_ACKS {
            return Err(HandshakeError::TooManyAnswers);
        }
        let agreed = self.try_read_ack(local, ack, crypto);
        self.bad_acks += u8::from(agreed.is_err());
        agreed
    }

    fn try_read_ack(
        &self,
        local: &LocalKeys,
        ack: &HelloAck<'_>,
        crypto: &dyn CryptoBackend,
    ) -> Result<Agreed, HandshakeError> {
        let (established, payload) = self.noise.read_message_2(ack.noise)?;
        let payload = HelloAckPayload::decode(&payload, &ack.header)?;
        let cipher = Cipher::from_id(payload.cipher).filter(|cipher| local.ciphers().contains(&cipher.id()));
        let cipher = cipher.ok_or(HandshakeError::Cipher)?;
        Ok(Agreed {
            tunnel: Tunnel::new(&established, cipher, crypto, self.index, payload.index),
            cipher,
            remote_boot: payload.boot_id,
            remote_stamp: None,
            csum_partial: local.both(payload.capabilities).contains(Capabilities::CSUM_PARTIAL),
        })
    }

    /// Reads a Cookie that answers this Hello.
    pub(crate) fn read_cookie(&self, reply: &CookieReply<'_>) -> Result<Cookie, HandshakeError> {
        let hello = Hello::decode(&self.datagram)?;
        Cookie::from_reply(&self.cookie_key, reply, hello.mac).ok_or(HandshakeError::Mac)
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

// They hold secrets.
opaque_debug!(LocalKeys, PeerKeys, Initiation);
