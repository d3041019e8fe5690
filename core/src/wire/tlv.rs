//! What the two Noise messages carry, encrypted: fields of `type u8 | length u8 | value`, in any order.
//!
//! A field of unknown type is skipped, so that a field can be added. A known field twice or of a wrong length makes the
//! whole payload malformed, as does a required one that is missing. A known field that the message does not need is
//! held to the same rules and then ignored.

use super::cursor::{BufferFull, ReadError, Reader, Writer};
use super::envelope::Header;

/// The types of handshake fields.
mod field {
    pub(super) const BOOT_ID: u8 = 1;
    pub(super) const PEER_ID: u8 = 2;
    pub(super) const STAMP: u8 = 3;
    pub(super) const CIPHERS: u8 = 4;
    pub(super) const CAPABILITIES: u8 = 5;
    pub(super) const COOKIE: u8 = 6;
    pub(super) const INDEX: u8 = 7;
}

/// The most ciphers that a Hello may name.
pub const MAX_CIPHERS: usize = 16;

/// Cipher ids in order of preference: at least one, at most [`MAX_CIPHERS`]. 1 is ChaCha20-Poly1305, 2 is AES-256-GCM;
/// ids that the receiver does not know are in the list too, and are for it to pass over.
pub type Ciphers = heapless::Vec<u8, MAX_CIPHERS>;

/// What a node understands beyond the base of the protocol: a set of bits, of which unknown ones mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// No capability; the meaning of an absent field.
    pub const NONE: Capabilities = Capabilities(0);
    /// The node accepts packets whose inner checksum is open ([`Flags::CSUM_PARTIAL`](super::Flags::CSUM_PARTIAL)).
    pub const CSUM_PARTIAL: Capabilities = Capabilities(1);

    /// True where every bit of `other` is set.
    pub const fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both sides have.
    pub const fn intersection(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }
}

/// Why a handshake payload is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlvError {
    /// The payload ends within a field.
    #[error("the payload ends within a field")]
    Truncated,
    /// The field of this type has a length that it cannot have.
    #[error("field {0} has a wrong length")]
    Length(u8),
    /// The field of this type occurs twice.
    #[error("field {0} occurs twice")]
    Duplicate(u8),
    /// The field of this type is missing.
    #[error("field {0} is missing")]
    Missing(u8),
    /// A HelloAck must name exactly the chosen cipher.
    #[error("a HelloAck must choose one cipher")]
    Choice,
    /// The responder's index in the payload is not the one in the header.
    #[error("the index differs from the header's")]
    Index,
}

impl From<ReadError> for TlvError {
    fn from(_: ReadError) -> Self {
        TlvError::Truncated
    }
}

/// The payload of a Hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloPayload {
    /// Drawn when the sender started: tells a rekey from a restart.
    pub boot_id: [u8; 16],
    /// The sender's PeerId (Ed25519 form). It must map to the static key that the handshake proves.
    pub peer_id: [u8; 32],
    /// Grows with every Hello of the sender: its wall clock in milliseconds since 1970, or one more than the last stamp
    /// where that is greater.
    pub stamp: u64,
    /// The ciphers that the sender accepts, best first.
    pub ciphers: Ciphers,
    /// What the sender understands.
    pub capabilities: Capabilities,
    /// The cookie that the responder asked to see inside the encryption.
    pub cookie: Option<[u8; 16]>,
}

impl HelloPayload {
    /// The longest encoding, in bytes.
    pub const MAX_LEN: usize = (2 + 16) + (2 + 32) + (2 + 8) + (2 + MAX_CIPHERS) + (2 + 4) + (2 + 16);

    /// Writes the payload.
    pub fn encode(&self, out: &mut Writer<'_>) -> Result<(), BufferFull> {
        put(out, field::BOOT_ID, &self.boot_id)?;
        put(out, field::PEER_ID, &self.peer_id)?;
        put(out, field::STAMP, &self.stamp.to_le_bytes())?;
        put(out, field::CIPHERS, &self.ciphers)?;
        put(out, field::CAPABILITIES, &self.capabilities.0.to_le_bytes())?;
        if let Some(cookie) = &self.cookie {
            put(out, field::COOKIE, cookie)?;
        }
        Ok(())
    }

    /// Reads the payload of a Hello.
    pub fn decode(payload: &[u8]) -> Result<Self, TlvError> {
        let fields = Fields::decode(payload)?;
        let capabilities = fields.capabilities();
        Ok(HelloPayload {
            boot_id: fields.boot_id.ok_or(TlvError::Missing(field::BOOT_ID))?,
            peer_id: fields.peer_id.ok_or(TlvError::Missing(field::PEER_ID))?,
            stamp: fields.stamp.map(u64::from_le_bytes).ok_or(TlvError::Missing(field::STAMP))?,
            ciphers: fields.ciphers.ok_or(TlvError::Missing(field::CIPHERS))?,
            capabilities,
            cookie: fields.cookie,
        })
    }
}

