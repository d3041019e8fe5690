//! What a Sealed envelope holds once it is open: nothing, one IP packet, or typed messages.
//!
//! A message is `type u8 | length varint | body`. Types are below 0x40, so that a first nibble of 4 or 6 means an IP
//! packet (the version field of RFC 791 and RFC 8200). A type that this version does not know is skipped by its length,
//! and a body may be longer than what this version reads: that is how types and fields are added.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::ack::{Ack, MAX_PACKET_NUMBER};
use super::cursor::{BufferFull, ReadError, Reader, Writer};
use super::envelope::{Lane, MsgId};
use super::relay::{RelayClose, RelayOpen};
use super::signal::{MAX_ADDRESS_LEN, Signal};
use super::varint;

/// Codes of the message types.
mod code {
    pub(super) const PADDING: u8 = 0;
    pub(super) const PING: u8 = 1;
    pub(super) const PONG: u8 = 2;
    pub(super) const RECEIPT: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const PACKET: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const FRAGMENT: u8 = 7;
    pub(super) const SIGNAL: u8 = 8;
    pub(super) const RELAY_OPEN: u8 = 9;
    pub(super) const RELAY_CLOSE: u8 = 10;
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

/// A message of this version. What it borrows is a part of the payload that it was read from, or will be written from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
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
    /// "What else is in this envelope must arrive: acknowledge it by this number." Comes first in its envelope.
    Packet {
        /// The sender's number of the path that it sends this on. Each has packet numbers of its own.
        path: u8,
        /// The packet number; at most [`MAX_PACKET_NUMBER`], and never used twice on the path.
        number: u64,
    },
    /// "These packet numbers have arrived."
    Ack(Ack<'a>),
    /// A part of an IP packet that is longer than what the path carries.
    Fragment(FragmentPart<'a>),
    /// "This is where I can be reached."
    Signal(Signal<'a>),
    /// "Address me so", between an end of a relay's channel and the relay.
    RelayOpen(RelayOpen),
    /// "There is no channel", between the same.
    RelayClose(RelayClose),
}

/// A part of an IP packet. It obeys the rules of the format: it lies within the packet and is not empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FragmentPart<'a> {
    id: u32,
    offset: u16,
    total: u16,
    bytes: &'a [u8],
}

impl<'a> FragmentPart<'a> {
    /// Bytes of the body before those of the packet.
    pub const HEADER_LEN: usize = 4 + 2 + 2;
    /// The least length of a packet: an IPv4 header.
    pub const MIN_TOTAL: u16 = 20;

    /// The part of packet `id`, which is `total` bytes long, that begins at `offset`; `None` where it is empty, where
    /// it reaches beyond the packet or where the packet is shorter than a header.
    pub fn new(id: u32, offset: u16, total: u16, bytes: &'a [u8]) -> Option<FragmentPart<'a>> {
        let is_right = total >= Self::MIN_TOTAL
            && !bytes.is_empty()
            && usize::from(offset).checked_add(bytes.len()).is_some_and(|end| end <= usize::from(total));
        is_right.then_some(FragmentPart { id, offset, total, bytes })
    }

    /// Tells the packets of a sender apart.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Where in the packet the bytes belong.
    pub const fn offset(&self) -> u16 {
        self.offset
    }

    /// The length of the whole packet.
    pub const fn total(&self) -> u16 {
        self.total
    }

    /// The bytes; at least one.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn decode(body: &mut Reader<'a>) -> Result<FragmentPart<'a>, ReadError> {
        let (id, offset, total) = (body.u32()?, body.u16()?, body.u16()?);
        FragmentPart::new(id, offset, total, body.rest()).ok_or(ReadError::OutOfRange)
    }

    fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        body.u32(self.id)?;
        body.u16(self.offset)?;
        body.u16(self.total)?;
        body.bytes(self.bytes)
    }
}

/// Without the bytes, which are the host's.
impl fmt::Debug for FragmentPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = usize::from(self.offset) + self.bytes.len();
        write!(f, "FragmentPart({:#x}: {}..{end} of {})", self.id, self.offset, self.total)
    }
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

impl<'a> Message<'a> {
    /// The longest body but for a fragment's, in bytes.
    const MAX_BODY_LEN: usize = {
        let (ack, signal) = (Ack::MAX_BODY_LEN, Signal::MAX_BODY_LEN);
        if ack > signal { ack } else { signal }
    };
    /// The longest message, in bytes; but for a fragment, whose sender chooses how long it is.
    pub const MAX_LEN: usize = 1 + varint::len(Self::MAX_BODY_LEN as u64) + Self::MAX_BODY_LEN;

