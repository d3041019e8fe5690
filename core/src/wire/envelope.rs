//! The envelope: the one container of everything that vine sends.
//!
//! ```text
//!  0      1       2    3     4          8              16
//!  +------+-------+----+-----+----------+--------------+----------------+---------+
//!  |magic |version|type|flags| session  | msg_id       | payload        | tag(16) |
//!  +------+-------+----+-----+----------+--------------+----------------+---------+
//!    u8     u8      u8   u8    u32        u64                             if SEALED
//! ```

use core::fmt;
use core::num::NonZeroU32;

/// Bytes of the header. It is the associated data of a sealed envelope, whole.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD tag behind a sealed payload (both ciphers, RFC 8439 and NIST SP 800-38D).
pub const TAG_LEN: usize = 16;
/// What sealing adds to a payload, in bytes.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Room that a buffer for a packet leaves in front of it: the header, and what a relay or a stream puts before that.
pub const HEADROOM: usize = 64;
/// Room that a buffer for a packet leaves behind it: the tag.
pub const TAILROOM: usize = TAG_LEN;
/// The largest sealed payload: an IP packet cannot be longer (RFC 791 section 3.1, total length).
pub const MAX_PACKET_LEN: usize = 65_535;
/// The largest envelope, on any transport.
pub const MAX_ENVELOPE_LEN: usize = MAX_PACKET_LEN + OVERHEAD;
/// The largest UDP payload over IPv4 (65,535 less 20 and 8 bytes of headers), hence the largest envelope on a datagram.
pub const MAX_DATAGRAM_LEN: usize = 65_507;

/// First byte of every envelope: `V`.
pub const MAGIC: u8 = 0x56;
/// Second byte: the version of this protocol.
pub const VERSION: u8 = 1;

/// What an envelope is, as far as a stranger must see it.
///
/// 7 (Announce) and 8 (Identify) are reserved and unknown to this version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EnvelopeType {
    /// First handshake message, from the initiator.
    Hello = 1,
    /// Second handshake message, from the responder.
    HelloAck = 2,
    /// Empty and sealed under the new keys: proves to the responder that the initiator has them.
    HelloFinish = 3,
    /// Instead of a HelloAck, from a responder under load.
    Cookie = 4,
    /// Everything else: payload sealed under the keys of a session.
    Sealed = 5,
    /// An envelope of one of the types before, on its way through a relay: it is the payload, whole.
    Relayed = 6,
}

impl EnvelopeType {
    /// The type with this code, or `None` where this version knows none.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(EnvelopeType::Hello),
            2 => Some(EnvelopeType::HelloAck),
            3 => Some(EnvelopeType::HelloFinish),
            4 => Some(EnvelopeType::Cookie),
            5 => Some(EnvelopeType::Sealed),
            6 => Some(EnvelopeType::Relayed),
            _ => None,
        }
    }

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// True where the payload is sealed under session keys and a tag follows it.
    pub const fn is_sealed(self) -> bool {
        matches!(self, EnvelopeType::HelloFinish | EnvelopeType::Sealed)
    }
}

/// The flag bits of a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The payload is encrypted and a tag follows. Set on HelloFinish and Sealed, on nothing else.
    pub const SEALED: Flags = Flags(0x01);
    /// The inner TCP or UDP checksum holds only the pseudo-header's sum; the receiver completes it. Only on a Sealed
    /// envelope that carries an IP packet, only to a peer with the capability.
    pub const CSUM_PARTIAL: Flags = Flags(0x02);

    /// The byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// True where every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The flags of an envelope of type `kind`, or `None` where that type cannot carry these bits.
    const fn of(kind: EnvelopeType, bits: u8) -> Option<Flags> {
        let must = if kind.is_sealed() { Flags::SEALED.0 } else { 0 };
        let may = if matches!(kind, EnvelopeType::Sealed) { Flags::CSUM_PARTIAL.0 } else { 0 };
        if bits & !may == must { Some(Flags(bits)) } else { None }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (flag, name) in [(Flags::SEALED, "SEALED"), (Flags::CSUM_PARTIAL, "CSUM_PARTIAL")] {
            if self.contains(flag) {
                list.entry(&format_args!("{name}"));
            }
        }
        list.finish()
    }
}

/// A send counter's number within a session: every path and every sending thread has its own, so that nobody shares a
/// counter and a slow path does not fall out of the replay window of a fast one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lane(pub u8);

impl Lane {
    /// The lane of control messages.
    pub const CONTROL: Lane = Lane(0);
}

/// The message id of a header. In a sealed envelope: a lane in the top 8 bits and its counter in the low 56, together
/// the AEAD nonce. In the others it holds an index, the token of a relay's channel, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MsgId(u64);

