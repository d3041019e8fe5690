//! Ops: what an application writes, and how ops lie one behind the other in a commit.
//!
//! An op is `kind u8 | length varint | data`, its length at most [`MAX_OP`] bytes, in the shortest form:
//!
//! | kind | data |
//! | --- | --- |
//! | 0, plain | opaque |
//! | 1, put | `stamp u64 \| key length varint \| key \| value` |
//! | 2, delete | `stamp u64 \| key`, which is the rest |
//! | any other | of a later version: kept and delivered as it is, without effect on the key-value view |
//!
//! Integers are little-endian. A put or delete whose data is not of that form is void: kept and delivered as
//! [`Op::Other`], without effect. It is not an error, because every node has to come to the same view.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::clock::Hlc;
use super::commit::HEAD_LEN;
use crate::wire::Reader;
use crate::wire::varint::{self, VarintError};

/// The most bytes of data in one op: 256 KiB.
pub const MAX_OP: usize = 256 * 1024;
/// The most ops in one commit.
pub const MAX_COMMIT_OPS: usize = 1024;
/// The most bytes that the encoded ops of one commit take: 1 MiB.
pub const MAX_COMMIT: usize = 1024 * 1024;
/// The longest key, in bytes. The shortest has one.
pub const MAX_KEY: usize = 1024;
/// The longest value, in bytes: what a put can hold beside the longest key, rounded down.
pub const MAX_VALUE: usize = MAX_OP - 2 * 1024;

/// The kinds of ops that have a meaning here.
mod kind {
    pub(super) const PLAIN: u8 = 0;
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
}

/// One application write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Bytes that mean something to the application only: 0 to [`MAX_OP`] of them.
    Plain(Bytes),
    /// A key gets a value.
    Put {
        /// Where the write stands among all writes of the key.
        stamp: Hlc,
        /// 1 to [`MAX_KEY`] bytes.
        key: Bytes,
        /// 0 to [`MAX_VALUE`] bytes.
        value: Bytes,
    },
    /// A key has no value any more.
    Delete {
        /// Where the write stands among all writes of the key.
        stamp: Hlc,
        /// 1 to [`MAX_KEY`] bytes.
        key: Bytes,
    },
    /// An op of a kind without meaning here, or a void put or delete.
    Other {
        /// Its kind. What is written with the kind of another variant is read back as that one, where its data has the form.
        kind: u8,
        /// 0 to [`MAX_OP`] bytes.
        data: Bytes,
    },
}

/// An op is over a limit, and no commit can hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimitError {
    /// More than [`MAX_OP`] bytes of data.
    #[error("the op has {len} bytes; it may have {MAX_OP}")]
    Op {
        /// Its bytes.
        len: usize,
    },
    /// No key, or one of more than [`MAX_KEY`] bytes.
    #[error("the key has {len} bytes; it may have 1 to {MAX_KEY}")]
    Key {
        /// Its bytes.
        len: usize,
    },
    /// More than [`MAX_VALUE`] bytes of value.
    #[error("the value has {len} bytes; it may have {MAX_VALUE}")]
    Value {
        /// Its bytes.
        len: usize,
    },
}

/// Why bytes are not an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpError {
    /// The bytes end within the op.
    #[error("the bytes end within an op")]
    Truncated,
    /// The length is over [`MAX_OP`].
    #[error("an op's length exceeds {MAX_OP} bytes")]
    TooLong,
    /// The length is not in its shortest form.
    #[error("an op's length is not in its shortest form")]
    Length,
}

impl From<VarintError> for OpError {
    fn from(error: VarintError) -> OpError {
        match error {
            VarintError::Truncated => OpError::Truncated,
            VarintError::Overlong => OpError::Length,
            VarintError::TooLarge => OpError::TooLong,
        }
    }
}

impl Op {
    /// Whether the op is within the limits.
    ///
    /// # Errors
    /// The first limit that it exceeds.
    pub fn check(&self) -> Result<(), LimitError> {
        match self {
            Op::Plain(data) | Op::Other { data, .. } if data.len() > MAX_OP => Err(LimitError::Op { len: data.len() }),
            Op::Plain(_) | Op::Other { .. } => Ok(()),
            Op::Put { key, value, .. } => check_key(key).and_then(|()| check_value(value)),
            Op::Delete { key, .. } => check_key(key),
        }
    }

    /// The byte that stands for the kind.
    pub fn kind(&self) -> u8 {
        match self {
            Op::Plain(_) => kind::PLAIN,
            Op::Put { .. } => kind::PUT,
            Op::Delete { .. } => kind::DELETE,
            Op::Other { kind, .. } => *kind,
        }
    }

    /// Bytes that the op takes in a commit.
    pub fn encoded_len(&self) -> usize {
        let data = self.data_len();
        1 + varint::len(data as u64) + data
    }

