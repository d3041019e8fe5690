//! The datagrams of the handshake, split into their fields.
//!
//! ```text
//! Hello     header 16 | suite 1 | e 32 | enc_s 48 | enc_payload n+16 | mac 16 | cookie_mac 16
//!           `---------------- mac covers this -----------------------'
//!           `---------------- cookie_mac covers this -------------------------'
//! HelloAck  header 16 | e 32 | enc_payload n+16
//! Cookie    header 16 | cookie 16 | mac 16
//!           `---- mac covers this, then the mac field of the Hello that is answered
//! ```
//!
//! `e | enc_s | enc_payload` and `e | enc_payload` are the two messages of Noise IKpsk2 (Noise revision 34, section
//! 7.5) as they come out of it; what their payloads hold is in [`tlv`](super::tlv). A HelloFinish is an empty sealed
//! envelope and needs no layout of its own. Nothing here computes a MAC: the views give the bytes that each one covers.

use super::cursor::{BufferFull, Writer};
use super::envelope::{EnvelopeType, HEADER_LEN, Header, HeaderError, TAG_LEN};

/// The only suite of this version: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`.
pub const SUITE_IKPSK2: u8 = 1;
/// Bytes of an X25519 public key, hence of the ephemeral key that begins both Noise messages.
pub const EPHEMERAL_LEN: usize = 32;
/// Bytes of a MAC of the handshake: BLAKE2s-128.
pub const MAC_LEN: usize = 16;
/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 16;

/// The shortest Noise message in a Hello: ephemeral key, sealed static key, an empty sealed payload.
pub const MIN_HELLO_NOISE_LEN: usize = EPHEMERAL_LEN + (32 + TAG_LEN) + TAG_LEN;
/// The shortest Noise message in a HelloAck: ephemeral key, an empty sealed payload.
pub const MIN_HELLO_ACK_NOISE_LEN: usize = EPHEMERAL_LEN + TAG_LEN;
/// The longest Hello and HelloAck: what an IPv6 link of the least MTU carries in one datagram (RFC 8200 section 5:
/// 1,280 less 40 and 8 bytes of headers). It also limits what a stranger can make a node hash.
pub const MAX_HANDSHAKE_LEN: usize = 1_232;
/// The length of every Cookie datagram. It is below that of any Hello, so a Cookie amplifies nothing.
pub const COOKIE_DATAGRAM_LEN: usize = HEADER_LEN + COOKIE_LEN + MAC_LEN;

const _: () = assert!(COOKIE_DATAGRAM_LEN < Hello::MIN_LEN, "a Cookie must not amplify");

/// A MAC of the handshake.
pub type Mac = [u8; MAC_LEN];
/// What stands in the `cookie_mac` field of a Hello whose sender has no cookie.
pub const NO_COOKIE_MAC: Mac = [0; MAC_LEN];

/// Why a datagram is not the handshake message that it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// It does not begin with a valid header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The envelope is of another type.
    #[error("the envelope is a {0:?}")]
    Kind(EnvelopeType),
    /// Shorter than the type's fixed fields.
    #[error("too short for a handshake message of its type")]
    TooShort,
    /// Longer than [`MAX_HANDSHAKE_LEN`], or than a Cookie is.
    #[error("too long for a handshake message of its type")]
    TooLong,
    /// A suite that this version does not know.
    #[error("unknown handshake suite {0}")]
    Suite(u8),
}

/// The header of `datagram`, which must be of type `kind`, its 16 bytes, and what is behind them.
fn split_header(datagram: &[u8], kind: EnvelopeType) -> Result<(Header, &[u8; HEADER_LEN], &[u8]), HelloError> {
    let header = Header::decode(datagram)?;
    if header.kind() != kind {
        return Err(HelloError::Kind(header.kind()));
    }
    let (bytes, payload) = datagram.split_first_chunk().ok_or(HelloError::TooShort)?;
    Ok((header, bytes, payload))
}

