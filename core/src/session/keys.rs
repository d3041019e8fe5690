//! Keys besides those of Noise: what a Hello must show before it costs a Diffie-Hellman, and what seals traffic.

use core::fmt;

use blake2::digest::consts::{U16, U32};
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use crate::identity::PeerId;
use crate::wire::hello::Mac;

/// A key for BLAKE2s-128 in its keyed mode (RFC 7693), wiped when dropped.
#[derive(Clone)]
pub struct MacKey(Blake2sMac<U16>);

impl MacKey {
    /// The key of these 32 bytes.
    pub fn new(key: &[u8; 32]) -> MacKey {
        MacKey::from_slice(key)
    }

    /// For the keys of this crate, of 16 and 32 bytes.
    pub(super) fn from_slice(key: &[u8]) -> MacKey {
        MacKey(Blake2sMac::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 bytes"))
    }

    /// The code over `parts`, as if they were one slice.
    pub fn mac(&self, parts: &[&[u8]]) -> Mac {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        state.finalize_fixed().into()
    }

    /// Whether `mac` is the code over `parts`; takes equally long wherever it differs.
    pub fn verify(&self, parts: &[&[u8]], mac: &Mac) -> bool {
        self.mac(parts).ct_eq(mac).into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacKey").finish_non_exhaustive()
    }
}

/// The key of the MAC in every Hello to `responder`.
///
/// Whoever does not know the PeerId, the network's name and its key gets no answer at all.
pub fn hello_key(responder: &PeerId, network_id: &str, network_key: Option<&[u8; 32]>) -> MacKey {
    network_mac_key(b"vine hello mac v1", responder, network_id, network_key)
}

/// The key of the MAC in every Cookie from `responder`.
pub fn cookie_key(responder: &PeerId, network_id: &str, network_key: Option<&[u8; 32]>) -> MacKey {
    network_mac_key(b"vine cookie mac v1", responder, network_id, network_key)
}

/// BLAKE2s-256 over domain, PeerId, the name's length and the name, and the network key or zeros.
fn network_mac_key(domain: &[u8], responder: &PeerId, network_id: &str, network_key: Option<&[u8; 32]>) -> MacKey {
    let id_len = u8::try_from(network_id.len()).expect("a network's name is at most 64 bytes");
    let hash = Blake2s256::new()
        .chain_update(domain)
        .chain_update(responder.as_bytes())
        .chain_update([id_len])
        .chain_update(network_id)
        .chain_update(network_key.unwrap_or(&[0; 32]))
        .finalize();
    MacKey::new(&Zeroizing::new(hash.into()))
}

/// The key that seals one direction of a session's traffic, from that direction's split key of Noise.
///
/// The cipher goes into it, so no key is ever used with two ciphers.
pub fn transport_key(split_key: &[u8; 32], cipher: Cipher) -> Zeroizing<[u8; 32]> {
    let mac = Blake2sMac::<U32>::new(split_key.into());
    Zeroizing::new(mac.chain(b"vine transport v1").chain([cipher.id()]).finalize_fixed().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use alloc::format;
    use alloc::string::String;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Computed with Python's `hashlib.blake2s`.
    #[test]
    fn fixed_values() {
        let id = Identity::from_seed([7; 32]).peer_id();
        assert_eq!(hex(id.as_bytes()), "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c");
        let parts: [&[u8]; 3] = [b"header", b"", b"payload"];
        let mac = |key: MacKey| hex(&key.mac(&parts));
        assert_eq!(mac(hello_key(&id, "home-net", None)), "7344bf6c1f3d3a47cb3d3638f0201ef1");
        assert_eq!(mac(hello_key(&id, "home-net", Some(&[9; 32]))), "819a4624f63615562756ba640264db77");
        assert_eq!(mac(cookie_key(&id, "home-net", None)), "5512c64ebb1eb7e15b533ae353df253b");
        assert_eq!(
            hex(&transport_key(&[5; 32], Cipher::ChaCha20Poly1305)[..]),
            "822c069a7f3a902ab0813f97f2faa74a94485d5bde6633cc6a40939fbfc50f4e"
        );
        assert_eq!(
            hex(&transport_key(&[5; 32], Cipher::Aes256Gcm)[..]),
            "c1762dfa5181fe4ae4d0ff0aa83855917243b3968a2ed8a9f5c21fe47af8835e"
        );
    }

    #[test]
    fn every_part_matters_and_none_flows_into_the_next() {
        let (a, b) = (Identity::from_seed([1; 32]).peer_id(), Identity::from_seed([2; 32]).peer_id());
        let mut shifted = [0; 32];
        shifted[31] = b'x';
        let keys = [
            hello_key(&a, "net", None),
            hello_key(&b, "net", None),
            hello_key(&a, "net\0", None),
            hello_key(&a, "ne", Some(&shifted)),
            hello_key(&a, "net", Some(&shifted)),
            cookie_key(&a, "net", None),
        ];
        for (i, key) in keys.iter().enumerate() {
            let mac = key.mac(&[b"x"]);
            for (j, other) in keys.iter().enumerate() {
                assert_eq!(other.verify(&[b"x"], &mac), i == j);
            }
        }
    }

    #[test]
    fn a_wrong_mac_is_refused() {
        let key = MacKey::new(&[1; 32]);
        let mac = key.mac(&[b"ab", b"c"]);
        assert!(key.verify(&[b"a", b"bc"], &mac));
        assert!(!key.verify(&[b"abd"], &mac));
        for at in 0..mac.len() {
            let mut wrong = mac;
            wrong[at] ^= 1;
            assert!(!key.verify(&[b"abc"], &wrong));
        }
    }
}
