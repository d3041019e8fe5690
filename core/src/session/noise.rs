//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`: the two messages that make a session (Noise specification, revision 34).
//!
//! ```text
//! <- s
//! ...
//! -> e, es, s, ss          message 1, in a Hello
//! <- e, ee, se, psk        message 2, in a HelloAck
//! ```
//!
//! The types carry the order: an [`Initiator`] is what remains after message 1 was written, a [`Claim`] is a message 1
//! whose static key is read but not yet proved, a [`Responder`] is a proved message 1 that waits for its answer, and
//! [`Established`] are the keys. Every step either returns the next type or changes nothing, so a forged message 2 does
//! not spend a handshake.
//!
//! ```
//! use vine_core::session::noise::{Claim, Initiator, Parameters, StaticKey};
//!
//! let (alice, bob) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
//! let shared = alice.agree(bob.public())?; // computed once for a pair, and kept
//! let (psk, prologue): (_, &[&[u8]]) = ([0; 32], &[b"example"]);
//! let mut message = Vec::new();
//!
//! let parameters = Parameters { local: &alice, psk: &psk, prologue };
//! let initiator = Initiator::write_message_1(parameters, bob.public(), &shared, &[3; 32], b"hello", &mut message)?;
//!
//! let claim = Claim::read_message_1(Parameters { local: &bob, psk: &psk, prologue }, &message)?;
//! assert_eq!(claim.remote_static(), alice.public()); // is that a peer of mine?
//! let (responder, payload) = claim.prove(&bob.agree(alice.public())?)?;
//! assert_eq!(payload, b"hello");
//! message.clear();
//! let bobs = responder.write_message_2(&[4; 32], b"welcome", &mut message)?;
//!
//! let (alices, payload) = initiator.read_message_2(&message)?;
//! assert_eq!(payload, b"welcome");
//! assert_eq!((alices.hash, &alices.send), (bobs.hash, &bobs.receive));
//! # Ok::<(), vine_core::session::noise::NoiseError>(())
//! ```

use alloc::vec::Vec;
use core::fmt;

use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::Identity;

const PROTOCOL_NAME: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Bytes of a public key (DHLEN) and of a hash (HASHLEN).
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Longest Noise message (specification, section 3).
const MAX_MESSAGE_LEN: usize = 65_535;

/// Bytes of message 1 besides its payload: `e` 32, the sealed `s` 48, the payload's tag 16.
pub const MESSAGE_1_OVERHEAD: usize = KEY_LEN + KEY_LEN + TAG_LEN + TAG_LEN;
/// Bytes of message 2 besides its payload: `e` 32, the payload's tag 16.
pub const MESSAGE_2_OVERHEAD: usize = KEY_LEN + TAG_LEN;

/// Why a handshake message is refused. Nobody outside learns which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoiseError {
    /// Too short for its fixed part, or longer than a Noise message may be.
    #[error("not the length of a handshake message")]
    Length,
    /// A Diffie-Hellman result is all zero: the other key is of small order, and anyone knows the secret.
    #[error("a key of small order")]
    ZeroSharedSecret,
    /// A tag does not match: another key, another network, another prologue, or a changed byte.
    #[error("the handshake message does not authenticate")]
    Authentication,
}

/// A Noise static key pair; the secret half is wiped when dropped.
#[derive(Clone)]
pub struct StaticKey {
    secret: StaticSecret,
    public: [u8; 32],
}

impl StaticKey {
    /// The pair of a secret X25519 scalar (clamped on use, RFC 7748, section 5).
    pub fn new(secret: [u8; 32]) -> StaticKey {
        StaticKey::from_secret(StaticSecret::from(*Zeroizing::new(secret)))
    }

    fn from_secret(secret: StaticSecret) -> StaticKey {
        let public = PublicKey::from(&secret).to_bytes();
        StaticKey { secret, public }
    }

    /// The public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The static-static secret (`ss`) with `remote`. It never changes for a pair, so it is worth keeping: it is half
    /// of the Diffie-Hellman work of message 1.
    ///
    /// # Errors
    ///
    /// [`NoiseError::ZeroSharedSecret`] if `remote` is of small order.
    pub fn agree(&self, remote: &[u8; 32]) -> Result<SharedSecret, NoiseError> {
        diffie_hellman(&self.secret, remote)
    }
}

impl From<&Identity> for StaticKey {
    fn from(identity: &Identity) -> StaticKey {
        StaticKey { secret: identity.x25519_secret(), public: identity.x25519_public() }
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A Diffie-Hellman result that is not zero, wiped when dropped.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").finish_non_exhaustive()
    }
}

