//! The wire: how vine's messages look as bytes. `docs/protocol.md` is the specification; this is its code.
//!
//! ```text
//!  datagram            stream
//!     |                  |  frame:     varint length, then one envelope
//!     v                  v
//!  envelope:  16-byte header, payload, 16-byte tag where sealed
//!     |
//!     +-- hello:     Hello, HelloAck, Cookie: the handshake's datagrams, split into their fields
//!     |     +-- tlv:     what the two Noise messages carry inside
//!     |
//!     +-- message:   the payload of a Sealed envelope once it is open: nothing, one IP packet, or messages
//!           +-- ack, signal, relay:  the bodies of the larger ones
//! ```
//!
//! Everything here is layout: no keys, no state of a session, no clock. A decoder
//!
//! - never panics, whatever the bytes are;
//! - never allocates in proportion to a length that the peer claimed (only [`FrameDecoder`] allocates at all, and only
//!   for bytes that have arrived);
//! - returns values that obey the rules of the specification, so that nothing behind it checks them again.
//!
//! All integers are little-endian.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod ack;
pub mod cursor;
pub mod envelope;
pub mod frame;
pub mod hello;
pub mod message;
pub mod relay;
pub mod signal;
pub mod tlv;
pub mod varint;

pub use ack::{Ack, AckBody, AckRanges, MAX_PACKET_NUMBER};
pub use cursor::{BufferFull, ReadError, Reader, Writer};
pub use envelope::{
    EnvelopeType, Flags, HEADER_LEN, HEADROOM, Header, HeaderError, Lane, MAX_DATAGRAM_LEN, MAX_ENVELOPE_LEN,
    MAX_PACKET_LEN, MsgId, OVERHEAD, TAG_LEN, TAILROOM,
};
pub use frame::{FrameDecoder, FrameError, MAX_FRAME_LEN};
pub use hello::{CookieReply, Hello, HelloAck, HelloError};
pub use message::{CloseReason, FragmentPart, IpVersion, Message, MessageError, MessageWriter, Messages, Payload};
pub use relay::{RelayClose, RelayCloseReason, RelayOpen, RelayRole};
pub use signal::{Candidate, CandidateKind, CheckOutcome, CheckResult, NatVerdict, Signal, SignalBody, SignalRole};
pub use tlv::{Capabilities, Ciphers, HelloAckPayload, HelloPayload, TlvError};
