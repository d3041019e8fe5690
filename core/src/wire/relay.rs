//! RelayOpen and RelayClose: how two peers agree on a channel through a third one, hop by hop.

use core::fmt;
use core::num::NonZeroU32;

use super::cursor::{BufferFull, ReadError, Reader, Writer};

/// Who speaks about a channel to whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RelayRole {
    /// An end of the channel to the relay.
    Request = 0,
    /// The relay to an end.
    Offer = 1,
}

impl RelayRole {
    fn decode(body: &mut Reader<'_>) -> Result<RelayRole, ReadError> {
        match body.u8()? {
            0 => Ok(RelayRole::Request),
            1 => Ok(RelayRole::Offer),
            _ => Err(ReadError::OutOfRange),
        }
    }
}

/// "Address me so": what the receiver writes into the header of Relayed envelopes that it sends to the sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayOpen {
    /// Who says it.
    pub role: RelayRole,
    /// The other end of the channel, as seen from the end that takes part in this hop. The PeerId as it was written:
    /// see [`SignalRole`](super::SignalRole).
    pub peer: [u8; 32],
    /// The `session` of the header.
    pub handle: NonZeroU32,
    /// The `msg_id` of the header. Who knows it can send here.
    pub token: u64,
}

impl RelayOpen {
    /// Bytes of the body.
    pub(super) const BODY_LEN: usize = 1 + 32 + 4 + 8;

    pub(super) fn decode(body: &mut Reader<'_>) -> Result<RelayOpen, ReadError> {
        let role = RelayRole::decode(body)?;
        let peer = body.array()?;
        let handle = NonZeroU32::new(body.u32()?).ok_or(ReadError::OutOfRange)?;
        Ok(RelayOpen { role, peer, handle, token: body.u64()? })
    }

    pub(super) fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        body.u8(self.role as u8)?;
        body.bytes(&self.peer)?;
        body.u32(self.handle.get())?;
        body.u64(self.token)
    }
}

/// Without the token, which is a secret of the two.
impl fmt::Debug for RelayOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOpen")
            .field("role", &self.role)
            .field("peer", &self.peer)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

/// "There is no channel", or there is none any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RelayClose {
    /// Who says it.
    pub role: RelayRole,
    /// The other end of the channel, as in [`RelayOpen::peer`].
    pub peer: [u8; 32],
    /// Why.
    pub reason: RelayCloseReason,
}

impl RelayClose {
    /// Bytes of the body.
    pub(super) const BODY_LEN: usize = 1 + 32 + 1;

    pub(super) fn decode(body: &mut Reader<'_>) -> Result<RelayClose, ReadError> {
        let role = RelayRole::decode(body)?;
        Ok(RelayClose { role, peer: body.array()?, reason: RelayCloseReason(body.u8()?) })
    }

    pub(super) fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        body.u8(self.role as u8)?;
        body.bytes(&self.peer)?;
        body.u8(self.reason.0)
    }
}

/// Why there is no channel. One that this version does not know ends the channel as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayCloseReason(pub u8);

impl RelayCloseReason {
    /// The policy of the relay or of the other end is against it.
    pub const REFUSED: RelayCloseReason = RelayCloseReason(1);
    /// The relay does not know the other end.
    pub const UNKNOWN_PEER: RelayCloseReason = RelayCloseReason(2);
    /// The relay has no session with the other end.
    pub const UNREACHABLE: RelayCloseReason = RelayCloseReason(3);
    /// The relay carries for the sender, or for everybody, all that it may.
    pub const QUOTA: RelayCloseReason = RelayCloseReason(4);
    /// Nothing went through it for long.
    pub const IDLE: RelayCloseReason = RelayCloseReason(5);
}

impl fmt::Debug for RelayCloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RelayCloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            RelayCloseReason::REFUSED => "refused",
            RelayCloseReason::UNKNOWN_PEER => "unknown peer",
            RelayCloseReason::UNREACHABLE => "unreachable",
            RelayCloseReason::QUOTA => "quota",
            RelayCloseReason::IDLE => "idle",
            RelayCloseReason(code) => return write!(f, "reason {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;
    use std::vec::Vec;

    #[test]
    fn a_role_that_is_unknown_and_a_handle_of_zero_are_refused() {
        let mut buf = [0; RelayOpen::BODY_LEN];
        let open = RelayOpen { role: RelayRole::Offer, peer: [7; 32], handle: NonZeroU32::MIN, token: 9 };
        open.encode(&mut Writer::new(&mut buf)).unwrap();
        let read = |bytes: &[u8]| RelayOpen::decode(&mut Reader::new(bytes));
        assert_eq!(read(&buf), Ok(open));
        buf[33] = 0;
        assert_eq!(read(&buf), Err(ReadError::OutOfRange));
        buf[33] = 1;
        buf[0] = 2;
        assert_eq!(read(&buf), Err(ReadError::OutOfRange));
        assert_eq!(RelayClose::decode(&mut Reader::new(&buf)), Err(ReadError::OutOfRange));
    }

    #[test]
    fn the_token_is_not_shown() {
        let open = RelayOpen { role: RelayRole::Offer, peer: [7; 32], handle: NonZeroU32::MIN, token: 987_654_321 };
        assert!(!format!("{open:?}").contains("987654321"));
    }

    #[test]
    fn reasons_have_names() {
        let names: Vec<_> = (1..=6).map(|code| format!("{:?}", RelayCloseReason(code))).collect();
        let expected = ["refused", "unknown peer", "unreachable", "quota", "idle", "reason 6"];
        assert_eq!(names, expected);
    }
}