/// What both sides bring to every handshake.
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    /// The own static key.
    pub local: &'a StaticKey,
    /// The network key, or zeros in a network without one.
    pub psk: &'a [u8; 32],
    /// The prologue in parts, hashed as if they were one slice. Both sides need the same.
    pub prologue: &'a [&'a [u8]],
}

/// An initiator that has written message 1 and waits for message 2.
pub struct Initiator {
    symmetric: Symmetric,
    local: StaticSecret,
    ephemeral: StaticSecret,
    psk: Zeroizing<[u8; 32]>,
}

impl Initiator {
    /// Appends message 1 to `message`: `payload` and [`MESSAGE_1_OVERHEAD`] more bytes.
    ///
    /// `shared` is [`StaticKey::agree`] of the own key with `remote`; `ephemeral` is fresh and secret, and used for
    /// nothing else.
    ///
    /// # Errors
    ///
    /// [`NoiseError::Length`] if `payload` is too long, [`NoiseError::ZeroSharedSecret`] if `remote` is of small order.
    /// `message` is unchanged then.
    pub fn write_message_1(
        parameters: Parameters<'_>,
        remote: &[u8; 32],
        shared: &SharedSecret,
        ephemeral: &[u8; 32],
        payload: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<Initiator, NoiseError> {
        check_payload(payload, MESSAGE_1_OVERHEAD)?;
        let ephemeral = StaticSecret::from(*ephemeral);
        let es = diffie_hellman(&ephemeral, remote)?;

        let mut symmetric = Symmetric::new(parameters.prologue, remote);
        symmetric.write_ephemeral(&ephemeral, message);
        let key = symmetric.mix_key(&es);
        symmetric.seal(key, parameters.local.public(), message);
        let key = symmetric.mix_key(shared);
        symmetric.seal(key, payload, message);
        let local = parameters.local.secret.clone();
        Ok(Initiator { symmetric, local, ephemeral, psk: Zeroizing::new(*parameters.psk) })
    }

    /// Reads message 2 and returns the session's keys and the payload.
    ///
    /// The initiator stays as it was, so that the true message 2 still works after any number of forged ones.
    ///
    /// # Errors
    ///
    /// [`NoiseError`] if `message` is not the answer to this message 1 by the peer it was written for.
    pub fn read_message_2(&self, message: &[u8]) -> Result<(Established, Vec<u8>), NoiseError> {
        let (remote_ephemeral, sealed) = take_key(message)?;
        if sealed.len() < TAG_LEN {
            return Err(NoiseError::Length);
        }
        let mut symmetric = self.symmetric.clone();
        symmetric.mix_ephemeral(remote_ephemeral);
        symmetric.mix_key(&diffie_hellman(&self.ephemeral, remote_ephemeral)?);
        symmetric.mix_key(&diffie_hellman(&self.local, remote_ephemeral)?);
        let key = symmetric.mix_key_and_hash(&self.psk);
        let payload = symmetric.open(key, sealed)?;
        let (send, receive, hash) = symmetric.split();
        Ok((Established { send, receive, hash }, payload))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").finish_non_exhaustive()
    }
}

/// A message 1 that names its sender, who has not proved it yet: whoever knows the responder's public key can claim
/// to be anyone here. Looking the claim up before [`Claim::prove`] spares work for strangers.
pub struct Claim {
    symmetric: Symmetric,
    remote_ephemeral: [u8; 32],
    remote_static: [u8; 32],
    sealed_payload: Vec<u8>,
    psk: Zeroizing<[u8; 32]>,
}

impl Claim {
    /// Reads the first half of message 1: `e, es, s`. One Diffie-Hellman.
    ///
    /// # Errors
    ///
    /// [`NoiseError`] if it was not made for this key and this prologue.
    pub fn read_message_1(parameters: Parameters<'_>, message: &[u8]) -> Result<Claim, NoiseError> {
        let (remote_ephemeral, rest) = take_key(message)?;
        let (sealed_static, sealed_payload) = rest.split_at_checked(KEY_LEN + TAG_LEN).ok_or(NoiseError::Length)?;
        if sealed_payload.len() < TAG_LEN {
            return Err(NoiseError::Length);
        }
        let mut symmetric = Symmetric::new(parameters.prologue, parameters.local.public());
        symmetric.mix_ephemeral(remote_ephemeral);
        let key = symmetric.mix_key(&diffie_hellman(&parameters.local.secret, remote_ephemeral)?);
        let remote_static = symmetric.open(key, sealed_static)?;
        let remote_static = remote_static.try_into().map_err(|_| NoiseError::Length)?;
        Ok(Claim {
            symmetric,
            remote_ephemeral: *remote_ephemeral,
            remote_static,
            sealed_payload: sealed_payload.to_vec(),
            psk: Zeroizing::new(*parameters.psk),
        })
    }