/// A Hello, split. Made by [`Hello::decode`]; all fields lie in the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Hello<'a> {
    /// The header. Its [`sender_index`](Header::sender_index) is the initiator's.
    pub header: Header,
    /// The header's bytes, which the Noise prologue contains.
    pub header_bytes: &'a [u8; HEADER_LEN],
    /// The suite; so far always [`SUITE_IKPSK2`].
    pub suite: u8,
    /// The initiator's ephemeral public key: the first field of the Noise message. A Hello seen before has the same.
    pub ephemeral: &'a [u8; EPHEMERAL_LEN],
    /// The whole Noise message, ephemeral key included.
    pub noise: &'a [u8],
    /// What `mac` covers: header, suite, Noise message.
    pub mac_input: &'a [u8],
    /// Proof that the sender knows whom it addresses and in which network.
    pub mac: &'a Mac,
    /// What `cookie_mac` covers: everything before it.
    pub cookie_mac_input: &'a [u8],
    /// Proof that the sender got a cookie at its address, or [`NO_COOKIE_MAC`].
    pub cookie_mac: &'a Mac,
}

impl<'a> Hello<'a> {
    /// The shortest Hello.
    pub const MIN_LEN: usize = HEADER_LEN + 1 + MIN_HELLO_NOISE_LEN + 2 * MAC_LEN;

    /// Splits `datagram`.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, HelloError> {
        let (header, header_bytes, _) = split_header(datagram, EnvelopeType::Hello)?;
        if datagram.len() < Self::MIN_LEN {
            return Err(HelloError::TooShort);
        }
        if datagram.len() > MAX_HANDSHAKE_LEN {
            return Err(HelloError::TooLong);
        }
        let (cookie_mac_input, cookie_mac) = datagram.split_last_chunk().ok_or(HelloError::TooShort)?;
        let (mac_input, mac) = cookie_mac_input.split_last_chunk().ok_or(HelloError::TooShort)?;
        let (_, payload) = mac_input.split_at_checked(HEADER_LEN).ok_or(HelloError::TooShort)?;
        let (&suite, noise) = payload.split_first().ok_or(HelloError::TooShort)?;
        if suite != SUITE_IKPSK2 {
            return Err(HelloError::Suite(suite));
        }
        let ephemeral = noise.first_chunk().ok_or(HelloError::TooShort)?;
        Ok(Hello { header, header_bytes, suite, ephemeral, noise, mac_input, mac, cookie_mac_input, cookie_mac })
    }

    /// Writes a Hello: `mac` and `cookie_mac` are called with the bytes that each covers.
    ///
    /// `noise` is the first Noise message, at least [`MIN_HELLO_NOISE_LEN`] bytes. Without a cookie, `cookie_mac`
    /// returns [`NO_COOKIE_MAC`].
    pub fn encode(
        sender_index: u32,
        noise: &[u8],
        mac: impl FnOnce(&[u8]) -> Mac,
        cookie_mac: impl FnOnce(&[u8]) -> Mac,
        out: &mut [u8],
    ) -> Result<usize, BufferFull> {
        let mut out = Writer::new(out);
        out.bytes(&Header::hello(sender_index).encode())?;
        out.u8(SUITE_IKPSK2)?;
        out.bytes(noise)?;
        let mac = mac(out.written());
        out.bytes(&mac)?;
        let cookie_mac = cookie_mac(out.written());
        out.bytes(&cookie_mac)?;
        Ok(out.len())
    }

    /// Replaces the `cookie_mac` of an encoded Hello, for a sender that was answered with a Cookie.
    pub fn set_cookie_mac(hello: &mut [u8], cookie_mac: impl FnOnce(&[u8]) -> Mac) -> Result<(), HelloError> {
        Hello::decode(hello)?;
        let (covered, field) = hello.split_last_chunk_mut::<MAC_LEN>().ok_or(HelloError::TooShort)?;
        *field = cookie_mac(covered);
        Ok(())
    }
}

/// A HelloAck, split. Made by [`HelloAck::decode`]; all fields lie in the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HelloAck<'a> {
    /// The header. Its session is the initiator's index, its [`sender_index`](Header::sender_index) the responder's.
    pub header: Header,
    /// The responder's ephemeral public key: the first field of the Noise message.
    pub ephemeral: &'a [u8; EPHEMERAL_LEN],
    /// The whole Noise message, ephemeral key included.
    pub noise: &'a [u8],
}

impl<'a> HelloAck<'a> {
    /// The shortest HelloAck.
    pub const MIN_LEN: usize = HEADER_LEN + MIN_HELLO_ACK_NOISE_LEN;

