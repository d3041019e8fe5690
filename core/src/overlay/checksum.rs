//! The internet checksum (RFC 1071).

use core::net::IpAddr;

/// A one's-complement sum of 16-bit big-endian words, not yet folded.
///
/// The sum of several pieces is the sum of their sums as long as every piece but the last has an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`; an odd last byte counts as the upper half of a word.
    pub fn of(bytes: &[u8]) -> Sum {
        // A one's-complement sum may be taken in either byte order and swapped at the end (RFC 1071 section 2 (B)), and
        // in words of any multiple of 16 bits. The halves of 64-bit words go into lanes of their own: that leaves the
        // carries for later, and the compiler has something to put into vector registers.
        let (mut low, mut high) = ([0u64; 8], [0u64; 8]);
        let (blocks, tail) = bytes.as_chunks::<64>();
        for block in blocks {
            for ((low, high), word) in low.iter_mut().zip(&mut high).zip(block.as_chunks::<8>().0) {
                let word = u64::from_le_bytes(*word);
                *low += word & 0xffff_ffff;
                *high += word >> 32;
            }
        }
        let mut sum: u64 = low.iter().chain(&high).sum();
        let (words, tail) = tail.as_chunks::<4>();
        sum += words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        for (byte, of_tail) in last.iter_mut().zip(tail) {
            *byte = *of_tail;
        }
        sum += u64::from(u32::from_le_bytes(last));
        Sum(u64::from(fold(sum).swap_bytes()))
    }

    /// The sum of the TCP or UDP pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1): the addresses, the
    /// protocol, and the length of the transport header with its payload.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Sum {
        Sum::of_address(source).plus(Sum::of_address(destination)).plus_length(length).plus(Sum(u64::from(protocol)))
    }

    fn of_address(address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(ip) => Sum(u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Sum(ip.to_bits().to_be_bytes().as_chunks::<4>().0.iter().map(be32).sum()),
        }
    }

    /// Both sums together.
    #[must_use]
    pub const fn plus(self, other: Sum) -> Sum {
        Sum(self.0 + other.0)
    }

    /// This sum and one word more.
    #[must_use]
    pub const fn plus_word(self, word: u16) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// This sum and a length that may be more than one word.
    #[must_use]
    pub const fn plus_length(self, length: usize) -> Sum {
        Sum(self.0 + length as u64)
    }

    /// The sum in 16 bits, not complemented. This is what the checksum field of a packet with an open checksum holds,
    /// taken over the pseudo-header.
    pub const fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The value for a checksum field: the folded sum, complemented.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The checksum field after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
pub(super) const fn replace_word(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// Adds the carries until 16 bits are left. Zero stays zero, and no other sum becomes zero.
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

fn be32(bytes: &[u8; 4]) -> u64 {
    u64::from(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    /// RFC 1071, said plainly.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(replace_word(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn the_largest_sums_fold() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
        assert_eq!(fold(0), 0);
        assert_eq!(Sum::of(&vec![0xff; 70_001]).fold(), plain(&vec![0xff; 70_001]));
    }

    proptest! {
        #[test]
        fn is_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
            prop_assert_eq!(Sum::of(&bytes).fold(), plain(&bytes));
            if let Some((head, tail)) = bytes.split_at_checked(cut * 2) {
                prop_assert_eq!(Sum::of(head).plus(Sum::of(tail)).fold(), plain(&bytes));
            }
        }

        #[test]
        fn folding_is_modulo_0xffff(sum in any::<u64>()) {
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
            prop_assert_eq!(fold(sum) == 0, sum == 0);
        }

        #[test]
        fn pseudo_headers_are_sums_of_their_bytes(v4 in any::<[u32; 2]>(), v6 in any::<[u128; 2]>(), length in 0u16..) {
            let [high, low] = length.to_be_bytes();
            let [source, destination] = v4;
            let mut bytes = vec![];
            bytes.extend(source.to_be_bytes());
            bytes.extend(destination.to_be_bytes());
            bytes.extend([0, 6, high, low]);
            let (source, destination) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let sum = Sum::pseudo_header(source.into(), destination.into(), 6, usize::from(length));
            prop_assert_eq!(sum.fold(), plain(&bytes));

            let [source, destination] = v6;
            let mut bytes = vec![];
            bytes.extend(source.to_be_bytes());
            bytes.extend(destination.to_be_bytes());
            bytes.extend([0, 0, high, low, 0, 0, 0, 17]);
            let (source, destination) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination));
            let sum = Sum::pseudo_header(source.into(), destination.into(), 17, usize::from(length));
            prop_assert_eq!(sum.fold(), plain(&bytes));
        }

        #[test]
        fn replacing_a_word_is_summing_anew(bytes in any::<[u8; 20]>(), new in any::<u16>()) {
            let old = u16::from_be_bytes([bytes[2], bytes[3]]);
            let mut changed = bytes;
            changed[2..4].copy_from_slice(&new.to_be_bytes());
            let incremental = replace_word(Sum::of(&bytes).checksum(), old, new);
            // Zero has two forms, and both verify.
            prop_assert_eq!(incremental % 0xffff, Sum::of(&changed).checksum() % 0xffff);
        }
    }
}
