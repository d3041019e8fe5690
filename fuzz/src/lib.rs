//! What the fuzz targets of vine share.
//!
//! - [`packets`]: IP packets and what a kernel makes of them, written without the code under test;
//! - [`crypto`]: a cipher without secrecy that watches how keys and numbers are used;
//! - [`world`]: two nodes, a network that does what the fuzzer says, and the rules that hold whatever it says;
//! - [`peer`]: a peer of one node whose every sealed byte is the fuzzer's choice;
//! - [`alloc`]: how much memory the code under test takes.

pub mod alloc;
pub mod crypto;
pub mod packets;
pub mod peer;
pub mod world;

use arbitrary::{Arbitrary, Result, Unstructured};

/// A change to some bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Edit {
    /// Bits of the byte at a place (counted from the end where `back`) are flipped.
    Flip {
        /// Which byte.
        at: u16,
        /// Counted from the end.
        back: bool,
        /// Which bits; none means all.
        bits: u8,
    },
    /// Only the first so many bytes are left.
    Cut(u16),
    /// Bytes are added at the end.
    Grow(u8),
}

impl Edit {
    /// Makes the change. What is empty stays empty.
    pub fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Edit::Flip { at, back, bits } => {
                let len = bytes.len().max(1);
                let at = usize::from(at) % len;
                let at = if back { len - 1 - at } else { at };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= if bits == 0 { 0xff } else { bits };
                }
            }
            Edit::Cut(len) => bytes.truncate(usize::from(len) % bytes.len().max(1)),
            Edit::Grow(by) => bytes.resize(bytes.len() + usize::from(by), by),
        }
    }
}

/// An input, and a hash of its bytes for the keys of the run.
///
/// Were keys the same in every run, libFuzzer would learn what one run sealed (it watches comparisons) and show it to
/// another one, as bytes of nobody that are perfectly authentic.
#[derive(Clone, Debug)]
pub struct Salted<T> {
    /// The hash.
    pub salt: [u8; 32],
    /// The input.
    pub value: T,
}

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Salted<T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let salt = salt(u.peek_bytes(u.len()).unwrap_or_default());
        Ok(Salted { salt, value: T::arbitrary(u)? })
    }

    fn arbitrary_take_rest(u: Unstructured<'a>) -> Result<Self> {
        let salt = salt(u.peek_bytes(u.len()).unwrap_or_default());
        Ok(Salted { salt, value: T::arbitrary_take_rest(u)? })
    }
}

/// A hash of which nobody can foresee anything by comparing.
fn salt(bytes: &[u8]) -> [u8; 32] {
    let mut state = bytes.len() as u64;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    let mut salt = [0; 32];
    salt.copy_from_slice(&pattern(state, 32));
    salt
}

/// Bytes that differ from one `stamp` to the next; the same stamp gives the same bytes.
pub fn pattern(stamp: u64, len: usize) -> Vec<u8> {
    // SplitMix64, eight bytes a step.
    let mut bytes = vec![0; len.next_multiple_of(8)];
    let mut state = stamp;
    for word in bytes.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *word = (mixed ^ (mixed >> 31)).to_le_bytes();
    }
    bytes.truncate(len);
    bytes
}