    /// The static key that the sender claims to own.
    pub fn remote_static(&self) -> &[u8; 32] {
        &self.remote_static
    }

    /// Reads the second half of message 1, `ss` and the payload, which prove that the sender owns the claimed key.
    ///
    /// `shared` is [`StaticKey::agree`] of the own key with [`Claim::remote_static`]. A message 1 can be a replay; only
    /// what is sealed under the session's keys proves that the sender is there now.
    ///
    /// # Errors
    ///
    /// [`NoiseError::Authentication`] if the sender does not own the key.
    pub fn prove(self, shared: &SharedSecret) -> Result<(Responder, Vec<u8>), NoiseError> {
        let Claim { mut symmetric, remote_ephemeral, remote_static, sealed_payload, psk } = self;
        let key = symmetric.mix_key(shared);
        let payload = symmetric.open(key, &sealed_payload)?;
        Ok((Responder { symmetric, remote_ephemeral, remote_static, psk }, payload))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("remote_static", &self.remote_static).finish_non_exhaustive()
    }
}

/// A responder that has read message 1 and owes message 2.
pub struct Responder {
    symmetric: Symmetric,
    remote_ephemeral: [u8; 32],
    remote_static: [u8; 32],
    psk: Zeroizing<[u8; 32]>,
}

impl Responder {
    /// Reads message 1 in one go: [`Claim::read_message_1`], then [`Claim::prove`] with a shared secret computed here.
    ///
    /// # Errors
    ///
    /// [`NoiseError`] if the message is not authentic.
    pub fn read_message_1(parameters: Parameters<'_>, message: &[u8]) -> Result<(Responder, Vec<u8>), NoiseError> {
        let claim = Claim::read_message_1(parameters, message)?;
        let shared = parameters.local.agree(claim.remote_static())?;
        claim.prove(&shared)
    }

    /// The static key of the initiator.
    pub fn remote_static(&self) -> &[u8; 32] {
        &self.remote_static
    }

    /// Appends message 2 to `message`: `payload` and [`MESSAGE_2_OVERHEAD`] more bytes. `ephemeral` is fresh and
    /// secret, and used for nothing else.
    ///
    /// # Errors
    ///
    /// [`NoiseError::Length`] if `payload` is too long, [`NoiseError::ZeroSharedSecret`] if the initiator's ephemeral
    /// key is of small order. `message` is unchanged then.
    pub fn write_message_2(
        self,
        ephemeral: &[u8; 32],
        payload: &[u8],
        message: &mut Vec<u8>,
    ) -> Result<Established, NoiseError> {
        check_payload(payload, MESSAGE_2_OVERHEAD)?;
        let ephemeral = StaticSecret::from(*ephemeral);
        let ee = diffie_hellman(&ephemeral, &self.remote_ephemeral)?;
        let se = diffie_hellman(&ephemeral, &self.remote_static)?;

        let mut symmetric = self.symmetric;
        symmetric.write_ephemeral(&ephemeral, message);
        symmetric.mix_key(&ee);
        symmetric.mix_key(&se);
        let key = symmetric.mix_key_and_hash(&self.psk);
        symmetric.seal(key, payload, message);
        let (receive, send, hash) = symmetric.split();
        Ok(Established { send, receive, hash })
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("remote_static", &self.remote_static).finish_non_exhaustive()
    }
}

/// The outcome of a handshake, equal on both sides with the directions swapped.
pub struct Established {
    /// The split key of what this side sends.
    pub send: Zeroizing<[u8; 32]>,
    /// The split key of what this side receives.
    pub receive: Zeroizing<[u8; 32]>,
    /// The handshake hash: unique to this handshake, not secret.
    pub hash: [u8; 32],
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// A key for exactly one message.
///
/// In this pattern every key that seals was mixed just before and is mixed again just after, so the Noise nonce is
/// always zero. Taking the key by value in [`Symmetric::seal`] and [`Symmetric::open`] keeps it so.
struct MessageKey(Zeroizing<[u8; 32]>);

/// The SymmetricState of the specification, section 5.2.
#[derive(Clone)]
struct Symmetric {
    chaining_key: Zeroizing<[u8; 32]>,
    hash: [u8; 32],
}

impl Symmetric {
    /// `Initialize`: protocol name, prologue, and the pre-message, which is the responder's static key.
    fn new(prologue: &[&[u8]], responder: &[u8; 32]) -> Symmetric {
        // The name is longer than HASHLEN, so it is hashed.
        let hash = Blake2s256::digest(PROTOCOL_NAME).into();
        let mut symmetric = Symmetric { chaining_key: Zeroizing::new(hash), hash };
        symmetric.mix_hash(prologue);
        symmetric.mix_hash(&[responder]);
        symmetric
    }

