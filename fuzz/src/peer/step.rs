//! What the peer may do.

use arbitrary::Arbitrary;
use vine_core::wire::{CloseReason, Lane, Message, MsgId};

use crate::Edit;
use crate::packets::Packet;

/// A whole run.
#[derive(Arbitrary, Clone, Debug)]
pub struct Visit {
    /// Whether the two have no session yet.
    pub cold: bool,
    /// Whether the node is fast at AES.
    pub aes_is_fast: bool,
    /// Whether the node's host completes open checksums.
    pub checksum_offload: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One thing that happens. `from` is the address that a datagram comes from; `tunnel` counts sessions from the latest.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// Bytes of nobody.
    Raw {
        /// Where from.
        from: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// A Hello with a true MAC and a true key.
    Hello {
        /// Of the peer that the node allows, or of one that it does not.
        friend: bool,
        /// What it says.
        shape: HelloShape,
        /// Where from.
        from: u8,
    },
    /// A HelloFinish.
    Finish {
        /// In which session.
        tunnel: u8,
        /// Where from.
        from: u8,
    },
    /// A sealed envelope.
    Sealed {
        /// In which session.
        tunnel: u8,
        /// On which lane.
        lane: u8,
        /// Whether it claims that its checksum is open.
        csum_partial: bool,
        /// What is in it.
        inner: Inner,
        /// Where from.
        from: u8,
    },
    /// Numbers are left out.
    Skip {
        /// In which session.
        tunnel: u8,
        /// On which lane.
        lane: u8,
        /// How many.
        count: u16,
    },
    /// Something that was sent comes again, perhaps changed.
    Again {
        /// Which.
        pick: u8,
        /// The change.
        edit: Option<Edit>,
        /// Where from.
        from: u8,
    },
    /// The node's Hello is answered with a HelloAck.
    Answer {
        /// What it says.
        shape: HelloShape,
        /// Where from.
        from: u8,
    },
    /// The node's Hello is answered with a Cookie.
    Challenge {
        /// The cookie.
        cookie: [u8; 16],
        /// Where from.
        from: u8,
    },
    /// The node's host sends a packet.
    HostSends {
        /// The last byte of where to.
        destination: u8,
        /// Bytes of payload.
        len: u8,
    },
    /// Time passes.
    Pass {
        /// Hundredths of a second.
        hundredths: u16,
    },
}

/// What a Hello or a HelloAck says inside.
#[derive(Arbitrary, Clone, Debug)]
pub enum HelloShape {
    /// Well-formed fields.
    Fields {
        /// The boot id.
        boot: u8,
        /// Whose PeerId.
        name: Name,
        /// How much the stamp goes forward, or back.
        stamp: i8,
        /// The ciphers. None means those that everybody has.
        ciphers: Option<[u8; 2]>,
        /// The capabilities.
        capabilities: u8,
        /// Whether the cookie is left out.
        no_cookie: bool,
        /// Added to the index.
        wrong_index: bool,
    },
    /// Anything.
    Raw(Vec<u8>),
}

impl HelloShape {
    /// What an honest peer says.
    pub const fn plain() -> HelloShape {
        HelloShape::Fields {
            boot: 1,
            name: Name::Own,
            stamp: 1,
            ciphers: None,
            capabilities: 1,
            no_cookie: false,
            wrong_index: false,
        }
    }
}

/// Whose PeerId is stated.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// The sender's.
    Own,
    /// Another one's.
    Absent,
    /// Nobody's.
    Nobody,
}

/// What is sealed.
#[derive(Arbitrary, Clone, Debug)]
pub enum Inner {
    /// Nothing.
    Empty,
    /// Anything.
    Raw(Vec<u8>),
    /// A packet, perhaps changed, from the peer's own address or another one's.
    Packet(Packet, Option<Edit>),
    /// Messages.
    Messages(Vec<Told>),
    /// The answer to the node's oldest Ping that has none.
    Pong {
        /// How long the peer says it held it.
        delay_us: u64,
    },
    /// So many Pings, until the envelope is full.
    Pings(u16),
}

/// A message.
#[derive(Arbitrary, Clone, Debug)]
pub enum Told {
    /// [`Message::Ping`].
    Ping(u64, u8),
    /// [`Message::Pong`].
    Pong(u64, u8, u64, std::net::SocketAddr),
    /// [`Message::Receipt`].
    Receipt(u8, u64, u64),
    /// [`Message::Close`].
    Close(u8),
    /// As many bytes of padding.
    Padding(u8),
}

impl Told {
    /// The message; padding is none.
    pub fn message(&self) -> Option<Message<'static>> {
        Some(match *self {
            Told::Ping(token, path) => Message::Ping { token, path },
            Told::Pong(token, path, delay_us, observed) => Message::Pong { token, path, delay_us, observed },
            Told::Receipt(lane, largest, received) => {
                Message::Receipt { lane: Lane(lane), largest: largest & MsgId::MAX_COUNTER, received }
            }
            Told::Close(reason) => Message::Close { reason: CloseReason(reason) },
            Told::Padding(_) => return None,
        })
    }
}