impl MsgId {
    /// The largest counter: 2^56 - 1.
    pub const MAX_COUNTER: u64 = (1 << 56) - 1;

    /// The id of packet `counter` on `lane`, or `None` above [`MsgId::MAX_COUNTER`].
    pub const fn new(lane: Lane, counter: u64) -> Option<Self> {
        if counter <= Self::MAX_COUNTER { Some(MsgId((lane.0 as u64) << 56 | counter)) } else { None }
    }

    /// The id whose 64 bits are `raw`.
    pub const fn from_raw(raw: u64) -> Self {
        MsgId(raw)
    }

    /// All 64 bits.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The lane: top 8 bits.
    pub const fn lane(self) -> Lane {
        Lane((self.0 >> 56) as u8)
    }

    /// The lane's counter: low 56 bits.
    pub const fn counter(self) -> u64 {
        self.0 & Self::MAX_COUNTER
    }

    /// The 96-bit AEAD nonce: four zero bytes, then the id in little endian (the Noise convention for ChaChaPoly).
    pub const fn nonce(self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        [0, 0, 0, 0, a, b, c, d, e, f, g, h]
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lane().0, self.counter())
    }
}

/// Why bytes do not begin with a header of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header, sealed and shorter than header and tag, or Relayed and shorter than two headers.
    #[error("too short for an envelope")]
    TooShort,
    /// A HelloFinish with a payload.
    #[error("a HelloFinish must be empty")]
    TooLong,
    /// The first byte is not [`MAGIC`].
    #[error("first byte {0:#04x} is not vine's")]
    Magic(u8),
    /// Another version of the protocol.
    #[error("unknown protocol version {0}")]
    Version(u8),
    /// A type that this version does not know.
    #[error("unknown envelope type {0}")]
    Type(u8),
    /// Flags that this type does not carry, lacks, or that this version does not know.
    #[error("flags {0:#04x} do not fit the envelope's type")]
    Flags(u8),
    /// A Hello with a receiver's index, which its sender cannot know; or a Relayed without a handle.
    #[error("a Hello that names a session, or a Relayed that names no channel")]
    Session,
    /// The `msg_id` of an envelope that is not sealed is out of range: an index has 32 bits, a Cookie has none.
    #[error("msg_id out of range")]
    MsgId,
}

/// An envelope's header. Made by a constructor or by [`Header::decode`], so it always obeys the rules of its type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    kind: EnvelopeType,
    flags: Flags,
    session: u32,
    msg_id: MsgId,
}

impl Header {
    /// The header of a Hello from an initiator who calls the session `sender_index`.
    pub const fn hello(sender_index: u32) -> Self {
        Self::plain(EnvelopeType::Hello, 0, sender_index)
    }

    /// The header of a HelloAck to the initiator who calls the session `receiver_index`, from a responder who calls it
    /// `sender_index`.
    pub const fn hello_ack(receiver_index: u32, sender_index: u32) -> Self {
        Self::plain(EnvelopeType::HelloAck, receiver_index, sender_index)
    }

    /// The header of a Cookie to the initiator who calls the session `receiver_index`.
    pub const fn cookie(receiver_index: u32) -> Self {
        Self::plain(EnvelopeType::Cookie, receiver_index, 0)
    }

    /// The header of a HelloFinish to the responder who calls the session `receiver_index`.
    pub const fn hello_finish(receiver_index: u32, msg_id: MsgId) -> Self {
        Header { kind: EnvelopeType::HelloFinish, flags: Flags::SEALED, session: receiver_index, msg_id }
    }

    /// The header of a Sealed envelope. `csum_partial`: see [`Flags::CSUM_PARTIAL`].
    pub const fn sealed(receiver_index: u32, msg_id: MsgId, csum_partial: bool) -> Self {
        let flags = if csum_partial { Flags::SEALED.union(Flags::CSUM_PARTIAL) } else { Flags::SEALED };
        Header { kind: EnvelopeType::Sealed, flags, session: receiver_index, msg_id }
    }

    /// The header of a Relayed envelope to who calls the channel `handle` and wants to see `token` in it.
    pub const fn relayed(handle: NonZeroU32, token: u64) -> Self {
        let (session, msg_id) = (handle.get(), MsgId(token));
        Header { kind: EnvelopeType::Relayed, flags: Flags::NONE, session, msg_id }
    }

    const fn plain(kind: EnvelopeType, session: u32, index: u32) -> Self {
        Header { kind, flags: Flags::NONE, session, msg_id: MsgId(index as u64) }
    }

    /// The type of the envelope.
    pub const fn kind(&self) -> EnvelopeType {
        self.kind
    }

    /// The flags.
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// The receiver's index of the session; 0 in a Hello; the receiver's handle of the channel in a Relayed.
    pub const fn session(&self) -> u32 {
        self.session
    }