    /// Splits `datagram`.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, HelloError> {
        let (header, _, noise) = split_header(datagram, EnvelopeType::HelloAck)?;
        if datagram.len() < Self::MIN_LEN {
            return Err(HelloError::TooShort);
        }
        if datagram.len() > MAX_HANDSHAKE_LEN {
            return Err(HelloError::TooLong);
        }
        let ephemeral = noise.first_chunk().ok_or(HelloError::TooShort)?;
        Ok(HelloAck { header, ephemeral, noise })
    }

    /// Writes a HelloAck. `noise` is the second Noise message, at least [`MIN_HELLO_ACK_NOISE_LEN`] bytes.
    pub fn encode(receiver_index: u32, sender_index: u32, noise: &[u8], out: &mut [u8]) -> Result<usize, BufferFull> {
        let mut out = Writer::new(out);
        out.bytes(&Header::hello_ack(receiver_index, sender_index).encode())?;
        out.bytes(noise)?;
        Ok(out.len())
    }
}

/// A Cookie, split. Made by [`CookieReply::decode`]; all fields lie in the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CookieReply<'a> {
    /// The header. Its session is the initiator's index.
    pub header: Header,
    /// The cookie: the key of the `cookie_mac` of the next Hello.
    pub cookie: &'a [u8; COOKIE_LEN],
    /// What `mac` covers in this datagram: header and cookie. Behind it goes the `mac` field of the Hello that this
    /// answers.
    pub mac_input: &'a [u8; HEADER_LEN + COOKIE_LEN],
    /// Proof that the sender knows the responder and the network as the initiator does, and saw that Hello.
    pub mac: &'a Mac,
}

