//! Ops: as a second, plain reading has them; what decodes is within the limits and encodes to the same bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vine_core::log::op::{MAX_COMMIT_OPS, MAX_KEY, MAX_OP, MAX_VALUE, OpError};
use vine_core::log::{Hlc, Op, Ops};

/// A length in front of `bytes` and what is behind it, if it is in its shortest form.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let len = bytes.iter().position(|byte| *byte < 0x80)? + 1;
    let (groups, rest) = bytes.split_at(len);
    let shortest = len == 1 || groups[len - 1] != 0;
    let value = groups.iter().rev().fold(0u128, |value, group| (value << 7 | u128::from(group & 0x7f)).min(1 << 100));
    (shortest && value <= MAX_OP as u128).then_some((value as usize, rest))
}

/// The op at the front of `bytes` and what is behind it.
fn plain(bytes: &[u8]) -> Option<(Op, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (len, rest) = length(rest)?;
    let (data, rest) = rest.split_at_checked(len)?;
    let owned = Bytes::copy_from_slice;
    let stamp = data.first_chunk().map(|stamp| Hlc(u64::from_le_bytes(*stamp)));
    let put = || {
        let (key_len, behind) = length(&data[8..])?;
        let (key, value) = behind.split_at_checked(key_len)?;
        let fits = (1..=MAX_KEY).contains(&key_len) && value.len() <= MAX_VALUE;
        fits.then(|| Op::Put { stamp: stamp.expect("8 bytes"), key: owned(key), value: owned(value) })
    };
    let op = match (kind, stamp) {
        (0, _) => Some(Op::Plain(owned(data))),
        (1, Some(_)) => put(),
        (2, Some(stamp)) => (9..=8 + MAX_KEY).contains(&len).then(|| Op::Delete { stamp, key: owned(&data[8..]) }),
        _ => None,
    };
    Some((op.unwrap_or(Op::Other { kind: *kind, data: owned(data) }), rest))
}

fuzz_target!(|input: &[u8]| {
    let mut rest = Bytes::copy_from_slice(input);
    let mut ops = Vec::new();
    loop {
        let before = rest.clone();
        let expected = plain(&before);
        match Op::decode(&mut rest) {
            Ok(op) => {
                assert_eq!(op.check(), Ok(()));
                assert_eq!(op.encoded_len(), before.len() - rest.len());
                assert_eq!(Some((op.clone(), &rest[..])), expected);
                ops.push(op);
            }
            Err(error) => {
                assert!(expected.is_none(), "{expected:?}");
                assert_eq!(rest, before, "nothing is taken");
                if error == OpError::Truncated {
                    // "With more of it, it may become one": zeros end every length, and fill every op.
                    let longer: Bytes = [&before[..], &[1], &vec![0; MAX_OP]].concat().into();
                    assert!(before.is_empty() || Op::decode(&mut longer.clone()).is_ok());
                }
                break;
            }
        }
    }
    ops.truncate(MAX_COMMIT_OPS);
    let encoded = Ops::new(&ops).expect("they are within the limits, and few");
    let len: usize = ops.iter().map(Op::encoded_len).sum();
    assert_eq!(encoded.as_ref().map_or(&[][..], Ops::encoded), &input[..len]);
});
