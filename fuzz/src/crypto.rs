//! A cipher without secrecy, so that a fuzzer sees through it, which watches what no attacker may ever make happen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vine_core::Instant;
use vine_core::session::{Aead, Cipher, CryptoBackend, REFUSE_AFTER, REKEY_AFTER, REKEY_GRACE};
use vine_core::wire::TAG_LEN;

/// The backend. Its clones share one [`KeyLedger`]: give every node of a scenario a clone, and tell it the time.
///
/// Payloads stay as they are; the tag is a hash of key, nonce, associated data and payload, good enough that no flip of
/// bits passes. It panics where a nonce is used twice under one key, where numbers on a lane go backwards, or where data
/// is sealed under keys that are too old for it.
#[derive(Clone, Debug, Default)]
pub struct GlassCrypto(Arc<Mutex<KeyLedger>>);

/// What each key was used for.
#[derive(Debug, Default)]
struct KeyLedger {
    now: Instant,
    keys: BTreeMap<[u8; 32], KeyUse>,
}

#[derive(Debug)]
struct KeyUse {
    made: Instant,
    /// The last number of each lane.
    lanes: BTreeMap<u8, u64>,
    /// The first data under the key since it became old.
    first_old_data: Option<Instant>,
}

/// The later of the two times from which on keys count as old: the side that did not begin the session waits longer.
const OLD_AFTER: Duration = REKEY_AFTER.saturating_add(Duration::from_secs(10));

impl GlassCrypto {
    /// Tells the time by which the age of keys is judged.
    pub fn set_now(&self, now: Instant) {
        self.ledger().now = now;
    }

    fn ledger(&self) -> MutexGuard<'_, KeyLedger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyLedger {
    fn note_seal(&mut self, key: &[u8; 32], nonce: u64) {
        let now = self.now;
        let made = || KeyUse { made: now, lanes: BTreeMap::new(), first_old_data: None };
        let used = self.keys.entry(*key).or_insert_with(made);
        let (lane, counter) = ((nonce >> 56) as u8, nonce & ((1 << 56) - 1));
        if let Some(last) = used.lanes.insert(lane, counter) {
            assert!(last < counter, "lane {lane}: number {counter} after {last} under one key");
        }
        if lane == 0 {
            return;
        }
        if used.made + OLD_AFTER <= now {
            used.first_old_data.get_or_insert(now);
        }
        let last = used.first_old_data.map_or(used.made, |first| first + REKEY_GRACE).max(used.made + REFUSE_AFTER);
        assert!(now <= last, "data under keys of {:?}", now.since(used.made));
    }
}

impl CryptoBackend for GlassCrypto {
    fn aead(&self, cipher: Cipher, key: &[u8; 32]) -> Box<dyn Aead> {
        let mut tagged = *key;
        tagged[0] ^= cipher.id();
        let now = self.ledger().now;
        let made = || KeyUse { made: now, lanes: BTreeMap::new(), first_old_data: None };
        self.ledger().keys.entry(tagged).or_insert_with(made);
        Box::new(Glass { key: tagged, backend: self.clone() })
    }
}

struct Glass {
    key: [u8; 32],
    backend: GlassCrypto,
}

impl Glass {
    fn tag(&self, nonce: u64, aad: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
        let mut state = [nonce ^ 0x243f_6a88_85a3_08d3, (aad.len() as u64) << 32 ^ payload.len() as u64];
        for part in [&self.key[..], aad, payload] {
            for chunk in part.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                // Each step is a bijection of the state for a given word, so one changed word always changes the end.
                state[0] = (state[0] ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
                state[1] = (state[1] ^ state[0]).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31);
            }
        }
        let mut tag = [0; TAG_LEN];
        tag[..8].copy_from_slice(&state[0].to_le_bytes());
        tag[8..].copy_from_slice(&state[1].to_le_bytes());
        tag
    }
}

impl Aead for Glass {
    fn seal(&self, nonce: u64, aad: &[u8], payload: &mut [u8]) -> [u8; TAG_LEN] {
        self.backend.ledger().note_seal(&self.key, nonce);
        self.tag(nonce, aad, payload)
    }

    fn open(&self, nonce: u64, aad: &[u8], payload_and_tag: &mut [u8]) -> bool {
        let Some((payload, tag)) = payload_and_tag.split_last_chunk::<TAG_LEN>() else { return false };
        self.tag(nonce, aad, payload) == *tag
    }
}