impl<'a> CookieReply<'a> {
    /// Splits `datagram`.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, HelloError> {
        let (header, _, payload) = split_header(datagram, EnvelopeType::Cookie)?;
        if datagram.len() > COOKIE_DATAGRAM_LEN {
            return Err(HelloError::TooLong);
        }
        let mac = payload.get(COOKIE_LEN..).and_then(<[u8]>::first_chunk).ok_or(HelloError::TooShort)?;
        let cookie = payload.first_chunk().ok_or(HelloError::TooShort)?;
        let mac_input = datagram.first_chunk().ok_or(HelloError::TooShort)?;
        Ok(CookieReply { header, cookie, mac_input, mac })
    }

    /// The Cookie datagram to the initiator who calls the session `receiver_index`. `mac` is called with header and
    /// cookie; it covers the `mac` field of the answered Hello as well.
    pub fn encode(
        receiver_index: u32,
        cookie: &[u8; COOKIE_LEN],
        mac: impl FnOnce(&[u8; HEADER_LEN + COOKIE_LEN]) -> Mac,
    ) -> [u8; COOKIE_DATAGRAM_LEN] {
        let mut covered = [0; HEADER_LEN + COOKIE_LEN];
        let (head, body) = covered.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&Header::cookie(receiver_index).encode());
        body.copy_from_slice(cookie);
        let mac = mac(&covered);
        let mut datagram = [0; COOKIE_DATAGRAM_LEN];
        let (head, tail) = datagram.split_at_mut(covered.len());
        head.copy_from_slice(&covered);
        tail.copy_from_slice(&mac);
        datagram
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Stands in for a MAC: depends on every covered byte's presence.
    fn sum(covered: &[u8]) -> Mac {
        let mut mac: Mac = [0x5a; MAC_LEN];
        for (at, byte) in covered.iter().enumerate() {
            mac[at % MAC_LEN] = mac[at % MAC_LEN].rotate_left(3) ^ byte;
        }
        mac
    }

    fn hello(noise: &[u8]) -> Vec<u8> {
        let mut buf = [0; 2000];
        let len = Hello::encode(77, noise, sum, |_| NO_COOKIE_MAC, &mut buf).unwrap();
        buf[..len].to_vec()
    }

    #[test]
    fn length_limits() {
        let shortest = hello(&[1; MIN_HELLO_NOISE_LEN]);
        assert_eq!(shortest.len(), Hello::MIN_LEN);
        assert!(Hello::decode(&shortest).is_ok());
        assert_eq!(Hello::decode(&shortest[..shortest.len() - 1]), Err(HelloError::TooShort));
        let longest = MIN_HELLO_NOISE_LEN + MAX_HANDSHAKE_LEN - Hello::MIN_LEN;
        assert!(Hello::decode(&hello(&std::vec![1; longest])).is_ok());
        assert_eq!(Hello::decode(&hello(&std::vec![1; longest + 1])), Err(HelloError::TooLong));

        let cookie = CookieReply::encode(5, &[6; COOKIE_LEN], |covered| sum(covered));
        assert!(CookieReply::decode(&cookie).is_ok());
        assert_eq!(CookieReply::decode(&cookie[..47]), Err(HelloError::TooShort));
        let mut long = cookie.to_vec();
        long.push(0);
        assert_eq!(CookieReply::decode(&long), Err(HelloError::TooLong));
    }

    #[test]
    fn another_type_or_suite_is_refused() {
        let mut bytes = hello(&[1; MIN_HELLO_NOISE_LEN]);
        assert_eq!(HelloAck::decode(&bytes), Err(HelloError::Kind(EnvelopeType::Hello)));
        assert_eq!(CookieReply::decode(&bytes), Err(HelloError::Kind(EnvelopeType::Hello)));
        bytes[HEADER_LEN] = 2;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Suite(2)));
        bytes[0] = 0;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Header(HeaderError::Magic(0))));
    }

    #[test]
    fn a_cookie_mac_is_put_into_a_hello_that_exists() {
        let mut bytes = hello(&[1; MIN_HELLO_NOISE_LEN]);
        Hello::set_cookie_mac(&mut bytes, |covered| {
            assert_eq!(covered.len(), Hello::MIN_LEN - MAC_LEN);
            sum(covered)
        })
        .unwrap();
        let view = Hello::decode(&bytes).unwrap();
        assert_eq!(*view.cookie_mac, sum(view.cookie_mac_input));
        assert_eq!(*view.mac, sum(view.mac_input));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_an_error() {
        let mut buf = [0; Hello::MIN_LEN - 1];
        assert_eq!(Hello::encode(1, &[0; MIN_HELLO_NOISE_LEN], sum, sum, &mut buf), Err(BufferFull));
        assert_eq!(HelloAck::encode(1, 2, &[0; MIN_HELLO_ACK_NOISE_LEN], &mut buf[..40]), Err(BufferFull));
    }

    proptest! {
        #[test]
        fn hello_round_trip(index: u32, noise in prop::collection::vec(any::<u8>(), MIN_HELLO_NOISE_LEN..300)) {
            let mut buf = [0; MAX_HANDSHAKE_LEN];
            let len = Hello::encode(index, &noise, sum, sum, &mut buf).unwrap();
            let view = Hello::decode(&buf[..len]).unwrap();
            prop_assert_eq!(view.header, Header::hello(index));
            prop_assert_eq!(*view.header_bytes, Header::hello(index).encode());
            prop_assert_eq!(view.suite, SUITE_IKPSK2);
            prop_assert_eq!(view.noise, &noise[..]);
            prop_assert_eq!(&view.ephemeral[..], &noise[..32]);
            prop_assert_eq!(*view.mac, sum(&buf[..17 + noise.len()]));
            prop_assert_eq!(*view.cookie_mac, sum(&buf[..17 + noise.len() + MAC_LEN]));
        }

        #[test]
        fn hello_ack_round_trip(
            to: u32,
            from: u32,
            noise in prop::collection::vec(any::<u8>(), MIN_HELLO_ACK_NOISE_LEN..300),
        ) {
            let mut buf = [0; MAX_HANDSHAKE_LEN];
            let len = HelloAck::encode(to, from, &noise, &mut buf).unwrap();
            let view = HelloAck::decode(&buf[..len]).unwrap();
            prop_assert_eq!(view.header, Header::hello_ack(to, from));
            prop_assert_eq!(view.noise, &noise[..]);
            prop_assert_eq!(&view.ephemeral[..], &noise[..32]);
        }

        #[test]
        fn cookie_round_trip(to: u32, cookie: [u8; 16]) {
            let bytes = CookieReply::encode(to, &cookie, |covered| sum(covered));
            let view = CookieReply::decode(&bytes).unwrap();
            prop_assert_eq!(view.header, Header::cookie(to));
            prop_assert_eq!(view.cookie, &cookie);
            prop_assert_eq!(&view.mac_input[..], &bytes[..32]);
            prop_assert_eq!(*view.mac, sum(view.mac_input));
        }

        #[test]
        fn arbitrary_bytes_are_split_or_refused(mut bytes: Vec<u8>, kind in 1u8..6, plausible: bool) {
            if let (true, Some(head)) = (plausible, bytes.first_chunk_mut::<16>()) {
                *head = [0x56, 1, kind, u8::from(kind == 3 || kind == 5), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            }
            let _ = Hello::decode(&bytes);
            let _ = HelloAck::decode(&bytes);
            let _ = CookieReply::decode(&bytes);
            let _ = Hello::set_cookie_mac(&mut bytes, sum);
        }
    }
}