    /// Reads the body of a message of type `code`; `None` where this version does not know the type.
    fn decode(code: u8, body: &'a [u8]) -> Result<Option<Message<'a>>, ReadError> {
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
            code::PACKET => Message::Packet { path: body.u8()?, number: body.varint_up_to(MAX_PACKET_NUMBER)? },
            code::ACK => Message::Ack(Ack::decode(&mut body)?),
            code::FRAGMENT => Message::Fragment(FragmentPart::decode(&mut body)?),
            code::SIGNAL => Message::Signal(Signal::decode(&mut body)?),
            code::RELAY_OPEN => Message::RelayOpen(RelayOpen::decode(&mut body)?),
            code::RELAY_CLOSE => Message::RelayClose(RelayClose::decode(&mut body)?),
            _ => return Ok(None),
        }))
    }

    /// The code of the type.
    const fn code(&self) -> u8 {
        match self {
            Message::Ping { .. } => code::PING,
            Message::Pong { .. } => code::PONG,
            Message::Receipt { .. } => code::RECEIPT,
            Message::Close { .. } => code::CLOSE,
            Message::Packet { .. } => code::PACKET,
            Message::Ack(_) => code::ACK,
            Message::Fragment(_) => code::FRAGMENT,
            Message::Signal(_) => code::SIGNAL,
            Message::RelayOpen(_) => code::RELAY_OPEN,
            Message::RelayClose(_) => code::RELAY_CLOSE,
        }
    }

    /// Bytes of the body.
    fn body_len(&self) -> usize {
        match *self {
            Message::Ping { .. } => 8 + 1,
            Message::Pong { delay_us, observed, .. } => 8 + 1 + varint::len(delay_us) + address_len(observed),
            Message::Receipt { largest, received, .. } => 1 + varint::len(largest) + varint::len(received),
            Message::Close { .. } => 1,
            Message::Packet { number, .. } => 1 + varint::len(number),
            Message::Ack(ack) => ack.body_len(),
            Message::Fragment(part) => FragmentPart::HEADER_LEN + part.bytes.len(),
            Message::Signal(signal) => signal.body_len(),
            Message::RelayOpen(_) => RelayOpen::BODY_LEN,
            Message::RelayClose(_) => RelayClose::BODY_LEN,
        }
    }

    /// Bytes of the message.
    pub fn encoded_len(&self) -> usize {
        let body = self.body_len();
        1 + varint::len(body as u64) + body
    }

    /// Writes the body.
    fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        match *self {
            Message::Ping { token, path } => {
                body.u64(token)?;
                body.u8(path)
            }
            Message::Pong { token, path, delay_us, observed } => {
                body.u64(token)?;
                body.u8(path)?;
                body.varint(delay_us)?;
                body.address(observed)
            }
            Message::Receipt { lane, largest, received } => {
                body.u8(lane.0)?;
                body.varint(largest)?;
                body.varint(received)
            }
            Message::Close { reason } => body.u8(reason.0),
            Message::Packet { path, number } => {
                body.u8(path)?;
                body.varint(number)
            }
            Message::Ack(ack) => ack.encode(body),
            Message::Fragment(part) => part.encode(body),
            Message::Signal(signal) => signal.encode(body),
            Message::RelayOpen(open) => open.encode(body),
            Message::RelayClose(close) => close.encode(body),
        }
    }
}