/// The payload of a HelloAck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelloAckPayload {
    /// Drawn when the sender started: tells a rekey from a restart.
    pub boot_id: [u8; 16],
    /// The cipher that the responder chose among the initiator's.
    pub cipher: u8,
    /// What the sender understands.
    pub capabilities: Capabilities,
    /// The responder's index of the session, authenticated here because nothing else covers the header of a HelloAck.
    pub index: u32,
}

impl HelloAckPayload {
    /// The longest encoding, in bytes.
    pub const MAX_LEN: usize = (2 + 16) + (2 + 1) + (2 + 4) + (2 + 4);

    /// Writes the payload.
    pub fn encode(&self, out: &mut Writer<'_>) -> Result<(), BufferFull> {
        put(out, field::BOOT_ID, &self.boot_id)?;
        put(out, field::CIPHERS, &[self.cipher])?;
        put(out, field::CAPABILITIES, &self.capabilities.0.to_le_bytes())?;
        put(out, field::INDEX, &self.index.to_le_bytes())
    }

    /// Reads the payload of the HelloAck with this header: the responder's index must be the same in both.
    pub fn decode(payload: &[u8], header: &Header) -> Result<Self, TlvError> {
        let fields = Fields::decode(payload)?;
        let ciphers = fields.ciphers.as_deref().ok_or(TlvError::Missing(field::CIPHERS))?;
        let &[cipher] = ciphers else { return Err(TlvError::Choice) };
        let index = fields.index.map(u32::from_le_bytes).ok_or(TlvError::Missing(field::INDEX))?;
        if header.sender_index() != Some(index) {
            return Err(TlvError::Index);
        }
        Ok(HelloAckPayload {
            boot_id: fields.boot_id.ok_or(TlvError::Missing(field::BOOT_ID))?,
            cipher,
            capabilities: fields.capabilities(),
            index,
        })
    }
}

/// The fields that this version knows, as far as a payload has them.
#[derive(Default)]
struct Fields {
    boot_id: Option<[u8; 16]>,
    peer_id: Option<[u8; 32]>,
    stamp: Option<[u8; 8]>,
    ciphers: Option<Ciphers>,
    capabilities: Option<[u8; 4]>,
    cookie: Option<[u8; 16]>,
    index: Option<[u8; 4]>,
}

impl Fields {
    fn decode(payload: &[u8]) -> Result<Self, TlvError> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let len = reader.u8()?;
            let value = reader.bytes(usize::from(len))?;
            match kind {
                field::BOOT_ID => set(&mut fields.boot_id, kind, value.try_into().ok())?,
                field::PEER_ID => set(&mut fields.peer_id, kind, value.try_into().ok())?,
                field::STAMP => set(&mut fields.stamp, kind, value.try_into().ok())?,
                field::CIPHERS => set(&mut fields.ciphers, kind, ciphers(value))?,
                field::CAPABILITIES => set(&mut fields.capabilities, kind, value.try_into().ok())?,
                field::COOKIE => set(&mut fields.cookie, kind, value.try_into().ok())?,
                field::INDEX => set(&mut fields.index, kind, value.try_into().ok())?,
                _ => {}
            }
        }
        Ok(fields)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.map_or(Capabilities::NONE, |bits| Capabilities(u32::from_le_bytes(bits)))
    }
}

/// A cipher list of a length that it may have.
fn ciphers(value: &[u8]) -> Option<Ciphers> {
    Ciphers::from_slice(value).ok().filter(|list| !list.is_empty())
}

/// Fills the slot of a field; `value` is `None` where its length was wrong.
fn set<T>(slot: &mut Option<T>, kind: u8, value: Option<T>) -> Result<(), TlvError> {
    let value = value.ok_or(TlvError::Length(kind))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TlvError::Duplicate(kind)),
    }
}

