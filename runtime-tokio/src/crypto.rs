//! The session ciphers by `ring`, which is two to three times as fast as the portable ones.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use vine_core::session::{Aead, Cipher, CryptoBackend};

/// Makes ciphers by `ring`.
///
/// A key of `ring` is not wiped from memory when it is dropped: the crate has no way to do so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring;

impl CryptoBackend for Ring {
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).expect("both ciphers have keys of 32 bytes");
        Box::new(Keyed(LessSafeKey::new(key)))
    }
}

struct Keyed(LessSafeKey);

impl Aead for Keyed {
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; MAX_TAG_LEN] {
        let nonce = expand(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), payload);
        let tag = tag.expect("an envelope is far below the ciphers' 64 GiB");
        tag.as_ref().try_into().expect("both ciphers have tags of 16 bytes")
    }

    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool {
        let nonce = expand(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), payload_and_tag).is_ok()
    }
}

/// Four zero bytes, then the number in little endian: how [`Aead`] defines the 96-bit nonce.
fn expand(nonce: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Whether this processor has the instructions that make AES-256-GCM faster than ChaCha20-Poly1305, and safe from timing.
pub fn aes_is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use vine_core::session::RustCrypto;

    #[test]
    fn agrees_with_the_portable_backend() {
        for cipher in Cipher::ALL {
            let (fast, portable) = (Ring.aead(cipher, &[9; 32]), RustCrypto.aead(cipher, &[9; 32]));
            for len in [0, 1, 15, 16, 17, 64, 1400, 9000] {
                let clear: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let nonce = 0x0300_0000_0000_0000 + len as u64;
                let (mut a, mut b) = (clear.clone(), clear.clone());
                let tag = fast.seal(nonce, b"header", &mut a);
                assert_eq!(tag, portable.seal(nonce, b"header", &mut b), "{cipher} {len}");
                assert_eq!(a, b, "{cipher} {len}");
                a.extend(tag);
                let mut wrong = a.clone();
                assert!(!fast.open(nonce, b"another", &mut wrong));
                assert!(fast.open(nonce, b"header", &mut a));
                assert_eq!(a[..len], clear);
                assert_eq!(a[len..], tag, "the tag stays");
            }
            assert!(!fast.open(0, b"", &mut [0; 15]), "shorter than a tag");
        }
    }
}