/// Bytes of an address in a message.
fn address_len(address: SocketAddr) -> usize {
    match address.ip().to_canonical() {
        IpAddr::V4(_) => MAX_ADDRESS_LEN - 12,
        IpAddr::V6(_) => MAX_ADDRESS_LEN,
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

    fn try_next(&mut self) -> Result<Option<Message<'a>>, MessageError> {
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

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, MessageError>;

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
    pub fn push(&mut self, message: &Message<'_>) -> Result<(), BufferFull> {
        let room = self.frame(message.code(), message.body_len())?;
        let mut body = Writer::new(room);
        let written = message.encode(&mut body);
        debug_assert!(written.is_ok() && body.remaining() == 0, "the length of the body of {message:?}");
        written
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

    use super::super::ack::AckBody;
    use super::super::relay::{RelayCloseReason, RelayRole};
    use super::super::signal::tests::any_signal;
    use super::super::signal::{SignalBody, SignalRole};
    use super::*;
    use core::num::NonZeroU32;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const PING: Message<'_> = Message::Ping { token: 7, path: 3 };

    fn read(payload: &[u8]) -> Vec<Result<Message<'_>, MessageError>> {
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
        payload.extend([0x3e, 0]);
        assert_eq!(read(&payload), [Ok(PING)]);
    }

    #[test]
    fn an_error_is_the_last_item() {
        let good = [1, 9, 7, 0, 0, 0, 0, 0, 0, 0, 3];
        let end = ReadError::Truncated;
        for (bad, error) in [
            (&[0x40, 0][..], MessageError::Type(0x40)),
            (&[0xff, 0], MessageError::Type(0xff)),
            (&[0x3e], MessageError::Length(end)),
            (&[0x3e, 1], MessageError::Length(end)),
            (&[0x3e, 0x80, 0x00], MessageError::Length(ReadError::Overlong)),
            (&[0x3e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], MessageError::Length(end)),
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
            (
                &[5, 10, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
                MessageError::Body { code: 5, error: ReadError::TooLarge },
            ),
            (&[6, 5, 0, 0, 9, 0, 10], MessageError::Body { code: 6, error: ReadError::TooLarge }),
            (&[7, 8, 0, 0, 0, 0, 0, 0, 20, 0], MessageError::Body { code: 7, error: ReadError::OutOfRange }),
            (&[8, 1, 3], MessageError::Body { code: 8, error: ReadError::OutOfRange }),
            (&[9, 33, 0], MessageError::Length(end)),
            (&[10, 1, 2], MessageError::Body { code: 10, error: ReadError::OutOfRange }),
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

    #[test]
    fn a_fragment_lies_within_its_packet() {
        let part = |offset, total, len: usize| FragmentPart::new(1, offset, total, &vec![0; len]).is_some();
        assert!(part(0, 20, 20) && part(19, 20, 1) && part(0, 65_535, 65_535));
        assert!(!part(0, 20, 21) && !part(20, 20, 1) && !part(1, 65_535, 65_535));
        assert!(!part(0, 20, 0) && !part(0, 19, 19) && !part(65_535, 65_535, 70_000));
        let shown = std::format!("{:?}", FragmentPart::new(0x1f, 20, 1300, &[7; 30]));
        assert_eq!(shown, "Some(FragmentPart(0x1f: 20..50 of 1300))");
    }

    #[test]
    fn a_fragment_may_fill_a_payload() {
        let packet = vec![0x45; 65_535];
        let mut buf = vec![0; 70_000];
        let mut writer = MessageWriter::new(&mut buf);
        let message = Message::Fragment(FragmentPart::new(9, 0, 65_535, &packet).unwrap());
        writer.push(&message).unwrap();
        let len = writer.len();
        assert_eq!(len, message.encoded_len());
        assert_eq!(read(&buf[..len]), [Ok(message)]);
    }

    /// What messages are made of; they themselves borrow.
    #[derive(Clone, Debug)]
    enum Told {
        Plain(Message<'static>),
        Ack(AckBody),
        Fragment(u32, u16, Vec<u8>, u16),
        Signal(SignalRole, SignalBody, Vec<u8>),
    }

    impl Told {
        fn message(&mut self) -> Message<'_> {
            match self {
                Told::Plain(message) => *message,
                Told::Ack(body) => Message::Ack(body.as_ack()),
                Told::Fragment(id, offset, bytes, behind) => {
                    let total = (*offset + bytes.len() as u16 + *behind).max(20);
                    Message::Fragment(FragmentPart::new(*id, *offset, total, bytes).unwrap())
                }
                Told::Signal(role, body, scratch) => {
                    scratch.resize(SignalBody::SCRATCH_LEN, 0xee);
                    let scratch = scratch.as_mut_slice().try_into().unwrap();
                    Message::Signal(body.to_signal(*role, scratch))
                }
            }
        }
    }

    fn any_plain() -> impl Strategy<Value = Message<'static>> {
        let role = || any::<bool>().prop_map(|offer| if offer { RelayRole::Offer } else { RelayRole::Request });
        let open = (role(), any::<[u8; 32]>(), any::<NonZeroU32>(), any::<u64>());
        let close = (role(), any::<[u8; 32]>(), any::<u8>());
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
            (any::<u8>(), 0..=MAX_PACKET_NUMBER).prop_map(|(path, number)| Message::Packet { path, number }),
            open.prop_map(|(role, peer, handle, token)| Message::RelayOpen(RelayOpen { role, peer, handle, token })),
            close.prop_map(|(role, peer, reason)| {
                Message::RelayClose(RelayClose { role, peer, reason: RelayCloseReason(reason) })
            }),
        ]
    }

    fn any_told() -> impl Strategy<Value = Told> {
        let range = (0..=MAX_PACKET_NUMBER, 0u64..100).prop_map(|(end, len)| end.saturating_sub(len)..=end);
        let part = (any::<u32>(), 0u16..2000, prop::collection::vec(any::<u8>(), 1..300), 0u16..2000);
        prop_oneof![
            4 => any_plain().prop_map(Told::Plain),
            1 => (any::<(u8, u64)>(), range).prop_map(|((path, delay_us), range)| {
                Told::Ack(AckBody::new(path, delay_us, [range]).unwrap())
            }),
            1 => part.prop_map(|(id, offset, bytes, behind)| Told::Fragment(id, offset, bytes, behind)),
            1 => any_signal().prop_map(|(role, body)| Told::Signal(role, body, Vec::new())),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(mut told in prop::collection::vec(any_told(), 0..8), pad in 2usize..200) {
            let messages: Vec<_> = told.iter_mut().map(Told::message).collect();
            let mut buf = [0; 8 * Message::MAX_LEN + 200];
            let mut writer = MessageWriter::new(&mut buf);
            for message in &messages {
                let before = writer.len();
                writer.push(message).unwrap();
                prop_assert_eq!(writer.len() - before, message.encoded_len());
                prop_assert!(message.encoded_len() <= Message::MAX_LEN);
            }
            let len = writer.len() + pad;
            writer.pad_to(len).unwrap();
            let back: Result<Vec<_>, _> = Messages::new(&buf[..len]).collect();
            prop_assert_eq!(back, Ok(messages));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            raw: Vec<u8>,
            parts in prop::collection::vec((0u8..12, prop::collection::vec(any::<u8>(), 0..60)), 0..8),
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
