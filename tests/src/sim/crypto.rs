//! The ciphers of simulated nodes: a stub that costs next to nothing, or the real ones; both audited.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vine_core::session::{Aead, Cipher, CryptoBackend, RustCrypto};

/// Bytes of a tag.
const TAG_LEN: usize = 16;

/// The backend of every node of one world. All of them share the audit: no key seals two payloads under one nonce, whoever
/// holds it and however often its holder restarts.
#[derive(Clone)]
pub struct AuditedCrypto {
    ciphers: Arc<dyn CryptoBackend>,
    audit: Audit,
}

impl fmt::Debug for AuditedCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditedCrypto").finish_non_exhaustive()
    }
}

/// For every key the next number that each of its 256 lanes may use.
type Audit = Arc<Mutex<BTreeMap<[u8; 32], Box<[u64; 256]>>>>;

impl AuditedCrypto {
    /// The stub: a keyed checksum and a pattern, so that damage is noticed and a plaintext is not mistaken for a sealed one,
    /// but nothing is secret.
    pub fn stub() -> AuditedCrypto {
        AuditedCrypto::of(StubCrypto)
    }

    /// The real ciphers.
    pub fn real() -> AuditedCrypto {
        AuditedCrypto::of(RustCrypto)
    }

    /// Any others.
    pub fn of(ciphers: impl CryptoBackend + 'static) -> AuditedCrypto {
        AuditedCrypto { ciphers: Arc::new(ciphers), audit: Audit::default() }
    }
}

impl CryptoBackend for AuditedCrypto {
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead> {
        Box::new(Audited { inner: self.ciphers.aead(cipher, key), key: *key, audit: self.audit.clone() })
    }
}

struct Audited {
    inner: Box<dyn Aead>,
    key: [u8; 32],
    audit: Audit,
}

impl Aead for Audited {
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; TAG_LEN] {
        let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = audit.entry(self.key).or_insert_with(|| Box::new([0; 256]));
        let (lane, counter) = ((nonce >> 56) as usize, nonce & ((1 << 56) - 1));
        assert!(counter >= lanes[lane], "a nonce is used twice: lane {lane}, counter {counter}");
        lanes[lane] = counter + 1;
        drop(audit);
        self.inner.seal(nonce, aad, payload)
    }

    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool {
        self.inner.open(nonce, aad, payload_and_tag)
    }
}

#[derive(Debug)]
struct StubCrypto;

impl CryptoBackend for StubCrypto {
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead> {
        Box::new(Stub::new(cipher, key))
    }
}

struct Stub {
    key: [u64; 4],
}

impl Stub {
    fn new(cipher: Cipher, key: &[u8; 32]) -> Stub {
        let mut words = [u64::from(cipher.id()); 4];
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(8)) {
            *word ^= word_of(bytes);
        }
        Stub { key: words }
    }

    /// The pattern that hides the plaintext from a reader who forgot to open it.
    fn cover(&self, nonce: u64, payload: &mut [u8]) {
        let pattern = (self.key[2] ^ nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        for chunk in payload.chunks_mut(8) {
            chunk.iter_mut().zip(pattern).for_each(|(byte, cover)| *byte ^= cover);
        }
    }

    fn tag(&self, nonce: u64, aad: &[u8], covered: &[u8]) -> [u8; TAG_LEN] {
        let mut a = self.key[0] ^ nonce;
        let mut b = self.key[1] ^ ((aad.len() as u64) << 32 | covered.len() as u64);
        for chunk in aad.chunks(8).chain(covered.chunks(8)) {
            let word = word_of(chunk);
            a = (a ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
            b = (b.rotate_left(17) ^ word).wrapping_mul(0xc4ce_b9fe_1a85_ec53) ^ a;
        }
        let mut tag = [0; TAG_LEN];
        tag[..8].copy_from_slice(&(a ^ self.key[3]).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        tag[8..].copy_from_slice(&(b ^ a >> 32).to_le_bytes());
        tag
    }
}

impl Aead for Stub {
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; TAG_LEN] {
        self.cover(nonce, payload);
        self.tag(nonce, aad, payload)
    }

    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool {
        let Some((payload, tag)) = payload_and_tag.split_last_chunk_mut::<TAG_LEN>() else { return false };
        let right = self.tag(nonce, aad, payload) == *tag;
        self.cover(nonce, payload);
        right
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_notices_every_flipped_bit() {
        let aead = AuditedCrypto::stub().aead(Cipher::Aes256Gcm, &[7; 32]);
        let mut sealed = b"a payload of some words".to_vec();
        let tag = aead.seal(9, b"header", &mut sealed);
        sealed.extend(tag);
        assert!(aead.open(9, b"header", &mut sealed.clone()));
        assert!(!aead.open(8, b"header", &mut sealed.clone()));
        assert!(!aead.open(9, b"Header", &mut sealed.clone()));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!aead.open(9, b"header", &mut damaged), "bit {bit}");
        }
    }

    #[test]
    #[should_panic(expected = "a nonce is used twice")]
    fn the_audit_spans_all_holders_of_a_key() {
        let crypto = AuditedCrypto::real();
        let (first, second) = (crypto.aead(Cipher::Aes256Gcm, &[7; 32]), crypto.aead(Cipher::Aes256Gcm, &[7; 32]));
        let _ = first.seal(5, b"", &mut []);
        let _ = second.seal(5, b"", &mut []);
    }
}
