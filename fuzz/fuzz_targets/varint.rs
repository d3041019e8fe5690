//! Varints: what decodes encodes to the same bytes, a limit changes nothing below it, and an error is the right one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::wire::varint::{self, VarintError};

fuzz_target!(|input: (u64, &[u8])| {
    let (max, bytes) = input;
    match varint::decode(bytes) {
        Ok((value, rest)) => {
            let consumed = &bytes[..bytes.len() - rest.len()];
            assert_eq!(&varint::encode(value)[..], consumed);
            assert_eq!(varint::len(value), consumed.len());
            for cut in 0..consumed.len() {
                assert_eq!(varint::decode(&consumed[..cut]), Err(VarintError::Truncated));
            }
            let expected = if value <= max { Ok((value, rest)) } else { Err(VarintError::TooLarge) };
            assert_eq!(varint::decode_up_to(bytes, max), expected);
        }
        // "With more of them it may still become one."
        Err(VarintError::Truncated) => assert!(varint::decode(&[bytes, &[1]].concat()).is_ok()),
        Err(error) => {
            let longer = [bytes, &[0, 1]].concat();
            assert_eq!(varint::decode(&longer), Err(error), "an error is final");
            assert!(varint::decode_up_to(bytes, max).is_err());
        }
    }
});
