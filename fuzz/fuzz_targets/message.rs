//! Messages of an opened payload: reading ends, an error is the last item, and what was read is written and read again,
//! with padding to any length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::wire::{
    Ack, AckBody, MAX_PACKET_NUMBER, Message, MessageError, MessageWriter, Messages, Payload, SignalBody,
};

/// The longest payload that is written here.
const ROOM: usize = 1024;

fn write(messages: &[Message<'_>], pad_to: u16) {
    let mut room = [0xee; ROOM];
    let mut writer = MessageWriter::new(&mut room);
    let mut written = Vec::new();
    for message in messages {
        let before = writer.len();
        match writer.push(message) {
            Ok(()) => {
                assert_eq!(writer.len() - before, message.encoded_len());
                assert!(message.encoded_len() <= Message::MAX_LEN || matches!(message, Message::Fragment(_)));
                written.push(*message);
            }
            Err(_) => {
                assert_eq!(writer.len(), before, "whole or not at all");
                assert!(before + message.encoded_len() > ROOM);
            }
        }
    }
    let (before, target) = (writer.len(), usize::from(pad_to));
    let possible = target <= before || (target <= ROOM && target != before + 1);
    assert_eq!(writer.pad_to(target).is_ok(), possible);
    let len = writer.len();
    assert_eq!(len, if possible { before.max(target) } else { before });
    assert_eq!(Messages::new(&room[..len]).collect::<Result<Vec<_>, _>>(), Ok(written), "padding is passed over");
}

/// What was decoded is valid, and can be built from what it tells.
fn check(message: &Message<'_>) {
    match message {
        Message::Ack(ack) => {
            let ranges: Vec<_> = ack.ranges().collect();
            assert!(ranges.len() <= Ack::MAX_RANGES && ranges.iter().all(|range| range.start() <= range.end()));
            assert!(ranges.windows(2).all(|pair| pair[1].end() + 1 < *pair[0].start()));
            assert!(ranges.first().is_some_and(|range| *range.end() <= MAX_PACKET_NUMBER));
            let built = AckBody::new(ack.path(), ack.delay_us(), ranges).expect("they are in order");
            assert_eq!(built.as_ack(), *ack);
        }
        Message::Signal(signal) => {
            let body = SignalBody {
                stamp: signal.stamp(),
                wants_answer: signal.wants_answer(),
                nat: signal.nat(),
                candidates: signal.candidates().collect(),
                results: signal.results().collect(),
            };
            let mut scratch = [0; SignalBody::SCRATCH_LEN];
            let built = body.to_signal(signal.role(), &mut scratch);
            assert!(built.candidates().eq(signal.candidates()) && built.results().eq(signal.results()));
        }
        Message::Fragment(part) => {
            let end = usize::from(part.offset()) + part.bytes().len();
            assert!(!part.bytes().is_empty() && end <= usize::from(part.total()) && part.total() >= 20);
        }
        Message::Packet { number, .. } => assert!(*number <= MAX_PACKET_NUMBER),
        _ => {}
    }
}

fuzz_target!(|input: (u16, &[u8])| {
    let (pad_to, payload) = input;
    let items: Vec<_> = Messages::new(payload).collect();
    assert!(items.len() <= payload.len() / 3 + 1, "the least message has 3 bytes");
    let errors = items.iter().filter(|item| item.is_err()).count();
    assert!(errors == 0 || (errors == 1 && items.last().is_some_and(Result::is_err)), "an error is the last item");

    let messages: Vec<Message<'_>> = items.iter().filter_map(|item| item.ok()).collect();
    write(&messages, pad_to);
    messages.iter().for_each(check);
    // Behind an unknown type and a longer body the same messages are read.
    let ahead = [&[0x3f, 2, 1, 2, 4, 3, 1, 9, 9], payload].concat();
    assert_eq!(Messages::new(&ahead).skip(1).collect::<Vec<_>>(), items);

    match Payload::classify(payload) {
        Payload::Empty => assert!(payload.is_empty()),
        Payload::Messages => {}
        Payload::Ip(_) => assert_eq!(items, [Err(MessageError::Type(payload[0]))]),
    }
});