    /// Takes an op off the front of `bytes`; it shares their memory. Where that fails, `bytes` are left as they were.
    ///
    /// # Errors
    /// [`OpError`]. A void put or delete is none: it is an [`Op::Other`].
    pub fn decode(bytes: &mut Bytes) -> Result<Op, OpError> {
        let (kind, head, len) = measure(bytes)?;
        let mut data = bytes.split_to(head + len);
        bytes::Buf::advance(&mut data, head);
        Ok(match kind {
            kind::PLAIN => Op::Plain(data),
            kind::PUT => put(&data).unwrap_or(Op::Other { kind, data }),
            kind::DELETE => delete(&data).unwrap_or(Op::Other { kind, data }),
            _ => Op::Other { kind, data },
        })
    }

    fn data_len(&self) -> usize {
        match self {
            Op::Plain(data) | Op::Other { data, .. } => data.len(),
            Op::Put { key, value, .. } => 8 + varint::len(key.len() as u64) + key.len() + value.len(),
            Op::Delete { key, .. } => 8 + key.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        out.extend_from_slice(&varint::encode(self.data_len() as u64));
        match self {
            Op::Plain(data) | Op::Other { data, .. } => out.extend_from_slice(data),
            Op::Put { stamp, key, value } => {
                out.extend_from_slice(&stamp.0.to_le_bytes());
                out.extend_from_slice(&varint::encode(key.len() as u64));
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Op::Delete { stamp, key } => {
                out.extend_from_slice(&stamp.0.to_le_bytes());
                out.extend_from_slice(key);
            }
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), LimitError> {
    if (1..=MAX_KEY).contains(&key.len()) { Ok(()) } else { Err(LimitError::Key { len: key.len() }) }
}

fn check_value(value: &[u8]) -> Result<(), LimitError> {
    if value.len() <= MAX_VALUE { Ok(()) } else { Err(LimitError::Value { len: value.len() }) }
}

/// The kind of the first op in `bytes`, how long its kind and length are, and how long its data is.
fn measure(bytes: &[u8]) -> Result<(u8, usize, usize), OpError> {
    let (&kind, behind_kind) = bytes.split_first().ok_or(OpError::Truncated)?;
    let (len, behind) = varint::decode_up_to(behind_kind, MAX_OP as u64)?;
    let len = len as usize;
    if behind.len() < len { Err(OpError::Truncated) } else { Ok((kind, bytes.len() - behind.len(), len)) }
}

/// The put whose data this is, unless it is void.
fn put(data: &Bytes) -> Option<Op> {
    let mut reader = Reader::new(data);
    let stamp = Hlc(reader.u64().ok()?);
    let key_len = reader.varint_up_to(MAX_KEY as u64).ok()? as usize;
    let key = reader.bytes(key_len).ok()?;
    let value = reader.rest();
    check_key(key).ok()?;
    check_value(value).ok()?;
    Some(Op::Put { stamp, key: data.slice_ref(key), value: data.slice_ref(value) })
}

/// The delete whose data this is, unless it is void.
fn delete(data: &Bytes) -> Option<Op> {
    let mut reader = Reader::new(data);
    let stamp = Hlc(reader.u64().ok()?);
    let key = reader.rest();
    check_key(key).ok()?;
    Some(Op::Delete { stamp, key: data.slice_ref(key) })
}

/// How many ops `bytes` are.
///
/// # Errors
/// What is wrong with the first one that is none, and its number from 0.
pub(super) fn count(mut bytes: &[u8]) -> Result<usize, (usize, OpError)> {
    let mut found = 0;
    while !bytes.is_empty() {
        let (_, head, len) = measure(bytes).map_err(|error| (found, error))?;
        bytes = bytes.get(head + len..).unwrap_or_default();
        found += 1;
    }
    Ok(found)
}

/// Why [`OpsBuilder::push`] did not take an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PushError {
    /// The commit holds [`MAX_COMMIT_OPS`] ops, or has no room for this one: it belongs into the next commit.
    #[error("the commit is full")]
    Full,
    /// No commit can hold the op.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Gathers the ops of a commit, encoded, behind room for the commit's header and signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpsBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for OpsBuilder {
    fn default() -> Self {
        OpsBuilder::new()
    }
}

impl OpsBuilder {
    /// Without any op.
    pub fn new() -> OpsBuilder {
        OpsBuilder { bytes: vec![0; HEAD_LEN], count: 0 }
    }

    /// Adds an op behind the others.
    ///
    /// # Errors
    /// [`PushError`]; then nothing was added.
    pub fn push(&mut self, op: &Op) -> Result<(), PushError> {
        op.check()?;
        if self.count() == MAX_COMMIT_OPS || self.encoded_len() + op.encoded_len() > MAX_COMMIT {
            return Err(PushError::Full);
        }
        op.encode(&mut self.bytes);
        self.count += 1;
        Ok(())
    }

    /// How many ops there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// True while there is no op.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the ops take in the commit: at most [`MAX_COMMIT`].
    pub fn encoded_len(&self) -> usize {
        self.bytes.len() - HEAD_LEN
    }

    /// The ops, or `None` where there are none: a commit has at least one.
    pub fn finish(self) -> Option<Ops> {
        (!self.is_empty()).then_some(Ops { bytes: self.bytes, count: self.count })
    }
}

/// The encoded ops of a commit: 1 to [`MAX_COMMIT_OPS`] of them in at most [`MAX_COMMIT`] bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ops {
    /// [`HEAD_LEN`] bytes of room, then the ops.
    bytes: Vec<u8>,
    count: u32,
}

impl Ops {
    /// The ops, or `None` where the slice is empty.
    ///
    /// # Errors
    /// [`PushError`] of the first one that does not fit.
    pub fn new(ops: &[Op]) -> Result<Option<Ops>, PushError> {
        let mut builder = OpsBuilder::new();
        ops.iter().try_for_each(|op| builder.push(op))?;
        Ok(builder.finish())
    }

    /// How many ops there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The ops as they lie in the commit.
    pub fn encoded(&self) -> &[u8] {
        self.bytes.get(HEAD_LEN..).unwrap_or_default()
    }

    /// The ops with `head` in front.
    pub(super) fn into_commit(mut self, head: &[u8; HEAD_LEN]) -> Bytes {
        if let Some(room) = self.bytes.first_chunk_mut() {
            *room = *head;
        }
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize) -> Bytes {
        vec![7; len].into()
    }

    fn encoded(op: &Op) -> Vec<u8> {
        let mut out = Vec::new();
        op.encode(&mut out);
        out
    }

    fn decode(encoded: impl Into<Bytes>) -> Result<Op, OpError> {
        let mut rest = encoded.into();
        let whole = rest.len();
        let op = Op::decode(&mut rest);
        assert_eq!(rest.len(), if op.is_ok() { 0 } else { whole }, "all or nothing is taken");
        op
    }

    fn put(key: usize, value: usize) -> Op {
        Op::Put { stamp: Hlc(5), key: bytes(key), value: bytes(value) }
    }

    #[test]
    fn known_encodings() {
        let key = Bytes::from_static(b"k");
        assert_eq!(encoded(&Op::Plain(Bytes::from_static(b"ab"))), [0, 2, b'a', b'b']);
        let put = Op::Put { stamp: Hlc(0x0102), key: key.clone(), value: Bytes::from_static(b"v") };
        assert_eq!(encoded(&put), [1, 11, 2, 1, 0, 0, 0, 0, 0, 0, 1, b'k', b'v']);
        assert_eq!(encoded(&Op::Delete { stamp: Hlc(3), key }), [2, 9, 3, 0, 0, 0, 0, 0, 0, 0, b'k']);
        assert_eq!(encoded(&Op::Other { kind: 200, data: bytes(1) }), [200, 1, 7]);
    }

    #[test]
    fn what_is_at_a_limit_goes_through_and_what_is_over_it_does_not() {
        let over_op = LimitError::Op { len: MAX_OP + 1 };
        let over_key = LimitError::Key { len: MAX_KEY + 1 };
        let over_value = LimitError::Value { len: MAX_VALUE + 1 };
        for (op, expected) in [
            (Op::Plain(bytes(MAX_OP)), Ok(())),
            (Op::Plain(bytes(0)), Ok(())),
            (put(MAX_KEY, MAX_VALUE), Ok(())),
            (put(1, 0), Ok(())),
            (Op::Delete { stamp: Hlc(1), key: bytes(MAX_KEY) }, Ok(())),
            (Op::Plain(bytes(MAX_OP + 1)), Err(over_op)),
            (Op::Other { kind: 9, data: bytes(MAX_OP + 1) }, Err(over_op)),
            (put(0, 1), Err(LimitError::Key { len: 0 })),
            (put(MAX_KEY + 1, 1), Err(over_key)),
            (put(1, MAX_VALUE + 1), Err(over_value)),
            (Op::Delete { stamp: Hlc(1), key: bytes(0) }, Err(LimitError::Key { len: 0 })),
            (Op::Delete { stamp: Hlc(1), key: bytes(MAX_KEY + 1) }, Err(over_key)),
        ] {
            let mut builder = OpsBuilder::new();
            assert_eq!(builder.push(&op), expected.map_err(PushError::Limit));
            assert_eq!(builder.is_empty(), expected.is_err());
            if expected.is_ok() {
                assert_eq!(decode(encoded(&op)), Ok(op));
            }
        }
    }

    #[test]
    fn a_commit_is_full_at_its_limits() {
        let mut many = OpsBuilder::new();
        for _ in 0..MAX_COMMIT_OPS {
            assert_eq!(many.push(&Op::Plain(Bytes::new())), Ok(()));
        }
        assert_eq!(many.push(&Op::Plain(Bytes::new())), Err(PushError::Full));
        assert_eq!((many.count(), many.encoded_len()), (MAX_COMMIT_OPS, 2 * MAX_COMMIT_OPS));

        let mut large = OpsBuilder::new();
        for _ in 0..3 {
            assert_eq!(large.push(&Op::Plain(bytes(MAX_OP))), Ok(()));
        }
        assert_eq!(
            large.push(&Op::Plain(bytes(MAX_OP))),
            Err(PushError::Full),
            "four with their lengths are over 1 MiB"
        );
        let left = MAX_COMMIT - large.encoded_len();
        assert_eq!(large.push(&Op::Plain(bytes(left - 3))), Err(PushError::Full));
        assert_eq!(large.push(&Op::Plain(bytes(left - 4))), Ok(()));
        assert_eq!(large.encoded_len(), MAX_COMMIT);
        assert_eq!(large.push(&Op::Plain(Bytes::new())), Err(PushError::Full));
    }

    #[test]
    fn no_op_is_no_commit() {
        assert_eq!(OpsBuilder::new().finish(), None);
        assert_eq!(Ops::new(&[]), Ok(None));
    }

    #[test]
    fn a_put_or_delete_of_another_form_is_void() {
        let stamp = [1, 0, 0, 0, 0, 0, 0, 0];
        let long_key = varint::encode(MAX_KEY as u64 + 1);
        let void_puts: [Vec<u8>; 7] = [
            vec![],
            stamp[..7].to_vec(),
            stamp.to_vec(),
            [&stamp[..], &[0], b"value"].concat(),
            [&stamp[..], &[3], b"ke"].concat(),
            [&stamp[..], &[0x81, 0x00], b"kv"].concat(),
            [&stamp[..], &long_key, &vec![b'k'; MAX_KEY + 1]].concat(),
        ];
        let long_value = [&stamp[..], &[1], &vec![b'v'; MAX_VALUE + 2]].concat();
        let puts = void_puts.into_iter().chain([long_value]).map(|data| (kind::PUT, data));
        let void_deletes = [vec![], stamp[..7].to_vec(), stamp.to_vec(), [&stamp[..], &[b'k'; MAX_KEY + 1]].concat()];
        for (kind, data) in puts.chain(void_deletes.into_iter().map(|data| (kind::DELETE, data))) {
            let op = Op::Other { kind, data: data.into() };
            assert_eq!(decode(encoded(&op)), Ok(op));
        }
    }

    #[test]
    fn what_is_no_op_is_refused() {
        for (bytes, expected) in [
            (&[][..], OpError::Truncated),
            (&[0], OpError::Truncated),
            (&[0, 1], OpError::Truncated),
            (&[0, 0x80], OpError::Truncated),
            (&[0, 0x80, 0x00], OpError::Length),
            // 262,145 bytes, of which none is there: refused by the length alone.
            (&[0, 0x81, 0x80, 0x10], OpError::TooLong),
            (&[0, 0xff, 0xff, 0xff], OpError::TooLong),
        ] {
            assert_eq!(decode(bytes), Err(expected), "{bytes:x?}");
            assert_eq!(count(bytes), if bytes.is_empty() { Ok(0) } else { Err((0, expected)) });
        }
        assert_eq!(count(&[0, 0, 0, 1, 9, 0]), Err((2, OpError::Truncated)));
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let data = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let key = || prop::collection::vec(any::<u8>(), 1..200).prop_map(Bytes::from);
        prop_oneof![
            data().prop_map(Op::Plain),
            (any::<u64>(), key(), data()).prop_map(|(stamp, key, value)| Op::Put { stamp: Hlc(stamp), key, value }),
            (any::<u64>(), key()).prop_map(|(stamp, key)| Op::Delete { stamp: Hlc(stamp), key }),
            (3u8.., data()).prop_map(|(kind, data)| Op::Other { kind, data }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(op in any_op()) {
            let encoded = encoded(&op);
            prop_assert_eq!(encoded.len(), op.encoded_len());
            for cut in 0..encoded.len() {
                prop_assert_eq!(decode(encoded[..cut].to_vec()), Err(OpError::Truncated));
            }
            prop_assert_eq!(decode(encoded), Ok(op));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u8..4) {
            // Three of four kinds have a meaning, which random bytes would hardly ever meet.
            let bytes: Bytes = [&[kind][..], &bytes].concat().into();
            let mut rest = bytes.clone();
            if let Ok(op) = Op::decode(&mut rest) {
                prop_assert_eq!(op.check(), Ok(()));
                prop_assert_eq!(&encoded(&op)[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
