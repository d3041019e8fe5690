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

use arbitrary::Arbitrary;

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
