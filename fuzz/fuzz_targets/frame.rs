//! Frames on a stream: however the bytes arrive, the same envelopes come out, the same error ends them, what came out
//! encodes to what went in, and memory follows what has arrived and not what was claimed.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::wire::frame::{self, FrameDecoder, FrameError, MAX_FRAME_LEN, MAX_PREFIX_LEN};
use vine_core::wire::{Writer, varint};
use vine_fuzz::alloc;

/// A stretch of the stream.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Raw(&'a [u8]),
    /// A length, honest or not, and bytes behind it.
    Frame {
        claimed: u32,
        bytes: &'a [u8],
    },
    /// A frame too large to stand in the input; one of sixteen may be as large as a frame can be, or larger.
    Large {
        len: u16,
        beyond: u8,
        fill: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Lengths of the pieces in which the stream arrives, in turn.
    pieces: [u8; 4],
    parts: Vec<Part<'a>>,
}

/// The most bytes of a stream: enough for two of the largest frames.
const MAX_STREAM: usize = 2 * (MAX_FRAME_LEN + MAX_PREFIX_LEN);

fn stream(parts: &[Part<'_>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for part in parts {
        match part {
            Part::Raw(bytes) => stream.extend_from_slice(bytes),
            Part::Frame { claimed, bytes } => {
                stream.extend_from_slice(&varint::encode(u64::from(*claimed % (MAX_FRAME_LEN as u32 + 10))));
                stream.extend_from_slice(bytes);
            }
            Part::Large { len, beyond, fill } => {
                let most = if beyond % 16 == 15 && stream.len() < 8_000 { u16::MAX } else { 300 };
                let len = usize::from(*len % most) + usize::from(*beyond);
                stream.extend_from_slice(&varint::encode(len as u64));
                stream.resize(stream.len() + len, *fill);
            }
        }
        if stream.len() > MAX_STREAM {
            break;
        }
    }
    stream.truncate(MAX_STREAM);
    stream
}

/// Feeds `stream` in pieces. Returns the envelopes and the error that ended them.
fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut envelopes: Vec<Vec<u8>> = Vec::new();
    let (mut since_frame, mut longest) = (0, 0);
    let error = pieces.find_map(|mut piece| {
        loop {
            let before = (piece.len(), alloc::held());
            let outcome = decoder.next_frame(&mut piece).map(|frame| frame.map(|frame| frame.to_vec()));
            since_frame += before.0 - piece.len();
            longest = longest.max(since_frame);
            match outcome {
                Ok(Some(envelope)) => {
                    envelopes.push(envelope);
                    since_frame = 0;
                }
                Ok(None) => {
                    assert!(piece.is_empty(), "all input is taken");
                    return None;
                }
                Err(error) => {
                    let left = piece.len();
                    assert_eq!(decoder.next_frame(&mut piece).map(drop), Err(error), "an error is final");
                    assert_eq!(piece.len(), left, "and takes nothing");
                    return Some(error);
                }
            }
            let grown = alloc::held().saturating_sub(before.1);
            let copied = envelopes.last().map_or(0, Vec::capacity) + envelopes.capacity() * size_of::<Vec<u8>>();
            assert!(grown <= MAX_FRAME_LEN.min(2 * longest) + copied, "{grown} bytes after {longest} arrived");
        }
    });
    (envelopes, error)
}

fuzz_target!(|input: Input<'_>| {
    let stream = stream(&input.parts);
    let whole = decode([&stream[..]].into_iter());

    let mut rest = &stream[..];
    let mut lengths = input.pieces.iter().cycle();
    let pieces = core::iter::from_fn(|| {
        // A piece of 0 counts as one of the whole rest: an endless row of empty ones is no stream.
        // A long stream comes in fewer pieces.
        let scale = 1 + stream.len() / 2_048;
        let length = lengths.next().map_or(1, |length| usize::from(*length) * scale).min(rest.len());
        let (piece, behind) = rest.split_at(if length == 0 { rest.len() } else { length });
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(decode(pieces), whole, "the same, however it arrives");

    let (envelopes, error) = whole;
    let mut out = vec![0; stream.len()];
    let mut writer = Writer::new(&mut out);
    for envelope in &envelopes {
        frame::encode(envelope, &mut writer).expect("the stream had room for it");
    }
    assert_eq!(writer.written(), &stream[..writer.len()], "what came out encodes to what went in");
    assert!(error.is_some() || stream.len() - writer.len() <= MAX_FRAME_LEN + MAX_PREFIX_LEN);
});
