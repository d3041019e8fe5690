//! What a Sealed envelope holds once it is open: nothing, one IP packet, or typed messages.
//!
//! A message is `type u8 | length varint | body`. Types are below 0x40, so that a first nibble of 4 or 6 means an IP
//! packet (the version field of RFC 791 and RFC 8200). A type that this version does not know is skipped by its length,
//! and a body may be longer than what this version reads: that is how types and fields are added.

use core::fmt;
use core::net::SocketAddr;

use super::cursor::{BufferFull, ReadError, Reader, Writer};
use super::envelope::{Lane, MsgId};
use super::varint;

/// Codes of the message types.
mod code {
    pub(super) const PADDING: u8 = 0;
    pub(super) const PING: u8 = 1;
    pub(super) const PONG: u8 = 2;
    pub(super) const RECEIPT: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    /// Types end below: from here on a first byte could be an IP packet's.
    pub(super) const LIMIT: u8 = 0x40;
}

/// The version of an IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What an opened payload is, told by its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// Nothing: a keepalive, or the confirmation of a session.
    Empty,
    /// One IP packet of this version, as far as its first nibble tells. The overlay checks the rest.
    Ip(IpVersion),
    /// Messages, for [`Messages`] to read.
    Messages,
}

impl Payload {
    /// Tells what `payload` is.
    pub const fn classify(payload: &[u8]) -> Payload {
        match payload.first() {
            None => Payload::Empty,
            Some(0x40..=0x4f) => Payload::Ip(IpVersion::V4),
            Some(0x60..=0x6f) => Payload::Ip(IpVersion::V6),
            Some(_) => Payload::Messages,
        }
    }
}

/// A control message of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// "Do you hear me on this path?"
    Ping {
        /// Drawn by the sender; comes back in the Pong.
        token: u64,
        /// The sender's number of the path that it sends this on; comes back in the Pong.
        path: u8,
    },
    /// "I heard your Ping, on the path that you called so." May come by any path.
    Pong {
        /// Of the Ping.
        token: u64,
        /// Of the Ping.
        path: u8,
        /// Microseconds between the arrival of the Ping and the sending of this; to be taken off the round trip.
        delay_us: u64,
        /// The address that the Ping came from, as its receiver saw it.
        observed: SocketAddr,
    },
    /// "This much of what you sent on this lane has reached me."
    Receipt {
        /// The lane of the other side's packets.
        lane: Lane,
        /// The largest counter that was authenticated on the lane; at most [`MsgId::MAX_COUNTER`].
        largest: u64,
        /// How many packets were authenticated on the lane so far.
        received: u64,
    },
    /// "I am leaving: forget the session."
    Close {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a peer closes. A reason that this version does not know closes the session as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseReason(pub u8);

impl CloseReason {
    /// The node shuts down.
    pub const SHUTDOWN: CloseReason = CloseReason(1);
    /// The receiver is no longer among the sender's peers.
    pub const REMOVED: CloseReason = CloseReason(2);
}

impl fmt::Debug for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CloseReason::SHUTDOWN => f.write_str("shutdown"),
            CloseReason::REMOVED => f.write_str("removed"),
            CloseReason(code) => write!(f, "reason {code}"),
        }
    }
}

impl Message {
    /// The longest body, in bytes: a Pong with the largest delay and an IPv6 address.
    const MAX_BODY_LEN: usize = 8 + 1 + varint::MAX_LEN + (1 + 16 + 2);
    /// The longest message, in bytes.
    pub const MAX_LEN: usize = 2 + Self::MAX_BODY_LEN;

    /// Reads the body of a message of type `code`; `None` where this version does not know the type.
    fn decode(code: u8, body: &[u8]) -> Result<Option<Message>, ReadError> {
        let mut body = Reader::new(body);
        Ok(Some(match code {
            code::PING => Message::Ping { token: body.u64()?, path: body.u8()? },
            code::PONG => Message::Pong {
                token: body.u64()?,
                path: body.u8()?,
                delay_us: body.varint()?,
                observed: body.address()?,
            },
            code::RECEIPT => Message::Receipt {
                lane: Lane(body.u8()?),
                largest: body.varint_up_to(MsgId::MAX_COUNTER)?,
                received: body.varint()?,
            },
            code::CLOSE => Message::Close { reason: CloseReason(body.u8()?) },
            _ => return Ok(None),
        }))
    }

    /// Writes the body and returns the type.
    fn encode(&self, body: &mut Writer<'_>) -> Result<u8, BufferFull> {
        match *self {
            Message::Ping { token, path } => {
                body.u64(token)?;
                body.u8(path)?;
                Ok(code::PING)
            }
            Message::Pong { token, path, delay_us, observed } => {
                body.u64(token)?;
                body.u8(path)?;
                body.varint(delay_us)?;
                body.address(observed)?;
                Ok(code::PONG)
            }
            Message::Receipt { lane, largest, received } => {
                body.u8(lane.0)?;
                body.varint(largest)?;
                body.varint(received)?;
                Ok(code::RECEIPT)
            }
            Message::Close { reason } => {
                body.u8(reason.0)?;
                Ok(code::CLOSE)
            }
        }
    }
}

