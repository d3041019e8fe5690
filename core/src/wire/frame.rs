//! Frames: envelopes on a byte stream. A frame is the envelope's length as a varint, then the envelope.
//!
//! A length that is overlong, too large or too small for an envelope is a fatal error of that stream at once: its
//! reader and its writer no longer agree on where frames begin, and nothing behind it can be trusted.

use alloc::vec::Vec;

use super::cursor::{BufferFull, Writer};
use super::envelope::{HEADER_LEN, MAX_ENVELOPE_LEN};
use super::varint::{self, VarintError};

/// The largest envelope that a frame carries, in bytes.
pub const MAX_FRAME_LEN: usize = MAX_ENVELOPE_LEN;
/// The most bytes that a frame's length takes.
pub const MAX_PREFIX_LEN: usize = varint::len(MAX_FRAME_LEN as u64);

/// Why a stream cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is not in its shortest form.
    #[error("a frame's length is not in its shortest form")]
    Overlong,
    /// The length exceeds [`MAX_FRAME_LEN`].
    #[error("a frame is longer than {MAX_FRAME_LEN} bytes")]
    TooLarge,
    /// The length is less than an envelope's header.
    #[error("a frame is shorter than an envelope's header")]
    TooShort,
}

/// The bytes that stand before an envelope of `len` bytes on a stream.
pub fn prefix(len: usize) -> Result<heapless::Vec<u8, MAX_PREFIX_LEN>, FrameError> {
    if len < HEADER_LEN {
        return Err(FrameError::TooShort);
    }
    if len > MAX_FRAME_LEN {
        return Err(FrameError::TooLarge);
    }
    Ok(varint::encode(len as u64).into_iter().collect())
}

/// Why an envelope could not be put into a buffer as a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// No frame carries an envelope of that length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The buffer is too small.
    #[error(transparent)]
    Full(#[from] BufferFull),
}

/// Writes `envelope` as a frame. Nothing is written where it does not fit.
pub fn encode(envelope: &[u8], out: &mut Writer<'_>) -> Result<(), EncodeError> {
    let prefix = prefix(envelope.len())?;
    let (head, body) =
        out.claim(prefix.len() + envelope.len())?.split_at_mut_checked(prefix.len()).ok_or(BufferFull)?;
    head.copy_from_slice(&prefix);
    body.copy_from_slice(envelope);
    Ok(())
}

/// Cuts a byte stream into envelopes.
///
/// It holds one frame: at most [`MAX_FRAME_LEN`] bytes, and never more than twice the bytes of the longest frame that
/// has arrived so far, whatever lengths the peer claims.
///
/// ```
/// # use vine_core::wire::frame::{FrameDecoder, FrameError};
/// # fn received(stream: &mut FrameDecoder, bytes: &[u8]) -> Result<(), FrameError> {
/// let mut input = bytes;
/// while let Some(envelope) = stream.next_frame(&mut input)? {
///     // `envelope: &mut [u8]` may be opened in place.
/// }
/// assert!(input.is_empty());
/// # Ok(()) }
/// # received(&mut FrameDecoder::new(), &[16, 0x56]).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct FrameDecoder {
    state: State,
    frame: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Length(heapless::Vec<u8, MAX_PREFIX_LEN>),
    Envelope { len: usize },
    Failed(FrameError),
}

impl Default for State {
    fn default() -> Self {
        State::Length(heapless::Vec::new())
    }
}

impl FrameDecoder {
    /// A decoder at the start of a stream. It allocates nothing yet.
    pub const fn new() -> Self {
        FrameDecoder { state: State::Length(heapless::Vec::new()), frame: Vec::new() }
    }

    /// Takes bytes off the front of `input` until a frame is complete and returns its envelope, or `None` when the
    /// input is used up. Call again while it returns an envelope.
    ///
    /// An error is final: every later call returns it again and takes nothing.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<&mut [u8]>, FrameError> {
        let len = match &mut self.state {
            State::Failed(error) => return Err(*error),
            State::Envelope { len } => *len,
            State::Length(prefix) => match take_length(prefix, input) {
                Ok(None) => return Ok(None),
                Ok(Some(len)) => {
                    self.frame.clear();
                    self.state = State::Envelope { len };
                    len
                }
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            },
        };
        if !self.fill(len, input) {
            return Ok(None);
        }
        self.state = State::default();
        Ok(Some(&mut self.frame))
    }

    /// Moves bytes of an envelope of `len` bytes from `input` to the frame; true when it is complete.
    fn fill(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let missing = len.saturating_sub(self.frame.len());
        let (bytes, behind) = input.split_at_checked(missing).unwrap_or((*input, &[]));
        let needed = self.frame.len() + bytes.len();
        if needed > self.frame.capacity() {
            // Doubling keeps the copies few; the ceiling keeps the allocation within one frame.
            let target = self.frame.capacity().saturating_mul(2).min(len).max(needed);
            self.frame.reserve_exact(target - self.frame.len());
        }
        self.frame.extend_from_slice(bytes);
        *input = behind;
        self.frame.len() == len
    }
}