/// Writes one field.
fn put(out: &mut Writer<'_>, kind: u8, value: &[u8]) -> Result<(), BufferFull> {
    let len = u8::try_from(value.len()).map_err(|_| BufferFull)?;
    out.bytes(&[kind, len])?;
    out.bytes(value)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn sample() -> HelloPayload {
        HelloPayload {
            boot_id: [1; 16],
            peer_id: [2; 32],
            stamp: 3,
            ciphers: Ciphers::from_slice(&[2, 1]).unwrap(),
            capabilities: Capabilities::CSUM_PARTIAL,
            cookie: None,
        }
    }

    fn encoded(payload: &HelloPayload) -> Vec<u8> {
        let mut buf = [0; HelloPayload::MAX_LEN];
        let mut out = Writer::new(&mut buf);
        payload.encode(&mut out).unwrap();
        out.written().to_vec()
    }

    fn encoded_ack(payload: &HelloAckPayload) -> Vec<u8> {
        let mut buf = [0; HelloAckPayload::MAX_LEN];
        let mut out = Writer::new(&mut buf);
        payload.encode(&mut out).unwrap();
        out.written().to_vec()
    }

    #[test]
    fn unknown_fields_are_skipped_and_absent_capabilities_are_none() {
        let mut bytes = std::vec![200, 3, 9, 9, 9];
        bytes.extend(encoded(&sample()));
        bytes.extend([99, 0, 99, 1, 7]);
        assert_eq!(HelloPayload::decode(&bytes), Ok(sample()));

        let plain = encoded(&sample());
        let without: Vec<u8> = [&plain[..64], &plain[70..]].concat();
        assert_eq!(HelloPayload::decode(&without).map(|p| p.capabilities), Ok(Capabilities::NONE));
        assert!(!Capabilities::NONE.contains(Capabilities::CSUM_PARTIAL));
        assert_eq!(Capabilities(7).intersection(Capabilities(9)), Capabilities::CSUM_PARTIAL);
    }

    #[test]
    fn known_fields_twice_or_of_wrong_length_are_malformed() {
        for kind in 1..=7u8 {
            let mut bytes = encoded(&HelloPayload { cookie: Some([4; 16]), ..sample() });
            if kind == field::INDEX {
                bytes.extend([7, 4, 0, 0, 0, 0]);
            }
            let len = match kind {
                1 | 6 => 16,
                2 => 32,
                3 => 8,
                4 => 2,
                _ => 4,
            };
            let mut twice = bytes.clone();
            twice.extend([kind, len]);
            twice.resize(twice.len() + usize::from(len), 1);
            assert_eq!(HelloPayload::decode(&twice), Err(TlvError::Duplicate(kind)));
            for wrong in [0, 255] {
                let mut bytes = bytes.clone();
                bytes.extend([kind, wrong]);
                bytes.resize(bytes.len() + usize::from(wrong), 1);
                assert_eq!(HelloPayload::decode(&bytes), Err(TlvError::Length(kind)));
            }
        }
    }

    #[test]
    fn required_fields_must_be_there() {
        let bytes = encoded(&sample());
        // Each required field with its place in the encoding.
        for (kind, at, len) in [(1u8, 0, 18), (2, 18, 34), (3, 52, 10), (4, 62, 4)] {
            let without = [&bytes[..at], &bytes[at + len..]].concat();
            assert_eq!(HelloPayload::decode(&without), Err(TlvError::Missing(kind)));
        }
        assert_eq!(HelloPayload::decode(&bytes[..bytes.len() - 1]), Err(TlvError::Truncated));
        assert_eq!(HelloPayload::decode(&[1]), Err(TlvError::Truncated));
    }

    #[test]
    fn a_hello_ack_chooses_one_cipher_and_repeats_its_index() {
        let header = Header::hello_ack(1, 2);
        let payload = HelloAckPayload { boot_id: [1; 16], cipher: 2, capabilities: Capabilities(0), index: 2 };
        let bytes = encoded_ack(&payload);
        assert_eq!(HelloAckPayload::decode(&bytes, &header), Ok(payload));
        assert_eq!(HelloAckPayload::decode(&bytes, &Header::hello_ack(1, 3)), Err(TlvError::Index));
        assert_eq!(HelloAckPayload::decode(&bytes, &Header::cookie(1)), Err(TlvError::Index));
        let two = [&bytes[..18], &[4, 2, 1, 2], &bytes[21..]].concat();
        assert_eq!(HelloAckPayload::decode(&two, &header), Err(TlvError::Choice));
        for (kind, at, len) in [(1u8, 0, 18), (4, 18, 3), (7, 27, 6)] {
            let without = [&bytes[..at], &bytes[at + len..]].concat();
            assert_eq!(HelloAckPayload::decode(&without, &header), Err(TlvError::Missing(kind)));
        }
    }

    #[test]
    fn a_small_buffer_is_an_error() {
        let mut buf = [0; 60];
        assert_eq!(sample().encode(&mut Writer::new(&mut buf)), Err(BufferFull));
    }

    proptest! {
        #[test]
        fn hello_round_trip(
            boot_id: [u8; 16],
            peer_id: [u8; 32],
            stamp: u64,
            list in prop::collection::vec(any::<u8>(), 1..=MAX_CIPHERS),
            bits: u32,
            cookie: Option<[u8; 16]>,
        ) {
            let ciphers = Ciphers::from_slice(&list).unwrap();
            let capabilities = Capabilities(bits);
            let payload = HelloPayload { boot_id, peer_id, stamp, ciphers, capabilities, cookie };
            prop_assert_eq!(HelloPayload::decode(&encoded(&payload)), Ok(payload));
        }

        #[test]
        fn hello_ack_round_trip(boot_id: [u8; 16], cipher: u8, bits: u32, index: u32) {
            let payload = HelloAckPayload { boot_id, cipher, capabilities: Capabilities(bits), index };
            let header = Header::hello_ack(9, index);
            prop_assert_eq!(HelloAckPayload::decode(&encoded_ack(&payload), &header), Ok(payload));
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            fields in prop::collection::vec((0u8..10, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
            cut in 0usize..20,
            raw: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            for (kind, value) in &fields {
                bytes.extend([*kind, value.len() as u8]);
                bytes.extend(value);
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            for bytes in [bytes, raw] {
                let _ = HelloPayload::decode(&bytes);
                let _ = HelloAckPayload::decode(&bytes, &Header::hello_ack(1, 2));
            }
        }
    }
}