/// Why a payload's messages cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// A type of 0x40 or above.
    #[error("{0:#04x} is not a message type")]
    Type(u8),
    /// A length that is not a varint, or that exceeds the payload.
    #[error("a message's length: {0}")]
    Length(ReadError),
    /// A body that is too short for its type, or has a field out of range.
    #[error("the body of a message of type {code}: {error}")]
    Body {
        /// The type.
        code: u8,
        /// What is wrong.
        error: ReadError,
    },
}

/// The messages of a payload. Padding and types that this version does not know are passed over; an error is the last
/// item.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    payload: Reader<'a>,
}

impl<'a> Messages<'a> {
    /// The messages of an opened payload.
    pub const fn new(payload: &'a [u8]) -> Self {
        Messages { payload: Reader::new(payload) }
    }

    fn try_next(&mut self) -> Result<Option<Message>, MessageError> {
        while let Ok(code) = self.payload.u8() {
            if code >= code::LIMIT {
                return Err(MessageError::Type(code));
            }
            let body = self.payload.length_prefixed().map_err(MessageError::Length)?;
            let message = Message::decode(code, body).map_err(|error| MessageError::Body { code, error })?;
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.try_next().transpose();
        if matches!(item, Some(Err(_))) {
            self.payload = Reader::new(&[]);
        }
        item
    }
}

impl core::iter::FusedIterator for Messages<'_> {}

/// Writes messages into a payload of bounded size.
#[derive(Debug)]
pub struct MessageWriter<'a> {
    out: Writer<'a>,
}

impl<'a> MessageWriter<'a> {
    /// A writer at the start of `payload`, which is as long as the payload may become.
    pub const fn new(payload: &'a mut [u8]) -> Self {
        MessageWriter { out: Writer::new(payload) }
    }

    /// Bytes written so far: the length of the payload.
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// True while nothing is written.
    pub const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Appends `message`, whole or not at all.
    pub fn push(&mut self, message: &Message) -> Result<(), BufferFull> {
        let mut scratch = [0; Message::MAX_BODY_LEN];
        let mut body = Writer::new(&mut scratch);
        let code = message.encode(&mut body)?;
        self.frame(code, body.len())?.copy_from_slice(body.written());
        Ok(())
    }

    /// Appends padding until the payload has exactly `len` bytes.
    ///
    /// The least padding is two bytes, so one missing byte is [`BufferFull`], as is a `len` beyond the buffer. Nothing
    /// is done where the payload is that long or longer.
    pub fn pad_to(&mut self, len: usize) -> Result<(), BufferFull> {
        let missing = len.saturating_sub(self.len());
        if missing == 0 {
            return Ok(());
        }
        if missing == 1 || missing > self.out.remaining() {
            return Err(BufferFull);
        }
        // The body's length must have a varint of just the size that completes the sum. A total of 130 has none: 127
        // bytes of body make 129, 128 make 131. Two bytes of padding first lead past such a total.
        let body_of = |total: usize| {
            (1..=varint::MAX_LEN).find_map(|prefix| {
                let body = total.checked_sub(1 + prefix)?;
                (varint::len(body as u64) == prefix).then_some(body)
            })
        };
        let body = match body_of(missing) {
            Some(body) => body,
            None => {
                self.frame(code::PADDING, 0)?;
                body_of(missing - 2).ok_or(BufferFull)?
            }
        };
        self.frame(code::PADDING, body)?.fill(0);
        Ok(())
    }