/// Takes bytes of a length off `input`; the length once it is complete.
fn take_length(prefix: &mut heapless::Vec<u8, MAX_PREFIX_LEN>, input: &mut &[u8]) -> Result<Option<usize>, FrameError> {
    while let Some((&byte, behind)) = input.split_first() {
        // A prefix that is full and still not a number was refused when its last byte came.
        prefix.push(byte).map_err(|_| FrameError::TooLarge)?;
        *input = behind;
        match varint::decode_up_to(prefix, MAX_FRAME_LEN as u64) {
            Ok((len, _)) if len < HEADER_LEN as u64 => return Err(FrameError::TooShort),
            Ok((len, _)) => return Ok(Some(len as usize)),
            Err(VarintError::Truncated) => {}
            Err(VarintError::Overlong) => return Err(FrameError::Overlong),
            Err(VarintError::TooLarge) => return Err(FrameError::TooLarge),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn framed(envelopes: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for envelope in envelopes {
            stream.extend(prefix(envelope.len()).unwrap());
            stream.extend(envelope);
        }
        stream
    }

    fn decode_all(decoder: &mut FrameDecoder, mut input: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame(&mut input)? {
            frames.push(frame.to_vec());
        }
        assert!(input.is_empty(), "input is used up before the decoder asks for more");
        Ok(frames)
    }

    #[test]
    fn a_bad_length_is_fatal_at_the_byte_that_proves_it_and_stays_so() {
        for (bytes, error) in [
            (&[0x00][..], FrameError::TooShort),
            (&[0x0f], FrameError::TooShort),
            (&[0x90, 0x00], FrameError::Overlong),
            (&[0xa0, 0x80, 0x00], FrameError::Overlong),
            (&[0xff, 0xff, 0x7f], FrameError::TooLarge),
            (&[0x80, 0x80, 0x80], FrameError::TooLarge),
            // 65,568: one more than a frame holds.
            (&[0xa0, 0x80, 0x04], FrameError::TooLarge),
        ] {
            let mut decoder = FrameDecoder::new();
            let (last, first) = bytes.split_last().unwrap();
            assert_eq!(decode_all(&mut decoder, first), Ok(vec![]), "{bytes:x?}");
            assert_eq!(decoder.next_frame(&mut &[*last][..]), Err(error), "{bytes:x?}");
            let mut good: &[u8] = &[16];
            assert_eq!(decoder.next_frame(&mut good), Err(error));
            assert_eq!(good.len(), 1);
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = FrameDecoder::new();
        let mut stream = prefix(MAX_FRAME_LEN).unwrap().to_vec();
        assert_eq!(decode_all(&mut decoder, &stream), Ok(vec![]));
        assert_eq!(decoder.frame.capacity(), 0);
        stream.clear();
        stream.resize(100, 0x56);
        assert_eq!(decode_all(&mut decoder, &stream), Ok(vec![]));
        assert_eq!(decoder.frame.capacity(), 100);
        for sent in 101..=MAX_FRAME_LEN {
            let complete = decoder.next_frame(&mut &[0x56][..]).unwrap().is_some();
            assert_eq!(complete, sent == MAX_FRAME_LEN);
            assert!(decoder.frame.capacity() <= MAX_FRAME_LEN.min(2 * sent));
        }
    }

    #[test]
    fn the_encoder_keeps_the_decoders_limits() {
        assert_eq!(prefix(HEADER_LEN - 1), Err(FrameError::TooShort));
        assert_eq!(prefix(MAX_FRAME_LEN + 1), Err(FrameError::TooLarge));
        let mut buf = [0; 20];
        let mut out = Writer::new(&mut buf);
        assert_eq!(encode(&[9; 20], &mut out), Err(EncodeError::Full(BufferFull)));
        assert_eq!(encode(&[9; 2], &mut out), Err(EncodeError::Frame(FrameError::TooShort)));
        encode(&[9; 16], &mut out).unwrap();
        assert_eq!(out.written(), &[16, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    }

    proptest! {
        #[test]
        fn round_trip_in_any_pieces(
            envelopes in prop::collection::vec(prop::collection::vec(any::<u8>(), HEADER_LEN..400), 0..6),
            cuts in prop::collection::vec(1usize..300, 1..20),
        ) {
            let stream = framed(&envelopes);
            let mut decoder = FrameDecoder::new();
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                seen.extend(decode_all(&mut decoder, piece).unwrap());
                rest = behind;
            }
            prop_assert_eq!(seen, envelopes);
        }

        #[test]
        fn arbitrary_bytes_are_cut_or_refused(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut decoder = FrameDecoder::new();
            let mut arrived = 0;
            for piece in &pieces {
                arrived += piece.len();
                let _ = decode_all(&mut decoder, piece);
                prop_assert!(decoder.frame.capacity() <= 2 * arrived);
            }
        }
    }
}
