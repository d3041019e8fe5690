//! Variable-length integers: unsigned LEB128 of a `u64`, in its shortest form only.
//!
//! Seven bits a byte, least significant group first, the top bit set on every byte but the last. One value has one
//! encoding: the last byte of a longer one would be zero, and that is refused.

/// The most bytes that a varint takes: ten groups of seven bits cover 64.
pub const MAX_LEN: usize = 10;

/// Why bytes are not a varint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VarintError {
    /// The bytes end within the varint; with more of them it may still become one.
    #[error("the bytes end within a varint")]
    Truncated,
    /// The same value has a shorter encoding.
    #[error("a varint is not in its shortest form")]
    Overlong,
    /// The value exceeds the limit.
    #[error("a varint exceeds its limit")]
    TooLarge,
}

/// Bytes that `value` takes: 1 to 10.
pub const fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The encoding of `value`.
pub fn encode(value: u64) -> heapless::Vec<u8, MAX_LEN> {
    let groups = (0..len(value)).map(|group| (value >> (7 * group)) as u8);
    let mut bytes: heapless::Vec<u8, MAX_LEN> = groups.map(|group| group | 0x80).collect();
    if let Some(last) = bytes.last_mut() {
        *last &= 0x7f;
    }
    bytes
}

/// Takes a varint off the front of `bytes`; returns its value and the bytes behind it.
pub fn decode(bytes: &[u8]) -> Result<(u64, &[u8]), VarintError> {
    decode_up_to(bytes, u64::MAX)
}

/// As [`decode`], with values above `max` refused.
///
/// It is refused at the first byte that proves it, so a stream decoder need not wait for a varint that never ends.
pub fn decode_up_to(bytes: &[u8], max: u64) -> Result<(u64, &[u8]), VarintError> {
    let mut value = 0u64;
    let mut rest = bytes.iter();
    for group in 0..len(max) {
        let byte = *rest.next().ok_or(VarintError::Truncated)?;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * group);
        if shifted >> (7 * group) != bits {
            return Err(VarintError::TooLarge);
        }
        value |= shifted;
        if value > max {
            return Err(VarintError::TooLarge);
        }
        if byte & 0x80 == 0 {
            // Only a varint of one byte may end in a zero group: it is the value zero.
            return if byte == 0 && group > 0 { Err(VarintError::Overlong) } else { Ok((value, rest.as_slice())) };
        }
    }
    // Longer than the longest minimal encoding within the limit.
    Err(VarintError::TooLarge)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_change_at_multiples_of_seven_bits() {
        assert_eq!((len(0), len(1), len(0x7f)), (1, 1, 1));
        assert_eq!((len(0x80), len(0x3fff), len(0x4000)), (2, 2, 3));
        assert_eq!((len((1 << 63) - 1), len(1 << 63), len(u64::MAX)), (9, 10, 10));
    }

    #[test]
    fn known_encodings() {
        assert_eq!(encode(0).as_slice(), [0x00]);
        assert_eq!(encode(127).as_slice(), [0x7f]);
        assert_eq!(encode(128).as_slice(), [0x80, 0x01]);
        assert_eq!(encode(u64::MAX).as_slice(), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn a_longer_form_is_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x00], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(decode(bytes), Err(VarintError::Overlong), "{bytes:x?}");
        }
    }

    #[test]
    fn more_than_64_bits_are_refused_at_the_byte_that_proves_it() {
        let mut bytes = [0xff; 10];
        assert_eq!(decode(&bytes), Err(VarintError::TooLarge));
        bytes[9] = 0x02;
        assert_eq!(decode(&bytes), Err(VarintError::TooLarge));
        assert_eq!(decode(&bytes[..9]), Err(VarintError::Truncated));
    }

    #[test]
    fn a_limit_is_enforced_before_the_varint_ends() {
        assert_eq!(decode_up_to(&[0xe8, 0x07], 1000), Ok((1000, &[][..])));
        assert_eq!(decode_up_to(&[0xe9, 0x07], 1000), Err(VarintError::TooLarge));
        assert_eq!(decode_up_to(&[0x80, 0x80], 1000), Err(VarintError::TooLarge));
        assert_eq!(decode_up_to(&[0xff], 100), Err(VarintError::TooLarge));
        assert_eq!(decode_up_to(&[0], 0), Ok((0, &[][..])));
    }

    /// Values of every length, which uniform ones are not.
    fn any_length() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn round_trip(value in any_length(), behind: std::vec::Vec<u8>) {
            let mut bytes = encode(value).to_vec();
            prop_assert_eq!(bytes.len(), len(value));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), Err(VarintError::Truncated));
            }
            bytes.extend(&behind);
            prop_assert_eq!(decode(&bytes), Ok((value, &behind[..])));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, rest)) = decode(&bytes) {
                prop_assert_eq!(&encode(value)[..], &bytes[..bytes.len() - rest.len()]);
            }
        }

        #[test]
        fn a_limit_changes_nothing_below_it(value in any_length(), max in any_length()) {
            let bytes = encode(value);
            let expected = if value <= max { Ok((value, &[][..])) } else { Err(VarintError::TooLarge) };
            prop_assert_eq!(decode_up_to(&bytes, max), expected);
        }
    }
}