    /// Writes type and length of a message and returns the room of its body.
    fn frame(&mut self, code: u8, body_len: usize) -> Result<&mut [u8], BufferFull> {
        let len = varint::encode(body_len as u64);
        if self.out.remaining() < 1 + len.len() + body_len {
            return Err(BufferFull);
        }
        self.out.u8(code)?;
        self.out.bytes(&len)?;
        self.out.claim(body_len)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const PING: Message = Message::Ping { token: 7, path: 3 };

    fn read(payload: &[u8]) -> Vec<Result<Message, MessageError>> {
        Messages::new(payload).collect()
    }

    #[test]
    fn the_first_byte_tells_what_a_payload_is() {
        assert_eq!(Payload::classify(&[]), Payload::Empty);
        for first in 0..=255u8 {
            let expected = match first >> 4 {
                4 => Payload::Ip(IpVersion::V4),
                6 => Payload::Ip(IpVersion::V6),
                _ => Payload::Messages,
            };
            assert_eq!(Payload::classify(&[first, 0]), expected);
        }
    }

    #[test]
    fn unknown_types_padding_and_longer_bodies_are_passed_over() {
        let mut payload = vec![0x3f, 3, 1, 2, 3, 0, 2, 0xff, 0xff];
        // A Ping with two bytes more than this version knows.
        payload.extend([1, 11, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0xaa, 0xbb]);
        payload.extend([5, 0]);
        assert_eq!(read(&payload), [Ok(PING)]);
    }

    #[test]
    fn an_error_is_the_last_item() {
        let good = [1, 9, 7, 0, 0, 0, 0, 0, 0, 0, 3];
        let end = ReadError::Truncated;
        for (bad, error) in [
            (&[0x40, 0][..], MessageError::Type(0x40)),
            (&[0xff, 0], MessageError::Type(0xff)),
            (&[5], MessageError::Length(end)),
            (&[5, 1], MessageError::Length(end)),
            (&[5, 0x80, 0x00], MessageError::Length(ReadError::Overlong)),
            (&[5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], MessageError::Length(end)),
            (&[1, 8, 7, 0, 0, 0, 0, 0, 0, 0], MessageError::Body { code: 1, error: end }),
            (&[4, 0], MessageError::Body { code: 4, error: end }),
            (&[3, 4, 0, 0x80, 0x00, 0], MessageError::Body { code: 3, error: ReadError::Overlong }),
            (
                &[3, 11, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0],
                MessageError::Body { code: 3, error: ReadError::TooLarge },
            ),
            (
                &[2, 13, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 1, 2],
                MessageError::Body { code: 2, error: ReadError::AddressFamily(5) },
            ),
        ] {
            let payload = [&good, bad].concat();
            assert_eq!(read(&payload), [Ok(PING), Err(error)], "{bad:x?}");
            let mut messages = Messages::new(bad);
            assert!(messages.next().is_some());
            assert_eq!(messages.next(), None);
        }
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_the_payload_as_it_was() {
        let mut buf = [0; 20];
        let mut writer = MessageWriter::new(&mut buf);
        assert!(writer.is_empty());
        writer.push(&PING).unwrap();
        assert_eq!(writer.push(&PING), Err(BufferFull));
        assert_eq!(writer.len(), 11);
        writer.push(&Message::Close { reason: CloseReason::REMOVED }).unwrap();
        assert_eq!(writer.pad_to(15), Err(BufferFull));
        assert_eq!(writer.pad_to(21), Err(BufferFull));
        writer.pad_to(10).unwrap();
        assert_eq!(writer.len(), 14);
        writer.pad_to(20).unwrap();
        assert_eq!(read(&buf), [Ok(PING), Ok(Message::Close { reason: CloseReason::REMOVED })]);
    }

    #[test]
    fn padding_reaches_every_length_but_one_more() {
        let mut buf = vec![0xee; 20_000];
        for len in (0..300).filter(|len| *len != 1).chain(16_380..16_400) {
            buf.fill(0xee);
            let mut writer = MessageWriter::new(&mut buf);
            writer.pad_to(len).unwrap();
            assert_eq!(writer.len(), len);
            assert_eq!(read(&buf[..len]), []);
        }
    }

    #[test]
    fn reasons_have_names() {
        let names: Vec<_> = [1, 2, 9].map(|code| std::format!("{} {0:?}", CloseReason(code))).into();
        assert_eq!(names, ["shutdown shutdown", "removed removed", "reason 9 reason 9"]);
    }

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<(u64, u8)>().prop_map(|(token, path)| Message::Ping { token, path }),
            any::<(u64, u8, u64, IpAddr, u16)>().prop_map(|(token, path, delay_us, ip, port)| Message::Pong {
                token,
                path,
                delay_us,
                observed: SocketAddr::new(ip.to_canonical(), port),
            }),
            (any::<u8>(), 0..=MsgId::MAX_COUNTER, any::<u64>())
                .prop_map(|(lane, largest, received)| Message::Receipt { lane: Lane(lane), largest, received }),
            any::<u8>().prop_map(|reason| Message::Close { reason: CloseReason(reason) }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(messages in prop::collection::vec(any_message(), 0..8), pad in 2usize..200) {
            let mut buf = [0; 8 * Message::MAX_LEN + 200];
            let mut writer = MessageWriter::new(&mut buf);
            for message in &messages {
                writer.push(message).unwrap();
            }
            let len = writer.len() + pad;
            writer.pad_to(len).unwrap();
            let back: Result<Vec<_>, _> = Messages::new(&buf[..len]).collect();
            prop_assert_eq!(back, Ok(messages));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            raw: Vec<u8>,
            parts in prop::collection::vec((0u8..7, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (code, body) in &parts {
                bytes.extend([*code, body.len() as u8]);
                bytes.extend(body);
            }
            bytes.extend(&raw);
            for payload in [&bytes, &raw] {
                let _ = Payload::classify(payload);
                let items = read(payload);
                // Two bytes a message: a small payload cannot keep its reader busy.
                prop_assert!(items.len() <= payload.len() / 2 + 1);
            }
        }
    }
}