    fn mix_hash(&mut self, parts: &[&[u8]]) {
        let mut hasher = Blake2s256::new_with_prefix(self.hash);
        for part in parts {
            hasher.update(part);
        }
        self.hash = hasher.finalize().into();
    }

    fn mix_key(&mut self, secret: &SharedSecret) -> MessageKey {
        let [chaining_key, key] = hkdf(&self.chaining_key, &secret.0[..]);
        self.chaining_key = chaining_key;
        MessageKey(key)
    }

    fn mix_key_and_hash(&mut self, psk: &[u8; 32]) -> MessageKey {
        let [chaining_key, hash, key] = hkdf(&self.chaining_key, psk);
        self.chaining_key = chaining_key;
        self.mix_hash(&[&hash[..]]);
        MessageKey(key)
    }

    /// The token `e`. With a psk in the pattern the ephemeral key goes into the chaining key too (section 9.2).
    fn mix_ephemeral(&mut self, ephemeral: &[u8; 32]) {
        self.mix_hash(&[ephemeral]);
        let [chaining_key, _] = hkdf(&self.chaining_key, ephemeral);
        self.chaining_key = chaining_key;
    }

    fn write_ephemeral(&mut self, ephemeral: &StaticSecret, message: &mut Vec<u8>) {
        let public = PublicKey::from(ephemeral).to_bytes();
        message.extend_from_slice(&public);
        self.mix_ephemeral(&public);
    }

    /// `EncryptAndHash`, appending to `message`.
    fn seal(&mut self, key: MessageKey, plaintext: &[u8], message: &mut Vec<u8>) {
        let start = message.len();
        message.extend_from_slice(plaintext);
        let sealed = message.get_mut(start..).expect("the vector grew from there");
        let tag = ChaCha20Poly1305::new((&*key.0).into())
            .encrypt_inout_detached(&Nonce::default(), &self.hash, (&mut *sealed).into())
            .expect("a handshake message is far below the cipher's 256 GiB");
        self.mix_hash(&[sealed, &tag]);
        message.extend_from_slice(&tag);
    }

    /// `DecryptAndHash`.
    fn open(&mut self, key: MessageKey, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(NoiseError::Length)?;
        let mut plaintext = ciphertext.to_vec();
        ChaCha20Poly1305::new((&*key.0).into())
            .decrypt_inout_detached(&Nonce::default(), &self.hash, plaintext.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| NoiseError::Authentication)?;
        self.mix_hash(&[sealed]);
        Ok(plaintext)
    }

    /// `Split`: the keys of the initiator's and of the responder's direction, and the handshake hash.
    fn split(self) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>, [u8; 32]) {
        let [initiator, responder] = hkdf(&self.chaining_key, &[]);
        (initiator, responder, self.hash)
    }
}

/// X25519. An all-zero result means a key of small order, and fails (RFC 7748, section 6.1).
fn diffie_hellman(secret: &StaticSecret, public: &[u8; 32]) -> Result<SharedSecret, NoiseError> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    if !shared.was_contributory() {
        return Err(NoiseError::ZeroSharedSecret);
    }
    Ok(SharedSecret(Zeroizing::new(shared.to_bytes())))
}

/// The first `N` outputs of `HKDF` (section 4.3).
fn hkdf<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Zeroizing<[u8; 32]>; N] {
    let temp_key = hmac(chaining_key, &[input]);
    let mut previous = Zeroizing::new([0; 32]);
    let mut counter = 0u8;
    core::array::from_fn(|_| {
        counter += 1;
        let before: &[u8] = if counter == 1 { &[] } else { &previous[..] };
        previous = hmac(&temp_key, &[before, &[counter]]);
        previous.clone()
    })
}

/// HMAC-BLAKE2s (RFC 2104). Noise asks for HMAC even where the hash has a keyed mode.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let padded = |pad: u8| {
        let mut block = Zeroizing::new([pad; 64]);
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        Blake2s256::new_with_prefix(&block[..])
    };
    let mut inner = padded(0x36);
    for part in parts {
        inner.update(part);
    }
    let mut inner: [u8; 32] = inner.finalize().into();
    let mut outer = padded(0x5c);
    outer.update(inner);
    inner.zeroize();
    Zeroizing::new(outer.finalize().into())
}

fn take_key(message: &[u8]) -> Result<(&[u8; KEY_LEN], &[u8]), NoiseError> {
    if message.len() > MAX_MESSAGE_LEN {
        return Err(NoiseError::Length);
    }
    message.split_first_chunk().ok_or(NoiseError::Length)
}

fn check_payload(payload: &[u8], overhead: usize) -> Result<(), NoiseError> {
    if payload.len() > MAX_MESSAGE_LEN - overhead { Err(NoiseError::Length) } else { Ok(()) }
}
