//! The ciphers of a session's traffic, and the seam where a faster implementation of them goes in.

use alloc::boxed::Box;
use core::fmt;

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::array::typenum::consts::{U12, U16, U32};
use chacha20poly1305::aead::{AeadInOut, KeyInit, KeySizeUser, Nonce, Tag};

use crate::wire::TAG_LEN;

/// A cipher of transport traffic. Both sides always know the first; which one a session uses is agreed inside the
/// handshake, where nobody can downgrade it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Cipher {
    /// ChaCha20-Poly1305 (RFC 8439): fast everywhere.
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D): faster where the machine has instructions for it, slow and leaky where not.
    Aes256Gcm = 2,
}

impl Cipher {
    /// Every cipher.
    pub const ALL: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

    /// The number on the wire.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The cipher with this number on the wire, or `None` if this version knows none.
    pub fn from_id(id: u8) -> Option<Cipher> {
        Cipher::ALL.into_iter().find(|cipher| cipher.id() == id)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cipher::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Cipher::Aes256Gcm => "AES-256-GCM",
        })
    }
}

/// A cipher with a key in it: authenticated encryption with associated data (RFC 5116), in place.
///
/// The 64-bit nonce becomes the 96-bit one as Noise does it for ChaChaPoly: four zero bytes, then the nonce in little
/// endian ([`expand_nonce`]). The caller never uses one twice to seal. Implementations wipe the key when dropped.
pub trait Aead: Send + Sync {
    /// Encrypts `payload` in place and returns the tag over it and `aad`.
    #[must_use = "without its tag a sealed payload cannot be opened"]
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `payload_and_tag` in place: its last [`TAG_LEN`] bytes are the tag, and stay.
    ///
    /// Returns whether the tag was right. If it was not, the payload is undefined and must not be used. Anything
    /// shorter than a tag is not right.
    #[must_use = "a payload that did not authenticate must not be used"]
    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool;
}

/// Makes ciphers. The default is [`RustCrypto`]; a host plugs in a faster one, and a fuzzer one without secrecy.
pub trait CryptoBackend: core::fmt::Debug + Send + Sync {
    /// `cipher` with `key`. Every backend has every cipher.
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead>;
}

/// The 96-bit nonce of the ciphers: four zero bytes, then `nonce` in little endian.
pub const fn expand_nonce(nonce: u64) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = nonce.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// The portable backend: the RustCrypto implementations, which choose the machine's instructions at run time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl CryptoBackend for RustCrypto {
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead> {
        match cipher {
            Cipher::ChaCha20Poly1305 => Box::new(Keyed(ChaCha20Poly1305::new(key.into()))),
            Cipher::Aes256Gcm => Box::new(Keyed(Aes256Gcm::new(key.into()))),
        }
    }
}

struct Keyed<A>(A);

impl<A> Aead for Keyed<A>
where
    A: AeadInOut<NonceSize = U12, TagSize = U16> + KeySizeUser<KeySize = U32> + Send + Sync,
{
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::<A>::from(expand_nonce(nonce));
        let tag = self.0.encrypt_inout_detached(&nonce, aad, payload.into());
        tag.expect("an envelope is far below the ciphers' 64 GiB").into()
    }

    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool {
        let Some((payload, tag)) = payload_and_tag.split_last_chunk_mut::<TAG_LEN>() else { return false };
        let nonce = Nonce::<A>::from(expand_nonce(nonce));
        self.0.decrypt_inout_detached(&nonce, aad, payload.into(), &Tag::<A>::from(*tag)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn ids_are_fixed() {
        assert_eq!(Cipher::from_id(1), Some(Cipher::ChaCha20Poly1305));
        assert_eq!(Cipher::from_id(2), Some(Cipher::Aes256Gcm));
        for id in [0, 3, 255] {
            assert_eq!(Cipher::from_id(id), None);
        }
    }

    #[test]
    fn nonce_layout() {
        assert_eq!(expand_nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_else_does(
            cipher in prop::sample::select(&Cipher::ALL[..]),
            key in any::<[u8; 32]>(),
            nonce in any::<u64>(),
            aad in any::<[u8; 16]>(),
            payload in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(),
        ) {
            let aead = RustCrypto.aead(cipher, &key);
            let mut sealed = payload.clone();
            let tag = aead.seal(nonce, &aad, &mut sealed);
            sealed.extend_from_slice(&tag);

            let mut opened = sealed.clone();
            prop_assert!(aead.open(nonce, &aad, &mut opened));
            prop_assert_eq!(&opened[..payload.len()], &payload[..]);

            prop_assert!(!aead.open(nonce ^ 1, &aad, &mut sealed.clone()));
            prop_assert!(!aead.open(nonce, &aad[1..], &mut sealed.clone()));
            let mut tampered = sealed.clone();
            tampered[flip.index(sealed.len())] ^= 0x10;
            prop_assert!(!aead.open(nonce, &aad, &mut tampered));
            prop_assert!(!aead.open(nonce, &aad, &mut vec![0; flip.index(TAG_LEN)]));
        }
    }
}