    /// The message id: lane and counter where sealed.
    pub const fn msg_id(&self) -> MsgId {
        self.msg_id
    }

    /// The sender's index of the session, which a Hello and a HelloAck tell.
    pub const fn sender_index(&self) -> Option<u32> {
        match self.kind {
            // Both constructors and the decoder hold it to 32 bits.
            EnvelopeType::Hello | EnvelopeType::HelloAck => Some(self.msg_id.0 as u32),
            EnvelopeType::HelloFinish | EnvelopeType::Cookie | EnvelopeType::Sealed | EnvelopeType::Relayed => None,
        }
    }

    /// The token of the channel, which a Relayed shows.
    pub const fn token(&self) -> Option<u64> {
        match self.kind {
            EnvelopeType::Relayed => Some(self.msg_id.0),
            _ => None,
        }
    }

    /// The 16 bytes of the header.
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [s0, s1, s2, s3] = self.session.to_le_bytes();
        let [m0, m1, m2, m3, m4, m5, m6, m7] = self.msg_id.0.to_le_bytes();
        [MAGIC, VERSION, self.kind.code(), self.flags.0, s0, s1, s2, s3, m0, m1, m2, m3, m4, m5, m6, m7]
    }

    /// Reads the header of `envelope`, which is the whole envelope: a sealed one that has no room for its tag is
    /// refused here, as is a HelloFinish that has room for more, and a Relayed that has none for another header.
    pub fn decode(envelope: &[u8]) -> Result<Self, HeaderError> {
        let (head, behind) = envelope.split_first_chunk::<HEADER_LEN>().ok_or(HeaderError::TooShort)?;
        let [magic, version, code, bits, s0, s1, s2, s3, id @ ..] = *head;
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let kind = EnvelopeType::from_code(code).ok_or(HeaderError::Type(code))?;
        let flags = Flags::of(kind, bits).ok_or(HeaderError::Flags(bits))?;
        let session = u32::from_le_bytes([s0, s1, s2, s3]);
        let msg_id = MsgId(u64::from_le_bytes(id));
        let max_id = match kind {
            EnvelopeType::Hello | EnvelopeType::HelloAck => u64::from(u32::MAX),
            EnvelopeType::Cookie => 0,
            EnvelopeType::HelloFinish | EnvelopeType::Sealed | EnvelopeType::Relayed => u64::MAX,
        };
        let names_wrongly = match kind {
            EnvelopeType::Hello => session != 0,
            EnvelopeType::Relayed => session == 0,
            _ => false,
        };
        if names_wrongly {
            return Err(HeaderError::Session);
        }
        if msg_id.0 > max_id {
            return Err(HeaderError::MsgId);
        }
        let least = match kind {
            EnvelopeType::HelloFinish | EnvelopeType::Sealed => TAG_LEN,
            EnvelopeType::Relayed => HEADER_LEN,
            EnvelopeType::Hello | EnvelopeType::HelloAck | EnvelopeType::Cookie => 0,
        };
        if behind.len() < least {
            return Err(HeaderError::TooShort);
        }
        if kind == EnvelopeType::HelloFinish && behind.len() > TAG_LEN {
            return Err(HeaderError::TooLong);
        }
        Ok(Header { kind, flags, session, msg_id })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A minimal envelope around `header`.
    fn envelope(header: &Header) -> Vec<u8> {
        let mut bytes = header.encode().to_vec();
        match header.kind() {
            EnvelopeType::HelloFinish | EnvelopeType::Sealed => bytes.extend([0; TAG_LEN]),
            EnvelopeType::Relayed => bytes.extend([0; HEADER_LEN]),
            EnvelopeType::Hello | EnvelopeType::HelloAck | EnvelopeType::Cookie => {}
        }
        bytes
    }

    #[test]
    fn fields_lie_where_the_specification_says() {
        let id = MsgId::new(Lane(0x0a), 0x00_0102_0304_0506).unwrap();
        assert_eq!(
            Header::sealed(0x1122_3344, id, true).encode(),
            [0x56, 1, 5, 3, 0x44, 0x33, 0x22, 0x11, 6, 5, 4, 3, 2, 1, 0, 0x0a]
        );
        assert_eq!(id.nonce(), [0, 0, 0, 0, 6, 5, 4, 3, 2, 1, 0, 0x0a]);
    }

    #[test]
    fn each_rule_has_its_error() {
        let sealed = envelope(&Header::sealed(7, MsgId::from_raw(9), false));
        let with = |at: usize, byte: u8| {
            let mut bytes = sealed.clone();
            bytes[at] = byte;
            Header::decode(&bytes)
        };
        assert_eq!(with(0, 0x55), Err(HeaderError::Magic(0x55)));
        assert_eq!(with(1, 2), Err(HeaderError::Version(2)));
        for code in [0, 7, 8, 9, 255] {
            assert_eq!(with(2, code), Err(HeaderError::Type(code)));
        }
        for bits in [0, 2, 5, 0x81] {
            assert_eq!(with(3, bits), Err(HeaderError::Flags(bits)));
        }
        assert_eq!(Header::decode(&sealed[..15]), Err(HeaderError::TooShort));
        assert_eq!(Header::decode(&sealed[..31]), Err(HeaderError::TooShort));
        assert_eq!(Header::decode(&[]), Err(HeaderError::TooShort));

        let mut finish = envelope(&Header::hello_finish(7, MsgId::from_raw(9)));
        assert!(Header::decode(&finish).is_ok());
        finish[3] = 3;
        assert_eq!(Header::decode(&finish), Err(HeaderError::Flags(3)));
        finish[3] = 1;
        finish.push(0);
        assert_eq!(Header::decode(&finish), Err(HeaderError::TooLong));

        let mut hello = envelope(&Header::hello(7));
        hello[3] = 1;
        assert_eq!(Header::decode(&hello), Err(HeaderError::Flags(1)));
        hello[3] = 0;
        hello[4] = 1;
        assert_eq!(Header::decode(&hello), Err(HeaderError::Session));
        hello[4] = 0;
        hello[12] = 1;
        assert_eq!(Header::decode(&hello), Err(HeaderError::MsgId));

        let mut cookie = envelope(&Header::cookie(7));
        cookie[8] = 1;
        assert_eq!(Header::decode(&cookie), Err(HeaderError::MsgId));
    }

    #[test]
    fn a_relayed_names_a_channel_and_holds_a_header() {
        let header = Header::relayed(NonZeroU32::new(0x1122_3344).unwrap(), u64::MAX);
        let relayed = envelope(&header);
        assert_eq!(Header::decode(&relayed), Ok(header));
        assert_eq!((header.session(), header.token(), header.sender_index()), (0x1122_3344, Some(u64::MAX), None));
        assert_eq!(Header::hello(7).token(), None);
        assert_eq!(Header::decode(&relayed[..31]), Err(HeaderError::TooShort));
        for bits in [1, 2, 3, 4] {
            let mut bytes = relayed.clone();
            bytes[3] = bits;
            assert_eq!(Header::decode(&bytes), Err(HeaderError::Flags(bits)));
        }
        let mut bytes = relayed;
        bytes[4..8].fill(0);
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Session));
    }

    #[test]
    fn a_counter_above_56_bits_has_no_id() {
        assert_eq!(MsgId::new(Lane(1), MsgId::MAX_COUNTER + 1), None);
        let last = MsgId::new(Lane(0xff), MsgId::MAX_COUNTER).unwrap();
        assert_eq!(last.raw(), u64::MAX);
        assert_eq!(std::format!("{last:?}"), "255:72057594037927935");
        assert_eq!(std::format!("{:?}", Flags::SEALED.union(Flags::CSUM_PARTIAL)), "[SEALED, CSUM_PARTIAL]");
    }

    fn any_header() -> impl Strategy<Value = Header> {
        let id = any::<u64>().prop_map(MsgId::from_raw);
        prop_oneof![
            any::<u32>().prop_map(Header::hello),
            any::<(u32, u32)>().prop_map(|(to, from)| Header::hello_ack(to, from)),
            any::<u32>().prop_map(Header::cookie),
            (any::<u32>(), id.clone()).prop_map(|(to, id)| Header::hello_finish(to, id)),
            (any::<u32>(), id, any::<bool>()).prop_map(|(to, id, partial)| Header::sealed(to, id, partial)),
            any::<(NonZeroU32, u64)>().prop_map(|(handle, token)| Header::relayed(handle, token)),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(header in any_header()) {
            prop_assert_eq!(Header::decode(&envelope(&header)), Ok(header));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(mut bytes: [u8; 32], kind in 0u8..8, flags in 0u8..4, hello: bool) {
            bytes[..4].copy_from_slice(&[MAGIC, VERSION, kind, flags]);
            if hello {
                bytes[4..8].fill(0);
                bytes[12..16].fill(0);
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_LEN]);
            }
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = Header::decode(&bytes);
        }

        #[test]
        fn lane_and_counter_are_taken_apart_again(lane: u8, counter in 0..=MsgId::MAX_COUNTER) {
            let id = MsgId::new(Lane(lane), counter).unwrap();
            prop_assert_eq!((id.lane(), id.counter()), (Lane(lane), counter));
            prop_assert_eq!(MsgId::from_raw(id.raw()), id);
        }
    }
}
